//! The way back: what is in a log, and what is added to it, across rotated and compressed files.
//!
//! Nothing here needs the supervisor. [`Log`] is the files as they are now, `search` finds the bytes of them that were asked for (by seeking, as
//! far as that goes), `lines` hands them out, and [`Position`] is the place to go on from. A compressed file is read as a stream, with
//! bounded memory. Of times only what a line, an index or a name says is believed; what is not known is shown rather than left out.

mod files;
mod follow;
mod index;
mod lines;
mod search;
#[cfg_attr(
    any(target_os = "linux", target_os = "android"),
    path = "read/inotify.rs"
)]
mod watch;

pub(crate) use files::Log;
pub(crate) use follow::{Followed, Position, Sink, follow};
pub(crate) use lines::{Lines, Time};
pub(crate) use search::{Keep, Query, Range, without_end};

/// How much is looked at in one step.
const BLOCK: usize = 64 << 10;
/// How far clocks may differ, in microseconds: the one of a line, of a file's name, of the file system.
const SLACK: u64 = 1_000_000;

#[cfg(unix)]
#[cfg(test)]
mod tests;
