//! The failure of a command: a message for the user and an exit code for the calling program.

use std::error::Error;
use std::fmt;
use std::io;
use std::process::ExitCode;

/// The exit codes of all verbs, an interface that other tools rely on (docs/exit-codes.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
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

impl Code {
    const ALL: [Self; 10] = [
        Self::Failed,
        Self::Usage,
        Self::NotRunning,
        Self::Unknown,
        Self::MissingPart,
        Self::CannotWrite,
        Self::Busy,
        Self::PermissionDenied,
        Self::InvalidManifest,
        Self::Disagreement,
    ];

    /// Returns the code with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|code| *code as u8 == number)
    }
}

/// A failed command: a one-line message of operation, object and cause, and an exit code. A report
/// can precede the message, and a hint can follow it.
#[derive(Debug)]
pub struct Failure {
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
pub enum Sought {
    /// A service, by its name.
    Service(String),
    /// A running supervisor.
    Supervisor,
}

impl Failure {
    /// Creates a failure without a hint.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
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
    pub fn cut_short(message: impl Into<String>) -> Self {
        Self {
            is_cut_short: true,
            ..Self::new(Code::Failed, message)
        }
    }

    /// Records what was not found.
    pub fn seeking(mut self, sought: Sought) -> Self {
        self.sought = Some(sought);
        self
    }

    /// Returns what was not found, if that is the cause of the failure.
    pub fn sought(&self) -> Option<&Sought> {
        self.sought.as_ref()
    }

    /// Sets the hint: what the reader can do about the failure.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the hint for an I/O error that any file operation can cause, unless there is a hint
    /// already.
    pub fn because_of(self, cause: &io::Error) -> Self {
        match disk_hint(cause.kind()) {
            Some(hint) if self.hint.is_none() => self.hint(hint),
            _ => self,
        }
    }

    /// Sets the report to print before the message.
    pub fn details(self, details: String) -> Self {
        Self { details, ..self }
    }

    /// Returns the message and the hint in one line, for use as part of another message.
    pub fn line(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{} ({hint})", self.message),
            None => self.message.clone(),
        }
    }

    /// Returns the message and the report, one fact per line, without the hint.
    pub fn report(&self) -> String {
        match self.details.trim_end() {
            "" => self.message.clone(),
            details => format!("{}\n{details}", self.message),
        }
    }

    /// Returns the hint, if there is one.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Returns the report, which can contain colours.
    pub fn preface(&self) -> &str {
        &self.details
    }

    /// Returns the message line, and the hint line if there is a hint.
    pub fn summary(&self) -> String {
        match &self.hint {
            Some(hint) => format!("error: {}\nhint: {hint}", self.message),
            None => format!("error: {}", self.message),
        }
    }

    /// Returns the exit code of the operation itself.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Returns the message alone: operation, object and cause.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the exit code of the process.
    pub fn exit_code(&self) -> ExitCode {
        if self.is_cut_short {
            ExitCode::from(Code::NotRunning as u8)
        } else {
            ExitCode::from(self.code as u8)
        }
    }
}

/// Returns the hint for a disk that cannot be written to.
pub fn disk_hint(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::ReadOnlyFilesystem => {
            Some("the file system is mounted read-only: mount it for writing, and try again")
        }
        io::ErrorKind::StorageFull => Some("the disk is full: free some space, and try again"),
        io::ErrorKind::QuotaExceeded => {
            Some("the disk quota is used up: free some space, and try again")
        }
        _ => None,
    }
}

/// Returns an error and its sources in one line, from the operation down to the cause.
pub fn chain(error: &dyn Error) -> String {
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
