//! Steps that fail, with their causes.

use std::error::Error;
use std::fmt;

/// A failed step, such as `read key /etc/mainstay/key.pem`, and its cause.
#[derive(Debug)]
pub struct StepError {
    step: String,
    cause: Box<dyn Error + Send + Sync>,
}

impl StepError {
    pub(crate) fn new(step: String, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let cause = cause.into();
        Self { step, cause }
    }
}

/// Writes the step and its cause.
impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.cause)
    }
}

impl Error for StepError {}
