//! One service's files: bytes in, lines on disk.
//!
//! The bytes go to `current.log` as they are. Where the next line would pass the limit, the file is renamed to the time of its rotation and a
//! new one begun. Nothing here ever refuses bytes: what the disk does not take is counted, whole lines at a time, and said in the log
//! as soon as it takes something again. Failures are tried again with the next bytes, never by a timer, and reported once.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use mainstay_core::log::{CURRENT, Extent, Stamp, fitting};
use mainstay_core::spec::LogPolicy;

use super::disk::Disk;

/// A torn line up to this long is cut off again, so that the log holds whole lines only; more than that is kept as evidence.
const TORN_MAX: u64 = 64 << 10;
/// The start of a line that others have begun: beyond every size, so that nothing of it is ever cut off.
const UNKNOWN: u64 = u64::MAX;
/// Notes that wait for the end of a line, in bytes.
/// After a failed rotation the file may grow by this much before the next try; each failure doubles it.
const FIRST_PAUSE: u64 = 64 << 10;
const LAST_PAUSE: u64 = 64 << 20;

/// When a service's files are rotated, and how many stay.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes in a file; `u64::MAX` is no limit.
    pub(super) rotate: u64,
    /// Rotated files beside the current one.
    pub(super) keep: u32,
}

impl From<&LogPolicy> for Limits {
    fn from(policy: &LogPolicy) -> Self {
        Self {
            rotate: policy.rotate().unwrap_or(u64::MAX),
            keep: policy.keep(),
        }
    }
}

/// A file operation that failed: `write /var/lib/mainstay/logs/orders/current.log`, with the system's error as its source.
#[derive(Debug)]
pub(crate) struct Trouble {
    /// A verb: write, open, rotate, delete.
    pub(crate) operation: &'static str,
    /// What it was done to.
    pub(crate) path: PathBuf,
    /// What the system said.
    pub(crate) error: io::Error,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operation, self.path.display())
    }
}

impl std::error::Error for Trouble {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// What became of a log, besides lines.
#[derive(Debug)]
pub(super) enum Report {
    /// Said once, until a [`Report::Recovered`].
    Failing(Trouble),
    /// It works again; this much never reached the disk.
    Recovered(Lost),
}

/// What never reached the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Bytes of the service's own output.
    pub(crate) bytes: u64,
    /// Ends of lines among them.
    pub(crate) lines: u64,
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
    extent: Extent,
    /// Where its last line begins, or [`UNKNOWN`].
    line_start: u64,
    /// It has already got its rotated name; what is missing is a new current file.
    renamed: bool,
}

/// Bytes are being lost.
struct Losing {
    lost: Lost,
    error: io::Error,
    /// The last lost byte was inside a line, whose rest is lost with it.
    mid_line: bool,
}

/// One service's log on a disk. Dropping it loses nothing but [`LogFile::note`]s that wait for the end of a line: see [`LogFile::finish`].
pub(super) struct LogFile<D: Disk> {
    disk: D,
    clock: fn() -> Stamp,
    dir: PathBuf,
    path: PathBuf,
    limits: Limits,
    current: Option<Current<D::File>>,
    /// The size at which the current file is rotated: the limit, or beyond it after a failed rotation.
    rotate_at: u64,
    /// How much a file grows after the next failed rotation.
    pause: u64,
    last_stamp: Option<Stamp>,
    /// Rotated files, unless somebody deleted some.
    rotated: u64,
    rotation_fails: bool,
    losing: Option<Losing>,
    lost: Lost,
    reports: Vec<Report>,
}

