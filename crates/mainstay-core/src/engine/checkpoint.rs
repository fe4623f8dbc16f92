//! Checkpoints: the state of a service that a supervisor records while it runs, and from which its
//! successor resumes if it is killed.

use super::contract::{Ended, Exit};
use crate::spec::ServiceName;
use crate::time::Instant;

/// The checkpoint of one service ([`Engine::checkpoint`](crate::engine::Engine::checkpoint),
/// [`Engine::resume`](crate::engine::Engine::resume)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The state that operators want.
    pub desired: DesiredState,
    /// The number of automatic restarts.
    pub restarts: u64,
    /// The exit status of the last run.
    pub last_exit: Option<Exit>,
    /// The failure history.
    pub failures: Failures,
    /// The time of the last state change, if known.
    pub since: Option<Instant>,
    /// The recovered state.
    pub recovered: RecoveredState,
}

/// The failure history of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failures {
    /// The number of failures since the last good run.
    pub streak: u32,
    /// The times of the latest restarts within the window of the limit.
    pub recent: Vec<Instant>,
    /// The start of the crash loop and the time of its next report, if the service is
    /// crash-looping.
    pub crash_loop: Option<(Instant, Instant)>,
}

impl Failures {
    /// An empty failure history.
    const NONE: Self = Self {
        streak: 0,
        recent: Vec::new(),
        crash_loop: None,
    };
}

impl Checkpoint {
    /// The checkpoint of an unknown service: it starts as usual.
    pub const NEW: Self = Self {
        desired: DesiredState::Up,
        restarts: 0,
        last_exit: None,
        failures: Failures::NONE,
        since: None,
        recovered: RecoveredState::Nothing,
    };

    /// The checkpoint of a service that is started only on request.
    pub const DISABLED: Self = Self {
        desired: DesiredState::Down,
        restarts: 0,
        last_exit: None,
        failures: Failures::NONE,
        since: None,
        recovered: RecoveredState::Nothing,
    };
}

/// The state that operators want for a service. The shutdown of the supervisor does not change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DesiredState {
    /// The service should run.
    Up,
    /// An operator stopped the service by name.
    Down,
}

/// The state of a service at its checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoveredState {
    /// No process, and nothing that prevents a start.
    Nothing,
    /// A service that ended cleanly by itself.
    Completed {
        /// Set if the service had been ready, so that its dependents may start.
        was_ready: bool,
    },
    /// A service that stays down until an operator intervenes.
    Halted {
        /// The reason.
        why: String,
    },
    /// A service that stays down for as long as one of its needs does.
    Blocked {
        /// The need.
        need: ServiceName,
        /// Set if the need ended before it was ready. Otherwise the need is halted.
        has_ended: bool,
    },
    /// A live main process.
    Child {
        /// The process ID.
        pid: u32,
        /// The start of the process.
        began: Instant,
        /// The time at which the service reached this stage.
        since: Instant,
        /// The time limit of the stage, if it has one that was recorded.
        until: Option<Instant>,
        /// The stage that the service had reached.
        stage: Stage,
    },
    /// A main process that has ended, before the next step was decided. The host reports
    /// [`Event::Emptied`](crate::engine::Event::Emptied).
    Ended {
        /// The cause of the end.
        ended: Ended,
        /// Set if the service had been ready.
        was_ready: bool,
        /// The start of the process.
        began: Instant,
        /// The time of the exit or failure.
        since: Instant,
    },
    /// A main process that ended while no supervisor ran. The host reports
    /// [`Event::Exited`](crate::engine::Event::Exited) and what follows, after it has read
    /// everything that the process wrote and sent before.
    Gone {
        /// The process ID.
        pid: u32,
        /// The start of the process.
        began: Instant,
        /// The stage in which the service was last seen.
        stage: Stage,
    },
}

/// The stage of a live service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The service was not ready yet.
    Starting,
    /// The service was ready.
    Running,
    /// The service was ready and suspended.
    Paused,
    /// The service was being stopped, to stay down or to start again, depending on the desired
    /// state.
    Stopping,
    /// The service was being stopped because it had failed for this reason.
    Failing(Ended),
}
