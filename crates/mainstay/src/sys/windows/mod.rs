//! Windows: the Service Control Manager, the Event Log, and this process's console.

mod console;
pub(crate) mod event_log;
#[cfg(feature = "message-table")]
mod message_table;
mod redirect;
mod scm;
mod service;

pub(crate) use console::on_event;
pub(crate) use redirect::{Redirected, default_log_dir, redirect};
pub(crate) use scm::Manager as ServiceControlManager;
pub(crate) use service::{Main, Request, StatusHandle, dispatch};

use std::ffi::OsStr;
use std::os::windows::ffi::OsStrExt as _;

/// Converts a string to UTF-16 with a NUL.
fn wide(text: impl AsRef<OsStr>) -> Vec<u16> {
    text.as_ref().encode_wide().chain([0]).collect()
}
