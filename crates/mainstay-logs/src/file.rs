//! The log files of one service.
//!
//! The bytes go to `current.log` unchanged. If the next line would exceed the size limit or belongs
//! to another day, the file is renamed to the time of its rotation, and a new one is begun. A line
//! that does not end is cut for that (`LINE_MAX`). Bytes are never refused: bytes that the disk
//! does not accept are counted, in whole lines, and reported in the log as soon as a write succeeds
//! again. Failed operations are retried with the next bytes, never by a timer, and reported once.
//!
//! The file is not open for appending, because splice(2) cannot write to such a file, so each write
//! specifies its offset. The file's status is checked before each write, which detects truncation
//! or additions by other programs, unless they happen in the microsecond between the check and the
//! write. At most once a second the file is compared with the file that has its name: if another
//! program has renamed it, as logrotate does, it is closed at the end of a line.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use mainstay_core::log::{
    CURRENT, CURRENT_INDEX, Extent, Head, Mark, Stamp, files, fitting, next_boundary,
};
use mainstay_core::spec::{Compress, Every, LogFormat, LogPolicy, Retention, Zone};
use mainstay_sys as sys;

use super::compress::{Work, is_untidy, retain};
use super::disk::{Disk, stamp};

/// The maximum length of a torn line that is cut off again, so that the log contains whole lines
/// only. A longer one is kept as evidence.
const TORN_MAX: u64 = 64 << 10;
/// A time in the infinite future.
const NEVER: Stamp = Stamp::from_unix_micros(u64::MAX);
/// The maximum distance of a boundary; a larger one means that the clock was set back.
const LONGEST_DAY: u64 = 48 * 3600 * 1_000_000;
/// The minimum time between two entries of the index.
const INDEX_STEP: u64 = 1_000_000;
/// The minimum time between two comparisons of the current file with the one that has its name.
const MOVE_STEP: u64 = 1_000_000;
/// The growth allowed after a failed rotation before the next attempt; each failure doubles it.
const FIRST_PAUSE: u64 = 64 << 10;
const LAST_PAUSE: u64 = 64 << 20;

/// The rotation, compression and retention settings of a service's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// The maximum size of a file in bytes; `u64::MAX` means no limit.
    pub(super) rotate: u64,
    /// The interval, if files are rotated at the first line of another hour or day.
    pub(super) every: Option<(Every, Zone)>,
    /// Set if files are rotated at the first line after the log is opened.
    pub(super) at_start: bool,
    /// The retention of rotated files, not counting the current one.
    pub(super) keep: Retention,
    /// The compression of rotated files.
    pub(super) compress: Compress,
    /// Set if an index records when lines were written, because the lines contain no time.
    pub(super) index: bool,
}

impl Limits {
    /// One file without a limit.
    #[cfg(test)]
    pub(super) const ENDLESS: Self = Self {
        rotate: u64::MAX,
        every: None,
        at_start: false,
        keep: Retention {
            files: None,
            size: None,
            age: None,
        },
        compress: Compress::None,
        index: false,
    };

    /// Rotation by size.
    #[cfg(test)]
    pub(super) fn of_size(rotate: u64, keep: u32) -> Self {
        Self {
            rotate,
            keep: Retention {
                files: Some(keep),
                ..Retention::default()
            },
            ..Self::ENDLESS
        }
    }
}

impl From<&LogPolicy> for Limits {
    fn from(policy: &LogPolicy) -> Self {
        let rotate = policy.rotate();
        Self {
            rotate: rotate.size.unwrap_or(u64::MAX),
            every: rotate.every,
            at_start: rotate.at_start,
            keep: policy.keep(),
            compress: policy.compress(),
            index: policy.format() == LogFormat::Raw,
        }
    }
}

/// The sources of the current time, and of the seconds by which local time is ahead of UTC.
#[derive(Clone, Copy)]
struct Clock {
    now: fn() -> Stamp,
    utc_offset: fn(i64) -> i32,
}

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

/// The amount of output that never reached the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Bytes of the service's own output.
    pub bytes: u64,
    /// Line ends among them.
    pub lines: u64,
}

