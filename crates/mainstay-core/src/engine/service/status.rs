//! The status of a service, as the engine and operators see it.

use super::{Goal, Service};
use crate::engine::fact::Halt;
use crate::engine::state::{Evidence, Main, Phase, State, Then};
use crate::engine::view::{StateName, View};
use crate::time::Instant;

impl Service {
    pub(in crate::engine) fn wants_down(&self) -> bool {
        self.goal == Goal::Down
    }

    pub(in crate::engine) fn is_halted(&self) -> bool {
        matches!(self.state, State::Halted { .. })
    }

    pub(in crate::engine) fn is_halted_for_a_need(&self) -> bool {
        let State::Halted { why, .. } = &self.state else {
            return false;
        };
        matches!(why, Halt::Need(_) | Halt::NeedEnded(_))
    }

    /// Returns whether the service ended by itself before it was ready, so that only an operator
    /// starts it again.
    pub(in crate::engine) fn is_spent(&self) -> bool {
        matches!(self.state, State::Stopped { is_done: false }) && self.goal == Goal::Up
    }

    /// Returns whether the service exceeded its restart limit and has not recovered yet.
    pub(in crate::engine) fn is_crash_looping(&self) -> bool {
        self.history.crash_loop.is_some()
    }

    /// Returns the reason why the service will not be ready soon.
    pub(in crate::engine) fn trouble(&self) -> Option<String> {
        match &self.state {
            State::Stopped { .. } if self.wants_down() => Some("is stopped".to_owned()),
            State::Live { .. } if self.wants_down() => Some("is stopping".to_owned()),
            State::Live {
                phase: Phase::Paused,
                ..
            } => Some("is paused".to_owned()),
            _ if self.is_crash_looping() => Some("is crash-looping".to_owned()),
            State::BackingOff { why, .. } => {
                Some(format!("{}: {why}", StateName::BackingOff.predicate()))
            }
            _ => None,
        }
    }

    /// Returns whether the service is stopped and should be.
    pub(in crate::engine) fn was_stopped(&self) -> bool {
        matches!(self.state, State::Stopped { .. }) && self.goal == Goal::Down
    }

    /// Returns whether the service is stopped or halted. Processes that survived a kill count as
    /// remains only.
    pub(in crate::engine) fn is_down(&self) -> bool {
        matches!(self.state, State::Stopped { .. } | State::Halted { .. })
    }

    /// Returns whether the service is stopping or about to stop, either to stay down or to restart.
    pub(in crate::engine) fn is_leaving(&self) -> bool {
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
    pub(in crate::engine) fn is_out_of_reach(&self) -> bool {
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
    pub(in crate::engine) fn is_failing(&self) -> bool {
        matches!(self.state, State::BackingOff { .. })
    }

    /// Returns whether the service has a run.
    pub(in crate::engine) fn is_live(&self) -> bool {
        matches!(self.state, State::Live { .. })
    }

    /// Returns whether the service is starting, stopping, or about to.
    pub(in crate::engine) fn is_moving(&self) -> bool {
        match &self.state {
            _ if self.is_restart_due => true,
            State::Conditions { .. } | State::Restoring { .. } => true,
            State::Live { phase, .. } => {
                matches!(phase, Phase::Starting { .. } | Phase::Stopping { .. })
            }
            _ => false,
        }
    }

    pub(in crate::engine) fn has_remains(&self) -> bool {
        let State::Halted { remains, .. } = &self.state else {
            return false;
        };
        remains.is_some()
    }

    /// Returns whether dependents may start: the service is ready and stays so, or has completed.
    pub(in crate::engine) fn is_satisfied(&self) -> bool {
        match &self.state {
            State::Live {
                phase: Phase::Running { .. },
                ..
            } => self.goal == Goal::Up && !self.is_restart_due,
            State::Stopped { is_done, .. } => *is_done,
            _ => false,
        }
    }

    pub(in crate::engine) fn since(&self) -> Instant {
        self.since
    }

    pub(in crate::engine) fn deadline(&self) -> Option<Instant> {
        let crash_loop = self.history.crash_loop.as_ref().filter(|_| !self.is_down());
        let reminder = crash_loop.map(|crash_loop| crash_loop.remind_at);
        let deadlines = self.state.deadline().into_iter();
        deadlines.chain(reminder).chain(self.good_at()).min()
    }

    /// Returns the deadline of the state, without the deadlines of a crash loop.
    #[cfg(test)]
    pub(in crate::engine) fn deadline_of_state(&self) -> Option<Instant> {
        self.state.deadline()
    }

    /// Returns the time at which a ready service will have been ready for `reset_after`, if that
    /// resets anything. The run must be seen to last that long: an exit may be observed much later
    /// than it happened.
    pub(super) fn good_at(&self) -> Option<Instant> {
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

    pub(in crate::engine) fn view(&self) -> View {
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
            restored: self.history.restored,
            crash_looping: self.is_crash_looping() && !self.is_down(),
            next_try: match self.state {
                State::BackingOff { until, .. } => Some(until),
                _ => None,
            },
            detail,
            blocker: None,
        }
    }
}
