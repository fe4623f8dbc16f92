//! Polling with poll(2), on systems without epoll.

use std::io::PipeReader;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd as _, OwnedFd};
use rustix::io::Errno;

/// The set of watched pipes: a duplicate descriptor of each, and its key.
pub(super) struct Poller {
    pipes: Vec<(OwnedFd, usize)>,
}

impl Poller {
    pub(super) fn new() -> Result<Self, Errno> {
        Ok(Self { pipes: Vec::new() })
    }

    /// Reports `key` as ready while `pipe` contains data or has no writer.
    pub(super) fn add(&mut self, pipe: &PipeReader, key: usize) -> Result<(), Errno> {
        self.pipes
            .push((rustix::io::fcntl_dupfd_cloexec(pipe, 0)?, key));
        Ok(())
    }

    /// Stops watching a pipe.
    pub(super) fn remove(&mut self, _pipe: &PipeReader, key: usize) {
        self.pipes.retain(|(_, of)| *of != key);
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
        let mut fds: Vec<PollFd<'_>> = self
            .pipes
            .iter()
            .map(|(pipe, _)| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN))
            .collect();
        poll(&mut fds, timeout.as_ref())?;
        let keys = self.pipes.iter().map(|(_, key)| *key);
        let found = fds.iter().zip(keys);
        ready.extend(
            found
                .filter(|(fd, _)| !fd.revents().is_empty())
                .map(|(_, key)| key),
        );
        Ok(())
    }
}
