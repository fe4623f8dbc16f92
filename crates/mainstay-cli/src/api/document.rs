//! The documents of requests and responses, apart from the reports of `mainstay_core::report`. The
//! fields are in alphabetical order, as in every document of the protocol.

use std::path::PathBuf;

use mainstay_core::engine::{Style, TrialPhase};
use mainstay_core::report::ServiceReport;
use mainstay_core::snapshot::SnapshotId;
use serde::{Deserialize, Serialize};

/// Information about a supervisor.
#[derive(Debug, Serialize)]
pub(crate) struct About {
    pub(crate) containment: String,
    pub(crate) manifest: String,
    pub(crate) pid: u32,
    pub(crate) version: &'static str,
}

/// The reason why a request was refused, or failed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) error: String,
}

/// A complete snapshot.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Taken {
    pub(crate) snapshot: SnapshotId,
}

/// A request to try a definition. It may contain secrets.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrialRequest {
    pub(crate) manifest: String,
    pub(crate) format: String,
    pub(crate) base_dir: PathBuf,
    pub(crate) canary_ms: u64,
    /// The version of the installation that the new definition will be.
    #[serde(default)]
    pub(crate) version: Option<u64>,
}

/// The result of a trial whose definition proved healthy. The trial stays open for a short time,
/// until the client decides on it.
#[derive(Serialize)]
pub(crate) struct Healthy {
    #[serde(flatten)]
    pub(crate) report: Option<ServiceReport>,
    pub(crate) outcome: &'static str,
}

/// The reason why a trial was rolled back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "outcome", rename = "rolled-back")]
pub(crate) struct GivenUp {
    /// The reason as text for people.
    #[serde(rename = "error")]
    pub(crate) why: String,
    /// The last lines that the program wrote.
    pub(crate) last_lines: Vec<String>,
    pub(crate) phase: TrialPhase,
    /// The update style. Supervisors of older versions do not report it.
    #[serde(default)]
    pub(crate) style: Option<Style>,
}