impl Lost {
    fn count(&mut self, bytes: &[u8]) {
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

/// The open current file.
struct Current<F> {
    file: F,
    size: u64,
    /// The end of the file; `None` if it was not read since others wrote.
    end: Option<End>,
    /// The offset after which all content was written through this value.
    ours: u64,
    /// Set if the file has another name, after a rotation here or by another program. A new current
    /// file is still missing then.
    renamed: bool,
}

/// The end of a file.
#[derive(Clone, Copy)]
struct End {
    mid_line: bool,
    /// The start of the last line, if known.
    line_start: Option<u64>,
}

/// The state of the current file's index.
#[derive(Default)]
struct Index {
    /// The time of the last entry. `None` if it is unknown or there is none, so that the next write
    /// adds one.
    last: Option<Stamp>,
    /// Set if an index of another file may exist, because it could not be deleted.
    stale: bool,
    /// Set once the last entry has been read.
    checked: bool,
}

/// The range in which another writer may write the service's output itself; see [`LogFile::room`].
#[cfg(any(target_os = "linux", test))]
pub(super) struct Room<'a, F> {
    /// The current file. It is not open for appending.
    pub(super) file: &'a F,
    /// The offset of the next byte: the end of the file.
    pub(super) offset: u64,
    /// The number of bytes that may be written before a decision about rotation. If 0, use
    /// [`LogFile::write`].
    pub(super) bytes: u64,
}

/// The state while bytes are being lost.
struct Losing {
    lost: Lost,
    error: io::Error,
    /// Set if the last lost byte was inside a line, whose rest is lost with it.
    mid_line: bool,
}

/// Output that was lost and is not yet reported in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreported {
    pub(super) lost: Lost,
    /// See [`Losing::mid_line`].
    pub(super) mid_line: bool,
    /// The system's error number, if the cause has one.
    pub(super) error: Option<i32>,
}

/// The log of one service on a disk. Drop loses nothing except a message about lost output that has
/// not been written yet; see [`LogFile::finish`].
pub(super) struct LogFile<D: Disk> {
    disk: D,
    clock: Clock,
    dir: PathBuf,
    path: PathBuf,
    limits: Limits,
    current: Option<Current<D::File>>,
    /// The size at which the current file is rotated: the limit, or more after a failed rotation.
    rotate_at: u64,
    /// The growth allowed after the next failed rotation.
    pause: u64,
    /// The time from which the current file is to be rotated.
    due: Stamp,
    /// The time of the current batch of bytes, once it was needed.
    batch: Option<Stamp>,
    /// The time when the current file was last seen under its name.
    named: Option<Stamp>,
    index: Index,
    /// Set once the directory has been scanned since the start.
    opened: bool,
    /// Set if the previous writer of the file will not continue, until its last line is ended.
    ends_line: bool,
    /// The receiver of compression rounds through the directory.
    rotated_to: Box<dyn FnMut(Work) + Send>,
    last_stamp: Option<Stamp>,
    /// The number of rotated files, unless others deleted some.
    rotated: u64,
    rotation_fails: bool,
    losing: Option<Losing>,
    lost: Lost,
    reports: Vec<Report>,
}

impl<D: Disk> LogFile<D> {
    /// Creates a log in `dir`, which is created with the first byte. Failures are reported by
    /// [`LogFile::reports`]. `compressor` is called whenever there are files to compress or to
    /// clean up, and must not block.
    pub(super) fn new(
        disk: D,
        dir: PathBuf,
        limits: Limits,
        compressor: impl FnMut(Work) + Send + 'static,
    ) -> Self {
        let clock = Clock {
            now: || stamp(SystemTime::now()),
            utc_offset: sys::utc_offset,
        };
        Self::with_clock(disk, dir, limits, Box::new(compressor), clock)
    }

    fn with_clock(
        disk: D,
        dir: PathBuf,
        limits: Limits,
        compressor: Box<dyn FnMut(Work) + Send>,
        clock: Clock,
    ) -> Self {
        Self {
            disk,
            clock,
            rotated_to: compressor,
            due: NEVER,
            batch: None,
            named: None,
            index: Index::default(),
            opened: false,
            ends_line: false,
            path: dir.join(CURRENT),
            dir,
            limits,
            current: None,
            rotate_at: limits.rotate,
            pause: FIRST_PAUSE,
            last_stamp: None,
            rotated: 0,
            rotation_fails: false,
            losing: None,
            lost: Lost::default(),
            reports: Vec::new(),
        }
    }

