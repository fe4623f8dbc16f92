//! The failure of a command: a message for the user and an exit code for the calling program.

use std::error::Error;
use std::fmt;
use std::io;
use std::iter;

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
    /// All codes, in ascending order.
    pub const ALL: [Self; 10] = [
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

    /// Returns the name in documents: the `name` of an error. It is as stable as the number.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::NotRunning => "not-running",
            Self::Unknown => "unknown",
            Self::MissingPart => "missing-part",
            Self::CannotWrite => "cannot-write",
            Self::Busy => "busy",
            Self::PermissionDenied => "permission-denied",
            Self::InvalidManifest => "invalid-manifest",
            Self::Disagreement => "disagreement",
        }
    }

    /// Returns the code with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|code| *code as u8 == number)
    }
}

/// A failed command: a one-line message of operation, object and cause, and an exit code. A report
/// can precede the message, and a hint can follow it.
#[derive(Debug)]
pub struct Failure(Box<Parts>);

#[derive(Debug)]
struct Parts {
    code: Code,
    /// The report, printed before the message.
    details: String,
    message: String,
    hint: Option<String>,
    /// The services that the message is about.
    services: Vec<String>,
    /// Facts about the failure that its message does not contain.
    notes: Vec<String>,
    /// The errors that led to this one, the nearest first.
    causes: Vec<String>,
    sought: Option<Sought>,
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
        Self(Box::new(Parts {
            code,
            details: String::new(),
            message: message.into(),
            hint: None,
            services: Vec::new(),
            notes: Vec::new(),
            causes: Vec::new(),
            sought: None,
        }))
    }

    /// Records what was not found.
    pub fn seeking(mut self, sought: Sought) -> Self {
        self.0.sought = Some(sought);
        self
    }

    /// Returns what was not found, if that is the cause of the failure.
    pub fn sought(&self) -> Option<&Sought> {
        self.0.sought.as_ref()
    }

    /// Records the services that the message is about.
    pub fn about<S: AsRef<str>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        let names = names.into_iter().map(|name| name.as_ref().to_owned());
        self.0.services = names.collect();
        self
    }

    /// Returns the services that the message is about.
    pub fn services(&self) -> &[String] {
        &self.0.services
    }

    /// Adds a fact about the failure, which is shown on a line of its own.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.0.notes.push(note.into());
        self
    }

    /// Sets the hint: what the reader can do about the failure.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Records an I/O error as the cause, and adds the hint for one that any file operation can
    /// cause, unless there is a hint already.
    pub fn because_of(self, cause: &io::Error) -> Self {
        let failure = self.caused_by(cause);
        match disk_hint(cause.kind()) {
            Some(hint) if failure.0.hint.is_none() => failure.hint(hint),
            _ => failure,
        }
    }

    /// Records an error and its sources as the causes. The message contains them already; programs
    /// get them one by one.
    pub fn caused_by(mut self, cause: &dyn Error) -> Self {
        self.0.causes = iter::successors(Some(cause), |&error| error.source())
            .map(ToString::to_string)
            .collect();
        self
    }

    /// Returns the errors that led to this failure, the nearest first.
    pub fn causes(&self) -> &[String] {
        &self.0.causes
    }

    /// Sets the report to print before the message.
    pub fn details(mut self, details: String) -> Self {
        self.0.details = details;
        self
    }

    /// Returns the message and the hint in one line, for use as part of another message.
    pub fn line(&self) -> String {
        match &self.0.hint {
            Some(hint) => format!("{} ({hint})", self.0.message),
            None => self.0.message.clone(),
        }
    }

    /// Returns the message and the report, one fact per line, without the hint.
    pub fn report(&self) -> String {
        match self.0.details.trim_end() {
            "" => self.0.message.clone(),
            details => format!("{}\n{details}", self.0.message),
        }
    }

    /// Returns the hint, if there is one.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Returns the report, which can contain colours.
    pub fn preface(&self) -> &str {
        &self.0.details
    }

    /// Returns the message line, a line for each note, and the hint line if there is a hint.
    pub fn summary(&self) -> String {
        let notes = self.0.notes.iter().map(|note| format!("\nnote: {note}"));
        let hint = self.0.hint.iter().map(|hint| format!("\nhint: {hint}"));
        format!("error: {}", self.0.message) + &notes.chain(hint).collect::<String>()
    }

    /// Returns the exit code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// Returns the message alone: operation, object and cause.
    pub fn message(&self) -> &str {
        &self.0.message
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
        write!(f, "{}{}", self.0.details, self.summary())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_exit_codes_are_those_of_the_program() {
        let docs = include_str!("../../../docs/exit-codes.md");
        let (_, table) = docs
            .split_once("## Of the `mainstay` command")
            .expect("the heading");
        let rows = table.lines().filter_map(|line| {
            let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
            let code: u8 = cells.next()?.parse().ok()?;
            Some((code, cells.next()?.trim_matches('`')))
        });
        let documented: Vec<_> = rows.filter(|(code, _)| *code != 0).collect();
        let codes = Code::ALL.map(|code| (code as u8, code.name()));
        assert_eq!(documented, codes);
    }

    #[test]
    fn causes_are_listed_from_the_nearest_to_the_first() {
        #[derive(Debug)]
        struct Unread(io::Error);
        impl fmt::Display for Unread {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the index is unreadable")
            }
        }
        impl Error for Unread {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&self.0)
            }
        }
        let cause = Unread(io::Error::other("the disk is gone"));
        let failure = Failure::new(Code::Failed, "cannot read a").caused_by(&cause);
        let expected = ["the index is unreadable", "the disk is gone"];
        assert_eq!(failure.causes(), expected);
    }
}
