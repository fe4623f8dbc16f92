//! Evidence from a run or a question: answers to probes, and messages of the service. Evidence of
//! other runs and answers to other questions are ignored.

use std::mem;
use std::time::Duration;

use super::{Goal, Service};
use crate::engine::backoff::pause;
use crate::engine::contract::Ended;
use crate::engine::fact::Fact;
use crate::engine::id::{RunId, Token};
use crate::engine::protocol::{Action, Notice, ProbeFailure, Unasked};
use crate::engine::shared::Shared;
use crate::engine::state::{Evidence, Phase, State, StopStage, Watch};
use crate::spec::Backoff;
use crate::time::Instant;

/// The pause after a question that the host could not ask.
const UNASKED_PAUSE: Duration = Duration::from_secs(1);
/// The longest start or stop that `EXTEND_TIMEOUT_USEC=` can reach, as a multiple of its timeout.
/// It bounds both, however often the message is sent.
const LONGEST_EXTENSION: u32 = 10;
/// The pauses between readiness probes: short at first, never long.
const READY_CADENCE: Backoff = Backoff {
    base: Duration::from_millis(5),
    factor: 2.0,
    max: Duration::from_millis(250),
};

impl Service {
    pub(in crate::engine) fn answered(
        &mut self,
        token: Token,
        answer: Result<(), ProbeFailure>,
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
                        asking.last = Some(why.to_string());
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
    pub(in crate::engine) fn unasked(&mut self, token: Token, why: Unasked, shared: &mut Shared) {
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

    pub(in crate::engine) fn notified(&mut self, run: RunId, notice: Notice, shared: &mut Shared) {
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

    pub(in crate::engine) fn freeze_failed(
        &mut self,
        run: RunId,
        why: String,
        shared: &mut Shared,
    ) {
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

    /// Asks whether the service is alive if that is due, unless it is kept still for a snapshot.
    pub(super) fn check_liveness(&mut self, shared: &mut Shared) {
        let State::Live {
            child,
            phase:
                Phase::Running {
                    watch: Some(Watch { asking, .. }),
                    schedule,
                },
        } = &mut self.state
        else {
            return;
        };
        if let Some(liveness) = self.spec.liveness()
            && !schedule.is_still()
            && asking.is_due(shared.now)
        {
            let of = (self.id, Some(child.run));
            asking.ask(of, liveness.probe(), liveness.timeout(), shared);
        }
    }

    fn liveness_answered(&mut self, answer: Result<(), ProbeFailure>, shared: &mut Shared) {
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
            Ok(()) => {
                let misses = mem::take(&mut watch.misses);
                if misses > 0 {
                    self.emit(Fact::Passed { misses }, shared);
                }
                return;
            }
            Err(why) if self.goal == Goal::Up && !self.is_restart_due && !schedule.is_still() => {
                why.to_string()
            }
            // A service that runs only until its dependents are gone must not be stopped by a miss.
            Err(_) => return watch.misses = 0,
        };
        watch.misses += 1;
        let (misses, of) = (watch.misses, liveness.misses());
        let last = why.clone();
        self.emit(Fact::Missed { misses, of, why }, shared);
        if misses >= of {
            self.failed(Ended::LivenessLost { misses, last }, shared);
        }
    }
}

/// Moves a deadline to `by` from now, but not beyond `latest`, and never back.
fn extend(deadline: &mut Instant, (now, by): (Instant, Duration), latest: Instant) {
    *deadline = (*deadline).max((now + by).min(latest));
}
