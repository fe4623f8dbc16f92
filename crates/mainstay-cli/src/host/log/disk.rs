//! The few file operations that logs need, as a seam: the tests put a disk behind it that fails at will.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::path::Path;
use std::time::SystemTime;

use mainstay_core::log::Stamp;

/// A place for log files. No operation follows up another's failure; that is the business of [`super::file::LogFile`] and
/// [`super::compress`].
pub(super) trait Disk {
    /// An open file. It has no position: whoever reads or writes says where.
    type File;

    /// Makes `dir` and what is missing above it, for its owner only. It may exist.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;
    /// Opens `path` to read and write, or makes it, for its owner only.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// Opens `path`, which must exist, to read.
    fn open_existing(&self, path: &Path) -> io::Result<Self::File>;
    /// Makes `path`, for its owner only, or empties it.
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    /// What the file is now.
    fn status(&self, file: &Self::File) -> io::Result<Status>;
    /// Whether `path` names this file. `false` if it names none.
    fn is_at(&self, file: &Self::File, path: &Path) -> io::Result<bool>;
    /// Reads at `offset`; 0 is the end of the file.
    fn read_at(&self, file: &Self::File, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes some of `bytes` at `offset`, at least one unless there are none.
    fn write_at(&self, file: &Self::File, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Cuts the file back to `size` bytes.
    fn truncate(&self, file: &Self::File, size: u64) -> io::Result<()>;
    /// Returns when what was written survives a loss of power.
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    /// Returns when the names in `dir` survive a loss of power.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Gives the file at `from` another name in the same directory; who had that name loses it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Deletes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The names in `dir` that are Unicode; ours are.
    fn names(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// The bytes of the file at `path`.
    fn size(&self, path: &Path) -> io::Result<u64>;
}

/// What an open file is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Status {
    /// Bytes.
    pub(super) size: u64,
    /// It has a name. A file without one is lost when it is closed.
    pub(super) named: bool,
    /// When it was written last, where that is known.
    pub(super) modified: Option<Stamp>,
}

/// The time of a clock that counts from 1970.
pub(super) fn stamp(time: SystemTime) -> Stamp {
    let since_1970 = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Stamp::from_unix_micros(u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX))
}

/// Another program holds the file, as only Windows lets it: no failure, but a reason to come back later.
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
        let named = true; // Windows does not let a name go while the file is open
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
        // std does not tell a Windows file's index; files made at the same 100 ns are the same.
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
        // Windows has no such thing: a rename is in the file system's journal.
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
