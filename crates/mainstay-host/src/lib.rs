//! The supervisor: it performs the engine's decisions on real processes, files and sockets.
//!
//! - [`run`]: one supervisor, from its lock to its exit; see `host/mod.rs` for its loop
//! - [`orphans`], [`stop_without_supervisor`]: services whose supervisor was killed
//! - [`definitions`]: the services that are installed into the embedded manager, as it reads them
//! - [`manifest_file`]: manifests in files
//! - [`launch`], [`runs`], [`preflight`]: the environment and the programs of a start, and what is
//!   checked before it; installations check the same
//! - [`agent`]: requests that leave this machine; [`webhook`]: those that deliver alerts
//! - [`output`], [`table`], [`progress`]: what a terminal gets to see
//!
//! The crate does not install anything, and it sends no requests to supervisors: that is done by
//! the command, above it.
#![forbid(unsafe_code)]

pub mod agent;
pub mod definitions;
mod host;
pub mod launch;
pub mod manifest_file;
pub mod observe;
pub mod output;
mod owner;
pub mod preflight;
pub mod progress;
pub mod runs;
pub mod table;
mod text;
pub mod webhook;

pub use self::host::{
    Options, Orphans, Output, Services, Started, Viewers, orphans, run, stop_without_supervisor,
};
