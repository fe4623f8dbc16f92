//! The state machine of one service: requests and events lead from one [`State`] to the next.

mod checkpoint;
mod evidence;
mod requests;
mod rollout;
mod snapshots;
mod start;
mod status;
mod stop;

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::asking::ANSWER_GRACE;
use super::checkpoint::DesiredState;
use super::contract::{Ended, Human, classify};
use super::fact::{Fact, Halt, News, Outcome};
use super::history::{Next, RestartHistory};
use super::id::{RunId, ServiceId, Token};
use super::protocol::Action;
use super::rollout::{RolloutRole, TrialFailure};
use super::shared::Shared;
use super::state::{Attempt, Child, Phase, SnapshotSchedule, State, Then};
use crate::spec::{CodeAction, ServiceName, Spec};
use crate::time::Instant;

/// The time limit for a restore.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(3600);
/// The time limit for one readiness probe or one check of a condition.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A supervised service: its desired state, its current state, and its restart history.
#[derive(Debug)]
pub(super) struct Service {
    id: ServiceId,
    spec: Arc<Spec>,
    /// The definition that takes effect at the end of the current run.
    next: Option<Arc<Spec>>,
    goal: Goal,
    /// The state that operators last requested by name. A shutdown changes only the goal.
    desired: DesiredState,
    state: State,
    /// Set when a restart was requested. It begins once nothing that needs this service is
    /// stopping.
    is_restart_due: bool,
    since: Instant,
    history: RestartHistory,
    role: Role,
    /// The position among the active services.
    rank: u64,
    /// A cancelled snapshot that has not ended yet.
    abandoned: Option<Token>,
    /// A run counts as good from this time on at the earliest, after a time in which the host did
    /// not run.
    good_from: Instant,
    /// The reason why the last snapshot failed, if it did. A repeated failure for the same reason
    /// is not reported again.
    not_kept: Option<String>,
}

/// The role of a service in an update.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The active service of its name.
    Active,
    /// A candidate on trial. It has failed once `failure` is set.
    Candidate { failure: Option<TrialFailure> },
    /// A superseded service: a candidate has taken its place.
    Superseded,
    /// A former candidate or superseded service that the host was told to forget.
    Forgotten(RolloutRole),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Up,
    Down,
}

/// The state of other services, as far as it affects this one.
#[derive(Debug)]
pub(super) struct Situation {
    /// The first need that is not ready.
    pub(super) missing: Option<ServiceName>,
    /// The reason why a need will not become ready unless an operator starts it.
    pub(super) blocked: Option<Halt>,
    /// Set while a dependent must stop first.
    pub(super) is_held: bool,
}

/// The result of settling a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// No change.
    Still,
    /// No change, and the needs that it waits for are still to be reported.
    Untold,
    /// The service changed its state.
    Moved,
}

impl Service {
    pub(super) fn new(id: ServiceId, spec: Arc<Spec>, now: Instant) -> Self {
        Self {
            id,
            spec,
            next: None,
            goal: Goal::Down,
            desired: DesiredState::Down,
            state: State::Stopped { is_done: false },
            is_restart_due: false,
            since: now,
            history: RestartHistory::default(),
            role: Role::Active,
            rank: id.0,
            abandoned: None,
            good_from: Instant::ZERO,
            not_kept: None,
        }
    }

    pub(super) fn spec(&self) -> &Arc<Spec> {
        &self.spec
    }

    /// Returns the latest definition, which may not be in effect yet.
    pub(super) fn definition(&self) -> &Arc<Spec> {
        self.next.as_ref().unwrap_or(&self.spec)
    }

    /// Sets the definition that takes effect at the end of the current run. The caller settles the
    /// service afterwards.
    pub(super) fn redefine(&mut self, spec: Arc<Spec>) {
        self.next = Some(spec);
    }

    /// Puts the latest definition into effect if nothing of the service runs.
    pub(super) fn take_up(&mut self, shared: &Shared) {
        let is_free = !matches!(
            self.state,
            State::Live { .. }
                | State::Halted {
                    remains: Some(_),
                    ..
                }
        );
        let Some(spec) = self.next.take_if(|_| is_free) else {
            return;
        };
        self.spec = spec;
        // The conditions belong to the former definition. Earlier failures still count.
        if let State::Conditions { .. } = self.state {
            self.wait(shared);
        }
    }

    fn live(&mut self, run: RunId) -> Option<(&mut Child, &mut Phase)> {
        match &mut self.state {
            State::Live { child, phase } if child.run == run => Some((child, phase)),
            _ => None,
        }
    }

