//! Testing a service without a process, a manager or a signal.
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
use crate::logger::{Entry, Severity, Sink};
use crate::{Control, Logger, Manager};

/// The manager's end of a service's [`Context`](crate::Context): tells the service what a test wants, and receives what it says and logs.
pub struct Context {
    shared: Arc<Shared>,
    logger: Logger,
    arguments: Vec<OsString>,
    said: Mutex<Receiver<Said>>,
}

/// What a service says or logs, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Said {
    /// [`Context::ready`](crate::Context::ready), or the first request for a control.
    Ready,
    /// [`Status::text`](crate::Status::text).
    Status(String),
    /// [`Status::alive`](crate::Status::alive).
    Alive,
    /// [`Status::extend_timeout`](crate::Status::extend_timeout).
    ExtendTimeout(Duration),
    /// It has received this control.
    Began(Control),
    /// It has completed this control: it asked for the next one.
    Did(Control),
    /// [`Logger::info`].
    Info(String),
    /// [`Logger::warn`].
    Warning(String),
    /// [`Logger::error`].
    Error(String),
}

/// Passes on what is said.
struct Recorder(Mutex<Sender<Said>>);

impl Context {
    /// A manager that starts a service with these arguments.
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

    /// The service's end, for [`Service::run`](crate::Service::run). There is one service to a test: several of these share their controls.
    pub fn service(&self) -> crate::Context {
        let (shared, logger) = (self.shared.clone(), self.logger.clone());
        crate::Context::new(shared, Manager::None, self.arguments.clone(), logger)
    }

    /// Tells the service this; `false` if it was told to stop before. Does not block.
    pub fn tell(&self, control: Control) -> bool {
        self.shared.tell(control)
    }

    /// What the service says or logs next. Blocks for `timeout` at most.
    pub fn next(&self, timeout: Duration) -> Option<Said> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.recv_timeout(timeout).ok()
    }
}

impl Recorder {
    fn record(&self, said: Said) {
        // Fails only where the test has ended.
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