    /// Returns the directory of the files.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Creates the directory and the file now, instead of with the first byte, so that disk
    /// failures are reported now.
    pub(super) fn prepare(&mut self) {
        if self.losing.is_some() {
            self.recover(&[]);
        } else if let Err(file_error) = self.ready() {
            self.lose(&[], file_error);
        }
    }

    /// Marks the last line of the file as final, because its writer no longer exists.
    pub(super) fn is_of_new_writers(&mut self) {
        self.ends_line = true;
    }

    /// Returns the lost output that the log does not report yet.
    pub(super) fn unreported(&self) -> Option<Unreported> {
        let losing = self.losing.as_ref()?;
        Some(Unreported {
            lost: losing.lost,
            mid_line: losing.mid_line,
            error: losing.error.raw_os_error(),
        })
    }

    /// Takes over the losses that an earlier writer of these files could not report.
    pub(super) fn inherit(&mut self, unreported: Unreported) {
        let Unreported {
            lost,
            mid_line,
            error,
        } = unreported;
        let unknown = || io::Error::other("the disk did not take them");
        let error = error.map_or_else(unknown, io::Error::from_raw_os_error);
        let failing = file_error("write", &self.path, copy(&error));
        self.reports.push(Report::Failing(Task::Writing, failing));
        self.losing = Some(Losing {
            lost,
            error,
            mid_line,
        });
    }

