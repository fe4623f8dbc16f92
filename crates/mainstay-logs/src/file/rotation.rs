//! Rotation of the current file: when it is due, the renaming, and the deletion of old files.

use std::io;

use mainstay_core::log::{CURRENT_INDEX, Stamp, next_boundary};
use mainstay_core::spec::{Compress, Retention, Zone};

use super::index::Index;
use super::{LogFile, copy};
use crate::compress::{Work, retain};
use crate::disk::Disk;
use crate::report::{FileError, Report, Task, file_error};

/// A time in the infinite future.
pub(super) const NEVER: Stamp = Stamp::from_unix_micros(u64::MAX);
/// The maximum distance of a boundary; a larger one means that the clock was set back.
const LONGEST_DAY: u64 = 48 * 3600 * 1_000_000;
/// The growth allowed after a failed rotation before the next attempt; each failure doubles it.
pub(super) const FIRST_PAUSE: u64 = 64 << 10;
const LAST_PAUSE: u64 = 64 << 20;

impl<D: Disk> LogFile<D> {
    /// Begins a new file with the next line. An empty file is left as it is. Reports lost output in
    /// the log before, if the disk allows that again.
    pub(crate) fn rotate(&mut self) -> Result<(), FileError> {
        self.batch = None;
        self.recover(&[]);
        self.named = None;
        let extent = match self.current {
            Some(_) => Some(self.ready()?),
            None => None,
        };
        let renamed = self.current.as_ref().is_some_and(|c| c.renamed);
        match extent {
            Some(extent) if extent.size == 0 && !renamed => Ok(()),
            Some(extent) if extent.mid_line => {
                self.rotate_at = self.rotate_at.min(extent.size);
                Ok(())
            }
            _ => self.try_rotate(),
        }
    }

    /// Returns when a file that was written at `time` is to be followed by another.
    pub(super) fn boundary_after(&self, time: Stamp) -> Stamp {
        match self.limits.every {
            None => NEVER,
            Some((every, Zone::Utc)) => next_boundary(time, every, |_| 0),
            Some((every, Zone::Local)) => next_boundary(time, every, self.clock.utc_offset),
        }
    }

    /// Schedules a rotation before the next line if another hour or day has begun.
    pub(super) fn check_due(&mut self, size: u64) {
        if self.due == NEVER {
            return;
        }
        let now = self.now();
        if now >= self.due && size > 0 {
            self.rotate_at = self.rotate_at.min(size);
        }
        let ahead = self.due.unix_micros().saturating_sub(now.unix_micros());
        if ahead == 0 || ahead > LONGEST_DAY {
            self.due = self.boundary_after(now);
        }
    }

    /// Rotates now. On failure, reports it once and lets the file grow before the next attempt.
    pub(super) fn try_rotate(&mut self) -> Result<(), FileError> {
        let result = self.rename_and_reopen();
        match &result {
            Ok(()) => {
                self.rotate_at = self.limits.rotate;
                self.pause = FIRST_PAUSE;
                let now = self.now();
                self.due = self.boundary_after(now);
                let mut keep = self.limits.keep;
                if let Some(upto) = self.last_stamp
                    && self.limits.compress != Compress::None
                {
                    // The total size is only known when all files are compressed.
                    keep.size = None;
                    self.tidy(upto);
                }
                let removed = self.remove_oldest(keep);
                self.report_rotation(removed.err());
            }
            Err(failure) => {
                let size = self.size();
                self.rotate_at = size.saturating_add(self.pause);
                self.pause = (self.pause * 2).min(LAST_PAUSE);
                let error = copy(&failure.error);
                self.report_rotation(Some(file_error(failure.operation, &failure.path, error)));
            }
        }
        result
    }

    /// Renames the current file and opens a new one. If only the second step fails, the old file
    /// continues to be written under its rotated name, which is still the newest.
    fn rename_and_reopen(&mut self) -> Result<(), FileError> {
        if self.is_durable {
            self.sync();
        }
        let renamed = self.current.as_ref().is_some_and(|c| c.renamed);
        if !renamed {
            self.rename_current()?;
            if let Some(current) = &mut self.current {
                current.renamed = true;
            }
        }
        let make = self.disk.make_dir(&self.dir);
        make.map_err(|error| file_error("create", &self.dir, error))?;
        let (current, _) = self.open_current()?;
        self.current = Some(current);
        self.has_new_name = true;
        Ok(())
    }

    /// Renames the current file and its index. The index is renamed first: an index without its
    /// file is found and deleted, but one next to another file would mislead readers.
    fn rename_current(&mut self) -> Result<(), FileError> {
        let stamp = (self.clock.now)().after(self.last_stamp);
        let index_path = self.dir.join(CURRENT_INDEX);
        let to_index_path = self.dir.join(stamp.index_name());
        let is_gone = |error: io::Error| error.kind() == io::ErrorKind::NotFound;
        if !self
            .disk
            .rename(&index_path, &to_index_path)
            .is_err_and(|error| !is_gone(error))
        {
            self.index = Index::default();
        } else {
            self.drop_index();
        }
        let to_path = self.dir.join(stamp.file_name());
        match self.disk.rename(&self.path, &to_path) {
            Ok(()) => {
                self.last_stamp = Some(stamp);
                self.rotated += 1;
                Ok(())
            }
            // The file or its directory was removed by another program: begin a new file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let _a_round_will = self.disk.remove(&to_index_path);
                Ok(())
            }
            Err(error) => {
                if self.disk.rename(&to_index_path, &index_path).is_err() {
                    let _a_round_will = self.disk.remove(&to_index_path);
                }
                Err(file_error("rotate", &self.path, error))
            }
        }
    }

    /// Deletes rotated files that exceed the retention limits. Only files with names of rotated
    /// logs are deleted.
    pub(super) fn remove_oldest(&mut self, keep: Retention) -> Result<(), FileError> {
        let by_count_only = keep.size.is_none() && keep.age.is_none();
        let is_enough = |files| self.rotated <= u64::from(files);
        if by_count_only && keep.files.is_none_or(is_enough) {
            return Ok(());
        }
        let now = self.now();
        self.rotated = retain(&self.disk, &self.dir, &keep, now)?;
        Ok(())
    }

    /// Requests compression and cleanup of files that were rotated at `upto` or before.
    pub(super) fn tidy(&mut self, upto: Stamp) {
        let now = self.now();
        (self.rotated_to)(Work {
            dir: self.dir.clone(),
            compress: self.limits.compress,
            keep: self.limits.keep,
            upto,
            now,
        });
    }

    pub(super) fn report_rotation(&mut self, failure: Option<FileError>) {
        let report = Report::of_change(Task::Rotation, &mut self.rotation_fails, failure);
        self.reports.extend(report);
    }
}
