//! Snapshots of a service's state, and restores. A restore never overlaps a snapshot: it waits
//! until a cancelled snapshot has ended. A snapshot blocks no other transition: whatever takes the
//! service out of `Running` cancels it.

use std::mem;
use std::time::Duration;

use super::{Goal, Service};
use crate::engine::contract::Human;
use crate::engine::fact::{Fact, Halt, Outcome};
use crate::engine::id::Token;
use crate::engine::protocol::{Action, CopyFailure, Snapshotted};
use crate::engine::request::Refusal;
use crate::engine::shared::Shared;
use crate::engine::state::{Main, Phase, SnapshotSchedule, State};
use crate::snapshot::{Reason, SnapshotId};
use crate::spec::{SnapshotWhen, Still};
use crate::time::Instant;

/// The time limit for a snapshot.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(3600);
/// The time limit for a snapshot during which the service is kept still.
const STILL_SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(60);
/// The pause after a failed snapshot.
const RETRY: Duration = Duration::from_secs(600);

impl Service {
    /// Returns whether the service is suspended for its snapshots.
    pub(super) fn freezes(&self) -> bool {
        let policy = self.spec.snapshot();
        policy.is_some_and(|policy| *policy.still() == Still::Pause)
    }

    /// Returns the next snapshot of a run that has been ready since `since`.
    pub(super) fn next_schedule(&self, since: Instant) -> SnapshotSchedule {
        let (Some(policy), State::Live { child, .. }) = (self.spec.snapshot(), &self.state) else {
            return SnapshotSchedule::Idle;
        };
        if !self.is_active() {
            return SnapshotSchedule::Idle;
        }
        let healthy_at = since + policy.after();
        let is_wanted = policy.when() == SnapshotWhen::Healthy && !child.is_kept;
        let last = self.history.kept.unwrap_or(Instant::ZERO);
        let scheduled = policy.every().map(|every| healthy_at.max(last + every));
        match scheduled {
            _ if is_wanted => SnapshotSchedule::Due {
                at: healthy_at,
                reason: Reason::Healthy,
            },
            Some(at) => SnapshotSchedule::Due {
                at,
                reason: Reason::Scheduled,
            },
            None => SnapshotSchedule::Idle,
        }
    }

    pub(in crate::engine) fn request_snapshot(
        &mut self,
        shared: &mut Shared,
    ) -> Result<Token, Refusal> {
        let Some(policy) = self.spec.snapshot() else {
            return Err(Refusal::NoSnapshots);
        };
        let State::Live {
            phase: Phase::Running { schedule, .. },
            ..
        } = &self.state
        else {
            return Err(Refusal::State(self.state.name()));
        };
        if matches!(schedule, SnapshotSchedule::Taking { .. }) || self.abandoned.is_some() {
            return Err(Refusal::Snapshotting);
        }
        let stable = shared.now.since(self.since) >= policy.after();
        let token = self.snapshot(Reason::Manual, stable, shared);
        token.ok_or(Refusal::State(self.state.name()))
    }

    /// Handles a due deadline: starts the planned snapshot, or fails the one in progress.
    pub(super) fn keep(&mut self, shared: &mut Shared) {
        let State::Live {
            phase: Phase::Running { schedule, .. },
            ..
        } = &mut self.state
        else {
            return;
        };
        match *schedule {
            SnapshotSchedule::Idle => {}
            // The service runs only until its dependents are gone.
            SnapshotSchedule::Due { .. } if self.goal == Goal::Down => {
                *schedule = SnapshotSchedule::Idle
            }
            SnapshotSchedule::Due { reason, .. } if self.abandoned.is_some() => {
                let at = shared.now + RETRY;
                *schedule = SnapshotSchedule::Due { at, reason };
            }
            SnapshotSchedule::Due { reason, .. } => {
                self.snapshot(reason, true, shared);
            }
            SnapshotSchedule::Taking { is_still, .. } => {
                let limit = Human(if is_still {
                    STILL_SNAPSHOT_TIMEOUT
                } else {
                    SNAPSHOT_TIMEOUT
                });
                let why = format!("the snapshot timed out after {limit}");
                self.call_off(shared);
                self.failed_to_keep(why, shared);
            }
        }
    }

