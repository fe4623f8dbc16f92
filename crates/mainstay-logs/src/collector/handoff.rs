//! The transfer of bytes from a service's pipe to its file, on Linux: exactly once, even if this
//! process is killed in between.
//!
//! Bytes are first moved (splice(2): no copy, and the writer hardly waits) into the supervisor's
//! own pipe, the *handoff pipe*, which outlives this process as the services' pipes do. Unmodified
//! bytes then go from the handoff pipe into the file by splice too, which removes from the pipe
//! exactly the bytes that it has written: bytes that a dead supervisor left in its handoff pipe
//! have not been written yet. Bytes that need processing are copied before they are moved (tee(2)),
//! written, and then dropped from the handoff pipe. A full handoff pipe then means that writing may
//! have begun. A note records which of the two applies, and where writing began; that write is
//! undone and repeated. (Splicing from a service's own pipe into the file would not need a handoff
//! pipe, but blocks the service for as long as the write takes: a third of the speed.)

use std::fs::{self, File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use mainstay_core::log::refine::Unfinished;
use mainstay_core::log::{CURRENT, CURRENT_INDEX, Stamp};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, fcntl_setpipe_size, splice, tee};

use super::super::capture::{Capture, SourceId, Way};
use super::super::pipes::{OurEnd, Pipes};
use super::super::report::FileError;
use super::{LARGE_BUFFER, LARGE_PIPE, PIPE, SMALL_BUFFER};

const NOW: SpliceFlags = SpliceFlags::NONBLOCK;

/// A size larger than any note.
const NOTE_MAX: usize = 512;

/// The result of one read of a pipe.
pub(super) enum Taken {
    /// The pipe is empty, or contains only the beginning of a line.
    Nothing,
    /// This many bytes; at most the beginning of a line is left.
    All(usize),
    /// This many bytes, and more is left.
    Some(usize),
}

pub(super) struct Handoff {
    handoff: OwnedFd,
    note: File,
    /// Set to the source whose bytes pass through, according to the note.
    through: Option<SourceId>,
    copy: (PipeReader, PipeWriter),
    null: File,
    buffer: Vec<u8>,
    grown: bool,
    /// The content of the last supervisor's handoff pipe at its death, and the pipe that it came
    /// from.
    unfinished: Option<(String, Vec<u8>)>,
}

impl Handoff {
    /// Recovers the handoff pipe of a supervisor that was killed: undoes its unfinished write in
    /// the files below `root_dir`.
    pub(super) fn new(pipes: &mut Pipes, root_dir: &Path) -> io::Result<Self> {
        let note_path = pipes.dir().join(".note");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let note = options.mode(0o600).open(note_path)?;
        if note.metadata()?.len() == 0 {
            // Reserves space, so that a note can still be written when the disk is full.
            note.write_all_at(&[b' '; NOTE_MAX], 0)?;
        }
        let copy = io::pipe()?;
        rustix::io::ioctl_fionbio(&copy.0, true)?;
        let mut handoff = Self {
            handoff: pipes.handoff()?,
            note,
            through: None,
            copy,
            null: File::options().write(true).open("/dev/null")?,
            buffer: Vec::new(),
            grown: false,
            unfinished: None,
        };
        handoff.recover(root_dir)?;
        Ok(handoff)
    }

    /// Returns whether there is memory to release.
    pub(super) fn is_large(&self) -> bool {
        self.buffer.len() > SMALL_BUFFER
    }

    pub(super) fn rest(&mut self) {
        self.buffer = Vec::new();
    }

    /// Reads the content of `pipe` once.
    pub(super) fn take(
        &mut self,
        capture: &mut Capture,
        source: SourceId,
        pipe: &OurEnd,
        unfinished: Unfinished,
    ) -> Taken {
        let held = pipe.held();
        if held == 0 {
            return Taken::Nothing;
        }
        if let Way::Through(file) = capture.way(source)
            && file.room().is_ok_and(|room| held <= room.bytes)
            && self.note_through(capture, source, &pipe.name)
        {
            let count = self.pass(capture, source, pipe, held);
            capture.settle();
            return Taken::after(count, held);
        }
        self.look(capture, source, pipe, held, unfinished)
    }

