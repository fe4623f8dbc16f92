//! Restores all directories of a snapshot, or none.
//!
//! 1. The journal names the new directories, which are created beside each target on the same file
//!    system.
//! 2. The new directories are filled. Each file is verified while it is copied, and everything is
//!    synced.
//! 3. The journal is committed. A crash before this point undoes the restore; a crash after it
//!    completes the restore.
//! 4. Old and new directories are exchanged one after the other, atomically if the system supports
//!    it.
//! 5. The replaced state becomes a snapshot or is removed. Last, the journal is removed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use mainstay_core::failure::{Code, Failure};
use mainstay_core::snapshot::{Index, Journal, Move, Raw, Reason, SnapshotId, older_stable};
use mainstay_sys::guarded;

use super::copy::{Excess, excess_of, has_gone, make, seal};
use super::damage::Damage;
use super::descent::Descent;
use super::store::{Occasion, Session, Store};
use super::sys::{self, Dir, FileKind};
use super::{SnapshotError, called_off, doing};

/// The snapshot to restore.
#[derive(Clone, Copy, Debug)]
pub enum Which {
    /// Exactly this one.
    Exactly(SnapshotId),
    /// The newest undamaged stable snapshot, among those older than the given one.
    Stable(Option<SnapshotId>),
}

/// The fate of the state that a restore replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// Kept as a snapshot.
    Keep,
    /// Deleted.
    Discard,
}

/// A completed restore. The service may start; [`Session::finish`] does the remaining work.
#[derive(Debug)]
pub struct Restored {
    /// The index of the snapshot that was restored.
    pub index: Index,
    /// Damaged snapshots that were skipped, with the reasons.
    pub damaged: Vec<(SnapshotId, Damage)>,
    /// The ID of the snapshot that will contain the replaced state.
    pub kept_as: Option<SnapshotId>,
}

