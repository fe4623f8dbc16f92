//! A line of output with its metadata.

use crate::spec::Level;

/// A line of a service, as it is sent to a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// The time at which the line was read, in nanoseconds since 1970, UTC.
    pub time_ns: u64,
    /// The level recognized in the line; `None` if there is none.
    pub level: Option<Level>,
    /// The stream that the line was written to; `None` if unknown.
    pub stream: Option<Stream>,
    /// The process ID of the service's main process; 0 if unknown.
    pub pid: u32,
    /// The number of restarts of the service.
    pub restart: u32,
    /// The contents of the line without its end; arbitrary bytes.
    pub message: &'a [u8],
    /// Set if the line was too long. The rest follows as separate lines.
    pub partial: bool,
}

impl Line<'_> {
    /// Returns the severity for syslog and the journal. A line without a level is `info` on either
    /// stream, because many programs write all their output to stderr.
    pub fn severity(&self) -> u8 {
        match self.level {
            Some(Level::Error) => 3,
            Some(Level::Warn) => 4,
            Some(Level::Info) | None => 6,
            Some(Level::Debug | Level::Trace) => 7,
        }
    }
}

/// An output stream of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the usual names")]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    /// Both streams.
    pub const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// Returns `stdout` or `stderr`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}
