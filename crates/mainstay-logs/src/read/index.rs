//! The sparse time index of a file, read by binary search, so that the length of the file does not
//! matter.

use std::fs::File;
use std::path::Path;

use mainstay_sys::guarded;

use mainstay_core::log::{Head, Mark, Stamp};

use super::part::read_exact_at;

/// A time index. It may be missing, short, or torn, and then narrows a search less. Entries that do
/// not ascend narrow nothing. One that was written for another file is not opened.
pub(super) struct Index {
    file: File,
    count: u64,
}

/// The entries around a time in a file.
pub(super) struct Bracket {
    /// The last entry that is older than the time, or equal to it. The time lies after it.
    pub(super) before: Option<Mark>,
    /// The first entry that is younger, or equal to it.
    pub(super) after: Option<Mark>,
}

impl Index {
    /// Opens the index of the file whose first bytes, at most this many, `first` returns.
    pub(super) fn open(path: &Path, first: impl FnOnce(usize) -> Option<Vec<u8>>) -> Option<Self> {
        let file = guarded::file(path).ok()?;
        let size = file.metadata().ok()?.len();
        let count = size.saturating_sub(Head::SIZE as u64) / Mark::SIZE as u64;
        let mut head = [0; Head::SIZE];
        read_exact_at(&file, &mut head, 0).ok()?;
        let head = Head::from_bytes(head)?;
        let is_its = head.is_of(&first(head.length())?);
        (is_its && count > 0).then_some(Self { file, count })
    }

    pub(super) fn try_clone(&self) -> Option<Self> {
        let file = self.file.try_clone().ok()?;
        Some(Self {
            file,
            count: self.count,
        })
    }

    pub(super) fn first(&self) -> Option<Mark> {
        self.mark(0)
    }

    pub(super) fn last(&self) -> Option<Mark> {
        self.mark(self.count - 1)
    }

    /// Returns an entry; `None` beyond the last one, and for one that cannot be read.
    pub(super) fn mark(&self, number: u64) -> Option<Mark> {
        if number >= self.count {
            return None;
        }
        let mut bytes = [0; Mark::SIZE];
        let offset = Head::SIZE as u64 + number * Mark::SIZE as u64;
        read_exact_at(&self.file, &mut bytes, offset).ok()?;
        Some(Mark::from_bytes(bytes))
    }

    /// Returns the number of entries at the beginning that satisfy `is_before`.
    pub(super) fn count_before(&self, is_before: impl Fn(Mark) -> bool) -> u64 {
        let (mut from, mut to) = (0, self.count);
        while from < to {
            let middle = from + (to - from) / 2;
            match self.mark(middle) {
                Some(mark) if is_before(mark) => from = middle + 1,
                _ => to = middle,
            }
        }
        from
    }

    pub(super) fn bracket(&self, time: u64) -> Bracket {
        let time = Stamp::from_unix_micros(time);
        let number = self.count_before(|mark| mark.time < time);
        let after = self.mark(number);
        let before = match after {
            Some(mark) if mark.time == time => after,
            _ if number == 0 => None,
            _ => self.mark(number - 1),
        };
        let ascends = before.zip(after).is_none_or(|(before, after)| {
            before == after || (before.offset < after.offset && before.time < after.time)
        });
        if ascends {
            Bracket { before, after }
        } else {
            Bracket {
                before: None,
                after: None,
            }
        }
    }
}
