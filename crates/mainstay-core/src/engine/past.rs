//! What the past of a service counts for: it turns what the contract says into what happens next.

use std::collections::VecDeque;
use std::time::Duration;

use super::backoff::{Random, pause};
use super::contract::{Ended, Exit, RETRY_BASE, RETRY_LIMIT};
use super::fact::Halt;
use crate::snapshot::SnapshotId;
use crate::spec::{Backoff, CodeAction, Recovery};
use crate::time::Instant;

/// The pauses before the tries of a service whose dependency is briefly away.
const RETRY: Backoff = Backoff {
    base: RETRY_BASE,
    factor: 2.0,
    max: Duration::from_secs(30),
};

#[derive(Debug, Default)]
pub(super) struct Past {
    /// How often it was started again by itself.
    pub(super) restarts: u64,
    pub(super) last_exit: Option<Exit>,
    /// What it says of itself.
    pub(super) status: Option<String>,
    /// Failures since the last good run, for the back-off.
    streak: u32,
    /// Exits with 202 since the last good run.
    retries: u32,
    /// What was restored last, since the last good run.
    pub(super) restored: Option<SnapshotId>,
    /// When a snapshot was last taken, or not needed.
    pub(super) kept: Option<Instant>,
    /// When it was restarted, within the limit's window.
    recent: VecDeque<Instant>,
}

/// What happens next to a service that has no process.
pub(super) enum Next {
    Stop,
    Halt(Halt),
    BackOff { pause: Duration, attempt: u32 },
    Restore { before: Option<SnapshotId> },
}

impl Past {
    /// An operator starts it afresh: what went wrong before counts no more.
    pub(super) fn forgive(&mut self) {
        self.good_run();
        self.recent.clear();
    }

    /// It was ready for long enough: failures before that are of another row. The limit's window slides by itself.
    pub(super) fn good_run(&mut self) {
        self.streak = 0;
        self.retries = 0;
        self.restored = None;
    }

    pub(super) fn next(
        &mut self,
        action: CodeAction,
        ended: Ended,
        recovery: &Recovery,
        now: Instant,
        random: &mut Random,
    ) -> Next {
        let (cadence, attempt) = match action {
            CodeAction::Stop => return Next::Stop,
            CodeAction::Halt => return Next::Halt(Halt::Policy(ended)),
            CodeAction::Restore => {
                return Next::Restore {
                    before: self.restored,
                };
            }
            CodeAction::Retry => {
                if self.retries >= RETRY_LIMIT {
                    return Next::Halt(Halt::RetriesExhausted { tries: RETRY_LIMIT });
                }
                self.retries += 1;
                (RETRY, self.retries)
            }
            CodeAction::Restart => {
                if let Some(limit) = recovery.limit() {
                    let is_over = |at: &Instant| now.since(*at) >= limit.window();
                    while self.recent.front().is_some_and(is_over) {
                        self.recent.pop_front();
                    }
                    if self.recent.len() >= limit.restarts() as usize {
                        return Next::Halt(Halt::TooManyRestarts {
                            limit: limit.restarts(),
                            window: limit.window(),
                            last: ended,
                        });
                    }
                    self.recent.push_back(now);
                }
                self.streak = self.streak.saturating_add(1);
                (recovery.backoff(), self.streak)
            }
        };
        self.restarts += 1;
        Next::BackOff {
            pause: pause(cadence, attempt - 1, random),
            attempt,
        }
    }
}
