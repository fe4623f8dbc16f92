//! Flushing, for logs whose lines are to survive a loss of power.

use std::io;

use super::super::disk::Disk;
use super::super::report::{Report, Task, file_error};
use super::LogFile;

impl<D: Disk> LogFile<D> {
    /// Flushes each file before it is rotated, so that [`LogFile::sync`] flushes everything.
    pub(crate) fn durable(mut self) -> Self {
        self.is_durable = true;
        self
    }

    /// Flushes the current file, so that its content survives a loss of power. Blocks as long as
    /// the disk does.
    pub(crate) fn sync(&mut self) {
        let Some(current) = &self.current else { return };
        let name = || -> io::Result<()> {
            // The directory may be new, too, and so may its parent.
            let mut dirs = self.dir.ancestors().take(3);
            dirs.try_for_each(|dir| self.disk.sync_dir(dir))
        };
        let synced = self
            .disk
            .sync(&current.file)
            .and_then(|()| if self.has_new_name { name() } else { Ok(()) });
        self.has_new_name &= synced.is_err();
        let failure = synced.err();
        let failure = failure.map(|error| file_error("flush", &self.path, error));
        let report = Report::of_change(Task::Writing, &mut self.sync_fails, failure);
        self.reports.extend(report);
    }

    /// Returns whether a failure was reported, and no recovery yet.
    pub(crate) fn fails(&self) -> bool {
        self.losing.is_some() || self.rotation_fails || self.sync_fails
    }
}
