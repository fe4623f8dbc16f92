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

mod durable;
mod index;
mod loss;
mod rotation;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use mainstay_core::log::{CURRENT, Extent, Stamp, files, fitting};
use mainstay_core::spec::{Compress, Every, LogFormat, LogPolicy, Retention, Zone};
use mainstay_sys as sys;

use self::index::Index;
use self::loss::Losing;
use self::rotation::{FIRST_PAUSE, NEVER};
use super::compress::{Work, is_untidy};
use super::disk::{Disk, stamp};
use super::report::{FileError, Lost, Report, file_error};

pub(super) use self::loss::Unreported;

/// The minimum time between two comparisons of the current file with the one that has its name.
const MOVE_STEP: u64 = 1_000_000;

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
    is_durable: bool,
    /// Set if a loss of power may take the name of the current file away.
    has_new_name: bool,
    sync_fails: bool,
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
            is_durable: false,
            has_new_name: false,
            sync_fails: false,
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

    /// Returns the reports since the last call.
    pub(super) fn reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
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
        self.has_new_name = true;
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
