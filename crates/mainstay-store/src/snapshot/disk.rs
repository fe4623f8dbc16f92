//! The file system layer of snapshots. Every change passes through it and is announced first, so a
//! snapshot can be cancelled between any two changes, and a test can simulate a power failure
//! there.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use mainstay_core::snapshot::{Digest, Hasher, Metadata, Raw};

use super::descent::Descent;
use super::sys::{self, Dir, FileKind};

/// An observer of changes that may veto each one before it happens.
pub trait Seam: Send + Sync {
    /// Called before a change. An error prevents the change and fails the operation. An
    /// `Unsupported` exchange is the exception: two renames replace it.
    fn before(&self, change: Change<'_>) -> io::Result<()>;

    /// Returns whether new work must not be started.
    fn is_called_off(&self) -> bool {
        false
    }

    /// Called when this number of bytes of content was read to be copied.
    fn copied(&self, _bytes: usize) {}
}

/// A change to the file system.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// Creation of a file of any kind.
    Create(&'a Path),
    /// A write of part of a file's content.
    Write(&'a Path),
    /// A change of owner, mode, times or attributes.
    SetMetadata(&'a Path),
    /// A sync of a file's content or of a directory's entries.
    Sync(&'a Path),
    /// A sync of a directory and everything in it.
    SyncAll(&'a Path),
    /// A rename, from and to.
    Rename(&'a Path, &'a Path),
    /// An exchange of two names.
    Exchange(&'a Path, &'a Path),
    /// The removal of a file.
    RemoveFile(&'a Path),
    /// The removal of an empty directory.
    RemoveDir(&'a Path),
}

/// The size of one read, hash and write step, and the interval between checks for cancellation. It
/// fits into a processor's own cache.
const CHUNK: usize = 128 << 10;
/// The number of bytes of a hole that are hashed in one step.
const HOLE: u64 = 64 << 20;
/// The number of files up to which each is synced individually. Above it, the whole file system is
/// synced at once.
const FEW: usize = 64;

/// Performs announced changes to the file system.
#[derive(Clone, Copy)]
pub(super) struct Disk<'s>(pub(super) &'s dyn Seam);

impl Disk<'_> {
    pub(super) fn create_dir(self, dir: &Dir, name: &Path) -> io::Result<()> {
        self.0.before(Change::Create(&dir.path().join(name)))?;
        dir.create_dir(name)
    }

    pub(super) fn create_file(self, dir: &Dir, name: &Path) -> io::Result<File> {
        self.0.before(Change::Create(&dir.path().join(name)))?;
        dir.create_file(name)
    }

    pub(super) fn symlink(self, dir: &Dir, target: &Raw, name: &Path) -> io::Result<()> {
        self.0.before(Change::Create(&dir.path().join(name)))?;
        dir.symlink(target, name)
    }

    pub(super) fn fifo(self, dir: &Dir, name: &Path) -> io::Result<()> {
        self.0.before(Change::Create(&dir.path().join(name)))?;
        dir.fifo(name)
    }

    pub(super) fn hard_link(self, dir: &Dir, from: &Path, to: &Path) -> io::Result<()> {
        self.0.before(Change::Create(&dir.path().join(to)))?;
        dir.hard_link(from, to)
    }

    pub(super) fn rename(self, dir: &Dir, from: &Path, to: &Path) -> io::Result<()> {
        let (from_path, to_path) = (dir.path().join(from), dir.path().join(to));
        self.0.before(Change::Rename(&from_path, &to_path))?;
        dir.rename(from, to)
    }

    /// Exchanges two names atomically; false if the system cannot.
    pub(super) fn exchange(self, dir: &Dir, one: &Path, other: &Path) -> io::Result<bool> {
        let (one_path, other_path) = (dir.path().join(one), dir.path().join(other));
        match self.0.before(Change::Exchange(&one_path, &other_path)) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(false),
            allowed => allowed.and_then(|()| dir.exchange(one, other)),
        }
    }

    pub(super) fn sync(self, dir: &Dir) -> io::Result<()> {
        self.0.before(Change::Sync(dir.path()))?;
        dir.sync()
    }

    /// Syncs a directory and everything in it. `dirs` and `files` must list all of its content.
    pub(super) fn sync_all(self, dir: &Dir, dirs: &[PathBuf], files: &[PathBuf]) -> io::Result<()> {
        self.0.before(Change::SyncAll(dir.path()))?;
        if dirs.len() + files.len() > FEW && dir.sync_file_system()? {
            return Ok(());
        }
        for file in files {
            dir.file(file)?.sync_all()?;
        }
        for below in dirs.iter().rev() {
            dir.dir(below)?.sync()?;
        }
        dir.sync()
    }

    /// Writes a small file atomically: its content is synced before it gets its name.
    pub(super) fn write_whole(self, dir: &Dir, name: &str, bytes: &[u8]) -> io::Result<()> {
        let unfinished = format!("{name}.tmp");
        let (unfinished, name) = (Path::new(&unfinished), Path::new(name));
        if dir.stat(unfinished).is_ok() {
            self.remove_file(dir, unfinished)?;
        }
        let mut file = self.create_file(dir, unfinished)?;
        let path = dir.path().join(unfinished);
        self.0.before(Change::Write(&path))?;
        file.write_all(bytes)?;
        self.0.before(Change::Sync(&path))?;
        file.sync_all()?;
        self.rename(dir, unfinished, name)?;
        self.sync(dir)
    }

    /// Creates a file with this content, without syncing it.
    pub(super) fn write(self, dir: &Dir, name: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.create_file(dir, name)?;
        self.0.before(Change::Write(&dir.path().join(name)))?;
        file.write_all(bytes)
    }

    /// Copies the content of a file. The content is shared if the file system supports it;
    /// otherwise holes are preserved. Returns the size and the digest.
    pub(super) fn copy(self, from: &File, to: &File, to_path: &Path) -> io::Result<(u64, Digest)> {
        self.0.before(Change::Write(to_path))?;
        if sys::clone_content(from, to) {
            return read_through(to, |bytes, _| {
                self.0.copied(bytes.len());
                self.0.before(Change::Write(to_path))
            });
        }
        let copied = read_through(from, |bytes, at| {
            self.0.copied(bytes.len());
            self.0.before(Change::Write(to_path))?;
            sys::write_at(to, bytes, at)
        })?;
        // Extends the file over a hole at its end.
        to.set_len(copied.0)?;
        sys::begin_to_write(to);
        Ok(copied)
    }

    pub(super) fn set_metadata(self, dir: &Dir, wanted: &Metadata) -> io::Result<()> {
        self.0.before(Change::SetMetadata(dir.path()))?;
        dir.set_metadata(wanted)
    }

    pub(super) fn set_metadata_of(
        self,
        file: &File,
        path: &Path,
        wanted: &Metadata,
    ) -> io::Result<()> {
        self.0.before(Change::SetMetadata(path))?;
        sys::set_metadata_of(file, wanted)
    }

    pub(super) fn set_metadata_of_special(
        self,
        dir: &Dir,
        name: &Path,
        kind: FileKind,
        wanted: &Metadata,
    ) -> io::Result<()> {
        self.0.before(Change::SetMetadata(&dir.path().join(name)))?;
        dir.set_metadata_of_special(name, kind, wanted)
    }

    pub(super) fn remove_file(self, dir: &Dir, name: &Path) -> io::Result<()> {
        self.0.before(Change::RemoveFile(&dir.path().join(name)))?;
        dir.remove_file(name)
    }

    /// Removes a file or directory of this name, if it exists. Never enters another mount.
    pub(super) fn remove_all(self, dir: &Dir, name: &Path) -> io::Result<()> {
        match dir.stat(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(stat) if stat.kind == FileKind::Dir => self.remove_tree(dir, name, None).map(drop),
            Ok(_) => self.remove_file(dir, name),
        }
    }

    /// Removes a directory; false if it is not empty or not a directory.
    pub(super) fn remove_empty(self, dir: &Dir, name: &Path) -> io::Result<bool> {
        use io::ErrorKind::{DirectoryNotEmpty, NotADirectory};
        self.0.before(Change::RemoveDir(&dir.path().join(name)))?;
        match dir.remove_dir(name) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind(), DirectoryNotEmpty | NotADirectory) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes a directory and its content, innermost first; false if its inode number differs from
    /// `inode`.
    pub(super) fn remove_tree(
        self,
        dir: &Dir,
        name: &Path,
        inode: Option<u64>,
    ) -> io::Result<bool> {
        let mut way = Descent::new(dir);
        // The name of each directory on the path, and its remaining entries.
        let names = Self::enter(&mut way, name)?;
        if let Some(inode) = inode
            && way.dir().own_stat()?.inode != inode
        {
            return Ok(false);
        }
        let mut left = vec![(name.to_owned(), names)];
        while let Some((name, names)) = left.last_mut() {
            let Some(next) = names.pop().map(PathBuf::from) else {
                way.leave()?;
                let path = way.dir().path().join(&*name);
                self.0.before(Change::RemoveDir(&path))?;
                way.dir().remove_dir(name)?;
                left.pop();
                continue;
            };
            match way.dir().stat(&next) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
                Ok(stat) if stat.kind == FileKind::Dir => {
                    let names = Self::enter(&mut way, &next)?;
                    left.push((next, names));
                }
                Ok(_) => self.remove_file(way.dir(), &next)?,
            }
        }
        Ok(true)
    }

    /// Enters a directory that is to be removed, and returns its entries.
    fn enter(way: &mut Descent<'_>, name: &Path) -> io::Result<Vec<OsString>> {
        match way.enter(name) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                // The directory is ours, but its mode does not let us enter it.
                way.dir().make_removable(name)?;
                way.enter(name)?;
            }
            entered => entered?,
        }
        way.dir().let_owner_in()?;
        way.dir().names()
    }
}

/// Reads a file without its holes, and returns its size including holes and its digest. `each`
/// receives every chunk and its offset.
pub(super) fn read_through(
    file: &File,
    mut each: impl FnMut(&[u8], u64) -> io::Result<()>,
) -> io::Result<(u64, Digest)> {
    let size = sys::stat_of(file)?.size;
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; CHUNK.min(usize::try_from(size).unwrap_or(CHUNK)).max(1)];
    let mut at = 0;
    while let Some((start, end)) = sys::next_data(file, at, size)? {
        while at < start {
            // Cancellation must be possible even within a huge hole.
            let hole = HOLE.min(start - at);
            each(&[], at)?;
            hasher.zeros(hole);
            at += hole;
        }
        while at < end {
            let wanted = buffer.len().min(usize::try_from(end - at).unwrap_or(CHUNK));
            let read = sys::read_at(file, &mut buffer[..wanted], at)?;
            if read == 0 {
                // The file was truncated, which its change time reveals.
                return Ok((at, hasher.finish()));
            }
            hasher.update(&buffer[..read]);
            each(&buffer[..read], at)?;
            at += read as u64;
        }
    }
    while at < size {
        let hole = HOLE.min(size - at);
        each(&[], at)?;
        hasher.zeros(hole);
        at += hole;
    }
    Ok((size, hasher.finish()))
}
