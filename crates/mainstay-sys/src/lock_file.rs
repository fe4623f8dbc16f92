//! Files that exist to be locked.
//!
//! flock(2) needs no more than a descriptor: whoever can open a lock file for reading can hold its
//! lock indefinitely. Lock files therefore have mode 0600. A file that others could open is
//! repaired when it is opened.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

/// The accessibility of a lock file before it was repaired. If it was exposed, others may still
/// have it open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// Only its owner and root could open it.
    Private,
    /// Others could open it. Does not occur on Windows, where the directory determines the access.
    Exposed,
}

/// Opens a lock file, and creates it if it is missing. A file that others could open is replaced by
/// a new one, because they may hold its lock.
///
/// # Errors
/// If another kind of file has that name: a link, a pipe or a directory, among others.
pub fn open(path: &Path) -> io::Result<File> {
    match open_repaired(path)? {
        (file, Past::Private) => Ok(file),
        (_, Past::Exposed) => replace(path, b""),
    }
}

/// Opens a lock file, and creates it if it is missing. Afterwards only its owner and root can open
/// it.
pub fn open_repaired(path: &Path) -> io::Result<(File, Past)> {
    let mut options = options();
    options.create(true).truncate(false);
    let file = options.open(path)?;
    if !file.metadata()?.is_file() {
        let why = "the lock is not a regular file";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
    }
    let past = close_to_others(&file)?;
    Ok((file, past))
}

/// Replaces a lock file by a new one with this content. A lock on the old file has no effect any
/// more.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<File> {
    let mut new_path = path.as_os_str().to_owned();
    new_path.push(".new");
    match fs::remove_file(&new_path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = options().create_new(true).open(&new_path)?;
    io::Write::write_all(&mut file, content)?;
    fs::rename(&new_path, path)?;
    Ok(file)
}

/// Returns whether the path still refers to the opened file.
#[cfg(unix)]
pub fn is_at(path: &Path, file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let here = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        found => found?,
    };
    let ours = file.metadata()?;
    Ok((here.dev(), here.ino()) == (ours.dev(), ours.ino()))
}

/// Returns true, because an open file cannot be removed or replaced on Windows.
#[cfg(windows)]
pub fn is_at(_path: &Path, _file: &File) -> io::Result<bool> {
    Ok(true)
}

/// Returns whether a path leads to the opened directory.
#[cfg(unix)]
pub fn leads_to(path: &Path, dir: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let here = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        found => found?,
    };
    let ours = dir.metadata()?;
    Ok((here.dev(), here.ino()) == (ours.dev(), ours.ino()))
}

/// Returns true, because a directory that contains an open file cannot be removed or moved on
/// Windows.
#[cfg(windows)]
#[expect(clippy::unnecessary_wraps, reason = "as on Unix")]
pub fn leads_to(_path: &Path, _dir: &File) -> io::Result<bool> {
    Ok(true)
}

/// Returns whether an open directory was deleted.
#[cfg(unix)]
pub fn is_deleted(dir: &File) -> io::Result<bool> {
    Ok(std::os::unix::fs::MetadataExt::nlink(&dir.metadata()?) == 0)
}

/// See [`leads_to`].
#[cfg(windows)]
#[expect(clippy::unnecessary_wraps, reason = "as on Unix")]
pub fn is_deleted(_dir: &File) -> io::Result<bool> {
    Ok(false)
}

fn options() -> OpenOptions {
    let mut options = File::options();
    options.read(true).write(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        options.mode(0o600).custom_flags(flags.bits().cast_signed());
    }
    options
}

#[cfg(unix)]
fn close_to_others(file: &File) -> io::Result<Past> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let found = file.metadata()?;
    if found.mode() & 0o077 == 0 {
        return Ok(Past::Private);
    }
    // A file of another owner is left for that owner to repair; a repair by root would be a
    // surprise.
    if found.uid() == rustix::process::geteuid().as_raw() {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(Past::Exposed)
}

/// Access is inherited from the directory.
#[cfg(windows)]
#[expect(clippy::unnecessary_wraps, reason = "as on Unix")]
fn close_to_others(_file: &File) -> io::Result<Past> {
    Ok(Past::Private)
}
