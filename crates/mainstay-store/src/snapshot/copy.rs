//! Copies directories into snapshots and back.
//!
//! A copy is consistent as of one moment. The source is scanned before and after it is copied.
//! Files that differ between the scans are copied again, until two scans agree. Nothing changed
//! between those two scans, so the copy matches the state at the second one.

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, HashMap, hash_map};
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mainstay_core::failure::{Code, Failure};
use mainstay_core::manifest::ShowSize;
use mainstay_core::snapshot::{Digest, Entry, Kind, Metadata, Raw, Root};

use super::damage::Damage;
use super::descent::Descent;
use super::disk::{Disk, read_through};
use super::sys::{self, Dir, FileKind, Stat};
use super::{SnapshotError, doing};

/// The number of attempts to obtain a consistent copy.
const PASSES: usize = 5;
/// The deepest nesting of directories. Each file is reached through all directories above it.
const DEEPEST: usize = 256;
/// The longest path within a directory, in bytes. The system must still accept it inside a snapshot
/// (PATH_MAX).
const LONGEST: usize = 4000;
/// The largest number of files, links and directories. Each takes some memory during the copy.
const MOST: usize = 2_000_000;
/// The bytes counted per entry in addition to its path, its attributes and its link target: at
/// least its size in an index.
const ENTRY: usize = 256;
/// The lower bound for the size limit of an index, in bytes.
const SMALLEST_INDEX: usize = 4 << 20;
/// The number of bytes of the size limit per byte of index.
const INDEX_SHARE: u64 = 2048;
/// The coarsest resolution of a file system's change times. Two changes within it are
/// indistinguishable.
const TICK: Duration = Duration::from_millis(20);

/// Everything in a directory, by path relative to it.
type Seen = BTreeMap<Raw, Stat>;

/// A limit that a directory exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    Depth,
    Path,
    Entries,
    /// The paths and attributes take more than this many bytes.
    Index(usize),
    /// The files take more than this many bytes, holes included.
    Size(u64),
}

impl Excess {
    fn hint(self) -> &'static str {
        match self {
            Self::Size(_) | Self::Index(_) => {
                "raise snapshot.max_size, or list the directories to copy in snapshot.paths"
            }
            _ => "list the directories to copy in snapshot.paths",
        }
    }

    fn failure(self, dir: &Dir) -> Failure {
        let message = format!("cannot copy {}: {self}", dir.path().display());
        Failure::new(Code::Failed, message).hint(self.hint())
    }
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Depth => write!(
                f,
                "its directories are nested more than {DEEPEST} levels deep"
            ),
            Self::Path => write!(f, "it contains paths longer than {LONGEST} bytes"),
            Self::Entries => write!(f, "it contains more than {MOST} files"),
            Self::Index(most) => write!(
                f,
                "the paths and attributes of its files take more than {} in the index",
                ShowSize(*most as u64)
            ),
            Self::Size(most) => write!(f, "its files are larger than {} in total", ShowSize(*most)),
        }
    }
}

/// Scans a directory. A mount point appears as an empty directory. Files that are not kept are left
/// out.
fn look_over(dir: &Dir, max_size: u64) -> Result<Seen, Failure> {
    let mut seen = Seen::new();
    let own = dir.own_stat().map_err(doing("read", dir.path()))?;
    seen.insert(Raw::default(), own);
    let excess = look_into(dir, max_size, |path, stat| {
        seen.insert(path, stat);
    })?;
    match excess {
        Some(excess) => Err(excess.failure(dir)),
        None => Ok(seen),
    }
}

/// Returns the size limit of an index, counted as for [`ENTRY`]. The index is in memory several
/// times during a snapshot, and the service controls the length of its paths.
fn most_of_index(max_size: u64) -> usize {
    let share = usize::try_from(max_size / INDEX_SHARE).unwrap_or(usize::MAX);
    share.max(SMALLEST_INDEX)
}

