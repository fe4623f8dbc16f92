//! Checkpoints: the state of a service that a supervisor records while it runs, and from which its
//! successor resumes if it is killed.

use std::time::Duration;

use super::{
    ANSWER_GRACE, ANSWER_TIMEOUT, Asking, Child, Ended, Evidence, Exit, Fact, Goal, Halt, Main,
    Phase, Ready, Service, SnapshotSchedule, State, Then,
};
use crate::engine::{Action, RunId, Shared, Token};
use crate::spec::ServiceName;
use crate::time::Instant;

/// The checkpoint of one service ([`Engine::checkpoint`](crate::engine::Engine::checkpoint),
/// [`Engine::resume`](crate::engine::Engine::resume)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The state that operators want.
    pub desired: DesiredState,
    /// The number of automatic restarts.
    pub restarts: u64,
    /// The exit status of the last run.
    pub last_exit: Option<Exit>,
    /// The failure history.
    pub failures: Failures,
    /// The time of the last state change, if known.
    pub since: Option<Instant>,
    /// The recovered state.
    pub recovered: RecoveredState,
}

/// The failure history of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failures {
    /// The number of failures since the last good run.
    pub streak: u32,
    /// The times of the latest restarts within the window of the limit.
    pub recent: Vec<Instant>,
    /// The start of the crash loop and the time of its next report, if the service is
    /// crash-looping.
    pub crash_loop: Option<(Instant, Instant)>,
}

impl Failures {
    /// An empty failure history.
    pub const NONE: Self = Self {
        streak: 0,
        recent: Vec::new(),
        crash_loop: None,
    };
}

impl Checkpoint {
    /// The checkpoint of an unknown service: it starts as usual.
    pub const NEW: Self = Self {
        desired: DesiredState::Up,
        restarts: 0,
        last_exit: None,
        failures: Failures::NONE,
        since: None,
        recovered: RecoveredState::Nothing,
    };

    /// The checkpoint of a service that is started only on request.
    pub const DISABLED: Self = Self {
        desired: DesiredState::Down,
        restarts: 0,
        last_exit: None,
        failures: Failures::NONE,
        since: None,
        recovered: RecoveredState::Nothing,
    };
}

/// The state that operators want for a service. The shutdown of the supervisor does not change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DesiredState {
    /// The service should run.
    Up,
    /// An operator stopped the service by name.
    Down,
}

/// The state of a service at its checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoveredState {
    /// No process, and nothing that prevents a start.
    Nothing,
    /// A service that ended cleanly by itself.
    Completed {
        /// Set if the service had been ready, so that its dependents may start.
        was_ready: bool,
    },
    /// A service that stays down until an operator intervenes.
    Halted {
        /// The reason.
        why: String,
    },
    /// A service that stays down for as long as one of its needs does.
    Blocked {
        /// The need.
        need: ServiceName,
        /// Set if the need ended before it was ready. Otherwise the need is halted.
        has_ended: bool,
    },
    /// A live main process.
    Child {
        /// The process ID.
        pid: u32,
        /// The start of the process.
        began: Instant,
        /// The time at which the service reached this stage.
        since: Instant,
        /// The time limit of the stage, if it has one that was recorded.
        until: Option<Instant>,
        /// The stage that the service had reached.
        stage: Stage,
    },
    /// A main process that has ended, before the next step was decided. The host reports
    /// [`Event::Emptied`](crate::engine::Event::Emptied).
    Ended {
        /// The cause of the end.
        ended: Ended,
        /// Set if the service had been ready.
        was_ready: bool,
        /// The start of the process.
        began: Instant,
        /// The time of the exit or failure.
        since: Instant,
    },
    /// A main process that ended while no supervisor ran. The host reports
    /// [`Event::Exited`](crate::engine::Event::Exited) and what follows, after it has read
    /// everything that the process wrote and sent before.
    Gone {
        /// The process ID.
        pid: u32,
        /// The start of the process.
        began: Instant,
        /// The stage in which the service was last seen.
        stage: Stage,
    },
}

