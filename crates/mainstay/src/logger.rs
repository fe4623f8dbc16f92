//! The system log, under the service's name.
//!
//! Messages go to the Event Log under the Windows Service Control Manager, to the journal under
//! systemd, to syslog under other managers, and to standard error on a terminal and under Mainstay,
//! which keeps its own log of it. Messages that a log does not accept go to standard error. The
//! journal and syslog are line-based: each line of a message is one entry. In the Event Log, a
//! message is one event.

#[cfg(any(windows, test))]
mod event_log;
#[cfg(unix)]
mod syslog;

use std::fmt;
use std::sync::Arc;

use crate::Manager;
use crate::event::{Event, Severity};

/// A writer for the system log: for messages to an operator who never opens the service's own logs.
/// It is cheap to clone.
///
/// No method waits for a log, fails or panics. Messages that the log does not accept at once go to
/// standard error. Event IDs and event fields are documented in `docs/event-log.md`.
///
/// ```
/// use std::time::Duration;
///
/// use mainstay::testing::{self, Said};
///
/// fn check_disk(log: &mainstay::Logger, free: u64) {
///     if free < 1_000_000 {
///         log.warn(format!("{free} bytes are free"));
///     }
/// }
///
/// let test = testing::Context::new::<&str>([]);
/// check_disk(test.service().logger(), 512);
/// let said = test.next(Duration::ZERO);
/// assert_eq!(said, Some(Said::Warning("512 bytes are free".into())));
/// ```
#[derive(Clone)]
pub struct Logger(Arc<dyn Sink>);

/// A log entry: an event, its message and its numeric fields.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) event: Event,
    pub(crate) message: &'a str,
    #[cfg_attr(
        not(any(windows, test)),
        expect(dead_code, reason = "lines have no room for them")
    )]
    fields: &'a [(&'a str, u64)],
}

/// A destination for log entries.
pub(crate) trait Sink: Send + Sync {
    fn log(&self, entry: &Entry<'_>);
}

impl Logger {
    pub(crate) fn new(name: &str, manager: Manager) -> Self {
        Self(sink(name, manager))
    }

    /// Creates a logger that writes to `sink`.
    pub(crate) fn to(sink: impl Sink + 'static) -> Self {
        Self(Arc::new(sink))
    }

    /// Returns the system log for a program that was not started by a service manager: the local
    /// syslog daemon, which may be the journal. Returns `None` if no daemon listens, if standard
    /// error is already connected to the journal, and on Windows, where only a registered source
    /// may write to the Event Log.
    ///
    /// ```no_run
    /// if let Some(log) = mainstay::Logger::of_system("orders") {
    ///     log.info("started by hand");
    /// }
    /// ```
    pub fn of_system(name: &str) -> Option<Self> {
        system_log(name).map(Self)
    }

    /// Logs an informational message.
    ///
    /// ```
    /// let test = mainstay::testing::Context::new(["high"]);
    /// test.service().logger().info("3 tenants");
    /// ```
    pub fn info(&self, message: impl AsRef<str>) {
        self.event(Event::Information, message.as_ref(), &[]);
    }

    /// Logs a warning: a problem that does not stop the service.
    ///
    /// ```
    /// let test = mainstay::testing::Context::new(["high"]);
    /// test.service().logger().warn("the disk is almost full");
    /// ```
    pub fn warn(&self, message: impl AsRef<str>) {
        self.event(Event::Warning, message.as_ref(), &[]);
    }

    /// Logs an error.
    ///
    /// ```
    /// let test = mainstay::testing::Context::new(["high"]);
    /// test.service().logger().error("the disk is full");
    /// ```
    pub fn error(&self, message: impl AsRef<str>) {
        self.event(Event::Error, message.as_ref(), &[]);
    }

    /// Logs a lifecycle event of the service. `fields` are numbers for log collectors, with
    /// lower-case names.
    pub(crate) fn event(&self, event: Event, message: &str, fields: &[(&str, u64)]) {
        self.0.log(&Entry {
            event,
            message,
            fields,
        });
    }
}

impl fmt::Debug for Logger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Logger").finish()
    }
}

#[cfg(unix)]
fn sink(name: &str, manager: Manager) -> Arc<dyn Sink> {
    match manager {
        Manager::Systemd if is_journal(std::env::var("JOURNAL_STREAM").ok().as_deref()) => {
            Arc::new(Stderr { has_levels: true })
        }
        Manager::Systemd
        | Manager::Launchd
        | Manager::OpenRc
        | Manager::Sysv
        | Manager::Upstart
        | Manager::Procd => Arc::new(syslog::Syslog::new(name)),
        _ => Arc::new(Stderr { has_levels: false }),
    }
}

#[cfg(unix)]
fn system_log(name: &str) -> Option<Arc<dyn Sink>> {
    let has_journal = is_journal(std::env::var("JOURNAL_STREAM").ok().as_deref());
    if has_journal || !syslog::listens() {
        return None;
    }
    Some(Arc::new(syslog::Syslog::new(name)))
}

#[cfg(windows)]
fn system_log(_name: &str) -> Option<Arc<dyn Sink>> {
    None
}

#[cfg(windows)]
fn sink(name: &str, manager: Manager) -> Arc<dyn Sink> {
    match manager {
        Manager::WindowsScm => Arc::new(event_log::EventLog::<crate::sys::event_log::Source>::new(
            name,
        )),
        _ => Arc::new(Stderr { has_levels: false }),
    }
}

/// Returns whether standard error is the stream that `JOURNAL_STREAM` identifies by device and
/// inode. A child process may inherit one without the other.
#[cfg(unix)]
fn is_journal(stream: Option<&str>) -> bool {
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::MetadataExt as _;
    let stderr = std::io::stderr().as_fd().try_clone_to_owned();
    let metadata = stderr.and_then(|fd| std::fs::File::from(fd).metadata());
    metadata.is_ok_and(|of| stream == Some(&format!("{}:{}", of.dev(), of.ino())))
}

/// Standard error. If it is connected to the journal, lines have level prefixes as in sd-daemon(3).
struct Stderr {
    has_levels: bool,
}

impl Sink for Stderr {
    fn log(&self, entry: &Entry<'_>) {
        // A reader of standard error sees starts and stops directly.
        if entry.event.is_expected() {
            return;
        }
        let level = match (self.has_levels, entry.event.severity()) {
            (false, _) => "",
            (true, Severity::Info) => "<6>",
            (true, Severity::Warning) => "<4>",
            (true, Severity::Error) => "<3>",
        };
        let text: String = entry
            .message
            .lines()
            .flat_map(|line| [level, line, "\n"])
            .collect();
        // A failed write to standard error cannot be reported.
        let _ = crate::terminal::write(std::io::stderr().lock(), &text);
    }
}

/// Writes an entry that a log did not accept to standard error.
fn fall_back(entry: &Entry<'_>) {
    Stderr { has_levels: false }.log(entry);
}
