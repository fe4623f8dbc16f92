//! Requests of operators.

use super::{Goal, Service};
use crate::engine::checkpoint::DesiredState;
use crate::engine::fact::{Fact, KillReason, Outcome};
use crate::engine::protocol::Action;
use crate::engine::request::{Launch, Refusal};
use crate::engine::shared::Shared;
use crate::engine::state::{Phase, State, Then};
use crate::engine::view::StateName;

impl Service {
    /// Stops the service at an operator's request.
    pub(in crate::engine) fn want_down(&mut self) {
        self.want_end();
        self.desired = DesiredState::Down;
        if self.is_down() {
            // The crash loop was kept only for the time after a trial.
            self.history.crash_loop = None;
        }
    }

    /// Stops the service without changing the state that operators requested.
    pub(in crate::engine) fn want_end(&mut self) {
        self.goal = Goal::Down;
        self.is_restart_due = false;
    }

    /// # Errors
    /// If the service cannot be started now.
    pub(in crate::engine) fn check_start(&self, launch: Launch) -> Result<(), Refusal> {
        match &self.state {
            State::Halted {
                remains: Some(_), ..
            } => Err(Refusal::Remains),
            // A paused service that was to be stopped may be started again.
            State::Live {
                phase: Phase::Paused,
                ..
            } if launch != Launch::Afresh && self.goal == Goal::Up => {
                Err(Refusal::State(StateName::Paused))
            }
            _ => Ok(()),
        }
    }

    /// Starts the service.
    pub(in crate::engine) fn start(
        &mut self,
        launch: Launch,
        shared: &mut Shared,
    ) -> Result<(), Refusal> {
        self.check_start(launch)?;
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
                _ if launch == Launch::Afresh => {
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
    pub(in crate::engine) fn start_for_dependent(&mut self, shared: &mut Shared) {
        if self.goal == Goal::Down || self.is_down() {
            // If it cannot start, the view of the dependent names it.
            let _ = self.start(Launch::IfDown, shared);
        }
    }

    pub(in crate::engine) fn pause(&mut self, shared: &mut Shared) -> Result<(), Refusal> {
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

    pub(in crate::engine) fn resume(&mut self, shared: &mut Shared) -> Result<(), Refusal> {
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

    /// Kills the service at once. A restore in progress is cancelled, and its end is not waited
    /// for: nothing will start from its result.
    pub(in crate::engine) fn kill(&mut self, shared: &mut Shared) {
        if let State::Restoring { .. } = self.state {
            self.cancel_restore(shared);
            self.stopped(Outcome::Requested, shared);
        }
        self.begin_stop(Then::Down, shared);
        self.kill_tree(KillReason::Requested, shared);
    }
}
