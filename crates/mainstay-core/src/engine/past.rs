//! What the past of a service counts for: it turns what the contract says into what happens next.

use std::collections::VecDeque;
use std::time::Duration;

use super::backoff::{Random, pause};
use super::contract::{Ended, Exit, RETRY_BASE, RETRY_LIMIT};
use super::fact::{Fact, Halt};
use super::service::Failures;
use crate::snapshot::SnapshotId;
use crate::spec::{Backoff, BeyondLimit, CodeAction, Recovery, RestartLimit};
use crate::time::Instant;

/// The pauses before the tries of a service whose dependency is briefly away.
const RETRY: Backoff = Backoff {
    base: RETRY_BASE,
    factor: 2.0,
    max: Duration::from_secs(30),
};

/// How often a crash loop is told again while it lasts.
const REMINDER: Duration = Duration::from_secs(3600);

/// Even a manifest without pauses has this one between the restarts of a crash loop.
const LEAST_LOOP_PAUSE: Duration = Duration::from_millis(100);

/// So many of the latest restarts a successor is told of: the default limit.
const KEPT_RESTARTS: usize = 20;

/// More restarts within the limit's window than it allows, until the service is well again.
#[derive(Debug)]
pub(super) struct CrashLoop {
    limit: RestartLimit,
    since: Instant,
    last: Ended,
    /// When it is told again.
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

    /// Told again, where it is time.
    pub(super) fn reminder(&mut self, now: Instant) -> Option<Fact> {
        if self.remind_at > now {
            return None;
        }
        self.remind_at = now + REMINDER;
        Some(self.fact(now))
    }
}

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
    /// When it was restarted, within the limit's window; as many as the limit allows.
    recent: VecDeque<Instant>,
    /// It was restarted more often than the limit allows, and is not well again.
    pub(super) crash_loop: Option<CrashLoop>,
}

/// What happens next to a service that has no process.
pub(super) enum Next {
    Stop,
    Halt(Halt),
    BackOff { pause: Duration, attempt: u32 },
    Restore { before: Option<SnapshotId> },
}

impl Past {
    /// What a successor goes on with.
    pub(super) fn failures(&self) -> Failures {
        let known = self.recent.len().saturating_sub(KEPT_RESTARTS);
        let crash_loop = self.crash_loop.as_ref();
        Failures {
            streak: self.streak,
            recent: self.recent.iter().skip(known).copied().collect(),
            crash_loop: crash_loop.map(|it| (it.since, it.remind_at)),
        }
    }

    /// Goes on with what a predecessor has counted.
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

    /// An operator starts it afresh: what went wrong before counts no more. A crash loop lasts until
    /// the service is seen to be well.
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

    /// It failed so often in a row that nobody should wait for its next try.
    pub(super) fn fails_steadily(&self) -> bool {
        self.streak.max(self.retries) >= 3
    }

    /// It is well again: the end of its crash loop, if it was in one.
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
                        cadence.max = cadence.max.max(LEAST_LOOP_PAUSE);
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
