//! A process that does nothing but hold pipes open.
//!
//! What a service wrote and nobody has read yet lives in its pipe, and a pipe without a holder is gone with its content. The keeper
//! outlives a supervisor that is killed, so the last words of a service that ends meanwhile wait for the next one. It is a copy
//! of the supervisor from before its first thread, has given back the memory that it shares with it, and sleeps for ever.

use std::fs;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::path::{Path, PathBuf};

use super::super::posix::cvt;
use super::{kin, memory};

/// The keeper of this supervisor. Drop leaves it running: see [`Keeper::end`].
#[derive(Debug)]
pub(crate) struct Keeper {
    pid: u32,
    record_path: PathBuf,
}

impl Keeper {
    /// Starts one that holds `pipes`, writes down in the file `record_path` who it is, and ends the one whose record lay there
    /// before: its pipes have been opened again by now.
    ///
    /// Call it early: memory that other threads are at is not given back. The keeper survives whatever is sent to the supervisor's group or terminal.
    pub(crate) fn start(pipes: &[BorrowedFd<'_>], record_path: &Path) -> io::Result<Self> {
        let mut fds: Vec<RawFd> = pipes.iter().map(|pipe| pipe.as_raw_fd()).collect();
        fds.sort_unstable();
        let mut unneeded = memory::clean()?;
        // Last: the list lies there.
        unneeded.extend(memory::heap()?);
        // SAFETY: the copy does system calls only, which it may whatever other threads were at, and never returns.
        let pid = match cvt(unsafe { libc::fork() })? {
            0 => hold(&fds, unneeded),
            pid => pid.unsigned_abs(),
        };
        let keeper = Self {
            pid,
            record_path: record_path.to_owned(),
        };
        let predecessor = fs::read_to_string(record_path);
        let recorded = kin::Stat::of(pid)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
            .and_then(|stat| {
                let (pid, start) = stat.identity();
                fs::write(record_path, format!("{pid} {start}\n"))
            });
        match recorded {
            Ok(()) => {
                predecessor.iter().for_each(|record| end(record));
                Ok(keeper)
            }
            Err(error) => {
                keeper.end();
                Err(error)
            }
        }
    }

    /// Kills the keeper that a dead supervisor left, if it is still the process that the record speaks of.
    pub(crate) fn end_recorded(record_path: &Path) {
        if let Ok(record) = fs::read_to_string(record_path) {
            end(&record);
            let _ = fs::remove_file(record_path);
        }
    }

    /// Ends it: what the pipes still hold goes with them unless others hold them too.
    pub(crate) fn end(self) {
        let pid = self.pid.cast_signed();
        // SAFETY: our own child, which nobody has waited for unless it is gone already; no memory is passed.
        unsafe {
            libc::kill(pid, libc::SIGKILL);
            libc::waitpid(pid, std::ptr::null_mut(), 0);
        }
        // Where this fails the next supervisor looks for a process that is not there.
        let _ = fs::remove_file(&self.record_path);
    }
}

/// Kills the process that a record speaks of, if it is still that one.
fn end(record: &str) {
    let mut numbers = record.split_ascii_whitespace().map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(start))) = (numbers.next(), numbers.next()) else {
        return;
    };
    let Ok(pid) = u32::try_from(pid) else { return };
    let is_keeper = || kin::Stat::of(pid).is_some_and(|stat| stat.identity() == (pid, start));
    // One that cannot be killed holds pipes that others hold too: no harm.
    let _ = kin::signal_if(pid, libc::SIGKILL, is_keeper);
}

/// The keeper's whole life. `fds` is sorted.
fn hold(fds: &[RawFd], unneeded: Vec<Range<usize>>) -> ! {
    // SAFETY: system calls on numbers and on our own stack, in a process of its own; what fails is left as it is.
    unsafe {
        let mut all = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
        libc::setsid();
        libc::prctl(libc::PR_SET_NAME, c"mainstay-keeper".as_ptr());
        let root = c"/".as_ptr();
        libc::chdir(root);
        let mut free: libc::c_uint = 0;
        for fd in fds {
            let fd = fd.unsigned_abs();
            if fd > free {
                libc::syscall(libc::SYS_close_range, free, fd - 1, 0);
            }
            free = fd + 1;
        }
        libc::syscall(libc::SYS_close_range, free, libc::c_uint::MAX, 0);
        let unneeded = std::mem::ManuallyDrop::new(unneeded);
        unneeded.iter().cloned().for_each(memory::forget);
        loop {
            libc::pause();
        }
    }
}
