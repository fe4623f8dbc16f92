//! An update: a new definition of a service is tried, and takes the place of the old one if it is healthy and somebody commits it.
//!
//! The candidate is a service of its own, which [`Engine::ids`] and [`Engine::find`] do not know: nobody needs it, and nobody asks it for
//! anything. It has no restart policy, as its first failure is the verdict. With [`Style::Restart`] the old run is gone before it starts; with
//! [`Style::Overlap`] both run. A state that is kept in snapshots is kept between the two runs, and restored before the old definition runs
//! again. What is committed takes the service's name, dependents and place in the list, and keeps its id, so that no
//! answer to a question of its is lost; what it replaces is stopped, then forgotten ([`Action::Forget`]). Otherwise the candidate is stopped
//! and forgotten, and the old definition is what it was. Every step is bounded in time. An engine that takes up what a killed host left
//! knows of no trial: the old definition is on duty.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::asking::ANSWER_GRACE;
use super::contract::{Ended, Human};
use super::fact::Fact;
use super::service::{Role, Service};
use super::{Action, Engine, Graph, Refusal, ServiceId, Snapshotted, StateName, Token};
use crate::snapshot::SnapshotId;
use crate::spec::{ServiceName, Spec};
use crate::time::Instant;

/// How long a healthy candidate is held for somebody to commit it.
pub const COMMIT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a snapshot, or a restore, may take.
const STATE_PATIENCE: Duration = Duration::from_secs(3600);

/// Whether the candidate runs beside the old run or after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Style {
    /// The old run is stopped first.
    Restart,
    /// Both run, on the same sockets, until it is decided.
    Overlap,
}

/// How a definition is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tryout {
    /// Where it cannot be an overlap, because the service is not ready, it is a restart.
    pub style: Style,
    /// How long the candidate has to be ready without a failure.
    pub canary: Duration,
}

/// How far a trial is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrialPhase {
    /// The old run is being stopped.
    Stop,
    /// Its state is being kept.
    Snapshot,
    /// The candidate is being started.
    Start,
    /// It runs, and was not ready in time.
    Ready,
    /// It was ready, and had to stay healthy.
    Canary,
    /// It is healthy, and waits for somebody to commit it.
    Trial,
    /// The candidate is being stopped, or the old definition started again.
    RollBack,
}

impl TrialPhase {
    /// As it is serialised.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Snapshot => "snapshot",
            Self::Start => "start",
            Self::Ready => "ready",
            Self::Canary => "canary",
            Self::Trial => "trial",
            Self::RollBack => "roll-back",
        }
    }
}

/// Why a candidate is given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Flaw {
    /// It failed.
    Failed(Ended),
    /// It needs one that is halted.
    Need(ServiceName),
    /// What it needs did not become ready.
    NeedsLate {
        /// `start.timeout`
        #[serde(rename = "after_ms", serialize_with = "super::fact::millis")]
        after: Duration,
    },
    /// Processes of the old run outlived their kill.
    Remains,
    /// There is no snapshot to go back to.
    NotKept(String),
    /// Meanwhile others were defined with whom it makes no graph.
    Misfit(String),
    /// The service, or everything, was asked to stop.
    Stopped,
    /// Whoever wanted it called it off, or is gone.
    Aborted,
    /// Nobody committed it in time.
    NotCommitted,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(ended) => ended.fmt(f),
            Self::Need(name) => write!(f, "it needs {name}, which is halted"),
            Self::NeedsLate { after } => {
                write!(f, "what it needs was not ready after {}", Human(*after))
            }
            Self::Remains => f.write_str("processes of the old run live on, although killed"),
            Self::NotKept(why) => write!(f, "its state could not be kept: {why}"),
            Self::Misfit(why) => f.write_str(why),
            Self::Stopped => f.write_str("it was asked to stop"),
            Self::Aborted => f.write_str("it was called off"),
            Self::NotCommitted => {
                write!(f, "nobody committed it within {}", Human(COMMIT_PATIENCE))
            }
        }
    }
}

/// What can be said of a trial now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrialView {
    /// By which the engine calls the new definition, as long as there is something of it.
    pub candidate: Option<ServiceId>,
    /// Whether both run.
    pub style: Style,
    /// How far it is.
    pub phase: TrialPhase,
}

#[derive(Debug)]
pub(super) struct Trial {
    service: ServiceId,
    candidate: ServiceId,
    style: Style,
    canary: Duration,
    /// Of a state that the candidate has not seen.
    snapshot: Option<SnapshotId>,
    /// The old run was healthy.
    was_healthy: bool,
    /// The old definition ran, or was about to, and was stopped for this.
    returns: bool,
    step: Step,
    /// The time of its step is over.
    is_due: bool,
}

