//! The descriptor that signals readiness to a supervisor: a newline is written to it, and it is
//! closed.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::RawFd;
use std::sync::{Mutex, PoisonError};

use super::{READY_FD, READY_PID};
use crate::sys::{self, Kind};

/// The state of the descriptor in this process.
enum Descriptor {
    NotLookedFor,
    /// Owned by this process. Child processes do not inherit it.
    Waiting(File),
    /// No supervisor is waiting, or it has been notified.
    Gone,
}

static DESCRIPTOR: Mutex<Descriptor> = Mutex::new(Descriptor::NotLookedFor);

/// Takes ownership of the descriptor, if there is one, before any child process can inherit it.
pub(crate) fn claim_ready_descriptor() {
    let mut descriptor = DESCRIPTOR.lock().unwrap_or_else(PoisonError::into_inner);
    if matches!(*descriptor, Descriptor::NotLookedFor) {
        *descriptor = find().map_or(Descriptor::Gone, Descriptor::Waiting);
    }
}

/// Notifies the waiting supervisor. Returns `Ok(true)` if there was one, which happens once.
pub(super) fn write_ready() -> io::Result<bool> {
    claim_ready_descriptor();
    let mut descriptor = DESCRIPTOR.lock().unwrap_or_else(PoisonError::into_inner);
    match std::mem::replace(&mut *descriptor, Descriptor::Gone) {
        Descriptor::Waiting(mut file) => file.write_all(b"\n").map(|()| true),
        Descriptor::NotLookedFor | Descriptor::Gone => Ok(false),
    }
}

/// Returns the descriptor that the variables name, if it can be meant for this process. The
/// variables may be inherited, and the number may then refer to something else. If a process ID is
/// set, it must be ours. If none is set (dinit), the descriptor must be the end of a pipe.
fn find() -> Option<File> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u32>());
    let fd = RawFd::try_from(number(READY_FD)?.ok()?).ok()?;
    let kind = match number(READY_PID) {
        None => Kind::Pipe,
        Some(pid) if pid == Ok(std::process::id()) => Kind::PipeOrFile,
        Some(_) => return None,
    };
    sys::inherited(fd, kind)
}
