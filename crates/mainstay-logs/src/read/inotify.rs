//! Waiting for changes in a directory with inotify(7).

use std::io;
use std::mem::MaybeUninit;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

/// A watch on the files of directories.
pub(super) struct Watch {
    inotify: OwnedFd,
}

impl Watch {
    pub(super) fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self { inotify })
    }

    /// Watches this directory from now on, if it exists. Its deletion is detected by the deletion
    /// of its files: while one of those is open, the kernel does not treat the directory itself as
    /// deleted.
    pub(super) fn look_at(&mut self, dir: &Path) -> io::Result<()> {
        let changes = WatchFlags::MODIFY
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVE_SELF;
        match inotify::add_watch(&self.inotify, dir, changes) {
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Blocks until something has changed since the last call, or the time limit has passed.
    pub(super) fn wait(&mut self, at_most: Option<Duration>) -> io::Result<()> {
        let at_most = at_most.map(|time| Timespec {
            tv_sec: time.as_secs() as _,
            tv_nsec: time.subsec_nanos().into(),
        });
        match poll(
            &mut [PollFd::new(&self.inotify, PollFlags::IN)],
            at_most.as_ref(),
        ) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // The events are discarded: the caller inspects the directory itself.
        let mut events = [const { MaybeUninit::uninit() }; 4096];
        while rustix::io::read(&self.inotify, &mut events).is_ok() {}
        Ok(())
    }
}
