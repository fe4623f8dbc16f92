//! One service: its state carries its own data, and each transition makes the next one out of it.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::backoff::pause;
use super::contract::{Ended, Exit, RETRY_BASE, RETRY_LIMIT, judge};
use super::fact::{Fact, Halt, KillReason, Outcome};
use super::{Action, Notice, Refusal, RunId, ServiceId, Shared, StateName, Token, View};
use crate::spec::{Backoff, CodeAction, Probe, Ready, ServiceName, Spec, StopScope, Strategy};
use crate::time::Instant;

/// How long killed processes may take to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// How long a restore may take.
const RESTORE_PATIENCE: Duration = Duration::from_secs(3600);
/// How long one question of readiness, or of a condition, may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How much later than its timeout an answer of the host still counts; after that there is none.
const ANSWER_GRACE: Duration = Duration::from_secs(1);
/// The pauses between questions of readiness: soon at first, never rare.
const READY_CADENCE: Backoff = Backoff {
    base: Duration::from_millis(5),
    factor: 2.0,
    max: Duration::from_millis(250),
};

/// What a service must know of the others.
#[derive(Debug)]
pub(super) struct Situation {
    /// Needs that are not ready.
    pub(super) missing: Vec<ServiceName>,
    /// A need that will not become ready by itself.
    pub(super) halted: Option<ServiceName>,
    /// Something that needs this one has to go first.
    pub(super) held: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Up,
    Down,
}

/// A child that the host may hold for us.
#[derive(Clone, Copy, Debug)]
struct Child {
    run: RunId,
    /// Known once the host says so.
    pid: Option<u32>,
    began: Instant,
    ready: bool,
}

#[derive(Debug)]
enum State {
    Stopped(Outcome),
    /// For its needs, then for one condition after the other.
    Waiting(Waiting),
    Starting {
        child: Child,
        deadline: Instant,
        evidence: Evidence,
    },
    Running {
        child: Child,
        /// The next liveness probe.
        watch: Option<Watch>,
    },
    Paused {
        child: Child,
    },
    Stopping {
        child: Child,
        then: Then,
        phase: Phase,
    },
    BackingOff {
        until: Instant,
    },
    Restoring {
        until: Instant,
    },
    Halted {
        why: Halt,
        /// Processes that outlived their kill.
        remains: Option<RunId>,
    },
}

#[derive(Debug)]
enum Waiting {
    OnNeeds {
        told: bool,
    },
    OnCondition {
        index: usize,
        deadline: Instant,
        asking: Asking,
        passes: u32,
    },
}

/// What will show that a starting service is ready.
#[derive(Debug)]
enum Evidence {
    /// That it runs.
    Existence,
    Probe(Asking),
    Line(Token),
    Notice,
}

#[derive(Debug)]
struct Watch {
    asking: Asking,
    misses: u32,
}

/// A question that is asked again and again.
#[derive(Debug)]
struct Asking {
    next: Next,
    /// How often it was asked.
    count: u32,
    /// What the last answer said, if it was no.
    last: Option<String>,
}

#[derive(Debug)]
enum Next {
    Ask { at: Instant },
    Answer { token: Token, by: Instant },
}

/// What a stop is for.
#[derive(Debug)]
enum Then {
    /// To be down.
    Down,
    /// To be started afresh.
    Start,
    /// To be judged.
    Judge(Ended),
}

#[derive(Debug)]
enum Phase {
    /// Asked to stop.
    Graceful { until: Instant, exited: bool },
    /// Killed; waiting for the kernel.
    Killed { until: Instant, exited: bool },
}

impl Asking {
    fn from(at: Instant) -> Self {
        Self {
            next: Next::Ask { at },
            count: 0,
            last: None,
        }
    }

    fn due(&self) -> Instant {
        match self.next {
            Next::Ask { at } => at,
            Next::Answer { by, .. } => by,
        }
    }

    fn expects(&self, token: Token) -> bool {
        matches!(self.next, Next::Answer { token: expected, .. } if expected == token)
    }