    fn snapshot(&mut self, reason: Reason, stable: bool, shared: &mut Shared) -> Option<Token> {
        let is_frozen = self.freezes();
        let is_still = self.spec.snapshot()?.still() != &Still::Nothing;
        let State::Live {
            child,
            phase: Phase::Running { schedule, .. },
        } = &mut self.state
        else {
            return None;
        };
        let (service, run, token) = (self.id, child.run, Token(shared.number()));
        *schedule = SnapshotSchedule::Taking {
            token,
            until: shared.now
                + if is_still {
                    STILL_SNAPSHOT_TIMEOUT
                } else {
                    SNAPSHOT_TIMEOUT
                },
            is_still,
            is_frozen,
            reason,
        };
        if self.not_kept.is_none() || reason == Reason::Manual {
            self.emit(Fact::Snapshotting { reason }, shared);
        }
        if is_frozen {
            shared.actions.push(Action::Freeze(service, run));
        }
        shared.actions.push(Action::Snapshot {
            service,
            run,
            token,
            reason,
            stable,
        });
        Some(token)
    }

    /// Cancels a snapshot in progress, because the service does not run on undisturbed.
    pub(super) fn abandon_snapshot(&mut self, shared: &mut Shared) {
        if self.call_off(shared) {
            self.emit(Fact::SnapshotAbandoned, shared);
        }
    }

    fn call_off(&mut self, shared: &mut Shared) -> bool {
        let State::Live {
            phase: Phase::Running { schedule, .. },
            ..
        } = &self.state
        else {
            return false;
        };
        let SnapshotSchedule::Taking { token, .. } = *schedule else {
            return false;
        };
        self.abandon(token, shared);
        self.release(shared);
        true
    }

    /// Cancels a copy in progress. Its answer is still to come.
    pub(in crate::engine) fn abandon(&mut self, token: Token, shared: &mut Shared) {
        let action = Action::AbandonSnapshot(self.id, token);
        shared.actions.push(action);
        self.abandoned = Some(token);
    }

    /// Returns whether a cancelled snapshot has not ended yet.
    pub(in crate::engine) fn is_abandoning(&self) -> bool {
        self.abandoned.is_some()
    }

    /// Returns whether a snapshot that an operator requested is in progress.
    pub(in crate::engine) fn is_snapshotted_on_request(&self) -> bool {
        let State::Live {
            phase: Phase::Running { schedule, .. },
            ..
        } = &self.state
        else {
            return false;
        };
        matches!(schedule, SnapshotSchedule::Taking { reason, .. } if *reason == Reason::Manual)
    }

    /// Resumes a service that was kept still for a snapshot.
    fn release(&mut self, shared: &mut Shared) {
        let State::Live {
            child,
            phase: Phase::Running { watch, schedule },
        } = &mut self.state
        else {
            return;
        };
        let SnapshotSchedule::Taking {
            is_still,
            is_frozen,
            ..
        } = mem::replace(schedule, SnapshotSchedule::Idle)
        else {
            return;
        };
        if is_frozen && child.main != Main::Gone {
            shared.actions.push(Action::Thaw(self.id, child.run));
        }
        if let (true, Some(watch), Some(liveness)) = (is_still, watch, self.spec.liveness()) {
            watch.asking.again_in(liveness.every(), shared.now);
        }
    }

    fn failed_to_keep(&mut self, why: String, shared: &mut Shared) {
        if self.not_kept.as_ref() != Some(&why) {
            self.not_kept = Some(why.clone());
            self.emit(Fact::SnapshotFailed { why }, shared);
        }
        // The next attempt waits, even if a snapshot is due at once.
        let next = match self.next_schedule(self.since) {
            SnapshotSchedule::Due { at, reason } => SnapshotSchedule::Due {
                at: at.max(shared.now + RETRY),
                reason,
            },
            next => next,
        };
        self.keep_next(next);
    }

