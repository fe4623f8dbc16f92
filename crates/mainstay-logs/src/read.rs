//! Reading of a log, and of lines added to it, across rotated and compressed files.
//!
//! Nothing here needs the supervisor. [`Log`] is the set of files at one moment, `search` finds the
//! requested bytes (by seeking, as far as possible), `lines` returns them, and [`Position`] is the
//! place from which to continue. A compressed file is read as a stream, with bounded memory. Times
//! are taken only from a line, an index or a file name. Lines of unknown time are shown rather than
//! omitted.

use std::time::Duration;

mod files;
mod follow;
mod index;
mod lines;
mod part;
mod search;
#[cfg_attr(
    any(target_os = "linux", target_os = "android"),
    path = "read/inotify.rs"
)]
mod watch;

pub use files::{Damage, Log};
pub use follow::{Followed, Position, Sink, follow};
pub use lines::{Lines, Time};
pub use part::without_end;
pub use search::{Keep, Query, Range};

/// The number of bytes processed in one step.
const BLOCK: usize = 64 << 10;
/// The interval between checks for a missing file, and for changes where files cannot be watched.
const PAUSE: Duration = Duration::from_millis(50);
/// The maximum difference between clocks, in microseconds: those of a line, a file's name, and the
/// file system.
const SLACK: u64 = 1_000_000;

#[cfg(unix)]
#[cfg(test)]
mod tests;