    fn ask(
        &mut self,
        (service, of): (ServiceId, Option<RunId>),
        probe: &Probe,
        timeout: Duration,
        now: Instant,
        shared: &mut Shared,
    ) {
        let token = Token(shared.number());
        self.next = Next::Answer {
            token,
            by: now + timeout + ANSWER_GRACE,
        };
        self.count += 1;
        shared.actions.push(Action::Ask {
            service,
            of,
            token,
            probe: probe.clone(),
            timeout,
        });
    }

    fn again_in(&mut self, pause: Duration, now: Instant) {
        self.next = Next::Ask { at: now + pause };
    }
}

/// A service: what is wanted of it, what it is, and what its past counts for.
#[derive(Debug)]
pub(super) struct Service {
    id: ServiceId,
    spec: Arc<Spec>,
    goal: Goal,
    state: State,
    since: Instant,
    past: Past,
}

/// What the past counts for.
#[derive(Debug, Default)]
struct Past {
    restarts: u64,
    last_exit: Option<Exit>,
    status: Option<String>,
    /// Failures in a row, for the back-off.
    streak: u32,
    /// Exits with 202 in a row.
    retries: u32,
    /// Restores in a row.
    restores: u32,
    /// When it was restarted, within the limit's window.
    recent: VecDeque<Instant>,
}

impl Past {
    /// A fresh request, or a long good run: what went wrong before counts no more.
    fn forgive(&mut self) {
        self.streak = 0;
        self.retries = 0;
        self.restores = 0;
    }
}

impl Service {
    pub(super) fn new(id: ServiceId, spec: Arc<Spec>) -> Self {
        Self {
            id,
            spec,
            goal: Goal::Down,
            state: State::Stopped(Outcome::New),
            since: Instant::ZERO,
            past: Past::default(),
        }
    }

    pub(super) fn spec(&self) -> &Arc<Spec> {
        &self.spec
    }

    pub(super) fn wants_down(&self) -> bool {
        self.goal == Goal::Down
    }

    pub(super) fn is_halted(&self) -> bool {
        matches!(self.state, State::Halted { .. })
    }

    /// Nothing runs and nothing will by itself. (Processes that outlived their kill count as remains.)
    pub(super) fn is_down(&self) -> bool {
        matches!(self.state, State::Stopped(_) | State::Halted { .. })
    }

    pub(super) fn has_remains(&self) -> bool {
        matches!(
            self.state,
            State::Halted {
                remains: Some(_),
                ..
            }
        )
    }

    /// Whether what needs it may start: it is ready, or has done its work and ended cleanly.
    pub(super) fn is_satisfied(&self) -> bool {
        match &self.state {
            State::Running { .. } => true,
            State::Stopped(outcome) => *outcome == Outcome::Completed,
            _ => false,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting(Waiting::OnCondition {
                deadline, asking, ..
            }) => Some(asking.due().min(*deadline)),
            State::Starting {
                deadline,
                evidence: Evidence::Probe(asking),
                child,
            } => {
                let asks = child.pid.map(|_| asking.due());
                Some(asks.map_or(*deadline, |due| due.min(*deadline)))
            }
            State::Starting { deadline, .. } => Some(*deadline),
            State::Running { watch, .. } => watch.as_ref().map(|watch| watch.asking.due()),
            State::Stopping {
                phase: Phase::Graceful { until, .. } | Phase::Killed { until, .. },
                ..
            } => Some(*until),
            State::BackingOff { until } | State::Restoring { until } => Some(*until),
            State::Stopped(_)
            | State::Waiting(Waiting::OnNeeds { .. })
            | State::Paused { .. }
            | State::Halted { .. } => None,
        }
    }

