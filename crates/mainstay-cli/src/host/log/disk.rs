//! The few file operations that a log needs, as a seam: the tests put a disk behind it that fails at will.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

/// A place for log files. No operation follows up another's failure; that is [`super::file::LogFile`]'s business.
pub(super) trait Disk {
    /// An open file that is only appended to.
    type File;

    /// Makes `dir` and what is missing above it, for its owner only. It may exist.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;
    /// Opens `path` to append to, or makes it, for its owner only.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// What the file is now.
    fn status(&self, file: &Self::File) -> io::Result<Status>;
    /// The last byte of a file that is not empty.
    fn last_byte(&self, file: &mut Self::File) -> io::Result<u8>;
    /// Appends some of `bytes`, at least one unless there are none.
    fn write(&self, file: &mut Self::File, bytes: &[u8]) -> io::Result<usize>;
    /// Cuts the file back to `size` bytes.
    fn truncate(&self, file: &mut Self::File, size: u64) -> io::Result<()>;
    /// Gives the file at `from` another name in the same directory.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Deletes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The names in `dir` that are Unicode; ours are.
    fn names(&self, dir: &Path) -> io::Result<Vec<String>>;
}

/// What an open file is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Status {
    /// Bytes.
    pub(super) size: u64,
    /// It has a name. A file without one is lost when it is closed.
    pub(super) named: bool,
}

/// The file system of the machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct RealDisk;

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
        let mut options = OpenOptions::new();
        options.read(true).write(true).truncate(false).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(path)
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
        })
    }

    fn last_byte(&self, file: &mut File) -> io::Result<u8> {
        let mut byte = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<usize> {
        file.write(bytes)
    }

    fn truncate(&self, file: &mut File, size: u64) -> io::Result<()> {
        file.set_len(size)
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
}
