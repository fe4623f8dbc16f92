//! The files of one log, oldest first, and their content in any compression.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use flate2::read::MultiGzDecoder;
use mainstay_core::log::{CURRENT, CURRENT_INDEX, Mark, Stamp};
use mainstay_sys::guarded;

use super::index::Index;
use super::part::{copy, first, read_exact_at, read_some, to_usize};
use super::{BLOCK, SLACK};

/// The maximum number of attempts to list a log that is rotated at the same time.
const TRIES: u32 = 100;
/// The suffixes of a rotated file's name. The plain file takes precedence: a compressed one next to
/// it may be unfinished, or the plain one is about to be deleted.
const PACKINGS: [(&str, Packing); 3] = [
    ("", Packing::None),
    (".zst", Packing::Zstd),
    (".gz", Packing::Gzip),
];

#[derive(Clone, Copy)]
enum Packing {
    None,
    Zstd,
    Gzip,
}

/// One log at the moment of opening: its files, oldest first. Later lines are read through
/// [`Position`](super::Position).
pub struct Log {
    pub(super) dir: PathBuf,
    pub(super) pieces: Vec<Piece>,
    /// The last piece, if it may still grow.
    pub(super) live: Option<Live>,
    damage: RefCell<Vec<Damage>>,
}

/// One file.
#[derive(Debug)]
pub(super) struct Piece {
    /// The rotation time; `None` for the current file.
    pub(super) stamp: Option<Stamp>,
    /// The name that another program gave it, without `.gz` or `.zst`.
    moved: Option<String>,
    /// The time before which no line was written; 0 if unknown. All times here are microseconds
    /// since 1970.
    pub(super) begun: u64,
    /// The time after which no line was written.
    pub(super) ended: u64,
}

/// A file that may still grow. It is held open, so that a rotation does not lose it.
pub(super) struct Live {
    pub(super) file: File,
    /// The number of bytes to use.
    pub(super) len: u64,
    index: Option<Index>,
}

/// A file that cannot be read to its end.
#[derive(Debug)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// The cause.
    pub error: io::Error,
}

/// The content of a piece.
pub(super) enum Content<'a> {
    /// A plain file, with the number of bytes to use.
    Plain(File, u64),
    /// A compressed file, to be read from beginning to end.
    Packed(Packed<'a>),
    /// A file that was deleted since it was listed, as were all older ones.
    Gone,
}