    pub(super) fn view(&self) -> View {
        let (state, child) = match &self.state {
            State::Stopped(_) => (StateName::Stopped, None),
            State::Waiting(_) => (StateName::Waiting, None),
            State::Starting { child, .. } => (StateName::StartPending, Some(child)),
            State::Running { child, .. } => (StateName::Running, Some(child)),
            State::Paused { child } => (StateName::Paused, Some(child)),
            State::Stopping { child, .. } => (StateName::StopPending, Some(child)),
            State::BackingOff { .. } => (StateName::BackingOff, None),
            State::Restoring { .. } => (StateName::StartPending, None),
            State::Halted { .. } => (StateName::Halted, None),
        };
        let exited = matches!(
            self.state,
            State::Stopping {
                phase: Phase::Graceful { exited: true, .. } | Phase::Killed { exited: true, .. },
                ..
            }
        );
        let detail = match &self.state {
            State::Halted { why, .. } => Some(why.to_string()),
            State::Waiting(Waiting::OnCondition { index, .. }) => self
                .spec
                .wait_for()
                .get(*index)
                .map(|wait| format!("waiting for {}", wait.probe())),
            State::Starting {
                evidence: Evidence::Probe(asking),
                ..
            } => asking.last.clone(),
            State::Running { .. } => self.past.status.clone(),
            _ => None,
        };
        View {
            state,
            pid: child.and_then(|child| child.pid).filter(|_| !exited),
            run: child.map(|child| child.run),
            ready: matches!(self.state, State::Running { .. })
                || matches!(&self.state, State::Paused { child } if child.ready),
            since: self.since,
            started: child.map(|child| child.began),
            restarts: self.past.restarts,
            last_exit: self.past.last_exit,
            detail,
        }
    }

    // Requests.

    pub(super) fn want_down(&mut self) {
        self.goal = Goal::Down;
    }

    pub(super) fn start(
        &mut self,
        again: bool,
        now: Instant,
        shared: &mut Shared,
    ) -> Result<(), Refusal> {
        match &mut self.state {
            State::Halted {
                remains: Some(_), ..
            } => return Err(Refusal::Remains),
            State::Paused { .. } if !again => return Err(Refusal::State(StateName::Paused)),
            State::Stopped(_) | State::Halted { .. } | State::BackingOff { .. } => {
                self.past.forgive();
                self.past.recent.clear();
                self.wait(now);
            }
            State::Stopping { then, .. } => *then = Then::Start,
            State::Starting { .. } | State::Running { .. } | State::Paused { .. } if again => {
                self.begin_stop(Then::Start, now, shared);
            }
            _ => {}
        }
        self.goal = Goal::Up;
        Ok(())
    }

    pub(super) fn pause(&mut self, now: Instant, shared: &mut Shared) -> Result<(), Refusal> {
        match mem::replace(&mut self.state, State::Stopped(Outcome::New)) {
            State::Running { child, .. } => {
                shared.actions.push(Action::Freeze(self.id, child.run));
                self.enter(State::Paused { child }, now);
                self.tell(Fact::Paused, shared);
                Ok(())
            }
            other => {
                self.state = other;
                match self.view().state {
                    StateName::Paused => Ok(()),
                    state => Err(Refusal::State(state)),
                }
            }
        }
    }

    pub(super) fn resume(&mut self, now: Instant, shared: &mut Shared) -> Result<(), Refusal> {
        match mem::replace(&mut self.state, State::Stopped(Outcome::New)) {
            State::Paused { child } => {
                shared.actions.push(Action::Thaw(self.id, child.run));
                self.tell(Fact::Continued, shared);
                let watch = self.new_watch(now);
                self.enter(State::Running { child, watch }, now);
                Ok(())
            }
            other => {
                self.state = other;
                match self.view().state {
                    StateName::Running => Ok(()),
                    state => Err(Refusal::State(state)),
                }
            }
        }
    }

    pub(super) fn kill(&mut self, now: Instant, shared: &mut Shared) {
        if let State::Starting { .. } | State::Running { .. } | State::Paused { .. } = self.state {
            self.begin_stop(Then::Down, now, shared);
        }
        if let State::Stopping {
            phase: Phase::Graceful { .. },
            ..
        } = self.state
        {
            self.kill_tree(KillReason::Requested, now, shared);
        }
    }

    // Events. Each ignores what does not belong to the current run or question.