    pub(super) fn keep_next(&mut self, next: SnapshotSchedule) {
        if let State::Live {
            phase: Phase::Running { schedule, .. },
            ..
        } = &mut self.state
        {
            *schedule = next;
        }
    }

    pub(super) fn snapshot_freeze_failed(&mut self, why: String, shared: &mut Shared) {
        if self.call_off(shared) {
            self.failed_to_keep(
                format!("its processes could not be suspended: {why}"),
                shared,
            );
        }
    }

    pub(in crate::engine) fn snapshotted(
        &mut self,
        answered: Token,
        result: Result<Snapshotted, CopyFailure>,
        shared: &mut Shared,
    ) {
        if self.abandoned == Some(answered) {
            self.abandoned = None;
            // The snapshot was complete before it could be cancelled.
            if let Ok(Snapshotted::Taken(snapshot)) = result {
                self.emit(Fact::SnapshotTaken { snapshot }, shared);
            }
            return self.restore(shared);
        }
        let State::Live {
            child,
            phase: Phase::Running { schedule, .. },
        } = &mut self.state
        else {
            return;
        };
        if !matches!(schedule, SnapshotSchedule::Taking { token, .. } if *token == answered) {
            return;
        }
        let done = match result {
            Ok(done) => done,
            Err(why) => {
                self.release(shared);
                return self.failed_to_keep(why.to_string(), shared);
            }
        };
        // A manual snapshot that is taken early does not replace the one that is due.
        let is_healthy = self
            .spec
            .snapshot()
            .is_some_and(|policy| shared.now.since(self.since) >= policy.after());
        child.is_kept |= is_healthy;
        self.release(shared);
        if is_healthy {
            self.history.kept = Some(shared.now);
        }
        self.not_kept = None;
        match done {
            Snapshotted::Taken(snapshot) => {
                if is_healthy {
                    // The next restore starts with this snapshot.
                    self.history.restored = None;
                }
                self.emit(Fact::SnapshotTaken { snapshot }, shared);
            }
            Snapshotted::Unchanged => self.emit(Fact::SnapshotUnneeded, shared),
        }
        let next = self.next_schedule(self.since);
        self.keep_next(next);
    }

    /// Requests the restore of the state, once no snapshot is in progress.
    pub(super) fn restore(&mut self, shared: &mut Shared) {
        if let (
            State::Restoring {
                asked,
                is_called_off,
                ..
            },
            None,
        ) = (&mut self.state, self.abandoned)
            && asked.is_none()
        {
            *is_called_off = false;
            let (service, token) = (self.id, Token(shared.number()));
            *asked = Some(token);
            let before = self.history.restored;
            shared.actions.push(Action::Restore {
                service,
                token,
                before,
            });
        }
    }

    /// Cancels a restore in progress, unless that has been done. Its answer is still to come.
    pub(super) fn cancel_restore(&mut self, shared: &mut Shared) {
        if let State::Restoring {
            asked: Some(token),
            is_called_off,
            ..
        } = &mut self.state
            && !mem::replace(is_called_off, true)
        {
            let action = Action::AbandonRestore(self.id, *token);
            shared.actions.push(action);
        }
    }

    pub(in crate::engine) fn restored(
        &mut self,
        answered: Token,
        result: Result<SnapshotId, CopyFailure>,
        shared: &mut Shared,
    ) {
        let State::Restoring {
            asked,
            is_called_off,
            ..
        } = &mut self.state
        else {
            return;
        };
        if asked.take_if(|asked| *asked == answered).is_none() {
            return;
        }
        match result {
            Err(_) if *is_called_off && self.goal == Goal::Down => {
                self.stopped(Outcome::Requested, shared);
            }
            // A stop was requested and then withdrawn.
            Err(_) if *is_called_off => self.restore(shared),
            Ok(snapshot) => {
                self.history.restored = Some(snapshot);
                self.history.restarts += u64::from(self.goal == Goal::Up);
                self.emit(Fact::Restored { snapshot }, shared);
                self.wait(shared);
            }
            Err(why) => {
                let why = why.to_string();
                self.halt(Halt::NotRestored { why }, None, shared);
            }
        }
    }
}