/// The stage of a live service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The service was not ready yet.
    Starting,
    /// The service was ready.
    Running,
    /// The service was ready and suspended.
    Paused,
    /// The service was being stopped, to stay down or to start again, depending on the desired
    /// state.
    Stopping,
    /// The service was being stopped because it had failed for this reason.
    Failing(Ended),
}

impl Service {
    /// Returns the checkpoint of the service.
    pub(in crate::engine) fn checkpoint(&self) -> Checkpoint {
        let recovered = match &self.state {
            State::Stopped { is_done } if *is_done || self.goal == Goal::Up => {
                RecoveredState::Completed {
                    was_ready: *is_done,
                }
            }
            State::Halted {
                why: why @ (Halt::Need(need) | Halt::NeedEnded(need)),
                ..
            } => RecoveredState::Blocked {
                need: need.clone(),
                has_ended: matches!(why, Halt::NeedEnded(_)),
            },
            State::Stopped { .. }
            | State::Waiting { .. }
            | State::Conditions { .. }
            | State::BackingOff { .. }
            | State::Restoring { .. } => RecoveredState::Nothing,
            State::Halted { why, .. } => RecoveredState::Halted {
                why: why.to_string(),
            },
            State::Live { child, phase } => recovered_state(child, phase, self.since),
        };
        Checkpoint {
            desired: self.desired,
            restarts: self.history.restarts,
            last_exit: self.history.last_exit,
            failures: self.history.failures(),
            since: Some(self.since),
            recovered,
        }
    }

    /// Resumes from the checkpoint of a predecessor, instead of a start. The caller settles the
    /// service afterwards.
    pub(in crate::engine) fn inherit(&mut self, checkpoint: Checkpoint, shared: &mut Shared) {
        self.history.restarts = checkpoint.restarts;
        self.history.last_exit = checkpoint.last_exit;
        self.history
            .inherit(checkpoint.failures, self.spec.recovery());
        self.desired = checkpoint.desired;
        self.goal = match checkpoint.desired {
            DesiredState::Up => Goal::Up,
            DesiredState::Down => Goal::Down,
        };
        match checkpoint.recovered {
            RecoveredState::Nothing if self.goal == Goal::Down => {
                self.enter(State::Stopped { is_done: false }, shared);
            }
            RecoveredState::Nothing => self.wait(shared),
            RecoveredState::Completed { was_ready } => {
                self.enter(State::Stopped { is_done: was_ready }, shared);
            }
            RecoveredState::Halted { why } => self.halt(Halt::Inherited { why }, None, shared),
            RecoveredState::Blocked { need, has_ended } => {
                let why = if has_ended {
                    Halt::NeedEnded(need)
                } else {
                    Halt::Need(need)
                };
                let reported = Halt::Inherited {
                    why: why.to_string(),
                };
                self.emit(Fact::Halted { why: reported }, shared);
                self.enter(State::Halted { why, remains: None }, shared);
            }
            RecoveredState::Child {
                pid,
                began,
                since,
                until,
                stage,
            } => {
                let restarts = self.history.restarts;
                self.emit(Fact::Adopted { pid, restarts }, shared);
                self.adopt(pid, (began, since, until), stage, shared);
            }
            RecoveredState::Ended {
                ended,
                was_ready,
                began,
                since,
            } => {
                let child = Child {
                    run: RunId(shared.number()),
                    began,
                    main: Main::Gone,
                    was_ready,
                    is_kept: false,
                };
                let phase = Phase::Running {
                    watch: None,
                    schedule: SnapshotSchedule::Idle,
                };
                self.enter(State::Live { child, phase }, shared);
                let then = Then::Classify(ended);
                self.end_children(child, then, since, shared);
            }
            RecoveredState::Gone { pid, began, stage } => {
                self.adopt(pid, (began, shared.now, None), stage, shared);
            }
        }
        if let (true, Some(since)) = (self.is_down(), checkpoint.since) {
            self.since = since;
        }
    }