impl Log {
    /// Lists the files and opens the current one at the same moment.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if the log was never written.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let mut listed = list(dir)?;
        for _ in 0..TRIES {
            let current = match guarded::file(&dir.join(CURRENT)) {
                Ok(file) => {
                    let index = Index::open(&dir.join(CURRENT_INDEX), |most| first(&file, most));
                    Some((file, index))
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
            let before = std::mem::replace(&mut listed, list(dir)?);
            let last = before.last().map(Listed::identity);
            if last == listed.last().map(Listed::identity) {
                return Self::of(dir, &listed, current);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "the log is rotated faster than it can be listed",
        ))
    }

    fn of(
        dir: &Path,
        listed: &[Listed],
        current: Option<(File, Option<Index>)>,
    ) -> io::Result<Self> {
        let mut begun = 0;
        let mut pieces = Vec::with_capacity(listed.len() + 1);
        for Listed { stamp, moved } in listed {
            let ended = stamp.unix_micros();
            pieces.push(Piece {
                stamp: Some(*stamp),
                moved: moved.as_ref().map(|moved| moved.name.clone()),
                begun,
                ended: match moved {
                    Some(_) => ended.saturating_add(SLACK),
                    None => ended,
                },
            });
            begun = ended;
        }
        let mut live = None;
        if let Some((file, index)) = current {
            let metadata = file.metadata()?;
            pieces.push(Piece {
                stamp: None,
                moved: None,
                begun,
                ended: last_change(&metadata).max(begun),
            });
            // During a rotation it may still be the index of the previous file. The stamp of a
            // moved file is only its last change, by the coarse clock of the file system.
            let is_moved = listed.last().is_some_and(|last| last.moved.is_some());
            let slack = if is_moved { SLACK } else { 0 };
            let is_later = |mark: Mark| mark.time.unix_micros().saturating_add(slack) > begun;
            let index = index.filter(|index| index.first().is_some_and(is_later));
            live = Some(Live {
                len: metadata.len(),
                file,
                index,
            });
        } else if let Some(piece) = pieces.last()
            && let Some(name) = piece.plain_name()
            && let Ok(file) = guarded::file(&dir.join(name))
        {
            // Between the two steps of a rotation: the file may still grow.
            live = Some(Live {
                len: file.metadata()?.len(),
                index: piece
                    .index_name()
                    .and_then(|name| Index::open(&dir.join(name), |most| first(&file, most))),
                file,
            });
        }
        Ok(Self {
            dir: dir.to_path_buf(),
            pieces,
            live,
            damage: RefCell::default(),
        })
    }

    /// Excludes the unfinished line of the file that may still grow.
    pub fn leave_unfinished_line(&mut self) -> io::Result<()> {
        let Some(live) = &mut self.live else {
            return Ok(());
        };
        let mut block = vec![0; BLOCK];
        let mut end = live.len;
        while end > 0 {
            let length = end.min(BLOCK as u64);
            let block = &mut block[..to_usize(length)];
            read_exact_at(&live.file, block, end - length)?;
            if let Some(found) = memchr::memrchr(b'\n', block) {
                live.len = end - length + found as u64 + 1;
                return Ok(());
            }
            end -= length;
        }
        live.len = 0;
        Ok(())
    }

    /// Returns the last lines of the log that are whole, at most this many bytes. They are in the
    /// last two files, unless these are compressed.
    pub fn tail(&self, most: usize) -> io::Result<Vec<u8>> {
        let mut tail = Vec::new();
        for piece in (0..self.pieces.len()).rev().take(2) {
            let Content::Plain(file, len) = self.content(piece)? else {
                break;
            };
            let room = (most - tail.len()) as u64;
            let mut block = vec![0; to_usize(len.min(room))];
            read_exact_at(&file, &mut block, len.saturating_sub(room))?;
            // The last line may be unfinished, and the first one begin before the block.
            block.truncate(memchr::memrchr(b'\n', &block).map_or(0, |end| end + 1));
            if len > room {
                block.drain(..memchr::memchr(b'\n', &block).map_or(0, |end| end + 1));
            }
            block.extend_from_slice(&tail);
            tail = block;
            if len >= room {
                break;
            }
        }
        Ok(tail)
    }

    /// Returns the files found so far that cannot be read to their end.
    pub fn damage(&self) -> Vec<Damage> {
        self.damage.take()
    }

    pub(super) fn live_of(&self, piece: usize) -> Option<&Live> {
        self.live
            .as_ref()
            .filter(|_| piece + 1 == self.pieces.len())
    }

    pub(super) fn content(&self, piece: usize) -> io::Result<Content<'_>> {
        if let Some(live) = self.live_of(piece) {
            return Ok(Content::Plain(live.file.try_clone()?, live.len));
        }
        let Some(name) = self.pieces[piece].plain_name() else {
            return Ok(Content::Gone);
        };
        for (suffix, packing) in PACKINGS {
            let path = self.dir.join(format!("{name}{suffix}"));
            let file = match guarded::file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(named(&path, &error)),
                Ok(file) => file,
            };
            let unpacked: Box<dyn Read> = match packing {
                Packing::None => {
                    let len = file.metadata()?.len();
                    return Ok(Content::Plain(file, len));
                }
                Packing::Zstd => Box::new(zstd::Decoder::with_buffer(BufReader::with_capacity(
                    BLOCK, file,
                ))?),
                Packing::Gzip => {
                    Box::new(MultiGzDecoder::new(BufReader::with_capacity(BLOCK, file)))
                }
            };
            return Ok(Content::Packed(Packed {
                unpacked,
                path,
                damage: &self.damage,
            }));
        }
        Ok(Content::Gone)
    }

    /// Returns the index of a piece; `None` if there is none.
    pub(super) fn index(&self, piece: usize) -> Option<Index> {
        if let Some(live) = self.live_of(piece) {
            return live.index.as_ref().and_then(Index::try_clone);
        }
        let Piece { begun, ended, .. } = self.pieces[piece];
        let path = self.dir.join(self.pieces[piece].index_name()?);
        let index = Index::open(&path, |most| self.first_bytes(piece, most))?;
        // Files of one service often begin alike.
        let is_after = index.first()?.time.unix_micros().saturating_add(SLACK) >= begun;
        let is_before = index.last()?.time.unix_micros() <= ended.saturating_add(SLACK);
        (is_after && is_before).then_some(index)
    }

    /// Returns the first bytes of a piece, at most this many.
    fn first_bytes(&self, piece: usize, most: usize) -> Option<Vec<u8>> {
        match self.content(piece).ok()? {
            Content::Plain(file, _) => first(&file, most),
            Content::Packed(packed) => read_some(packed, most),
            Content::Gone => None,
        }
    }
}

impl Piece {
    /// Returns the name of the uncompressed file; `None` for the current one.
    fn plain_name(&self) -> Option<String> {
        let moved = self.moved.clone();
        moved.or_else(|| self.stamp.map(Stamp::file_name))
    }

