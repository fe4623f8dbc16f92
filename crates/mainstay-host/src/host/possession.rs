//! The hold of this process on its state directory: the directory itself, its lock, the control
//! socket and the ledger.
//!
//! Any of these may be deleted, emptied or replaced while the supervisor runs. A watch on the
//! directory (Linux) reports that at once, without polling. After a short delay, in which `rm -r`
//! can finish, the lost parts are created again. A supervisor that is started meanwhile still finds
//! this one ([`take`]): by the ledger, by the socket, or as the process that carries the mark of
//! this directory.

use std::fs::{self, File};
use std::io;
use std::time::{Duration, Instant};

use mainstay_core::failure::Failure;
use mainstay_store::ledger::LedgerSnapshot;
use mainstay_store::state_dir::{Hold, LOCK_TIMEOUT, Left, Lock, StateDir, Timeout, Try};
use mainstay_sys as sys;
use mainstay_sys::{PlaceWatch, lock_file};
use tokio::sync::mpsc::UnboundedSender;

use super::Host;
use super::viewers::Viewing;
use mainstay_api::endpoint::{self, Listener};

/// The delay before lost parts are created again.
const MOMENT: Duration = Duration::from_millis(50);
/// The delay after a failed repair, or while another supervisor has the lock.
const PAUSE: Duration = Duration::from_secs(10);
/// The interval within which a repeated message is suppressed.
const QUIET: Duration = Duration::from_secs(60);

/// Takes a state directory, to supervise from it or to end what is running.
///
/// # Errors
/// `Busy` if a supervisor is alive, whatever has happened to its lock.
pub(super) fn take(state: &StateDir) -> Result<Lock, Failure> {
    let lock = state.lock()?;
    let by_ledger = || {
        let ledger_snapshot = LedgerSnapshot::read(state).ok()??;
        ledger_snapshot
            .is_kept()
            .then_some(ledger_snapshot.header.supervisor)
    };
    let pid = by_ledger()
        .map(Some)
        .or_else(|| endpoint::listener(state.path()))
        .or_else(|| match lock.left {
            Left::Unknown => by_mark(state).map(Some),
            Left::Nothing | Left::Services(_) => None,
        });
    let Some(pid) = pid else { return Ok(lock) };
    let who = pid.map_or_else(String::new, |pid| format!(", pid {pid},"));
    Err(state.held(&format!("mainstay{who} uses it, although its lock is lost")))
}

/// Returns the supervisor that carries the mark of a state directory. A program that a killed
/// supervisor was about to start carries the mark for a moment, so this waits until that has
/// passed.
#[expect(clippy::disallowed_methods, reason = "the loop has not begun")]
fn by_mark(state: &StateDir) -> Option<u32> {
    let mark = state.mark();
    let deadline = Instant::now() + MOMENT;
    loop {
        let found = sys::supervisor_of(&mark)?;
        if Instant::now() > deadline {
            return Some(found);
        }
        std::thread::sleep(MOMENT / 10);
    }
}

/// The hold on a state directory; see the [module](self).
pub(super) struct Possession {
    lock: Lock,
    dir: File,
    watch: PlaceWatch,
    /// The channel that passes a new listener to the control socket's task.
    server: UnboundedSender<Listener>,
    socket: endpoint::Place,
    /// The socket of viewers, if there are any.
    viewing: Option<Viewing>,
    repair: Option<Repair>,
    said: Option<(String, Instant)>,
}

/// Resolves when something in the directory has changed. Cancel-safe.
pub(super) async fn changed(possession: Option<&Possession>) {
    match possession {
        Some(possession) => possession.watch.changed().await,
        None => std::future::pending().await,
    }
}

/// A pending repair.
struct Repair {
    at: Instant,
    since: Instant,
    /// The losses as they were first seen. Other processes may have replaced the lost parts since.
    seen: LostFiles,
}

/// The lost parts, with the way in which each was lost.
#[derive(Clone, Copy, Default)]
struct LostFiles {
    dir: Option<&'static str>,
    lock: Option<&'static str>,
    socket: Option<&'static str>,
    viewing: Option<&'static str>,
    ledger: Option<&'static str>,
}

impl LostFiles {
    fn are_none(&self) -> bool {
        let Self {
            dir,
            lock,
            socket,
            viewing,
            ledger,
        } = self;
        let all = [dir, lock, socket, viewing, ledger];
        all.iter().all(|it| it.is_none())
    }