    /// Moves `held` bytes, or as many as fit into the handoff pipe, unmodified.
    fn pass(&mut self, capture: &mut Capture, source: SourceId, pipe: &OurEnd, held: u64) -> usize {
        self.grow(held);
        let length = usize::try_from(held).unwrap_or(usize::MAX);
        let handoff = &self.handoff;
        let count =
            pipe.take(|reader| splice(reader, None, handoff, None, length, NOW).unwrap_or(0));
        let mut left = count;
        let file = capture.file(source);
        while left > 0
            && let Ok(room) = file.room()
        {
            let mut offset = room.offset;
            match splice(&self.handoff, None, room.file, Some(&mut offset), left, NOW) {
                Ok(written @ 1..) => {
                    file.wrote(written as u64);
                    left -= written;
                }
                Err(Errno::INTR) => {}
                // `put` determines the reason, and counts the loss.
                _ => break,
            }
        }
        while left > 0 {
            let mut bytes = vec![0; left.min(SMALL_BUFFER)];
            match rustix::io::read(&self.handoff, &mut bytes) {
                Ok(read @ 1..) => {
                    capture.put(source, &bytes[..read]);
                    left -= read;
                }
                Err(Errno::INTR) => {}
                _ => break,
            }
        }
        count
    }

    /// Records in the note that bytes in the handoff pipe are not written yet, and returns whether
    /// that succeeded.
    fn note_through(&mut self, capture: &Capture, source: SourceId, pipe: &str) -> bool {
        if self.through == Some(source) {
            return true;
        }
        let line = format!("{pipe} {} .\n", capture.dir(source).display());
        let noted = self.note.write_all_at(line.as_bytes(), 0).is_ok();
        self.through = noted.then_some(source);
        noted
    }

    fn look(
        &mut self,
        capture: &mut Capture,
        source: SourceId,
        pipe: &OurEnd,
        held: u64,
        unfinished: Unfinished,
    ) -> Taken {
        self.make_room(held);
        let length = usize::try_from(held).unwrap_or(usize::MAX);
        let length = length.min(self.buffer.len());
        let Ok(count) = tee(&pipe.reader, &self.copy.1, length, NOW) else {
            return Taken::Nothing;
        };
        if self.copy.0.read_exact(&mut self.buffer[..count]).is_err() {
            return Taken::Nothing;
        }
        let bytes = &self.buffer[..count];
        let is_whole = count as u64 >= held;
        let unfinished = if is_whole {
            unfinished
        } else {
            Unfinished::Leave
        };
        let mut taken = capture.refine(source, bytes, unfinished);
        if taken == 0 && is_full(&pipe.reader) {
            // The line would never end, because its writer waits for this reader.
            taken = capture.refine(source, bytes, Unfinished::Take);
        }
        if taken == 0 {
            return Taken::Nothing;
        }
        let bytes = &self.buffer[..taken];
        self.through = None;
        match note(&self.note, capture, source, &pipe.name, taken) {
            Ok(()) => {
                pipe.take(|reader| move_all(reader, &self.handoff, taken));
                capture.write(source, bytes);
                move_all(&self.handoff, &self.null, taken);
            }
            // Nothing can be written: `put` writes the bytes or counts them as lost.
            Err(_) => {
                pipe.take(|reader| move_all(reader, &self.null, taken));
                capture.put(source, bytes);
            }
        }
        capture.settle();
        if taken < count && is_whole {
            Taken::All(taken)
        } else {
            Taken::after(taken, held)
        }
    }

    /// Writes the content that the last supervisor left, if it came from the pipe `name`.
    pub(super) fn resume(&mut self, capture: &mut Capture, source: SourceId, name: &str) {
        let Some((_, bytes)) = self.unfinished.take_if(|(pipe, _)| pipe == name) else {
            return;
        };
        capture.refine(source, &bytes, Unfinished::Take);
        // Without a note the next supervisor may write it once more, which is better than losing
        // it.
        let _ = note(&self.note, capture, source, name, bytes.len());
        capture.write(source, &bytes);
        move_all(&self.handoff, &self.null, bytes.len());
        capture.settle();
    }

    /// Drops content that no source has resumed, because its pipe has no service.
    pub(super) fn forget(&mut self) {
        if let Some((_, bytes)) = self.unfinished.take() {
            move_all(&self.handoff, &self.null, bytes.len());
        }
    }

    /// Releases a source, whose number may be reused.
    pub(super) fn released(&mut self, source: SourceId) {
        self.through.take_if(|through| *through == source);
    }

    fn make_room(&mut self, held: u64) {
        let size = if held > SMALL_BUFFER as u64 {
            LARGE_BUFFER
        } else {
            SMALL_BUFFER
        };
        if self.buffer.len() < size {
            self.buffer = vec![0; size];
        }
        self.grow(held);
    }

    fn grow(&mut self, held: u64) {
        if held > PIPE as u64 / 2 && !self.grown {
            self.grown = true;
            // An unprivileged user may have only a few large pipes; small ones take more rounds.
            let _ = fcntl_setpipe_size(&self.copy.1, LARGE_PIPE);
            let _ = fcntl_setpipe_size(&self.handoff, LARGE_PIPE);
        }
    }

