//! Updates: a new definition of a service is tried, and replaces the old one if it is healthy and
//! the update is committed.
//!
//! The candidate is a separate service that [`Engine::ids`] and [`Engine::find`] do not return: no
//! service needs it, and it takes no requests. It has no restart policy, because its first failure
//! decides the trial. With [`Style::Restart`] the old run ends before the candidate starts; with
//! [`Style::Overlap`] both run. If the service has snapshots, one is taken between the two runs,
//! and is restored before the old definition runs again.
//!
//! A committed candidate takes over the name, the dependents and the position of the service. It
//! keeps its own ID, so that no answer to one of its questions is lost. The superseded service is
//! stopped, then forgotten ([`Action::Forget`]). Otherwise the candidate is stopped and forgotten,
//! and the old definition remains in effect. Every step has a time limit. An engine that resumes
//! after a killed host has no trials: the old definition is active.

use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use super::asking::ANSWER_GRACE;
use super::contract::Ended;
use super::fact::Fact;
use super::graph::Graph;
use super::id::{ServiceId, Token};
use super::protocol::{Action, CopyFailure, Snapshotted};
use super::request::{Launch, Refusal};
use super::rollout::{
    COMMIT_TIMEOUT, RolloutRole, Style, TrialFailure, TrialPhase, TrialView, Tryout, Versions,
};
use super::service::{Role, Service};
use super::view::StateName;
use crate::snapshot::SnapshotId;
use crate::spec::Spec;
use crate::time::Instant;

/// The time limit for a snapshot or a restore.
const STATE_TIMEOUT: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub(super) struct Trial {
    service: ServiceId,
    candidate: ServiceId,
    style: Style,
    canary: Duration,
    versions: Option<Versions>,
    /// Set if the candidate is started: the service is not stopped.
    is_tried: bool,
    /// The snapshot of the state before the candidate ran.
    snapshot: Option<SnapshotId>,
    /// Set if the old run was healthy.
    was_healthy: bool,
    /// Set if the old definition ran or was about to, and was stopped for the trial.
    returns: bool,
    step: Step,
    /// Set when the time limit of the current step has passed.
    is_due: bool,
}

#[derive(Clone, Debug)]
enum Step {
    /// Waits until the old run has stopped.
    Clearing,
    /// Takes a snapshot. `token` is set once it has begun.
    Snapshotting {
        token: Option<Token>,
        until: Instant,
    },
    /// Starts the candidate. Its needs must be ready before `until`.
    Starting {
        until: Instant,
    },
    Canary {
        until: Instant,
    },
    /// Waits for the commit.
    Held {
        until: Instant,
    },
    /// Waits until the candidate has stopped.
    Ending {
        phase: TrialPhase,
        why: TrialFailure,
    },
    Restoring {
        token: Token,
        until: Instant,
        phase: TrialPhase,
        why: TrialFailure,
    },
    /// Waits until the old definition has started again.
    Returning {
        phase: TrialPhase,
        why: TrialFailure,
    },
}

impl Trial {
    fn phase(&self) -> TrialPhase {
        match self.step {
            Step::Clearing => TrialPhase::Stop,
            Step::Snapshotting { .. } => TrialPhase::Snapshot,
            Step::Starting { .. } => TrialPhase::Start,
            Step::Canary { .. } => TrialPhase::Canary,
            Step::Held { .. } => TrialPhase::Trial,
            Step::Ending { .. } | Step::Restoring { .. } | Step::Returning { .. } => {
                TrialPhase::RollBack
            }
        }
    }

    /// Returns the ID of the candidate, until it is forgotten.
    pub(super) fn candidate(&self) -> Option<ServiceId> {
        let is_there = !matches!(self.step, Step::Returning { .. });
        is_there.then_some(self.candidate)
    }

    pub(super) fn is_of(&self, service: ServiceId) -> bool {
        self.service == service
    }

    /// Returns whether the trial can still be committed.
    fn is_open(&self) -> bool {
        self.phase() != TrialPhase::RollBack
    }

