//! Reports about the files of a log: failed operations, the tasks that fail and recover, and the
//! output that was lost.

use std::path::{Path, PathBuf};
use std::{fmt, io};

/// A failed file operation, such as `write /var/lib/mainstay/logs/orders/current.log`, with the
/// system's error as its source.
#[derive(Debug)]
pub struct FileError {
    /// The operation, as a verb: write, open, rotate or delete.
    pub operation: &'static str,
    /// The path of the file.
    pub path: PathBuf,
    /// The system's error.
    pub error: io::Error,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operation, self.path.display())
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Creates the error of a failed `operation` on `path`.
pub(super) fn file_error(operation: &'static str, path: &Path, error: io::Error) -> FileError {
    FileError {
        operation,
        path: path.to_path_buf(),
        error,
    }
}

/// The tasks of a log. Each fails and recovers by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    /// Appending output to the current file.
    Writing,
    /// Renaming the current file, and deleting old ones.
    Rotation,
    /// Compressing rotated files.
    Compression,
}

impl Task {
    /// Returns what a log does again after this task has recovered.
    pub fn again(self) -> &'static str {
        match self {
            Self::Writing => "its log is written again",
            Self::Rotation => "its log is rotated again",
            Self::Compression => "its rotated logs are compressed again",
        }
    }
}

/// A change in the state of a log.
#[derive(Debug)]
pub(super) enum Report {
    /// An operation fails. Sent once, until a [`Report::Recovered`] of the same task.
    Failing(Task, FileError),
    /// The task works again; this much never reached the disk. Only writing can lose output.
    Recovered(Task, Lost),
}

impl Report {
    /// Returns the report if the task begins to fail, or works again. `fails` tells whether it
    /// failed before.
    pub(super) fn of_change(
        task: Task,
        fails: &mut bool,
        failure: Option<FileError>,
    ) -> Option<Self> {
        let failed_before = std::mem::replace(fails, failure.is_some());
        match failure {
            Some(file_error) => (!failed_before).then_some(Self::Failing(task, file_error)),
            None => failed_before.then_some(Self::Recovered(task, Lost::default())),
        }
    }
}

/// The amount of output that never reached the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Bytes of the service's own output.
    pub bytes: u64,
    /// Line ends among them.
    pub lines: u64,
}

impl Lost {
    pub(super) fn count(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.lines += memchr::memchr_iter(b'\n', bytes).count() as u64;
    }
}

impl std::ops::AddAssign for Lost {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.lines += other.lines;
    }
}