    fn recover(&mut self, root_dir: &Path) -> io::Result<()> {
        let held = rustix::io::ioctl_fionread(&self.handoff)?;
        if held == 0 {
            return Ok(());
        }
        let mut text = String::new();
        self.note.read_to_string(&mut text)?;
        let length = usize::try_from(held).unwrap_or(usize::MAX);
        let Some(note) = text.lines().next().and_then(Note::parse) else {
            move_all(&self.handoff, &self.null, length);
            return Ok(());
        };
        if let Some(began) = note.began
            && let Some(written) = began.written(&root_dir.join(note.dir))?
        {
            if began.count != held {
                // All of it was written, and some of it had already been dropped.
                move_all(&self.handoff, &self.null, length);
                return Ok(());
            }
            written.undo()?;
        }
        self.grow(u64::MAX);
        let mut bytes = vec![0; length];
        let count = tee(&self.handoff, &self.copy.1, length, NOW)?;
        self.copy.0.read_exact(&mut bytes[..count])?;
        bytes.truncate(count);
        self.unfinished = Some((note.pipe, bytes));
        Ok(())
    }
}

impl Taken {
    fn after(count: usize, held: u64) -> Self {
        if count as u64 >= held {
            Self::All(count)
        } else {
            Self::Some(count)
        }
    }
}

/// The state of the bytes in the handoff pipe: `PIPE DIR .` if they pass through,
/// `PIPE DIR INODE OFFSET COUNT .` if they are written and then dropped.
struct Note {
    pipe: String,
    /// The directory, relative to the root of all logs.
    dir: String,
    began: Option<Began>,
}

/// The position at which writing began, which is sufficient to undo it.
struct Began {
    inode: u64,
    offset: u64,
    /// The number of bytes in the handoff pipe.
    count: u64,
}

impl Note {
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(' ').collect();
        let (pipe, dir, began) = match fields[..] {
            [pipe, dir, "."] => (pipe, dir, None),
            [pipe, dir, inode, offset, count, "."] => {
                let began = Began {
                    inode: inode.parse().ok()?,
                    offset: offset.parse().ok()?,
                    count: count.parse().ok()?,
                };
                (pipe, dir, Some(began))
            }
            _ => return None,
        };
        let (pipe, dir) = (pipe.to_owned(), dir.to_owned());
        Some(Self { pipe, dir, began })
    }
}

/// The result of a complete or partial write.
struct Written {
    dir: PathBuf,
    /// The rotation time of the file in which the write began, if it was rotated since.
    rotated: Option<Stamp>,
    file: File,
    /// The length of the file before the write.
    before: u64,
    /// Files that the write began. A plain one has an index next to it.
    newer: Vec<Stamp>,
}

impl Began {
    /// Finds the result of the write; `None` if nothing was written. All newer files were begun by
    /// the same write, because nothing is compressed before the write is complete.
    fn written(&self, dir: &Path) -> io::Result<Option<Written>> {
        let mut rotated = Vec::new();
        for entry in fs::read_dir(dir)? {
            if let Ok(name) = entry?.file_name().into_string()
                && let Some(stamp) = Stamp::of_file_name(&name)
            {
                rotated.push((Some(stamp), dir.join(name)));
            }
        }
        rotated.sort_unstable();
        rotated.push((None, dir.join(CURRENT)));
        let mut written: Option<Written> = None;
        let mut is_longer = false;
        for (stamp, path) in rotated {
            let file = match File::options().write(true).open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let found = file.metadata()?;
            match &mut written {
                Some(written) => {
                    is_longer |= found.len() > 0;
                    written.newer.extend(stamp);
                }
                None if found.ino() == self.inode => {
                    is_longer = found.len() > self.offset;
                    written = Some(Written {
                        dir: dir.to_owned(),
                        rotated: stamp,
                        file,
                        before: self.offset,
                        newer: Vec::new(),
                    });
                }
                None => {}
            }
        }
        Ok(written.filter(|_| is_longer))
    }
}

