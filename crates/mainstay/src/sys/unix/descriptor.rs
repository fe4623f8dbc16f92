//! Descriptors that the parent process passes by their number.

use std::fs::File;
use std::os::fd::{FromRawFd as _, RawFd};

/// The kinds of file that a descriptor may refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Pipe,
    PipeOrFile,
}

/// Takes ownership of a descriptor that the parent process has passed to this one, so that child
/// processes do not inherit it. Returns `None` if it is a standard stream, is not open for writing,
/// or is of another kind.
pub(crate) fn inherited(fd: RawFd, kind: Kind) -> Option<File> {
    if fd <= libc::STDERR_FILENO || !is_open_for_writing(fd, kind) {
        return None;
    }
    // SAFETY: the descriptor is open and, according to the parent process, ours. Nothing else in
    // this process uses it. It is closed on `exec` from now on.
    #[expect(unsafe_code, reason = "std takes no descriptor by its number")]
    unsafe {
        libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        Some(File::from_raw_fd(fd))
    }
}

#[expect(unsafe_code, reason = "std asks nothing of a number")]
fn is_open_for_writing(fd: RawFd, expected: Kind) -> bool {
    // SAFETY: it takes a number and fails if that is not a descriptor.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    let mut status = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: as above, and it fills a valid buffer.
    if flags == -1 || unsafe { libc::fstat(fd, status.as_mut_ptr()) } == -1 {
        return false;
    }
    // SAFETY: the buffer has been filled.
    let is_kind = match unsafe { status.assume_init() }.st_mode & libc::S_IFMT {
        libc::S_IFIFO => true,
        libc::S_IFREG => expected == Kind::PipeOrFile,
        _ => false,
    };
    is_kind && flags & libc::O_ACCMODE != libc::O_RDONLY
}