    /// Returns the name of the index, if the piece can have one.
    fn index_name(&self) -> Option<String> {
        match self.moved {
            Some(_) => None,
            None => self.stamp.map(Stamp::index_name),
        }
    }
}

/// A compressed file. If it is damaged, it ends at the damage, which is recorded.
pub(super) struct Packed<'a> {
    unpacked: Box<dyn Read>,
    path: PathBuf,
    damage: &'a RefCell<Vec<Damage>>,
}

impl Read for Packed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.unpacked.read(buffer) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                let mut damage = self.damage.borrow_mut();
                if damage.iter().all(|known| known.path != self.path) {
                    damage.push(Damage {
                        path: self.path.clone(),
                        error,
                    });
                }
                self.unpacked = Box::new(io::empty());
                Ok(0)
            }
            read => read,
        }
    }
}

impl Packed<'_> {
    /// Skips this many bytes, or fewer at the end of the file.
    pub(super) fn skip(&mut self, bytes: u64) -> io::Result<()> {
        copy(&mut self.take(bytes), &mut |_| Ok(()))
    }
}

pub(super) fn micros(time: SystemTime) -> u64 {
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since_1970.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}

/// Returns the time after which no line of a current file was written. The kernel's clock for this
/// is coarse, and Windows updates the time late while the file is open.
fn last_change(metadata: &fs::Metadata) -> u64 {
    match metadata.modified() {
        Ok(time) if cfg!(unix) => micros(time).saturating_add(SLACK),
        _ => u64::MAX,
    }
}

/// Adds the path of the file to an error.
fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// A file other than the current one.
struct Listed {
    /// The rotation time; for a moved file, the time of the last write.
    stamp: Stamp,
    moved: Option<Moved>,
}

/// A file that another program has renamed, as logrotate does.
struct Moved {
    /// The name without `.gz` or `.zst`.
    name: String,
    /// The inode, which distinguishes the file from a later one with the same name.
    inode: u64,
}

impl Listed {
    /// Returns the properties that do not change while the file grows.
    fn identity(&self) -> (Option<Stamp>, Option<(&str, u64)>) {
        match &self.moved {
            Some(moved) => (None, Some((&moved.name, moved.inode))),
            None => (Some(self.stamp), None),
        }
    }
}

/// Lists all files except the current one, oldest first.
fn list(dir: &Path) -> io::Result<Vec<Listed>> {
    let mut listed = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if let Some(stamp) = Stamp::of_file_name(&name) {
            listed.push(Listed { stamp, moved: None });
        } else if let Some(name) = moved_name(&name)
            && let Ok(metadata) = entry.metadata()
            && metadata.is_file()
        {
            let moved = Moved {
                name: name.to_owned(),
                inode: inode(&metadata),
            };
            let written = metadata.modified().map_or(0, micros);
            listed.push(Listed {
                stamp: Stamp::from_unix_micros(written),
                moved: Some(moved),
            });
        }
    }
    // A file that exists both plain and compressed is listed once.
    listed.sort_by(|a, b| (a.stamp, a.moved_name()).cmp(&(b.stamp, b.moved_name())));
    let mut seen: Vec<String> = Vec::new();
    listed.retain(|it| match it.moved_name() {
        Some(name) if seen.iter().any(|seen| seen == name) => false,
        Some(name) => {
            seen.push(name.to_owned());
            true
        }
        None => true,
    });
    listed.dedup_by(|a, b| a.moved.is_none() && b.moved.is_none() && a.stamp == b.stamp);
    Ok(listed)
}

impl Listed {
    fn moved_name(&self) -> Option<&str> {
        self.moved.as_ref().map(|moved| &*moved.name)
    }
}

/// Returns the name, without `.gz` or `.zst`, if logrotate or a similar program gave it to a
/// current file: followed by a number (`current.log.1`) or a date (`current.log-20261122`). Files
/// with other names may be copies.
fn moved_name(name: &str) -> Option<&str> {
    let bare = name
        .strip_suffix(".gz")
        .or_else(|| name.strip_suffix(".zst"));
    let bare = bare.unwrap_or(name);
    let suffix = bare.strip_prefix(CURRENT)?.strip_prefix(['.', '-', '_'])?;
    let is_number = |byte: u8| byte.is_ascii_digit() || b"-._T".contains(&byte);
    let begins = suffix.starts_with(|c: char| c.is_ascii_digit());
    (begins && suffix.bytes().all(is_number)).then_some(bare)
}

#[cfg(unix)]
fn inode(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(metadata: &fs::Metadata) -> u64 {
    metadata.created().map_or(0, micros)
}
