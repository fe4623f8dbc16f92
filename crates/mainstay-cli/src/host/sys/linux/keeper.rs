//! A process that does nothing but hold pipes open.
//!
//! What a service wrote and nobody has read yet lives in its pipe, and a pipe without a holder is gone with its content. The keeper
//! outlives a supervisor that is killed, so the last words of a service that ends meanwhile wait for the next one. It is a copy
//! of the supervisor from before its first thread, has given back the memory that it shares with it, and sleeps for ever.

use std::fs;
use std::io::{self, PipeWriter, Write as _};
use std::ops::Range;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::path::{Path, PathBuf};

use super::super::posix::{cvt, wait_for};
use super::{kin, memory};

/// The keeper of this supervisor. Drop leaves it running: see [`Keeper::end`].
#[derive(Debug)]
pub(crate) struct Keeper {
    pid: u32,
    record_path: PathBuf,
}

impl Keeper {
    /// Starts one that holds `pipes`, records it in the file `record_path`, and ends those that are recorded there: their pipes have been
    /// opened again by now. A keeper is recorded before it begins to live, so that none is ever left without a record.
    ///
    /// Call it early: memory that other threads are at is not given back. The keeper survives whatever is sent to the supervisor's group or terminal.
    pub(crate) fn start(pipes: &[BorrowedFd<'_>], record_path: &Path) -> io::Result<Self> {
        let mut fds: Vec<RawFd> = pipes.iter().map(|pipe| pipe.as_raw_fd()).collect();
        fds.sort_unstable();
        let mut unneeded = memory::clean()?;
        let (from_parent, to_keeper) = io::pipe()?;
        // Last: the list lies there.
        unneeded.extend(memory::heap()?);
        let gate = [from_parent.as_raw_fd(), to_keeper.as_raw_fd()];
        // SAFETY: the copy does system calls only, which it may whatever other threads were at, and never returns.
        let pid = match cvt(unsafe { libc::fork() })? {
            0 => hold(&fds, gate, unneeded),
            pid => pid.unsigned_abs(),
        };
        let keeper = Self {
            pid,
            record_path: record_path.to_owned(),
        };
        match keeper.take_over(to_keeper) {
            Ok(()) => Ok(keeper),
            Err(error) => {
                // It ends by itself, unrecorded; its predecessor stays.
                let _ = wait_for(pid);
                Err(error)
            }
        }
    }

    /// Records the keeper, then lets it begin, then ends those before it.
    fn take_over(&self, mut gate: PipeWriter) -> io::Result<()> {
        let stat = kin::Stat::of(self.pid).ok_or(io::ErrorKind::NotFound)?;
        let (pid, start) = stat.identity();
        let line = format!("{pid} {start}\n");
        let predecessors = fs::read_to_string(&self.record_path).unwrap_or_default();
        let mut options = fs::OpenOptions::new();
        let mut record = options.append(true).create(true).open(&self.record_path)?;
        record.write_all(line.as_bytes())?;
        gate.write_all(b".")?;
        end_all(&predecessors);
        let new_path = self.record_path.with_extension("new");
        // Where this fails the record still names processes that are gone, which does no harm.
        let _ = fs::write(&new_path, line).and_then(|()| fs::rename(&new_path, &self.record_path));
        Ok(())
    }

    /// Records it again, where the record is lost.
    pub(crate) fn record_again(&self) -> io::Result<()> {
        let stat = kin::Stat::of(self.pid).ok_or(io::ErrorKind::NotFound)?;
        let (pid, start) = stat.identity();
        fs::write(&self.record_path, format!("{pid} {start}\n"))
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Kills the keepers that a dead supervisor left, if they are still the processes that the record names.
    pub(crate) fn end_recorded(record_path: &Path) {
        if let Ok(record) = fs::read_to_string(record_path) {
            end_all(&record);
            let _ = fs::remove_file(record_path);
        }
    }

    /// Ends it: what the pipes still hold goes with them unless others hold them too. It must not have been waited for.
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

/// Kills the processes that a record names, one a line, where they are still those.
fn end_all(record: &str) {
    record.lines().for_each(end);
}

fn end(line: &str) {
    let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(start))) = (numbers.next(), numbers.next()) else {
        return;
    };
    let Ok(pid) = u32::try_from(pid) else { return };
    let is_keeper = || kin::Stat::of(pid).is_some_and(|stat| stat.identity() == (pid, start));
    // One that cannot be killed holds pipes that others hold too: no harm.
    let _ = kin::signal_if(pid, libc::SIGKILL, is_keeper);
}

/// The keeper's whole life. `fds` is sorted. It begins when a byte comes through the `gate`, and ends where none does.
fn hold(fds: &[RawFd], [gate, other_end]: [RawFd; 2], unneeded: Vec<Range<usize>>) -> ! {
    // SAFETY: system calls on numbers and on our own stack, in a process of its own; what fails is left as it is.
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
        let unneeded = std::mem::ManuallyDrop::new(unneeded);
        unneeded.iter().cloned().for_each(memory::forget);
        loop {
            libc::pause();
        }
    }
}
