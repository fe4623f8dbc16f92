//! Limits of the control socket: the number of concurrent connections, and the time for a client to
//! send its request and to read the response.
//!
//! If there are too many connections, the oldest one whose request is incomplete is closed for the
//! next. Only the supervisor's own user and root can connect to the control socket, so there is no
//! limit per user. The socket of viewers has connections of its own, a limit of those of each user,
//! and a limit of the rate of each user's requests.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::super::delay::undelayed;

/// The time to send a request, and then to read the response.
const LIMIT: Duration = Duration::from_secs(10);
/// The limits of the number of connections. Within these, it is a quarter of the available file
/// descriptors.
const MOST: usize = 64;
const LEAST: usize = 8;
/// The pause between two requests of the same viewer.
const PACE: Duration = Duration::from_millis(20);

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

/// The open connections of one socket.
pub(super) struct Connections {
    most: usize,
    /// The limit for one user.
    most_of_one: usize,
    pace: Duration,
    open: Vec<Connection>,
    /// The time of the next request of each user who has sent one just now.
    turns: BTreeMap<u32, Instant>,
}

struct Connection {
    user: u32,
    progress: Rc<Progress>,
    task: AbortHandle,
}

impl Connections {
    /// Creates the connections of the control socket.
    pub(super) fn of_owner() -> Self {
        let most = (descriptors() / 4).clamp(LEAST, MOST);
        Self::new(most, most, Duration::ZERO)
    }

    /// Creates the connections of the socket of viewers.
    pub(super) fn of_viewers() -> Self {
        let most = (descriptors() / 8).clamp(LEAST, MOST / 2);
        Self::new(most, most / 4, PACE)
    }

    fn new(most: usize, most_of_one: usize, pace: Duration) -> Self {
        Self {
            most,
            most_of_one,
            pace,
            open: Vec::new(),
            turns: BTreeMap::new(),
        }
    }

    fn count(&self, is_meant: impl Fn(&Connection) -> bool) -> usize {
        self.open.iter().filter(|it| is_meant(it)).count()
    }

    /// Returns whether one more connection of this user can be served, after closing the oldest
    /// incomplete one if necessary. A user who has too many makes room with one of his own.
    pub(super) fn make_room(&mut self, user: u32) -> bool {
        self.open.retain(|it| !it.task.is_finished());
        let has_too_many = self.count(|it| it.user == user) >= self.most_of_one;
        if !has_too_many && self.open.len() < self.most {
            return true;
        }
        let oldest = self.open.iter().position(|it| {
            it.progress.phase.get() == Phase::Reading && (!has_too_many || it.user == user)
        });
        if let Some(oldest) = oldest {
            self.open.remove(oldest).task.abort();
        }
        oldest.is_some()
    }

    /// Returns whether another connection of this user may receive events. Half of all connections
    /// may, and half of each user's.
    pub(super) fn may_listen(&self, user: u32) -> bool {
        let listens =
            |it: &Connection| it.progress.phase.get() == Phase::Listening && !it.task.is_finished();
        let of_user = self.count(|it| listens(it) && it.user == user);
        self.count(listens) < self.most / 2 && of_user < self.most_of_one / 2
    }

    pub(super) fn add(&mut self, user: u32, progress: Rc<Progress>, task: AbortHandle) {
        self.open.push(Connection {
            user,
            progress,
            task,
        });
    }

    /// Returns the time until the next request of this user is due.
    pub(super) fn turn(&mut self, user: u32) -> Duration {
        let now = Instant::now();
        self.turns.retain(|_, at| *at > now);
        let turn = self.turns.entry(user).or_insert(now);
        let pause = turn.saturating_duration_since(now);
        *turn += self.pace;
        pause
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

#[cfg(test)]
mod tests {
    use super::*;

    fn open(connections: &mut Connections, user: u32, phase: Phase) -> bool {
        if !connections.make_room(user) {
            return false;
        }
        let progress = Progress::new();
        progress.enter(phase);
        let task = tokio::task::spawn_local(std::future::pending::<()>());
        connections.add(user, progress, task.abort_handle());
        true
    }

    fn within(test: impl FnOnce()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime.expect("a runtime"), async { test() });
    }

    #[test]
    fn a_viewer_takes_no_place_of_another() {
        within(|| {
            let mut viewers = Connections::new(8, 2, PACE);
            for _ in 0..2 {
                assert!(open(&mut viewers, 1, Phase::Working));
            }
            assert!(!open(&mut viewers, 1, Phase::Reading), "his limit");
            assert!(open(&mut viewers, 2, Phase::Reading));
            assert!(open(&mut viewers, 2, Phase::Working));
            // The incomplete request makes room for one of the same user.
            assert!(open(&mut viewers, 2, Phase::Listening));
            assert!(!viewers.may_listen(2), "half of his");
            assert!(viewers.may_listen(3));
            assert!(!open(&mut viewers, 2, Phase::Reading));
            for user in 3..7 {
                assert!(open(&mut viewers, user, Phase::Working), "{user}");
            }
            assert!(!open(&mut viewers, 7, Phase::Reading), "the limit of all");
        });
    }

    #[test]
    fn the_requests_of_one_viewer_are_paced() {
        let mut viewers = Connections::new(8, 2, Duration::from_secs(60));
        assert!(viewers.turn(1).is_zero());
        assert!(viewers.turn(1) > Duration::from_secs(50));
        assert!(viewers.turn(1) > Duration::from_secs(110));
        assert!(viewers.turn(2).is_zero(), "another one does not wait");
        let mut owner = Connections::of_owner();
        assert!((0..100).all(|_| owner.turn(0).is_zero()));
    }
}
