//! The documents of requests and responses, apart from the reports of `mainstay_core::report`. The
//! fields are in alphabetical order, as in every document of the protocol.
#![expect(missing_docs, reason = "docs/control.md describes the fields")]

use std::path::PathBuf;

use hyper::StatusCode;
use mainstay_core::engine::{Fact, RolloutRole, Style, TrialPhase};
use mainstay_core::failure::{Code, Failure};
use mainstay_core::manifest::Diagnostic;
use mainstay_core::report::ServiceReport;
use mainstay_core::snapshot::SnapshotId;
use serde::{Deserialize, Serialize};

/// Information about a supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub struct About {
    pub containment: String,
    pub manifest: String,
    pub pid: u32,
    pub version: String,
}

/// The answer to a request that has nothing to report.
#[derive(Debug, Serialize, Deserialize)]
pub struct Done {}

/// The reason why a request was refused or an operation failed, on the control socket as in the
/// output of every verb with `--json`. Supervisors of older versions give `error` alone, or with
/// some of the other fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The errors that led to this one, the nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cause: Vec<String>,
    /// The exit code of a command that fails for this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
    pub error: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The name of the exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Refusal {
    /// Creates a refusal without a hint.
    pub fn new(code: Code, error: impl Into<String>) -> Self {
        Self {
            cause: Vec::new(),
            code: Some(code as u8),
            error: error.into(),
            hint: None,
            name: Some(code.name().to_owned()),
        }
    }
}

impl From<&Failure> for Refusal {
    fn from(failure: &Failure) -> Self {
        Self {
            cause: failure.causes().to_vec(),
            hint: failure.hint_text().map(str::to_owned),
            ..Self::new(failure.code(), failure.message())
        }
    }
}

/// Returns the exit code of a command whose request was refused with this status.
pub fn code_of(status: StatusCode) -> Code {
    match status {
        StatusCode::NOT_FOUND => Code::Unknown,
        StatusCode::BAD_REQUEST => Code::Usage,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::UNPROCESSABLE_ENTITY => Code::InvalidManifest,
        StatusCode::LOCKED | StatusCode::PRECONDITION_FAILED | StatusCode::SERVICE_UNAVAILABLE => {
            Code::Busy
        }
        _ => Code::Failed,
    }
}

/// The refusal of a definition that is not valid.
#[derive(Debug, Serialize, Deserialize)]
pub struct Mistakes {
    pub mistakes: Vec<Mistake>,
    #[serde(flatten)]
    pub refusal: Refusal,
}

/// A mistake in a definition.
#[derive(Debug, Serialize, Deserialize)]
pub struct Mistake {
    /// The rule that is violated (docs/manifest.md).
    pub code: String,
    pub column: usize,
    pub help: Option<String>,
    pub line: usize,
    pub message: String,
    /// The key; empty for the text as a whole.
    pub path: String,
}

impl From<&Diagnostic> for Mistake {
    fn from(found: &Diagnostic) -> Self {
        Self {
            code: found.code.as_str().to_owned(),
            column: found.column,
            help: found.help.clone(),
            line: found.line,
            message: found.message.clone(),
            path: found.path.clone(),
        }
    }
}

/// An event, one line of the stream of events and of the output of `run --json`.
/// `mainstay_core::events::StoredEvent` reads it.
#[derive(Debug, Serialize)]
pub struct Event<'a> {
    pub time: &'a str,
    pub service: &'a str,
    /// Set if the fact is about another run than the service's own.
    #[serde(rename = "beside", skip_serializing_if = "Option::is_none")]
    pub role: Option<RolloutRole>,
    /// The number of the event among all events of its supervisor: events of the same time are in
    /// this order. Alerts have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    pub alert: bool,
    #[serde(flatten)]
    pub fact: &'a Fact,
    /// The event as text for people.
    pub message: String,
}

impl<'a> Event<'a> {
    pub fn new(
        time: &'a str,
        (service, role): (&'a str, Option<RolloutRole>),
        fact: &'a Fact,
    ) -> Self {
        Self {
            time,
            service,
            role,
            sequence: None,
            alert: fact.is_alert(),
            fact,
            message: Self::message(role, fact),
        }
    }

    /// Returns the event as text for people. It shows which of two runs it is about.
    pub fn message(role: Option<RolloutRole>, fact: &Fact) -> String {
        match role {
            None => fact.to_string(),
            Some(RolloutRole::Candidate) => format!("new definition: {fact}"),
            Some(RolloutRole::Predecessor) => format!("old definition: {fact}"),
        }
    }
}

/// A complete snapshot.
#[derive(Debug, Serialize, Deserialize)]
pub struct Taken {
    pub snapshot: SnapshotId,
}

/// A request to try a definition. It may contain secrets.
#[derive(Serialize, Deserialize)]
pub struct TrialRequest {
    pub base_dir: PathBuf,
    pub canary_ms: u64,
    pub format: String,
    pub manifest: String,
    /// The version of the installation that the new definition will be.
    #[serde(default)]
    pub version: Option<u64>,
    /// The version that is installed.
    #[serde(default)]
    pub from_version: Option<u64>,
}

/// The result of a trial whose definition proved healthy. The trial stays open for a short time,
/// until the client decides on it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Healthy {
    #[serde(flatten)]
    pub report: ServiceReport,
    pub outcome: String,
}

impl Healthy {
    pub fn new(report: ServiceReport) -> Self {
        let outcome = "healthy".to_owned();
        Self { report, outcome }
    }
}

/// The reason why a trial was rolled back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "outcome", rename = "rolled-back")]
pub struct GivenUp {
    /// The last lines that the program wrote.
    pub last_lines: Vec<String>,
    pub phase: TrialPhase,
    /// The reason.
    #[serde(flatten)]
    pub refusal: Refusal,
    /// The update style; `None` if no old run was in place. Supervisors of older versions do not
    /// report it.
    #[serde(default)]
    pub style: Option<Style>,
}

impl GivenUp {
    /// Creates the answer to a trial that was rolled back for this reason.
    pub fn new(phase: TrialPhase, why: &str, last_lines: Vec<String>) -> Self {
        let why = format!("the update was rolled back: {why}");
        Self {
            last_lines,
            phase,
            refusal: Refusal::new(Code::Failed, why),
            style: None,
        }
    }
}