impl Session<'_> {
    /// Restores a snapshot. The service must not be running, and cannot start during the restore.
    pub fn restore(&mut self, which: Which, replaced: Replaced) -> Result<Restored, Failure> {
        // Held until both steps are done, so that the service never starts on a partially restored
        // state.
        let _down: File = self.store.keep_down()?;
        let known = self.known()?;
        let mut damaged = Vec::new();
        let mut next = match which {
            Which::Exactly(id) => Some(id),
            Which::Stable(before) => older_stable(&known, before),
        };
        while let Some(id) = next {
            match self.restore_one(id, replaced) {
                Ok((index, kept_as)) => {
                    return Ok(Restored {
                        index,
                        damaged,
                        kept_as,
                    });
                }
                Err(SnapshotError::Failed(failure)) => return Err(failure),
                Err(SnapshotError::Damaged(why)) => {
                    let older = older_stable(&known, Some(id));
                    if let Which::Exactly(_) = which {
                        return Err(self.refuse_damaged(id, &why, older));
                    }
                    damaged.push((id, why));
                    next = older;
                }
            }
        }
        let name = &self.store.service;
        let mut message = match which {
            Which::Stable(Some(before)) => {
                format!("{name} has no stable snapshot before {before}")
            }
            _ => format!("{name} has no stable snapshot"),
        };
        for (id, why) in &damaged {
            message.push_str(&format!("; {id} is damaged: {why}"));
        }
        let failure = Failure::new(Code::Unknown, message);
        if known.is_empty() {
            return Err(failure);
        }
        let hint = format!("restore another one by its ID: mainstay snapshot list {name}");
        Err(failure.hint(hint))
    }

    fn refuse_damaged(&self, id: SnapshotId, why: &Damage, older: Option<SnapshotId>) -> Failure {
        let name = &self.store.service;
        let message = format!("snapshot {id} of {name} is damaged: {why}; nothing was changed");
        Failure::new(Code::Failed, message).hint(match older {
            Some(older) => {
                format!("restore the next older one: mainstay snapshot restore {name} {older}")
            }
            None => format!("there is no older stable one: mainstay snapshot list {name}"),
        })
    }

    fn restore_one(
        &mut self,
        id: SnapshotId,
        replaced: Replaced,
    ) -> Result<(Index, Option<SnapshotId>), SnapshotError> {
        let index = self.index(id)?;
        let began = self.new_id()?;
        let mut moves = Vec::with_capacity(index.roots.len());
        for (number, root) in index.roots.iter().enumerate() {
            moves.push(self.plan(&root.path, began, number)?);
        }
        let any_old = moves.iter().any(|one| {
            parent_of(one).is_ok_and(|parent| parent.stat(&path_of(&one.target)).is_ok())
        });
        let keep = (replaced == Replaced::Keep && any_old).then_some(began);
        let mut journal = Journal::new(id, keep, moves);
        self.write_journal(began, &journal)?;
        let prepared = self.prepare(&index, began, &mut journal);
        let prepared = prepared.and_then(|()| {
            if self.store.seam.is_called_off() {
                Err(doing("restore", self.dir.path())(called_off()).into())
            } else {
                Ok(())
            }
        });
        if let Err(error) = prepared {
            self.undo(began, &journal)?;
            return Err(error);
        }
        journal.committed = true;
        self.write_journal(began, &journal)?;
        self.exchange_all(&journal)?;
        Ok((index, keep))
    }

    /// Plans the move of a root to its target, and checks that it is possible.
    fn plan(&self, target: &Raw, began: SnapshotId, number: usize) -> Result<Move, Failure> {
        let target_path = path_of(target);
        let failed = doing("restore", &target_path);
        let (Some(parent), Some(name)) = (target_path.parent(), target_path.file_name()) else {
            let message = format!("cannot restore {}: it has no parent", target_path.display());
            return Err(Failure::new(Code::Failed, message));
        };
        let parent_dir = Dir::open(parent).map_err(failed)?;
        let old_inode = match parent_dir.stat(Path::new(name)) {
            Ok(stat) if stat.kind == FileKind::Dir => {
                refuse_mounts(&parent_dir, Path::new(name))?;
                Some(stat.inode)
            }
            Ok(_) => {
                let message = format!(
                    "cannot restore {}: it is not a directory",
                    target_path.display()
                );
                return Err(Failure::new(Code::Failed, message).hint("move it out of the way"));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        let aside = format!(".mainstay-{}-{began}-{number}", self.store.service);
        let raw = |name: &Path| sys::to_raw(name.as_os_str()).map_err(failed);
        Ok(Move {
            parent: raw(parent)?,
            target: raw(Path::new(name))?,
            new: Raw(format!("{aside}.new").into_bytes()),
            old: Raw(format!("{aside}.old").into_bytes()),
            inode: None,
            old_inode,
        })
    }

    /// Creates and syncs everything that will be exchanged.
    fn prepare(
        &self,
        index: &Index,
        began: SnapshotId,
        journal: &mut Journal,
    ) -> Result<(), SnapshotError> {
        let disk = self.disk();
        let mut made = Vec::with_capacity(journal.moves.len());
        for one in &mut journal.moves {
            let parent = parent_of(one)?;
            let new = path_of(&one.new);
            let path = parent.path().join(&new);
            let failed = doing("create", &path);
            disk.create_dir(&parent, &new).map_err(failed)?;
            let to = parent.dir(&new).map_err(failed)?;
            // The owner of the parent directory may have replaced the new directory.
            if !to.is_untouched().map_err(failed)? {
                return Err(failed(io::Error::other("it was replaced meanwhile")).into());
            }
            one.inode = Some(to.own_stat().map_err(failed)?.inode);
            made.push((parent, to));
        }
        // From here on the journal identifies the directories that an undo may remove.
        self.write_journal(began, journal)?;
        for (number, (root, (parent, to))) in index.roots.iter().zip(&made).enumerate() {
            make(disk, root, &self.tree(index.id, number)?, to)?;
            seal(disk, root, to)?;
            disk.sync(parent).map_err(doing("write", parent.path()))?;
        }
        Ok(())
    }

    fn write_journal(&self, began: SnapshotId, journal: &Journal) -> Result<(), Failure> {
        let name = journal_name(began);
        let path = self.dir.path().join(&name);
        let text = journal.to_text().map_err(io::Error::other);
        let text = text.map_err(doing("write", &path))?;
        let written = self.disk().write_whole(&self.dir, &name, &text);
        written.map_err(doing("write", &path))
    }

    fn remove_journal(&self, began: SnapshotId) -> Result<(), Failure> {
        let name = journal_name(began);
        let path = self.dir.path().join(&name);
        let removed = self.disk().remove_all(&self.dir, Path::new(&name));
        let synced = removed.and_then(|()| self.disk().sync(&self.dir));
        synced.map_err(doing("remove", &path))
    }

    /// Undoes a restore before its commit. Only the prepared directories exist so far.
    fn undo(&mut self, began: SnapshotId, journal: &Journal) -> Result<(), Failure> {
        for one in &journal.moves {
            let aside = one.inode.map_or(Aside::Empty, Aside::of);
            let remark = self.remove_aside(one, &one.new, aside)?;
            self.remarks.extend(remark);
        }
        self.remove_journal(began)
    }

    /// Moves every new directory into place after the commit, from whatever point was reached.
    fn exchange_all(&self, journal: &Journal) -> Result<(), Failure> {
        for one in &journal.moves {
            let parent = parent_of(one)?;
            let target_path = parent.path().join(path_of(&one.target));
            let exchanged = self.exchange(&parent, one);
            exchanged.map_err(doing("restore", &target_path))?;
            let synced = self.disk().sync(&parent);
            synced.map_err(doing("write", parent.path()))?;
        }
        Ok(())
    }

    fn exchange(&self, parent: &Dir, one: &Move) -> io::Result<()> {
        let (target, new, old) = (path_of(&one.target), path_of(&one.new), path_of(&one.old));
        let disk = self.disk();
        let stat = |name: &Path| match parent.stat(name) {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        // The new directory no longer has its temporary name, so the exchange is complete.
        let Some(prepared) = stat(&new)? else {
            return Ok(());
        };
        let is_prepared = one.inode.is_none_or(|inode| prepared.inode == inode);
        let replaced = || io::Error::other(format!("{} was replaced meanwhile", new.display()));
        let Some(current) = stat(&target)? else {
            // The target did not exist, or was already moved aside.
            return if is_prepared {
                disk.rename(parent, &new, &target)
            } else {
                Err(replaced())
            };
        };
        let is_exchanged = one
            .inode
            .is_some_and(|inode| inode != 0 && current.inode == inode);
        if !is_exchanged && !is_prepared {
            return Err(replaced());
        }
        if is_exchanged || disk.exchange(parent, &new, &target)? {
            return disk.rename(parent, &new, &old);
        }
        disk.rename(parent, &target, &old)?;
        disk.rename(parent, &new, &target)
    }

    /// Finishes interrupted restores.
    ///
    /// # Errors
    /// If one cannot be finished. The state may then be partially restored, and nothing
    /// else is done.
    pub(super) fn recover(&mut self) -> Result<(), Failure> {
        for (began, journal) in self.journals()? {
            if !journal.committed {
                self.undo(began, &journal)?;
                continue;
            }
            self.exchange_all(&journal)?;
        }
        Ok(())
    }

    /// Completes the committed restores.
    pub(super) fn complete(&self) -> Result<(), Failure> {
        let journals = self.journals()?.into_iter();
        let mut decided = journals.filter(|(_, journal)| journal.committed);
        decided.try_for_each(|(_, journal)| self.exchange_all(&journal))
    }

    fn journals(&self) -> Result<Vec<(SnapshotId, Journal)>, Failure> {
        self.store.journals(&self.dir)
    }
}

impl Store {
    /// Returns whether a restore was interrupted between its commit and the exchange of its last
    /// directory.
    pub(super) fn is_torn(&self) -> Result<bool, Failure> {
        let is_open =
            |one: &Move| parent_of(one).is_ok_and(|parent| parent.stat(&path_of(&one.new)).is_ok());
        let committed = self.committed_restores()?;
        Ok(committed.iter().flat_map(|it| &it.moves).any(is_open))
    }

    /// Returns the journals of committed restores, which may not be complete. Reads nothing outside
    /// the store.
    pub(super) fn committed_restores(&self) -> Result<Vec<Journal>, Failure> {
        let dir = match Dir::open(&self.dir) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(doing("open", &self.dir)(error)),
        };
        let journals = self.journals(&dir)?.into_iter().map(|(_, journal)| journal);
        Ok(journals.filter(|journal| journal.committed).collect())
    }

    fn journals(&self, dir: &Dir) -> Result<Vec<(SnapshotId, Journal)>, Failure> {
        let names = dir.names().map_err(doing("read", dir.path()))?;
        let mut journals = Vec::new();
        for name in names.iter().filter_map(|name| name.to_str()) {
            let began = name
                .strip_prefix("restore-")
                .and_then(|name| name.strip_suffix(".json"))
                .and_then(|id| id.parse().ok());
            let Some(began) = began else { continue };
            let path = dir.path().join(name);
            let text = fs::read(&path).map_err(doing("read", &path))?;
            let journal = Journal::read(&text).map_err(|bad| {
                let message = format!("read {}: {bad}", path.display());
                Failure::new(Code::Failed, message)
            })?;
            journals.push((began, journal));
        }
        journals.sort_by_key(|(began, _)| *began);
        Ok(journals)
    }
}

impl Session<'_> {
    /// Keeps the states that restores have replaced as snapshots, where requested, and removes them
    /// from beside their targets. A state that cannot be kept stays there, and the next session
    /// tries again.
    pub fn finish(&mut self) {
        let journals = match self.journals() {
            Ok(journals) => journals,
            Err(failure) => return self.remarks.push(failure.line()),
        };
        for (began, journal) in journals {
            if let Err(failure) = self.finish_one(began, &journal) {
                self.remarks.push(format!(
                    "the state that was replaced by restoring {} is not stored as a snapshot yet: {}",
                    journal.snapshot,
                    failure.line()
                ));
            }
        }
    }

    fn finish_one(&mut self, began: SnapshotId, journal: &Journal) -> Result<(), Failure> {
        let is_kept = journal
            .keep
            .is_none_or(|id| self.dir.stat(Path::new(&id.to_string())).is_ok());
        // The states to keep, and the moves whose old directories are removed afterwards.
        let (mut replaced, mut gone) = (Vec::new(), Vec::new());
        for one in &journal.moves {
            let old = path_of(&one.old);
            let path = path_of(&one.parent).join(&old);
            let aside = one.old_inode.map_or(Aside::Any, Aside::of);
            let opened = Dir::open(&path_of(&one.parent)).and_then(|parent| parent.dir(&old));
            match opened {
                Ok(dir) if !aside.is(&dir).map_err(doing("read", &path))? => {
                    self.remarks.push(not_ours(&path));
                }
                Ok(dir) => match self.excess_of(&dir, is_kept)? {
                    Some(excess) => self.remarks.push(format!(
                        "the state that was replaced by restoring {} cannot be stored as a snapshot: {excess}; it remains at {}",
                        journal.snapshot,
                        path.display()
                    )),
                    None => {
                        let target = path_of(&one.parent).join(path_of(&one.target));
                        replaced.push((target, dir));
                        gone.push((one, aside));
                    }
                },
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if guarded::refusal(&error).is_some() => {
                    self.remarks.push(format!("{} was not removed: {error}", path.display()));
                }
                Err(error) => return Err(doing("read", &path)(error)),
            }
        }
        if let (Some(id), false) = (journal.keep, is_kept || replaced.is_empty()) {
            let occasion = Occasion {
                reason: Reason::BeforeRestore,
                stable: false,
                only_if_changed: false,
            };
            self.take(id, &replaced, occasion)?;
        }
        drop(replaced);
        for (one, aside) in gone {
            let remark = self.remove_aside(one, &one.old, aside)?;
            self.remarks.extend(remark);
        }
        self.remove_journal(began)
    }

    /// Returns the limit that a replaced state exceeds, if it has not been kept yet.
    fn excess_of(&self, dir: &Dir, is_kept: bool) -> Result<Option<Excess>, Failure> {
        if is_kept {
            Ok(None)
        } else {
            excess_of(dir, self.store.max_size)
        }
    }

    /// Removes a directory beside a target and syncs the removal, because the journal, which is
    /// removed next, must not be needed afterwards. A directory that was replaced by someone else
    /// is left in place, and a remark is returned.
    fn remove_aside(
        &self,
        one: &Move,
        name: &Raw,
        aside: Aside,
    ) -> Result<Option<String>, Failure> {
        let above = path_of(&one.parent);
        let name = path_of(name);
        let path = above.join(&name);
        let parent = match Dir::open(&above) {
            Ok(parent) => parent,
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    || guarded::refusal(&error).is_some() =>
            {
                return Ok(Some(format!(
                    "{} may not have been removed: {error}",
                    path.display()
                )));
            }
            Err(error) => return Err(doing("open", &above)(error)),
        };
        let failed = doing("remove", &path);
        let is_dir = match parent.stat(&name) {
            Ok(stat) => stat.kind == FileKind::Dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let disk = self.disk();
        let is_removed = match aside {
            Aside::Any => disk.remove_all(&parent, &name).map(|()| true),
            Aside::Inode(inode) if is_dir => disk.remove_tree(&parent, &name, Some(inode)),
            Aside::Inode(_) => Ok(false),
            Aside::Empty => disk.remove_empty(&parent, &name),
        };
        let is_removed = is_removed.map_err(failed)?;
        self.disk().sync(&parent).map_err(failed)?;
        Ok((!is_removed).then(|| not_ours(&path)))
    }
}

/// The expected identity of a directory beside a target. The owner of the parent directory may have
/// replaced it.
#[derive(Clone, Copy)]
enum Aside {
    Inode(u64),
    /// Just created, and therefore empty.
    Empty,
    /// No check is possible.
    Any,
}

impl Aside {
    /// Identifies a directory by its inode number, which is 0 if the system does not provide one.
    fn of(inode: u64) -> Self {
        match inode {
            0 => Self::Any,
            inode => Self::Inode(inode),
        }
    }

    fn is(self, dir: &Dir) -> io::Result<bool> {
        Ok(match self {
            Self::Inode(inode) => dir.own_stat()?.inode == inode,
            Self::Empty => dir.names()?.is_empty(),
            Self::Any => true,
        })
    }
}

fn not_ours(path: &Path) -> String {
    format!(
        "{} was replaced meanwhile and was not changed",
        path.display()
    )
}

fn journal_name(began: SnapshotId) -> String {
    format!("restore-{began}.json")
}

fn parent_of(one: &Move) -> Result<Dir, Failure> {
    let path = path_of(&one.parent);
    Dir::open(&path).map_err(doing("open", &path))
}

/// Converts a raw path of the journal. Those always come from valid paths and names.
fn path_of(raw: &Raw) -> PathBuf {
    sys::from_raw(raw).unwrap_or_default()
}

/// Rejects a directory that is a mount point or contains one. Exchanging it would move the mount
/// too.
fn refuse_mounts(parent: &Dir, name: &Path) -> Result<(), Failure> {
    let path = parent.path().join(name);
    let dir = match parent.dir(name) {
        Ok(dir) => dir,
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            return Err(mounted(&path));
        }
        Err(error) => return Err(doing("read", &path)(error)),
    };
    match mount_in(&dir).map_err(doing("read", &path))? {
        Some(mount) => Err(mounted(&mount)),
        None => Ok(()),
    }
}

/// Returns the first mount point found below a directory.
fn mount_in(dir: &Dir) -> io::Result<Option<PathBuf>> {
    let mut way = Descent::new(dir);
    let mut left = vec![dir.names()?];
    while let Some(names) = left.last_mut() {
        let Some(name) = names.pop().map(PathBuf::from) else {
            way.leave()?;
            left.pop();
            continue;
        };
        match way.dir().stat(&name) {
            Ok(stat) if stat.kind == FileKind::Dir => {}
            Ok(_) => continue,
            Err(error) if has_gone(&error) => continue,
            Err(error) => return Err(error),
        }
        match way.enter(&name) {
            Ok(()) => left.push(way.dir().names()?),
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                return Ok(Some(way.dir().path().join(name)));
            }
            Err(error) if has_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn mounted(path: &Path) -> Failure {
    let message = format!("cannot restore {}: it is a mount point", path.display());
    Failure::new(Code::Failed, message)
        .hint("unmount it, or set `snapshot.paths` to directories inside it")
}
