//! Descriptors of this process, and their numbers in a child.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::{Stream, cvt};

/// Duplicates the sockets to descriptors above the range that they are to occupy.
pub(super) fn above(sockets: &[OwnedFd]) -> io::Result<Vec<OwnedFd>> {
    let lowest = 3 + c_int::try_from(sockets.len()).map_err(io::Error::other)?;
    let duplicate = |socket: &OwnedFd| {
        // SAFETY: the descriptor is open while it is borrowed, and only this code owns the new one.
        unsafe {
            let moved = libc::fcntl(socket.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest);
            Ok(OwnedFd::from_raw_fd(cvt(moved)?))
        }
    };
    sockets.iter().map(duplicate).collect()
}

/// Duplicates `stream` above 2 if it is among the standard streams, which the child's own would
/// overwrite.
pub(super) fn above_standard(stream: Stream<'_>) -> io::Result<Option<OwnedFd>> {
    if stream.as_raw_fd() > 2 {
        return Ok(None);
    }
    // SAFETY: the descriptor is open while it is borrowed, and only this code owns the new one.
    unsafe {
        let moved = cvt(libc::fcntl(stream.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3))?;
        Ok(Some(OwnedFd::from_raw_fd(moved)))
    }
}

/// Marks every descriptor above 2, own or inherited, as close-on-exec, and returns whether that
/// succeeded. Without the system call (Linux 5.11, FreeBSD 12.2), only [`seal_inherited`] and
/// `O_CLOEXEC` apply.
///
/// # Safety
/// Affects every descriptor of the process. It is harmless to those that are close-on-exec anyway,
/// as all of this program's are.
pub(super) unsafe fn close_on_exec() -> bool {
    // SAFETY: no memory is involved.
    #[cfg(target_os = "linux")]
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        ) == 0
    }
    #[cfg(not(target_os = "linux"))]
    false
}

/// Marks the descriptors that this process inherited, except the standard streams, as
/// close-on-exec, so that no service inherits them in turn.
pub(crate) fn seal_inherited() {
    // SAFETY: everything that this program opens is close-on-exec already.
    if unsafe { close_on_exec() } {
        return;
    }
    let fds = std::fs::read_dir("/dev/fd").into_iter().flatten().flatten();
    for fd in fds
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
    {
        // SAFETY: no memory is involved; a number that is closed by now is refused.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}