    /// Returns the current losses, described as they were seen before.
    fn seen_as(self, before: Self) -> Self {
        let seen = |now: Option<_>, before: Option<_>| now.and(before.or(now));
        Self {
            dir: seen(self.dir, before.dir),
            lock: seen(self.lock, before.lock),
            socket: seen(self.socket, before.socket),
            viewing: seen(self.viewing, before.viewing),
            ledger: seen(self.ledger, before.ledger),
        }
    }

    /// Returns a description of the losses.
    fn text(&self, state: &StateDir) -> String {
        let place = state.path();
        if let Some(what) = self.dir {
            let place = place.display();
            return format!(
                "the state directory {place} was {what} and has been recreated, without its logs and data; if this supervisor is killed, its services are killed instead of adopted"
            );
        }
        let lost = [
            ("lock", self.lock),
            ("control.sock", self.socket),
            ("viewers/control.sock", self.viewing),
            ("ledger", self.ledger),
        ];
        let lost = lost.into_iter().filter_map(|(name, what)| {
            Some(format!("{} was {}", place.join(name).display(), what?))
        });
        let lost: Vec<String> = lost.collect();
        format!("{}: recreated", lost.join(", "))
    }
}

fn missing(is_there: bool) -> Option<&'static str> {
    Some(if is_there { "replaced" } else { "deleted" })
}

impl Possession {
    /// Creates the hold. The lock must be signed, and the socket bound.
    pub(super) fn new(
        state: &StateDir,
        lock: Lock,
        (socket, server): (endpoint::Place, UnboundedSender<Listener>),
        viewing: Option<Viewing>,
    ) -> io::Result<Self> {
        let dir = endpoint::open_dir(state.path())?;
        let watch = PlaceWatch::new(&state.mark())?;
        watch.look_at(&dir, lock.file())?;
        Ok(Self {
            lock,
            dir,
            watch,
            server,
            socket,
            viewing,
            repair: None,
            said: None,
        })
    }

    /// Returns a remark about the socket of viewers, if there is one.
    pub(super) fn viewers_remark(&self, state: &StateDir) -> Option<String> {
        self.viewing.as_ref()?.remark(state)
    }

    /// Returns the lock, to be released.
    pub(super) fn into_lock(self) -> Lock {
        self.lock
    }

    /// Returns the time of the pending repair, if any.
    pub(super) fn repairs_at(&self) -> Option<Instant> {
        self.repair.as_ref().map(|repair| repair.at)
    }

    fn lost_files(&self, state: &StateDir, has_ledger: impl Fn() -> bool) -> io::Result<LostFiles> {
        let path = state.path();
        let mut lost = LostFiles::default();
        if !lock_file::leads_to(path, &self.dir)? {
            lost.dir = if lock_file::is_deleted(&self.dir)? {
                Some("deleted")
            } else {
                Some("moved")
            };
            return Ok(lost);
        }
        lost.lock = match self.lock.hold()? {
            Hold::Intact => None,
            Hold::Overwritten => Some("overwritten"),
            Hold::Deleted => Some("deleted"),
            Hold::Replaced => Some("replaced"),
        };
        if endpoint::place(path).ok() != Some(self.socket) {
            lost.socket = missing(endpoint::place(path).is_ok());
        }
        let viewing = self.viewing.as_ref();
        if viewing.is_some_and(|viewing| !viewing.is_intact(state)) {
            lost.viewing = missing(endpoint::place(&state.viewers_dir()).is_ok());
        }
        if !has_ledger() {
            lost.ledger = missing(fs::exists(state.ledger_path())?);
        }
        Ok(lost)
    }

    /// Takes the lost lock again, and returns whether that succeeded.
    fn retake(&mut self, state: &StateDir, since: Instant) -> Result<bool, Failure> {
        let timeout = if since.elapsed() < LOCK_TIMEOUT {
            Timeout::Pending
        } else {
            Timeout::Expired
        };
        match state.try_lock(timeout)? {
            Try::Taken(mut lock) => {
                lock.sign_like(&self.lock)
                    .map_err(super::failed("write the lock"))?;
                self.lock = lock;
                Ok(true)
            }
            Try::Held(failure) => Err(failure),
            Try::Later => Ok(false),
        }
    }

