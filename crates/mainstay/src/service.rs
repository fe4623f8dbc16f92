//! The trait that an application implements, and the exit value it returns.

use std::error::Error;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::Context;

/// The exit codes with a meaning in the contract, docs/exit-codes.md.
pub(crate) const STATE_FAILED: NonZeroU32 = NonZeroU32::new(201).unwrap();
const UNAVAILABLE: NonZeroU32 = NonZeroU32::new(202).unwrap();

/// A program that runs until it is asked to stop. Closures that take a [`Context`] implement it.
///
/// ```no_run
/// use std::path::PathBuf;
/// use std::process::ExitCode;
///
/// use mainstay::{Context, Control, Exit, Service};
///
/// struct Orders {
///     journal: PathBuf,
/// }
///
/// impl Service for Orders {
///     fn run(self, mut context: Context) -> Result<(), Exit> {
///         let journal = std::fs::File::open(self.journal)?;
///         while !matches!(context.wait(), Control::Stop(_)) {}
///         journal.sync_all()?;
///         Ok(())
///     }
/// }
///
/// fn main() -> ExitCode {
///     let journal = "/var/lib/orders/journal".into();
///     mainstay::service("orders").main(Orders { journal })
/// }
/// ```
pub trait Service {
    /// Runs the service. The process ends when this method returns.
    ///
    /// It is called once: on a separate thread under the Windows Service Control Manager, on the
    /// main thread elsewhere. It may block. It should return soon after
    /// [`Control::Stop`](crate::Control::Stop). If it returns earlier, its result determines
    /// whether that is a failure or a clean exit. A clean exit before the service is ready also
    /// reports it as ready, except on Windows, because systemd would treat it as a failure.
    ///
    /// # Errors
    /// If the service cannot continue. The error is logged, and its exit code is passed to the
    /// recovery policy.
    ///
    /// ```
    /// use mainstay::{Context, Control, Exit, Service};
    ///
    /// struct Orders;
    ///
    /// impl Service for Orders {
    ///     fn run(self, mut context: Context) -> Result<(), Exit> {
    ///         while !matches!(context.wait(), Control::Stop(_)) {}
    ///         Ok(())
    ///     }
    /// }
    /// ```
    fn run(self, context: Context) -> Result<(), Exit>;
}

/// The body of a service that a process may run again after a stop.
pub(crate) type Body = Arc<dyn Fn(Context) -> Result<(), Exit> + Send + Sync>;

impl<F: FnOnce(Context) -> Result<(), Exit>> Service for F {
    fn run(self, context: Context) -> Result<(), Exit> {
        self(context)
    }
}

/// The failure of a service: an exit code and an optional cause. Errors convert into it with code
/// 1, so `?` works with any type that implements [`Error`], and with `Box<dyn Error>`,
/// `anyhow::Error`, `&str` and `String`. For a `Box<dyn Error + Send + Sync>`, borrow it:
/// `.map_err(|error| Exit::new(NonZeroU32::MIN, &*error))?`. If a process cannot return codes above
/// 255, a larger code becomes 1.
///
/// The cause is kept as text: the error and its sources, joined by colons.
///
/// Under the Windows Service Control Manager, the code becomes a service-specific error (1066), so
/// recovery actions treat it as a failure.
///
/// [`Exit::state_failed`], [`Exit::unavailable`] and [`Exit::terminated`] have the codes with a
/// fixed meaning in Mainstay's contract, docs/exit-codes.md. Mainstay's own supervisor acts on all
/// of them. The default [`Recovery`](crate::Recovery) contains the part that other managers
/// support.
///
/// ```
/// use std::num::NonZeroU32;
///
/// use mainstay::Exit;
///
/// /// The configuration is invalid: `EX_CONFIG` of sysexits.h.
/// const CONFIG: NonZeroU32 = NonZeroU32::new(78).unwrap();
///
/// fn port(text: &str) -> Result<u16, Exit> {
///     let port = text.parse::<u16>().map_err(|error| Exit::new(CONFIG, error))?;
///     if port == 0 {
///         return Err(Exit::code(CONFIG));
///     }
///     Ok(port)
/// }
/// assert!(port("8080").is_ok());
/// assert!(port("http").is_err());
/// ```
pub struct Exit {
    code: NonZeroU32,
    reason: Option<String>,
}

