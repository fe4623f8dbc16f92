//! The ledger of this supervisor: its entries, made from the engine's checkpoints and the running
//! processes, and the reports of failures to write it.

use std::time::Duration;

use mainstay_core::engine::{
    Checkpoint, DesiredState, Ended, RecoveredState, ServiceId, Stage, StateName,
};
use mainstay_core::report::LastExit;
use mainstay_core::time::Instant;
use mainstay_store::ledger::{Blocked, Child, Entry, Ledger, ManifestCopy, State, millis};
use mainstay_sys::Identity;

use super::{Host, Running, ServiceRuntime};

/// The time after which a failed write is retried.
const REWRITE_INTERVAL: Duration = Duration::from_secs(10);

impl Host {
    /// Begins the ledger with the current state, after the engine has resumed the recovered
    /// services.
    pub(super) fn begin_ledger(&mut self, copy: Option<&ManifestCopy>) {
        if !self.is_adoptable {
            return;
        }
        if self.ledger.is_some() {
            return self.renew_ledger();
        }
        let entries = self.ledger_entries();
        let head = (&*self.manifest, &*self.orphan_markers);
        match Ledger::begin(&self.state, head, copy, entries) {
            Ok(ledger) => {
                self.ledger = ledger;
                self.report_ledger(None);
            }
            Err(error) => self
                .reporter
                .notify(&self.without_ledger(&error.to_string())),
        }
    }

    /// Writes a new ledger, as the set of services or their IDs have changed.
    pub(super) fn renew_ledger(&mut self) {
        let entries = self.ledger_entries();
        let Some(ledger) = &mut self.ledger else {
            return;
        };
        let before = ledger.problem().map(str::to_owned);
        ledger.renew(&self.state, entries);
        self.report_ledger(before.as_deref());
    }

    /// Returns whether the ledger file is still in place; true if there is no ledger.
    pub(super) fn has_ledger(&self) -> bool {
        self.ledger.as_ref().is_none_or(Ledger::is_in_place)
    }

    /// Writes a service's entry if it has changed.
    pub(super) fn record(&mut self, id: ServiceId) {
        self.record_desired(id);
        let entry = self.ledger_entry(id);
        let Some(ledger) = &mut self.ledger else {
            return;
        };
        let has_problem = ledger.problem().is_some();
        let written = entry.map_or(Ok(()), |entry| ledger.write(id, entry));
        if !has_problem && written.is_err() {
            self.renew_ledger();
        }
        let is_unwritten = |runtime: &ServiceRuntime| runtime.desired_problem.is_some();
        if self.has_ledger_problem() || self.runtimes.get(&id).is_some_and(is_unwritten) {
            self.rewrite_soon();
        }
    }

    fn has_ledger_problem(&self) -> bool {
        self.ledger.as_ref().and_then(Ledger::problem).is_some()
    }

    /// Schedules a retry of failed writes, if there are any.
    pub(super) fn rewrite_soon(&mut self) {
        let is_unwritten = self
            .runtimes
            .values()
            .any(|runtime| runtime.desired_problem.is_some());
        if is_unwritten || self.has_ledger_problem() {
            let at = std::time::Instant::now() + REWRITE_INTERVAL;
            self.rewrites_at.get_or_insert(at);
        }
    }

    /// Retries failed writes of desired states and of the ledger.
    pub(super) fn rewrite(&mut self) {
        self.rewrites_at = None;
        self.record_all_desired();
        if self.has_ledger_problem() {
            self.renew_ledger();
        }
        self.rewrite_soon();
    }

    /// Returns the problem that prevents the ledger from being written, if any.
    pub(super) fn ledger_problem(&self) -> Option<String> {
        let why = self.ledger.as_ref()?.problem()?;
        Some(self.without_ledger(why))
    }

    fn without_ledger(&self, why: &str) -> String {
        let path = self.state.ledger_path();
        format!(
            "cannot write {}: {why}; if this supervisor is killed, its services may be killed instead of adopted",
            path.display()
        )
    }

    /// Reports a change of the ledger's problem, once.
    fn report_ledger(&mut self, before: Option<&str>) {
        let now = self.ledger.as_ref().and_then(Ledger::problem);
        if now == before {
            return;
        }
        let text = match self.ledger_problem() {
            Some(problem) => problem,
            None => format!("{} was written again", self.state.ledger_path().display()),
        };
        self.reporter.notify(&text);
    }

    fn ledger_entries(&self) -> (Vec<ServiceId>, Vec<Entry>) {
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
        let runtime = self.runtimes.get(&id)?;
        let mut entry = Entry {
            since_ms: self.boot_ms(since?),
            unwanted: desired == DesiredState::Down,
            is_stopped: runtime.is_stopped,
            version: runtime.version,
            is_updated: runtime.is_updated,
            restarts,
            last_exit: last_exit.map(LastExit::from),
            streak: failures.streak,
            recent_ms: failures.recent.iter().map(|at| self.boot_ms(*at)).collect(),
            crash_loop_ms: failures
                .crash_loop
                .map(|(since, remind)| (self.boot_ms(since), self.boot_ms(remind))),
            ..Entry::new(runtime.spec.name().as_str(), State::Due)
        };
        entry.state = self.fill_in(&mut entry, (id, runtime), recovered);
        Some(entry)
    }

    /// Adds to an entry what its service's state consists of, and returns that state.
    fn fill_in(
        &self,
        entry: &mut Entry,
        (id, runtime): (ServiceId, &ServiceRuntime),
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
                entry.child = runtime
                    .running
                    .as_ref()
                    .map(|it| self.child(it, runtime, began));
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
                let Some(running) = &runtime.running else {
                    return State::Due;
                };
                entry.child = Some(self.child(running, runtime, began));
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

    fn child(&self, running: &Running, runtime: &ServiceRuntime, began: Instant) -> Child {
        let Identity { pid, birth, tree } = running.tree.identity();
        let notify = runtime.notify.as_ref();
        let notify = notify.and_then(|socket| socket.address().to_str());
        Child {
            pid,
            birth,
            tree,
            began_ms: self.boot_ms(began),
            notify: notify.map(str::to_owned),
            is_outdated: running.is_outdated,
            digest: running.digest.clone(),
        }
    }

    fn boot_ms(&self, at: Instant) -> u64 {
        millis(self.zero + at.elapsed())
    }
}