#[derive(Clone, Debug)]
enum Step {
    /// The old run is stopped.
    Clearing,
    /// `token`: it has begun.
    Keeping {
        token: Option<Token>,
        until: Instant,
    },
    /// `until`: what it needs has to be ready.
    Starting {
        until: Instant,
    },
    Canary {
        until: Instant,
    },
    /// For a commit.
    Held {
        until: Instant,
    },
    /// The candidate is stopped.
    Ending {
        phase: TrialPhase,
        why: Flaw,
    },
    Restoring {
        token: Token,
        until: Instant,
        phase: TrialPhase,
        why: Flaw,
    },
    /// The old definition is started again.
    Returning {
        phase: TrialPhase,
        why: Flaw,
    },
}

impl Trial {
    fn phase(&self) -> TrialPhase {
        match self.step {
            Step::Clearing => TrialPhase::Stop,
            Step::Keeping { .. } => TrialPhase::Snapshot,
            Step::Starting { .. } => TrialPhase::Start,
            Step::Canary { .. } => TrialPhase::Canary,
            Step::Held { .. } => TrialPhase::Trial,
            Step::Ending { .. } | Step::Restoring { .. } | Step::Returning { .. } => {
                TrialPhase::RollBack
            }
        }
    }

    /// Until it is forgotten.
    pub(super) fn candidate(&self) -> Option<ServiceId> {
        let is_there = !matches!(self.step, Step::Returning { .. });
        is_there.then_some(self.candidate)
    }

    pub(super) fn is_of(&self, service: ServiceId) -> bool {
        self.service == service
    }

    /// Whether it may still be committed.
    fn is_open(&self) -> bool {
        self.phase() != TrialPhase::RollBack
    }
}