pub(super) struct Room<'a> { pub(super) file: &'a std::fs::File, pub(super) offset: u64, pub(super) bytes: u64 }
impl LogFile<super::disk::RealDisk> {
    pub(super) fn dir(&self) -> &Path { &self.dir }
    pub(super) fn room(&mut self) -> Option<Room<'_>> {
        if self.losing.is_some() { return None; }
        let extent = self.ready().ok()?;
        let room = self.rotate_at.saturating_sub(extent.size);
        let current = self.current.as_ref()?;
        Some(Room { file: &current.file, offset: extent.size, bytes: room })
    }
    pub(super) fn wrote(&mut self, bytes: u64) {
        let Some(current) = &mut self.current else { return };
        current.extent.size += bytes;
        let last = self.disk.last_byte(&mut current.file).unwrap_or(b'\n');
        current.extent.mid_line = last != b'\n';
        current.line_start = if current.extent.mid_line { UNKNOWN } else { current.extent.size };
    }
    pub(super) fn place(&mut self) -> Result<(u64, u64), Trouble> {
        use std::os::unix::fs::MetadataExt as _;
        let extent = self.ready()?;
        let inode = self.current.as_ref().and_then(|c| Some(c.file.metadata().ok()?.ino())).unwrap_or(0);
        Ok((inode, extent.size))
    }
}

