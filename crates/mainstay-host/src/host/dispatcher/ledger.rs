//! Records for the next supervisor: the ledger's entries, made from the engine's checkpoints, and
//! the desired states of installed services.

use std::io;
use std::time::Duration;

use mainstay_core::engine::{
    Checkpoint, DesiredState, Ended, RecoveredState, ServiceId, Stage, StateName,
};
use mainstay_core::report::LastExit;
use mainstay_core::time::Instant;
use mainstay_store::embedded::Desired;
use mainstay_store::ledger::{Blocked, Child, Entry, ManifestCopy, State, millis};
use mainstay_sys::Identity;

use super::Dispatcher;
use super::service::{Running, Service};
use crate::host::effects::{Effects, Entries, LedgerProblem};

/// The time after which a failed write is retried.
const REWRITE_INTERVAL: Duration = Duration::from_secs(10);

/// Returns a message about the consequence of a desired state that could not be written, or removed
/// if it is `None`.
pub(in crate::host) fn unwritten(error: &io::Error, desired: Option<&Desired>) -> String {
    let consequence = match desired {
        Some(_) => "the next daemon will start it",
        None => "the next daemon will not start it",
    };
    format!("cannot write its desired state: {error}; {consequence}")
}

impl<E: Effects> Dispatcher<E> {
    /// Begins the ledger with the current state, or writes a new one if the set of services has
    /// changed.
    pub(super) fn begin_ledger(&mut self, copy: Option<&ManifestCopy>) {
        let entries = self.ledger_entries();
        let before = self.effects.ledger_problem();
        match self.effects.begin_ledger(copy, entries) {
            Ok(()) => self.report_ledger(before),
            Err(problem) => self.effects.notify(&problem.to_string()),
        }
    }

    /// Writes a new ledger, as the set of services or their IDs have changed.
    pub(in crate::host) fn renew_ledger(&mut self) {
        let entries = self.ledger_entries();
        let before = self.effects.ledger_problem();
        self.effects.renew_ledger(entries);
        self.report_ledger(before);
    }

    /// Records the state of a service, for the next supervisor.
    pub(super) fn record(&mut self, id: ServiceId) {
        self.record_desired(id);
        let had_problem = self.effects.ledger_problem().is_some();
        let written = match self.ledger_entry(id) {
            Some(entry) => self.effects.write_entry(id, entry),
            None => Ok(()),
        };
        if !had_problem && written.is_err() {
            self.renew_ledger();
        }
        let service = self.services.get(&id);
        let is_unwritten = service.is_some_and(|service| service.desired_problem.is_some());
        if is_unwritten || self.effects.ledger_problem().is_some() {
            self.rewrite_soon();
        }
    }

    /// The same for all services.
    pub(super) fn record_all(&mut self) {
        self.engine.ids().for_each(|id| self.record(id));
    }

    /// Schedules a retry of failed writes, if there are any.
    pub(in crate::host) fn rewrite_soon(&mut self) {
        let mut services = self.services.values();
        let is_unwritten = services.any(|service| service.desired_problem.is_some());
        if is_unwritten || self.effects.ledger_problem().is_some() {
            let at = self.now() + REWRITE_INTERVAL;
            self.rewrites_at.get_or_insert(at);
        }
    }

    /// Retries failed writes of desired states and of the ledger.
    pub(super) fn rewrite(&mut self) {
        self.rewrites_at = None;
        self.record_all_desired();
        if self.effects.ledger_problem().is_some() {
            self.renew_ledger();
        }
        self.rewrite_soon();
    }

    /// Reports a change of the ledger's problem, once, and schedules a retry if there is one.
    fn report_ledger(&mut self, before: Option<LedgerProblem>) {
        self.rewrite_soon();
        let now = self.effects.ledger_problem();
        if now == before {
            return;
        }
        let written = || "the ledger was written again".to_owned();
        let text = now.map_or_else(written, |problem| problem.to_string());
        self.effects.notify(&text);
    }

    /// Writes a service's desired state, which outlives this daemon. A stop of the daemon itself is
    /// not a desired state.
    fn record_desired(&mut self, id: ServiceId) {
        if self.about.daemon.is_none() || self.engine.is_shutting_down() {
            return;
        }
        let (Some(checkpoint), Some(service)) =
            (self.engine.checkpoint(id), self.services.get_mut(&id))
        else {
            return;
        };
        let name = service.spec.name().clone();
        if self.engine.find(name.as_str()) != Some(id) {
            return;
        }
        service.is_stopped &= checkpoint.desired == DesiredState::Down;
        let desired = match checkpoint.recovered {
            RecoveredState::Halted { why } => Some(Desired::Halted {
                why,
                restarts: checkpoint.restarts,
                last_exit: checkpoint.last_exit.map(LastExit::from),
            }),
            _ => service.is_stopped.then_some(Desired::Stopped),
        };
        if service.desired == desired {
            service.desired_problem = None;
            return;
        }
        let Err(error) = self.effects.write_desired(&name, desired.as_ref()) else {
            service.desired = desired;
            if service.desired_problem.take().is_some() {
                let text = format!("{name}: its desired state was written");
                self.effects.notify(&text);
            }
            return;
        };
        let problem = unwritten(&error, desired.as_ref());
        if service.desired_problem.as_ref() != Some(&problem) {
            self.effects.notify(&format!("{name}: {problem}"));
        }
        service.desired_problem = Some(problem);
    }