    pub(super) fn spawned(&mut self, run: RunId, pid: u32, now: Instant, shared: &mut Shared) {
        let restarts = self.past.restarts;
        match &mut self.state {
            State::Starting { child, .. } if child.run == run && child.pid.is_none() => {
                child.pid = Some(pid);
                self.tell(Fact::Started { pid, restarts }, shared);
                self.begin_evidence(now, shared);
            }
            State::Stopping { child, .. } if child.run == run && child.pid.is_none() => {
                child.pid = Some(pid);
            }
            _ => {}
        }
    }

    pub(super) fn spawn_failed(
        &mut self,
        run: RunId,
        reason: String,
        now: Instant,
        shared: &mut Shared,
    ) {
        match &self.state {
            State::Starting { child, .. } if child.run == run && child.pid.is_none() => {
                self.judged(Ended::SpawnFailed(reason), Duration::ZERO, now, shared);
            }
            State::Stopping { child, .. } if child.run == run && child.pid.is_none() => {
                self.gone(now, shared);
            }
            _ => {}
        }
    }

    pub(super) fn exited(&mut self, run: RunId, exit: Exit, now: Instant, shared: &mut Shared) {
        let scope = self.spec.stop().scope();
        match &mut self.state {
            State::Starting { child, .. }
            | State::Running { child, .. }
            | State::Paused { child }
                if child.run == run =>
            {
                let child = *child;
                self.past.last_exit = Some(exit);
                self.tell(
                    Fact::Exited {
                        exit,
                        after: now.since(child.began),
                    },
                    shared,
                );
                let then = match self.goal {
                    // Asked to stop, but something that needs it had to go first.
                    Goal::Down => Then::Down,
                    Goal::Up => Then::Judge(Ended::Exit(exit)),
                };
                shared.actions.push(Action::Kill(self.id, run));
                let phase = Phase::Killed {
                    until: now + KILL_PATIENCE,
                    exited: true,
                };
                self.enter(State::Stopping { child, then, phase }, now);
            }
            State::Stopping { child, phase, .. } if child.run == run => {
                let after = now.since(child.began);
                let remains = match phase {
                    Phase::Graceful { exited, .. } => {
                        *exited = true;
                        scope == StopScope::Main
                    }
                    Phase::Killed { exited, .. } => {
                        *exited = true;
                        false
                    }
                };
                self.past.last_exit = Some(exit);
                self.tell(Fact::Exited { exit, after }, shared);
                if remains {
                    shared.actions.push(Action::Kill(self.id, run));
                    if let State::Stopping { phase, .. } = &mut self.state {
                        *phase = Phase::Killed {
                            until: now + KILL_PATIENCE,
                            exited: true,
                        };
                    }
                }
            }
            State::Halted {
                remains: Some(remains),
                ..
            } if *remains == run => {
                self.past.last_exit = Some(exit);
            }
            _ => {}
        }
    }

    pub(super) fn emptied(&mut self, run: RunId, now: Instant, shared: &mut Shared) {
        match &mut self.state {
            State::Stopping {
                child,
                phase: Phase::Graceful { exited: true, .. } | Phase::Killed { exited: true, .. },
                ..
            } if child.run == run => self.gone(now, shared),
            State::Halted { remains, .. } if *remains == Some(run) => *remains = None,
            _ => {}
        }
    }

    pub(super) fn answered(
        &mut self,
        token: Token,
        answer: Result<(), String>,
        now: Instant,
        shared: &mut Shared,
    ) {
        match &mut self.state {
            State::Waiting(Waiting::OnCondition { asking, .. }) if asking.expects(token) => {
                self.condition_answered(answer, now, shared);
            }
            State::Starting {
                evidence: Evidence::Probe(asking),
                ..
            } if asking.expects(token) => match answer {
                Ok(()) => self.ready(now, shared),
                Err(why) => {
                    let wait = pause(READY_CADENCE, asking.count - 1, &mut shared.random);
                    asking.last = Some(why);
                    asking.again_in(wait, now);
                }
            },
            State::Starting {
                evidence: Evidence::Line(expected),
                ..
            } if *expected == token && answer.is_ok() => self.ready(now, shared),
            State::Running {
                watch: Some(watch), ..
            } if watch.asking.expects(token) => {
                self.liveness_answered(answer, now, shared);
            }
            _ => {}
        }
    }

