//! Polling with epoll(7), edge-triggered: unfinished lines left in pipes cause no wake-ups.

use std::io::PipeReader;
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::mem::MaybeUninit;

/// The set of watched pipes.
pub(super) struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    pub(super) fn new() -> Result<Self, Errno> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        })
    }

    /// Reports `key` as ready whenever data arrives in `pipe`.
    pub(super) fn add(&mut self, pipe: &PipeReader, key: usize) -> Result<(), Errno> {
        let data = epoll::EventData::new_u64(key as u64);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&self.epoll, pipe, data, flags)
    }

    /// Stops watching a pipe.
    pub(super) fn remove(&mut self, pipe: &PipeReader, _key: usize) {
        // The pipe is in the set.
        let _ = epoll::delete(&self.epoll, pipe);
    }

    /// Blocks until a pipe is ready or the timeout has elapsed; `None` means no timeout.
    pub(super) fn wait(
        &mut self,
        timeout: Option<Duration>,
        ready: &mut Vec<usize>,
    ) -> Result<(), Errno> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs() as _,
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let mut space = [const { MaybeUninit::<epoll::Event>::uninit() }; 64];
        let (events, _) = epoll::wait(&self.epoll, &mut space, timeout.as_ref())?;
        ready.extend(events.iter().map(|event| event.data.u64() as usize));
        Ok(())
    }
}
