//! All directories of a snapshot back in their places, or none.
//!
//! The journal names what will be made beside each target, on the same file system. That is made, each content judged while it is
//! copied, until all of it is on the disk. Then the journal is committed: until here a crash undoes everything, from here it completes
//! it. Old and new change places, one directory after the other, at once where the system can. What was there becomes a snapshot, or
//! goes; last, the journal goes.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use mainstay_core::snapshot::{Index, Journal, Move, Raw, Reason, SnapshotId, older_stable};

use super::copy::{make, seal};
use super::store::{Occasion, Session, Store};
use super::sys::{self, Dir, FileKind};
use super::{Trouble, doing};
use crate::failure::{Code, Failure};

/// What is to be restored.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which {
    /// This one, or none.
    Exactly(SnapshotId),
    /// The newest stable one that is whole, of those older than the given one.
    Stable(Option<SnapshotId>),
}

/// What was restored. The service may start; [`Session::finish`] does the rest.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) index: Index,
    /// What was found damaged on the way, and how.
    pub(crate) damaged: Vec<(SnapshotId, String)>,
    /// As what the replaced state will be kept.
    pub(crate) kept_as: Option<SnapshotId>,
}

impl Session<'_> {
    /// Restores a snapshot. `keeps` the state that it replaces, as a snapshot. The service must not run, and does not start meanwhile.
    pub(crate) fn restore(&mut self, which: Which, keeps: bool) -> Result<Restored, Failure> {
        // Until both are done: nobody may start it on a state that is half there.
        let _down: File = self.store.keep_down()?;
        let known = self.known()?;
        let mut damaged = Vec::new();
        let mut next = match which {
            Which::Exactly(id) => Some(id),
            Which::Stable(before) => older_stable(&known, before),
        };
        while let Some(id) = next {
            match self.restore_one(id, keeps) {
                Ok((index, kept_as)) => {
                    return Ok(Restored {
                        index,
                        damaged,
                        kept_as,
                    });
                }
                Err(Trouble::Failed(failure)) => return Err(failure),
                Err(Trouble::Damaged(why)) => {
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
        let hint = format!("another one can be restored by its ID: mainstay snapshot list {name}");
        Err(Failure::new(Code::Unknown, message).hint(hint))
    }

    fn refuse_damaged(&self, id: SnapshotId, why: &str, older: Option<SnapshotId>) -> Failure {
        let name = &self.store.service;
        let message = format!("snapshot {id} of {name} is damaged: {why}; nothing was changed");
        Failure::new(Code::Failed, message).hint(match older {
            Some(older) => {
                format!("the next older one: mainstay snapshot restore {name} {older}")
            }
            None => format!("no stable one is older: mainstay snapshot list {name}"),
        })
    }

    fn restore_one(
        &mut self,
        id: SnapshotId,
        keeps: bool,
    ) -> Result<(Index, Option<SnapshotId>), Trouble> {
        let index = self.index(id)?;
        let began = self.new_id()?;
        let mut moves = Vec::with_capacity(index.roots.len());
        for (number, root) in index.roots.iter().enumerate() {
            moves.push(self.plan(&root.path, began, number)?);
        }
        let any_old = moves.iter().any(|one| {
            parent_of(one).is_ok_and(|parent| parent.stat(&path_of(&one.target)).is_ok())
        });
        let keep = (keeps && any_old).then_some(began);
        let mut journal = Journal::new(id, keep, moves);
        self.write_journal(began, &journal)?;
        let prepared = self.prepare(&index, &mut journal);
        if let Err(trouble) = prepared {
            self.undo(began, &journal)?;
            return Err(trouble);
        }
        journal.committed = true;
        self.write_journal(began, &journal)?;
        self.exchange_all(&journal)?;
        Ok((index, keep))
    }

    /// Where a root goes, and whether it can.
    fn plan(&self, target: &Raw, began: SnapshotId, number: usize) -> Result<Move, Failure> {
        let target_path = path_of(target);
        let failed = doing("restore", &target_path);
        let (Some(parent), Some(name)) = (target_path.parent(), target_path.file_name()) else {
            let message = format!("restore {}: it has no parent", target_path.display());
            return Err(Failure::new(Code::Failed, message));
        };
        let parent_dir = Dir::open(parent).map_err(failed)?;
        match parent_dir.stat(Path::new(name)) {
            Ok(stat) if stat.kind == FileKind::Dir => {
                refuse_mounts(&parent_dir, Path::new(name))?;
            }
            Ok(_) => {
                let message = format!("restore {}: it is no directory now", target_path.display());
                return Err(Failure::new(Code::Failed, message).hint("move it out of the way"));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let aside = format!(".mainstay-{}-{began}-{number}", self.store.service);
        let raw = |name: &Path| sys::to_raw(name.as_os_str()).map_err(failed);
        Ok(Move {
            parent: raw(parent)?,
            target: raw(Path::new(name))?,
            new: Raw(format!("{aside}.new").into_bytes()),
            old: Raw(format!("{aside}.old").into_bytes()),
            inode: None,
        })
    }

    /// Makes everything that will be exchanged, and has it on the disk.
    fn prepare(&self, index: &Index, journal: &mut Journal) -> Result<(), Trouble> {
        let disk = self.disk();
        for (number, (root, one)) in index.roots.iter().zip(&mut journal.moves).enumerate() {
            let parent = parent_of(one)?;
            let new = path_of(&one.new);
            let path = parent.path().join(&new);
            let failed = doing("create", &path);
            disk.create_dir(&parent, &new).map_err(failed)?;
            let to = parent.dir(&new).map_err(failed)?;
            make(disk, root, &self.tree(index.id, number)?, &to)?;
            seal(disk, root, &to)?;
            one.inode = Some(to.own_stat().map_err(failed)?.inode);
            disk.sync(&parent).map_err(doing("write", parent.path()))?;
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

    /// Before the commit: nothing but what was prepared has changed.
    fn undo(&self, began: SnapshotId, journal: &Journal) -> Result<(), Failure> {
        for one in &journal.moves {
            self.remove_aside(one, &one.new)?;
        }
        self.remove_journal(began)
    }

    /// After the commit: every new directory gets its place, however far that had come.
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
        // What is new has that name no more: all is done.
        if stat(&new)?.is_none() {
            return Ok(());
        }
        let Some(current) = stat(&target)? else {
            // It was not there, or was moved out of the way already.
            return disk.rename(parent, &new, &target);
        };
        let is_exchanged = one
            .inode
            .is_some_and(|inode| inode != 0 && current.inode == inode);
        if is_exchanged || disk.exchange(parent, &new, &target)? {
            return disk.rename(parent, &new, &old);
        }
        disk.rename(parent, &target, &old)?;
        disk.rename(parent, &new, &target)
    }

    /// Ends restores that were interrupted.
    ///
    /// # Errors
    /// Where one cannot be ended; then the state may be half there, and nothing else is done.
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

    fn journals(&self) -> Result<Vec<(SnapshotId, Journal)>, Failure> {
        self.store.journals(&self.dir)
    }
}

impl Store {
    /// Whether a restore was interrupted before all of the state was in its place. [`Store::lock`] ends it.
    pub(crate) fn is_torn(&self) -> Result<bool, Failure> {
        let dir = match Dir::open(&self.dir) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(doing("open", &self.dir)(error)),
        };
        for (_, journal) in self.journals(&dir)? {
            let is_open = |one: &Move| {
                parent_of(one).is_ok_and(|parent| parent.stat(&path_of(&one.new)).is_ok())
            };
            if !journal.committed || journal.moves.iter().any(is_open) {
                return Ok(true);
            }
        }
        Ok(false)
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
    /// Keeps the states that restores have replaced, as snapshots, where that was wanted, and removes them from beside the others. What
    /// cannot be kept stays there, and is tried again by whoever takes the lock next.
    pub(crate) fn finish(&mut self) {
        let journals = match self.journals() {
            Ok(journals) => journals,
            Err(failure) => return self.remarks.push(failure.line()),
        };
        for (began, journal) in journals {
            if let Err(failure) = self.finish_one(began, &journal) {
                self.remarks.push(format!(
                    "the state that restoring {} replaced is not kept yet: {}",
                    journal.snapshot,
                    failure.line()
                ));
            }
        }
    }

    fn finish_one(&self, began: SnapshotId, journal: &Journal) -> Result<(), Failure> {
        let is_kept = journal
            .keep
            .is_none_or(|id| self.dir.stat(Path::new(&id.to_string())).is_ok());
        let mut replaced = Vec::new();
        for one in &journal.moves {
            let parent = parent_of(one)?;
            let old = path_of(&one.old);
            match parent.dir(&old) {
                Ok(dir) => replaced.push((parent.path().join(path_of(&one.target)), dir)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(doing("read", &parent.path().join(old))(error)),
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
        for one in &journal.moves {
            self.remove_aside(one, &one.old)?;
        }
        self.remove_journal(began)
    }

    /// Removes what lies beside a target, for good: the journal, which goes next, must not be missed.
    fn remove_aside(&self, one: &Move, name: &Raw) -> Result<(), Failure> {
        let parent = parent_of(one)?;
        let name = path_of(name);
        let path = parent.path().join(&name);
        let removed = self.disk().remove_all(&parent, &name);
        let synced = removed.and_then(|()| self.disk().sync(&parent));
        synced.map_err(doing("remove", &path))
    }
}

fn journal_name(began: SnapshotId) -> String {
    format!("restore-{began}.json")
}

fn parent_of(one: &Move) -> Result<Dir, Failure> {
    let path = path_of(&one.parent);
    Dir::open(&path).map_err(doing("open", &path))
}

/// Ours come from paths, and names.
fn path_of(raw: &Raw) -> PathBuf {
    sys::from_raw(raw).unwrap_or_default()
}

/// A directory that something is mounted on, or in, cannot be exchanged without taking that along.
fn refuse_mounts(parent: &Dir, name: &Path) -> Result<(), Failure> {
    let path = parent.path().join(name);
    let dir = match parent.dir(name) {
        Ok(dir) => dir,
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let message = format!("restore {}: something is mounted there", path.display());
            return Err(Failure::new(Code::Failed, message)
                .hint("unmount it, or keep a directory inside of it: snapshot = { paths = […] }"));
        }
        Err(error) => return Err(doing("read", &path)(error)),
    };
    for name in dir.names().map_err(doing("read", &path))? {
        let name = Path::new(&name);
        match dir.stat(name) {
            Ok(stat) if stat.kind == FileKind::Dir => refuse_mounts(&dir, name)?,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(doing("read", &path.join(name))(error)),
        }
    }
    Ok(())
}