    pub(super) fn notified(
        &mut self,
        run: RunId,
        notice: Notice,
        now: Instant,
        shared: &mut Shared,
    ) {
        match (&mut self.state, notice) {
            (
                State::Starting {
                    child,
                    evidence: Evidence::Notice,
                    ..
                },
                Notice::Ready,
            ) if child.run == run => {
                self.ready(now, shared);
            }
            (
                State::Starting {
                    child,
                    deadline: until,
                    ..
                }
                | State::Stopping {
                    child,
                    phase: Phase::Graceful { until, .. },
                    ..
                },
                Notice::ExtendTimeout(by),
            ) if child.run == run => *until = (*until).max(now + by),
            (
                State::Starting { child, .. }
                | State::Running { child, .. }
                | State::Stopping { child, .. },
                Notice::Status(text),
            ) if child.run == run => {
                self.past.status = Some(text.clone());
                self.tell(Fact::Status { text }, shared);
            }
            _ => {}
        }
    }

    pub(super) fn freeze_failed(
        &mut self,
        run: RunId,
        why: String,
        now: Instant,
        shared: &mut Shared,
    ) {
        if matches!(&self.state, State::Paused { child } if child.run == run) {
            self.tell(Fact::PauseFailed { why }, shared);
            // What was suspended before it failed must go on.
            let _ = self.resume(now, shared);
        }
    }

    pub(super) fn restored(
        &mut self,
        result: Result<(), String>,
        now: Instant,
        shared: &mut Shared,
    ) {
        if let State::Restoring { .. } = self.state {
            match result {
                Ok(()) => {
                    self.past.restarts += 1;
                    self.wait(now);
                }
                Err(why) => self.halt(Halt::NotRestored { why }, None, now, shared),
            }
        }
    }

    pub(super) fn tick(&mut self, now: Instant, shared: &mut Shared) {
        let id = self.id;
        match &mut self.state {
            State::Waiting(Waiting::OnCondition {
                index,
                deadline,
                asking,
                ..
            }) => {
                let Some(wait) = self.spec.wait_for().get(*index) else {
                    return;
                };
                if now >= *deadline {
                    let probe = wait.probe().to_string();
                    let last = asking.last.take();
                    let ended = Ended::ConditionMissed { probe, last };
                    return self.judged(ended, Duration::ZERO, now, shared);
                }
                match asking.next {
                    Next::Ask { at } if at <= now => {
                        let timeout = ANSWER_TIMEOUT.min(deadline.since(now));
                        asking.ask((id, None), wait.probe(), timeout, now, shared);
                    }
                    Next::Answer { by, .. } if by <= now => {
                        self.condition_answered(Err("no answer".into()), now, shared);
                    }
                    _ => {}
                }
            }
            State::Starting {
                child,
                deadline,
                evidence,
            } => {
                if now >= *deadline {
                    let last = match evidence {
                        Evidence::Probe(asking) => asking.last.take(),
                        _ => None,
                    };
                    let ended = Ended::NotReady {
                        after: now.since(child.began),
                        last,
                    };
                    self.tell(Fact::Failed { why: ended.clone() }, shared);
                    return self.begin_stop(Then::Judge(ended), now, shared);
                }
                let Evidence::Probe(asking) = evidence else {
                    return;
                };
                match asking.next {
                    Next::Ask { at } if at <= now => {
                        let Some(Ready::Probe(probe)) = self.spec.start().ready() else {
                            return;
                        };
                        let timeout = ANSWER_TIMEOUT.min(deadline.since(now));
                        asking.ask((id, Some(child.run)), probe, timeout, now, shared);
                    }
                    Next::Answer { by, .. } if by <= now => {
                        asking.last = Some("no answer".into());
                        asking.again_in(Duration::ZERO, now);
                    }
                    _ => {}
                }
            }
            State::Running {
                child,
                watch: Some(watch),
            } => match watch.asking.next {
                Next::Ask { at } if at <= now => {
                    let Some(liveness) = self.spec.liveness() else {
                        return;
                    };
                    let of = (id, Some(child.run));
                    watch
                        .asking
                        .ask(of, liveness.probe(), liveness.timeout(), now, shared);
                }
                Next::Answer { by, .. } if by <= now => {
                    self.liveness_answered(Err("no answer".into()), now, shared);
                }
                _ => {}
            },
            State::Stopping {
                phase: Phase::Graceful { until, .. },
                ..
            } if *until <= now => {
                self.kill_tree(KillReason::GraceOver, now, shared);
            }
            State::Stopping {
                child,
                phase: Phase::Killed { until, .. },
                ..
            } if *until <= now => {
                let remains = Some(child.run);
                self.halt(
                    Halt::Unkillable {
                        after: KILL_PATIENCE,
                    },
                    remains,
                    now,
                    shared,
                );
            }
            State::BackingOff { until } if *until <= now => self.wait(now),
            State::Restoring { until } if *until <= now => {
                let why = "the restore did not end".to_owned();
                self.halt(Halt::NotRestored { why }, None, now, shared);
            }
            _ => {}
        }
    }

