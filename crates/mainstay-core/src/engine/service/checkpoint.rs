//! Taking a checkpoint of a service, and resuming from one.

use std::time::Duration;

use super::{ANSWER_TIMEOUT, Goal, Service};
use crate::engine::asking::ANSWER_GRACE;
use crate::engine::checkpoint::{Checkpoint, DesiredState, RecoveredState, Stage};
use crate::engine::fact::{Fact, Halt};
use crate::engine::id::RunId;
use crate::engine::protocol::Action;
use crate::engine::shared::Shared;
use crate::engine::state::{Child, Main, Phase, SnapshotSchedule, State, Then};
use crate::time::Instant;

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
                let adopted = Fact::Adopted {
                    pid,
                    restarts,
                    is_ready: matches!(stage, Stage::Running),
                };
                self.emit(adopted, shared);
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
                    is_unseen: false,
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
                if let State::Live { child, .. } = &mut self.state {
                    child.is_unseen = true;
                }
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
            is_unseen: false,
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
        // The predecessor may have been killed before it suspended or resumed the service as it had
        // recorded, or during a snapshot under a definition that is no longer known.
        shared.actions.push(match stage {
            Stage::Paused => Action::Freeze(self.id, child.run),
            _ => Action::Thaw(self.id, child.run),
        });
        match stage {
            Stage::Starting if self.spec.start().ready().is_none() => self.ready(shared),
            // The first probe runs at once.
            Stage::Starting => self.tick(shared),
            // The service has been in this state since the time of the predecessor.
            Stage::Running => {
                self.run(shared);
                self.since = since;
            }
            Stage::Paused => self.since = since,
            Stage::Stopping if self.goal == Goal::Up => self.stop_by(Then::Start, stop, shared),
            Stage::Stopping => self.stop_by(Then::Down, stop, shared),
            Stage::Failing(ended) => self.stop_by(Then::Classify(ended), stop, shared),
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
