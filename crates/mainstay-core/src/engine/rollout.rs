//! The vocabulary of updates: the styles and the progress of a trial, and the reasons for a
//! rollback.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::contract::{Ended, Human};
use super::id::ServiceId;
use crate::spec::{Ready, ServiceName, Spec};

/// The time limit for the commit of a healthy candidate.
pub(super) const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// The order of the old run and the candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Style {
    /// The old run is stopped first.
    Restart,
    /// Both run, on the same sockets, until the trial is decided.
    Overlap,
}

impl Style {
    /// Returns whether both definitions may run at once. A state that is kept in snapshots belongs
    /// to one program, so it rules that out. Only a program's own notification, or the fact that it
    /// runs, is evidence about the new run alone: a probe could be answered by the old one.
    pub fn may_overlap(old: &Spec, new: &Spec) -> bool {
        let is_told_apart = matches!(new.start().ready(), None | Some(Ready::Notify(_)));
        let is_stateful = old.snapshot().is_some() || new.snapshot().is_some();
        let is_same_place = !new.listen().is_empty() && old.listen() == new.listen();
        is_same_place && is_told_apart && !is_stateful
    }
}

/// The versions before and after an update. The engine only passes them on to facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Versions {
    /// The version in effect before.
    #[serde(rename = "from_version")]
    pub from: u64,
    /// The version of the new definition.
    #[serde(rename = "to_version")]
    pub to: u64,
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from version {} to version {}", self.from, self.to)
    }
}

/// The parameters of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tryout {
    /// The requested style. An overlap becomes a restart if the service is not ready.
    pub style: Style,
    /// The time for which the candidate must stay ready without a failure.
    pub canary: Duration,
    /// The versions, if the service is installed.
    pub versions: Option<Versions>,
}

/// The progress of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrialPhase {
    /// The old run is being stopped.
    Stop,
    /// A snapshot of the state is being taken.
    Snapshot,
    /// The candidate is being started.
    Start,
    /// The candidate runs, but was not ready in time.
    Ready,
    /// The candidate is ready and must stay healthy.
    Canary,
    /// The candidate is healthy and waits for the commit.
    Trial,
    /// The candidate is being stopped, or the old definition is being started again.
    RollBack,
}

impl TrialPhase {
    /// Returns the name as it is serialised.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Snapshot => "snapshot",
            Self::Start => "start",
            Self::Ready => "ready",
            Self::Canary => "canary",
            Self::Trial => "trial",
            Self::RollBack => "roll-back",
        }
    }
}

/// The reason for a rollback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TrialFailure {
    /// The candidate failed.
    Failed(Ended),
    /// The candidate needs a service that is halted.
    Need(ServiceName),
    /// The needs of the candidate did not become ready in time.
    NeedsLate {
        /// `start.timeout`
        #[serde(rename = "after_ms", with = "super::millis")]
        after: Duration,
    },
    /// Processes of the old run survived their kill.
    Remains,
    /// The snapshot to roll back to could not be taken.
    NotKept(String),
    /// The new definition no longer forms a valid graph with services defined meanwhile.
    Misfit(String),
    /// A stop of the service, or of all services, was requested.
    Stopped,
    /// The initiator cancelled the update or is gone.
    Aborted,
    /// The update was not committed in time.
    NotCommitted,
}

impl fmt::Display for TrialFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(ended) => ended.fmt(f),
            Self::Need(name) => write!(f, "it needs {name}, which is halted"),
            Self::NeedsLate { after } => {
                write!(
                    f,
                    "the services that it needs were not ready after {}",
                    Human(*after)
                )
            }
            Self::Remains => {
                f.write_str("processes of the old run are still running after they were killed")
            }
            Self::NotKept(why) => write!(f, "no snapshot of its state could be taken: {why}"),
            Self::Misfit(why) => f.write_str(why),
            Self::Stopped => f.write_str("a stop was requested"),
            Self::Aborted => f.write_str("it was cancelled"),
            Self::NotCommitted => {
                write!(f, "it was not committed within {}", Human(COMMIT_TIMEOUT))
            }
        }
    }
}

/// The current status of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrialView {
    /// The engine's ID of the candidate, until it is forgotten.
    pub candidate: Option<ServiceId>,
    /// The style of the trial.
    pub style: Style,
    /// The progress of the trial.
    pub phase: TrialPhase,
}

/// The role of a service that is not the active one of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RolloutRole {
    /// A new definition on trial.
    Candidate,
    /// A superseded service.
    Predecessor,
}
