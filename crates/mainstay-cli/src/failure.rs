//! Why a command failed, for the person who reads it and for the program that called it.

use std::error::Error;
use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::access;

/// The exit codes of every verb: an interface that other tools rely on (docs/exit-codes.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    /// It failed.
    Failed = 1,
    /// It was called in the wrong way.
    Usage = 2,
    /// The service does not run.
    NotRunning = 3,
    /// There is no such service, or its state cannot be known.
    Unknown = 4,
    /// A part of the system that is needed is missing (`EX_UNAVAILABLE`).
    MissingPart = 69,
    /// Something cannot be written (`EX_CANTCREAT`).
    CannotWrite = 73,
    /// Somebody else is at it: try again (`EX_TEMPFAIL`).
    Busy = 75,
    /// A right is missing (`EX_NOPERM`).
    PermissionDenied = 77,
    /// The manifest is invalid (`EX_CONFIG`).
    InvalidManifest = 78,
    /// What was seen does not agree.
    Disagreement = 79,
}

/// One line of operation, object and cause; perhaps a report before it and a line of cure after it; an exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    code: Code,
    /// Lines that come before: a report.
    details: String,
    message: String,
    hint: Option<String>,
    sought: Option<Sought>,
    /// The supervisor ended before it had answered. Nobody may take its absence for granted: what
    /// was asked for may have been done, or be done by its successor.
    is_cut_short: bool,
}

/// What was not found. If it may be where this process cannot look, `not_found.rs` has the failure say so.
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

    /// What was not found.
    pub(crate) fn seeking(mut self, sought: Sought) -> Self {
        self.sought = Some(sought);
        self
    }

    /// What was not found, if that is the failure.
    pub(crate) fn sought(&self) -> Option<&Sought> {
        self.sought.as_ref()
    }

    /// What the reader can do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The hint for a cause that every operation on files may have, where there is none yet.
    pub(crate) fn because_of(self, cause: &io::Error) -> Self {
        match disk_hint(cause.kind()) {
            Some(hint) if self.hint.is_none() => self.hint(hint),
            _ => self,
        }
    }

    /// A report that is shown before the line.
    pub(crate) fn details(self, details: String) -> Self {
        Self { details, ..self }
    }

    /// All of it in one line, where it is told as part of something else.
    pub(crate) fn line(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{} ({hint})", self.message),
            None => self.message.clone(),
        }
    }

    /// The report and the message, without colours, in one line a fact.
    pub(crate) fn report(&self) -> String {
        match self.details.trim_end() {
            "" => self.message.clone(),
            details => format!("{}\n{details}", self.message),
        }
    }

    /// What the reader can do about it, if anything is known.
    pub(crate) fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The lines before it, which may have colours.
    pub(crate) fn preface(&self) -> &str {
        &self.details
    }

    /// The line, and one of hint.
    pub(crate) fn summary(&self) -> String {
        match &self.hint {
            Some(hint) => format!("error: {}\nhint: {hint}", self.message),
            None => format!("error: {}", self.message),
        }
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// Operation, object and cause, without the rest.
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

/// What the reader can do about a disk that takes nothing.
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

/// An error with its sources in one line, from the operation down to the cause.
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
