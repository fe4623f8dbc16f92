//! Errors of operations on services.

use std::error;
use std::fmt;
use std::io;

/// The error of an operation: the operation and its object, the cause, and a hint.
///
/// `{}` shows the operation and its object on one line. The cause is the
/// [`source`](std::error::Error::source), for programs that print the whole chain of errors. `{:#}`
/// shows both: `cannot start service "orders": access denied (os error 5)`.
///
/// ```no_run
/// use mainstay::ErrorKind;
///
/// let orders = mainstay::service("orders");
/// match orders.start_now() {
///     Ok(()) => {}
///     Err(error) if error.kind() == ErrorKind::AlreadyRunning => {}
///     Err(error) => {
///         eprintln!("error: {error:#}");
///         if let Some(hint) = error.cure() {
///             eprintln!("hint: {hint}");
///         }
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    /// The operation and its object, such as "cannot create service \"orders\"".
    what: String,
    cure: Option<String>,
    source: Option<io::Error>,
}

/// The category of an error, for callers that handle errors differently.
///
/// ```
/// use mainstay::{Error, ErrorKind};
///
/// /// Starts a service that may already be running.
/// fn start() -> Result<(), Error> {
///     match mainstay::service("orders").start_now() {
///         Err(error) if error.kind() == ErrorKind::AlreadyRunning => Ok(()),
///         done => done,
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The command line is invalid.
    Usage,
    /// The definition or an argument is invalid.
    Invalid,
    /// The caller lacks a required right.
    PermissionDenied,
    /// The service is not installed.
    NotInstalled,
    /// The service is already running.
    AlreadyRunning,
    /// The service is not running.
    NotRunning,
    /// The service is marked for deletion and is deleted once the last open handle is closed
    /// (Windows error 1072).
    MarkedForDelete,
    /// The operation timed out.
    TimedOut,
    /// The service does not accept this control, or not in its current state.
    NotAccepted,
    /// No supported service manager was found, or the manager does not support this operation.
    Unsupported,
    /// The system rejected the operation for another reason.
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

    /// Adds a hint for the user.
    pub(crate) fn with_cure(mut self, cure: impl Into<String>) -> Self {
        self.cure = Some(cure.into());
        self
    }

    pub(crate) fn because(mut self, source: io::Error) -> Self {
        self.source = Some(source);
        self
    }

    /// Returns the category of the error.
    ///
    /// ```
    /// use mainstay::{ErrorKind, Verb};
    ///
    /// let error = Verb::parse(["instal".into()]).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Usage);
    /// ```
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns a hint for the user: one sentence, to print on a separate line.
    ///
    /// ```
    /// use mainstay::Verb;
    ///
    /// let error = Verb::parse(["instal".into()]).unwrap_err();
    /// assert_eq!(error.cure(), None);
    /// ```
    #[must_use]
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
        let error = Error::new(
            ErrorKind::PermissionDenied,
            "cannot start service \"orders\"",
        );
        assert_eq!(format!("{error:#}"), "cannot start service \"orders\"");
        let error = error.because(cause);
        assert_eq!(error.to_string(), "cannot start service \"orders\"");
        assert_eq!(
            format!("{error:#}"),
            "cannot start service \"orders\": access denied"
        );
        assert_eq!(
            error.source().map(ToString::to_string).as_deref(),
            Some("access denied")
        );
        assert_eq!(crate::service::chain(&error), format!("{error:#}"));
    }
}
