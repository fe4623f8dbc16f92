//! What a service is: each state carries its own data, and only that.

use std::fmt;

use super::asking::Asking;
use super::contract::Ended;
use super::fact::Halt;
use super::{RunId, StateName, Token};
use crate::snapshot::Reason;
use crate::spec::ServiceName;
use crate::time::Instant;

#[derive(Debug)]
pub(super) enum State {
    /// `is_done`: its readiness was seen and it ended cleanly, so what needs it may start.
    Stopped { is_done: bool },
    /// For its needs. `attempt`: it had them, and waited for its conditions, when one of them went away.
    Waiting {
        is_told: bool,
        attempt: Option<Attempt>,
    },
    /// For the `index`-th of its conditions.
    Conditions {
        index: usize,
        deadline: Instant,
        asking: Asking,
        passes: u32,
        attempt: Attempt,
    },
    /// The host holds a tree for it.
    Live { child: Child, phase: Phase },
    /// `why`: what ended the last run, or attempt at one.
    BackingOff { until: Instant, why: Ended },
    /// `asked`: once no snapshot is being taken any more.
    Restoring {
        asked: Option<Token>,
        is_called_off: bool,
        until: Instant,
    },
    /// `remains`: processes that outlived their kill.
    Halted { why: Halt, remains: Option<RunId> },
}

/// One wait for all conditions, with the interruptions by needs that stopped being ready: these extend no deadline.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) until: Instant,
    pub(super) lost: Option<Lost>,
}

/// A need that stopped being ready while a condition was waited for.
#[derive(Clone, Debug)]
pub(super) struct Lost {
    /// The last one.
    pub(super) need: ServiceName,
    /// How often that happened, with any of them.
    pub(super) times: u32,
    /// The condition.
    pub(super) probe: String,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, which it needs, stopped being ready", self.need)?;
        match self.times {
            1 => Ok(()),
            times => write!(f, " ({times} times)"),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Child {
    pub(super) run: RunId,
    pub(super) began: Instant,
    pub(super) main: Main,
    pub(super) was_ready: bool,
    /// Since it was healthy, its state was kept, or did not need to be.
    pub(super) is_kept: bool,
}

/// The main process of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Main {
    /// The host was told to start it.
    Called,
    Lives(u32),
    Gone,
}

#[derive(Debug)]
pub(super) enum Phase {
    Starting {
        deadline: Instant,
        evidence: Evidence,
    },
    Running {
        watch: Option<Watch>,
        keeping: Keeping,
    },
    Paused,
    /// Asked to stop, then killed; `until` ends the patience with either.
    Stopping {
        then: Then,
        rung: Rung,
        until: Instant,
    },
}

/// How far a stop has come.
#[derive(Debug)]
pub(super) enum Rung {
    /// The first `steps` of the ladder.
    Asked {
        since: Instant,
        steps: usize,
        /// When the next one is taken.
        next: Option<Instant>,
    },
    /// The main process exited with 0; its children have a moment to follow it.
    Lingering,
    Killed,
}

/// What will show that a starting service is ready.
#[derive(Debug)]
pub(super) enum Evidence {
    /// That it runs.
    Existence,
    /// Asked once it runs.
    Probe(Option<Asking>),
    Line(Token),
    Notice,
}

/// The repeated question whether a ready service still works.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) asking: Asking,
    pub(super) misses: u32,
}

/// How its state is kept while it runs.
#[derive(Debug)]
pub(super) enum Keeping {
    /// Nothing is to be done.
    Idle,
    Due {
        at: Instant,
        reason: Reason,
    },
    /// `is_still`: it need not answer meanwhile. `is_frozen`: it cannot.
    Taking {
        token: Token,
        until: Instant,
        is_still: bool,
        is_frozen: bool,
    },
}

impl Keeping {
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Idle => None,
            Self::Due { at, .. } => Some(*at),
            Self::Taking { until, .. } => Some(*until),
        }
    }

    /// Whether no answer means nothing.
    pub(super) fn is_still(&self) -> bool {
        matches!(self, Self::Taking { is_still: true, .. })
    }
}

/// What a stop is for.
#[derive(Debug)]
pub(super) enum Then {
    /// To be down.
    Down,
    /// To be started afresh.
    Start,
    /// To be judged.
    Judge(Ended),
}

impl State {
    /// When it ends by itself, or asks its next question.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            State::Conditions {
                deadline, asking, ..
            } => Some(asking.deadline().min(*deadline)),
            State::Live { phase, .. } => match phase {
                Phase::Starting {
                    deadline,
                    evidence: Evidence::Probe(Some(asking)),
                } => Some(asking.deadline().min(*deadline)),
                Phase::Starting { deadline, .. } => Some(*deadline),
                Phase::Running { watch, keeping } => {
                    let watch = watch.as_ref().filter(|_| !keeping.is_still());
                    let asks_at = watch.map(|watch| watch.asking.deadline());
                    asks_at.into_iter().chain(keeping.deadline()).min()
                }
                Phase::Paused => None,
                Phase::Stopping {
                    until,
                    rung:
                        Rung::Asked {
                            next: Some(next), ..
                        },
                    ..
                } => Some(*next.min(until)),
                Phase::Stopping { until, .. } => Some(*until),
            },
            State::BackingOff { until, .. } | State::Restoring { until, .. } => Some(*until),
            State::Waiting { attempt, .. } => attempt.as_ref().map(|attempt| attempt.until),
            State::Stopped { .. } | State::Halted { .. } => None,
        }
    }

    pub(super) fn name(&self) -> StateName {
        match self {
            State::Stopped { .. } => StateName::Stopped,
            State::Waiting { .. } | State::Conditions { .. } => StateName::Waiting,
            State::Live { phase, .. } => match phase {
                Phase::Starting { .. } => StateName::StartPending,
                Phase::Running { .. } => StateName::Running,
                Phase::Paused => StateName::Paused,
                Phase::Stopping { .. } => StateName::StopPending,
            },
            State::BackingOff { .. } => StateName::BackingOff,
            State::Restoring { .. } => StateName::StartPending,
            State::Halted { .. } => StateName::Halted,
        }
    }
}
