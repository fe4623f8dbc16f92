//! Tests a service without a process, a manager or a signal.
//!
//! ```
//! use std::thread;
//! use std::time::Duration;
//!
//! use mainstay::testing::{self, Said};
//! use mainstay::{Context, Control, Exit, Stop};
//!
//! fn service(mut context: Context) -> Result<(), Exit> {
//!     context.logger().info("starting");
//!     loop {
//!         match context.wait() {
//!             Control::Stop(_) => return Ok(()),
//!             control => context.logger().info(format!("{control:?}")),
//!         }
//!     }
//! }
//!
//! let test = testing::Context::new(["--port", "0"]);
//! let context = test.service();
//! let running = thread::spawn(|| service(context));
//! let soon = Duration::from_secs(10);
//! assert_eq!(test.next(soon), Some(Said::Info("starting".into())));
//! assert_eq!(test.next(soon), Some(Said::Ready));
//! test.tell(Control::Stop(Stop::Requested));
//! assert_eq!(test.next(soon), Some(Said::Began(Control::Stop(Stop::Requested))));
//! assert!(running.join().unwrap().is_ok());
//! ```

use std::ffi::OsString;
use std::fmt;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::context::{self, Shared, Voice};
use crate::event::Severity;
use crate::logger::{Entry, Sink};
use crate::{Control, Logger, Manager};

/// The manager's end of a service's [`Context`](crate::Context): sends controls to the service, and
/// receives its reports and log messages.
///
/// ```
/// use std::thread;
/// use std::time::Duration;
///
/// use mainstay::testing::{self, Said};
/// use mainstay::{Control, Stop};
///
/// let test = testing::Context::new::<&str>([]);
/// let mut context = test.service();
/// let service = thread::spawn(move || while !matches!(context.wait(), Control::Stop(_)) {});
/// let soon = Duration::from_secs(10);
/// assert_eq!(test.next(soon), Some(Said::Ready));
/// assert!(test.tell(Control::Reload));
/// assert_eq!(test.next(soon), Some(Said::Began(Control::Reload)));
/// assert_eq!(test.next(soon), Some(Said::Did(Control::Reload)));
/// assert!(test.tell(Control::Stop(Stop::Requested)));
/// assert!(service.join().is_ok());
/// ```
pub struct Context {
    shared: Arc<Shared>,
    logger: Logger,
    arguments: Vec<OsString>,
    said: Mutex<Receiver<Said>>,
}

/// A report or log message of a service, in order.
///
/// ```
/// use std::time::Duration;
///
/// use mainstay::testing::{self, Said};
///
/// let test = testing::Context::new::<&str>([]);
/// test.service().status().text("serving");
/// assert_eq!(test.next(Duration::ZERO), Some(Said::Status("serving".into())));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Said {
    /// The service called [`Context::ready`](crate::Context::ready) or waited for its first
    /// control.
    Ready,
    /// The text of [`Status::text`](crate::Status::text).
    Status(String),
    /// A call of [`Status::alive`](crate::Status::alive).
    Alive,
    /// A call of [`Status::extend_timeout`](crate::Status::extend_timeout).
    ExtendTimeout(Duration),
    /// The service has received this control.
    Began(Control),
    /// The service has completed this control and asked for the next one.
    Did(Control),
    /// The message of [`Logger::info`].
    Info(String),
    /// The message of [`Logger::warn`].
    Warning(String),
    /// The message of [`Logger::error`].
    Error(String),
}

/// Forwards reports and log messages.
struct Recorder(Mutex<Sender<Said>>);

impl Context {
    /// Creates a manager that starts a service with these arguments.
    ///
    /// ```
    /// let test = mainstay::testing::Context::new(["--port", "0"]);
    /// assert_eq!(test.service().arguments().len(), 2);
    /// ```
    pub fn new<A: Into<OsString>>(arguments: impl IntoIterator<Item = A>) -> Self {
        let (sender, said) = mpsc::channel();
        let recorder = |sender| Recorder(Mutex::new(sender));
        Self {
            shared: Shared::new(recorder(sender.clone())),
            logger: Logger::to(recorder(sender)),
            arguments: arguments.into_iter().map(Into::into).collect(),
            said: Mutex::new(said),
        }
    }

    /// Returns the service's end, for [`Service::run`](crate::Service::run). Use one service per
    /// test: several contexts share their controls.
    ///
    /// ```
    /// let test = mainstay::testing::Context::new::<&str>([]);
    /// test.service().ready();
    /// ```
    pub fn service(&self) -> crate::Context {
        let (shared, logger) = (self.shared.clone(), self.logger.clone());
        crate::Context::new(shared, Manager::None, self.arguments.clone(), logger)
    }

    /// Sends a control to the service. Returns `false` if the service was already asked to stop.
    /// Does not block.
    ///
    /// ```
    /// use mainstay::{Control, Stop};
    ///
    /// let test = mainstay::testing::Context::new::<&str>([]);
    /// assert!(test.tell(Control::Stop(Stop::Requested)));
    /// assert!(!test.tell(Control::Reload));
    /// ```
    pub fn tell(&self, control: Control) -> bool {
        self.shared.tell(control)
    }

    /// Returns the service's next report or log message. Blocks for at most `timeout`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use mainstay::testing::{self, Said};
    ///
    /// let test = testing::Context::new::<&str>([]);
    /// test.service().logger().info("3 tenants");
    /// assert_eq!(test.next(Duration::ZERO), Some(Said::Info("3 tenants".into())));
    /// ```
    pub fn next(&self, timeout: Duration) -> Option<Said> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.recv_timeout(timeout).ok()
    }
}

impl Recorder {
    fn record(&self, said: Said) {
        // Fails only if the test has ended.
        let _ = self.0.lock().map(|sender| sender.send(said));
    }
}

impl Voice for Recorder {
    fn say(&self, said: context::Said<'_>) {
        self.record(match said {
            context::Said::Ready => Said::Ready,
            context::Said::Status(text) => Said::Status(text.to_owned()),
            context::Said::Alive => Said::Alive,
            context::Said::ExtendTimeout(by) => Said::ExtendTimeout(by),
            context::Said::Began(control) => Said::Began(control),
            context::Said::Did(control) => Said::Did(control),
        });
    }
}

impl Sink for Recorder {
    fn log(&self, entry: &Entry<'_>) {
        let message = entry.message.to_owned();
        self.record(match entry.event.severity() {
            Severity::Info => Said::Info(message),
            Severity::Warning => Said::Warning(message),
            Severity::Error => Said::Error(message),
        });
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("arguments", &self.arguments)
            .finish_non_exhaustive()
    }
}
