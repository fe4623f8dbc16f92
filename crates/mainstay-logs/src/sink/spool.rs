//! The spool of a network sink: lines not sent yet, on disk, first in, first out, and bounded.
//!
//! Segments `NUMBER.spool` contain blocks, each with its length and a checksum. A `cursor` records
//! how much of the first segment has been sent. A process appends only to segments that it created,
//! so a block torn by a crash is the last of its segment, and is skipped. Nothing is synced: the
//! spool survives any end of the supervisor, and may lose its last seconds when the machine
//! crashes. If the space is exhausted, the oldest segment is dropped: in a long outage the latest
//! lines are worth more than the first ones, which are also in the log files.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstay_core::spec::{Facility, ServiceName};
use mainstay_sys::private::create_private_dir;

use super::Lost;
use super::record::{Block, Source};

/// The beginning of a segment: its type and version.
const MAGIC: &[u8] = b"mainstay spool 1\n";
/// The size of the header before a block: length and checksum of the rest.
const HEAD: usize = 4 + 8;
/// The number of the first segment ever. Lower numbers are for blocks that are put back.
const FIRST: u64 = 1 << 32;

/// The lines dropped to make room, by service.
pub(super) type Dropped = BTreeMap<ServiceName, Lost>;

pub(super) struct Spool {
    dir: PathBuf,
    limit: u64,
    /// The segments, oldest first. Each contains blocks to send.
    segments: VecDeque<Segment>,
    next_number: u64,
    /// The last segment, open for appending.
    writer: Option<File>,
    /// The first segment, open for reading.
    reader: Option<File>,
    /// The offset of the next block in the first segment.
    offset: u64,
    /// The number of bytes of that block that were sent.
    sent: usize,
    /// The block that was handed out: its segment and offset.
    out: Option<(u64, u64)>,
    cursor: Option<File>,
}

struct Segment {
    number: u64,
    size: u64,
}