    /// Returns the failure that decides the trial, if there is one.
    fn failure(&self, old: &Service, new: &Service) -> Option<TrialFailure> {
        if let Some(failure) = new.failure().filter(|_| self.is_open()) {
            return Some(failure.clone());
        }
        match self.step {
            Step::Clearing if old.has_remains() => Some(TrialFailure::Remains),
            Step::Starting { .. } if self.is_due && new.view().state == StateName::Waiting => {
                let after = new.spec().start().timeout();
                Some(TrialFailure::NeedsLate { after })
            }
            Step::Snapshotting { .. } if self.is_due => {
                Some(TrialFailure::NotKept("the snapshot timed out".to_owned()))
            }
            Step::Held { .. } if self.is_due => Some(TrialFailure::NotCommitted),
            _ => None,
        }
    }
}

impl Engine {
    /// Starts a trial of a new definition of the service and returns the candidate's ID. A service
    /// that is down is not started: its candidate can be committed at once. Progress is reported as
    /// [`Fact::Trial`], then [`Fact::Updated`] or [`Fact::RolledBack`].
    ///
    /// # Errors
    /// If the definition cannot be tried now; then nothing has changed.
    pub fn try_out(
        &mut self,
        service: ServiceId,
        spec: Arc<Spec>,
        how: Tryout,
        now: Instant,
    ) -> Result<(ServiceId, Vec<Action>), Refusal> {
        let is_up = self.may_try(service)?;
        // The graph after a commit must be valid, and the graph until then.
        let (mut defined, ids) = self.definitions();
        defined.insert(service, Arc::clone(&spec));
        Graph::new(&defined, &ids).map_err(Refusal::Misfit)?;
        let (mut defined, ids) = self.definitions();
        let candidate = self.next_id;
        defined.insert(candidate, Arc::clone(&spec));
        self.graph = Graph::new(&defined, &ids).map_err(Refusal::Misfit)?;
        self.next_id.take();
        self.shared.now = now;
        // A service that is halted for a need would come back by itself.
        let old = self.services.get(&service).ok_or(Refusal::Removed)?;
        let stays_down = old.is_halted() && !old.is_halted_for_a_need();
        let style = match how.style {
            Style::Overlap if old.is_satisfied() => Style::Overlap,
            _ => Style::Restart,
        };
        let returns = is_up && style == Style::Restart && !stays_down;
        let was_healthy = old.is_satisfied();
        let new = Service::new(candidate, spec, now).tried_for(old);
        self.services.insert(candidate, new);
        self.attribute(&[service]);
        let versions = how.versions;
        let updating = Fact::Updating {
            style: is_up.then_some(style),
            versions,
        };
        self.emit(service, updating);
        let mut trial = Trial {
            service,
            candidate,
            style,
            canary: how.canary,
            versions,
            is_tried: is_up,
            snapshot: None,
            was_healthy,
            returns,
            step: Step::Clearing,
            is_due: false,
        };
        let mut changed = vec![candidate];
        if !is_up {
            trial.step = self.hold(service, false);
        } else {
            // The needs are started now; an operator may stop them later.
            self.start_needs(&mut changed);
            if returns {
                self.want_end(service);
            } else if style == Style::Overlap {
                trial.step = self.launch(candidate);
            }
        }
        changed.push(service);
        self.trials.push(trial);
        Ok((candidate, self.settle(changed)))
    }

    /// Returns whether the service is up, if it can be updated now.
    fn may_try(&self, service: ServiceId) -> Result<bool, Refusal> {
        if self.shutting_down {
            return Err(Refusal::ShuttingDown);
        }
        if self.trial(service).is_some() {
            return Err(Refusal::Updating);
        }
        let old = self.services.get(&service).ok_or(Refusal::Removed)?;
        if old.has_remains() {
            return Err(Refusal::Remains);
        }
        match old.view().state {
            StateName::Stopped => Ok(false),
            StateName::Paused => Err(Refusal::State(StateName::Paused)),
            // The service runs on until nothing that needs it runs.
            StateName::Running if old.wants_down() => Err(Refusal::State(StateName::StopPending)),
            state if old.wants_down() => Err(Refusal::State(state)),
            _ => Ok(true),
        }
    }

