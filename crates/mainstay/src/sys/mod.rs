//! System calls that std does not offer, as safe functions: the only module with `unsafe`. It lies
//! below all that runs and manages services.

#[cfg_attr(unix, path = "unix/mod.rs")]
#[cfg_attr(windows, path = "windows/mod.rs")]
mod system;

pub(crate) use system::*;