/// Returns the limit that a directory exceeds, if any.
pub(super) fn excess_of(dir: &Dir, max_size: u64) -> Result<Option<Excess>, Failure> {
    look_into(dir, max_size, |_, _| {})
}

/// Visits everything below a directory, with paths relative to it.
fn look_into(
    dir: &Dir,
    max_size: u64,
    mut show: impl FnMut(Raw, Stat),
) -> Result<Option<Excess>, Failure> {
    let mut way = Descent::new(dir);
    let most = most_of_index(max_size);
    let too_much = Ok(Some(Excess::Index(most)));
    let mut room = most;
    // A name is counted when it is read; the rest of its path when it is visited.
    let names = |dir: &Dir, room: &mut usize| {
        let names = dir.names_while(|name| take(room, ENTRY + name));
        names.map_err(doing("read", dir.path()))
    };
    let Some(own) = names(dir, &mut room)? else {
        return too_much;
    };
    // The path of each directory on the way down, and its remaining entries.
    let mut left = vec![(Raw::default(), own)];
    let mut count = 0;
    let mut size: u64 = 0;
    // Files with several hard links. Their content is copied once.
    let mut linked = HashMap::new();
    while let Some((at, rest)) = left.last_mut() {
        let Some(name) = rest.pop() else {
            way.leave().map_err(doing("read", dir.path()))?;
            left.pop();
            continue;
        };
        let name = Path::new(&name);
        let failed = |error| doing("read", &way.dir().path().join(name))(error);
        let stat = match way.dir().stat(name) {
            Ok(stat) => stat,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        if stat.kind == FileKind::Other {
            continue;
        }
        let above = at.0.len();
        let mut path = at.clone();
        if !path.0.is_empty() {
            path.0.push(b'/');
        }
        path.0
            .extend(sys::to_raw(name.as_os_str()).map_err(failed)?.0);
        count += 1;
        if path.0.len() > LONGEST {
            return Ok(Some(Excess::Path));
        }
        if count > MOST {
            return Ok(Some(Excess::Entries));
        }
        let mut further = above;
        match stat.kind {
            FileKind::File if stat.links > 1 => match linked.entry(stat.inode) {
                // The entry refers to the first path.
                hash_map::Entry::Occupied(first) => further += *first.get(),
                hash_map::Entry::Vacant(first) => {
                    first.insert(path.0.len());
                    size = size.saturating_add(stat.size);
                }
            },
            FileKind::File => size = size.saturating_add(stat.size),
            FileKind::Symlink => further += usize::try_from(stat.size).unwrap_or(LONGEST),
            _ => {}
        }
        if !take(&mut room, further) {
            return too_much;
        }
        if size > max_size {
            return Ok(Some(Excess::Size(max_size)));
        }
        let is_dir = stat.kind == FileKind::Dir;
        show(path.clone(), stat);
        if !is_dir {
            continue;
        }
        if way.depth() == DEEPEST {
            return Ok(Some(Excess::Depth));
        }
        match way.enter(name) {
            Ok(()) => {
                let Some(below) = names(way.dir(), &mut room)? else {
                    return too_much;
                };
                left.push((path, below));
            }
            Err(error) if has_gone(&error) => {}
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
            Err(error) => return Err(doing("read", &way.dir().path().join(name))(error)),
        }
    }
    Ok(None)
}

/// Deducts `bytes` from `room`; false if there is not enough.
fn take(room: &mut usize, bytes: usize) -> bool {
    let left = room.checked_sub(bytes);
    *room = left.unwrap_or(0);
    left.is_some()
}

/// Returns whether the error means that a file was removed, or replaced by another kind of file.
pub(super) fn has_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory) || sys::is_of_a_link(error)
}

