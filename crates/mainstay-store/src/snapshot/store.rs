//! The snapshots of one service: listing, creation, verification and deletion.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mainstay_core::failure::{Code, Failure};
use mainstay_core::snapshot::{
    Entry, Index, Known, Reason, Root, SnapshotId, older_stable, surplus,
};
use mainstay_core::spec::{ServiceName, SnapshotKeep, SnapshotPolicy};
use mainstay_sys::lock_file;
use mainstay_sys::private::create_private_dir;

use super::copy::{self, Copy, looks_like, stored};
use super::damage::Damage;
use super::disk::{Disk, Seam};
use super::sys::{self, Dir};
use super::{SnapshotError, called_off, doing};
use crate::state_dir::{StateDir, create_state_dir};

/// The snapshots of a service. The directory need not exist.
#[derive(Clone)]
pub struct Store {
    pub(super) dir: PathBuf,
    pub(super) service: ServiceName,
    pub(super) seam: Arc<dyn Seam>,
    /// The largest total size of a directory that is copied.
    pub(super) max_size: u64,
}

/// A snapshot and its index.
#[derive(Debug)]
pub struct Listed {
    /// The ID, which is the name of its directory.
    pub id: SnapshotId,
    /// The index, or the reason why the snapshot is unusable.
    pub index: Result<Index, Damage>,
}

/// The purpose of a snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Occasion {
    /// The reason, which decides how long the snapshot is kept.
    pub reason: Reason,
    /// Set if the service is healthy with this state.
    pub stable: bool,
    /// Skips the snapshot if the state looks like that of the newest stable one.
    pub only_if_changed: bool,
}

/// The result of `Session::create`.
#[derive(Debug)]
pub enum Created {
    /// A new snapshot.
    Taken(Index),
    /// None, because the state has not changed.
    Unchanged,
}

/// The wait for a lock that another process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// As long as it takes.
    UntilFree,
    /// For half a second, for a command that somebody waits for.
    Briefly,
}

/// The longest wait for a lock.
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);
/// The longest wait for a lock on a supervisor's loop, which serves other services too.
const SHARED_LOCK_TIMEOUT: Duration = Duration::from_millis(50);
/// The polling interval for a lock that may be held for long.
const LOCK_INTERVAL: Duration = Duration::from_millis(20);
const INDEX: &str = "index.json";
const SEAL: &str = "index.sha256";
const TREE: &str = "tree";
/// Prefixes of the names of snapshots that are being created or deleted.
const UNFINISHED: &str = ".new-";
const DELETED: &str = ".old-";

impl Store {
    /// Creates a store. `policy` is the service's snapshot policy, if known.
    pub fn new(
        state: &StateDir,
        service: &ServiceName,
        policy: Option<&SnapshotPolicy>,
        seam: Arc<dyn Seam>,
    ) -> Self {
        Self {
            dir: state.snapshots_dir().join(service.as_str()),
            service: service.clone(),
            seam,
            max_size: policy.map_or(SnapshotPolicy::MAX_SIZE, SnapshotPolicy::max_size),
        }
    }

    /// Returns whether a snapshot was ever created.
    pub fn exists(&self) -> bool {
        self.dir.is_dir()
    }

    /// Returns all snapshots, including damaged ones, oldest first.
    pub fn list(&self) -> Result<Vec<Listed>, Failure> {
        self.each(|listed| listed)
    }