impl Spool {
    /// Opens the spool that an earlier process left. Creates nothing.
    pub(super) fn open(dir: PathBuf, limit: u64) -> io::Result<Self> {
        let mut spool = Self {
            dir,
            limit,
            segments: VecDeque::new(),
            next_number: FIRST,
            writer: None,
            reader: None,
            offset: MAGIC.len() as u64,
            sent: 0,
            out: None,
            cursor: None,
        };
        let entries = match fs::read_dir(&spool.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(spool),
            Err(error) => return Err(error),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".spool"));
            let number = number.and_then(|digits| u64::from_str_radix(digits, 16).ok());
            if let Some(number) = number {
                let size = entry.metadata()?.len();
                found.push(Segment { number, size });
            }
        }
        found.sort_by_key(|segment| segment.number);
        spool.segments = found.into();
        if let Some([number, offset, sent]) = read_cursor(&spool.dir.join("cursor")) {
            // An old cursor must never apply to a new segment of the same number.
            spool.next_number = spool.next_number.max(number.saturating_add(1));
            if spool.segments.front().is_some_and(|s| s.number == number) {
                spool.offset = offset;
                spool.sent = usize::try_from(sent).unwrap_or(usize::MAX);
            }
        }
        if let Some(last) = spool.segments.back() {
            spool.next_number = spool.next_number.max(last.number.saturating_add(1));
        }
        spool.trim();
        Ok(spool)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.out.is_none()
    }

    /// Appends the rest of `block`. Lines that are dropped to make room are added to `dropped`.
    pub(super) fn append(&mut self, block: &Block, dropped: &mut Dropped) -> io::Result<()> {
        let frame = frame(block);
        let size = frame.len() as u64;
        // A single block that exceeds the limit becomes the whole spool.
        while !self.segments.is_empty() && self.size() + size + MAGIC.len() as u64 > self.limit {
            self.drop_oldest(dropped);
        }
        let segment_limit = (self.limit / 8).clamp(64 << 10, 8 << 20);
        let last = self.segments.back();
        if self.writer.is_none() || last.is_none_or(|last| last.size + size > segment_limit) {
            let number = self.next_number;
            self.writer = None;
            let file = self.create(number)?;
            self.next_number += 1;
            self.segments.push_back(Segment {
                number,
                size: MAGIC.len() as u64,
            });
            self.writer = Some(file);
        }
        let (Some(file), Some(segment)) = (&mut self.writer, self.segments.back_mut()) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if let Err(error) = file.write_all(&frame) {
            // A torn block must stay the last of its segment.
            if file.set_len(segment.size).is_err() || file.seek(SeekFrom::End(0)).is_err() {
                self.writer = None;
            }
            self.trim();
            return Err(error);
        }
        segment.size += size;
        Ok(())
    }

    /// Returns the oldest block, which stays in the spool until it is [confirmed](Self::confirm) or
    /// [put back](Self::put_back). The bytes of unreadable blocks are added to `damaged`.
    pub(super) fn next(&mut self, damaged: &mut Lost) -> Option<Block> {
        loop {
            let Segment { number, size } = *self.segments.front()?;
            match self.read_block(number, size) {
                Ok((mut block, end)) => {
                    block.sent_up_to(self.sent);
                    self.out = Some((number, self.offset));
                    self.offset = end;
                    self.sent = 0;
                    return Some(block);
                }
                Err(_torn_or_unreadable) => {
                    damaged.bytes += size.saturating_sub(self.offset);
                    self.remove_oldest();
                }
            }
        }
    }

    /// Removes the block that was handed out, because it has been sent.
    pub(super) fn confirm(&mut self) {
        if let Some((number, _)) = self.out.take()
            && self.segments.front().is_some_and(|s| s.number == number)
        {
            self.save_cursor(number);
            self.trim();
        }
    }

    /// Puts the rest of `block` before all others: either the block that was handed out, or one
    /// that was never in the spool.
    pub(super) fn put_back(&mut self, block: &Block) -> io::Result<()> {
        let first = self.segments.front().map(|segment| segment.number);
        if let Some((number, offset)) = self.out.take()
            && first == Some(number)
        {
            (self.offset, self.sent) = (offset, block.sent());
            self.save_cursor(number);
            return Ok(());
        }
        // The first segment is complete: either there was none when the block was taken from
        // memory, or the block's own segment is gone.
        debug_assert_eq!((self.offset, self.sent), (MAGIC.len() as u64, 0));
        let number = first.unwrap_or(self.next_number) - 1;
        let mut file = self.create(number)?;
        // An earlier segment may have had this number, and the cursor may refer to it: the cursor
        // must not skip the block.
        self.save_cursor(number);
        let frame = frame(block);
        if let Err(error) = file.write_all(&frame) {
            let _torn_at_worst: io::Result<()> = fs::remove_file(self.path(number));
            return Err(error);
        }
        self.reader = None;
        (self.offset, self.sent) = (MAGIC.len() as u64, 0);
        self.segments.push_front(Segment {
            number,
            size: (MAGIC.len() + frame.len()) as u64,
        });
        Ok(())
    }

    fn size(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size).sum()
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:016x}.spool"))
    }

    fn create(&self, number: u64) -> io::Result<File> {
        create_private_dir(&self.dir)?;
        let mut file =
            private(OpenOptions::new().write(true).create_new(true)).open(self.path(number))?;
        if let Err(error) = file.write_all(MAGIC) {
            let _next_time: io::Result<()> = fs::remove_file(self.path(number));
            return Err(error);
        }
        Ok(file)
    }

    /// Returns the block at the current offset, and the offset of its end.
    fn read_block(&mut self, number: u64, size: u64) -> io::Result<(Block, u64)> {
        if self.reader.is_none() {
            let mut file = File::open(self.path(number))?;
            let mut magic = [0; MAGIC.len()];
            file.read_exact(&mut magic)?;
            if magic != *MAGIC {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.reader = Some(file);
        }
        let Some(file) = &mut self.reader else {
            return Err(io::ErrorKind::NotFound.into());
        };
        file.seek(SeekFrom::Start(self.offset))?;
        let mut head = [0; HEAD];
        file.read_exact(&mut head)?;
        let [a, b, c, d, checksum @ ..] = head;
        let length = u32::from_le_bytes([a, b, c, d]);
        let end = self.offset + HEAD as u64 + u64::from(length);
        if end > size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut payload = vec![0; length as usize];
        file.read_exact(&mut payload)?;
        let block = (u64::from_le_bytes(checksum) == checksum_of(&payload))
            .then(|| parse(&payload))
            .flatten();
        Ok((block.ok_or(io::ErrorKind::InvalidData)?, end))
    }

    fn drop_oldest(&mut self, dropped: &mut Dropped) {
        let Some(Segment { number, size }) = self.segments.front() else {
            return;
        };
        let (number, size) = (*number, *size);
        while let Ok((mut block, end)) = self.read_block(number, size) {
            block.sent_up_to(self.sent);
            *dropped.entry(block.source.service.clone()).or_default() += block.lost();
            (self.offset, self.sent) = (end, 0);
        }
        self.remove_oldest();
    }

    /// Removes segments that have been read completely.
    fn trim(&mut self) {
        while self.segments.front().is_some_and(|s| s.size <= self.offset) {
            self.remove_oldest();
        }
    }

    fn remove_oldest(&mut self) {
        self.reader = None;
        (self.offset, self.sent) = (MAGIC.len() as u64, 0);
        if let Some(segment) = self.segments.pop_front() {
            let _nothing_else_to_do: io::Result<()> = fs::remove_file(self.path(segment.number));
        }
        if self.segments.is_empty() {
            self.writer = None;
        }
    }

    /// Saves the cursor. A failure is ignored: without the cursor, the next process only sends a
    /// block, or the sent part of one, again.
    fn save_cursor(&mut self, number: u64) {
        let words = [number, self.offset, self.sent as u64].map(u64::to_le_bytes);
        let mut write = || -> io::Result<()> {
            if self.cursor.is_none() {
                let path = self.dir.join("cursor");
                self.cursor = Some(
                    private(OpenOptions::new().write(true).create(true).truncate(true))
                        .open(path)?,
                );
            }
            if let Some(file) = &mut self.cursor {
                file.seek(SeekFrom::Start(0))?;
                file.write_all(words.as_flattened())?;
            }
            Ok(())
        };
        let _see_above: io::Result<()> = write();
    }
}