    /// Replaces the service by its candidate. The candidate's ID is the service's ID from now on.
    ///
    /// # Errors
    /// If there is no healthy candidate.
    pub fn commit(
        &mut self,
        service: ServiceId,
        now: Instant,
    ) -> Result<(ServiceId, Vec<Action>), Refusal> {
        let trial = self.trials.iter().position(|it| it.service == service);
        let at = trial.ok_or(Refusal::NotUpdating)?;
        let Trial {
            versions,
            is_tried,
            candidate,
            step: Step::Held { .. },
            ..
        } = self.trials[at]
        else {
            return Err(Refusal::Updating);
        };
        self.shared.now = now;
        let (defined, mut ids) = self.definitions();
        let new = defined.get(&candidate).ok_or(Refusal::Removed)?;
        ids.insert(new.name().clone(), candidate);
        self.graph = match Graph::new(&defined, &ids) {
            Ok(graph) => graph,
            Err(error) => {
                // The next event rolls the trial back.
                if let Some(new) = self.services.get_mut(&candidate) {
                    new.fail_trial(TrialFailure::Misfit(error.to_string()));
                }
                return Err(Refusal::Misfit(error));
            }
        };
        self.trials.remove(at);
        // Both entries exist: their IDs differ.
        if let Some(mut old) = self.services.remove(&service) {
            if let Some(new) = self.services.get_mut(&candidate) {
                new.replace(&mut old);
            }
            self.services.insert(service, old);
        }
        self.emit(candidate, Fact::Updated { is_tried, versions });
        let all = self.services.keys().copied().collect();
        Ok((candidate, self.settle(all)))
    }

    /// Rolls back the trial of a service, if there is one.
    pub fn abort(&mut self, service: ServiceId, now: Instant) -> Vec<Action> {
        self.shared.now = now;
        self.give_up(service, TrialFailure::Aborted);
        self.settle(vec![service])
    }

    /// Returns the status of the trial of a service.
    pub fn trial(&self, service: ServiceId) -> Option<TrialView> {
        let trial = self.trials.iter().find(|it| it.service == service)?;
        Some(TrialView {
            candidate: trial.candidate(),
            style: trial.style,
            phase: trial.phase(),
        })
    }

    /// Returns the role of a candidate, or of a superseded service that is not gone yet.
    pub fn rollout_role(&self, id: ServiceId) -> Option<RolloutRole> {
        self.services.get(&id)?.rollout_role()
    }

    pub(super) fn trial_deadline(&self) -> Option<Instant> {
        let deadlines = self.trials.iter().filter_map(|it| self.deadline_of(it));
        deadlines.min()
    }

    fn deadline_of(&self, trial: &Trial) -> Option<Instant> {
        match trial.step {
            // The steps after the wait for needs have deadlines of their own.
            Step::Starting { until } => {
                let candidate = self.services.get(&trial.candidate)?;
                (candidate.view().state == StateName::Waiting).then_some(until)
            }
            Step::Snapshotting { until, .. }
            | Step::Canary { until }
            | Step::Held { until }
            | Step::Restoring { until, .. } => Some(until),
            Step::Clearing | Step::Ending { .. } | Step::Returning { .. } => None,
        }
    }

    /// Extends the deadlines of trials, like [`Service::postpone`].
    pub(super) fn postpone_trials(&mut self) {
        let soonest = self.shared.now + ANSWER_GRACE;
        for trial in &mut self.trials {
            match &mut trial.step {
                Step::Starting { until }
                | Step::Snapshotting { until, .. }
                | Step::Canary { until }
                | Step::Held { until }
                | Step::Restoring { until, .. } => *until = (*until).max(soonest),
                Step::Clearing | Step::Ending { .. } | Step::Returning { .. } => {}
            }
        }
    }

    pub(super) fn tick_trials(&mut self) {
        for at in 0..self.trials.len() {
            let deadline = self.deadline_of(&self.trials[at]);
            self.trials[at].is_due = deadline.is_some_and(|until| until <= self.shared.now);
        }
    }

    /// Rolls back the trials of the services that were asked to stop.
    pub(super) fn end_trials(&mut self, is_meant: impl Fn(&Trial) -> bool) {
        let trials = self.trials.iter().filter(|trial| is_meant(trial));
        let services: Vec<ServiceId> = trials.map(|trial| trial.service).collect();
        for service in services {
            self.give_up(service, TrialFailure::Stopped);
        }
    }

