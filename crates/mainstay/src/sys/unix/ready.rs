//! The descriptor by which supervisors are told of readiness: a newline on it, and its end.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{FromRawFd as _, RawFd};
use std::sync::{Mutex, PoisonError};

use crate::notify::{READY_FD, READY_PID};

/// What of it is known to this process.
enum Descriptor {
    NotLookedFor,
    /// It is ours alone: what we start does not inherit it.
    Waiting(File),
    /// Nobody waits, or has been told.
    Gone,
}

static DESCRIPTOR: Mutex<Descriptor> = Mutex::new(Descriptor::NotLookedFor);

/// Takes it, if there is one, before anything is started that would inherit it.
pub(crate) fn claim_ready_descriptor() {
    let mut descriptor = DESCRIPTOR.lock().unwrap_or_else(PoisonError::into_inner);
    if matches!(*descriptor, Descriptor::NotLookedFor) {
        *descriptor = find().map_or(Descriptor::Gone, Descriptor::Waiting);
    }
}

/// Tells whoever waits; `Ok(true)` if somebody did, once.
pub(crate) fn write_ready() -> io::Result<bool> {
    claim_ready_descriptor();
    let mut descriptor = DESCRIPTOR.lock().unwrap_or_else(PoisonError::into_inner);
    match std::mem::replace(&mut *descriptor, Descriptor::Gone) {
        Descriptor::Waiting(mut file) => file.write_all(b"\n").map(|()| true),
        Descriptor::NotLookedFor | Descriptor::Gone => Ok(false),
    }
}

/// What the variables name, where it can be meant for us: they may be inherited, and the number stand for anything then. A supervisor that
/// names the process means it; one that does not (dinit) gives the end of a pipe.
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
    // SAFETY: it is open, and ours by what the variable says; nothing else in this process knows it. It is closed on `exec` from now on.
    #[expect(unsafe_code, reason = "std takes no descriptor by its number")]
    unsafe {
        libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        Some(File::from_raw_fd(fd))
    }
}

#[expect(unsafe_code, reason = "std asks nothing of a number")]
fn is_open_for_writing(fd: RawFd, may_be_file: bool) -> bool {
    // SAFETY: it takes a number, and fails where that is no descriptor.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    let mut status = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the same; it fills what is there for it.
    if flags == -1 || unsafe { libc::fstat(fd, status.as_mut_ptr()) } == -1 {
        return false;
    }
    // SAFETY: it has been filled.
    let kind = unsafe { status.assume_init() }.st_mode & libc::S_IFMT;
    let is_kind = kind == libc::S_IFIFO || (may_be_file && kind == libc::S_IFREG);
    is_kind && flags & libc::O_ACCMODE != libc::O_RDONLY
}
