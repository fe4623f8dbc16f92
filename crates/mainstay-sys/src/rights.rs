//! The rights that file modes grant to an account. A path with an access control list counts as
//! accessible.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::{User, trust};

/// Read permission.
pub const READ: u32 = 4;
/// Execute permission, or search permission for a directory.
pub const EXECUTE: u32 = 1;

/// Returns the first component of an absolute path that denies access to an account, and its mode.
/// `right` is required for the last component, search permission for the others. `None` is an
/// account with only the rights of everybody. Missing components deny nothing.
pub fn obstacle(account: Option<&User>, path: &Path, right: u32) -> Option<(PathBuf, u32)> {
    from_root(path).find_map(|place| {
        let metadata = fs::metadata(place).ok()?;
        let right = if place == path { right } else { EXECUTE };
        let is_free = bits(account, &metadata) & right != 0 || trust::has_access_list(place);
        (!is_free).then(|| (place.to_owned(), metadata.permissions().mode() & 0o7777))
    })
}

/// Returns the directories above a path, from the root down, and the path itself.
pub(crate) fn from_root(path: &Path) -> impl Iterator<Item = &Path> {
    let all: Vec<&Path> = path.ancestors().collect();
    all.into_iter().rev()
}

/// Returns the mode shifted so that its lowest three bits are those of the account.
/// Root has all rights.
fn bits(account: Option<&User>, metadata: &Metadata) -> u32 {
    let mode = metadata.permissions().mode();
    match account {
        Some(user) if user.uid() == 0 => !0,
        Some(user) if user.uid() == metadata.uid() => mode >> 6,
        Some(user) if user.is_in(metadata.gid()) => mode >> 3,
        _ => mode,
    }
}
