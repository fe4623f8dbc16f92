//! Requests of operators, and the reasons why they are refused.

use std::fmt;

use serde::Serialize;

use super::graph::GraphError;
use super::view::StateName;
use crate::spec::ServiceName;

/// An operator's request for one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// Starts the service and its needs. Cuts a backoff pause short and clears a halt.
    Start,
    /// Stops the service.
    Stop,
    /// Stops the service if it runs, then starts it.
    Restart,
    /// Suspends the service.
    Pause,
    /// Resumes the service.
    Continue,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Pause => "pause",
            Self::Continue => "continue",
        })
    }
}

/// The services that [`Engine::start`](super::Engine::start) affects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launch {
    /// Services that are down.
    IfDown,
    /// All services; running ones are stopped first.
    Afresh,
}

/// The reason why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The request is not valid in this state.
    State(StateName),
    /// All services are being stopped.
    ShuttingDown,
    /// Processes of an earlier run are still alive, although they were killed.
    Remains,
    /// Other services need this one.
    Needed(Vec<ServiceName>),
    /// A new definition of the service is being tried.
    Updating,
    /// No new definition of the service is being tried.
    NotUpdating,
    /// The new definition does not form a valid graph with the other services.
    Misfit(GraphError),
    /// Another snapshot of the service has not ended yet.
    Snapshotting,
    /// The manifest does not configure snapshots for the service.
    NoSnapshots,
    /// The service no longer exists.
    Removed,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(state) => write!(f, "it {}", state.predicate()),
            Self::ShuttingDown => f.write_str("the supervisor is stopping all services"),
            Self::Remains => f.write_str("processes of its last run are still running"),
            Self::Needed(names) => {
                let verb = if names.len() == 1 { "needs" } else { "need" };
                let names: Vec<&str> = names.iter().map(ServiceName::as_str).collect();
                write!(f, "{} {verb} it", names.join(", "))
            }
            Self::Updating => f.write_str("it is being updated"),
            Self::NotUpdating => f.write_str("it is not being updated"),
            Self::Misfit(error) => error.fmt(f),
            Self::Snapshotting => f.write_str("another snapshot of it is in progress"),
            Self::NoSnapshots => f.write_str("its manifest has no `snapshot`"),
            Self::Removed => f.write_str("it was removed"),
        }
    }
}

impl std::error::Error for Refusal {}
