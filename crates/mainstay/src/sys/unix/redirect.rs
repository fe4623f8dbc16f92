//! Redirection of this process's standard output and standard error.

use std::io::{self, PipeWriter};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// The previous standard output and standard error, which are restored on drop.
pub(crate) struct Redirected([(OwnedFd, i32); 2]);

/// Redirects standard output and standard error of the whole process to these pipes.
pub(crate) fn redirect(stdout: PipeWriter, stderr: PipeWriter) -> io::Result<Redirected> {
    let before = Redirected([
        (duplicate(io::stdout().as_fd())?, libc::STDOUT_FILENO),
        (duplicate(io::stderr().as_fd())?, libc::STDERR_FILENO),
    ]);
    for (end, number) in [(stdout, libc::STDOUT_FILENO), (stderr, libc::STDERR_FILENO)] {
        put(end.as_fd(), number)?;
    }
    Ok(before)
}

#[expect(unsafe_code, reason = "a descriptor that children do not inherit")]
fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is open.
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the descriptor was just created and has no other owner.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}

/// Replaces the descriptor with this number.
#[expect(unsafe_code, reason = "std does not replace standard streams")]
fn put(fd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open. The replaced one is a standard stream, which has no owner.
    match unsafe { libc::dup2(fd.as_raw_fd(), number) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

impl Drop for Redirected {
    fn drop(&mut self) {
        for (before, number) in &self.0 {
            // If this fails, further output is lost, and there is no place to report it.
            let _ = put(before.as_fd(), *number);
        }
    }
}