    /// Moves on if the others allow it. True if it did.
    pub(super) fn settle(
        &mut self,
        situation: &Situation,
        now: Instant,
        shared: &mut Shared,
    ) -> bool {
        match (&mut self.state, self.goal) {
            (
                State::Waiting(_) | State::BackingOff { .. } | State::Restoring { .. },
                Goal::Down,
            ) => {
                self.stopped(Outcome::Requested, now, shared);
                true
            }
            (State::Halted { remains: None, .. }, Goal::Down) => {
                self.stopped(Outcome::Requested, now, shared);
                true
            }
            (State::Starting { .. } | State::Running { .. } | State::Paused { .. }, Goal::Down)
                if !situation.held =>
            {
                self.begin_stop(Then::Down, now, shared);
                true
            }
            (
                State::Stopping {
                    then: then @ (Then::Start | Then::Judge(_)),
                    ..
                },
                Goal::Down,
            ) => {
                *then = Then::Down;
                false
            }
            (State::Waiting(Waiting::OnNeeds { told }), Goal::Up) => {
                if let Some(need) = &situation.halted {
                    self.halt(Halt::Need(need.clone()), None, now, shared);
                    true
                } else if situation.missing.is_empty() {
                    self.next_condition(0, now, shared);
                    true
                } else {
                    if !mem::replace(told, true) {
                        self.tell(
                            Fact::Waiting {
                                on: situation.missing.clone(),
                            },
                            shared,
                        );
                    }
                    false
                }
            }
            _ => false,
        }
    }

    // Transitions.

    fn enter(&mut self, state: State, now: Instant) {
        self.state = state;
        self.since = now;
    }

    fn tell(&self, fact: Fact, shared: &mut Shared) {
        shared.actions.push(Action::Tell(self.id, fact));
    }

    fn wait(&mut self, now: Instant) {
        self.enter(State::Waiting(Waiting::OnNeeds { told: false }), now);
    }

    fn stopped(&mut self, outcome: Outcome, now: Instant, shared: &mut Shared) {
        self.enter(State::Stopped(outcome), now);
        self.tell(Fact::Stopped { outcome }, shared);
    }

    fn halt(&mut self, why: Halt, remains: Option<RunId>, now: Instant, shared: &mut Shared) {
        self.tell(Fact::Halted { why: why.clone() }, shared);
        self.enter(State::Halted { why, remains }, now);
    }

    /// Waits for the `index`-th condition, or starts the program where there is none left.
    fn next_condition(&mut self, index: usize, now: Instant, shared: &mut Shared) {
        let Some(wait) = self.spec.wait_for().get(index) else {
            let run = RunId(shared.number());
            let child = Child {
                run,
                pid: None,
                began: now,
                ready: false,
            };
            let deadline = now + self.spec.start().timeout();
            self.past.status = None;
            shared.actions.push(Action::Spawn(self.id, run));
            let evidence = Evidence::Existence;
            return self.enter(
                State::Starting {
                    child,
                    deadline,
                    evidence,
                },
                now,
            );
        };
        let mut asking = Asking::from(now);
        let timeout = ANSWER_TIMEOUT.min(wait.deadline());
        self.tell(
            Fact::WaitingFor {
                probe: wait.probe().to_string(),
            },
            shared,
        );
        asking.ask((self.id, None), wait.probe(), timeout, now, shared);
        let deadline = now + wait.deadline();
        let state = Waiting::OnCondition {
            index,
            deadline,
            asking,
            passes: 0,
        };
        self.enter(State::Waiting(state), now);
    }

