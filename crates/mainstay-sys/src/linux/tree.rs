//! One started program with all of its descendants.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use mainstay_core::spec::{Signal, StopAsk, StopScope};
use rustix::event::epoll;

use super::ancestry::Descendants;
use super::cgroup::Cgroup;
use super::members::{Bond, Members};
use super::watches::Watches;
use super::{Main, Mains, pidfd, proc, signal};
use crate::posix;
use crate::process::{Exit, Identity, TreeId, Usage};

/// One started program with all of its descendants.
///
/// Drop kills nothing. It removes the tree's cgroup, now or as soon as it is empty, so kill the
/// tree and wait until it is empty first.
pub struct Tree {
    pub(super) main: Rc<Main>,
    pub(super) holder: Holder,
    pub(super) mains: Rc<Mains>,
    pub(super) killed: Rc<OnceCell<Watches>>,
}

pub(super) enum Holder {
    Cgroup(Cgroup),
    Descendants(RefCell<Descendants>),
}

impl Tree {
    /// Returns the ID that [`Processes::reap`](super::Processes::reap) reports.
    pub fn id(&self) -> TreeId {
        self.main.id
    }

    /// Returns the main process's pid. It may belong to an unrelated process once [`Tree::exit`] is
    /// set, so use it for display only, never for a signal.
    pub fn pid(&self) -> u32 {
        self.main.pid
    }

    /// Returns the identity by which a later supervisor finds the tree; for
    /// [`Processes::adopt`](super::Processes::adopt).
    pub fn identity(&self) -> Identity {
        Identity {
            pid: self.main.pid,
            birth: self.main.birth,
            tree: match &self.holder {
                Holder::Cgroup(cgroup) => format!("cgroup {}", cgroup.dir().display()),
                Holder::Descendants(descendants) => descendants.borrow().mark().tree().to_owned(),
            },
        }
    }

    /// Returns the criteria for membership in the tree.
    pub fn members(&self) -> Members {
        Members::new(
            self.main.pid,
            match &self.holder {
                Holder::Cgroup(cgroup) => Bond::Cgroup(cgroup.path()),
                Holder::Descendants(descendants) => {
                    Bond::Descendants(descendants.borrow().mark().clone())
                }
            },
        )
    }

    /// Returns how the main process ended, if it was reaped.
    pub fn exit(&self) -> Option<Exit> {
        self.main.exit.get()
    }

    /// Sends `signal` to the main process or to all. If none is left, that is not an error.
    ///
    /// # Errors
    /// `PermissionDenied` if one of them runs as another user and the supervisor is not root. The
    /// others have received the signal.
    pub fn signal(&self, signal: Signal, scope: StopScope) -> io::Result<()> {
        let signal = posix::number(signal);
        match scope {
            StopScope::Main => self.signal_main(signal),
            StopScope::Tree => self.signal_all(signal),
        }
    }

    /// Asks the tree to stop, and returns whether there was a process to ask.
    pub fn ask_to_stop(&self, ask: StopAsk, scope: StopScope) -> io::Result<bool> {
        let StopAsk::Signal(signal) = ask else {
            return Ok(false); // there are no windows to close
        };
        let anybody = self.exit().is_none() || scope == StopScope::Tree && !self.is_empty();
        if anybody {
            self.signal(signal, scope)?;
        }
        Ok(anybody)
    }

    /// Sends SIGKILL to every process of the tree, including frozen ones. They end a moment later;
    /// see [`Tree::is_empty`].
    pub fn kill(&self) -> io::Result<()> {
        self.watch_end();
        match &self.holder {
            Holder::Cgroup(cgroup) => cgroup.kill(),
            Holder::Descendants(_) => {
                // A process with a pending signal cannot fork. Once a scan finds no new process,
                // all are stopped or about to be, none can escape by losing its parent, and one
                // round kills them all.
                let stopped = self.stop_all();
                let killed = signal::each(self.family(), |process| {
                    self.signal_member(&process, libc::SIGKILL)
                });
                stopped.and(killed)
            }
        }
    }

    /// Makes `Processes::changed` resolve at the main process's exit even if a tracer is notified
    /// instead. Without a descriptor for that, the exit is reported when the tracer detaches.
    fn watch_end(&self) {
        let main = &self.main;
        if main.exit.get().is_some() || main.stranger.is_some() || main.killed.get().is_some() {
            return;
        }
        // Not reaped, so the pid still belongs to the main process.
        let Some(handle) = pidfd::watch(main.pid, || true) else {
            return;
        };
        if self.killed.get().is_none()
            && let Ok(new) = Watches::new()
        {
            let _unset = self.killed.set(new);
        }
        let Some(watches) = self.killed.get() else {
            return;
        };
        if watches
            .add(&handle, Watches::NO_KEY, epoll::EventFlags::IN)
            .is_ok()
        {
            let _unset = main.killed.set(handle);
        }
    }

