//! The exit times of children. SIGCHLD reports an exit at once, on a dedicated thread, even while
//! the loop is busy or blocked in a system call.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{array, io, ptr, thread};

use crate::threads::{self, Stack};

/// The number of recent exits recorded. Two at the very same moment may be reported as one.
const KNOWN: usize = 256;

struct Deaths {
    zero: Instant,
    next: AtomicUsize,
    /// The pids, and the nanoseconds since `zero`.
    last: [(AtomicU32, AtomicU64); KNOWN],
}

static DEATHS: OnceLock<Deaths> = OnceLock::new();

/// Starts recording, and blocks the signal on this thread and those that it starts. May be called
/// repeatedly.
pub(super) fn watch() -> io::Result<()> {
    mask(libc::SIG_BLOCK);
    if DEATHS.get().is_some() {
        return Ok(());
    }
    let deaths = DEATHS.get_or_init(|| Deaths {
        zero: Instant::now(),
        next: AtomicUsize::new(0),
        last: array::from_fn(|_| Default::default()),
    });
    let note = |info: &libc::siginfo_t| {
        if matches!(
            info.si_code,
            libc::CLD_EXITED | libc::CLD_KILLED | libc::CLD_DUMPED
        ) {
            // SAFETY: with these codes the signal comes from a child and has a pid.
            deaths.note(unsafe { info.si_pid() }.cast_unsigned());
        }
    };
    // SAFETY: the action reads a clock and stores to atomics, which is allowed in a handler.
    unsafe { signal_hook_registry::register_sigaction(libc::SIGCHLD, note) }?;
    let rest = || {
        mask(libc::SIG_UNBLOCK);
        loop {
            thread::park();
        }
    };
    threads::spawn("children", Stack::Small, rest).map(drop)
}

fn mask(how: libc::c_int) {
    // SAFETY: the set is local, and valid when zero; the old mask is not requested.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigaddset(&mut set, libc::SIGCHLD);
        libc::pthread_sigmask(how, &set, ptr::null_mut());
    }
}

/// Returns when a child that was just reaped ended; the current time if that was not recorded.
pub(super) fn time_of(pid: u32) -> Instant {
    let known = DEATHS.get().and_then(|deaths| deaths.find(pid));
    known.unwrap_or_else(Instant::now)
}

impl Deaths {
    fn note(&self, pid: u32) {
        let (pids, times) = &self.last[self.next.fetch_add(1, Ordering::Relaxed) % KNOWN];
        let nanos = u64::try_from(self.zero.elapsed().as_nanos()).unwrap_or(u64::MAX);
        times.store(nanos, Ordering::Relaxed);
        pids.store(pid, Ordering::Release);
    }

    /// Returns and removes the record, because the pid may be reused by another child.
    fn find(&self, pid: u32) -> Option<Instant> {
        let found = self.last.iter().filter_map(|(pids, times)| {
            let taken = pids.compare_exchange(pid, 0, Ordering::Acquire, Ordering::Relaxed);
            let nanos = taken.ok().map(|_| times.load(Ordering::Relaxed))?;
            Some(self.zero + Duration::from_nanos(nanos))
        });
        found.max()
    }
}
