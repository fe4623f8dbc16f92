//! Snapshots: the state that is copied, and when.

use std::path::PathBuf;
use std::time::Duration;

use super::Argv;

/// The snapshot policy: the state to copy, and when to copy it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotPolicy {
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) keep: SnapshotKeep,
    pub(crate) when: SnapshotWhen,
    pub(crate) after: Duration,
    pub(crate) every: Option<Duration>,
    pub(crate) max_size: u64,
    pub(crate) still: Still,
}

impl SnapshotPolicy {
    /// The default of [`SnapshotPolicy::max_size`].
    pub const MAX_SIZE: u64 = 64_000_000_000;

    /// Returns absolute directories, none of which contains another. If empty, snapshots cover the
    /// service's own directory, `MAINSTAY_DATA_DIR`.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }
    /// Returns the retention rules for snapshots.
    pub fn keep(&self) -> SnapshotKeep {
        self.keep
    }
    /// Returns the trigger for snapshots, in addition to updates, commands and
    /// [`SnapshotPolicy::every`].
    pub fn when(&self) -> SnapshotWhen {
        self.when
    }
    /// Returns the time for which the service must have been continuously ready to count as
    /// healthy.
    pub fn after(&self) -> Duration {
        self.after
    }
    /// Returns the interval between snapshots while the service is healthy; `None` disables
    /// periodic snapshots.
    pub fn every(&self) -> Option<Duration> {
        self.every
    }
    /// Returns the maximum size of each directory in bytes, including holes of sparse files. Larger
    /// directories are not copied.
    pub fn max_size(&self) -> u64 {
        self.max_size
    }
    /// Returns the way to keep the state consistent while it is copied.
    pub fn still(&self) -> &Still {
        &self.still
    }
}

/// The retention rules for snapshots. A snapshot is kept if every rule allows it; the newest stable
/// one is always kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SnapshotKeep {
    /// The number of most recent snapshots to keep, at least 1.
    pub count: Option<u32>,
    /// The maximum age of a snapshot.
    pub age: Option<Duration>,
}

/// The way to keep a service's state consistent while it is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Still {
    /// No measures. Files that change during the copy are detected.
    Nothing,
    /// All processes of the service are suspended.
    Pause,
    /// Commands that run in the service's directory and environment and as its account; exit code 0
    /// is success.
    Commands {
        /// The command to run before the copy.
        quiesce: Argv,
        /// The command to run after the copy, even if the snapshot failed.
        thaw: Option<Argv>,
    },
}

/// The trigger for snapshots, in addition to updates and commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotWhen {
    /// After the service has been healthy for a while, if its state has changed since the last
    /// snapshot.
    Healthy,
    /// No other trigger.
    Manual,
}
