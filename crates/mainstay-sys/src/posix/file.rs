//! Files of this process's user.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::privilege::current_uid;

/// Returns why a file is accessible to, or owned by, anyone other than this process's user or root.
pub fn exposure(_path: &Path, file: &File) -> io::Result<Option<String>> {
    let metadata = file.metadata()?;
    let (mode, owner) = (metadata.mode() & 0o777, metadata.uid());
    if mode & 0o077 != 0 {
        return Ok(Some(format!(
            "it is accessible to others (mode {mode:04o}): chmod 600"
        )));
    }
    let is_trusted = owner == 0 || owner == rustix::process::geteuid().as_raw();
    Ok((!is_trusted).then(|| format!("it belongs to another user (uid {owner})")))
}

/// The null device, for writing.
pub fn null() -> io::Result<File> {
    OpenOptions::new().write(true).open("/dev/null")
}

/// Writes all of `bytes` at an offset of a file. Bytes within one page are written entirely or not
/// at all, even if this process is killed.
pub fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    FileExt::write_all_at(file, bytes, at)
}

/// Opens a file for writing in place, if it belongs to this user alone and no other user can have
/// it open.
pub fn open_own(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true);
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = options
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    let found = file.metadata()?;
    let is_ours = found.uid() == current_uid() && found.mode() & 0o077 == 0;
    if found.is_file() && found.nlink() == 1 && is_ours {
        Ok(file)
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

/// Reads all of a file, independent of the position shared with other users of the descriptor.
pub fn read_from_start(file: &File) -> io::Result<Vec<u8>> {
    let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    FileExt::read_exact_at(file, &mut bytes, 0)?;
    Ok(bytes)
}