    /// Maps every snapshot. Each index is dropped before the next one is read, unless `make` keeps
    /// it.
    fn each<T>(&self, mut make: impl FnMut(Listed) -> T) -> Result<Vec<T>, Failure> {
        let dir = match Dir::open(&self.dir) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(doing("read", &self.dir)(error)),
        };
        let mut ids = ids_in(&dir)?;
        ids.sort_unstable();
        let listed = ids.into_iter().map(|id| Listed {
            id,
            index: self.index(id),
        });
        let is_there = |it: &Listed| it.index.is_ok() || self.dir_of(it.id).exists();
        Ok(listed.filter(is_there).map(&mut make).collect())
    }

    fn dir_of(&self, id: SnapshotId) -> PathBuf {
        self.dir.join(id.to_string())
    }

    /// Reads and checks the index of a snapshot.
    fn index(&self, id: SnapshotId) -> Result<Index, Damage> {
        let dir = self.dir_of(id);
        let read = |name: &'static str| {
            fs::read(dir.join(name)).map_err(|error| Damage::Unreadable(name, error))
        };
        let (text, seal) = (read(INDEX)?, read(SEAL)?);
        let index = Index::read(&text, &String::from_utf8_lossy(&seal));
        let index = index.map_err(Damage::Index)?;
        if index.id == id && index.service == self.service.as_str() {
            Ok(index)
        } else {
            Err(Damage::Other {
                id: index.id,
                service: index.service,
            })
        }
    }

    /// Takes the lock and finishes interrupted operations.
    pub fn lock(&self, wait: Wait) -> Result<Session<'_>, Failure> {
        let mut session = self.lock_only(match wait {
            Wait::UntilFree => None,
            Wait::Briefly => Some(LOCK_TIMEOUT),
        })?;
        session.clean_up()?;
        session.recover()?;
        Ok(session)
    }

    /// Returns whether [`Store::complete`] may have something to do. Reads nothing outside the
    /// store.
    ///
    /// # Errors
    /// If a journal cannot be read.
    pub fn has_committed_restores(&self) -> Result<bool, Failure> {
        Ok(!self.committed_restores()?.is_empty())
    }

    /// Completes interrupted restores that were committed. This takes a few renames, however large
    /// the state is. [`Store::lock`] does the rest.
    pub fn complete(&self) -> Result<(), Failure> {
        if self.is_torn()? {
            self.lock_only(Some(SHARED_LOCK_TIMEOUT))?.complete()
        } else {
            Ok(())
        }
    }

    /// Creates the directory, and the state directory if it does not exist.
    fn create_dir(&self) -> io::Result<()> {
        if let Some(state) = self.dir.ancestors().nth(2) {
            create_state_dir(state)?;
        }
        create_private_dir(&self.dir)
    }

    /// Takes the lock within `timeout`, or without a limit if it is `None`.
    fn lock_only(&self, timeout: Option<Duration>) -> Result<Session<'_>, Failure> {
        self.create_dir().map_err(doing("create", &self.dir))?;
        let path = self.dir.join("lock");
        let lock = lock_file::open(&path).map_err(doing("open", &path))?;
        match timeout {
            None => self.lock_sometime(&lock).map_err(doing("lock", &path))?,
            Some(timeout) => try_lock(&lock, &path, timeout, File::try_lock, || {
                let message = format!(
                    "a snapshot of {} is being taken, restored or deleted",
                    self.service
                );
                Failure::new(Code::Busy, message).hint("try again later")
            })?,
        }
        let dir = Dir::open(&self.dir).map_err(doing("open", &self.dir))?;
        Ok(Session {
            store: self,
            dir,
            remarks: Vec::new(),
            _lock: lock,
        })
    }

    /// Waits until the lock is free and takes it, unless the operation is cancelled first.
    fn lock_sometime(&self, lock: &File) -> io::Result<()> {
        loop {
            match lock.try_lock() {
                Err(TryLockError::WouldBlock) if self.seam.is_called_off() => {
                    return Err(called_off());
                }
                Err(TryLockError::WouldBlock) => thread::sleep(LOCK_INTERVAL),
                Err(TryLockError::Error(error)) => return Err(error),
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Marks the service as running for as long as the file is open.
    ///
    /// # Errors
    /// If its state is being restored.
    pub fn mark_in_use(&self) -> Result<File, Failure> {
        self.create_dir().map_err(doing("create", &self.dir))?;
        let path = self.in_use_path();
        let file = lock_file::open(&path).map_err(doing("open", &path))?;
        try_lock(
            &file,
            &path,
            SHARED_LOCK_TIMEOUT,
            File::try_lock_shared,
            || {
                let message = format!("the state of {} is being restored", self.service);
                Failure::new(Code::Busy, message)
            },
        )?;
        Ok(file)
    }

    /// Prevents supervisors from starting the service for as long as the file is open.
    ///
    /// # Errors
    /// If a supervisor runs the service.
    pub(super) fn keep_down(&self) -> Result<File, Failure> {
        let path = self.in_use_path();
        let file = lock_file::open(&path).map_err(doing("open", &path))?;
        try_lock(&file, &path, LOCK_TIMEOUT, File::try_lock, || {
            let name = &self.service;
            Failure::new(
                Code::Busy,
                format!("{name} is running: its state is in use"),
            )
            .hint(format!(
                "stop it first: mainstay stop {name}, or use --stop"
            ))
        })?;
        Ok(file)
    }

    fn in_use_path(&self) -> PathBuf {
        self.dir.join("in-use")
    }
}

/// Takes a lock, or fails with `busy`. A child process inherits all locks between its fork and its
/// exec, so a lock can be taken for a moment without an owner.
fn try_lock(
    file: &File,
    path: &Path,
    timeout: Duration,
    take: impl Fn(&File) -> Result<(), TryLockError>,
    busy: impl FnOnce() -> Failure,
) -> Result<(), Failure> {
    let deadline = Instant::now() + timeout;
    loop {
        match take(file) {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(TryLockError::WouldBlock) => return Err(busy()),
            Err(TryLockError::Error(error)) => return Err(doing("lock", path)(error)),
        }
    }
}

fn ids_in(dir: &Dir) -> Result<Vec<SnapshotId>, Failure> {
    let names = dir.names().map_err(doing("read", dir.path()))?;
    let ids = names.iter().filter_map(|name| name.to_str()?.parse().ok());
    Ok(ids.collect())
}

/// The exclusive right to change the snapshots of a service. No operation is unfinished, except
/// that states replaced by restores may still have to be kept.
pub struct Session<'s> {
    pub(super) store: &'s Store,
    pub(super) dir: Dir,
    /// Remarks for the operator about problems that did not fail the operation.
    pub remarks: Vec<String>,
    _lock: File,
}

impl Session<'_> {
    pub(super) fn disk(&self) -> Disk<'_> {
        Disk(&*self.store.seam)
    }

    /// Removes the remains of interrupted operations.
    fn clean_up(&self) -> Result<(), Failure> {
        for name in self.dir.names().map_err(doing("read", self.dir.path()))? {
            let is_left = name.to_str().is_some_and(|name| {
                [UNFINISHED, DELETED].iter().any(|p| name.starts_with(p)) || name.ends_with(".tmp")
            });
            if is_left {
                let path = self.dir.path().join(&name);
                let removed = self.disk().remove_all(&self.dir, Path::new(&name));
                removed.map_err(doing("remove", &path))?;
            }
        }
        Ok(())
    }

    pub(super) fn known(&self) -> Result<Vec<Known>, Failure> {
        self.store.each(|Listed { id, index }| match index {
            Ok(index) => Known {
                id,
                reason: index.reason,
                stable: index.stable,
            },
            // A damaged snapshot is deleted when it is due, and never restored.
            Err(_) => Known {
                id,
                reason: Reason::Manual,
                stable: false,
            },
        })
    }

    pub(super) fn index(&self, id: SnapshotId) -> Result<Index, SnapshotError> {
        if !self.store.dir_of(id).is_dir() {
            let message = format!("{} has no snapshot {id}", self.store.service);
            let hint = format!(
                "list its snapshots: mainstay snapshot list {}",
                self.store.service
            );
            return Err(Failure::new(Code::Unknown, message).hint(hint).into());
        }
        self.store.index(id).map_err(SnapshotError::Damaged)
    }

    pub(super) fn tree(&self, id: SnapshotId, root: usize) -> Result<Dir, SnapshotError> {
        let name = PathBuf::from(id.to_string())
            .join(TREE)
            .join(root.to_string());
        let opened = self.dir.dir(&name);
        opened.map_err(|error| SnapshotError::Damaged(Damage::Dir(name, error)))
    }

    /// Returns an ID that no snapshot and no restore has.
    pub(super) fn new_id(&self) -> Result<SnapshotId, Failure> {
        let names = self.dir.names().map_err(doing("read", self.dir.path()))?;
        let last = names
            .iter()
            .filter_map(|name| {
                let name = name.to_str()?;
                let name = name.strip_prefix("restore-").unwrap_or(name);
                name.strip_suffix(".json").unwrap_or(name).parse().ok()
            })
            .max();
        let micros = u64::try_from(since_epoch().as_micros()).unwrap_or(u64::MAX);
        Ok(SnapshotId::new(micros, last))
    }

    /// Copies the given directories, consistent as of one moment.
    pub fn create(&mut self, paths: &[PathBuf], occasion: Occasion) -> Result<Created, Failure> {
        let mut sources = Vec::with_capacity(paths.len());
        for path in paths {
            let dir = Dir::open(path).map_err(doing("copy", path))?;
            let path = dir.path().to_owned();
            if self.dir.path().starts_with(&path) {
                let message = format!(
                    "cannot copy {}: it contains the snapshots of the service",
                    path.display()
                );
                let failure = Failure::new(Code::InvalidManifest, message);
                return Err(failure.hint("use a directory inside it, or another --state-dir"));
            }
            sources.push((path, dir));
        }
        let inside = |one: &(PathBuf, Dir)| {
            let lies_in = |other: &&(PathBuf, Dir)| one.0 != other.0 && one.0.starts_with(&other.0);
            sources.iter().any(|other| lies_in(&other))
        };
        if let Some((path, _)) = sources.iter().find(|one| inside(one)) {
            let message = format!(
                "cannot copy {}: another of the paths contains it",
                path.display()
            );
            return Err(Failure::new(Code::InvalidManifest, message).hint("keep the outer one"));
        }
        if occasion.only_if_changed && self.is_kept(&sources)? {
            return Ok(Created::Unchanged);
        }
        let id = self.new_id()?;
        self.take(id, &sources, occasion).map(Created::Taken)
    }

    /// Returns whether the newest stable snapshot looks like the current state.
    fn is_kept(&self, sources: &[(PathBuf, Dir)]) -> Result<bool, Failure> {
        let Some(id) = older_stable(&self.known()?, None) else {
            return Ok(false);
        };
        let Ok(index) = self.store.index(id) else {
            return Ok(false);
        };
        if index.roots.len() != sources.len() {
            return Ok(false);
        }
        for ((path, dir), root) in sources.iter().zip(&index.roots) {
            let is_of = sys::to_raw(path.as_os_str()).is_ok_and(|path| path == root.path);
            if !is_of || !looks_like(dir, root, self.store.max_size)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes a snapshot of open directories, each recorded under the given path.
    pub(super) fn take(
        &self,
        id: SnapshotId,
        sources: &[(PathBuf, Dir)],
        occasion: Occasion,
    ) -> Result<Index, Failure> {
        let unfinished = PathBuf::from(format!("{UNFINISHED}{id}"));
        let taken = self.build(id, &unfinished, sources, occasion);
        if taken.is_err() {
            // If this fails too, the next process to take the lock removes it.
            let _ = self.disk().remove_all(&self.dir, &unfinished);
        }
        taken
    }

    fn build(
        &self,
        id: SnapshotId,
        unfinished: &Path,
        sources: &[(PathBuf, Dir)],
        occasion: Occasion,
    ) -> Result<Index, Failure> {
        let disk = self.disk();
        let path = self.dir.path().join(unfinished);
        let failed = doing("write", &path);
        let create = |dir: &Dir, name: &Path| {
            disk.create_dir(dir, name)
                .and_then(|()| dir.dir(name))
                .map_err(failed)
        };
        let new = create(&self.dir, unfinished)?;
        let tree = create(&new, Path::new(TREE))?;
        let (mut roots, mut dirs, mut files) = (Vec::new(), Vec::new(), Vec::new());
        dirs.push(PathBuf::from(TREE));
        for (number, (path, from)) in sources.iter().enumerate() {
            let name = PathBuf::from(number.to_string());
            let to = &create(&tree, &name)?;
            let copy = Copy {
                disk,
                from,
                to,
                max_size: self.store.max_size,
            };
            let entries: Vec<Entry> = copy.take()?;
            let path = sys::to_raw(path.as_os_str()).map_err(doing("copy", path))?;
            let root = Root { path, entries };
            let below = Path::new(TREE).join(&name);
            let (dirs_below, files_below) = stored(&root).map_err(failed)?;
            dirs.push(below.clone());
            dirs.extend(dirs_below.iter().map(|name| below.join(name)));
            files.extend(files_below.iter().map(|name| below.join(name)));
            roots.push(root);
        }
        let Occasion { reason, stable, .. } = occasion;
        let index = Index::new(id, &self.store.service, reason, stable, roots);
        let (text, seal) = index.to_files().map_err(io::Error::other).map_err(failed)?;
        for (name, bytes) in [(INDEX, &text[..]), (SEAL, seal.as_bytes())] {
            disk.write(&new, Path::new(name), bytes).map_err(failed)?;
            files.push(name.into());
        }
        disk.sync_all(&new, &dirs, &files).map_err(failed)?;
        let name = PathBuf::from(id.to_string());
        disk.rename(&self.dir, unfinished, &name).map_err(failed)?;
        disk.sync(&self.dir).map_err(failed)?;
        Ok(index)
    }

    /// Verifies the content of a snapshot. The inner error describes the damage.
    pub fn verify(&self, id: SnapshotId) -> Result<Result<Index, Damage>, Failure> {
        let checked = self.index(id).and_then(|index| {
            for (number, root) in index.roots.iter().enumerate() {
                copy::verify(root, &self.tree(id, number)?)?;
            }
            Ok(index)
        });
        match checked {
            Ok(index) => Ok(Ok(index)),
            Err(SnapshotError::Damaged(why)) => Ok(Err(why)),
            Err(SnapshotError::Failed(failure)) => Err(failure),
        }
    }

    /// Deletes the snapshots that exceed the retention rules.
    pub fn prune(&self, keep: SnapshotKeep) -> Result<Vec<SnapshotId>, Failure> {
        let gone = surplus(&self.known()?, keep, since_epoch());
        gone.iter().try_for_each(|id| self.delete(*id))?;
        Ok(gone.into_iter().collect())
    }

    /// Deletes a snapshot, whether or not it is damaged.
    pub fn delete(&self, id: SnapshotId) -> Result<(), Failure> {
        match self.index(id) {
            Ok(_) | Err(SnapshotError::Damaged(_)) => {}
            Err(SnapshotError::Failed(failure)) => return Err(failure),
        }
        let name = PathBuf::from(id.to_string());
        let deleted = PathBuf::from(format!("{DELETED}{id}"));
        let path = self.dir.path().join(&name);
        let disk = self.disk();
        disk.rename(&self.dir, &name, &deleted)
            .and_then(|()| disk.sync(&self.dir))
            .and_then(|()| disk.remove_all(&self.dir, &deleted))
            .map_err(doing("delete", &path))
    }
}

fn since_epoch() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default()
}