    /// Cancels the restores of trials that are being rolled back. Their answers are still to come.
    pub(super) fn abandon_restores(&mut self) {
        for trial in &self.trials {
            if let Step::Restoring { token, .. } = trial.step {
                let action = Action::AbandonRestore(trial.service, token);
                self.shared.actions.push(action);
            }
        }
    }

    /// Handles the answer to [`Action::KeepState`]. Returns the service if the answer belongs to a
    /// trial.
    pub(super) fn trial_kept(
        &mut self,
        answered: Token,
        result: &Result<Snapshotted, CopyFailure>,
    ) -> Option<ServiceId> {
        let is_of = |trial: &&mut Trial| match trial.step {
            Step::Snapshotting { token, .. } => token == Some(answered),
            _ => false,
        };
        let trial = self.trials.iter_mut().find(is_of)?;
        let (service, candidate) = (trial.service, trial.candidate);
        match result {
            Ok(Snapshotted::Taken(snapshot)) => {
                let snapshot = *snapshot;
                trial.snapshot = Some(snapshot);
                self.emit(service, Fact::SnapshotTaken { snapshot });
                let step = self.launch(candidate);
                if let Some(trial) = self.trials.iter_mut().find(|it| it.service == service) {
                    (trial.step, trial.is_due) = (step, false);
                }
            }
            Ok(Snapshotted::Unchanged) => self.not_kept(service, "it has no snapshot".to_owned()),
            Err(why) => self.not_kept(service, why.to_string()),
        }
        Some(service)
    }

    fn not_kept(&mut self, service: ServiceId, why: String) {
        if let Some(trial) = self.trials.iter_mut().find(|it| it.service == service)
            && let Step::Snapshotting { token, .. } = &mut trial.step
        {
            *token = None;
        }
        self.give_up(service, TrialFailure::NotKept(why));
    }

    /// Handles the answer to [`Action::RestoreSnapshot`]. Returns the service if the answer belongs
    /// to a trial.
    pub(super) fn trial_restored(
        &mut self,
        answered: Token,
        result: &Result<SnapshotId, CopyFailure>,
    ) -> Option<ServiceId> {
        let is_of = |trial: &&mut Trial| match trial.step {
            Step::Restoring { token, .. } => token == answered,
            _ => false,
        };
        let trial = self.trials.iter_mut().find(is_of)?;
        let service = trial.service;
        if let Step::Restoring { phase, why, .. } = trial.step.clone() {
            trial.step = Step::Ending { phase, why };
            trial.is_due = false;
        }
        trial.returns &= result.is_ok();
        match result {
            Ok(snapshot) => {
                let snapshot = *snapshot;
                self.emit(service, Fact::Restored { snapshot });
            }
            Err(why) => {
                let is_over = self.shutting_down;
                if let Some(old) = self.services.get_mut(&service) {
                    old.lost_its_state(why.to_string(), is_over, &mut self.shared);
                }
            }
        }
        Some(service)
    }

    fn give_up(&mut self, service: ServiceId, why: TrialFailure) {
        let trial = self.trials.iter_mut().find(|it| it.service == service);
        if let Some(trial) = trial.filter(|trial| trial.is_open()) {
            let phase = match &why {
                TrialFailure::Failed(Ended::NotReady { .. }) => TrialPhase::Ready,
                _ => trial.phase(),
            };
            if let Step::Snapshotting {
                token: Some(token), ..
            } = trial.step
                && let Some(old) = self.services.get_mut(&service)
            {
                old.abandon(token, &mut self.shared);
            }
            trial.step = Step::Ending { phase, why };
            trial.is_due = false;
            let candidate = trial.candidate;
            self.want_end(candidate);
        }
    }

    fn want_end(&mut self, id: ServiceId) {
        if let Some(service) = self.services.get_mut(&id) {
            service.want_end();
        }
    }

    fn launch(&mut self, candidate: ServiceId) -> Step {
        let mut until = self.shared.now;
        if let Some(new) = self.services.get_mut(&candidate) {
            until = until + new.spec().start().timeout();
            // The candidate was never started, so nothing refuses.
            let _ = new.start(Launch::IfDown, &mut self.shared);
        }
        Step::Starting { until }
    }

