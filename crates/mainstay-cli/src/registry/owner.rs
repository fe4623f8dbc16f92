//! Who is at work on a definition, and whether he lives.
//!
//! An owner holds a lock on a file of its own beside the database, whose name is in the row. A lock ends with its process, however that ends,
//! on every system, and in containers that do not see each other's pids. Such files are made and swept inside of write transactions only:
//! so none is taken for a leftover before its row is there.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use mainstay_core::registry::Owner;

const PREFIX: &str = "registry.owner-";

/// This process as an owner, for as long as it lives.
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
        // Where it stays, whoever opens the registry next sweeps it.
        drop(fs::remove_file(&self.path));
    }
}

/// Whether the process lives. What cannot be known is no reason to take its work away.
pub(super) fn lives(dir: &Path, owner: &Owner) -> bool {
    match File::open(dir.join(format!("{PREFIX}{}", owner.token))) {
        Ok(file) => matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// What dead owners have left, by their tokens.
pub(super) fn tokens(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter_map(|name| name.strip_prefix(PREFIX).map(str::to_owned))
        .collect()
}

pub(super) fn sweep(dir: &Path, token: &str) {
    // It is in nobody's way.
    drop(fs::remove_file(dir.join(format!("{PREFIX}{token}"))));
}