fn private(options: &mut OpenOptions) -> &OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

fn read_cursor(path: &Path) -> Option<[u64; 3]> {
    let bytes = fs::read(path).ok()?;
    let (words, []) = bytes.as_chunks::<8>() else {
        return None;
    };
    <&[[u8; 8]; 3]>::try_from(words)
        .ok()
        .map(|words| words.map(u64::from_le_bytes))
}

/// Returns the stored form of a block's rest.
fn frame(block: &Block) -> Vec<u8> {
    let name = block.source.service.as_str();
    let length = 2 + name.len() + block.rest().len();
    let mut frame = Vec::with_capacity(HEAD + length);
    frame.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    frame.extend_from_slice(&[0; 8]);
    frame.push(block.source.facility.number());
    frame.push(name.len() as u8);
    frame.extend_from_slice(name.as_bytes());
    frame.extend_from_slice(block.rest());
    let checksum = checksum_of(&frame[HEAD..]);
    frame[4..HEAD].copy_from_slice(&checksum.to_le_bytes());
    frame
}

fn parse(payload: &[u8]) -> Option<Block> {
    let [facility, length, rest @ ..] = payload else {
        return None;
    };
    let (name, records) = rest.split_at_checked(usize::from(*length))?;
    let source = Source {
        service: ServiceName::new(std::str::from_utf8(name).ok()?)?,
        facility: Facility::from_number(*facility)?,
    };
    Some(Block::new(Arc::new(source), Arc::new(records.to_vec())))
}

/// Returns the FNV-1a hash over words, which only has to distinguish a torn block from a complete
/// one.
fn checksum_of(bytes: &[u8]) -> u64 {
    let step = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3);
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(0xcbf2_9ce4_8422_2325, |hash, word| {
        step(hash, u64::from_le_bytes(*word))
    });
    rest.iter()
        .fold(hash, |hash, byte| step(hash, u64::from(*byte)))
}
