//! Everything that mainstay keeps on disk about services, apart from their logs.
//!
//! - [`state_dir`]: the state directory, its layout and permissions, and the lock that makes one
//!   supervisor per directory
//! - [`ledger`]: the data from which a new supervisor adopts the services of a killed one
//! - [`programs`]: programs delivered with an update
//! - [`registry`]: the database of definitions and their history
//! - [`snapshot`]: snapshots of services' state directories
//! - [`embedded`]: the services installed into the embedded manager: their definitions and desired
//!   states
//! - [`halted`], [`completed`], [`start_failure`]: notes that a host leaves for later commands
//!
//! Formats and permitted transitions are decided in `mainstay_core`; this crate reads and writes.
//! It does not know the supervisor, its control socket or the system's service managers.
#![forbid(unsafe_code)]

pub mod completed;
pub mod embedded;
mod file_failure;
pub mod halted;
pub mod ledger;
pub mod programs;
pub mod registry;
pub mod snapshot;
pub mod start_failure;
pub mod state_dir;
mod unreadable;

pub use file_failure::file_failure;
pub use unreadable::Unreadable;