    fn adopt(
        &mut self,
        pid: u32,
        (began, since, until): (Instant, Instant, Option<Instant>),
        stage: Stage,
        shared: &mut Shared,
    ) {
        // A time limit lasts across supervisors. While none ran, it was no evidence.
        let continued = |limit: Duration, grace: Duration| match until {
            Some(until) => (since, until.max(shared.now + grace)),
            None => (shared.now, shared.now + limit),
        };
        let start = continued(self.spec.start().timeout(), ANSWER_TIMEOUT);
        let stop = continued(self.spec.stop().graceful(), ANSWER_GRACE);
        let child = Child {
            run: RunId(shared.number()),
            began,
            main: Main::Lives(pid),
            was_ready: matches!(stage, Stage::Running | Stage::Paused),
            is_kept: false,
        };
        let phase = match &stage {
            Stage::Starting => Phase::Starting {
                deadline: start.1,
                evidence: self.evidence_of(Some(shared.now), shared),
            },
            Stage::Paused => Phase::Paused,
            Stage::Running | Stage::Stopping | Stage::Failing(_) => Phase::Running {
                watch: None,
                schedule: SnapshotSchedule::Idle,
            },
        };
        self.enter(State::Live { child, phase }, shared);
        match stage {
            Stage::Starting if self.spec.start().ready().is_none() => self.ready(shared),
            // The first probe runs at once.
            Stage::Starting => self.tick(shared),
            // The service has been in this state since the time of the predecessor.
            Stage::Running => {
                // The predecessor may have been killed while the service was suspended for a
                // snapshot, under a definition that is no longer known.
                shared.actions.push(Action::Thaw(self.id, child.run));
                self.run(shared);
                self.since = since;
            }
            Stage::Paused => self.since = since,
            Stage::Stopping if self.goal == Goal::Up => self.stop_by(Then::Start, stop, shared),
            Stage::Stopping => self.stop_by(Then::Down, stop, shared),
            Stage::Failing(ended) => self.stop_by(Then::Classify(ended), stop, shared),
        }
    }

    /// Returns the evidence of readiness to wait for. If the child already runs, its probe starts
    /// at `asked_from`.
    pub(super) fn evidence_of(&self, asked_from: Option<Instant>, shared: &mut Shared) -> Evidence {
        match self.spec.start().ready() {
            None => Evidence::Existence,
            Some(Ready::Probe(_)) => Evidence::Probe(asked_from.map(Asking::from)),
            Some(Ready::Notify(_)) => Evidence::Notice,
            Some(Ready::Log(regex)) => {
                let token = Token(shared.number());
                let line = Action::ExpectLine(self.id, token, regex.clone());
                shared.actions.push(line);
                Evidence::Line(token)
            }
        }
    }
}

fn recovered_state(child: &Child, phase: &Phase, since: Instant) -> RecoveredState {
    let (stage, until) = match phase {
        Phase::Starting { deadline, .. } => (Stage::Starting, Some(*deadline)),
        Phase::Running { .. } => (Stage::Running, None),
        Phase::Paused => (Stage::Paused, None),
        Phase::Stopping {
            then: Then::Classify(ended),
            until,
            ..
        } => (Stage::Failing(ended.clone()), Some(*until)),
        Phase::Stopping { until, .. } => (Stage::Stopping, Some(*until)),
    };
    match (child.main, phase) {
        (Main::Lives(pid), _) => RecoveredState::Child {
            pid,
            began: child.began,
            since,
            until,
            stage,
        },
        (
            Main::Gone,
            Phase::Stopping {
                then: Then::Classify(ended),
                ..
            },
        ) => RecoveredState::Ended {
            ended: ended.clone(),
            was_ready: child.was_ready,
            began: child.began,
            since,
        },
        (Main::Called | Main::Gone, _) => RecoveredState::Nothing,
    }
}
