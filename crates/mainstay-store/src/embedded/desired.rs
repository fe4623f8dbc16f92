//! The desired state of an installed service that persists across daemon restarts: stopped by an
//! operator by name, or halted.
//!
//! `STATE/installed/NAME/desired.json` exists while either applies. The file is written before the
//! request is answered, and replaced atomically. A killed daemon or a replaced container therefore
//! leaves the latest state.

use std::fs;
use std::io;
use std::path::PathBuf;

use mainstay_core::report::LastExit;
use mainstay_sys::guarded;
use mainstay_sys::private::write_private;
use serde::{Deserialize, Serialize};

use super::{FORMAT, place};
use crate::state_dir::StateDir;
use crate::unreadable::{Cause, Unreadable};

/// The file that exists while a service is to stay down.
pub const FILE: &str = "desired.json";

/// The reason why a service stays down until it is started explicitly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum Desired {
    /// An operator stopped it by name.
    Stopped,
    /// The service halted.
    Halted {
        /// The reason.
        why: String,
        /// The number of restarts before it.
        restarts: u64,
        /// The end of its last run.
        last_exit: Option<LastExit>,
    },
}

#[derive(Serialize, Deserialize)]
struct File {
    format: u32,
    #[serde(flatten)]
    desired: Desired,
}

fn path(state: &StateDir, name: &str) -> PathBuf {
    place(state, name).join(FILE)
}

/// Reads the desired state of a service; `None` if it starts as usual.
pub fn read(state: &StateDir, name: &str) -> Result<Option<Desired>, Unreadable> {
    let path = path(state, name);
    let load = || -> Result<Option<Desired>, Cause> {
        let bytes = match guarded::read(&path, guarded::MANIFEST) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        let file: File = serde_json::from_slice(&bytes)?;
        match file.format {
            FORMAT => Ok(Some(file.desired)),
            format => Err(Cause::Format(format)),
        }
    };
    load().map_err(|cause| Unreadable::new(&path, cause))
}

/// Returns the desired state of a service. If it cannot be read, the service stays down.
pub fn read_or_halted(state: &StateDir, name: &str) -> Option<Desired> {
    or_halted(read(state, name))
}

/// Returns the desired state that was read. If it could not be read, the service stays down.
pub fn or_halted(read: Result<Option<Desired>, Unreadable>) -> Option<Desired> {
    let halted = |why: Unreadable| Desired::Halted {
        why: format!("its desired state cannot be read: {why}"),
        restarts: 0,
        last_exit: None,
    };
    read.unwrap_or_else(|why| Some(halted(why)))
}

/// Stores the desired state. `None` removes it.
pub fn write(state: &StateDir, name: &str, desired: Option<&Desired>) -> io::Result<()> {
    let path = path(state, name);
    let Some(desired) = desired.cloned() else {
        return match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    };
    let format = FORMAT;
    let bytes = serde_json::to_vec(&File { format, desired })?;
    write_private(&path, &bytes)?.sync_all()
}
