//! The command queue of the log thread, which a hanging disk may keep from processing commands.
//!
//! If the queue is too long, a command replaces earlier ones of its kind for the same service:
//! output written meanwhile is attributed to the last run. User requests are refused then
//! ([`Orders::is_behind`]). The length of the queue is therefore bounded by the number of services.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use mainstay_core::spec::ServiceName;

use super::Command;

/// The queue length from which commands are merged.
const MANY: usize = 1024;

/// The supervisor's end. Drop ends the thread, like [`Command::Close`].
pub(super) struct Orders(Arc<Queue>);

/// The log thread's end.
pub(super) struct Receiver(Arc<Queue>);

#[derive(Default)]
struct Queue {
    waiting: Mutex<VecDeque<Command>>,
    changed: Condvar,
}

pub(super) fn channel() -> (Orders, Receiver) {
    let queue = Arc::<Queue>::default();
    (Orders(Arc::clone(&queue)), Receiver(queue))
}

impl Orders {
    pub(super) fn send(&self, command: Command) {
        let mut void = VecDeque::new();
        let mut waiting = self.0.waiting();
        if waiting.len() >= MANY {
            let all = mem::take(&mut *waiting).into_iter();
            (void, *waiting) = all.partition(|earlier| command.voids(earlier));
        }
        waiting.push_back(command);
        drop(waiting);
        self.0.changed.notify_one();
        void.into_iter().for_each(Command::answer_void);
    }

    /// Returns whether the thread seems not to process commands.
    pub(super) fn is_behind(&self) -> bool {
        self.0.waiting().len() >= MANY
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        self.send(Command::Close);
    }
}

impl Receiver {
    /// Waits for the next command.
    pub(super) fn take(&self) -> Command {
        let mut waiting = self.0.waiting();
        loop {
            if let Some(command) = waiting.pop_front() {
                return command;
            }
            let woken = self.0.changed.wait(waiting);
            waiting = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Returns the next command, if there is one.
    pub(super) fn try_take(&self) -> Option<Command> {
        self.0.waiting().pop_front()
    }
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Command>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
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
            orders.send(Command::Starting {
                service: service.clone(),
            });
            orders.send(Command::Began {
                service: service.clone(),
                pid: run,
                restart: run,
            });
            let answered = Arc::clone(&answered);
            orders.send(Command::Drain {
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
