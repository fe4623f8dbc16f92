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

/// How a service failed: an exit code, and perhaps why. Errors convert into it with code 1, so `?` works: of any type that implements
/// [`Error`], `Box<dyn Error>`, `anyhow::Error`, `&str` and `String`. For a `Box<dyn Error + Send + Sync>`, borrow it:
/// `.map_err(|error| Exit::new(NonZeroU32::MIN, &*error))?`. Where a process can return no more than 255, a larger code is 1.
///
/// The cause is kept as text: the error and its sources, joined by colons.
///
/// Under the Windows Service Control Manager it becomes a service-specific code (1066), so that recovery actions see a failure. What
/// codes mean to mainstay's own supervisor is a contract: 201, 202, 128 + n; see docs/exit-codes.md.
pub struct Exit {
    pub(crate) code: NonZeroU32,
    reason: Option<String>,
}

impl Exit {
    /// A code alone.
    pub const fn code(code: NonZeroU32) -> Self {
        Self { code, reason: None }
    }

    /// A code and why.
    pub fn new<'a>(code: NonZeroU32, cause: impl Into<Box<dyn Error + 'a>>) -> Self {
        let reason = Some(chain(&*cause.into()));
        Self { code, reason }
    }

    /// The cause and what is behind it, in one line.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }
}

impl<'a, E: Into<Box<dyn Error + 'a>>> From<E> for Exit {
    fn from(cause: E) -> Self {
        Self::new(NonZeroU32::MIN, cause)
    }
}

impl fmt::Debug for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exit")
            .field("code", &self.code)
            .field("cause", &self.reason)
            .finish()
    }
}

/// An error with its sources in one line, from the operation down to the cause. A source whose text the line ends with already is not
/// repeated: some errors show their source themselves.
pub(crate) fn chain(error: &(dyn Error + '_)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::io;

    use super::*;

    #[test]
    fn errors_of_all_kinds_become_an_exit() {
        #[track_caller]
        fn check(fails: impl FnOnce() -> Result<(), Exit>, reason: &str) {
            let exit = fails().unwrap_err();
            assert_eq!((exit.code.get(), exit.reason()), (1, Some(reason)));
        }
        let io = || io::Error::other("the disk is full");
        check(|| Ok(Err(io())?), "the disk is full");
        check(|| Ok(Err("a text")?), "a text");
        check(|| Ok(Err("a text".to_owned())?), "a text");
        check(
            || Ok(Err(Box::<dyn Error>::from(io()))?),
            "the disk is full",
        );
        check(
            || Ok(Err(anyhow::Error::from(io()).context("write the ledger"))?),
            "write the ledger: the disk is full",
        );
        let boxed = Box::<dyn Error + Send + Sync>::from(io());
        let exit = Exit::new(NonZeroU32::MIN, &*boxed);
        assert_eq!(exit.reason(), Some("the disk is full"));
    }
}