    /// Returns whether no process of the tree is left. Zombies do not count, except the main
    /// process until it has been reaped. If the tree is not empty although the main process has
    /// ended, [`Processes::changed`](super::Processes::changed) resolves when the caller should
    /// check again.
    pub fn is_empty(&self) -> bool {
        self.exit().is_some()
            && match &self.holder {
                // A directory that no longer exists contains no process.
                Holder::Cgroup(cgroup) => cgroup
                    .is_empty()
                    .unwrap_or_else(|error| error.kind() == io::ErrorKind::NotFound),
                Holder::Descendants(descendants) => {
                    let members = self.family();
                    descendants.borrow_mut().watch(&members);
                    members.is_empty()
                }
            }
    }

    /// Stops every process with a short delay. With a cgroup the processes cannot notice it.
    /// Without one, parents may be notified (SIGCHLD). While stopped, the processes react only to
    /// [`Tree::thaw`] and [`Tree::kill`], so thaw them before a graceful stop.
    pub fn freeze(&self) -> io::Result<()> {
        match &self.holder {
            Holder::Cgroup(cgroup) => match cgroup.freeze() {
                // Linux before 5.2 has no freezer.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    cgroup.signal(libc::SIGSTOP)
                }
                result => result,
            },
            Holder::Descendants(_) => self.stop_all(),
        }
    }

    /// Undoes [`Tree::freeze`].
    pub fn thaw(&self) -> io::Result<()> {
        match &self.holder {
            Holder::Cgroup(cgroup) => match cgroup.thaw() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    cgroup.signal(libc::SIGCONT)
                }
                result => result,
            },
            Holder::Descendants(_) => self.signal_all(libc::SIGCONT),
        }
    }

    /// Returns whether the main process has a handler for `signal`, so that the signal would not
    /// simply end it; `None` if the process has ended.
    pub fn handles(&self, signal: Signal) -> Option<bool> {
        self.exit()
            .is_none()
            .then(|| proc::handles(self.main.pid, posix::number(signal)))
            .flatten()
    }

    /// Returns the resource usage of the tree; `None` if it cannot be read. Reads two files in
    /// /proc per process, so it is suitable for a metrics scrape, not for a loop.
    pub fn usage(&self) -> Option<Usage> {
        let (pids, cpu): (Vec<u32>, Duration) = match &self.holder {
            Holder::Cgroup(cgroup) => (cgroup.processes().ok()?, cgroup.cpu().ok()?),
            Holder::Descendants(_) => {
                // Finding the orphans of an adopted tree requires a scan of every process of the
                // system.
                let members = match self.main.stranger {
                    Some(_) if self.exit().is_none() => proc::family(self.main.pid),
                    _ => self.family(),
                };
                let pids = members.iter().map(|process| process.pid).collect();
                (pids, proc::cpu(members))
            }
        };
        Some(Usage {
            cpu,
            resident: pids.iter().filter_map(|pid| proc::resident(*pid)).sum(),
            processes: u32::try_from(pids.len()).unwrap_or(u32::MAX),
        })
    }

    fn signal_main(&self, signal: i32) -> io::Result<()> {
        match self.exit() {
            Some(_) => Ok(()),
            None => match &self.main.stranger {
                Some(stranger) => stranger.signal(signal),
                // Not reaped, so the pid still belongs to the main process; see the module's rules.
                None => posix::kill(self.main.pid.cast_signed(), signal),
            },
        }
    }

    fn signal_all(&self, signal: i32) -> io::Result<()> {
        match &self.holder {
            Holder::Cgroup(cgroup) => cgroup.signal(signal),
            Holder::Descendants(_) => signal::each(self.family(), |process| {
                self.signal_member(&process, signal)
            }),
        }
    }

    fn signal_member(&self, process: &proc::Stat, signal: i32) -> io::Result<()> {
        if process.pid == self.main.pid {
            return self.signal_main(signal);
        }
        signal::send(process, signal)
    }

    /// Sends SIGSTOP to all processes, repeatedly, until two scans in a row find no new one. A
    /// single scan may miss a process that is being reparented.
    fn stop_all(&self) -> io::Result<()> {
        let mut known = BTreeSet::new();
        let mut result = Ok(());
        let mut quiet = 0;
        while quiet < 2 {
            let mut members = self.family();
            members.retain(|process| known.insert(process.identity()));
            quiet = if members.is_empty() { quiet + 1 } else { 0 };
            let stopped = signal::each(members, |process| {
                self.signal_member(&process, libc::SIGSTOP)
            });
            result = result.and(stopped);
        }
        result
    }

    fn family(&self) -> Vec<proc::Stat> {
        let Holder::Descendants(descendants) = &self.holder else {
            return Vec::new();
        };
        let main = (self.main.pid, self.exit().is_none());
        let is_main = |pid: u32| self.mains.children.borrow().contains_key(&pid);
        let is_others = |process: &proc::Stat| self.mains.are_others(*process, main);
        descendants.borrow_mut().members(main, is_main, is_others)
    }
}
