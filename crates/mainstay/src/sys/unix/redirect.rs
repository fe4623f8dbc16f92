//! Where this process writes what it says.

use std::io::{self, PipeWriter};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// Standard output and standard error as they were. Dropped, they are that again.
pub(crate) struct Redirected([(OwnedFd, i32); 2]);

/// Has standard output and standard error of the whole process go there.
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
        // SAFETY: it was just made, for nobody else.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}

/// In the place of what has this number.
#[expect(unsafe_code, reason = "std does not replace standard streams")]
fn put(fd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open; the one that is replaced is a standard stream, which nobody owns.
    match unsafe { libc::dup2(fd.as_raw_fd(), number) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

impl Drop for Redirected {
    fn drop(&mut self) {
        for (before, number) in &self.0 {
            // Where it fails, what is said is lost: there is no other place to say so.
            let _ = put(before.as_fd(), *number);
        }
    }
}
