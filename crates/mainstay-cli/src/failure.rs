//! The failure of a command: a message for the user and an exit code for the calling program.

use std::error::Error;
use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::access;

/// The exit codes of all verbs, an interface that other tools rely on (docs/exit-codes.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    /// The operation failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The service is not running.
    NotRunning = 3,
    /// There is no such service, or its state cannot be determined.
    Unknown = 4,
    /// A required part of the system is missing (`EX_UNAVAILABLE`).
    MissingPart = 69,
    /// A file, a directory or the output cannot be written (`EX_CANTCREAT`).
    CannotWrite = 73,
    /// Another process holds the lock, or the supervisor is busy; try again (`EX_TEMPFAIL`).
    Busy = 75,
    /// A permission is missing (`EX_NOPERM`).
    PermissionDenied = 77,
    /// The manifest is invalid (`EX_CONFIG`).
    InvalidManifest = 78,
    /// The sources of evidence about a service disagree.
    Disagreement = 79,
}

/// A failed command: a one-line message of operation, object and cause, and an exit code. A report
/// can precede the message, and a hint can follow it.
#[derive(Debug)]
pub(crate) struct Failure {
    code: Code,
    /// The report, printed before the message.
    details: String,
    message: String,
    hint: Option<String>,
    sought: Option<Sought>,
    /// The supervisor ended before it had answered. Nobody may take its absence for granted: what
    /// was asked for may have been done, or be done by its successor.
    is_cut_short: bool,
}

/// The object that was not found. If this process has no permission to search everywhere,
/// `not_found.rs` adds that to the failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sought {
    Service(String),
    Supervisor,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            details: String::new(),
            message: message.into(),
            hint: None,
            sought: None,
            is_cut_short: false,
        }
    }

    /// A conversation that the end of the supervisor cut short.
    pub(crate) fn cut_short(message: impl Into<String>) -> Self {
        Self {
            is_cut_short: true,
            ..Self::new(Code::Failed, message)
        }
    }

    /// Records what was not found.
    pub(crate) fn seeking(mut self, sought: Sought) -> Self {
        self.sought = Some(sought);
        self
    }

    /// Returns what was not found, if that is the cause of the failure.
    pub(crate) fn sought(&self) -> Option<&Sought> {
        self.sought.as_ref()
    }

    /// Sets the hint: what the reader can do about the failure.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the hint for an I/O error that any file operation can cause, unless there is a hint
    /// already.
    pub(crate) fn because_of(self, cause: &io::Error) -> Self {
        match disk_hint(cause.kind()) {
            Some(hint) if self.hint.is_none() => self.hint(hint),
            _ => self,
        }
    }

    /// Sets the report to print before the message.
    pub(crate) fn details(self, details: String) -> Self {
        Self { details, ..self }
    }

    /// Returns the message and the hint in one line, for use as part of another message.
    pub(crate) fn line(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{} ({hint})", self.message),
            None => self.message.clone(),
        }
    }

    /// Returns the message and the report, one fact per line, without the hint.
    pub(crate) fn report(&self) -> String {
        match self.details.trim_end() {
            "" => self.message.clone(),
            details => format!("{}\n{details}", self.message),
        }
    }

    /// Returns the hint, if there is one.
    pub(crate) fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Returns the report, which can contain colours.
    pub(crate) fn preface(&self) -> &str {
        &self.details
    }

    /// Returns the message line, and the hint line if there is a hint.
    pub(crate) fn summary(&self) -> String {
        match &self.hint {
            Some(hint) => format!("error: {}\nhint: {hint}", self.message),
            None => format!("error: {}", self.message),
        }
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// Returns the message alone: operation, object and cause.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        match self.is_cut_short {
            true => ExitCode::from(Code::NotRunning as u8),
            false => ExitCode::from(self.code as u8),
        }
    }
}

/// Returns the hint for a disk that cannot be written to.
fn disk_hint(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::ReadOnlyFilesystem => {
            Some("the file system is mounted read-only: mount it for writing, and try again")
        }
        io::ErrorKind::StorageFull => Some("the disk is full: make room, and try again"),
        io::ErrorKind::QuotaExceeded => Some("the disk quota is used up: make room, and try again"),
        _ => None,
    }
}

/// Converts a library error. The message contains the error and its sources in one line, from the
/// operation down to the cause.
impl From<mainstay::Error> for Failure {
    fn from(error: mainstay::Error) -> Self {
        use mainstay::ErrorKind;
        let source = error.source();
        let cause = source.and_then(|cause| cause.downcast_ref::<io::Error>());
        let on_disk = cause.and_then(|cause| disk_hint(cause.kind()));
        let code = match error.kind() {
            ErrorKind::Failed if on_disk.is_some() => Code::CannotWrite,
            ErrorKind::Usage => Code::Usage,
            ErrorKind::NotRunning => Code::NotRunning,
            ErrorKind::NotInstalled => Code::Unknown,
            ErrorKind::Unsupported => Code::MissingPart,
            ErrorKind::MarkedForDelete => Code::Busy,
            ErrorKind::PermissionDenied => Code::PermissionDenied,
            ErrorKind::Invalid => Code::InvalidManifest,
            _ => Code::Failed,
        };
        let failure = Self::new(code, chain(&error));
        match error.cure() {
            Some("run it as root") => failure.hint(access::run_as_administrator()),
            Some(cure) => failure.hint(cure),
            None => match on_disk {
                Some(hint) => failure.hint(hint),
                None => failure,
            },
        }
    }
}

pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.details, self.summary())
    }
}