impl Engine {
    /// Tries a new definition of the service; the candidate's id. A service that is down is not started for that: its candidate is held at once.
    /// What becomes of it is told: [`Fact::Trial`], then [`Fact::Updated`] or [`Fact::RolledBack`].
    ///
    /// # Errors
    /// Where it cannot be tried now; then nothing has changed.
    pub fn try_out(
        &mut self,
        service: ServiceId,
        spec: Arc<Spec>,
        how: Tryout,
        now: Instant,
    ) -> Result<(ServiceId, Vec<Action>), Refusal> {
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
        let state = old.view().state;
        let is_up = !old.wants_down() && state != StateName::Stopped;
        let is_down = state == StateName::Stopped;
        if state == StateName::Paused || !is_up && !is_down {
            return Err(Refusal::State(match state {
                // Until nothing runs that needs it.
                StateName::Running => StateName::StopPending,
                state => state,
            }));
        }
        // As it will be, then as it is until then.
        let (mut defined, ids) = self.definitions();
        defined.insert(service, Arc::clone(&spec));
        Graph::new(&defined, &ids).map_err(Refusal::Misfit)?;
        let (mut defined, ids) = self.definitions();
        let candidate = self.next_id;
        defined.insert(candidate, Arc::clone(&spec));
        self.graph = Graph::new(&defined, &ids).map_err(Refusal::Misfit)?;
        self.next_id.take();
        self.shared.now = now;
        // One that is halted for a need would come back by itself.
        let stays_down = old.is_halted() && !old.is_halted_for_a_need();
        let style = match how.style {
            Style::Overlap if old.is_satisfied() => Style::Overlap,
            _ => Style::Restart,
        };
        let returns = is_up && style == Style::Restart && !stays_down;
        let was_healthy = old.is_satisfied();
        let new = Service::new(candidate, spec, now).tried_for(old);
        self.services.insert(candidate, new);
        self.tell(service, Fact::Updating { style });
        let mut trial = Trial {
            service,
            candidate,
            style,
            canary: how.canary,
            snapshot: None,
            was_healthy,
            returns,
            step: Step::Clearing,
            is_due: false,
        };
        let mut changed = vec![candidate];
        if is_down {
            trial.step = self.hold(service);
        } else {
            // It is asked for now: later somebody may stop what it needs.
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

    /// Has the candidate take the service's place; its id is the service's from now on.
    ///
    /// # Errors
    /// Where there is no healthy candidate.
    pub fn commit(
        &mut self,
        service: ServiceId,
        now: Instant,
    ) -> Result<(ServiceId, Vec<Action>), Refusal> {
        let trial = self.trials.iter().position(|it| it.service == service);
        let at = trial.ok_or(Refusal::NotUpdating)?;
        let Trial {
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
                // It is rolled back with the next event, and that is now.
                if let Some(new) = self.services.get_mut(&candidate) {
                    new.flawed(Flaw::Misfit(error.to_string()));
                }
                return Err(Refusal::Misfit(error));
            }
        };
        self.trials.remove(at);
        // Both are there: they are two entries.
        if let Some(mut old) = self.services.remove(&service) {
            if let Some(new) = self.services.get_mut(&candidate) {
                new.replace(&mut old);
            }
            self.services.insert(service, old);
        }
        self.tell(candidate, Fact::Updated);
        let all = self.services.keys().copied().collect();
        Ok((candidate, self.settle(all)))
    }

    /// Gives the candidate up, where there is one.
    pub fn abort(&mut self, service: ServiceId, now: Instant) -> Vec<Action> {
        self.shared.now = now;
        self.give_up(service, Flaw::Aborted);
        self.settle(vec![service])
    }

    /// The trial of a service.
    pub fn trial(&self, service: ServiceId) -> Option<TrialView> {
        let trial = self.trials.iter().find(|it| it.service == service)?;
        Some(TrialView {
            candidate: trial.candidate(),
            style: trial.style,
            phase: trial.phase(),
        })
    }

    /// Whether it is tried for a service, or was replaced and is not gone yet.
    pub fn beside(&self, id: ServiceId) -> Option<Beside> {
        self.services.get(&id)?.beside()
    }

    pub(super) fn trial_deadline(&self) -> Option<Instant> {
        let deadlines = self.trials.iter().filter_map(|it| self.deadline_of(it));
        deadlines.min()
    }

    fn deadline_of(&self, trial: &Trial) -> Option<Instant> {
        match trial.step {
            // What comes after the wait for its needs has deadlines of its own.
            Step::Starting { until } => {
                let candidate = self.services.get(&trial.candidate)?;
                (candidate.view().state == StateName::Waiting).then_some(until)
            }
            Step::Keeping { until, .. }
            | Step::Canary { until }
            | Step::Held { until }
            | Step::Restoring { until, .. } => Some(until),
            Step::Clearing | Step::Ending { .. } | Step::Returning { .. } => None,
        }
    }

    /// As [`Service::postpone`].
    pub(super) fn postpone_trials(&mut self) {
        let soonest = self.shared.now + ANSWER_GRACE;
        for trial in &mut self.trials {
            match &mut trial.step {
                Step::Starting { until }
                | Step::Keeping { until, .. }
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

    /// The service was asked to stop, or all were.
    pub(super) fn end_trials(&mut self, is_of: impl Fn(ServiceId) -> bool) {
        let services = self.trials.iter().map(|trial| trial.service);
        let services: Vec<ServiceId> = services.filter(|id| is_of(*id)).collect();
        for service in services {
            self.give_up(service, Flaw::Stopped);
        }
    }

    /// The answer to [`Action::KeepState`], if it is one.
    pub(super) fn trial_kept(
        &mut self,
        answered: Token,
        result: &Result<Snapshotted, String>,
    ) -> Option<ServiceId> {
        let is_of = |trial: &&mut Trial| matches!(trial.step, Step::Keeping { token, .. } if token == Some(answered));
        let trial = self.trials.iter_mut().find(is_of)?;
        let (service, candidate) = (trial.service, trial.candidate);
        match result {
            Ok(Snapshotted::Taken(snapshot)) => {
                let snapshot = *snapshot;
                trial.snapshot = Some(snapshot);
                self.tell(service, Fact::SnapshotTaken { snapshot });
                let step = self.launch(candidate);
                if let Some(trial) = self.trials.iter_mut().find(|it| it.service == service) {
                    (trial.step, trial.is_due) = (step, false);
                }
            }
            Ok(Snapshotted::Unchanged) => self.not_kept(service, "there is none".to_owned()),
            Err(why) => self.not_kept(service, why.clone()),
        }
        Some(service)
    }

    fn not_kept(&mut self, service: ServiceId, why: String) {
        if let Some(trial) = self.trials.iter_mut().find(|it| it.service == service)
            && let Step::Keeping { token, .. } = &mut trial.step
        {
            *token = None;
        }
        self.give_up(service, Flaw::NotKept(why));
    }

    /// The answer to [`Action::RestoreSnapshot`], if it is one.
    pub(super) fn trial_restored(
        &mut self,
        answered: Token,
        result: &Result<SnapshotId, String>,
    ) -> Option<ServiceId> {
        let is_of = |trial: &&mut Trial| matches!(trial.step, Step::Restoring { token, .. } if token == answered);
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
                self.tell(service, Fact::Restored { snapshot });
            }
            Err(why) => {
                let is_over = self.shutting_down;
                if let Some(old) = self.services.get_mut(&service) {
                    old.lost_its_state(why.clone(), is_over, &mut self.shared);
                }
            }
        }
        Some(service)
    }

    fn give_up(&mut self, service: ServiceId, why: Flaw) {
        let trial = self.trials.iter_mut().find(|it| it.service == service);
        if let Some(trial) = trial.filter(|trial| trial.is_open()) {
            let phase = match &why {
                Flaw::Failed(Ended::NotReady { .. }) => TrialPhase::Ready,
                _ => trial.phase(),
            };
            if let Step::Keeping {
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
            // It was never started: nothing refuses.
            let _ = new.start(false, &mut self.shared);
        }
        Step::Starting { until }
    }

    fn hold(&mut self, service: ServiceId) -> Step {
        self.tell(service, Fact::Trial);
        let until = self.shared.now + COMMIT_PATIENCE;
        Step::Held { until }
    }

    /// Moves trials on, and forgets what was replaced; whom that concerns, if anything moved.
    pub(super) fn advance(&mut self) -> Option<Vec<ServiceId>> {
        let is_gone = |service: &Service| {
            *service.role() == Role::Replaced && service.is_down() && !service.has_remains()
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
            };
            let old = self.services.get(&service)?;
            return old.has_come_to_rest().then(|| {
                self.tell(service, fact);
                self.trials.remove(at);
                vec![service]
            });
        }
        let (old, new) = (self.services.get(&service)?, self.services.get(&candidate)?);
        let mut changed = vec![service, candidate];
        let flaw = new.flaw().filter(|_| trial.is_open()).cloned();
        let flaw = flaw.or_else(|| match trial.step {
            Step::Clearing if old.has_remains() => Some(Flaw::Remains),
            Step::Starting { .. } if trial.is_due && new.view().state == StateName::Waiting => {
                let after = new.spec().start().timeout();
                Some(Flaw::NeedsLate { after })
            }
            Step::Keeping { .. } if trial.is_due => {
                Some(Flaw::NotKept("its snapshot did not end".to_owned()))
            }
            Step::Held { .. } if trial.is_due => Some(Flaw::NotCommitted),
            _ => None,
        });
        if let Some(flaw) = flaw {
            self.give_up(service, flaw);
            return Some(changed);
        }
        let step = match trial.step.clone() {
            Step::Clearing if old.is_down() && old.spec().snapshot().is_some() => Step::Keeping {
                token: None,
                until: now + STATE_PATIENCE,
            },
            Step::Clearing if old.is_down() => self.launch(candidate),
            // One that was called off has to end first.
            Step::Keeping { token: None, until } if !old.is_abandoning() => {
                let token = Token(self.shared.number());
                self.shared.actions.push(Action::KeepState {
                    service,
                    token,
                    stable: trial.was_healthy,
                });
                Step::Keeping {
                    token: Some(token),
                    until,
                }
            }
            Step::Starting { .. } if new.is_satisfied() => Step::Canary {
                until: now + canary,
            },
            Step::Canary { .. } if trial.is_due => self.hold(service),
            Step::Restoring { token, .. } if trial.is_due => {
                let why = "the restore did not end".to_owned();
                self.trial_restored(token, &Err(why));
                return Some(changed);
            }
            Step::Ending { phase, why } if new.is_down() && !new.has_remains() => {
                if let Some(snapshot) = self.trials[at].snapshot.take() {
                    let token = Token(self.shared.number());
                    self.shared.actions.push(Action::RestoreSnapshot {
                        service,
                        token,
                        snapshot,
                    });
                    let until = now + STATE_PATIENCE;
                    Step::Restoring {
                        token,
                        until,
                        phase,
                        why,
                    }
                } else {
                    self.forget(candidate);
                    changed = vec![service];
                    let returns = self.trials[at].returns && !self.shutting_down;
                    // Nobody wanted it down but we; or else somebody does, and it stays so.
                    if let Some(old) = self.services.get_mut(&service)
                        && returns
                        && old.is_wished()
                    {
                        old.come_back(&self.shared);
                    }
                    Step::Returning { phase, why }
                }
            }
            _ => return None,
        };
        self.trials[at].step = step;
        self.trials[at].is_due = false;
        Some(changed)
    }
}

/// What a service is that is none by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Beside {
    /// A new definition on trial.
    Candidate,
    /// What a new definition has replaced.
    Predecessor,
}