    fn hold(&mut self, service: ServiceId, is_tried: bool) -> Step {
        self.emit(service, Fact::Trial { is_tried });
        let until = self.shared.now + COMMIT_TIMEOUT;
        Step::Held { until }
    }

    /// Advances trials and forgets superseded services that are gone. Returns the affected services
    /// if anything changed.
    pub(super) fn advance(&mut self) -> Option<Vec<ServiceId>> {
        let is_gone = |service: &Service| {
            *service.role() == Role::Superseded && service.is_down() && !service.has_remains()
        };
        let gone = self.services.iter().find(|(_, service)| is_gone(service));
        if let Some((&id, _)) = gone {
            self.forget(id);
            return Some(vec![id]);
        }
        (0..self.trials.len()).find_map(|at| self.advance_one(at))
    }

    fn forget(&mut self, id: ServiceId) {
        if let Some(service) = self.services.get_mut(&id) {
            service.be_forgotten();
        }
        self.shared.actions.push(Action::Forget(id));
    }

    fn advance_one(&mut self, at: usize) -> Option<Vec<ServiceId>> {
        let now = self.shared.now;
        let trial = &self.trials[at];
        let (service, candidate, canary) = (trial.service, trial.candidate, trial.canary);
        if let Step::Returning { phase, why } = &trial.step {
            let fact = Fact::RolledBack {
                phase: *phase,
                why: why.clone(),
                versions: trial.versions,
            };
            let old = self.services.get(&service)?;
            return old.has_settled().then(|| {
                self.emit(service, fact);
                self.trials.remove(at);
                vec![service]
            });
        }
        let (old, new) = (self.services.get(&service)?, self.services.get(&candidate)?);
        let mut changed = vec![service, candidate];
        if let Some(failure) = trial.failure(old, new) {
            self.give_up(service, failure);
            return Some(changed);
        }
        let step = match trial.step.clone() {
            Step::Clearing if old.is_down() && old.spec().snapshot().is_some() => {
                Step::Snapshotting {
                    token: None,
                    until: now + STATE_TIMEOUT,
                }
            }
            Step::Clearing if old.is_down() => self.launch(candidate),
            // A cancelled snapshot must end first.
            Step::Snapshotting { token: None, until } if !old.is_abandoning() => {
                let token = Token(self.shared.number());
                self.shared.actions.push(Action::KeepState {
                    service,
                    token,
                    stable: trial.was_healthy,
                });
                Step::Snapshotting {
                    token: Some(token),
                    until,
                }
            }
            Step::Starting { .. } if new.is_satisfied() => Step::Canary {
                until: now + canary,
            },
            Step::Canary { .. } if trial.is_due => self.hold(service, true),
            Step::Restoring { token, .. } if trial.is_due => {
                let action = Action::AbandonRestore(service, token);
                self.shared.actions.push(action);
                self.trial_restored(token, &Err(CopyFailure::RestoreTimedOut));
                return Some(changed);
            }
            Step::Ending { phase, why } if new.is_down() && !new.has_remains() => {
                let step = self.roll_back(at, phase, why);
                if let Step::Returning { .. } = step {
                    changed = vec![service];
                }
                step
            }
            _ => return None,
        };
        self.trials[at].step = step;
        self.trials[at].is_due = false;
        Some(changed)
    }

    /// Restores the state before the trial, if there is a snapshot of it, and otherwise returns to
    /// the old definition. The candidate has no processes.
    fn roll_back(&mut self, at: usize, phase: TrialPhase, why: TrialFailure) -> Step {
        let trial = &mut self.trials[at];
        let (service, candidate, returns) = (trial.service, trial.candidate, trial.returns);
        if let Some(snapshot) = trial.snapshot.take() {
            let token = Token(self.shared.number());
            self.shared.actions.push(Action::RestoreSnapshot {
                service,
                token,
                snapshot,
            });
            let until = self.shared.now + STATE_TIMEOUT;
            return Step::Restoring {
                token,
                until,
                phase,
                why,
            };
        }
        self.forget(candidate);
        // Only the trial stopped the service, unless an operator has stopped it meanwhile.
        if let Some(old) = self.services.get_mut(&service)
            && returns
            && !self.shutting_down
            && old.is_desired_up()
        {
            old.come_back(&self.shared);
        }
        Step::Returning { phase, why }
    }
}