impl Written {
    /// Makes the file in which the write began the current one again, with its earlier length. May
    /// be interrupted and repeated.
    fn undo(&self) -> io::Result<()> {
        for stamp in &self.newer {
            remove(&self.dir.join(stamp.file_name()))?;
            remove(&self.dir.join(stamp.index_name()))?;
        }
        self.file.set_len(self.before)?;
        let Some(stamp) = self.rotated else {
            return Ok(());
        };
        // The index of the first rotated file belongs to this file. Without it, the current index
        // belongs to another file.
        let (index, current_index) = (stamp.index_name(), self.dir.join(CURRENT_INDEX));
        match fs::rename(self.dir.join(index), &current_index) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => remove(&current_index)?,
            renamed => renamed?,
        }
        fs::rename(self.dir.join(stamp.file_name()), self.dir.join(CURRENT))
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Records in the note where the next bytes in the handoff pipe will be written.
fn note(
    note: &File,
    capture: &mut Capture,
    source: SourceId,
    pipe: &str,
    count: usize,
) -> Result<(), FileError> {
    let (inode, offset) = capture.file(source).place()?;
    let dir = capture.dir(source).display();
    let line = format!("{pipe} {dir} {inode} {offset} {count} .\n");
    note_down(note, &line).map_err(|error| FileError {
        operation: "write",
        path: ".note".into(),
        error,
    })
}

fn note_down(note: &File, line: &str) -> io::Result<()> {
    note.write_all_at(line.as_bytes(), 0)
}

/// Returns whether a writer to this pipe is blocked.
fn is_full(pipe: &PipeReader) -> bool {
    let mut pipes = [PollFd::new(pipe, PollFlags::OUT)];
    let now = rustix::event::Timespec::default();
    !matches!(poll(&mut pipes, Some(&now)), Ok(1))
}

/// Moves bytes that are present. Returns the number of bytes moved.
fn move_all(from: &impl rustix::fd::AsFd, to: &impl rustix::fd::AsFd, count: usize) -> usize {
    let mut left = count;
    while left > 0 {
        match splice(from, None, to, None, left, NOW) {
            Ok(moved @ 1..) => left -= moved,
            Err(Errno::INTR) => {}
            // There are fewer bytes: another process reads these pipes.
            _ => break,
        }
    }
    count - left
}

#[cfg(test)]
mod tests {
    use mainstay_testkit::Sandbox;

    use super::*;

    const OLD: &str = "20261122T101112.000001Z";
    const BEGUN: &str = "20261122T101112.000002Z";
    const NEWER: &str = "20261122T101112.000003Z";

    fn began(path: &Path, offset: u64) -> Began {
        Began {
            inode: fs::metadata(path).unwrap().ino(),
            offset,
            count: 9,
        }
    }

    #[test]
    fn a_write_is_undone_through_all_its_rotations() {
        let sandbox = Sandbox::new();
        let dir = sandbox.path();
        let put = |name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
        put(&format!("{OLD}.log"), "old\n");
        put(&format!("{BEGUN}.log"), "before\nand after\n");
        put(&format!("{BEGUN}.idx"), "its index");
        put(&format!("{NEWER}.log"), "newer\n");
        put(&format!("{NEWER}.idx"), "another");
        put(CURRENT, "newest");
        put(CURRENT_INDEX, "a third");
        let began = began(&dir.join(format!("{BEGUN}.log")), 7);
        began.written(dir).unwrap().unwrap().undo().unwrap();
        let read = |name: &str| fs::read_to_string(dir.join(name)).ok();
        assert_eq!(read(&format!("{OLD}.log")).as_deref(), Some("old\n"));
        assert_eq!(read(CURRENT).as_deref(), Some("before\n"));
        assert_eq!(read(CURRENT_INDEX).as_deref(), Some("its index"));
        assert_eq!(fs::read_dir(dir).unwrap().count(), 3);
        // Nothing is left to undo, because nothing was written.
        assert!(began.written(dir).unwrap().is_none());
    }

    #[test]
    fn what_is_not_known_is_not_touched() {
        let sandbox = Sandbox::new();
        let dir = sandbox.path();
        fs::write(dir.join("elsewhere"), "x").unwrap();
        fs::write(dir.join(CURRENT), "all\n").unwrap();
        let began = began(&dir.join("elsewhere"), 0);
        assert!(began.written(dir).unwrap().is_none());
    }

    #[test]
    fn a_note_is_whole_or_none() {
        let note = Note::parse("orders.stderr orders/stderr 12 34 56 .").unwrap();
        let began = note.began.unwrap();
        assert_eq!(
            (&*note.pipe, &*note.dir),
            ("orders.stderr", "orders/stderr")
        );
        assert_eq!((began.inode, began.offset, began.count), (12, 34, 56));
        assert!(Note::parse("orders orders .").unwrap().began.is_none());
        for torn in [
            "",
            "orders",
            "orders orders",
            "orders orders 12 34 5",
            "orders orders 12 34 .",
            "a b c d e .",
        ] {
            assert!(Note::parse(torn).is_none(), "{torn}");
        }
    }
}
