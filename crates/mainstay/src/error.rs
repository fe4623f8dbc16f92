//! Why an operation on a service failed.

use std::error;
use std::fmt;
use std::io;

/// An operation, its object, the cause, and what to do about it.
///
/// `{}` shows the operation and its object on one line; the cause is [`source`](std::error::Error::source), for whoever joins the chain of
/// errors at the edge of a program. `{:#}` shows both: `start service "orders": access denied (os error 5)`.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    /// "create service \"orders\"".
    what: String,
    cure: Option<String>,
    source: Option<io::Error>,
}

/// What callers can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The command line makes no sense.
    Usage,
    /// The definition or an argument makes no sense.
    Invalid,
    /// A right is missing.
    PermissionDenied,
    /// There is no such service.
    NotInstalled,
    /// It runs already.
    AlreadyRunning,
    /// It does not run.
    NotRunning,
    /// It is deleted as soon as the last program that looks at it lets go (Windows 1072).
    MarkedForDelete,
    /// It did not get there in time.
    TimedOut,
    /// The service does not take this control, or not now.
    NotAccepted,
    /// There is no service manager here, or it cannot do this.
    Unsupported,
    /// The system refused for another reason.
    Failed,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            cure: None,
            source: None,
        }
    }

    /// What the reader can do about it.
    pub(crate) fn with_cure(mut self, cure: impl Into<String>) -> Self {
        self.cure = Some(cure.into());
        self
    }

    pub(crate) fn because(mut self, source: io::Error) -> Self {
        self.source = Some(source);
        self
    }

    /// What callers can tell apart.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What to do about it, in a sentence for a line of its own.
    pub fn cure(&self) -> Option<&str> {
        self.cure.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(cause) if f.alternate() => write!(f, "{}: {cause}", self.what),
            _ => f.write_str(&self.what),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn one_level_is_shown_and_the_chain_on_request() {
        let cause = io::Error::other("access denied");
        let error = Error::new(ErrorKind::PermissionDenied, "start service \"orders\"");
        assert_eq!(format!("{error:#}"), "start service \"orders\"");
        let error = error.because(cause);
        assert_eq!(error.to_string(), "start service \"orders\"");
        assert_eq!(
            format!("{error:#}"),
            "start service \"orders\": access denied"
        );
        assert_eq!(
            error.source().map(ToString::to_string).as_deref(),
            Some("access denied")
        );
        assert_eq!(crate::service::chain(&error), format!("{error:#}"));
    }
}