    /// Creates the lost parts again, except those that only the host can create. Returns whether
    /// that was done.
    fn repair(
        &mut self,
        state: &StateDir,
        lost: &LostFiles,
        since: Instant,
    ) -> Result<bool, Failure> {
        let new_dir = match lost.dir {
            Some(_) => {
                state.prepare()?;
                let opened = endpoint::open_dir(state.path());
                Some(opened.map_err(super::failed("open the state directory"))?)
            }
            None => None,
        };
        let is_lost = lost.dir.is_some() || lost.lock.is_some();
        let hold = self
            .lock
            .hold()
            .map_err(super::failed("inspect the lock"))?;
        if is_lost && hold == Hold::Overwritten {
            let rewritten = self.lock.rewrite();
            rewritten.map_err(super::failed("write the lock"))?;
        } else if is_lost && !self.retake(state, since)? {
            return Ok(false);
        }
        if lost.dir.is_some() || lost.socket.is_some() {
            let listener =
                Listener::bind(state.path()).map_err(super::failed("open the control socket"))?;
            self.socket = listener.place();
            // This fails only if the supervisor is ending.
            let _ = self.server.send(listener);
        }
        if (lost.dir.is_some() || lost.viewing.is_some())
            && let Some(viewing) = &mut self.viewing
        {
            viewing.reopen(state)?;
        }
        // Not before: a directory without our lock is not ours yet.
        if let Some(dir) = new_dir {
            self.dir = dir;
        }
        let watched = self.watch.look_at(&self.dir, self.lock.file());
        watched.map_err(super::failed("watch the state directory"))?;
        Ok(true)
    }

    /// Returns whether a message is new, or old enough to be repeated.
    fn is_new(&mut self, text: &str) -> bool {
        let is_same = |(said, at): &(String, Instant)| said == text && at.elapsed() < QUIET;
        if self.said.as_ref().is_some_and(is_same) {
            return false;
        }
        self.said = Some((text.to_owned(), Instant::now()));
        true
    }
}

impl Host {
    /// Checks that everything is still in place, and schedules a repair if it is not.
    pub(super) fn look_at_possession(&mut self) {
        let lost = self.lost_files();
        let now = Instant::now();
        let Some(possession) = &mut self.possession else {
            return;
        };
        if possession.repair.is_none() && !lost.as_ref().is_ok_and(LostFiles::are_none) {
            possession.repair = Some(Repair {
                at: now + MOMENT,
                since: now,
                seen: lost.unwrap_or_default(),
            });
        }
    }

    fn lost_files(&self) -> io::Result<LostFiles> {
        let executor = &self.dispatcher.effects;
        let has_ledger = || executor.has_ledger();
        let lost = self.possession.as_ref();
        lost.map_or_else(
            || Ok(LostFiles::default()),
            |it| it.lost_files(&executor.state, has_ledger),
        )
    }

    /// Repairs the losses, and reports them.
    pub(super) fn repair_possession(&mut self) {
        let lost = self.lost_files();
        let Some(mut possession) = self.possession.take() else {
            return;
        };
        let now = Instant::now();
        let (since, seen) = match possession.repair.take() {
            Some(repair) => (repair.since, repair.seen),
            None => (now, LostFiles::default()),
        };
        let executor = &mut self.dispatcher.effects;
        let repaired = lost.map_err(super::failed("inspect the state directory"));
        let repaired = repaired.and_then(|lost| {
            if lost.are_none() {
                Ok(None)
            } else {
                let is_done = possession.repair(&executor.state, &lost, since)?;
                Ok(Some((lost.seen_as(seen), is_done)))
            }
        });
        let again = |pause| {
            Some(Repair {
                at: now + pause,
                since,
                seen,
            })
        };
        match repaired {
            Ok(None) => {}
            Ok(Some((_, false))) => possession.repair = again(MOMENT),
            Ok(Some((lost, true))) => {
                let text = lost.text(&executor.state);
                if possession.is_new(&text) {
                    executor.reporter.notify(&text);
                }
                match lost.dir {
                    Some(_) => executor.furnish(),
                    None if lost.ledger.is_some() => self.dispatcher.renew_ledger(),
                    None => {}
                }
            }
            Err(failure) => {
                let place = executor.state.path().display();
                let text = format!(
                    "the state directory {place} is lost and cannot be recovered: {}; retrying",
                    failure.line()
                );
                if possession.is_new(&text) {
                    executor.reporter.notify(&text);
                }
                possession.repair = again(PAUSE);
            }
        }
        self.possession = Some(possession);
        // Something else may have been lost meanwhile.
        self.look_at_possession();
    }
}
