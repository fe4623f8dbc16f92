//! The states of a service. Each state carries its own data only.

use std::fmt;

use super::asking::Asking;
use super::contract::Ended;
use super::fact::Halt;
use super::id::{RunId, Token};
use super::view::StateName;
use crate::snapshot::Reason;
use crate::spec::ServiceName;
use crate::time::Instant;

#[derive(Debug)]
pub(super) enum State {
    /// The service is stopped. `is_done`: it was ready and ended cleanly, so its dependents may
    /// start.
    Stopped { is_done: bool },
    /// The service waits for its needs. `attempt` is set if it was waiting for its conditions when
    /// a need stopped being ready.
    Waiting {
        is_announced: bool,
        attempt: Option<Attempt>,
    },
    /// The service waits for the condition at `index`.
    Conditions {
        index: usize,
        deadline: Instant,
        asking: Asking,
        passes: u32,
        attempt: Attempt,
    },
    /// The host runs a process tree for the service.
    Live { child: Child, phase: Phase },
    /// The service waits for its next start. `why`: the cause of the last failure.
    BackingOff { until: Instant, why: Ended },
    /// The state of the service is being restored. `asked` is set once no snapshot is in progress.
    Restoring {
        asked: Option<Token>,
        is_called_off: bool,
        until: Instant,
    },
    /// The service is halted. `remains`: processes that survived a kill.
    Halted { why: Halt, remains: Option<RunId> },
}

/// One wait for all conditions, across interruptions by needs that stopped being ready.
/// Interruptions extend no deadline.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) until: Instant,
    pub(super) lost: Option<Lost>,
}

/// A need that stopped being ready while the service waited for a condition.
#[derive(Clone, Debug)]
pub(super) struct Lost {
    /// The need that did so last.
    pub(super) need: ServiceName,
    /// The number of interruptions by any need.
    pub(super) times: u32,
    /// The condition that was being checked.
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
    /// Set once the state was copied, or found unchanged, while the run was healthy.
    pub(super) is_kept: bool,
    /// Set if the main process ended while no supervisor ran. The host still reports its exit.
    pub(super) is_unseen: bool,
}

/// The main process of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Main {
    /// The host was told to start the process.
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
        schedule: SnapshotSchedule,
    },
    Paused,
    /// Asked to stop, then killed. `until` is the time limit of the current stage.
    Stopping {
        then: Then,
        stage: StopStage,
        until: Instant,
    },
}

/// The stage of a stop.
#[derive(Debug)]
pub(super) enum StopStage {
    /// The first `steps` steps of the stop ladder were taken.
    Asked {
        since: Instant,
        steps: usize,
        /// The time of the next step.
        next: Option<Instant>,
    },
    /// The main process exited with 0; its children have a moment to exit, too.
    Lingering,
    Killed,
}

/// The evidence that will show that a starting service is ready.
#[derive(Debug)]
pub(super) enum Evidence {
    /// The existence of the main process.
    Existence,
    /// A probe, asked once the main process runs.
    Probe(Option<Asking>),
    Line(Token),
    Notice,
}

/// The repeated liveness probe of a ready service.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) asking: Asking,
    pub(super) misses: u32,
}

/// The snapshot schedule of a running service.
#[derive(Debug)]
pub(super) enum SnapshotSchedule {
    /// No snapshot is planned.
    Idle,
    Due {
        at: Instant,
        reason: Reason,
    },
    /// A snapshot is being taken. `is_still`: the service need not answer meanwhile. `is_frozen`:
    /// the service is suspended.
    Taking {
        token: Token,
        until: Instant,
        is_still: bool,
        is_frozen: bool,
        reason: Reason,
    },
}

impl SnapshotSchedule {
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Idle => None,
            Self::Due { at, .. } => Some(*at),
            Self::Taking { until, .. } => Some(*until),
        }
    }

    /// Returns whether a missing answer is no evidence of a failure.
    pub(super) fn is_still(&self) -> bool {
        matches!(self, Self::Taking { is_still: true, .. })
    }
}

/// The purpose of a stop.
#[derive(Debug)]
pub(super) enum Then {
    /// The service is to stay down.
    Down,
    /// The service is to be started again.
    Start,
    /// The failure or exit decides what follows.
    Classify(Ended),
}

impl State {
    /// Returns the time at which the state ends by itself or the next question is due.
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
                Phase::Running { watch, schedule } => {
                    let watch = watch.as_ref().filter(|_| !schedule.is_still());
                    let asks_at = watch.map(|watch| watch.asking.deadline());
                    asks_at.into_iter().chain(schedule.deadline()).min()
                }
                Phase::Paused => None,
                Phase::Stopping {
                    until,
                    stage:
                        StopStage::Asked {
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