    /// Returns the reports since the last call.
    pub(super) fn reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }

    /// Returns the total output lost so far.
    pub(super) fn lost(&self) -> Lost {
        let mut lost = self.lost;
        if let Some(losing) = &self.losing {
            lost += losing.lost;
        }
        lost
    }

    /// Returns whether the service's last byte was not the end of a line. Reads the file if others
    /// wrote it.
    pub(super) fn mid_line(&mut self) -> bool {
        match &self.losing {
            Some(losing) => losing.mid_line,
            None => self.current.is_some() && self.extent().is_ok_and(|extent| extent.mid_line),
        }
    }

    /// Appends output. Blocks as long as the disk does.
    pub(super) fn write(&mut self, mut bytes: &[u8]) {
        self.batch = None;
        if self.losing.is_some() {
            bytes = self.recover(bytes);
        }
        self.append(bytes);
    }

    /// Begins a new file with the next line. An empty file is left as it is. Reports lost output in
    /// the log before, if the disk allows that again.
    pub(super) fn rotate(&mut self) -> Result<(), FileError> {
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

    /// Reports lost output in the log that has not been reported yet.
    pub(super) fn finish(&mut self) {
        if let Some(losing) = &mut self.losing {
            losing.mid_line = false;
            self.recover(&[]);
        }
    }

    /// Ends a line that its writer left unfinished, before another writer continues.
    pub(super) fn end_line(&mut self) {
        if self.mid_line() {
            self.write(b"\n");
        }
    }

    fn append(&mut self, mut bytes: &[u8]) {
        if let (Some(losing), Some(last)) = (&mut self.losing, bytes.last()) {
            losing.lost.count(bytes);
            losing.mid_line = *last != b'\n';
            return;
        }
        while !bytes.is_empty() {
            let extent = match self.ready() {
                Ok(extent) => extent,
                Err(file_error) => return self.lose(bytes, file_error),
            };
            self.check_due(extent.size);
            let taken = fitting(extent, self.rotate_at, bytes);
            if taken == 0 {
                // On failure the file gets more room, so that the loop ends.
                let _reported = self.try_rotate();
                continue;
            }
            match self.put(&bytes[..taken]) {
                Ok(()) => {
                    if self.wants_mark() {
                        let line_start = match memchr::memchr(b'\n', &bytes[..taken]) {
                            _ if !extent.mid_line => Some(extent.size),
                            end => end.map(|end| extent.size + end as u64 + 1),
                        };
                        line_start.into_iter().for_each(|at| self.mark(at));
                    }
                    bytes = &bytes[taken..];
                }
                Err((done, file_error)) => return self.lose(&bytes[done..], file_error),
            }
        }
    }

    fn size(&self) -> u64 {
        self.current.as_ref().map_or(0, |current| current.size)
    }

    /// Ensures that there is a current file with a name, and determines its length and end: others
    /// may have truncated it.
    fn ready(&mut self) -> Result<Extent, FileError> {
        self.look()?;
        self.extent()
    }

    /// Does the same as [`LogFile::ready`], but without reading the end.
    fn look(&mut self) -> Result<(), FileError> {
        self.look_at_current()?;
        if self.ends_line {
            if self.extent()?.mid_line {
                self.put(b"\n").map_err(|(_, file_error)| file_error)?;
            }
            self.ends_line = false;
        }
        Ok(())
    }

    fn look_at_current(&mut self) -> Result<(), FileError> {
        if let Some(current) = &mut self.current {
            let status = self.disk.status(&current.file);
            let status = status.map_err(|error| file_error("read", &self.path, error))?;
            if status.named {
                let before = std::mem::replace(&mut current.size, status.size);
                if status.size != before {
                    current.end = None;
                    current.ours = status.size;
                }
                if status.size < before {
                    self.drop_index();
                    // The rotation is still due.
                    if self.rotate_at < self.limits.rotate {
                        self.rotate_at = status.size;
                    }
                }
                self.notice_move();
                return Ok(());
            }
            self.current = None;
        }
        self.open()
    }

    /// Schedules a rotation after the current line, if another program has renamed the current
    /// file.
    fn notice_move(&mut self) {
        let now = self.now();
        let is_recent = |named: Stamp| named.unix_micros().abs_diff(now.unix_micros()) < MOVE_STEP;
        if self.named.is_some_and(is_recent) {
            return;
        }
        self.named = Some(now);
        let Some(current) = self.current.as_mut().filter(|current| !current.renamed) else {
            return;
        };
        // If this cannot be determined now, a later check will do it.
        if let Ok(false) = self.disk.is_at(&current.file, &self.path) {
            current.renamed = true;
            self.rotate_at = self.rotate_at.min(current.size);
            self.drop_index();
        }
    }

    /// Returns how the current file ends, and reads the end if it is not known.
    fn extent(&mut self) -> Result<Extent, FileError> {
        let Some(current) = &mut self.current else {
            return Ok(Extent::default());
        };
        let size = current.size;
        let end = match current.end {
            Some(end) => end,
            None => {
                let mut last = [b'\n'];
                if size > 0 {
                    let read = self.disk.read_at(&current.file, &mut last, size - 1);
                    read.map_err(|error| file_error("read", &self.path, error))?;
                }
                let mid_line = last != [b'\n'];
                let line_start = (!mid_line).then_some(size);
                *current.end.insert(End {
                    mid_line,
                    line_start,
                })
            }
        };
        Ok(Extent {
            size,
            mid_line: end.mid_line,
        })
    }

    fn open(&mut self) -> Result<(), FileError> {
        let make = self.disk.make_dir(&self.dir);
        make.map_err(|error| file_error("create", &self.dir, error))?;
        let names = self.disk.names(&self.dir);
        let names = names.map_err(|error| file_error("read", &self.dir, error))?;
        let rotated = files(names.iter().map(String::as_str));
        // Includes the names of leftover files, so that no name is used twice.
        let stamps = names.iter().map(|name| Stamp::of_any_name(name));
        self.last_stamp = self.last_stamp.max(stamps.max().flatten());
        self.rotated = rotated.len() as u64;
        let (current, modified) = self.open_current()?;
        let (size, now) = (current.size, self.now());
        self.current = Some(current);
        self.index = Index::default();
        if size == 0 {
            self.drop_index();
        }
        let written = modified.filter(|_| size > 0).unwrap_or(now);
        self.due = self.boundary_after(written.min(now));
        if !std::mem::replace(&mut self.opened, true) {
            if self.limits.at_start && size > 0 {
                self.rotate_at = self.rotate_at.min(size);
            }
            if let Some(upto) = self.last_stamp {
                if is_untidy(&names, self.limits.compress, upto) {
                    self.tidy(upto);
                } else {
                    let removed = self.remove_oldest(self.limits.keep);
                    self.report_rotation(removed.err());
                }
            }
        }
        Ok(())
    }

    /// Opens the file with the current name, creating it if necessary, and returns when it was last
    /// written.
    fn open_current(&self) -> Result<(Current<D::File>, Option<Stamp>), FileError> {
        let open = self.disk.open(&self.path);
        let file = open.map_err(|error| file_error("open", &self.path, error))?;
        let status = self.disk.status(&file);
        let status = status.map_err(|error| file_error("read", &self.path, error))?;
        let current = Current {
            file,
            size: status.size,
            end: None,
            ours: status.size,
            renamed: false,
        };
        Ok((current, status.modified))
    }

    /// Returns the time of the current batch.
    fn now(&mut self) -> Stamp {
        *self.batch.get_or_insert_with(self.clock.now)
    }

    /// Returns when a file that was written at `time` is to be followed by another.
    fn boundary_after(&self, time: Stamp) -> Stamp {
        match self.limits.every {
            None => NEVER,
            Some((every, Zone::Utc)) => next_boundary(time, every, |_| 0),
            Some((every, Zone::Local)) => next_boundary(time, every, self.clock.utc_offset),
        }
    }

    /// Schedules a rotation before the next line if another hour or day has begun.
    fn check_due(&mut self, size: u64) {
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

    /// Returns whether the index needs an entry for the bytes written now.
    fn wants_mark(&mut self) -> bool {
        if !self.limits.index {
            return false;
        }
        let now = self.now().unix_micros();
        let next = |last: Stamp| last.unix_micros().saturating_add(INDEX_STEP);
        self.index.last.is_none_or(|last| now >= next(last))
    }

    /// Records in the index that a line at `offset` was written now. The index only speeds up
    /// reading: without it, readers search longer.
    fn mark(&mut self, offset: u64) {
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
    fn drop_index(&mut self) {
        let removed = self.disk.remove(&self.dir.join(CURRENT_INDEX));
        let is_gone = removed
            .err()
            .is_none_or(|error| error.kind() == io::ErrorKind::NotFound);
        self.index = Index {
            stale: !is_gone,
            ..Index::default()
        };
    }

    /// Requests compression and cleanup of files that were rotated at `upto` or before.
    fn tidy(&mut self, upto: Stamp) {
        let now = self.now();
        (self.rotated_to)(Work {
            dir: self.dir.clone(),
            compress: self.limits.compress,
            keep: self.limits.keep,
            upto,
            now,
        });
    }

    /// Writes all of `bytes` to the current file; on failure, returns the number of bytes written.
    fn put(&mut self, bytes: &[u8]) -> Result<(), (usize, FileError)> {
        let mut done = 0;
        let fail = |done, error| Err((done, file_error("write", &self.path, error)));
        let Some(current) = &mut self.current else {
            return fail(done, io::ErrorKind::NotFound.into());
        };
        while done < bytes.len() {
            let rest = &bytes[done..];
            match self.disk.write_at(&current.file, rest, current.size) {
                Ok(0) => return fail(done, io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    let written = &bytes[done..done + count];
                    let known = current.end.and_then(|end| end.line_start);
                    let begun = memchr::memrchr(b'\n', written);
                    current.end = Some(End {
                        mid_line: !written.ends_with(b"\n"),
                        line_start: begun.map(|end| current.size + end as u64 + 1).or(known),
                    });
                    current.size += count as u64;
                    done += count;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return fail(done, error),
            }
        }
        Ok(())
    }

    /// Starts counting losses: `bytes`, and the torn line before them if it can be cut off.
    fn lose(&mut self, bytes: &[u8], file_error: FileError) {
        let mut losing = Losing {
            lost: Lost::default(),
            error: copy(&file_error.error),
            mid_line: !bytes.is_empty() && !bytes.ends_with(b"\n"),
        };
        losing.lost.count(bytes);
        if let (Some(line_start), false) = (self.torn_line(), bytes.is_empty())
            && let Some(current) = &mut self.current
            && self.disk.truncate(&current.file, line_start).is_ok()
        {
            losing.lost.bytes += current.size - line_start;
            current.size = line_start;
            self.index.checked = false;
            current.end = Some(End {
                mid_line: false,
                line_start: Some(line_start),
            });
        }
        self.losing = Some(losing);
        self.reports
            .push(Report::Failing(Task::Writing, file_error));
    }

    /// Returns where the unfinished last line begins, if it is short and was written entirely by
    /// this process, so that it can be cut off.
    fn torn_line(&self) -> Option<u64> {
        let current = self.current.as_ref()?;
        let oldest = current.size.saturating_sub(TORN_MAX);
        match current.end {
            Some(End {
                mid_line: false, ..
            }) => return None,
            Some(End {
                line_start: Some(line_start),
                ..
            }) => return Some(line_start).filter(|start| *start >= oldest),
            _ => {}
        }
        let oldest = oldest.max(current.ours);
        // Another writer wrote the line on behalf of this one, so the line begins after the end of
        // another line, or at the start of the file.
        let from = oldest.saturating_sub(1);
        let mut bytes = vec![0; usize::try_from(current.size - from).ok()?];
        let read = self.disk.read_at(&current.file, &mut bytes, from).ok()?;
        if read < bytes.len() {
            return None;
        }
        let line_start = match memchr::memrchr(b'\n', &bytes) {
            Some(end) => Some(from + end as u64 + 1),
            None => (oldest == 0).then_some(0),
        };
        line_start.filter(|start| *start < current.size)
    }

    /// Tries to write again: the message about the loss, then the lines of `bytes` that fit. Either
    /// all of it is written and the rest is returned, or nothing is written and all of `bytes` is
    /// lost too. Otherwise a disk with room for the message alone would fill with messages.
    fn recover<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(mut losing) = self.losing.take() else {
            return bytes;
        };
        let end_of_lost = match memchr::memchr(b'\n', bytes) {
            _ if !losing.mid_line => 0,
            Some(end) => end + 1,
            None => bytes.len(),
        };
        let (rest_of_line, rest) = bytes.split_at(end_of_lost);
        losing.lost.count(rest_of_line);
        losing.mid_line &= !rest_of_line.ends_with(b"\n");
        match self.try_recover(&losing, rest) {
            Some(taken) => {
                self.lost += losing.lost;
                let recovered = Report::Recovered(Task::Writing, losing.lost);
                self.reports.push(recovered);
                &rest[taken..]
            }
            None => {
                losing.lost.count(rest);
                if !bytes.is_empty() {
                    losing.mid_line = !bytes.ends_with(b"\n");
                }
                self.losing = Some(losing);
                &[]
            }
        }
    }

    fn try_recover(&mut self, losing: &Losing, bytes: &[u8]) -> Option<usize> {
        if losing.mid_line {
            return None;
        }
        let before = self.ready().ok()?;
        let end = self.current.as_ref()?.end;
        let mut message = Vec::new();
        if losing.lost.bytes > 0 {
            if before.mid_line {
                message.push(b'\n');
            }
            let Lost { bytes, lines } = losing.lost;
            let error = &losing.error;
            message.extend(
                format!("mainstay: {bytes} bytes ({lines} lines) were lost: {error}\n").bytes(),
            );
        }
        let extent = Extent {
            size: before.size + message.len() as u64,
            mid_line: before.mid_line && message.is_empty(),
        };
        // 0 means "rotate first", which the next append does.
        let taken = fitting(extent, self.rotate_at, bytes);
        let put = self.put(&message).and_then(|()| self.put(&bytes[..taken]));
        if put.is_err() {
            let current = self.current.as_mut()?;
            if self.disk.truncate(&current.file, before.size).is_ok() {
                self.index.checked = false;
                current.size = before.size;
                current.end = end;
            }
        }
        put.ok().map(|()| taken)
    }

    /// Rotates now. On failure, reports it once and lets the file grow before the next attempt.
    fn try_rotate(&mut self) -> Result<(), FileError> {
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

    fn report_rotation(&mut self, failure: Option<FileError>) {
        let failed_before = std::mem::replace(&mut self.rotation_fails, failure.is_some());
        match failure {
            Some(file_error) if !failed_before => {
                self.reports
                    .push(Report::Failing(Task::Rotation, file_error));
            }
            None if failed_before => {
                let recovered = Report::Recovered(Task::Rotation, Lost::default());
                self.reports.push(recovered);
            }
            _ => {}
        }
    }

    /// Renames the current file and opens a new one. If only the second step fails, the old file
    /// continues to be written under its rotated name, which is still the newest.
    fn rename_and_reopen(&mut self) -> Result<(), FileError> {
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
    fn remove_oldest(&mut self, keep: Retention) -> Result<(), FileError> {
        let by_count_only = keep.size.is_none() && keep.age.is_none();
        let is_enough = |files| self.rotated <= u64::from(files);
        if by_count_only && keep.files.is_none_or(is_enough) {
            return Ok(());
        }
        let now = self.now();
        self.rotated = retain(&self.disk, &self.dir, &keep, now)?;
        Ok(())
    }
}

/// Methods for writers that write to the file themselves.
#[cfg(any(target_os = "linux", test))]
impl<D: Disk> LogFile<D> {
    /// Returns where and how many bytes of the service's output another writer may write into the
    /// current file, with splice(2) or another call that avoids a copy. The writer then calls
    /// [`LogFile::wrote`]. Nothing else may write between these two calls, but the writer may write
    /// fewer bytes, or none.
    ///
    /// The bytes may begin and end anywhere in a line. Where the room ends, [`LogFile::write`]
    /// takes the rest of the line and then rotates, so a file may exceed its limit by up to one
    /// line (`LINE_MAX`). There is no room while output is being lost, nor when the next line
    /// belongs to another file; `write` handles both cases. After an error of this call, or of the
    /// writer's own write (which wrote only the bytes that it reported), use `write`, which retries
    /// the operation and counts losses.
    pub(super) fn room(&mut self) -> Result<Room<'_, D::File>, FileError> {
        self.batch = None;
        self.look()?;
        let size = self.size();
        self.check_due(size);
        let room = self.rotate_at.saturating_sub(size);
        let bytes = if self.losing.is_some() { 0 } else { room };
        match &self.current {
            Some(current) => Ok(Room {
                file: &current.file,
                offset: size,
                bytes,
            }),
            None => Err(file_error(
                "open",
                &self.path,
                io::ErrorKind::NotFound.into(),
            )),
        }
    }

    /// Records that another writer has written this many bytes at [`Room::offset`]. Their end is
    /// read when it is needed.
    pub(super) fn wrote(&mut self, bytes: u64) {
        let Some(current) = self.current.as_mut().filter(|_| bytes > 0) else {
            return;
        };
        let start = current.size;
        current.size += bytes;
        current.end = None;
        if self.wants_mark()
            && let Some(offset) = self.line_start_after(start)
        {
            self.mark(offset);
        }
    }

    /// Returns the start of the first line at `offset` or soon after it.
    fn line_start_after(&self, offset: u64) -> Option<u64> {
        let Some(before) = offset.checked_sub(1) else {
            return Some(0);
        };
        // After a longer line, the next write gets the entry.
        let mut bytes = [0; 4 << 10];
        let file = &self.current.as_ref()?.file;
        let count = self.disk.read_at(file, &mut bytes, before).ok()?;
        let end = memchr::memchr(b'\n', bytes.get(..count)?)?;
        Some(offset + end as u64)
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

/// Creates an equivalent error, because `io::Error` cannot be cloned.
fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

#[cfg(target_os = "linux")]
impl LogFile<super::disk::RealDisk> {
    /// Returns the inode of the current file, and the offset of the next byte.
    pub(super) fn place(&mut self) -> Result<(u64, u64), FileError> {
        use std::os::unix::fs::MetadataExt as _;
        self.look()?;
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let current = self.current.as_ref().ok_or_else(gone);
        let found = current.and_then(|current| current.file.metadata());
        let found = found.map_err(|error| file_error("read", &self.path, error))?;
        Ok((found.ino(), self.size()))
    }
}

#[cfg(test)]
mod tests;
