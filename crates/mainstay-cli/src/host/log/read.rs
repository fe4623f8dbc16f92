//! The way back: the end of a log, and what is added to it, across rotations.
//!
//! Nothing here needs the supervisor. The end is found by seeking from the end, so that the length of a log does not matter.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use mainstay_core::log::{CURRENT, Stamp};

#[cfg_attr(
    any(target_os = "linux", target_os = "android"),
    path = "read/inotify.rs"
)]
mod watch;

use watch::Watch;

/// How much is looked at in one step.
const BLOCK: usize = 64 << 10;
/// How often a file that is missing is looked for.
const PAUSE: Duration = Duration::from_millis(50);
/// A log that is rotated while it is listed is listed again, this often at most.
const TRIES: u32 = 100;

/// Writes the last `lines` lines to `out`; an unfinished last one counts. Returns where they end, to go on from there.
///
/// A log that was never written is [`io::ErrorKind::NotFound`].
pub(crate) fn tail(dir: &Path, lines: u64, out: &mut impl Write) -> io::Result<Position> {
    let (mut position, rotated) = open(dir)?;
    let mut wanted = lines;
    let mut end = match &mut position.file {
        Some(file) => Part::ending_with(file, &mut wanted)?,
        None => Part::default(),
    };
    let mut older = Vec::new();
    for (_, name) in rotated.iter().rev() {
        if wanted == 0 {
            break;
        }
        match File::open(dir.join(name)) {
            Ok(mut file) => {
                let part = Part::ending_with(&mut file, &mut wanted)?;
                older.push((file, part));
            }
            // Deleted since it was listed, and so is all that is older.
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    for (mut file, part) in older.into_iter().rev() {
        part.copy(&mut file, out)?;
    }
    if let Some(file) = &mut position.file {
        end.copy(file, out)?;
    }
    out.flush()?;
    position.offset = std::mem::take(&mut end.to);
    Ok(position)
}

/// Writes what is added after `position` to `out` as it comes, through rotations. Returns only with an error: of `out` (`BrokenPipe` where
/// its reader has gone), or of a log that cannot be read. Blocks between two changes without waking up.
///
/// A directory that is deleted is waited for. Files that were rotated *and* deleted before they could be read are passed over.
pub(crate) fn follow(dir: &Path, mut position: Position, out: &mut impl Write) -> io::Error {
    let mut step = || -> io::Result<()> {
        let mut watch = Watch::new()?;
        loop {
            // Each time: another directory may have taken its place.
            watch.look_at(dir)?;
            let place = position.catch_up(dir, out)?;
            out.flush()?;
            match place {
                Place::Steady => watch.wait(None)?,
                Place::Moved => {}
                Place::Missing => watch.wait(Some(PAUSE))?,
            }
        }
    };
    match step() {
        Ok(()) => io::ErrorKind::Other.into(),
        Err(error) => error,
    }
}

/// A place in a log, right after what was read. It holds the file open, so that rotation does not lose the place.
#[derive(Debug)]
pub(crate) struct Position {
    file: Option<File>,
    offset: u64,
    /// The newest rotated file when `file` was the current one; that one's own rotated name will be the next.
    newest: Option<Stamp>,
}

/// Where a position is after catching up.
enum Place {
    /// At the end of the current file.
    Steady,
    /// At the beginning of the current file.
    Moved,
    /// There is no current file.
    Missing,
}

impl Position {
    /// Writes all that there is, of this file or of its successors.
    fn catch_up(&mut self, dir: &Path, out: &mut impl Write) -> io::Result<Place> {
        self.copy_rest(out)?;
        if self.is_current(dir)? {
            return Ok(Place::Steady);
        }
        let (next, rotated) = match open(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Place::Missing),
            opened => opened?,
        };
        if next.file.is_none() {
            return Ok(Place::Missing); // between the two steps of a rotation: our file may still grow
        }
        // Nobody writes to our file any more; this is its end.
        self.copy_rest(out)?;
        for (_, name) in rotated
            .iter()
            .filter(|(stamp, _)| Some(*stamp) > self.newest)
        {
            let mut file = match File::open(dir.join(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            if !self.is(&file)? {
                io::copy(&mut file, out)?;
            }
        }
        *self = next;
        Ok(Place::Moved)
    }

    fn copy_rest(&mut self, out: &mut impl Write) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        // Somebody cut it: go on with what is added now.
        self.offset = self.offset.min(file.metadata()?.len());
        file.seek(SeekFrom::Start(self.offset))?;
        self.offset += io::copy(file, out)?;
        Ok(())
    }

    fn is_current(&self, dir: &Path) -> io::Result<bool> {
        match File::open(dir.join(CURRENT)) {
            Ok(current) => self.is(&current),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// `other` is the file that this place is in.
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
        // std does not tell a Windows file's index; files made at the same 100 ns are the same.
        #[cfg(not(unix))]
        Ok(ours.created()? == other.created()?)
    }
}

/// The current file, read from its beginning, and the rotated ones, oldest first, at the same instant.
fn open(dir: &Path) -> io::Result<(Position, Vec<(Stamp, String)>)> {
    let mut rotated = list(dir)?;
    for _ in 0..TRIES {
        let file = match File::open(dir.join(CURRENT)) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let before = std::mem::replace(&mut rotated, list(dir)?);
        if before.last() == rotated.last() {
            let position = Position {
                file,
                offset: 0,
                newest: rotated.last().map(|(stamp, _)| *stamp),
            };
            return Ok((position, rotated));
        }
    }
    Err(io::Error::new(
        io::ErrorKind::ResourceBusy,
        "the log is rotated faster than it can be listed",
    ))
}

fn list(dir: &Path) -> io::Result<Vec<(Stamp, String)>> {
    let mut rotated = Vec::new();
    for entry in fs::read_dir(dir)? {
        if let Ok(name) = entry?.file_name().into_string()
            && let Some(stamp) = Stamp::of_file_name(&name)
        {
            rotated.push((stamp, name));
        }
    }
    rotated.sort_unstable();
    Ok(rotated)
}

/// Bytes of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Part {
    from: u64,
    to: u64,
}

impl Part {
    /// The last `wanted` lines of `file`, or all of them; `wanted` is lowered by as many.
    fn ending_with(file: &mut File, wanted: &mut u64) -> io::Result<Self> {
        let to = file.metadata()?.len();
        let mut block = [0; BLOCK];
        let mut start = to;
        if *wanted == 0 || to == 0 {
            return Ok(Self { from: to, to });
        }
        while start > 0 {
            let length = start.min(BLOCK as u64);
            start -= length;
            let block = &mut block[..usize::try_from(length).unwrap_or(BLOCK)];
            file.seek(SeekFrom::Start(start))?;
            file.read_exact(block)?;
            for end in memchr::memrchr_iter(b'\n', block) {
                let next_line = start + end as u64 + 1;
                if next_line < to {
                    *wanted -= 1;
                    if *wanted == 0 {
                        return Ok(Self {
                            from: next_line,
                            to,
                        });
                    }
                }
            }
        }
        *wanted -= 1;
        Ok(Self { from: 0, to })
    }

    fn copy(self, file: &mut File, out: &mut impl Write) -> io::Result<()> {
        file.seek(SeekFrom::Start(self.from))?;
        io::copy(&mut file.take(self.to - self.from), out)?;
        Ok(())
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests;
