//! The command queue of the log thread, which a hanging disk may keep from processing commands.
//!
//! The end of the thread is waited for while it makes progress.
//!
//! If the queue is too long, a command replaces earlier ones of its kind for the same service:
//! output written meanwhile is attributed to the last run. User requests are refused then
//! (`is_behind`). The length of the queue is therefore bounded by the number of services.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use mainstay_core::spec::ServiceName;

use super::{Command, Summary};
use mainstay_sys::threads::{self, Stack};

/// The queue length from which commands are merged.
const MANY: usize = 1024;

/// The interval at which the end of the thread is waited for, and the numbers of intervals without
/// progress after which the wait is announced and given up.
const STEP: Duration = Duration::from_secs(1);
const ANNOUNCED_AFTER: u32 = 3;
const GIVEN_UP_AFTER: u32 = 10;

/// The log thread, as seen by the supervisor.
pub(super) struct Worker {
    orders: Orders,
    ended: mpsc::Receiver<Summary>,
}

impl Worker {
    /// Starts the thread, which does `work`.
    pub(super) fn start(
        work: impl FnOnce(&Receiver) -> Summary + Send + 'static,
    ) -> io::Result<Self> {
        let (orders, receiver) = channel();
        let (end, ended) = mpsc::channel();
        threads::spawn("log", Stack::Small, move || drop(end.send(work(&receiver))))?;
        Ok(Self { orders, ended })
    }

    pub(super) fn send(&self, command: Command) {
        self.orders.0.send(command);
    }

    /// Returns another sender, whose drop does not end the thread.
    #[cfg(windows)]
    pub(super) fn feed(&self) -> Feed {
        Feed(Arc::clone(&self.orders.0))
    }

    /// Returns whether the thread seems not to process commands.
    pub(super) fn is_behind(&self) -> bool {
        self.orders.0.waiting().len() >= MANY
    }

    /// Waits for the end of the thread, which a [`Command::Close`] has announced, as long as the
    /// thread makes progress. If it stops making any, calls `announce` after a while. Returns
    /// `None` if it makes none for [`HANGS`]: the thread is left alone then.
    pub(super) fn end(self, mut announce: impl FnMut()) -> Option<Summary> {
        let (mut before, mut idle) = (self.orders.0.moved(), 0);
        loop {
            match self.ended.recv_timeout(STEP) {
                Ok(summary) => return Some(summary),
                Err(mpsc::RecvTimeoutError::Disconnected) => return Some(Summary::default()),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            let now = self.orders.0.moved();
            idle = if now == before { idle + 1 } else { 0 };
            before = now;
            match idle {
                ANNOUNCED_AFTER => announce(),
                GIVEN_UP_AFTER => return None,
                _ => {}
            }
        }
    }
}

/// The time without any progress after which the log thread counts as hanging.
pub const HANGS: Duration = STEP.saturating_mul(GIVEN_UP_AFTER);

/// The supervisor's end. Drop ends the thread, like [`Command::Close`].
struct Orders(Arc<Queue>);

/// The end of a thread that reads a pipe for the log thread.
#[cfg(windows)]
pub(super) struct Feed(Arc<Queue>);

/// The log thread's end.
pub(super) struct Receiver(Arc<Queue>);

#[derive(Default)]
struct Queue {
    waiting: Mutex<VecDeque<Command>>,
    changed: Condvar,
    /// The number of steps that the thread has made.
    moved: AtomicU64,
}

fn channel() -> (Orders, Receiver) {
    let queue = Arc::<Queue>::default();
    (Orders(Arc::clone(&queue)), Receiver(queue))
}

impl Queue {
    fn send(&self, command: Command) {
        let mut void = VecDeque::new();
        let mut waiting = self.waiting();
        if waiting.len() >= MANY {
            let all = mem::take(&mut *waiting).into_iter();
            (void, *waiting) = all.partition(|earlier| command.voids(earlier));
        }
        waiting.push_back(command);
        drop(waiting);
        self.changed.notify_one();
        void.into_iter().for_each(Command::answer_void);
    }

    fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Command>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(windows)]
impl Feed {
    pub(super) fn send(&self, command: Command) {
        self.0.send(command);
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        self.0.send(Command::Close);
    }
}

impl Receiver {
    /// Waits for the next command.
    pub(super) fn take(&self) -> Command {
        let mut waiting = self.0.waiting();
        loop {
            if let Some(command) = waiting.pop_front() {
                self.moves();
                return command;
            }
            let woken = self.0.changed.wait(waiting);
            waiting = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Returns the next command, if there is one.
    #[cfg(any(unix, test))]
    pub(super) fn try_take(&self) -> Option<Command> {
        self.moves();
        self.0.waiting().pop_front()
    }

    /// Waits for the next command until `deadline`.
    #[cfg(windows)]
    pub(super) fn take_until(&self, deadline: std::time::Instant) -> Option<Command> {
        let mut waiting = self.0.waiting();
        loop {
            if let Some(command) = waiting.pop_front() {
                self.moves();
                return Some(command);
            }
            let left = deadline.checked_duration_since(std::time::Instant::now())?;
            let woken = self.0.changed.wait_timeout(waiting, left);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Records that the thread makes progress.
    pub(super) fn moves(&self) {
        self.0.moved.fetch_add(1, Ordering::Relaxed);
    }
}

impl Command {
    /// Returns the service of a command for which only the last one of its kind matters.
    fn repeats(&self) -> Option<&ServiceName> {
        match self {
            Self::Starting { service }
            | Self::Began { service, .. }
            | Self::Expect { service, .. }
            | Self::Remember { service }
            | Self::Recall { service, .. }
            | Self::Drain { service, .. } => Some(service),
            _ => None,
        }
    }

    fn voids(&self, earlier: &Self) -> bool {
        mem::discriminant(self) == mem::discriminant(earlier)
            && self.repeats().is_some()
            && self.repeats() == earlier.repeats()
    }

    fn answer_void(self) {
        match self {
            Self::Recall { done, .. } => done(Vec::new()),
            Self::Drain { done, .. } => done(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn what_waits_for_a_disk_that_hangs_is_bounded() {
        let (orders, receiver) = channel();
        let answered = Arc::new(AtomicUsize::new(0));
        let names = ["a", "b", "c"].map(|name| ServiceName::new(name).expect("a name"));
        for run in 0..100_000_u32 {
            let service = names[run as usize % 3].clone();
            orders.0.send(Command::Starting {
                service: service.clone(),
            });
            orders.0.send(Command::Began {
                service: service.clone(),
                pid: run,
                restart: run,
            });
            let answered = Arc::clone(&answered);
            orders.0.send(Command::Drain {
                service,
                done: Box::new(move || {
                    answered.fetch_add(1, Ordering::Relaxed);
                }),
            });
        }
        let waiting = orders.0.waiting().len();
        assert!(waiting <= MANY + 9, "{waiting} orders wait");
        drop(orders);
        // The last run of each service is known, and every request was or is answered.
        let mut last = Vec::new();
        loop {
            match receiver.take() {
                Command::Began { pid, .. } => last.push(pid),
                Command::Drain { done, .. } => done(),
                Command::Close => break,
                _ => {}
            }
        }
        assert!(last.ends_with(&[99_997, 99_998, 99_999]), "{last:?}");
        assert_eq!(answered.load(Ordering::Relaxed), 100_000);
        assert!(receiver.try_take().is_none());
    }
}