    fn condition_answered(
        &mut self,
        answer: Result<(), String>,
        now: Instant,
        shared: &mut Shared,
    ) {
        let State::Waiting(Waiting::OnCondition {
            index,
            asking,
            passes,
            ..
        }) = &mut self.state
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
            self.next_condition(next, now, shared);
        } else {
            asking.again_in(interval, now);
        }
    }

    fn begin_evidence(&mut self, now: Instant, shared: &mut Shared) {
        let found = match self.spec.start().ready() {
            None => return self.ready(now, shared),
            Some(Ready::Probe(_)) => Evidence::Probe(Asking::from(now)),
            Some(Ready::Notify) => Evidence::Notice,
            Some(Ready::Log(regex)) => {
                let token = Token(shared.number());
                shared
                    .actions
                    .push(Action::ExpectLine(self.id, token, regex.clone()));
                Evidence::Line(token)
            }
        };
        if let State::Starting { evidence, .. } = &mut self.state {
            *evidence = found;
        }
        // The first question is asked at once.
        self.tick(now, shared);
    }

    fn ready(&mut self, now: Instant, shared: &mut Shared) {
        let State::Starting { child, .. } = &self.state else {
            return;
        };
        let child = Child {
            ready: true,
            ..*child
        };
        if self.spec.start().ready().is_some() {
            self.tell(
                Fact::Ready {
                    after: now.since(child.began),
                },
                shared,
            );
        }
        let watch = self.new_watch(now);
        self.enter(State::Running { child, watch }, now);
    }

    fn new_watch(&self, now: Instant) -> Option<Watch> {
        let liveness = self.spec.liveness()?;
        Some(Watch {
            asking: Asking::from(now + liveness.every()),
            misses: 0,
        })
    }

    fn liveness_answered(&mut self, answer: Result<(), String>, now: Instant, shared: &mut Shared) {
        let State::Running {
            watch: Some(watch), ..
        } = &mut self.state
        else {
            return;
        };
        let Some(liveness) = self.spec.liveness() else {
            return;
        };
        watch.asking.again_in(liveness.every(), now);
        let Err(why) = answer else {
            watch.misses = 0;
            return;
        };
        watch.misses += 1;
        let misses = watch.misses;
        let of = liveness.misses();
        self.tell(
            Fact::Missed {
                misses,
                of,
                why: why.clone(),
            },
            shared,
        );
        if misses >= of {
            let ended = Ended::LivenessLost { misses, last: why };
            self.tell(Fact::Failed { why: ended.clone() }, shared);
            self.begin_stop(Then::Judge(ended), now, shared);
        }
    }

    /// Asks a live child to stop.
    fn begin_stop(&mut self, then: Then, now: Instant, shared: &mut Shared) {
        let (child, frozen) = match &self.state {
            State::Starting { child, .. } | State::Running { child, .. } => (*child, false),
            State::Paused { child } => (*child, true),
            _ => return,
        };
        let graceful = self.spec.stop().graceful();
        self.tell(Fact::Stopping { graceful }, shared);
        shared.actions.push(Action::AskToStop(self.id, child.run));
        if frozen {
            shared.actions.push(Action::Thaw(self.id, child.run));
        }
        let phase = Phase::Graceful {
            until: now + graceful,
            exited: false,
        };
        self.enter(State::Stopping { child, then, phase }, now);
    }

    fn kill_tree(&mut self, why: KillReason, now: Instant, shared: &mut Shared) {
        let State::Stopping { child, phase, .. } = &mut self.state else {
            return;
        };
        let Phase::Graceful { exited, .. } = *phase else {
            return;
        };
        let run = child.run;
        *phase = Phase::Killed {
            until: now + KILL_PATIENCE,
            exited,
        };
        self.tell(Fact::Killing { why }, shared);
        shared.actions.push(Action::Kill(self.id, run));
    }

    /// Nothing of the run is left.
    fn gone(&mut self, now: Instant, shared: &mut Shared) {
        let placeholder = State::Stopped(Outcome::Requested);
        let State::Stopping { child, then, .. } = mem::replace(&mut self.state, placeholder) else {
            return;
        };
        match then {
            _ if self.goal == Goal::Down => self.stopped(Outcome::Requested, now, shared),
            Then::Down => self.stopped(Outcome::Requested, now, shared),
            Then::Start => {
                self.past.forgive();
                self.past.recent.clear();
                self.wait(now);
            }
            Then::Judge(ended) => {
                let healthy_for = if child.ready {
                    now.since(child.began)
                } else {
                    Duration::ZERO
                };
                self.judged(ended, healthy_for, now, shared);
            }
        }
    }

    /// Decides what follows a failure or a clean end. The service has no process now.
    fn judged(&mut self, ended: Ended, healthy_for: Duration, now: Instant, shared: &mut Shared) {
        let recovery = self.spec.recovery();
        if healthy_for >= recovery.reset_after() {
            self.past.forgive();
        }
        let action = judge(recovery, &ended);
        if !matches!(ended, Ended::NotReady { .. } | Ended::LivenessLost { .. })
            && matches!(action, CodeAction::Restart | CodeAction::Halt)
        {
            self.tell(Fact::Failed { why: ended.clone() }, shared);
        }
        match action {
            CodeAction::Stop => self.stopped(Outcome::Completed, now, shared),
            CodeAction::Halt => self.halt(Halt::Policy(ended), None, now, shared),
            CodeAction::Restart => {
                if let Some(limit) = recovery.limit() {
                    let recent = &mut self.past.recent;
                    while recent
                        .front()
                        .is_some_and(|at| now.since(*at) >= limit.window())
                    {
                        recent.pop_front();
                    }
                    if recent.len() >= limit.restarts() as usize {
                        let (limit, window) = (limit.restarts(), limit.window());
                        let why = Halt::TooManyRestarts {
                            limit,
                            window,
                            last: ended,
                        };
                        return self.halt(why, None, now, shared);
                    }
                    recent.push_back(now);
                }
                self.past.streak = self.past.streak.saturating_add(1);
                let attempt = self.past.streak;
                let wait = pause(recovery.backoff(), attempt - 1, &mut shared.random);
                self.back_off(wait, attempt, now, shared);
            }
            CodeAction::Retry => {
                if self.past.retries >= RETRY_LIMIT {
                    let why = Halt::RetriesExhausted { tries: RETRY_LIMIT };
                    return self.halt(why, None, now, shared);
                }
                self.past.retries += 1;
                let attempt = self.past.retries;
                let cadence = Backoff {
                    base: RETRY_BASE,
                    factor: 2.0,
                    max: Duration::from_secs(30),
                };
                let wait = pause(cadence, attempt - 1, &mut shared.random);
                self.back_off(wait, attempt, now, shared);
            }
            CodeAction::Restore => {
                self.past.restores += 1;
                let back = self.past.restores;
                self.tell(Fact::Restoring { back }, shared);
                shared.actions.push(Action::Restore {
                    service: self.id,
                    back,
                });
                self.enter(
                    State::Restoring {
                        until: now + RESTORE_PATIENCE,
                    },
                    now,
                );
            }
        }
    }

    fn back_off(&mut self, wait: Duration, attempt: u32, now: Instant, shared: &mut Shared) {
        self.past.restarts += 1;
        if wait.is_zero() {
            return self.wait(now);
        }
        self.tell(
            Fact::BackingOff {
                pause: wait,
                attempt,
            },
            shared,
        );
        self.enter(State::BackingOff { until: now + wait }, now);
    }
}
