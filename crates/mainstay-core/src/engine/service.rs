//! The state machine of one service: requests and events lead from one [`State`] to the next.

mod checkpoint;
mod snapshots;

use std::mem;
use std::sync::Arc;
use std::time::Duration;

pub use self::checkpoint::{Checkpoint, DesiredState, Failures, RecoveredState, Stage};
use super::asking::{ANSWER_GRACE, Asking};
use super::backoff::pause;
use super::contract::{Ended, Exit, Human, StartFailure, classify};
use super::fact::{Fact, Halt, KillReason, News, Outcome};
use super::foreground;
use super::history::{Next, RestartHistory};
use super::state::{
    Attempt, Child, Evidence, Lost, Main, Phase, SnapshotSchedule, State, StopStage, Then, Watch,
};
use super::trial::{RolloutRole, TrialFailure};
use super::{
    Action, Awaited, Notice, Refusal, RunId, ServiceId, Shared, StateName, Token, Unasked, View,
};
use crate::spec::{Backoff, CodeAction, Ready, ServiceName, Spec, StopScope, Strategy};
use crate::time::Instant;

/// The time limit for killed processes to disappear.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// The time limit for the children of a main process that exited with 0 to exit as well.
pub(super) const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
/// The time limit for a restore.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(3600);
/// The time limit for one readiness probe or one check of a condition.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after a question that the host could not ask.
const UNASKED_PAUSE: Duration = Duration::from_secs(1);
/// The longest start or stop that `EXTEND_TIMEOUT_USEC=` can reach, as a multiple of its timeout.
/// It bounds both, however often the message is sent.
pub(super) const LONGEST_EXTENSION: u32 = 10;
/// The pauses between readiness probes: short at first, never long.
const READY_CADENCE: Backoff = Backoff {
    base: Duration::from_millis(5),
    factor: 2.0,
    max: Duration::from_millis(250),
};

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

    // Updates.

    /// Makes this new service the candidate of an update of `old`.
    pub(super) fn tried_for(mut self, old: &Self) -> Self {
        self.role = Role::Candidate { failure: None };
        self.rank = old.rank;
        self.goal = Goal::Down;
        self.history.last_exit = old.history.last_exit;
        self
    }

    /// Takes the place of `old`, which is superseded and will be stopped.
    pub(super) fn replace(&mut self, old: &mut Self) {
        self.role = Role::Active;
        self.desired = old.desired;
        self.history.restarts += old.history.restarts;
        self.history.kept = old.history.kept;
        // A crash loop lasts until the service is well, even under a new definition.
        self.history.crash_loop = old.history.crash_loop.take();
        if let (State::Stopped { is_done }, &State::Stopped { is_done: was_done }) =
            (&mut self.state, &old.state)
        {
            // The candidate was not started for the trial: the goal and the completion of the old
            // service carry over.
            (*is_done, self.goal) = (was_done, old.goal);
        }
        // Snapshots of its state are useful from now on.
        let next = self.next_schedule(self.since);
        self.keep_next(next);
        old.role = Role::Superseded;
        old.next = None;
        old.goal = Goal::Down;
    }

    pub(super) fn be_forgotten(&mut self) {
        if let Some(role) = self.rollout_role() {
            self.role = Role::Forgotten(role);
        }
    }

    pub(super) fn rollout_role(&self) -> Option<RolloutRole> {
        match self.role {
            Role::Active => None,
            Role::Candidate { .. } => Some(RolloutRole::Candidate),
            Role::Superseded => Some(RolloutRole::Predecessor),
            Role::Forgotten(role) => Some(role),
        }
    }

    pub(super) fn role(&self) -> &Role {
        &self.role
    }

    pub(super) fn is_active(&self) -> bool {
        self.role == Role::Active
    }

    pub(super) fn rank(&self) -> u64 {
        self.rank
    }

    /// Returns the failure that disqualifies a candidate.
    pub(super) fn failure(&self) -> Option<&TrialFailure> {
        match &self.role {
            Role::Candidate { failure } => failure.as_ref(),
            _ => None,
        }
    }

    /// Records a failure of a candidate. The first one decides the trial.
    pub(super) fn fail_trial(&mut self, why: TrialFailure) {
        if let Role::Candidate { failure } = &mut self.role {
            failure.get_or_insert(why);
        }
    }

    /// Returns whether operators want the service up.
    pub(super) fn is_desired_up(&self) -> bool {
        self.desired == DesiredState::Up
    }

    /// Brings back a service that was stopped for a trial. Its failures still count. If its last
    /// run has remains, it stays halted.
    pub(super) fn come_back(&mut self, shared: &Shared) {
        self.goal = Goal::Up;
        match &mut self.state {
            State::Stopped { .. } => self.wait(shared),
            State::Live {
                phase: Phase::Stopping { then, .. },
                ..
            } => *then = Then::Start,
            _ => {}
        }
    }

    /// Halts a service that was stopped for a trial and whose state could not be restored.
    pub(super) fn lost_its_state(&mut self, why: String, is_over: bool, shared: &mut Shared) {
        if self.is_desired_up() && !is_over {
            self.goal = Goal::Up;
        }
        self.halt(Halt::NotRestored { why }, None, shared);
    }

    /// Returns whether the service has settled for now. A failed start counts as settled.
    pub(super) fn has_settled(&self) -> bool {
        let state = self.state.name();
        let is_idle =
            state.is_settled() || matches!(state, StateName::BackingOff | StateName::Waiting);
        is_idle && !self.is_restart_due
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

    pub(super) fn wants_down(&self) -> bool {
        self.goal == Goal::Down
    }

    pub(super) fn is_halted(&self) -> bool {
        matches!(self.state, State::Halted { .. })
    }

    pub(super) fn is_halted_for_a_need(&self) -> bool {
        let State::Halted { why, .. } = &self.state else {
            return false;
        };
        matches!(why, Halt::Need(_) | Halt::NeedEnded(_))
    }

    /// Returns whether the service ended by itself before it was ready, so that only an operator
    /// starts it again.
    pub(super) fn is_spent(&self) -> bool {
        matches!(self.state, State::Stopped { is_done: false }) && self.goal == Goal::Up
    }

    /// Returns whether the service exceeded its restart limit and has not recovered yet.
    pub(super) fn is_crash_looping(&self) -> bool {
        self.history.crash_loop.is_some()
    }

    /// Returns the reason why the service will not be ready soon.
    pub(super) fn trouble(&self) -> Option<String> {
        match &self.state {
            _ if self.is_crash_looping() => Some("is crash-looping".to_owned()),
            State::BackingOff { why, .. } => Some(format!("is backing off: {why}")),
            _ => None,
        }
    }

    /// Returns whether the service is stopped and should be.
    pub(super) fn was_stopped(&self) -> bool {
        matches!(self.state, State::Stopped { .. }) && self.goal == Goal::Down
    }

    /// Returns whether the service is stopped or halted. Processes that survived a kill count as
    /// remains only.
    pub(super) fn is_down(&self) -> bool {
        matches!(self.state, State::Stopped { .. } | State::Halted { .. })
    }

    /// Returns whether the service is stopping or about to stop, either to stay down or to restart.
    pub(super) fn is_leaving(&self) -> bool {
        let is_restarting = matches!(
            self.state,
            State::Live {
                phase: Phase::Stopping {
                    then: Then::Start,
                    ..
                },
                ..
            }
        );
        (self.wants_down() && !self.is_down()) || self.is_restart_due || is_restarting
    }

    /// Returns whether the service will not become ready soon, or not without an operator.
    pub(super) fn is_out_of_reach(&self) -> bool {
        match &self.state {
            State::BackingOff { .. } => self.is_crash_looping() || self.history.fails_steadily(),
            State::Live {
                phase: Phase::Paused,
                ..
            } => true,
            _ => self.wants_down(),
        }
    }

    /// Returns whether the last attempt failed and the next one is pending.
    pub(super) fn is_failing(&self) -> bool {
        matches!(self.state, State::BackingOff { .. })
    }

    /// Returns whether the service has a run.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.state, State::Live { .. })
    }

    /// Returns whether the service is starting, stopping, or about to.
    pub(super) fn is_moving(&self) -> bool {
        match &self.state {
            _ if self.is_restart_due => true,
            State::Conditions { .. } | State::Restoring { .. } => true,
            State::Live { phase, .. } => {
                matches!(phase, Phase::Starting { .. } | Phase::Stopping { .. })
            }
            _ => false,
        }
    }

    pub(super) fn has_remains(&self) -> bool {
        let State::Halted { remains, .. } = &self.state else {
            return false;
        };
        remains.is_some()
    }

    /// Returns whether dependents may start: the service is ready and stays so, or has completed.
    pub(super) fn is_satisfied(&self) -> bool {
        match &self.state {
            State::Live {
                phase: Phase::Running { .. },
                ..
            } => self.goal == Goal::Up && !self.is_restart_due,
            State::Stopped { is_done, .. } => *is_done,
            _ => false,
        }
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let crash_loop = self.history.crash_loop.as_ref().filter(|_| !self.is_down());
        let reminder = crash_loop.map(|crash_loop| crash_loop.remind_at);
        let deadlines = self.state.deadline().into_iter();
        deadlines.chain(reminder).chain(self.good_at()).min()
    }

    /// Returns the deadline of the state, without the deadlines of a crash loop.
    #[cfg(test)]
    pub(super) fn deadline_of_state(&self) -> Option<Instant> {
        self.state.deadline()
    }

    /// Returns the time at which a ready service will have been ready for `reset_after`, if that
    /// resets anything. The run must be seen to last that long: an exit may be observed much later
    /// than it happened.
    fn good_at(&self) -> Option<Instant> {
        match &self.state {
            State::Live {
                phase: Phase::Running { .. },
                ..
            } if self.history.has_failures() => {
                let at = self.since + self.spec.recovery().reset_after();
                Some(at.max(self.good_from))
            }
            _ => None,
        }
    }

    pub(super) fn view(&self) -> View {
        let child = match &self.state {
            State::Live { child, .. } => Some(child),
            _ => None,
        };
        let state = match self.state.name() {
            // The stop begins once nothing that needs the service runs.
            _ if self.is_live() && (self.wants_down() || self.is_restart_due) => {
                StateName::StopPending
            }
            state => state,
        };
        let detail = match &self.state {
            State::Halted { why, .. } => Some(why.to_string()),
            State::BackingOff { why, .. } => Some(why.to_string()),
            State::Conditions { index, attempt, .. } => {
                let wait = self.spec.wait_for().get(*index);
                let lost = attempt.lost.as_ref();
                let lost = lost.map_or_else(String::new, |lost| format!(" ({lost} meanwhile)"));
                wait.map(|wait| format!("waiting for {}{lost}", wait.probe()))
            }
            State::Restoring { .. } => Some("restoring its state".to_owned()),
            State::Live { phase, .. } => match phase {
                Phase::Starting {
                    evidence: Evidence::Probe(Some(asking)),
                    ..
                } => asking.last.clone(),
                Phase::Running { .. } => self.history.status.clone(),
                _ => None,
            },
            _ => None,
        };
        View {
            state,
            pid: child.and_then(|child| match child.main {
                Main::Lives(pid) => Some(pid),
                Main::Called | Main::Gone => None,
            }),
            run: child.map(|child| child.run),
            ready: matches!(self.state.name(), StateName::Running | StateName::Paused),
            since: self.since,
            started: child.map(|child| child.began),
            restarts: self.history.restarts,
            last_exit: self.history.last_exit,
            crash_looping: self.is_crash_looping() && !self.is_down(),
            next_try: match self.state {
                State::BackingOff { until, .. } => Some(until),
                _ => None,
            },
            detail,
        }
    }

    // Requests.

    /// Stops the service at an operator's request.
    pub(super) fn want_down(&mut self) {
        self.want_end();
        self.desired = DesiredState::Down;
        if self.is_down() {
            // The crash loop was kept only for the time after a trial.
            self.history.crash_loop = None;
        }
    }

    /// Stops the service without changing the state that operators requested.
    pub(super) fn want_end(&mut self) {
        self.goal = Goal::Down;
        self.is_restart_due = false;
    }

    /// # Errors
    /// If the service cannot be started now.
    pub(super) fn check_start(&self, is_fresh: bool) -> Result<(), Refusal> {
        match &self.state {
            State::Halted {
                remains: Some(_), ..
            } => Err(Refusal::Remains),
            // A paused service that was to be stopped may be started again.
            State::Live {
                phase: Phase::Paused,
                ..
            } if !is_fresh && self.goal == Goal::Up => Err(Refusal::State(StateName::Paused)),
            _ => Ok(()),
        }
    }

    /// Starts the service. With `is_fresh`, a running service is restarted.
    pub(super) fn start(&mut self, is_fresh: bool, shared: &mut Shared) -> Result<(), Refusal> {
        self.check_start(is_fresh)?;
        match &mut self.state {
            State::Stopped { .. } | State::Halted { .. } | State::BackingOff { .. } => {
                self.history.forgive();
                self.wait(shared);
            }
            State::Live { phase, .. } => match phase {
                Phase::Stopping { then, .. } => {
                    *then = Then::Start;
                    self.history.forgive();
                }
                _ if is_fresh => {
                    self.history.forgive();
                    self.is_restart_due = true;
                }
                _ => {}
            },
            State::Waiting { .. } | State::Conditions { .. } | State::Restoring { .. } => {}
        }
        self.goal = Goal::Up;
        self.desired = DesiredState::Up;
        Ok(())
    }

    /// Starts the service for a dependent, unless it will start by itself.
    pub(super) fn start_for_dependent(&mut self, shared: &mut Shared) {
        if self.goal == Goal::Down || self.is_down() {
            // If it cannot start, the view of the dependent names it.
            let _ = self.start(false, shared);
        }
    }

    pub(super) fn pause(&mut self, shared: &mut Shared) -> Result<(), Refusal> {
        match &self.state {
            _ if self.is_restart_due => Err(Refusal::State(StateName::StopPending)),
            State::Live {
                child,
                phase: Phase::Running { .. },
            } => {
                let run = child.run;
                self.abandon_snapshot(shared);
                shared.actions.push(Action::Freeze(self.id, run));
                self.emit(Fact::Paused, shared);
                self.pass_to(Phase::Paused, shared);
                Ok(())
            }
            State::Live {
                phase: Phase::Paused,
                ..
            } => Ok(()),
            _ => Err(Refusal::State(self.state.name())),
        }
    }

    pub(super) fn resume(&mut self, shared: &mut Shared) -> Result<(), Refusal> {
        match &self.state {
            State::Live {
                child,
                phase: Phase::Paused,
            } => {
                shared.actions.push(Action::Thaw(self.id, child.run));
                self.emit(Fact::Continued, shared);
                self.run(shared);
                Ok(())
            }
            State::Live {
                phase: Phase::Running { .. },
                ..
            } => Ok(()),
            _ => Err(Refusal::State(self.state.name())),
        }
    }

    /// Kills the service at once. A restore in progress runs on, since nothing will start from its
    /// result.
    pub(super) fn kill(&mut self, shared: &mut Shared) {
        if let State::Restoring { .. } = self.state {
            self.stopped(Outcome::Requested, shared);
        }
        self.begin_stop(Then::Down, shared);
        self.kill_tree(KillReason::Requested, shared);
    }

    /// Returns the evidence that may show that this run was ready, if that is not known yet.
    pub(super) fn awaits(&self, run: RunId) -> Option<Awaited> {
        let State::Live {
            child,
            phase: Phase::Starting { evidence, .. },
        } = &self.state
        else {
            return None;
        };
        match evidence {
            _ if child.run != run => None,
            Evidence::Line(_) => Some(Awaited::Line),
            Evidence::Notice => Some(Awaited::Notice),
            Evidence::Existence | Evidence::Probe(_) => None,
        }
    }

    // Events. Each handler ignores events of other runs and answers to other questions.

    fn live(&mut self, run: RunId) -> Option<(&mut Child, &mut Phase)> {
        match &mut self.state {
            State::Live { child, phase } if child.run == run => Some((child, phase)),
            _ => None,
        }
    }

    pub(super) fn spawned(&mut self, run: RunId, pid: u32, shared: &mut Shared) {
        let restarts = self.history.restarts;
        let start_timeout = self.spec.start().timeout();
        let Some((child, phase)) = self
            .live(run)
            .filter(|(child, _)| child.main == Main::Called)
        else {
            return;
        };
        child.main = Main::Lives(pid);
        // The event that led to the start may be much older.
        child.began = shared.now;
        let mut is_ready = false;
        if let Phase::Starting { deadline, evidence } = phase {
            *deadline = shared.now + start_timeout;
            match evidence {
                Evidence::Existence => is_ready = true,
                Evidence::Probe(asking) => *asking = Some(Asking::from(shared.now)),
                Evidence::Line(_) | Evidence::Notice => {}
            }
        }
        self.emit(Fact::Started { pid, restarts }, shared);
        if is_ready {
            self.ready(shared)
        } else {
            // The first probe runs at once.
            self.tick(shared)
        }
    }

    pub(super) fn spawn_failed(&mut self, run: RunId, why: StartFailure, shared: &mut Shared) {
        match &mut self.state {
            State::Live { child, phase } if child.run == run && child.main == Main::Called => {
                let ended = match why {
                    StartFailure::Transient(why) | StartFailure::Lacking(why) => {
                        Ended::SpawnFailed(why)
                    }
                    StartFailure::Permanent(why) => Ended::Unstartable(why),
                };
                match phase {
                    Phase::Stopping { .. } => self.gone(shared),
                    _ if mem::take(&mut self.is_restart_due) => {
                        self.history.forgive();
                        self.wait(shared);
                    }
                    _ => self.handle_end(ended, None, shared),
                }
            }
            State::Halted { remains, .. } if *remains == Some(run) => *remains = None,
            _ => {}
        }
    }

    pub(super) fn exited(&mut self, run: RunId, exit: Exit, shared: &mut Shared) {
        let scope = self.spec.stop().scope();
        let Some((child, _)) = self.live(run).filter(|(child, _)| child.main != Main::Gone) else {
            return;
        };
        child.main = Main::Gone;
        let after = shared.now.since(child.began);
        self.abandon_snapshot(shared);
        let is_restart_due = self.is_restart_due;
        let Some((_, phase)) = self.live(run) else {
            return;
        };
        let then = match phase {
            Phase::Stopping {
                stage: StopStage::Killed,
                ..
            } => None,
            // All processes were asked to stop, and have the rest of the time limit.
            Phase::Stopping { .. } if scope == StopScope::Tree => None,
            Phase::Stopping { then, .. } => Some(mem::replace(then, Then::Down)),
            _ if is_restart_due => Some(Then::Start),
            _ => Some(Then::Classify(Ended::Exit(exit))),
        };
        self.is_restart_due = false;
        self.history.last_exit = Some(exit);
        self.emit(Fact::Exited { exit, after }, shared);
        if let Some(Then::Classify(ended @ Ended::Exit(_))) = &then {
            self.fail_trial(TrialFailure::Failed(ended.clone()));
        }
        if let (Some(then), State::Live { child, .. }) = (then, &self.state) {
            self.end_children(*child, then, shared.now, shared);
        }
    }

    /// Waits until no process of a run is left after its main process ended at `ended`. Kills the
    /// rest if it does not exit by itself.
    fn end_children(&mut self, child: Child, then: Then, ended: Instant, shared: &mut Shared) {
        let is_quick = ended.since(child.began) <= self.spec.start().timeout();
        let (stage, until) = match then {
            // Children that outlive the main process by more than a moment run in the background.
            Then::Classify(Ended::Exit(Exit::Code(0)))
                if is_quick && !self.spec.recovery().codes().contains_key(&0) =>
            {
                (StopStage::Lingering, ended + LINGER_TIMEOUT)
            }
            _ => {
                shared.actions.push(Action::Kill(self.id, child.run));
                (StopStage::Killed, shared.now + KILL_TIMEOUT)
            }
        };
        self.pass_to(Phase::Stopping { then, stage, until }, shared);
    }

    /// Fails a service whose main process exited with 0 while its children kept running.
    fn went_to_background(&mut self, shared: &mut Shared) {
        let State::Live {
            child,
            phase: Phase::Stopping { then, stage, until },
        } = &mut self.state
        else {
            return;
        };
        let run = child.run;
        (*stage, *until) = (StopStage::Killed, shared.now + KILL_TIMEOUT);
        if let Then::Classify(ended) = then
            && self.goal == Goal::Up
        {
            let hint = foreground::hint(self.spec.command().program());
            *ended = Ended::Backgrounded { hint };
            let (why, news) = (ended.clone(), News::Covered);
            self.emit(Fact::Failed { why, news }, shared);
        }
        shared.actions.push(Action::Kill(self.id, run));
    }

    pub(super) fn emptied(&mut self, run: RunId, shared: &mut Shared) {
        match &mut self.state {
            State::Live { child, .. } if child.run == run && child.main == Main::Gone => {
                self.gone(shared);
            }
            State::Halted { remains, .. } if *remains == Some(run) => *remains = None,
            _ => {}
        }
    }

    pub(super) fn answered(
        &mut self,
        token: Token,
        answer: Result<(), String>,
        shared: &mut Shared,
    ) {
        match &mut self.state {
            State::Conditions { asking, .. } if asking.expects(token) => {
                self.condition_answered(answer, shared);
            }
            State::Live { phase, .. } => match phase {
                Phase::Starting {
                    evidence: Evidence::Probe(Some(asking)),
                    ..
                } if asking.expects(token) => match answer {
                    Ok(()) => self.ready(shared),
                    Err(why) => {
                        let wait = pause(READY_CADENCE, asking.count - 1, &mut shared.random);
                        asking.last = Some(why);
                        asking.again_in(wait, shared.now);
                    }
                },
                Phase::Starting {
                    evidence: Evidence::Line(expected),
                    ..
                } if *expected == token && answer.is_ok() => self.ready(shared),
                Phase::Running {
                    watch: Some(watch), ..
                } if watch.asking.expects(token) => {
                    self.liveness_answered(answer, shared);
                }
                _ => {}
            },
            _ => {}
        }
    }

    /// Schedules a question again that could not be asked. This is neither a success nor a failure.
    pub(super) fn unasked(&mut self, token: Token, why: Unasked, shared: &mut Shared) {
        let asking = match &mut self.state {
            State::Conditions { asking, .. } => Some(asking),
            State::Live { phase, .. } => match phase {
                Phase::Starting {
                    evidence: Evidence::Probe(asking),
                    ..
                } => asking.as_mut(),
                Phase::Running { watch, .. } => watch.as_mut().map(|watch| &mut watch.asking),
                _ => None,
            },
            _ => None,
        };
        if let Some(asking) = asking.filter(|asking| asking.expects(token)) {
            let pause = match why {
                Unasked::Lacking(why) => {
                    asking.last = Some(why);
                    UNASKED_PAUSE
                }
                Unasked::Delayed => Duration::ZERO,
            };
            asking.again_in(pause, shared.now);
        }
    }

    pub(super) fn notified(&mut self, run: RunId, notice: Notice, shared: &mut Shared) {
        let start_limit = self
            .spec
            .start()
            .timeout()
            .saturating_mul(LONGEST_EXTENSION);
        let stop_limit = self
            .spec
            .stop()
            .graceful()
            .saturating_mul(LONGEST_EXTENSION);
        let id = self.id;
        let Some((child, phase)) = self.live(run) else {
            return;
        };
        match (notice, phase) {
            (
                Notice::Ready,
                Phase::Starting {
                    evidence: Evidence::Notice,
                    ..
                },
            ) => self.ready(shared),
            (
                Notice::ExtendTimeout(by),
                Phase::Starting {
                    deadline: until, ..
                },
            ) => {
                extend(until, (shared.now, by), child.began + start_limit);
                shared.actions.push(Action::Record(id));
            }
            (
                Notice::ExtendTimeout(by),
                Phase::Stopping {
                    stage: StopStage::Asked { since, .. },
                    until,
                    ..
                },
            ) => {
                extend(until, (shared.now, by), *since + stop_limit);
                shared.actions.push(Action::Record(id));
            }
            (Notice::Status(text), _) => {
                self.history.status = Some(text.clone());
                self.emit(Fact::Status { text }, shared);
            }
            _ => {}
        }
    }

    pub(super) fn freeze_failed(&mut self, run: RunId, why: String, shared: &mut Shared) {
        match self.live(run) {
            Some((_, Phase::Paused)) => {
                self.emit(Fact::PauseFailed { why }, shared);
                // Processes that were suspended before the failure must resume.
                let _ = self.resume(shared);
            }
            Some((_, Phase::Running { .. })) => self.snapshot_freeze_failed(why, shared),
            _ => {}
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
        match &mut self.state {
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
            State::Conditions {
                index,
                deadline,
                asking,
                attempt,
                ..
            } => {
                let Some(wait) = self.spec.wait_for().get(*index) else {
                    return;
                };
                if *deadline <= now {
                    let probe = wait.probe().to_string();
                    let lost = attempt.lost.as_ref().map(Lost::to_string);
                    let last: Vec<String> = lost.into_iter().chain(asking.last.take()).collect();
                    let last = (!last.is_empty()).then(|| last.join("; "));
                    return self.handle_end(Ended::ConditionMissed { probe, last }, None, shared);
                }
                if asking.is_due(now) {
                    let timeout = ANSWER_TIMEOUT.min(deadline.since(now));
                    asking.ask((self.id, None), wait.probe(), timeout, shared);
                }
            }
            State::Live { child, phase } => match phase {
                Phase::Starting { deadline, evidence } => {
                    let asking = match evidence {
                        Evidence::Probe(asking) => asking.as_mut(),
                        _ => None,
                    };
                    if *deadline <= now {
                        let after = now.since(child.began);
                        let last = asking.and_then(|asking| asking.last.take());
                        return self.failed(Ended::NotReady { after, last }, shared);
                    }
                    let (Some(asking), Some(Ready::Probe(probe))) =
                        (asking, self.spec.start().ready())
                    else {
                        return;
                    };
                    if asking.is_due(now) {
                        let timeout = ANSWER_TIMEOUT.min(deadline.since(now));
                        asking.ask((self.id, Some(child.run)), probe, timeout, shared);
                    }
                }
                Phase::Running { schedule, .. }
                    if schedule.deadline().is_some_and(|at| at <= now) =>
                {
                    self.keep(shared);
                }
                Phase::Running { watch, schedule } => {
                    let (Some(watch), Some(liveness), false) =
                        (watch, self.spec.liveness(), schedule.is_still())
                    else {
                        return;
                    };
                    let asking = &mut watch.asking;
                    if asking.is_due(now) {
                        let of = (self.id, Some(child.run));
                        asking.ask(of, liveness.probe(), liveness.timeout(), shared);
                    }
                }
                Phase::Stopping { stage, until, .. } if *until <= now => match stage {
                    StopStage::Killed => {
                        let after = KILL_TIMEOUT;
                        let remains = Some(child.run);
                        self.halt(Halt::Unkillable { after }, remains, shared);
                    }
                    StopStage::Lingering => self.went_to_background(shared),
                    StopStage::Asked { .. } => self.kill_tree(KillReason::GraceOver, shared),
                },
                Phase::Stopping {
                    stage: StopStage::Asked { since, steps, next },
                    ..
                } if next.is_some_and(|next| next <= now) => {
                    let run = (self.id, child.run);
                    (*steps, *next) = climb(&self.spec, run, *since, *steps, shared);
                }
                Phase::Paused | Phase::Stopping { .. } => {}
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
                    asked: Some(token),
                    is_called_off,
                    ..
                },
                Goal::Down,
            ) if !*is_called_off => {
                *is_called_off = true;
                let action = Action::AbandonRestore(self.id, *token);
                shared.actions.push(action);
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

    // Transitions.

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

    /// Waits again for a need that is no longer ready, within the time limit of the conditions.
    fn lost_a_need(&mut self, need: Option<&ServiceName>, shared: &Shared) {
        let State::Conditions { index, attempt, .. } = &self.state else {
            return;
        };
        let Some((wait, need)) = self.spec.wait_for().get(*index).zip(need) else {
            return self.wait(shared);
        };
        let times = attempt.lost.as_ref().map_or(0, |lost| lost.times) + 1;
        let attempt = Attempt {
            until: attempt.until,
            lost: Some(Lost {
                need: need.clone(),
                times,
                probe: wait.probe().to_string(),
            }),
        };
        self.wait_within(Some(attempt), shared);
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

    /// Waits for the condition at `index`, or starts the program if there is none.
    fn next_condition(&mut self, index: usize, shared: &mut Shared) {
        let Some(wait) = self.spec.wait_for().get(index) else {
            return self.spawn(shared);
        };
        let probe = wait.probe().to_string();
        let attempt = match &self.state {
            State::Waiting { attempt, .. } => attempt.clone(),
            State::Conditions { attempt, .. } => Some(attempt.clone()),
            _ => None,
        };
        let mut attempt = attempt.unwrap_or_else(|| Attempt {
            until: self
                .spec
                .wait_for()
                .iter()
                .fold(shared.now, |until, wait| until + wait.deadline()),
            lost: None,
        });
        if attempt.lost.is_none() {
            attempt.until = attempt.until.max(shared.now + wait.deadline());
        } else if attempt.until <= shared.now {
            // The tick that is due fails the attempt.
            return self.wait_within(Some(attempt), shared);
        }
        self.emit(Fact::WaitingFor { probe }, shared);
        let mut asking = Asking::from(shared.now);
        let deadline = (shared.now + wait.deadline()).min(attempt.until);
        let timeout = ANSWER_TIMEOUT.min(deadline.since(shared.now));
        asking.ask((self.id, None), wait.probe(), timeout, shared);
        let state = State::Conditions {
            index,
            deadline,
            asking,
            passes: 0,
            attempt,
        };
        self.enter(state, shared);
    }

    fn condition_answered(&mut self, answer: Result<(), String>, shared: &mut Shared) {
        let State::Conditions {
            index,
            asking,
            passes,
            ..
        } = &mut self.state
        else {
            return;
        };
        let Some(wait) = self.spec.wait_for().get(*index) else {
            return;
        };
        let (interval, enough) = match wait.strategy() {
            Strategy::Fixed { interval } => (interval, 1),
            Strategy::Backoff(backoff) => (pause(backoff, asking.count - 1, &mut shared.random), 1),
            Strategy::Probe { interval, passes } => (interval, passes),
        };
        match answer {
            Ok(()) => *passes += 1,
            Err(why) => {
                *passes = 0;
                asking.last = Some(why);
            }
        }
        if *passes >= enough {
            let next = *index + 1;
            self.next_condition(next, shared);
        } else {
            asking.again_in(interval, shared.now);
        }
    }

    fn spawn(&mut self, shared: &mut Shared) {
        let run = RunId(shared.number());
        let child = Child {
            run,
            began: shared.now,
            main: Main::Called,
            was_ready: false,
            is_kept: false,
        };
        let evidence = self.evidence_of(None, shared);
        shared.actions.push(Action::Spawn(self.id, run));
        self.history.status = None;
        let deadline = shared.now + self.spec.start().timeout();
        let phase = Phase::Starting { deadline, evidence };
        self.enter(State::Live { child, phase }, shared);
    }

    /// Handles the evidence of readiness.
    fn ready(&mut self, shared: &mut Shared) {
        let State::Live { child, phase } = &mut self.state else {
            return;
        };
        if let (Main::Called, Phase::Starting { evidence, .. }) = (child.main, phase) {
            // The evidence arrived before the host reported the child. Only that report is missing.
            *evidence = Evidence::Existence;
            return;
        }
        child.was_ready = true;
        let after = shared.now.since(child.began);
        if self.spec.start().ready().is_some() {
            self.emit(Fact::Ready { after }, shared);
        }
        self.run(shared);
    }

    fn run(&mut self, shared: &Shared) {
        let watch = self.spec.liveness().map(|liveness| Watch {
            asking: Asking::from(shared.now + liveness.every()),
            misses: 0,
        });
        let schedule = self.next_schedule(shared.now);
        self.pass_to(Phase::Running { watch, schedule }, shared);
    }

    fn liveness_answered(&mut self, answer: Result<(), String>, shared: &mut Shared) {
        let State::Live {
            phase:
                Phase::Running {
                    watch: Some(watch),
                    schedule,
                },
            ..
        } = &mut self.state
        else {
            return;
        };
        let Some(liveness) = self.spec.liveness() else {
            return;
        };
        watch.asking.again_in(liveness.every(), shared.now);
        let why = match answer {
            Err(why) if self.goal == Goal::Up && !self.is_restart_due && !schedule.is_still() => {
                why
            }
            // A service that runs only until its dependents are gone must not be stopped by a miss.
            _ => return watch.misses = 0,
        };
        watch.misses += 1;
        let (misses, of) = (watch.misses, liveness.misses());
        let last = why.clone();
        self.emit(Fact::Missed { misses, of, why }, shared);
        if misses >= of {
            self.failed(Ended::LivenessLost { misses, last }, shared);
        }
    }

    /// Stops a live child that has failed, then decides what follows.
    fn failed(&mut self, ended: Ended, shared: &mut Shared) {
        self.fail_trial(TrialFailure::Failed(ended.clone()));
        let news = if self.is_crash_looping() {
            News::Covered
        } else {
            News::Alert
        };
        let why = ended.clone();
        self.emit(Fact::Failed { why, news }, shared);
        self.begin_stop(Then::Classify(ended), shared);
    }

    /// Begins to stop a live child, unless it is stopping already.
    fn begin_stop(&mut self, then: Then, shared: &mut Shared) {
        self.abandon_snapshot(shared);
        let until = shared.now + self.spec.stop().graceful();
        self.stop_by(then, (shared.now, until), shared);
    }

    /// Asks a live child to stop by `until`, unless it is stopping already. Steps of the ladder
    /// that were due since the stop began are taken, or repeated.
    fn stop_by(&mut self, then: Then, (since, until): (Instant, Instant), shared: &mut Shared) {
        let State::Live { child, phase } = &self.state else {
            return;
        };
        let (run, is_paused) = (child.run, matches!(phase, Phase::Paused));
        if let Phase::Stopping { .. } = phase {
            return;
        }
        // A failure before the restart changes nothing: the service is started again in any case.
        let then = match (then, mem::take(&mut self.is_restart_due)) {
            (Then::Classify(_), true) => Then::Start,
            (then, _) => then,
        };
        let graceful = until.since(shared.now);
        self.emit(Fact::Stopping { graceful }, shared);
        let (steps, next) = climb(&self.spec, (self.id, run), since, 0, shared);
        if is_paused {
            shared.actions.push(Action::Thaw(self.id, run));
        }
        let phase = Phase::Stopping {
            then,
            stage: StopStage::Asked { since, steps, next },
            until,
        };
        self.pass_to(phase, shared);
        self.since = since;
    }

    /// Kills the tree of a stopping run, once.
    fn kill_tree(&mut self, why: KillReason, shared: &mut Shared) {
        let State::Live {
            child,
            phase:
                Phase::Stopping {
                    stage: stage @ (StopStage::Asked { .. } | StopStage::Lingering),
                    until,
                    ..
                },
        } = &mut self.state
        else {
            return;
        };
        *stage = StopStage::Killed;
        *until = shared.now + KILL_TIMEOUT;
        let run = child.run;
        self.emit(Fact::Killing { why }, shared);
        shared.actions.push(Action::Kill(self.id, run));
    }

    /// Handles the end of a stopping run: none of its processes are left.
    fn gone(&mut self, shared: &mut Shared) {
        let State::Live {
            child,
            phase: Phase::Stopping { then, .. },
        } = &mut self.state
        else {
            return;
        };
        let child = *child;
        match mem::replace(then, Then::Down) {
            Then::Start => self.wait(shared),
            Then::Classify(ended) => self.handle_end(ended, Some(child), shared),
            Then::Down => self.stopped(Outcome::Requested, shared),
        }
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

/// Moves a deadline to `by` from now, but not beyond `latest`, and never back.
fn extend(deadline: &mut Instant, (now, by): (Instant, Duration), latest: Instant) {
    *deadline = (*deadline).max((now + by).min(latest));
}

/// Takes the stop steps that are due. Returns the number of steps taken so far, and the time of the
/// next one.
fn climb(
    spec: &Spec,
    (service, run): (ServiceId, RunId),
    since: Instant,
    taken: usize,
    shared: &mut Shared,
) -> (usize, Option<Instant>) {
    let steps = spec.stop().ladder().iter().enumerate().skip(taken);
    for (number, step) in steps {
        let at = since + step.after();
        if at > shared.now {
            return (number, Some(at));
        }
        let ask = Action::AskToStop(service, run, step.ask());
        shared.actions.push(ask);
    }
    (spec.stop().ladder().len(), None)
}
