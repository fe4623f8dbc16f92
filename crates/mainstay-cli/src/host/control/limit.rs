//! How many connections the control socket has at once, and how long a client may take: to send its request, and to read its answer.
//!
//! Where there are too many, the oldest one whose request is not complete gives way to the next. Everybody who may connect is the
//! supervisor's own user or root, so there is no limit per user.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::super::delay::undelayed;

/// To send a request, and then to read its answer.
const LIMIT: Duration = Duration::from_secs(10);
/// Connections, if there are descriptors enough: a quarter of them at most.
const MOST: usize = 64;
const LEAST: usize = 8;

/// How far a conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its request is not complete.
    Reading,
    /// The supervisor takes the time that it needs.
    Working,
    /// Its answer is complete.
    Answering,
    /// It is told of events until either side closes.
    Listening,
}

/// One conversation, as its connection and its request share it.
pub(super) struct Progress {
    phase: Cell<Phase>,
    changed: Notify,
}

impl Progress {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            phase: Cell::new(Phase::Reading),
            changed: Notify::new(),
        })
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.changed.notify_one();
    }

    /// Returns when the client has taken too long.
    pub(super) async fn overdue(&self) {
        loop {
            let phase = self.phase.get();
            let limit = async {
                match phase {
                    Phase::Reading | Phase::Answering => undelayed(LIMIT).await,
                    Phase::Working | Phase::Listening => std::future::pending().await,
                }
            };
            tokio::select! {
                () = limit => return,
                () = self.changed.notified() => {}
            }
        }
    }
}

/// The connections that there are.
pub(super) struct Connections {
    most: usize,
    open: Vec<(Rc<Progress>, AbortHandle)>,
}

impl Connections {
    pub(super) fn new() -> Self {
        Self {
            most: (descriptors() / 4).clamp(LEAST, MOST),
            open: Vec::new(),
        }
    }

    /// Whether one more may be served, after the oldest one that is still being read has given way if need be.
    pub(super) fn make_room(&mut self) -> bool {
        self.open.retain(|(_, task)| !task.is_finished());
        if self.open.len() < self.most {
            return true;
        }
        let is_reading = |(progress, _): &(Rc<Progress>, _)| progress.phase.get() == Phase::Reading;
        let oldest = self.open.iter().position(is_reading);
        if let Some(oldest) = oldest {
            self.open.remove(oldest).1.abort();
        }
        oldest.is_some()
    }

    /// Whether another one may listen to events: half of all may.
    pub(super) fn may_listen(&self) -> bool {
        let listens = |(progress, task): &&(Rc<Progress>, AbortHandle)| {
            progress.phase.get() == Phase::Listening && !task.is_finished()
        };
        self.open.iter().filter(listens).count() < self.most / 2
    }

    pub(super) fn add(&mut self, progress: Rc<Progress>, task: AbortHandle) {
        self.open.push((progress, task));
    }
}

/// How many this process may have open.
#[cfg(unix)]
fn descriptors() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit
        .current
        .map_or(usize::MAX, |it| usize::try_from(it).unwrap_or(usize::MAX))
}

#[cfg(windows)]
fn descriptors() -> usize {
    usize::MAX
}
