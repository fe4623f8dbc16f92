//! A process whose only purpose is to hold pipes open.
//!
//! Output that a service wrote and nothing has read yet is buffered in its pipe, and a pipe without
//! a holder loses its content. The keeper outlives a supervisor that is killed, so the recent
//! output of a service that ends meanwhile is preserved for the next supervisor. It is a copy of
//! the supervisor from before its first thread, has released the memory that it shares with it, and
//! sleeps forever.

use std::fs;
use std::io::{self, PipeWriter, Write as _};
use std::ops::Range;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::path::{Path, PathBuf};

use super::{memory, proc, signal};
use crate::posix::{cvt, wait_for};

/// The keeper of this supervisor. Drop leaves it running; see [`Keeper::end`].
#[derive(Debug)]
pub struct Keeper {
    pid: u32,
    record_path: PathBuf,
}

impl Keeper {
    /// Starts a keeper that holds `pipes`, records it in the file `record_path`, and ends the
    /// keepers recorded there before, whose pipes have been opened again by now. A keeper is
    /// recorded before it starts holding pipes, so that none is ever left without a record.
    ///
    /// Call it early, because memory in use by other threads is not released. The keeper survives
    /// signals sent to the supervisor's process group or terminal.
    pub fn start(pipes: &[BorrowedFd<'_>], record_path: &Path) -> io::Result<Self> {
        let mut fds: Vec<RawFd> = pipes.iter().map(|pipe| pipe.as_raw_fd()).collect();
        fds.sort_unstable();
        let mut unneeded = memory::clean()?;
        let stack = memory::stack()?;
        let (from_parent, to_keeper) = io::pipe()?;
        // Last, because the list itself is on the heap.
        unneeded.extend(memory::heap()?);
        let gate = [from_parent.as_raw_fd(), to_keeper.as_raw_fd()];
        // SAFETY: the copy only makes system calls, which are allowed regardless of the state of
        // other threads, and never returns.
        let pid = match cvt(unsafe { libc::fork() })? {
            0 => hold(&fds, gate, stack, unneeded),
            pid => pid.unsigned_abs(),
        };
        let keeper = Self {
            pid,
            record_path: record_path.to_owned(),
        };
        match keeper.take_over(to_keeper) {
            Ok(()) => Ok(keeper),
            Err(error) => {
                // The new keeper exits by itself, unrecorded; its predecessor stays.
                let _ = wait_for(pid);
                Err(error)
            }
        }
    }

    /// Records the keeper, then starts it, then ends its predecessors.
    fn take_over(&self, mut gate: PipeWriter) -> io::Result<()> {
        let stat = proc::Stat::of(self.pid).ok_or(io::ErrorKind::NotFound)?;
        let (pid, start) = stat.identity();
        let line = format!("{pid} {start}\n");
        let predecessors = fs::read_to_string(&self.record_path).unwrap_or_default();
        let mut options = fs::OpenOptions::new();
        let mut record = options.append(true).create(true).open(&self.record_path)?;
        record.write_all(line.as_bytes())?;
        gate.write_all(b".")?;
        end_all(&predecessors);
        let new_path = self.record_path.with_extension("new");
        // If this fails, the record still names processes that no longer exist, which is harmless.
        let _ = fs::write(&new_path, line).and_then(|()| fs::rename(&new_path, &self.record_path));
        Ok(())
    }

    /// Writes the record again after it was lost.
    pub fn record_again(&self) -> io::Result<()> {
        let stat = proc::Stat::of(self.pid).ok_or(io::ErrorKind::NotFound)?;
        let (pid, start) = stat.identity();
        fs::write(&self.record_path, format!("{pid} {start}\n"))
    }

    /// Returns the keeper's pid.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Kills the keepers that a dead supervisor left, if they are still the processes that the
    /// record names.
    pub fn end_recorded(record_path: &Path) {
        if let Ok(record) = fs::read_to_string(record_path) {
            end_all(&record);
            let _ = fs::remove_file(record_path);
        }
    }

    /// Ends the keeper. The content of the pipes is lost unless another process also holds them.
    /// The keeper must not have been waited for.
    pub fn end(self) {
        let pid = self.pid.cast_signed();
        // SAFETY: a child of this process, which has not been waited for unless it is gone already;
        // no memory is passed.
        unsafe {
            libc::kill(pid, libc::SIGKILL);
            libc::waitpid(pid, std::ptr::null_mut(), 0);
        }
        // If this fails, the next supervisor looks for a process that no longer exists.
        let _ = fs::remove_file(&self.record_path);
    }
}

/// Kills the processes that a record names, one per line, if they are still the same processes.
fn end_all(record: &str) {
    record.lines().for_each(end);
}

fn end(line: &str) {
    let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(start))) = (numbers.next(), numbers.next()) else {
        return;
    };
    let Ok(pid) = u32::try_from(pid) else { return };
    let is_keeper = || proc::Stat::of(pid).is_some_and(|stat| stat.identity() == (pid, start));
    // A keeper that cannot be killed holds pipes that other processes also hold, which is harmless.
    let _ = signal::send_if(pid, libc::SIGKILL, is_keeper);
}

/// Runs the keeper. `fds` is sorted. It starts when a byte arrives through the `gate`, and exits if
/// none does.
fn hold(
    fds: &[RawFd],
    [gate, other_end]: [RawFd; 2],
    stack: Option<Range<usize>>,
    unneeded: Vec<Range<usize>>,
) -> ! {
    // SAFETY: system calls on numbers and on this stack, in a separate process; a failed call
    // changes nothing.
    unsafe {
        let mut all = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
        libc::setsid();
        libc::prctl(libc::PR_SET_NAME, c"mainstay-keeper".as_ptr());
        let root = c"/".as_ptr();
        libc::chdir(root);
        libc::close(other_end);
        let mut byte = 0_u8;
        if libc::read(gate, (&raw mut byte).cast(), 1) != 1 {
            libc::_exit(0);
        }
        let mut free: libc::c_uint = 0;
        for fd in fds {
            let fd = fd.unsigned_abs();
            if fd > free {
                libc::syscall(libc::SYS_close_range, free, fd - 1, 0);
            }
            free = fd + 1;
        }
        libc::syscall(libc::SYS_close_range, free, libc::c_uint::MAX, 0);
        if let Some(stack) = stack {
            memory::forget_below(stack);
        }
        let unneeded = std::mem::ManuallyDrop::new(unneeded);
        unneeded.iter().cloned().for_each(memory::forget);
        loop {
            libc::pause();
        }
    }
}
