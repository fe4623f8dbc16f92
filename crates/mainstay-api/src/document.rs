//! The documents of requests and responses, apart from the reports of `mainstay_core::report`. The
//! fields are in alphabetical order, as in every document of the protocol.
#![expect(missing_docs, reason = "docs/control.md describes the fields")]

use std::path::PathBuf;

use mainstay_core::engine::{Style, TrialPhase};
use mainstay_core::report::ServiceReport;
use mainstay_core::snapshot::SnapshotId;
use serde::{Deserialize, Serialize};

/// Information about a supervisor.
#[derive(Debug, Serialize)]
pub struct About {
    pub containment: String,
    pub manifest: String,
    pub pid: u32,
    pub version: &'static str,
}

/// The reason why a request was refused, or failed. Supervisors of older versions give the reason
/// alone.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Refusal {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
    pub error: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// A complete snapshot.
#[derive(Debug, Serialize, Deserialize)]
pub struct Taken {
    pub snapshot: SnapshotId,
}

/// A request to try a definition. It may contain secrets.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrialRequest {
    pub manifest: String,
    pub format: String,
    pub base_dir: PathBuf,
    pub canary_ms: u64,
    /// The version of the installation that the new definition will be.
    #[serde(default)]
    pub version: Option<u64>,
}

/// The result of a trial whose definition proved healthy. The trial stays open for a short time,
/// until the client decides on it.
#[derive(Serialize)]
pub struct Healthy {
    #[serde(flatten)]
    pub report: Option<ServiceReport>,
    pub outcome: &'static str,
}

/// The reason why a trial was rolled back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "outcome", rename = "rolled-back")]
pub struct GivenUp {
    /// The reason as text for people.
    #[serde(rename = "error")]
    pub why: String,
    /// The last lines that the program wrote.
    pub last_lines: Vec<String>,
    pub phase: TrialPhase,
    /// The update style. Supervisors of older versions do not report it.
    #[serde(default)]
    pub style: Option<Style>,
}
