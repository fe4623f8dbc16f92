//! The descriptor that signals readiness to a supervisor: a newline is written to it, and it is
//! closed.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{FromRawFd as _, RawFd};
use std::sync::{Mutex, PoisonError};

use crate::notify::{READY_FD, READY_PID};

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
pub(crate) fn write_ready() -> io::Result<bool> {
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
    let pid = number(READY_PID);
    let is_other = pid
        .as_ref()
        .is_some_and(|pid| *pid != Ok(std::process::id()));
    if is_other || fd <= libc::STDERR_FILENO || !is_open_for_writing(fd, pid.is_some()) {
        return None;
    }
    // SAFETY: the descriptor is open and, according to the variable, ours. Nothing else in this
    // process uses it. It is closed on `exec` from now on.
    #[expect(unsafe_code, reason = "std takes no descriptor by its number")]
    unsafe {
        libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        Some(File::from_raw_fd(fd))
    }
}

#[expect(unsafe_code, reason = "std asks nothing of a number")]
fn is_open_for_writing(fd: RawFd, may_be_file: bool) -> bool {
    // SAFETY: it takes a number and fails if that is not a descriptor.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    let mut status = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: as above, and it fills a valid buffer.
    if flags == -1 || unsafe { libc::fstat(fd, status.as_mut_ptr()) } == -1 {
        return false;
    }
    // SAFETY: the buffer has been filled.
    let kind = unsafe { status.assume_init() }.st_mode & libc::S_IFMT;
    let is_kind = kind == libc::S_IFIFO || (may_be_file && kind == libc::S_IFREG);
    is_kind && flags & libc::O_ACCMODE != libc::O_RDONLY
}
