//! A line of output and what is known about it.

use crate::spec::Level;

/// A line of a service, on its way to a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// When it was read: nanoseconds since 1970, UTC.
    pub time_ns: u64,
    /// How severe it says it is; `None` where it says nothing.
    pub level: Option<Level>,
    /// Which of the two it was written to; `None` where that is not known.
    pub stream: Option<Stream>,
    /// The service's main process; 0 where that is not known.
    pub pid: u32,
    /// How often the service had been restarted.
    pub restart: u32,
    /// Without its end; any bytes.
    pub message: &'a [u8],
    /// It was too long: the rest follows as lines of their own.
    pub partial: bool,
}

impl Line<'_> {
    /// The severity of syslog and of the journal. A line that says nothing is `info`, whichever stream it came by: many programs write
    /// all they have to say to stderr.
    pub fn severity(&self) -> u8 {
        match self.level {
            Some(Level::Error) => 3,
            Some(Level::Warn) => 4,
            Some(Level::Info) | None => 6,
            Some(Level::Debug | Level::Trace) => 7,
        }
    }
}

/// Where a program writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the usual names")]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    /// `stdout` or `stderr`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}
