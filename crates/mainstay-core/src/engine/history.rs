//! The restart history of a service, which turns the action of the contract into the next step.

use std::collections::VecDeque;
use std::time::Duration;

use super::backoff::{Random, pause};
use super::checkpoint::Failures;
use super::contract::{Ended, Exit, RETRY_BASE, RETRY_LIMIT};
use super::fact::{Fact, Halt};
use crate::snapshot::SnapshotId;
use crate::spec::{Backoff, BeyondLimit, CodeAction, Recovery, RestartLimit};
use crate::time::Instant;

/// The pauses before the retries of a service whose dependency is briefly away.
const RETRY: Backoff = Backoff {
    base: RETRY_BASE,
    factor: 2.0,
    max: Duration::from_secs(30),
};

/// The interval at which a lasting crash loop is reported again.
const REMINDER: Duration = Duration::from_secs(3600);

/// The minimum pause between the restarts of a crash loop, and after a start that made no process,
/// even if the manifest has no pauses. Without it, a program that cannot be started would occupy
/// the supervisor.
const LEAST_PAUSE: Duration = Duration::from_millis(100);

/// The number of latest restarts in a checkpoint: the default limit.
const KEPT_RESTARTS: usize = 20;

/// A crash loop: more restarts within the limit's window than it allows. It lasts until the service
/// has recovered.
#[derive(Debug)]
pub(super) struct CrashLoop {
    limit: RestartLimit,
    since: Instant,
    last: Ended,
    /// The time of the next report.
    pub(super) remind_at: Instant,
}

impl CrashLoop {
    pub(super) fn fact(&self, now: Instant) -> Fact {
        Fact::CrashLooping {
            limit: self.limit.restarts(),
            window: self.limit.window(),
            lasts: now.since(self.since),
            last: self.last.clone(),
        }
    }

    /// Returns the crash loop as a fact if a report is due.
    pub(super) fn reminder(&mut self, now: Instant) -> Option<Fact> {
        if self.remind_at > now {
            return None;
        }
        self.remind_at = now + REMINDER;
        Some(self.fact(now))
    }
}

#[derive(Debug, Default)]
pub(super) struct RestartHistory {
    /// The number of automatic restarts.
    pub(super) restarts: u64,
    pub(super) last_exit: Option<Exit>,
    /// The last status text of the service.
    pub(super) status: Option<String>,
    /// The number of failures since the last good run, for the backoff.
    streak: u32,
    /// The number of exits with 202 since the last good run.
    retries: u32,
    /// The last snapshot restored since the last good run.
    pub(super) restored: Option<SnapshotId>,
    /// The time at which a snapshot was last taken or found unnecessary.
    pub(super) kept: Option<Instant>,
    /// The times of restarts within the limit's window, at most as many as the limit allows.
    recent: VecDeque<Instant>,
    /// The crash loop, until the service has recovered.
    pub(super) crash_loop: Option<CrashLoop>,
}

/// The next step for a service without processes.
pub(super) enum Next {
    Stop,
    Halt(Halt),
    BackOff { pause: Duration, attempt: u32 },
    Restore { before: Option<SnapshotId> },
}

impl RestartHistory {
    /// Returns the failure history for the checkpoint.
    pub(super) fn failures(&self) -> Failures {
        let known = self.recent.len().saturating_sub(KEPT_RESTARTS);
        let crash_loop = self.crash_loop.as_ref();
        Failures {
            streak: self.streak,
            recent: self.recent.iter().skip(known).copied().collect(),
            crash_loop: crash_loop.map(|it| (it.since, it.remind_at)),
        }
    }

    /// Continues with the failure history of a predecessor.
    pub(super) fn inherit(&mut self, failures: Failures, recovery: &Recovery) {
        self.streak = failures.streak;
        self.recent = failures.recent.into();
        let last = Ended::Exit(self.last_exit.unwrap_or(Exit::Unknown));
        let crash_loop = failures.crash_loop.zip(recovery.limit());
        self.crash_loop = crash_loop.map(|((since, remind_at), limit)| CrashLoop {
            limit,
            since,
            last,
            remind_at,
        });
    }

    /// Clears the failure history when an operator starts the service. A crash loop lasts until the
    /// service has recovered.
    pub(super) fn forgive(&mut self) {
        self.good_run();
        self.recent.clear();
    }

    /// Returns whether [`RestartHistory::good_run`] or [`RestartHistory::recover`] would reset
    /// anything.
    pub(super) fn has_failures(&self) -> bool {
        let has_streak = self.streak > 0 || self.retries > 0 || self.restored.is_some();
        has_streak || self.crash_loop.is_some()
    }

    /// Resets the failures in a row after the service was ready for long enough. The limit's window
    /// slides by itself.
    pub(super) fn good_run(&mut self) {
        self.streak = 0;
        self.retries = 0;
        self.restored = None;
    }

    /// Returns whether so many attempts in a row failed that waiting for the next one is pointless.
    pub(super) fn fails_steadily(&self) -> bool {
        self.streak.max(self.retries) >= 3
    }

    /// Clears the failure history after a recovery. Returns the end of the crash loop, if there was
    /// one.
    pub(super) fn recover(&mut self, now: Instant) -> Option<Fact> {
        let CrashLoop { since, .. } = self.crash_loop.take()?;
        self.forgive();
        let after = now.since(since);
        Some(Fact::Recovered { after })
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
            CodeAction::Halt => {
                return Next::Halt(match ended {
                    Ended::Unstartable(why) => Halt::Unstartable { why },
                    Ended::Backgrounded { hint } => Halt::Backgrounded { hint },
                    ended => Halt::Policy(ended),
                });
            }
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
                let mut cadence = recovery.backoff();
                if matches!(ended, Ended::SpawnFailed(_)) && cadence.base.is_zero() {
                    cadence.base = LEAST_PAUSE;
                    cadence.max = cadence.max.max(LEAST_PAUSE);
                }
                if let Some(limit) = recovery.limit() {
                    let is_over = |at: &Instant| now.since(*at) >= limit.window();
                    while self.recent.front().is_some_and(is_over) {
                        self.recent.pop_front();
                    }
                    if self.recent.len() >= limit.restarts() as usize {
                        if limit.then() == BeyondLimit::Halt {
                            return Next::Halt(Halt::TooManyRestarts {
                                limit: limit.restarts(),
                                window: limit.window(),
                                last: ended,
                            });
                        }
                        self.recent.pop_front();
                        self.begin_crash_loop(limit, &ended, now);
                        cadence.max = cadence.max.max(LEAST_PAUSE);
                        cadence.base = cadence.max;
                    }
                    self.recent.push_back(now);
                }
                if let Some(crash_loop) = &mut self.crash_loop {
                    crash_loop.last = ended;
                }
                self.streak = self.streak.saturating_add(1);
                (cadence, self.streak)
            }
        };
        self.restarts += 1;
        Next::BackOff {
            pause: pause(cadence, attempt - 1, random),
            attempt,
        }
    }

    fn begin_crash_loop(&mut self, limit: RestartLimit, last: &Ended, now: Instant) {
        self.crash_loop.get_or_insert_with(|| CrashLoop {
            limit,
            since: now,
            last: last.clone(),
            remind_at: now + REMINDER,
        });
    }
}
