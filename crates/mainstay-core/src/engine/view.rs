//! The status of a service, as operators see it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::contract::Exit;
use super::id::RunId;
use crate::snapshot::SnapshotId;
use crate::time::Instant;

/// The state of a service as `status` names it: the seven states of the Service Control Manager,
/// and Mainstay's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(
    missing_docs,
    reason = "SERVICE_STATUS, and the states of the engine by the same names"
)]
pub enum StateName {
    #[default]
    Stopped,
    StartPending,
    StopPending,
    Running,
    ContinuePending,
    PausePending,
    Paused,
    Waiting,
    BackingOff,
    Halted,
    /// Processes of the service are alive, and nothing more can be determined. A supervisor never
    /// reports this state for its own services.
    Unknown,
}

impl StateName {
    /// All states. The last one is [`StateName::Unknown`].
    pub const ALL: [Self; 11] = [
        Self::Stopped,
        Self::StartPending,
        Self::StopPending,
        Self::Running,
        Self::ContinuePending,
        Self::PausePending,
        Self::Paused,
        Self::Waiting,
        Self::BackingOff,
        Self::Halted,
        Self::Unknown,
    ];

    /// Returns the name as it appears in `status --json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::StartPending => "start-pending",
            Self::StopPending => "stop-pending",
            Self::Running => "running",
            Self::ContinuePending => "continue-pending",
            Self::PausePending => "pause-pending",
            Self::Paused => "paused",
            Self::Waiting => "waiting",
            Self::BackingOff => "backing-off",
            Self::Halted => "halted",
            Self::Unknown => "unknown",
        }
    }

    /// Returns the name for people, which is the same without the terms of the Windows SCM.
    pub fn label(self) -> &'static str {
        match self {
            Self::StartPending => "starting",
            Self::StopPending => "stopping",
            Self::ContinuePending => "resuming",
            Self::PausePending => "pausing",
            state => state.as_str(),
        }
    }

    /// Returns the state as a predicate, for sentences about a service.
    pub fn predicate(self) -> String {
        match self {
            Self::BackingOff => "failed and will be restarted".to_owned(),
            state => format!("is {state}"),
        }
    }

    /// Returns whether the state lasts until an event or an operator changes it.
    pub fn is_settled(self) -> bool {
        matches!(
            self,
            Self::Stopped | Self::Running | Self::Paused | Self::Halted
        )
    }
}

impl fmt::Display for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

/// The status of a service at one point in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The state.
    pub state: StateName,
    /// The process ID of the main process, while there is one.
    pub pid: Option<u32>,
    /// The current run, while there is one.
    pub run: Option<RunId>,
    /// Set while the service is running or paused, that is, once it has become ready in this run.
    pub ready: bool,
    /// The time at which the service entered this state.
    pub since: Instant,
    /// The start of the current run.
    pub started: Option<Instant>,
    /// The number of automatic restarts.
    pub restarts: u64,
    /// The exit status of the last run.
    pub last_exit: Option<Exit>,
    /// The snapshot that replaced a state which failed to load, until a run has been good or an
    /// operator starts the service.
    pub restored: Option<SnapshotId>,
    /// Set if the service exceeded its restart limit and has not been ready for `reset_after`
    /// since.
    pub crash_looping: bool,
    /// The time of the next start, while the service is backing off.
    pub next_try: Option<Instant>,
    /// The reason for a halt, a wait or a backoff, or the status text that the service reported.
    pub detail: Option<String>,
    /// While the service is waiting: the need, direct or indirect, that will not become ready soon.
    pub blocker: Option<Blocker>,
}

/// A service that others wait for, and that will not become ready soon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocker {
    /// The name of the service.
    pub name: String,
    /// The state.
    pub state: StateName,
    /// Set if it has run.
    pub has_run: bool,
}
