//! The simulation of power failures, for tests of everything that changes files behind a [`Seam`].

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::UNIX_EPOCH;

use super::{Change, Seam};

/// The unsynced changes that are lost in a power failure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Loss {
    /// Only the process was killed.
    Nothing,
    Half,
    Everything,
}

/// An unsynced change, and how to undo it.
#[derive(Debug)]
enum Undo {
    Create(PathBuf),
    Content(PathBuf),
    Metadata(PathBuf),
    Rename(PathBuf, PathBuf),
    Exchange(PathBuf, PathBuf),
    RemoveFile(PathBuf, PathBuf),
    RemoveDir(PathBuf, PathBuf),
}

/// A seam that permits a number of changes and then simulates a power failure.
pub(crate) struct Plug {
    left: Mutex<Option<usize>>,
    unsafe_yet: Mutex<Vec<Undo>>,
    trash: PathBuf,
    can_exchange: bool,
    number: AtomicU32,
}

impl Plug {
    /// Creates a plug. `trash` is an empty directory beside everything that is changed.
    pub(crate) fn new(trash: PathBuf, changes: usize, can_exchange: bool) -> Arc<Self> {
        Arc::new(Self {
            left: Mutex::new(Some(changes)),
            unsafe_yet: Mutex::default(),
            trash,
            can_exchange,
            number: AtomicU32::new(0),
        })
    }

    pub(crate) fn was_pulled(&self) -> bool {
        self.left.lock().unwrap().is_none()
    }

    fn kept(&self, path: &Path) -> io::Result<PathBuf> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let kept = self.trash.join(number.to_string());
        fs::hard_link(path, &kept)?;
        Ok(kept)
    }

    fn note(&self, change: Change<'_>) -> io::Result<()> {
        let mut log = self.unsafe_yet.lock().unwrap();
        let owned = Path::to_path_buf;
        match change {
            Change::Create(path) => log.push(Undo::Create(owned(path))),
            Change::Write(path) => log.push(Undo::Content(owned(path))),
            Change::SetMetadata(path) => log.push(Undo::Metadata(owned(path))),
            Change::Sync(path) => log.retain(|undo| match undo {
                Undo::Create(one) | Undo::RemoveFile(one, _) | Undo::RemoveDir(one, _) => {
                    one.parent() != Some(path)
                }
                Undo::Content(one) | Undo::Metadata(one) => one != path,
                // The directory of the old name need not be synced.
                Undo::Rename(_, other) => other.parent() != Some(path),
                Undo::Exchange(one, other) => {
                    assert_eq!(one.parent(), other.parent(), "moved to elsewhere");
                    one.parent() != Some(path)
                }
            }),
            Change::SyncAll(path) => log.retain(|undo| {
                let one = undo.path();
                // The name of the directory itself belongs to its parent.
                !one.starts_with(path) || one == path && matches!(undo, Undo::Create(_))
            }),
            Change::Rename(one, other) => {
                let is_hazard = |undo: &&Undo| {
                    let is_below = undo.path().starts_with(one);
                    let is_itself = matches!(undo, Undo::Create(path) | Undo::Rename(_, path) | Undo::Exchange(path, _) if path == one);
                    is_below && !is_itself
                };
                let hazard = log.iter().find(is_hazard);
                assert!(hazard.is_none(), "renamed before it was safe: {hazard:?}");
                // Undoing the rename restores the replaced file too.
                if other.is_file() {
                    let kept = self.kept(other)?;
                    log.push(Undo::RemoveFile(owned(other), kept));
                }
                log.push(Undo::Rename(owned(one), owned(other)));
            }
            Change::Exchange(..) if !self.can_exchange => {
                return Err(io::ErrorKind::Unsupported.into());
            }
            Change::Exchange(one, other) => {
                let hazard = log.iter().find(|undo| undo.path().starts_with(one));
                assert!(hazard.is_none(), "exchanged before it was safe: {hazard:?}");
                log.push(Undo::Exchange(owned(one), owned(other)));
            }
            Change::RemoveFile(path) => {
                let kept = self.kept(path)?;
                log.push(Undo::RemoveFile(owned(path), kept));
            }
            Change::RemoveDir(path) => {
                // A substitute is removed, so that the original can be restored.
                let number = self.number.fetch_add(1, Ordering::Relaxed);
                let kept = self.trash.join(number.to_string());
                fs::rename(path, &kept)?;
                fs::create_dir(path)?;
                log.push(Undo::RemoveDir(owned(path), kept));
            }
        }
        Ok(())
    }

    /// Undoes the unsynced changes as a power failure would.
    pub(crate) fn lose(&self, loss: Loss) {
        let mut log = std::mem::take(&mut *self.unsafe_yet.lock().unwrap());
        let kept = match loss {
            Loss::Nothing => log.len(),
            Loss::Half => log.len() / 2,
            Loss::Everything => 0,
        };
        for undo in log.drain(kept..).rev() {
            // The last announced change did not happen, and the content of deleted directories
            // needs no undo.
            let _ = undo.perform();
        }
        fs::remove_dir_all(&self.trash).unwrap();
        fs::create_dir(&self.trash).unwrap();
    }
}

impl Undo {
    fn path(&self) -> &Path {
        match self {
            Self::Create(path) | Self::Content(path) | Self::Metadata(path) => path,
            Self::Rename(_, path) | Self::Exchange(path, _) => path,
            Self::RemoveFile(path, _) | Self::RemoveDir(path, _) => path,
        }
    }

    fn perform(self) -> io::Result<()> {
        match self {
            Self::Create(path) => {
                if fs::symlink_metadata(&path)?.is_dir() {
                    fs::remove_dir_all(path)
                } else {
                    fs::remove_file(path)
                }
            }
            Self::Content(path) => File::options().write(true).open(path)?.set_len(0),
            Self::Metadata(path) => {
                let kind = fs::symlink_metadata(&path)?.file_type();
                if kind.is_file() || kind.is_dir() {
                    File::open(path)?.set_modified(UNIX_EPOCH)
                } else {
                    Ok(())
                }
            }
            Self::Rename(from, to) => fs::rename(to, from),
            Self::Exchange(one, other) => {
                let cwd = rustix::fs::CWD;
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                Ok(rustix::fs::renameat_with(cwd, one, cwd, other, flags)?)
            }
            Self::RemoveFile(path, kept) => fs::hard_link(kept, path),
            Self::RemoveDir(path, kept) => {
                // The directory may not have been removed.
                let _ = fs::remove_dir(&path);
                fs::rename(kept, path)
            }
        }
    }
}

impl Seam for Plug {
    fn before(&self, change: Change<'_>) -> io::Result<()> {
        let mut left = self.left.lock().unwrap();
        let pulled = || io::Error::other("the plug is pulled");
        *left = Some(
            left.ok_or_else(pulled)?
                .checked_sub(1)
                .ok_or_else(pulled)
                .inspect_err(|_| *left = None)?,
        );
        self.note(change)
    }
}

/// A directory in memory, if possible, where syncing is free.
pub(crate) struct Place {
    pub(crate) path: PathBuf,
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Place {
    /// Creates a place that contains `trash`.
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let memory = Path::new("/dev/shm");
        let above = if memory.is_dir() {
            memory.to_owned()
        } else {
            std::env::temp_dir()
        };
        let path = above.join(format!(
            "mainstay-snapshots-{}-{number}",
            std::process::id()
        ));
        for dir in ["trash", "state", "one", "two"] {
            fs::create_dir_all(path.join(dir)).unwrap();
        }
        Self { path }
    }
}