/// Scans a directory once its newest change is old enough that a further change would be visible.
fn look_over_at_rest(dir: &Dir, max_size: u64) -> Result<Seen, Failure> {
    let seen = look_over(dir, max_size)?;
    let newest = seen.values().map(|stat| stat.changed_ns).max().unwrap_or(0);
    let newest = UNIX_EPOCH + Duration::from_nanos(u64::try_from(newest).unwrap_or(0));
    match SystemTime::now().duration_since(newest) {
        Ok(age) if age >= TICK => Ok(seen),
        _ => {
            thread::sleep(TICK);
            look_over(dir, max_size)
        }
    }
}

/// Returns whether a directory looks like this root. Compares kinds, sizes, times, modes and
/// owners, and reads no content.
pub(super) fn looks_like(dir: &Dir, root: &Root, max_size: u64) -> Result<bool, Failure> {
    let seen = look_over(dir, max_size)?;
    let sizes: HashMap<&Raw, u64> = root
        .entries
        .iter()
        .filter_map(|entry| match entry.kind {
            Kind::File { size, .. } => Some((&entry.path, size)),
            _ => None,
        })
        .collect();
    let is_like = |entry: &Entry| {
        let Some(stat) = seen.get(&entry.path) else {
            return false;
        };
        let (kind, size) = match &entry.kind {
            Kind::Dir => (FileKind::Dir, None),
            Kind::File { size, .. } => (FileKind::File, Some(*size)),
            Kind::HardLink { to } => (FileKind::File, sizes.get(to).copied()),
            Kind::Symlink { .. } => (FileKind::Symlink, None),
            Kind::Fifo => (FileKind::Fifo, None),
        };
        let metadata = Metadata {
            xattrs: BTreeMap::new(),
            ..entry.metadata.clone()
        };
        stat.kind == kind && size.is_none_or(|size| stat.size == size) && stat.metadata == metadata
    };
    Ok(seen.len() == root.entries.len() && root.entries.iter().all(is_like))
}

/// A directory that is being copied.
pub(super) struct Copy<'a> {
    pub(super) disk: Disk<'a>,
    pub(super) from: &'a Dir,
    /// The destination. Files and directories keep their relative paths.
    pub(super) to: &'a Dir,
    /// The largest total size of the directory.
    pub(super) max_size: u64,
}

/// A copied entry.
struct Copied {
    stat: Stat,
    kind: Kind,
    metadata: Metadata,
}

