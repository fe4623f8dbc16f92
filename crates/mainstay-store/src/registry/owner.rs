//! Owners of changes in progress, and the check for whether they are still alive.
//!
//! Each owner holds a lock on its own file beside the database; the row of the service contains the
//! file's token. The lock ends with the process, however the process ends, on every system, and
//! also between containers that do not see each other's PIDs. Owner files are only created and
//! removed within write transactions, so a new one is never mistaken for a stale one before its row
//! exists.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use mainstay_core::registry::Owner;

const PREFIX: &str = "registry.owner-";

/// This process as an owner. Dropping it ends the ownership.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) owner: Owner,
    path: PathBuf,
    _lock: File,
}

impl Holder {
    pub(super) fn new(dir: &Path, token: String, since: u64) -> io::Result<Self> {
        let path = dir.join(format!("{PREFIX}{token}"));
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let lock = options.open(&path)?;
        lock.try_lock()?;
        let pid = std::process::id();
        Ok(Self {
            owner: Owner { token, pid, since },
            path,
            _lock: lock,
        })
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // If the file remains, the next process to open the registry removes it.
        drop(fs::remove_file(&self.path));
    }
}

/// Returns whether the owner may be alive. If its lock file cannot be opened or locked for another
/// reason than its absence, that is unknown, and the owner counts as alive.
pub(super) fn lives(dir: &Path, owner: &Owner) -> bool {
    match File::open(dir.join(format!("{PREFIX}{}", owner.token))) {
        Ok(file) => may_be_held(file.try_lock_shared()),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Returns whether another process may hold a lock, by the result of an attempt to take it.
fn may_be_held(attempt: Result<(), TryLockError>) -> bool {
    attempt.is_err()
}

/// Returns the tokens of all owner files in the directory, live and stale.
pub(super) fn tokens(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter_map(|name| name.strip_prefix(PREFIX).map(str::to_owned))
        .collect()
}

pub(super) fn sweep(dir: &Path, token: &str) {
    // A file that cannot be removed does no harm.
    drop(fs::remove_file(dir.join(format!("{PREFIX}{token}"))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_whose_lock_cannot_be_tried_is_not_dead() {
        let failed = io::Error::other("no locks available");
        assert!(may_be_held(Err(TryLockError::Error(failed))));
        assert!(may_be_held(Err(TryLockError::WouldBlock)));
        assert!(!may_be_held(Ok(())));
    }
}
