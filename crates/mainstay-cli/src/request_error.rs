//! Requests to a supervisor that did not succeed.

use mainstay_core::failure::Failure;

/// The reason why a request did not succeed. Where that is the end of the verb, it converts into
/// its [`Failure`].
#[derive(Debug)]
pub(crate) enum RequestError {
    /// No supervisor is running.
    NoSupervisor(Failure),
    /// This process may not connect to the supervisor.
    Denied(Failure),
    /// The supervisor does not have the service.
    NoService(Failure),
    /// The supervisor refused the request or did not answer it. If it ended meanwhile, it may have
    /// performed the request, or its successor may.
    Failed(Failure),
}

impl RequestError {
    /// Returns the hint of the supervisor, or of the failed connection.
    pub(crate) fn hint(&self) -> Option<&str> {
        match self {
            Self::NoSupervisor(failure)
            | Self::Denied(failure)
            | Self::NoService(failure)
            | Self::Failed(failure) => failure.hint_text(),
        }
    }
}

impl From<Failure> for RequestError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::NoSupervisor(failure)
            | RequestError::Denied(failure)
            | RequestError::NoService(failure)
            | RequestError::Failed(failure) => failure,
        }
    }
}
