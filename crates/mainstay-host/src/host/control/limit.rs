//! Limits of the control socket: the number of concurrent connections, and the time for a client to
//! send its request and to read the response.
//!
//! If there are too many connections, the oldest one whose request is incomplete is closed for the
//! next. Only the supervisor's own user and root can connect, so there is no limit per user.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::super::delay::undelayed;

/// The time to send a request, and then to read the response.
const LIMIT: Duration = Duration::from_secs(10);
/// The limits of the number of connections. Within these, it is a quarter of the available file
/// descriptors.
const MOST: usize = 64;
const LEAST: usize = 8;

/// The phase of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The request is incomplete.
    Reading,
    /// The supervisor is processing the request. This phase has no time limit.
    Working,
    /// The response is complete.
    Answering,
    /// Events are sent until either side closes the connection.
    Listening,
}

/// The progress of one connection, shared with its request.
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

/// The open connections.
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

    /// Returns whether one more connection can be served, after closing the oldest incomplete one
    /// if necessary.
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

    /// Returns whether another connection may receive events. Half of all connections may.
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

/// Returns the number of file descriptors that this process may have open.
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
