//! An epoll set (epoll(7)) that the event loop watches as a whole, so that descriptors can be added
//! and removed without a task for each.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{Timespec, epoll};
use tokio::io::unix::AsyncFd;

/// An edge-triggered epoll set: each change of a watched descriptor ends one [`Watches::changed`].
pub(super) struct Watches {
    set: AsyncFd<OwnedFd>,
    /// The keys of changed descriptors, until they are taken.
    changed: RefCell<Vec<u64>>,
}

impl Watches {
    /// The key of descriptors that only wake the waiter.
    pub(super) const NO_KEY: u64 = 0;

    /// Creates an empty set. Requires a tokio runtime with I/O.
    pub(super) fn new() -> io::Result<Self> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // SAFETY: the registered object owns the descriptor and never replaces it.
        let set = unsafe { AsyncFd::register(set) }?;
        Ok(Self {
            set,
            changed: RefCell::default(),
        })
    }

    /// Watches `what` until it is closed or [removed](Watches::remove). A change that happened
    /// before counts.
    pub(super) fn add(
        &self,
        what: impl AsFd,
        key: u64,
        changes: epoll::EventFlags,
    ) -> io::Result<()> {
        let data = epoll::EventData::new_u64(key);
        Ok(epoll::add(
            &self.set,
            what,
            data,
            changes | epoll::EventFlags::ET,
        )?)
    }

    /// Removes `what` from the set.
    pub(super) fn remove(&self, what: impl AsFd) {
        // Fails if it is not in the set.
        let _ = epoll::delete(&self.set, what);
    }

    /// Resolves when something has changed. Cancel-safe.
    pub(super) async fn changed(&self) {
        let Ok(mut ready) = self.set.readable().await else {
            return std::future::pending().await;
        };
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }; 32];
        while let Ok(count) = epoll::wait(&self.set, &mut events, Some(&Timespec::default())) {
            let keys = events[..count].iter().map(|event| event.data.u64());
            let keys = keys.filter(|key| *key != Self::NO_KEY);
            self.changed.borrow_mut().extend(keys);
            if count < events.len() {
                break;
            }
        }
        ready.clear_ready();
    }

    /// Returns the keys of descriptors that have changed since the last call.
    pub(super) fn take(&self) -> Vec<u64> {
        self.changed.take()
    }
}