impl<D: Disk> LogFile<D> {
    /// A log in `dir`, which is made at once; failures come as reports.
    pub(super) fn new(disk: D, dir: PathBuf, limits: Limits) -> Self {
        let clock = || {
            let since_1970 = SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default();
            Stamp::from_unix_micros(u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX))
        };
        Self::with_clock(disk, dir, limits, clock)
    }

    fn with_clock(disk: D, dir: PathBuf, limits: Limits, clock: fn() -> Stamp) -> Self {
        Self {
            disk,
            clock,
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

    /// Makes the directory and the file now, instead of with the first byte, so that what the disk refuses is said now.
    pub(super) fn prepare(&mut self) {
        if self.losing.is_none()
            && let Err(trouble) = self.ready()
        {
            self.lose(&[], trouble);
        }
    }

    /// Takes other limits from the next bytes on.
    pub(super) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.rotate_at = limits.rotate;
    }

    /// What happened since the last call.
    pub(super) fn reports(&mut self) -> std::vec::Drain<'_, Report> {
        self.reports.drain(..)
    }

    /// Everything that was lost so far.
    pub(super) fn lost(&self) -> Lost {
        let mut lost = self.lost;
        if let Some(losing) = &self.losing {
            lost += losing.lost;
        }
        lost
    }

    /// The service's last byte was not the end of a line.
    pub(super) fn mid_line(&self) -> bool {
        match &self.losing {
            Some(losing) => losing.mid_line,
            None => self.current.as_ref().is_some_and(|c| c.extent.mid_line),
        }
    }

    /// Appends output. Blocks as long as the disk does.
    pub(super) fn write(&mut self, mut bytes: &[u8]) {
        if self.losing.is_some() {
            bytes = self.recover(bytes);
        }
        self.append(bytes);
    }

    /// Begins a new file with the next line. An empty file is left alone.
    pub(super) fn rotate(&mut self) -> Result<(), Trouble> {
        match &self.current {
            Some(current) if current.extent.size == 0 => Ok(()),
            Some(current) if current.extent.mid_line => {
                self.rotate_at = 0;
                Ok(())
            }
            _ => self.try_rotate(),
        }
    }

    /// Says what was lost and has not been said yet.
    pub(super) fn finish(&mut self) {
        if let Some(losing) = &mut self.losing {
            losing.mid_line = false;
            self.recover(&[]);
        }
    }

    /// Ends a line that its writer left unfinished, before another writer goes on.
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
                Err(trouble) => return self.lose(bytes, trouble),
            };
            let taken = fitting(extent, self.rotate_at, bytes);
            if taken == 0 {
                // On failure the file is given more room, so that this ends.
                let _reported = self.try_rotate();
                continue;
            }
            match self.put(&bytes[..taken]) {
                Ok(()) => bytes = &bytes[taken..],
                Err((done, trouble)) => return self.lose(&bytes[done..], trouble),
            }
        }
    }

    /// Makes sure that there is a current file with a name, and looks how long it is: others may have cut it.
    fn ready(&mut self) -> Result<Extent, Trouble> {
        if let Some(current) = &mut self.current {
            let status = self.disk.status(&current.file);
            let status = status.map_err(|error| trouble("read", &self.path, error))?;
            if status.named {
                if status.size != current.extent.size {
                    current.line_start = if status.size == 0 { 0 } else { UNKNOWN };
                    current.extent.mid_line &= status.size > 0;
                    current.extent.size = status.size;
                }
                return Ok(current.extent);
            }
            self.current = None;
        }
        self.open()
    }

    fn open(&mut self) -> Result<Extent, Trouble> {
        let make = self.disk.make_dir(&self.dir);
        make.map_err(|error| trouble("create", &self.dir, error))?;
        let stamps = self.stamps()?;
        self.last_stamp = self.last_stamp.max(stamps.iter().max().map(|s| s.0));
        self.rotated = stamps.len() as u64;
        let mut current = self.open_current()?;
        if current.extent.size > 0 {
            let last = self.disk.last_byte(&mut current.file);
            let last = last.map_err(|error| trouble("read", &self.path, error))?;
            if last != b'\n' {
                current.extent.mid_line = true;
                current.line_start = UNKNOWN;
            }
        }
        Ok(self.current.insert(current).extent)
    }

    /// The file under the current name, made where there is none; how its last line ends is not looked at.
    fn open_current(&self) -> Result<Current<D::File>, Trouble> {
        let open = self.disk.open(&self.path);
        let file = open.map_err(|error| trouble("open", &self.path, error))?;
        let status = self.disk.status(&file);
        let status = status.map_err(|error| trouble("read", &self.path, error))?;
        Ok(Current {
            file,
            extent: Extent {
                size: status.size,
                mid_line: false,
            },
            line_start: status.size,
            renamed: false,
        })
    }

    fn stamps(&self) -> Result<Vec<(Stamp, String)>, Trouble> {
        let names = self.disk.names(&self.dir);
        let names = names.map_err(|error| trouble("read", &self.dir, error))?;
        let stamped = |name: String| Some((Stamp::of_file_name(&name)?, name));
        Ok(names.into_iter().filter_map(stamped).collect())
    }

    /// Writes all of `bytes` to the current file, or says how many it took.
    fn put(&mut self, bytes: &[u8]) -> Result<(), (usize, Trouble)> {
        let mut done = 0;
        let fail = |done, error| Err((done, trouble("write", &self.path, error)));
        let Some(current) = &mut self.current else {
            return fail(done, io::ErrorKind::NotFound.into());
        };
        while done < bytes.len() {
            match self.disk.write(&mut current.file, &bytes[done..]) {
                Ok(0) => return fail(done, io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    let written = &bytes[done..done + count];
                    if let Some(end) = memchr::memrchr(b'\n', written) {
                        current.line_start = current.extent.size + end as u64 + 1;
                    }
                    current.extent.size += count as u64;
                    current.extent.mid_line = !written.ends_with(b"\n");
                    done += count;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return fail(done, error),
            }
        }
        Ok(())
    }

    /// Begins to lose: `bytes`, and the torn line before them if it can be cut off.
    fn lose(&mut self, bytes: &[u8], trouble: Trouble) {
        let mut losing = Losing {
            lost: Lost::default(),
            error: copy(&trouble.error),
            mid_line: !bytes.is_empty() && !bytes.ends_with(b"\n"),
        };
        losing.lost.count(bytes);
        if let Some(current) = &mut self.current {
            let torn = current.extent.size.saturating_sub(current.line_start);
            if current.extent.mid_line && torn > 0 && torn <= TORN_MAX && !bytes.is_empty() {
                let cut = self.disk.truncate(&mut current.file, current.line_start);
                if cut.is_ok() {
                    losing.lost.bytes += torn;
                    current.extent.size = current.line_start;
                    current.extent.mid_line = false;
                }
            }
        }
        self.losing = Some(losing);
        self.reports.push(Report::Failing(trouble));
    }

    /// Tries to write again: what was lost, then the lines of `bytes` that fit. Either all of it gets on the disk and the rest is returned, or nothing
    /// does and all of `bytes` is lost too: a disk with room for the message alone would otherwise fill with messages.
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
                self.reports.push(Report::Recovered(losing.lost));
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
        let line_start = self.current.as_ref()?.line_start;
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
        // 0 is "rotate first", which the next append does.
        let taken = fitting(extent, self.rotate_at, bytes);
        let put = self.put(&message).and_then(|()| self.put(&bytes[..taken]));
        if put.is_err() {
            let current = self.current.as_mut()?;
            if self.disk.truncate(&mut current.file, before.size).is_ok() {
                current.extent = before;
                current.line_start = line_start;
            }
        }
        put.ok().map(|()| taken)
    }

    /// Rotates now; on failure reports it once and lets the file grow before the next try.
    fn try_rotate(&mut self) -> Result<(), Trouble> {
        let result = self.rename_and_reopen();
        match &result {
            Ok(()) => {
                self.rotate_at = self.limits.rotate;
                self.pause = FIRST_PAUSE;
                let removed = self.remove_oldest();
                self.report_rotation(removed.err());
            }
            Err(failure) => {
                let size = self.current.as_ref().map_or(0, |c| c.extent.size);
                self.rotate_at = size.saturating_add(self.pause);
                self.pause = (self.pause * 2).min(LAST_PAUSE);
                let error = copy(&failure.error);
                self.report_rotation(Some(trouble(failure.operation, &failure.path, error)));
            }
        }
        result
    }

    fn report_rotation(&mut self, failure: Option<Trouble>) {
        let failed_before = std::mem::replace(&mut self.rotation_fails, failure.is_some());
        match failure {
            Some(trouble) if !failed_before => self.reports.push(Report::Failing(trouble)),
            None if failed_before => self.reports.push(Report::Recovered(Lost::default())),
            _ => {}
        }
    }

    /// Where only the second half fails, the old file goes on being written under its rotated name, which is still the newest.
    fn rename_and_reopen(&mut self) -> Result<(), Trouble> {
        let renamed = self.current.as_ref().is_some_and(|c| c.renamed);
        if !renamed {
            let stamp = (self.clock)().after(self.last_stamp);
            let to_path = self.dir.join(stamp.file_name());
            match self.disk.rename(&self.path, &to_path) {
                Ok(()) => {
                    self.last_stamp = Some(stamp);
                    self.rotated += 1;
                }
                // Somebody took it, or the directory, away: begin a new one.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(trouble("rotate", &self.path, error)),
            }
            if let Some(current) = &mut self.current {
                current.renamed = true;
            }
        }
        let make = self.disk.make_dir(&self.dir);
        make.map_err(|error| trouble("create", &self.dir, error))?;
        self.current = Some(self.open_current()?);
        Ok(())
    }

    /// Deletes rotated files beyond `keep`, and nothing that is not named like one.
    fn remove_oldest(&mut self) -> Result<(), Trouble> {
        let keep = u64::from(self.limits.keep);
        if self.rotated <= keep {
            return Ok(());
        }
        let mut files = self.stamps()?;
        files.sort_unstable();
        self.rotated = files.len() as u64;
        let surplus = files.len().saturating_sub(self.limits.keep as usize);
        for (_, name) in files.drain(..surplus) {
            let path = self.dir.join(name);
            match self.disk.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(trouble("delete", &path, error));
                }
                _ => self.rotated -= 1,
            }
        }
        Ok(())
    }
}

fn trouble(operation: &'static str, path: &Path, error: io::Error) -> Trouble {
    Trouble {
        operation,
        path: path.to_path_buf(),
        error,
    }
}

/// `io::Error` cannot be cloned; this says the same.
fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

#[cfg(test)]
mod tests;
