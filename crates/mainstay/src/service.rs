//! What an application developer implements.

use std::error::Error;
use std::fmt;
use std::num::NonZeroU32;

use crate::Context;

/// A program that runs until it is told to stop. Closures that take a [`Context`] are services, too.
pub trait Service {
    /// Does the service's work; the process ends with it.
    ///
    /// It is called once, on a thread of its own under the Windows Service Control Manager and on the main thread elsewhere, and may block
    /// as long as it likes. It should return soon after [`Control::Stop`](crate::Control::Stop); any time before that it is a failure or
    /// a clean end, as its result says.
    ///
    /// # Errors
    /// Why it cannot go on: it is logged, and becomes the exit code that recovery looks at.
    fn run(self, context: Context) -> Result<(), Exit>;
}

impl<F: FnOnce(Context) -> Result<(), Exit>> Service for F {
    fn run(self, context: Context) -> Result<(), Exit> {
        self(context)
    }
}

/// How a service failed: an exit code, and perhaps why. Any error converts into it, with code 1, so `?` works. Where a process can return no
/// more than 255, a larger code is 1.
///
/// Under the Windows Service Control Manager it becomes a service-specific code (1066), so that recovery actions see a failure. What
/// codes mean to mainstay's own supervisor is a contract: 201, 202, 128 + n; see docs/exit-codes.md.
pub struct Exit {
    pub(crate) code: NonZeroU32,
    pub(crate) cause: Option<Box<dyn Error + Send + Sync>>,
}

impl Exit {
    /// A code alone.
    pub const fn code(code: NonZeroU32) -> Self {
        Self { code, cause: None }
    }

    /// A code and why.
    pub fn new(code: NonZeroU32, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            code,
            cause: Some(cause.into()),
        }
    }

    /// The cause and what is behind it, in one line.
    pub(crate) fn reason(&self) -> Option<String> {
        self.cause.as_ref().map(|cause| chain(cause.as_ref()))
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Exit {
    fn from(cause: E) -> Self {
        Self::new(NonZeroU32::MIN, cause)
    }
}

impl fmt::Debug for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exit")
            .field("code", &self.code)
            .field("cause", &self.reason())
            .finish()
    }
}

/// An error with its sources in one line, from the operation down to the cause.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
