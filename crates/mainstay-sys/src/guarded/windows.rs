//! The Windows implementation: links in directories of other accounts are rejected. Unlike on Unix,
//! a link can still be created between the check and the use.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::{Other, Refusal};
use crate::{is_foreign, is_privileged};

/// See [`super::file`].
pub(super) fn open(path: &Path) -> io::Result<File> {
    let path = std::path::absolute(path)?;
    refuse_foreign_links(&path)?;
    open_plainly(&path)
}

/// Returns the path of a directory without links.
pub fn directory(path: &Path) -> io::Result<PathBuf> {
    refuse_foreign_links(&std::path::absolute(path)?)?;
    let path = fs::canonicalize(path)?;
    if fs::symlink_metadata(&path)?.file_type().is_dir() {
        Ok(path)
    } else {
        Err(io::ErrorKind::NotADirectory.into())
    }
}

/// Returns whether the path exists. A link of another account on the path is an error.
pub fn exists(path: &Path) -> io::Result<bool> {
    refuse_foreign_links(&std::path::absolute(path)?)?;
    path.try_exists()
}

fn refuse_foreign_links(path: &Path) -> io::Result<()> {
    if !is_privileged() {
        return Ok(());
    }
    match path.ancestors().find(|place| is_foreign_link(place)) {
        Some(link) => {
            let (path, by) = (link.to_owned(), Other::Account);
            Err(Refusal::Link { path, by }.into())
        }
        None => Ok(()),
    }
}

/// See [`super::plain_file`].
pub(super) fn open_plainly(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(Refusal::Kind("a directory or a device").into());
    }
    File::open(path)
}

/// Returns whether a path is a link in a directory of another account. The root of a volume belongs
/// to the system, whoever its owner is.
fn is_foreign_link(path: &Path) -> bool {
    let found = fs::symlink_metadata(path);
    let above = path.parent().filter(|above| above.parent().is_some());
    found.is_ok_and(|found| found.file_type().is_symlink())
        && above.is_some_and(|above| is_foreign(above).unwrap_or(true))
}
