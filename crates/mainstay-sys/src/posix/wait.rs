//! Reaping and signalling of processes by pid.

use std::ffi::c_int;
use std::{io, ptr};

use super::cvt;
use crate::process::Exit;

/// Converts a status from `waitpid(2)`.
pub(crate) fn exit(status: c_int) -> Exit {
    let by_signal = libc::WIFSIGNALED(status);
    Exit {
        code: (!by_signal).then(|| libc::WEXITSTATUS(status)),
        signal: by_signal.then(|| libc::WTERMSIG(status)),
        core_dumped: by_signal && libc::WCOREDUMP(status),
    }
}

/// Reaps one ended child without blocking: the given one, or any child for -1. Returns `None` if
/// there is none.
pub(crate) fn wait(pid: c_int) -> Option<(u32, c_int)> {
    let mut status = 0;
    loop {
        // SAFETY: `status` outlives the call, which writes nothing else.
        match unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) } {
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            ..=0 => return None,
            pid => return Some((pid.unsigned_abs(), status)),
        }
    }
}

/// Waits for the child and discards its status.
pub(crate) fn wait_for(pid: u32) -> io::Result<()> {
    // SAFETY: a null status is allowed.
    cvt(unsafe { libc::waitpid(pid.cast_signed(), ptr::null_mut(), 0) }).map(drop)
}

/// Calls `kill(2)`. The caller ensures that `pid` (or the group, if negative) is the intended one.
/// A process that no longer exists is not an error.
pub(crate) fn kill(pid: c_int, signal: c_int) -> io::Result<()> {
    // SAFETY: no memory is involved.
    match cvt(unsafe { libc::kill(pid, signal) }) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        result => result.map(drop),
    }
}
