//! The index of the current file, which records when lines were written.

use std::io;

use mainstay_core::log::{CURRENT_INDEX, Head, Mark, Stamp};

use super::LogFile;
use crate::disk::Disk;

/// The minimum time between two entries of the index.
const INDEX_STEP: u64 = 1_000_000;

/// The state of the current file's index.
#[derive(Default)]
pub(super) struct Index {
    /// The time of the last entry. `None` if it is unknown or there is none, so that the next write
    /// adds one.
    pub(super) last: Option<Stamp>,
    /// Set if an index of another file may exist, because it could not be deleted.
    pub(super) stale: bool,
    /// Set once the last entry has been read.
    pub(super) checked: bool,
}

impl<D: Disk> LogFile<D> {
    /// Returns whether the index needs an entry for the bytes written now.
    pub(super) fn wants_mark(&mut self) -> bool {
        if !self.limits.index {
            return false;
        }
        let now = self.now().unix_micros();
        let next = |last: Stamp| last.unix_micros().saturating_add(INDEX_STEP);
        self.index.last.is_none_or(|last| now >= next(last))
    }

    /// Records in the index that a line at `offset` was written now. The index only speeds up
    /// reading: without it, readers search longer.
    pub(super) fn mark(&mut self, offset: u64) {
        // A line at the end of the file is recorded once it exists.
        if offset >= self.size() {
            return;
        }
        // The batch may have begun before the rotation whose stamp ends the previous file.
        let time = self.now().after(self.last_stamp);
        if self.index.stale {
            self.drop_index();
        }
        self.index.last = Some(time);
        let renamed = self.current.as_ref().is_none_or(|c| c.renamed);
        if !self.index.stale && !renamed {
            let _searched_longer = self.try_mark(Mark { offset, time });
        }
    }

    fn try_mark(&mut self, mark: Mark) -> io::Result<()> {
        const SIZE: u64 = Mark::SIZE as u64;
        let file = self.disk.open(&self.dir.join(CURRENT_INDEX))?;
        // A torn last entry is overwritten. The first one is the head.
        let mut count = self.disk.status(&file)?.size / SIZE;
        if count > 0 && !self.index.checked {
            let mut head = [0; Head::SIZE];
            let read = self.disk.read_at(&file, &mut head, 0)?;
            let head = Head::from_bytes(head).filter(|_| read == Head::SIZE);
            let first = self.first_bytes()?;
            if !head.is_some_and(|head| head.is_of(&first)) {
                // The index of a file that was replaced.
                self.disk.truncate(&file, 0)?;
                count = 0;
            }
        }
        if count > 1 && !self.index.checked {
            let mut last = [0; Mark::SIZE];
            let read = self.disk.read_at(&file, &mut last, (count - 1) * SIZE)?;
            let last = Mark::from_bytes(last);
            if read < Mark::SIZE || last.offset > mark.offset {
                // The file is shorter than when this entry was written.
                self.disk.truncate(&file, SIZE)?;
                count = 1;
            } else if last.offset == mark.offset || last.time >= mark.time {
                return Ok(());
            }
        }
        if count == 0 {
            let head = Head::of(&self.first_bytes()?).to_bytes();
            if self.disk.write_at(&file, &head, 0)? < head.len() {
                return self.disk.truncate(&file, 0);
            }
            count = 1;
        }
        self.index.checked = true;
        let written = self.disk.write_at(&file, &mark.to_bytes(), count * SIZE)?;
        if written < Mark::SIZE {
            self.disk.truncate(&file, count * SIZE)?;
        }
        Ok(())
    }

    /// Reads the first bytes of the current file, as far as a head needs them.
    fn first_bytes(&self) -> io::Result<Vec<u8>> {
        let mut first = vec![0; Head::MOST];
        let count = match &self.current {
            Some(current) => self.disk.read_at(&current.file, &mut first, 0)?,
            None => 0,
        };
        first.truncate(count);
        Ok(first)
    }

    /// Deletes the index, because it was written for another file.
    pub(super) fn drop_index(&mut self) {
        let removed = self.disk.remove(&self.dir.join(CURRENT_INDEX));
        let is_gone = removed
            .err()
            .is_none_or(|error| error.kind() == io::ErrorKind::NotFound);
        self.index = Index {
            stale: !is_gone,
            ..Index::default()
        };
    }
}