    /// The same for all services. What could not be written, by this daemon or one that was killed,
    /// may find room now.
    pub(in crate::host) fn record_all_desired(&mut self) {
        self.engine.ids().for_each(|id| self.record_desired(id));
    }

    fn ledger_entries(&self) -> Entries {
        let ids = self.engine.ids();
        ids.filter_map(|id| Some((id, self.ledger_entry(id)?)))
            .unzip()
    }

    fn ledger_entry(&self, id: ServiceId) -> Option<Entry> {
        let Checkpoint {
            desired,
            restarts,
            last_exit,
            failures,
            since,
            recovered,
        } = self.engine.checkpoint(id)?;
        let service = self.services.get(&id)?;
        let mut entry = Entry {
            since_ms: self.boot_ms(since?),
            unwanted: desired == DesiredState::Down,
            is_stopped: service.is_stopped,
            version: service.version,
            is_updated: service.is_updated,
            restarts,
            last_exit: last_exit.map(LastExit::from),
            streak: failures.streak,
            recent_ms: failures.recent.iter().map(|at| self.boot_ms(*at)).collect(),
            crash_loop_ms: failures
                .crash_loop
                .map(|(since, remind)| (self.boot_ms(since), self.boot_ms(remind))),
            ..Entry::new(service.spec.name().as_str(), State::Due)
        };
        entry.state = self.fill_in(&mut entry, (id, service), recovered);
        Some(entry)
    }

    /// Adds to an entry what its service's state consists of, and returns that state.
    fn fill_in(
        &self,
        entry: &mut Entry,
        (id, service): (ServiceId, &Service),
        recovered: RecoveredState,
    ) -> State {
        match recovered {
            RecoveredState::Nothing => {
                let view = self.engine.view(id);
                let view = view.filter(|view| view.state == StateName::BackingOff);
                entry.why = view.and_then(|view| view.detail);
                State::Due
            }
            RecoveredState::Completed { was_ready } => {
                entry.was_ready = was_ready;
                State::Completed
            }
            RecoveredState::Halted { why } => {
                entry.why = Some(why);
                State::Halted
            }
            RecoveredState::Blocked { need, has_ended } => {
                entry.why = self.engine.view(id).and_then(|view| view.detail);
                let need = need.to_string();
                entry.blocked_by = Some(Blocked { need, has_ended });
                State::Halted
            }
            RecoveredState::Ended {
                ended,
                was_ready,
                began,
                ..
            } => {
                let running = service.running.as_ref();
                entry.child = running.and_then(|it| self.child(id, it, began));
                match ended {
                    Ended::Exit(exit) => entry.last_exit = Some(exit.into()),
                    failure => entry.failure = Some(failure),
                }
                entry.was_ready = was_ready;
                State::Ended
            }
            RecoveredState::Gone { .. } => State::Due,
            RecoveredState::Child {
                began,
                until,
                stage,
                ..
            } => {
                let running = service.running.as_ref();
                let Some(child) = running.and_then(|it| self.child(id, it, began)) else {
                    return State::Due;
                };
                entry.child = Some(child);
                entry.until_ms = until.map(|until| self.boot_ms(until));
                match stage {
                    Stage::Starting => State::Starting,
                    Stage::Running => State::Running,
                    Stage::Paused => State::Paused,
                    Stage::Stopping => State::Stopping,
                    Stage::Failing(ended) => {
                        entry.failure = Some(ended);
                        State::Failing
                    }
                }
            }
        }
    }

    fn child(&self, id: ServiceId, running: &Running, began: Instant) -> Option<Child> {
        let (Identity { pid, birth, tree }, notify) = self.effects.identity(id)?;
        Some(Child {
            pid,
            birth,
            tree,
            began_ms: self.boot_ms(began),
            notify,
            is_outdated: running.is_outdated,
            is_quiesced: running.is_quiesced,
            digest: running.digest.clone(),
        })
    }

    fn boot_ms(&self, at: Instant) -> u64 {
        millis(self.about.zero + at.elapsed())
    }
}