    /// Extends the deadlines after a time in which the host did not run: evidence may still be on
    /// its way.
    pub(super) fn postpone(&mut self, now: Instant) {
        match &mut self.state {
            State::Conditions {
                deadline, attempt, ..
            } => {
                *deadline = (*deadline).max(now + ANSWER_TIMEOUT);
                attempt.until = attempt.until.max(*deadline);
            }
            State::Waiting {
                attempt: Some(attempt),
                ..
            } => attempt.until = attempt.until.max(now + ANSWER_TIMEOUT),
            State::Live { phase, .. } => match phase {
                Phase::Starting { deadline, .. } => {
                    *deadline = (*deadline).max(now + ANSWER_TIMEOUT);
                }
                Phase::Running { schedule, .. } => {
                    self.good_from = now + ANSWER_GRACE;
                    if let SnapshotSchedule::Taking { until, .. } = schedule {
                        *until = (*until).max(now + ANSWER_GRACE);
                    }
                }
                Phase::Stopping { until, .. } => *until = (*until).max(now + ANSWER_GRACE),
                Phase::Paused => {}
            },
            State::Restoring { until, .. } => *until = (*until).max(now + ANSWER_GRACE),
            State::Stopped { .. }
            | State::Waiting { .. }
            | State::BackingOff { .. }
            | State::Halted { .. } => {}
        }
    }

    /// Forgets earlier failures once a run has been good, and reports a crash loop that lasts.
    fn review_failures(&mut self, shared: &mut Shared) {
        let now = shared.now;
        let is_good = self.good_at().is_some_and(|at| at <= now);
        let is_down = self.is_down();
        let reported = match &mut self.history.crash_loop {
            Some(_) if is_good => self.history.recover(now),
            Some(crash_loop) if !is_down => crash_loop.reminder(now),
            Some(_) | None => None,
        };
        if is_good {
            self.history.good_run();
            shared.actions.push(Action::Record(self.id));
        }
        if let Some(fact) = reported {
            self.emit(fact, shared);
        }
    }

    pub(super) fn tick(&mut self, shared: &mut Shared) {
        let now = shared.now;
        self.review_failures(shared);
        match &self.state {
            State::Waiting {
                attempt:
                    Some(Attempt {
                        until,
                        lost: Some(lost),
                    }),
                ..
            } if *until <= now => {
                let (probe, last) = (lost.probe.clone(), Some(lost.to_string()));
                self.handle_end(Ended::ConditionMissed { probe, last }, None, shared);
            }
            State::Conditions { .. } => self.check_condition(shared),
            State::Live { phase, .. } => match phase {
                Phase::Starting { .. } => self.check_readiness(shared),
                Phase::Running { schedule, .. }
                    if schedule.deadline().is_some_and(|at| at <= now) =>
                {
                    self.keep(shared);
                }
                Phase::Running { .. } => self.check_liveness(shared),
                Phase::Stopping { .. } => self.continue_stop(shared),
                Phase::Paused => {}
            },
            State::BackingOff { until, .. } if *until <= now => self.wait(shared),
            State::Restoring { asked, until, .. } if *until <= now => {
                if let Some(token) = *asked {
                    let action = Action::AbandonRestore(self.id, token);
                    shared.actions.push(action);
                }
                let limit = Human(RESTORE_TIMEOUT);
                let why = format!("the restore timed out after {limit}");
                self.halt(Halt::NotRestored { why }, None, shared);
            }
            _ => {}
        }
    }

    /// Moves to the next state if the other services allow it.
    pub(super) fn settle(&mut self, situation: &Situation, shared: &mut Shared) -> Settled {
        match (&mut self.state, self.goal) {
            (
                State::Waiting { .. }
                | State::Conditions { .. }
                | State::BackingOff { .. }
                | State::Halted { remains: None, .. },
                Goal::Down,
            ) => self.stopped(Outcome::Requested, shared),
            (
                State::Live {
                    phase: Phase::Starting { .. } | Phase::Running { .. } | Phase::Paused,
                    ..
                },
                Goal::Down,
            ) if !situation.is_held => self.begin_stop(Then::Down, shared),
            (
                State::Restoring {
                    asked: Some(_),
                    is_called_off: false,
                    ..
                },
                Goal::Down,
            ) => {
                self.cancel_restore(shared);
                return Settled::Still;
            }
            (
                State::Live {
                    phase: Phase::Starting { .. } | Phase::Running { .. } | Phase::Paused,
                    ..
                },
                Goal::Up,
            ) if self.is_restart_due && !situation.is_held => self.begin_stop(Then::Start, shared),
            (
                State::Waiting {
                    attempt: Some(attempt),
                    ..
                },
                Goal::Up,
            ) if attempt.until <= shared.now => return Settled::Still,
            (State::Waiting { is_announced, .. }, Goal::Up) => {
                if let Some(why) = &situation.blocked {
                    self.halt(why.clone(), None, shared);
                } else if situation.missing.is_none() {
                    self.next_condition(0, shared);
                } else if mem::replace(is_announced, true) {
                    return Settled::Still;
                } else {
                    return Settled::Untold;
                }
            }
            (State::Conditions { .. }, Goal::Up) if situation.missing.is_some() => {
                self.lost_a_need(situation.missing.as_ref(), shared);
            }
            // The need can become ready again.
            (
                State::Halted {
                    why: Halt::Need(_) | Halt::NeedEnded(_),
                    ..
                },
                Goal::Up,
            ) if situation.blocked.is_none() => self.wait(shared),
            _ => return Settled::Still,
        }
        Settled::Moved
    }

