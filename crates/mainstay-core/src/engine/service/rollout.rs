//! The roles of a service in an update.

use super::{Goal, Role, Service};
use crate::engine::checkpoint::DesiredState;
use crate::engine::fact::Halt;
use crate::engine::rollout::{RolloutRole, TrialFailure};
use crate::engine::shared::Shared;
use crate::engine::state::{Phase, State, Then};
use crate::engine::view::StateName;

impl Service {
    /// Makes this new service the candidate of an update of `old`.
    pub(in crate::engine) fn tried_for(mut self, old: &Self) -> Self {
        self.role = Role::Candidate { failure: None };
        self.rank = old.rank;
        self.goal = Goal::Down;
        self.history.last_exit = old.history.last_exit;
        self
    }

    /// Takes the place of `old`, which is superseded and will be stopped.
    pub(in crate::engine) fn replace(&mut self, old: &mut Self) {
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

    pub(in crate::engine) fn be_forgotten(&mut self) {
        if let Some(role) = self.rollout_role() {
            self.role = Role::Forgotten(role);
        }
    }

    pub(in crate::engine) fn rollout_role(&self) -> Option<RolloutRole> {
        match self.role {
            Role::Active => None,
            Role::Candidate { .. } => Some(RolloutRole::Candidate),
            Role::Superseded => Some(RolloutRole::Predecessor),
            Role::Forgotten(role) => Some(role),
        }
    }

    pub(in crate::engine) fn role(&self) -> &Role {
        &self.role
    }

    pub(in crate::engine) fn is_active(&self) -> bool {
        self.role == Role::Active
    }

    pub(in crate::engine) fn rank(&self) -> u64 {
        self.rank
    }

    /// Returns the failure that disqualifies a candidate.
    pub(in crate::engine) fn failure(&self) -> Option<&TrialFailure> {
        match &self.role {
            Role::Candidate { failure } => failure.as_ref(),
            _ => None,
        }
    }

    /// Records a failure of a candidate. The first one decides the trial.
    pub(in crate::engine) fn fail_trial(&mut self, why: TrialFailure) {
        if let Role::Candidate { failure } = &mut self.role {
            failure.get_or_insert(why);
        }
    }

    /// Returns whether operators want the service up.
    pub(in crate::engine) fn is_desired_up(&self) -> bool {
        self.desired == DesiredState::Up
    }

    /// Brings back a service that was stopped for a trial. Its failures still count. If its last
    /// run has remains, it stays halted.
    pub(in crate::engine) fn come_back(&mut self, shared: &Shared) {
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
    pub(in crate::engine) fn lost_its_state(
        &mut self,
        why: String,
        is_over: bool,
        shared: &mut Shared,
    ) {
        if self.is_desired_up() && !is_over {
            self.goal = Goal::Up;
        }
        self.halt(Halt::NotRestored { why }, None, shared);
    }

    /// Returns whether the service has settled for now. A failed start counts as settled.
    pub(in crate::engine) fn has_settled(&self) -> bool {
        let state = self.state.name();
        let is_idle =
            state.is_settled() || matches!(state, StateName::BackingOff | StateName::Waiting);
        is_idle && !self.is_restart_due
    }
}
