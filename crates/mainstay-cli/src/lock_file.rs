//! Files that exist to be locked.
//!
//! flock(2) needs no more than a descriptor: whoever may open a lock file for reading can hold its lock for ever. So lock files have mode 0600, and
//! one that others could open is repaired when it is opened.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

/// Whether a lock file could be opened by others before it was repaired, so that they may still have it open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Past {
    Private,
    #[cfg_attr(
        windows,
        expect(dead_code, reason = "access is as the directory has it")
    )]
    Exposed,
}

/// Opens a lock file, made where it is missing. One that others could open before is replaced by a new one: they may hold its lock.
///
/// # Errors
/// Also where something else has that name: a link, a pipe, a directory.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    match open_repaired(path)? {
        (file, Past::Private) => Ok(file),
        (_, Past::Exposed) => replace(path, b""),
    }
}

/// Opens a lock file, made where it is missing. From now on only its owner can open it, and root.
pub(crate) fn open_repaired(path: &Path) -> io::Result<(File, Past)> {
    let mut options = options();
    options.create(true).truncate(false);
    let file = options.open(path)?;
    if !file.metadata()?.is_file() {
        let why = "something that is not a regular file is in the place of a lock";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
    }
    let past = close_to_others(&file)?;
    Ok((file, past))
}

/// Puts a new lock file with this content in the place of another. Whoever has the old one open has nothing any more.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<File> {
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

/// Whether the file of this name is still the one that was opened.
#[cfg(unix)]
pub(crate) fn is_at(path: &Path, file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let here = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        found => found?,
    };
    let ours = file.metadata()?;
    Ok((here.dev(), here.ino()) == (ours.dev(), ours.ino()))
}

/// Nobody removes or replaces a file that is open.
#[cfg(windows)]
pub(crate) fn is_at(_path: &Path, _file: &File) -> io::Result<bool> {
    Ok(true)
}

/// Whether a path leads to the directory that was opened.
#[cfg(unix)]
pub(crate) fn leads_to(path: &Path, dir: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let here = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        found => found?,
    };
    let ours = dir.metadata()?;
    Ok((here.dev(), here.ino()) == (ours.dev(), ours.ino()))
}

/// Nobody removes or moves a directory in which a file is open.
#[cfg(windows)]
#[expect(clippy::unnecessary_wraps, reason = "as on Unix")]
pub(crate) fn leads_to(_path: &Path, _dir: &File) -> io::Result<bool> {
    Ok(true)
}

/// Whether nothing leads to an open directory any more.
#[cfg(unix)]
pub(crate) fn is_deleted(dir: &File) -> io::Result<bool> {
    Ok(std::os::unix::fs::MetadataExt::nlink(&dir.metadata()?) == 0)
}

/// See [`leads_to`].
#[cfg(windows)]
#[expect(clippy::unnecessary_wraps, reason = "as on Unix")]
pub(crate) fn is_deleted(_dir: &File) -> io::Result<bool> {
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
    // Another owner's is his to repair; root, who may do it for him, would only surprise him.
    if found.uid() == rustix::process::geteuid().as_raw() {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(Past::Exposed)
}

/// Access is as the directory has it.
#[cfg(windows)]
#[expect(clippy::unnecessary_wraps, reason = "as on Unix")]
fn close_to_others(_file: &File) -> io::Result<Past> {
    Ok(Past::Private)
}