impl Copy<'_> {
    /// Copies the whole directory. The entries are in an order in which they can be recreated.
    pub(super) fn take(&self) -> Result<Vec<Entry>, Failure> {
        let mut copied: BTreeMap<Raw, Copied> = BTreeMap::new();
        let mut seen = look_over_at_rest(self.from, self.max_size)?;
        for _ in 0..PASSES {
            self.catch_up(&seen, &mut copied)?;
            let now = look_over_at_rest(self.from, self.max_size)?;
            if now == seen {
                return Ok(copied
                    .into_iter()
                    .map(|(path, one)| Entry {
                        path,
                        kind: one.kind,
                        metadata: one.metadata,
                    })
                    .collect());
            }
            seen = now;
        }
        let restless = seen.iter().find(|(path, stat)| {
            let copied = copied.get(path);
            copied.is_none_or(|copied| copied.stat != **stat)
        });
        let gone = copied.keys().find(|path| !seen.contains_key(path));
        let path = restless.map(|(path, _)| path).or(gone);
        let path = self
            .from
            .path()
            .join(sys::from_raw(path.unwrap_or(&Raw::default())).unwrap_or_default());
        let message = format!("cannot copy {}: it changes during the copy", path.display());
        Err(Failure::new(Code::Busy, message).hint(
            "stop the service first, or set snapshot = { pause = true } or `quiesce` in its manifest",
        ))
    }

    /// Copies every entry that differs from its copy, and removes copies of deleted entries.
    fn catch_up(&self, seen: &Seen, copied: &mut BTreeMap<Raw, Copied>) -> Result<(), Failure> {
        let outdated: Vec<Raw> = copied
            .iter()
            .filter(|(path, one)| seen.get(path) != Some(&one.stat))
            .filter(|(path, one)| {
                // A directory whose times changed is kept.
                let now = seen.get(path).map(|stat| stat.kind);
                one.stat.kind != FileKind::Dir || now != Some(FileKind::Dir)
            })
            .map(|(path, _)| path.clone())
            .collect();
        for path in outdated.iter().rev() {
            copied.remove(path);
            let name = sys::from_raw(path).map_err(doing("copy", self.from.path()))?;
            let gone = self.disk.remove_all(self.to, &name);
            gone.map_err(doing("remove", &self.to.path().join(&name)))?;
        }
        // The file's owner may set attributes up to the limit of the file system.
        let most = most_of_index(self.max_size);
        let attributes = |one: &Copied| {
            let bytes = one.metadata.xattrs.iter();
            bytes
                .map(|(name, value)| name.0.len() + value.0.len())
                .sum::<usize>()
        };
        let mut taken: usize = copied.values().map(attributes).sum();
        // If the first path of a hard-linked file is gone, another path becomes the first.
        let mut first_names: HashMap<u64, Raw> = HashMap::new();
        for (path, stat) in seen {
            let first = match stat.kind {
                FileKind::File if stat.links > 1 && stat.inode != 0 => {
                    let first = first_names.entry(stat.inode);
                    Some(first.or_insert_with(|| path.clone()).clone())
                        .filter(|first| first != path)
                }
                _ => None,
            };
            let is_as_was = match copied.entry(path.clone()) {
                Slot::Vacant(_) => false,
                Slot::Occupied(one) => {
                    let one = one.get();
                    let linked_to = match &one.kind {
                        Kind::HardLink { to } => Some(to),
                        _ => None,
                    };
                    let is_linked_alike = linked_to == first.as_ref();
                    one.stat == *stat && is_linked_alike
                }
            };
            if is_as_was {
                continue;
            }
            let before = copied.remove(path);
            taken -= before.as_ref().map_or(0, attributes);
            let is_there = before.map(|one| one.kind);
            let name = sys::from_raw(path).map_err(doing("copy", self.from.path()))?;
            if let Some(Kind::File { .. }) = is_there {
                let removed = self.disk.remove_file(self.to, &name);
                removed.map_err(doing("remove", &self.to.path().join(&name)))?;
            }
            let is_dir_already = path.0.is_empty() || is_there == Some(Kind::Dir);
            if let Some(one) = self.copy_one(&name, stat, first, is_dir_already)? {
                taken += attributes(&one);
                if taken > most {
                    return Err(Excess::Index(most).failure(self.from));
                }
                copied.insert(path.clone(), one);
            }
        }
        Ok(())
    }

    /// Copies one entry; `None` if it was removed or replaced in the meantime.
    fn copy_one(
        &self,
        name: &Path,
        stat: &Stat,
        first: Option<Raw>,
        is_dir_already: bool,
    ) -> Result<Option<Copied>, Failure> {
        let path = self.from.path().join(name);
        let result = match (stat.kind, first) {
            (FileKind::File, Some(to)) => self.metadata_of(name, stat).map(|metadata| {
                let kind = Kind::HardLink { to };
                Some((kind, metadata))
            }),
            (FileKind::File, None) => self.copy_file(name, stat),
            (FileKind::Dir, _) => self.copy_dir(name, stat, is_dir_already),
            (FileKind::Symlink, _) => {
                let (dir, last) = self.above(name).map_err(doing("copy", &path))?;
                let target = dir.as_ref().unwrap_or(self.from).link_target(&last);
                target.map(|target| Some((Kind::Symlink { target }, stat.metadata.clone())))
            }
            (FileKind::Fifo, _) => Ok(Some((Kind::Fifo, stat.metadata.clone()))),
            (FileKind::Other, _) => Ok(None),
        };
        match result {
            Ok(found) => Ok(found.map(|(kind, metadata)| Copied {
                stat: stat.clone(),
                kind,
                metadata,
            })),
            Err(error) if has_gone(&error) => Ok(None),
            Err(error) => Err(doing("copy", &path)(error)),
        }
    }

    /// Opens the parent directory of `name` step by step, and returns it with the last component.
    /// `None` stands for the topmost directory.
    fn above(&self, name: &Path) -> io::Result<(Option<Dir>, PathBuf)> {
        let mut parts: Vec<_> = name.iter().collect();
        let Some(last) = parts.pop() else {
            return Ok((None, PathBuf::from(".")));
        };
        let mut dir: Option<Dir> = None;
        for part in parts {
            dir = Some(dir.as_ref().unwrap_or(self.from).dir(Path::new(part))?);
        }
        Ok((dir, last.into()))
    }

    fn open(&self, name: &Path) -> io::Result<File> {
        let (dir, last) = self.above(name)?;
        dir.as_ref().unwrap_or(self.from).file(&last)
    }

    fn metadata_of(&self, name: &Path, stat: &Stat) -> io::Result<Metadata> {
        let xattrs = sys::xattrs_of(&self.open(name)?)?;
        Ok(Metadata {
            xattrs,
            ..stat.metadata.clone()
        })
    }

    fn copy_file(&self, name: &Path, stat: &Stat) -> io::Result<Option<(Kind, Metadata)>> {
        let file = self.open(name)?;
        let now = sys::stat_of(&file)?;
        if now.kind != FileKind::File {
            return Ok(None);
        }
        // The file has grown since the scan.
        if now.size > self.max_size {
            let excess = Excess::Size(self.max_size);
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                excess.to_string(),
            ));
        }
        let metadata = Metadata {
            xattrs: sys::xattrs_of(&file)?,
            ..stat.metadata.clone()
        };
        let copy = self.disk.create_file(self.to, name)?;
        let (size, sha256) = self.disk.copy(&file, &copy, &self.to.path().join(name))?;
        Ok(Some((Kind::File { size, sha256 }, metadata)))
    }

    fn copy_dir(
        &self,
        name: &Path,
        stat: &Stat,
        is_there: bool,
    ) -> io::Result<Option<(Kind, Metadata)>> {
        let xattrs = if name.as_os_str().is_empty() {
            self.from.xattrs()?
        } else {
            let (above, last) = self.above(name)?;
            match above.as_ref().unwrap_or(self.from).dir(&last) {
                Ok(dir) => dir.xattrs()?,
                // A mount point: its content is not part of the directory.
                Err(error) if error.kind() == io::ErrorKind::CrossesDevices => BTreeMap::new(),
                Err(error) => return Err(error),
            }
        };
        if !is_there {
            self.disk.create_dir(self.to, name)?;
        }
        let metadata = Metadata {
            xattrs,
            ..stat.metadata.clone()
        };
        Ok(Some((Kind::Dir, metadata)))
    }
}

