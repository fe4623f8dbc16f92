//! Following of logs: reads lines as they are added, across rotation and compression.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

use mainstay_core::log::{CURRENT, Stamp};
use mainstay_sys::guarded;

use super::files::{Content, Damage, Log, Packed};
use super::part::copy;
use super::watch::Watch;
use super::{BLOCK, PAUSE};

/// A receiver of added bytes.
pub trait Sink {
    /// Receives more bytes, which may begin and end within a line.
    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Ends the line, because the following bytes are from another file.
    fn end_of_file(&mut self) -> io::Result<()>;
    /// Receives the notice of a file that cannot be read to its end. The following bytes are from
    /// the next file.
    fn damaged(&mut self, damage: &Damage);
}

/// One directory of log files, with its position and receiver.
pub struct Followed<S> {
    /// The directory.
    pub dir: PathBuf,
    /// The place up to which the log was read.
    pub position: Position,
    /// The receiver of what is added from there.
    pub sink: S,
    /// Set if the directory may be missing. It is then detected by watching the directory that will
    /// contain it.
    pub is_optional: bool,
}

/// Passes on bytes added to each log. `flush` is called before every wait. Returns only with an
/// error: of a sink (`BrokenPipe` if its reader has closed it), or of a log that cannot be read,
/// whose path it contains. Blocks between two changes without waking up.
///
/// If a directory is deleted, waits for a new one. Files that were rotated *and* deleted before
/// they could be read are skipped.
pub fn follow<S: Sink>(
    logs: &mut [Followed<S>],
    flush: &mut dyn FnMut() -> io::Result<()>,
) -> io::Error {
    let mut step = || -> io::Result<()> {
        let mut watch = Watch::new()?;
        loop {
            let mut wait = Some(None);
            for log in logs.iter_mut() {
                // Repeated each time, because another directory may have replaced it.
                watch.look_at(&log.dir)?;
                match log.position.catch_up(&log.dir, &mut log.sink)? {
                    Place::Steady => {}
                    Place::Moved => wait = None,
                    Place::Missing if log.is_optional && !log.dir.exists() => {}
                    Place::Missing => wait = wait.map(|_| Some(PAUSE)),
                }
            }
            flush()?;
            if let Some(at_most) = wait {
                watch.wait(at_most)?;
            }
        }
    };
    match step() {
        Ok(()) => io::ErrorKind::Other.into(),
        Err(error) => error,
    }
}

/// A position in a log, directly after the bytes that were read. It holds the file open, so that
/// rotation does not lose the position.
#[derive(Debug, Default)]
pub struct Position {
    file: Option<File>,
    offset: u64,
    /// The newest rotated file at the time when `file` was the current one. The next rotated name
    /// is that of `file` itself.
    newest: Option<Stamp>,
}

/// The state of a position after catching up.
enum Place {
    /// At the end of the current file.
    Steady,
    /// At the beginning of the current file.
    Moved,
    /// Without a current file.
    Missing,
}

impl Log {
    /// Returns the position directly after the content of this log.
    pub fn end(self) -> Position {
        let rotated = match self.live {
            Some(_) => &self.pieces[..self.pieces.len() - 1],
            None => &self.pieces[..],
        };
        Position {
            newest: rotated.last().and_then(|piece| piece.stamp),
            offset: self.live.as_ref().map_or(0, |live| live.len),
            file: self.live.map(|live| live.file),
        }
    }
}

impl Position {
    /// Passes on everything in this file and its successors.
    fn catch_up(&mut self, dir: &std::path::Path, sink: &mut impl Sink) -> io::Result<Place> {
        self.copy_rest(sink)?;
        if self.is_current(dir)? {
            return Ok(Place::Steady);
        }
        let log = match Log::open(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Place::Missing),
            opened => opened?,
        };
        if log.pieces.last().is_none_or(|piece| piece.stamp.is_some()) {
            return Ok(Place::Missing); // in mid-rotation: the file may still grow
        }
        // No process writes to this file any more, so this is its end.
        self.copy_rest(sink)?;
        let rotated = log.pieces.partition_point(|piece| piece.stamp.is_some());
        let newer = log.pieces[..rotated].partition_point(|piece| piece.stamp <= self.newest);
        // The oldest files are deleted first. While the file before this one still exists, this one
        // is the next.
        let is_known = newer > 0 && log.pieces[newer - 1].stamp == self.newest;
        for piece in newer..rotated {
            let is_ours = match log.content(piece)? {
                Content::Gone => true,
                Content::Plain(file, _) => self.is(&file)?,
                Content::Packed(_) if piece > newer || self.file.is_none() => false,
                Content::Packed(packed) => is_known || self.has_content(packed)?,
            };
            if !is_ours {
                sink.end_of_file()?;
                let mut hand_on = |bytes: &[u8]| sink.bytes(bytes);
                match log.content(piece)? {
                    Content::Gone => {}
                    Content::Plain(mut file, _) => copy(&mut file, &mut hand_on)?,
                    Content::Packed(mut packed) => copy(&mut packed, &mut hand_on)?,
                }
            }
        }
        sink.end_of_file()?;
        for damage in log.damage() {
            sink.damaged(&damage);
        }
        let mut next = log.end();
        next.offset = 0;
        *self = next;
        Ok(Place::Moved)
    }

    fn copy_rest(&mut self, sink: &mut impl Sink) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let length = file.metadata()?.len();
        if length == self.offset {
            return Ok(());
        }
        // Another program truncated the file: continue with bytes added from now on.
        self.offset = self.offset.min(length);
        file.seek(SeekFrom::Start(self.offset))?;
        let offset = &mut self.offset;
        copy(file, &mut |bytes| {
            *offset += bytes.len() as u64;
            sink.bytes(bytes)
        })
    }

    fn is_current(&self, dir: &std::path::Path) -> io::Result<bool> {
        match guarded::file(&dir.join(CURRENT)) {
            Ok(current) => self.is(&current),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns whether `other` is the file of this position.
    fn is(&self, other: &File) -> io::Result<bool> {
        let Some(file) = &self.file else {
            return Ok(false);
        };
        let (ours, other) = (file.metadata()?, other.metadata()?);
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt as _;
            Ok((ours.dev(), ours.ino()) == (other.dev(), other.ino()))
        }
        // The standard library does not expose a Windows file's index. Files created within the
        // same 100 ns count as the same.
        #[cfg(not(unix))]
        Ok(ours.created()? == other.created()?)
    }

    /// Returns whether `packed` is the compressed form of the file of this position.
    fn has_content(&self, mut packed: Packed<'_>) -> io::Result<bool> {
        let Some(mut file) = self.file.as_ref() else {
            return Ok(false);
        };
        file.seek(SeekFrom::Start(0))?;
        let mut ours = vec![0; BLOCK];
        let mut is_same = true;
        copy(&mut packed, &mut |bytes| {
            for bytes in bytes.chunks(BLOCK) {
                let ours = &mut ours[..bytes.len()];
                is_same = is_same && file.read_exact(ours).is_ok() && ours == bytes;
            }
            Ok(())
        })?;
        Ok(is_same && file.stream_position()? == file.metadata()?.len())
    }
}