    fn enter(&mut self, state: State, shared: &Shared) {
        // A service that is stopped only for a trial keeps its crash loop.
        let is_for_now = self.goal == Goal::Down && self.desired == DesiredState::Up;
        if matches!(state, State::Stopped { .. }) && !is_for_now
            || matches!(state, State::Halted { .. })
        {
            self.history.crash_loop = None;
        }
        self.state = state;
        self.since = shared.now;
    }

    /// Enters another phase of the same run.
    fn pass_to(&mut self, next: Phase, shared: &Shared) {
        if let State::Live { phase, .. } = &mut self.state {
            *phase = next;
            self.since = shared.now;
        }
    }

    pub(super) fn emit(&self, fact: Fact, shared: &mut Shared) {
        shared.actions.push(Action::Emit(self.id, fact));
    }

    fn wait(&mut self, shared: &Shared) {
        self.wait_within(None, shared);
    }

    fn wait_within(&mut self, attempt: Option<Attempt>, shared: &Shared) {
        let is_announced = false;
        self.enter(
            State::Waiting {
                is_announced,
                attempt,
            },
            shared,
        );
    }

    fn stopped(&mut self, outcome: Outcome, shared: &mut Shared) {
        self.emit(Fact::Stopped { outcome }, shared);
        self.enter(State::Stopped { is_done: false }, shared);
    }

    pub(super) fn halt(&mut self, why: Halt, remains: Option<RunId>, shared: &mut Shared) {
        if let Halt::Need(need) | Halt::NeedEnded(need) = &why {
            self.fail_trial(TrialFailure::Need(need.clone()));
        }
        self.emit(Fact::Halted { why: why.clone() }, shared);
        self.enter(State::Halted { why, remains }, shared);
    }

    /// Decides what follows a failure or an exit. `child` has no processes left.
    fn handle_end(&mut self, ended: Ended, child: Option<Child>, shared: &mut Shared) {
        if self.goal == Goal::Down {
            return self.stopped(Outcome::Requested, shared);
        }
        if let Role::Candidate { .. } = self.role {
            self.fail_trial(TrialFailure::Failed(ended.clone()));
            let (why, news) = (ended, News::Alert);
            self.emit(Fact::Failed { why, news }, shared);
            return self.enter(State::Stopped { is_done: false }, shared);
        }
        let now = shared.now;
        let spec = Arc::clone(&self.spec);
        let recovery = spec.recovery();
        let ready = child.filter(|child| child.was_ready);
        let action = classify(recovery, &ended);
        let is_announced = matches!(
            ended,
            Ended::NotReady { .. } | Ended::LivenessLost { .. } | Ended::Backgrounded { .. }
        );
        let was_looping = self.is_crash_looping();
        let next = self
            .history
            .next(action, ended.clone(), recovery, now, &mut shared.random);
        if matches!(action, CodeAction::Restart | CodeAction::Halt) && !is_announced {
            let news = match &next {
                // The halt reports the same reason.
                Next::Halt(Halt::Unstartable { .. }) => News::Covered,
                _ if self.is_crash_looping() => News::Covered,
                _ => News::Alert,
            };
            self.emit(
                Fact::Failed {
                    why: ended.clone(),
                    news,
                },
                shared,
            );
        }
        if let (false, Some(crash_loop)) = (was_looping, &self.history.crash_loop) {
            self.emit(crash_loop.fact(now), shared);
        }
        match next {
            Next::Stop => {
                let is_done = ready.is_some();
                self.stopped(Outcome::Completed, shared);
                self.state = State::Stopped { is_done };
            }
            Next::Halt(why) => self.halt(why, None, shared),
            Next::BackOff { pause, .. } if pause.is_zero() => self.wait(shared),
            Next::BackOff { pause, attempt } => {
                self.emit(Fact::BackingOff { pause, attempt }, shared);
                let until = now + pause;
                self.enter(State::BackingOff { until, why: ended }, shared);
            }
            Next::Restore { .. } if spec.snapshot().is_none() => {
                let why = format!(
                    "no snapshot is restored, because its manifest has no `snapshot` key (repair its \
                     state, then start it: mainstay start {})",
                    spec.name()
                );
                self.halt(Halt::NotRestored { why }, None, shared);
            }
            Next::Restore { before } => {
                self.emit(Fact::Restoring { before }, shared);
                let until = now + RESTORE_TIMEOUT;
                let state = State::Restoring {
                    asked: None,
                    is_called_off: false,
                    until,
                };
                self.enter(state, shared);
                self.restore(shared);
            }
        }
    }
}