/// Returns the directories and regular files of a root, by path.
pub(super) fn stored(root: &Root) -> io::Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut dirs, mut files) = (Vec::new(), Vec::new());
    for entry in root.entries.iter().filter(|entry| !entry.path.0.is_empty()) {
        match entry.kind {
            Kind::Dir => dirs.push(sys::from_raw(&entry.path)?),
            Kind::File { .. } => files.push(sys::from_raw(&entry.path)?),
            _ => {}
        }
    }
    Ok((dirs, files))
}

/// Recreates a root in an empty directory from the contents in `from`. Each file is verified while
/// it is copied.
pub(super) fn make(disk: Disk<'_>, root: &Root, from: &Dir, to: &Dir) -> Result<(), SnapshotError> {
    for entry in &root.entries {
        let name = sys::from_raw(&entry.path).map_err(doing("restore", to.path()))?;
        let path = to.path().join(&name);
        let failed = doing("restore", &path);
        let made = match &entry.kind {
            Kind::Dir if name.as_os_str().is_empty() => Ok(()),
            Kind::Dir => disk.create_dir(to, &name),
            Kind::File { size, sha256 } => {
                let source = open_stored(from, &name, &entry.path)?;
                let made = disk.create_file(to, &name).and_then(|file| {
                    let copied = disk.copy(&source, &file, &path)?;
                    disk.set_metadata_of(&file, &path, &entry.metadata)?;
                    Ok(copied)
                });
                match made {
                    Ok(copied) => {
                        check(&entry.path, copied, (*size, *sha256))?;
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
            Kind::HardLink { to: first } => match sys::from_raw(first) {
                Ok(first) => disk.hard_link(to, &first, &name),
                Err(error) => Err(error),
            },
            Kind::Symlink { target } => disk.symlink(to, target, &name).and_then(|()| {
                disk.set_metadata_of_special(to, &name, FileKind::Symlink, &entry.metadata)
            }),
            Kind::Fifo => disk.fifo(to, &name).and_then(|()| {
                disk.set_metadata_of_special(to, &name, FileKind::Fifo, &entry.metadata)
            }),
        };
        made.map_err(failed)?;
    }
    Ok(())
}

/// Syncs everything that was created, then sets the metadata of the directories, innermost first.
/// No files are added to them after that.
pub(super) fn seal(disk: Disk<'_>, root: &Root, to: &Dir) -> Result<(), Failure> {
    let (dirs, files) = stored(root).map_err(doing("restore", to.path()))?;
    disk.sync_all(to, &dirs, &files)
        .map_err(doing("write", to.path()))?;
    for entry in root.entries.iter().rev() {
        if entry.kind != Kind::Dir {
            continue;
        }
        let failed = doing("restore", to.path());
        let name = sys::from_raw(&entry.path).map_err(failed)?;
        // The directory is opened before its metadata is set, because its mode may deny access
        // afterwards.
        let finish = |dir: &Dir| {
            disk.set_metadata(dir, &entry.metadata)?;
            disk.sync(dir)
        };
        let done = if name.as_os_str().is_empty() {
            finish(to)
        } else {
            to.dir(&name).and_then(|dir| finish(&dir))
        };
        done.map_err(doing("restore", &to.path().join(&name)))?;
    }
    Ok(())
}

/// Verifies the content of every file of a root.
pub(super) fn verify(root: &Root, from: &Dir) -> Result<(), SnapshotError> {
    for entry in &root.entries {
        let Kind::File { size, sha256 } = &entry.kind else {
            continue;
        };
        let name = sys::from_raw(&entry.path).map_err(doing("read", from.path()))?;
        let file = open_stored(from, &name, &entry.path)?;
        let found = read_through(&file, |_, _| Ok(()));
        let found = found.map_err(doing("read", &from.path().join(&name)))?;
        check(&entry.path, found, (*size, *sha256))?;
    }
    Ok(())
}

fn open_stored(from: &Dir, name: &Path, path: &Raw) -> Result<File, SnapshotError> {
    match from.file(name) {
        Ok(file) => Ok(file),
        Err(error) if has_gone(&error) => {
            Err(SnapshotError::Damaged(Damage::Missing(path.clone())))
        }
        Err(error) => Err(doing("read", &from.path().join(name))(error).into()),
    }
}

fn check(path: &Raw, found: (u64, Digest), wanted: (u64, Digest)) -> Result<(), SnapshotError> {
    if found == wanted {
        return Ok(());
    }
    let (found, wanted) = (found.0, wanted.0);
    let path = path.clone();
    Err(SnapshotError::Damaged(if found == wanted {
        Damage::Changed(path)
    } else {
        Damage::Size {
            path,
            found,
            wanted,
        }
    }))
}