impl Exit {
    /// Creates an exit with a code and no cause.
    ///
    /// ```
    /// use std::num::NonZeroU32;
    ///
    /// use mainstay::Exit;
    ///
    /// const CONFIG: NonZeroU32 = NonZeroU32::new(78).unwrap();
    /// assert_eq!(Exit::code(CONFIG).exit_code(), CONFIG);
    /// ```
    #[must_use]
    pub const fn code(code: NonZeroU32) -> Self {
        Self { code, reason: None }
    }

    /// Creates an exit with a code and its cause.
    ///
    /// ```
    /// use std::num::NonZeroU32;
    ///
    /// use mainstay::Exit;
    ///
    /// const CONFIG: NonZeroU32 = NonZeroU32::new(78).unwrap();
    /// assert_eq!(Exit::new(CONFIG, "no port").exit_code(), CONFIG);
    /// ```
    pub fn new<'a>(code: NonZeroU32, cause: impl Into<Box<dyn Error + 'a>>) -> Self {
        let reason = Some(chain(&*cause.into()));
        Self { code, reason }
    }

    /// Creates the exit of a service whose stored state failed to load: 201. Mainstay restores the
    /// previous stable snapshot and starts the service again. Other managers leave it stopped as
    /// failed, because a restart would fail in the same way.
    ///
    /// ```
    /// use mainstay::{Context, Exit};
    ///
    /// fn orders(context: Context) -> Result<(), Exit> {
    ///     let journal = std::fs::read_to_string("journal").map_err(Exit::state_failed)?;
    ///     context.logger().info(format!("{} orders", journal.lines().count()));
    ///     Ok(())
    /// }
    /// # let test = mainstay::testing::Context::new::<&str>([]);
    /// assert_eq!(orders(test.service()).unwrap_err().exit_code().get(), 201);
    /// ```
    pub fn state_failed<'a>(cause: impl Into<Box<dyn Error + 'a>>) -> Self {
        Self::new(STATE_FAILED, cause)
    }

    /// Creates the exit of a service whose dependency is temporarily unavailable: 202. Mainstay
    /// starts the service again after 100 ms, then at growing intervals, five times. For other
    /// managers, it is a failure like any other, after which they restart the service.
    ///
    /// ```
    /// use std::net::TcpStream;
    ///
    /// use mainstay::Exit;
    ///
    /// fn connect(database: &str) -> Result<TcpStream, Exit> {
    ///     TcpStream::connect(database).map_err(Exit::unavailable)
    /// }
    /// assert_eq!(connect("127.0.0.1:1").unwrap_err().exit_code().get(), 202);
    /// ```
    pub fn unavailable<'a>(cause: impl Into<Box<dyn Error + 'a>>) -> Self {
        Self::new(UNAVAILABLE, cause)
    }

    /// Creates the exit of a service that a signal from 1 to 127 has ended: 128 + the signal. For a
    /// program that passes on the end of a child process.
    ///
    /// ```
    /// use mainstay::Exit;
    ///
    /// const SIGKILL: u8 = 9;
    /// assert_eq!(Exit::terminated(SIGKILL).exit_code().get(), 137);
    /// ```
    #[must_use]
    pub const fn terminated(signal: u8) -> Self {
        Self::code(NonZeroU32::MIN.saturating_add(127 + signal as u32))
    }

    /// Returns the exit code.
    ///
    /// ```
    /// use mainstay::Exit;
    ///
    /// assert_eq!(Exit::from("no queue").exit_code().get(), 1);
    /// ```
    #[must_use]
    pub const fn exit_code(&self) -> NonZeroU32 {
        self.code
    }

    /// Returns the cause and its sources, in one line.
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

/// Formats an error and its sources in one line, from the operation down to the root cause. A
/// source is skipped if the line already ends with its text, because some errors print their own
/// source.
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
