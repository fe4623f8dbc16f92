//! Disk operations for delivered programs. Every step is announced first (see the seam in
//! `snapshot/disk.rs`), so that tests can simulate a power failure there.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::snapshot::{Change, Seam};

#[derive(Clone, Copy)]
pub(super) struct Disk<'s>(pub(super) &'s dyn Seam);

impl Disk<'_> {
    /// Creates a directory that everybody may read and only its owner may change, and syncs its
    /// parent. An existing directory is not changed.
    pub(super) fn create_dir(self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        self.0.before(Change::Create(dir))?;
        fs::create_dir(dir)?;
        self.0.before(Change::SetMetadata(dir))?;
        sys::open_to_all(dir)?;
        match dir.parent() {
            Some(above) => self.sync_dir(above),
            None => Ok(()),
        }
    }

    pub(super) fn create_file(self, path: &Path) -> io::Result<File> {
        self.0.before(Change::Create(path))?;
        File::options().write(true).create_new(true).open(path)
    }

    pub(super) fn write(self, mut file: &File, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.0.before(Change::Write(path))?;
        file.write_all(bytes)
    }

    /// Makes the file executable by everybody and syncs it.
    pub(super) fn finish(self, file: &File, path: &Path) -> io::Result<()> {
        self.0.before(Change::SetMetadata(path))?;
        sys::open_to_all(path)?;
        self.0.before(Change::Sync(path))?;
        file.sync_all()
    }

    pub(super) fn rename(self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.before(Change::Rename(from, to))?;
        fs::rename(from, to)
    }

    pub(super) fn sync_dir(self, dir: &Path) -> io::Result<()> {
        self.0.before(Change::Sync(dir))?;
        sys::sync_dir(dir)
    }

    /// Removes a file or directory, if it exists.
    pub(super) fn remove_all(self, path: &Path) -> io::Result<()> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(found) if found.is_dir() => {
                for entry in fs::read_dir(path)? {
                    self.remove_all(&entry?.path())?;
                }
                self.0.before(Change::RemoveDir(path))?;
                fs::remove_dir(path)
            }
            Ok(_) => {
                self.0.before(Change::RemoveFile(path))?;
                fs::remove_file(path)
            }
        }
    }
}

/// Returns the first directory on the path in which other accounts could replace programs, and the
/// reason.
pub(super) fn exposed(dir: &Path) -> io::Result<Option<(PathBuf, String)>> {
    // The owner of a directory with a symbolic link could redirect it, too.
    let above = dir.parent().map(fs::canonicalize).transpose()?;
    let here = dir.exists().then(|| fs::canonicalize(dir)).transpose()?;
    for place in [above, here].iter().flatten().flat_map(|it| it.ancestors()) {
        if let Some(why) = sys::exposure(place)? {
            return Ok(Some((place.to_owned(), why)));
        }
    }
    Ok(None)
}

pub(super) use sys::{is_executable_by_all, room};

#[cfg(unix)]
mod sys {
    use std::fs::{self, File};
    use std::io;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::path::Path;

    use rustix::fs::StatVfs;

    const MODE: u32 = 0o755;
    const STICKY: u32 = 0o1000;

    /// Sets the mode to readable and executable by everybody, whatever the umask.
    pub(super) fn open_to_all(path: &Path) -> io::Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(MODE))
    }

    pub(in super::super) fn is_executable_by_all(file: &fs::Metadata) -> bool {
        file.mode() & 0o7777 == MODE
    }

    pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    /// Describes how other accounts could replace files in a directory. In a sticky directory such
    /// as `/tmp`, users cannot replace each other's files.
    pub(super) fn exposure(place: &Path) -> io::Result<Option<String>> {
        let found = fs::metadata(place)?;
        let (owner, mode) = (found.uid(), found.mode() & 0o7777);
        let me = rustix::process::geteuid().as_raw();
        Ok(match () {
            () if owner != 0 && owner != me => Some(format!("it belongs to uid {owner}")),
            () if mode & 0o022 != 0 && mode & STICKY == 0 => {
                Some(format!("it is writable by others (mode {mode:o})"))
            }
            () => None,
        })
    }

    /// Returns the free space for a new file, in bytes.
    ///
    /// # Errors
    /// If the file system is mounted with `noexec`, among others.
    pub(in super::super) fn room(dir: &Path) -> io::Result<Option<u64>> {
        let found = rustix::fs::statvfs(dir)?;
        if runs_nothing(&found) {
            let why = "its file system is mounted with `noexec`";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        Ok(Some(found.f_bavail.saturating_mul(found.f_frsize)))
    }

    #[cfg(target_os = "linux")]
    fn runs_nothing(mounted: &StatVfs) -> bool {
        use rustix::fs::StatVfsMountFlags;
        mounted.f_flag.contains(StatVfsMountFlags::NOEXEC)
    }

    /// The call does not report it on these systems.
    #[cfg(not(target_os = "linux"))]
    fn runs_nothing(_mounted: &StatVfs) -> bool {
        false
    }
}

/// Access is inherited from the parent directory, and directories cannot be synced.
#[cfg(windows)]
#[expect(clippy::unnecessary_wraps, reason = "as on Unix")]
mod sys {
    use std::fs;
    use std::io;
    use std::path::Path;

    pub(super) fn open_to_all(_path: &Path) -> io::Result<()> {
        Ok(())
    }

    pub(in super::super) fn is_executable_by_all(_file: &fs::Metadata) -> bool {
        true
    }

    pub(super) fn sync_dir(_dir: &Path) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn exposure(_place: &Path) -> io::Result<Option<String>> {
        Ok(None)
    }

    pub(in super::super) fn room(_dir: &Path) -> io::Result<Option<u64>> {
        Ok(None)
    }
}
