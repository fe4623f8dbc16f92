//! The file operations used by logs, as a seam for tests, which substitute a disk that fails on
//! demand.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::path::Path;
use std::time::SystemTime;

use mainstay_core::log::Stamp;

/// A file system for log files. No operation handles another's failure; [`super::file::LogFile`]
/// and [`super::compress`] do.
pub(super) trait Disk {
    /// An open file without a position: each read or write specifies its offset.
    type File;

    /// Creates `dir` and its missing parents, for the owner only. It may exist.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;
    /// Opens `path` for reading and writing, or creates it, for the owner only.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// Opens an existing `path` for reading.
    fn open_existing(&self, path: &Path) -> io::Result<Self::File>;
    /// Creates `path`, for the owner only, or truncates it.
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    /// Returns the current status of the file.
    fn status(&self, file: &Self::File) -> io::Result<Status>;
    /// Returns whether `path` names this file. Returns `false` if it names none.
    fn is_at(&self, file: &Self::File, path: &Path) -> io::Result<bool>;
    /// Reads at `offset`. Returns 0 at the end of the file.
    fn read_at(&self, file: &Self::File, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes some of `bytes` at `offset`, at least one byte unless there are none.
    fn write_at(&self, file: &Self::File, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Truncates the file to `size` bytes.
    fn truncate(&self, file: &Self::File, size: u64) -> io::Result<()>;
    /// Flushes the file's content, so that it survives a loss of power.
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    /// Flushes the names in `dir`, so that they survive a loss of power.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Renames the file at `from` within the same directory. An existing file at `to` is replaced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Deletes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Returns the names in `dir` that are valid Unicode, as all names of log files are.
    fn names(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Returns the size of the file at `path` in bytes.
    fn size(&self, path: &Path) -> io::Result<u64>;
}

/// The status of an open file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Status {
    /// The size in bytes.
    pub(super) size: u64,
    /// Set if the file has a name. A file without one is lost when it is closed.
    pub(super) named: bool,
    /// The time of the last write, if known.
    pub(super) modified: Option<Stamp>,
}

/// Converts a system time to microseconds since 1970.
pub(super) fn stamp(time: SystemTime) -> Stamp {
    let since_1970 = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Stamp::from_unix_micros(u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX))
}

/// Returns whether the error means that another program holds the file, which only happens on
/// Windows. It is not a failure, but a reason to retry later.
pub(super) fn is_held(error: &io::Error) -> bool {
    const ERROR_SHARING_VIOLATION: i32 = 32;
    const ERROR_LOCK_VIOLATION: i32 = 33;
    cfg!(windows)
        && matches!(
            error.raw_os_error(),
            Some(ERROR_SHARING_VIOLATION | ERROR_LOCK_VIOLATION)
        )
}

/// The file system of the machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct RealDisk;

impl RealDisk {
    fn for_its_owner() -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt as _;
            options.mode(0o600).custom_flags(libc::O_NOFOLLOW);
        }
        options
    }
}

impl Disk for RealDisk {
    type File = File;

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(dir)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        Self::for_its_owner().truncate(false).open(path)
    }

    fn open_existing(&self, path: &Path) -> io::Result<File> {
        File::open(path)
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        Self::for_its_owner().truncate(true).open(path)
    }

    fn status(&self, file: &File) -> io::Result<Status> {
        let metadata = file.metadata()?;
        #[cfg(unix)]
        let named = std::os::unix::fs::MetadataExt::nlink(&metadata) > 0;
        #[cfg(not(unix))]
        let named = true; // Windows keeps the name while the file is open
        Ok(Status {
            size: metadata.len(),
            named,
            modified: metadata.modified().ok().map(stamp),
        })
    }

    fn is_at(&self, file: &File, path: &Path) -> io::Result<bool> {
        let there = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            found => found?,
        };
        let open = file.metadata()?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt as _;
            Ok((open.dev(), open.ino()) == (there.dev(), there.ino()))
        }
        // The standard library does not expose a Windows file's index. Files created within the
        // same 100 ns count as the same.
        #[cfg(not(unix))]
        Ok(open.created()? == there.created()?)
    }

    fn read_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::read_at(file, buffer, offset);
        #[cfg(windows)]
        return std::os::windows::fs::FileExt::seek_read(file, buffer, offset);
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::write_at(file, bytes, offset);
        #[cfg(windows)]
        return std::os::windows::fs::FileExt::seek_write(file, bytes, offset);
    }

    fn truncate(&self, file: &File, size: u64) -> io::Result<()> {
        file.set_len(size)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // Windows has no equivalent: a rename is in the file system's journal.
        #[cfg(unix)]
        File::open(dir)?.sync_all()?;
        let _only_on_unix = dir;
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect()
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }
}
