//! Why a verb failed: an exit code, one line for a person, and how to cure it.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// The exit codes of `mainstay` itself (docs/exit-codes.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// It did not work.
    Failed = 1,
    /// It was called in the wrong way.
    Usage = 2,
    /// A right is missing.
    PermissionDenied = 77,
    /// The manifest is wrong.
    InvalidManifest = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Shown as `error: message`, and `hint: …` on a line of its own.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    /// Lines that come before: a report.
    details: String,
    message: String,
    hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            details: String::new(),
            message: message.into(),
            hint: None,
        }
    }

    /// `operation` names what was tried, and on what: `read a.toml`.
    pub(crate) fn io(operation: &str, error: &io::Error) -> Self {
        let exit = match error.kind() {
            io::ErrorKind::PermissionDenied => Exit::PermissionDenied,
            _ => Exit::Failed,
        };
        Self::new(exit, format!("{operation}: {error}"))
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        let hint = Some(hint.into());
        Self { hint, ..self }
    }

    pub(crate) fn details(self, details: String) -> Self {
        Self { details, ..self }
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}error: {}", self.details, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}
