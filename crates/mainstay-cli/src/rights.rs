//! What modes let an account do at a path. An access control list may say anything, and counts as a yes.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::host::sys;

pub(crate) const READ: u32 = 4;
/// Of a directory: to be searched.
pub(crate) const EXECUTE: u32 = 1;

/// The first component of an absolute path that keeps an account away from it, and its mode: `right` is wanted of the last one, search
/// of those above it. `None` is an account that only has everybody's rights. What does not exist keeps nobody away.
pub(crate) fn obstacle(
    account: Option<&sys::User>,
    path: &Path,
    right: u32,
) -> Option<(PathBuf, u32)> {
    let mut all: Vec<&Path> = path.ancestors().collect();
    all.reverse();
    all.into_iter().find_map(|place| {
        let metadata = fs::metadata(place).ok()?;
        let right = if place == path { right } else { EXECUTE };
        let is_free = bits(account, &metadata) & right != 0 || has_acl(place);
        (!is_free).then(|| (place.to_owned(), metadata.permissions().mode() & 0o7777))
    })
}

/// The bits of a mode that are an account's.
fn bits(account: Option<&sys::User>, metadata: &Metadata) -> u32 {
    let mode = metadata.permissions().mode();
    match account {
        Some(user) if user.uid() == 0 => !0,
        Some(user) if user.uid() == metadata.uid() => mode >> 6,
        Some(user) if user.is_in(metadata.gid()) => mode >> 3,
        _ => mode,
    }
}

#[cfg(target_os = "linux")]
fn has_acl(path: &Path) -> bool {
    let mut list = [0_u8; 0];
    rustix::fs::getxattr(path, "system.posix_acl_access", &mut list).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn has_acl(_path: &Path) -> bool {
    false
}
