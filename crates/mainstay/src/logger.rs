//! The system's own log, under the service's name.
//!
//! Where an operator of the system would look: the Event Log under the Windows Service Control Manager; the journal under systemd; syslog
//! under other managers; standard error at a terminal and under mainstay, which keeps a log of it. What a log does not take goes to
//! standard error. The journal and syslog hold lines: there each line of a message is an entry. In the Event Log a message is one event.

mod event;
#[cfg(any(windows, test))]
mod event_log;
#[cfg(unix)]
mod syslog;

use std::fmt;
use std::sync::Arc;

pub(crate) use event::Event;
#[cfg(all(windows, feature = "message-table"))]
pub(crate) use event::for_each_event;
#[cfg(windows)]
pub(crate) use event_log::{Reporter, source_of};

use crate::Manager;

/// Writes to the log of the system: for what an operator should see who never opens the service's own logs. Cheap to clone.
///
/// Nothing here waits for a log, fails or panics: what the log does not take at once goes to standard error. Event ids, and what
/// collectors find in an event, are in `docs/event-log.md`.
#[derive(Clone)]
pub struct Logger(Arc<dyn Sink>);

/// How severe it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Severity {
    Info,
    Warning,
    Error,
}

/// What is logged: an event, in words, and its numbers.
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

/// Where it goes.
pub(crate) trait Sink: Send + Sync {
    fn log(&self, entry: &Entry<'_>);
}

impl Logger {
    pub(crate) fn new(name: &str, manager: Manager) -> Self {
        Self(sink(name, manager))
    }

    /// One that writes there.
    pub(crate) fn to(sink: impl Sink + 'static) -> Self {
        Self(Arc::new(sink))
    }

    /// The log of the system, for a program that no manager of the system has started: that of the local syslog daemon (the journal is one,
    /// too). `None` where none listens; where standard error is the journal, which has what the program says; and on Windows, where only a
    /// registered source may write to the Event Log.
    pub fn of_system(name: &str) -> Option<Self> {
        system_log(name).map(Self)
    }

    /// Something worth knowing.
    pub fn info(&self, message: impl AsRef<str>) {
        self.event(Event::Information, message.as_ref(), &[]);
    }

    /// Something is not as it should be; the service goes on.
    pub fn warn(&self, message: impl AsRef<str>) {
        self.event(Event::Warning, message.as_ref(), &[]);
    }

    /// Something failed.
    pub fn error(&self, message: impl AsRef<str>) {
        self.event(Event::Error, message.as_ref(), &[]);
    }

    /// What has become of the service. `fields` are numbers for collectors, under names in lower case.
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

/// Whether standard error is the stream that `JOURNAL_STREAM` names by device and inode: a child may have inherited the one without the other.
#[cfg(unix)]
fn is_journal(stream: Option<&str>) -> bool {
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::MetadataExt as _;
    let stderr = std::io::stderr().as_fd().try_clone_to_owned();
    let metadata = stderr.and_then(|fd| std::fs::File::from(fd).metadata());
    metadata.is_ok_and(|of| stream == Some(&format!("{}:{}", of.dev(), of.ino())))
}

/// Standard error; to the journal with levels, as sd-daemon(3) has them.
struct Stderr {
    has_levels: bool,
}

impl Sink for Stderr {
    fn log(&self, entry: &Entry<'_>) {
        // Whoever reads this sees the start and the stop itself.
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
        // Nobody is left to be told.
        let _ = crate::terminal::write(std::io::stderr().lock(), &text);
    }
}

/// For what a log has not taken.
fn fall_back(entry: &Entry<'_>) {
    Stderr { has_levels: false }.log(entry);
}
