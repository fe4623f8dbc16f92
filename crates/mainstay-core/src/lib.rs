//! The decisions and formats of mainstay, free of side effects.
//!
//! A [`manifest`] is parsed into a [`spec::Spec`], and the [`engine`] turns events and the current
//! time into actions. Nothing here reads a file, a clock, the environment or a socket; the
//! surrounding crates do.
#![forbid(unsafe_code)]

pub mod alert;
pub mod engine;
pub mod env_file;
pub mod environment;
pub mod events;
pub mod explain;
pub mod failure;
pub mod layout;
pub mod log;
pub mod manifest;
pub mod registry;
pub mod report;
pub mod slab;
pub mod snapshot;
pub mod spec;
pub mod suggest;
pub mod terminal;
pub mod time;
pub mod trace;
pub mod verify;
pub mod windows;
