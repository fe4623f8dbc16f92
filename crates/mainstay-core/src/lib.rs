//! Every decision and every format of mainstay, free of effects.
//!
//! Text becomes a [`manifest`], a manifest becomes a [`spec::Spec`], and the [`engine`] turns events and the time that it is
//! given into actions. Nothing here reads a file, a clock, the environment or a socket: the shells around it do.
#![forbid(unsafe_code)]

pub mod alert;
pub mod engine;
pub mod env_file;
pub mod environment;
pub mod log;
pub mod manifest;
pub mod registry;
pub mod report;
pub mod slab;
pub mod snapshot;
pub mod spec;
pub mod terminal;
pub mod time;
