//! The lines of a range with their times, or its unmodified bytes.

use std::io::{self, BufReader, Read};

use mainstay_core::log::Mark;
use mainstay_core::log::stored::Stored;

use super::files::{Content, Log, micros};
use super::index::Index;
use super::part::{Part, copy, next_line, without_end};
use super::search::Range;
use super::{BLOCK, SLACK};

/// The time when a line was written, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// The time in microseconds since 1970.
    pub micros: u64,
    /// Set if the line contains the time; otherwise the line was written then or a little later.
    pub exact: bool,
}

impl Log {
    /// Passes on all bytes of a range in large blocks.
    pub fn copy(
        &self,
        range: Range,
        out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut last_byte = b'\n';
        for piece in
            (range.start.piece..=range.end.piece).take_while(|piece| *piece < self.pieces.len())
        {
            let (from, to) = range.of_piece(piece);
            let Some(mut part) = self.part(piece, from, to)? else {
                continue;
            };
            let mut is_begun = false;
            copy(&mut part, &mut |bytes| {
                // A torn line ends with its file.
                if !std::mem::replace(&mut is_begun, true) && last_byte != b'\n' {
                    out(b"\n")?;
                }
                last_byte = bytes[bytes.len() - 1];
                out(bytes)
            })?;
        }
        Ok(())
    }

    /// Returns the lines of a range.
    pub fn lines(&self, range: Range) -> Lines<'_> {
        Lines {
            log: self,
            range,
            next: range.start.piece,
            part: None,
        }
    }

    fn part(&self, piece: usize, from: u64, to: u64) -> io::Result<Option<Box<dyn Read + '_>>> {
        Ok(match self.content(piece)? {
            Content::Gone => None,
            Content::Plain(file, len) => Some(Box::new(OwnedPart {
                from: from.min(len),
                to: to.min(len),
                file,
            })),
            Content::Packed(mut packed) => {
                packed.skip(from)?;
                Some(Box::new(packed.take(to.saturating_sub(from))))
            }
        })
    }
}

struct OwnedPart {
    file: std::fs::File,
    from: u64,
    to: u64,
}

impl Read for OwnedPart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut part = Part {
            file: &self.file,
            from: self.from,
            to: self.to,
        };
        let read = part.read(buffer)?;
        self.from = part.from;
        Ok(read)
    }
}

/// An iterator over lines, one file after the other. Each piece of a line that is longer than
/// `LINE_MAX` counts as one line.
pub struct Lines<'a> {
    log: &'a Log,
    range: Range,
    next: usize,
    part: Option<(BufReader<Box<dyn Read + 'a>>, Clock)>,
}

impl Lines<'_> {
    /// Reads the next line into `line`, with its terminator if it has one. Returns `None` if there
    /// are no more.
    pub fn next(&mut self, line: &mut Vec<u8>) -> io::Result<Option<Time>> {
        loop {
            if let Some((part, clock)) = &mut self.part {
                line.clear();
                let length = next_line(part, line)?;
                if length > 0 {
                    return clock.time(without_end(line), length).map(Some);
                }
                self.part = None;
            }
            if self.next > self.range.end.piece || self.next >= self.log.pieces.len() {
                return Ok(None);
            }
            let (from, to) = self.range.of_piece(self.next);
            if let Some(part) = self.log.part(self.next, from, to)? {
                let clock = Clock::new(self.log, self.next, from)?;
                self.part = Some((BufReader::with_capacity(BLOCK, part), clock));
            }
            self.next += 1;
        }
    }
}

/// The source of the times of a file's lines, in sequence.
struct Clock {
    index: Option<Index>,
    /// The number of the next index entry, and the entry.
    next: (u64, Option<Mark>),
    offset: u64,
    approximate: u64,
    begun: u64,
    ended: u64,
}

impl Clock {
    fn new(log: &Log, piece: usize, offset: u64) -> io::Result<Self> {
        let index = log.index(piece);
        let mut approximate = begun(log, piece, index.as_ref())?;
        let mut next = (0, None);
        if let Some(index) = &index {
            let number = index.count_before(|mark| mark.offset <= offset);
            next = (number, index.mark(number));
            if let Some(number) = number.checked_sub(1)
                && let Some(mark) = index.mark(number)
            {
                approximate = mark.time.unix_micros();
            }
        }
        let piece = &log.pieces[piece];
        Ok(Self {
            index,
            next,
            offset,
            approximate,
            begun: piece.begun.saturating_sub(SLACK),
            ended: piece.ended.saturating_add(SLACK),
        })
    }

    /// Returns the time of the next line, whose length includes its terminator.
    fn time(&mut self, line: &[u8], length: u64) -> io::Result<Time> {
        while let (number, Some(mark)) = self.next
            && mark.offset <= self.offset
        {
            self.approximate = self.approximate.max(mark.time.unix_micros());
            self.next = match &self.index {
                Some(index) => (number + 1, index.mark(number + 1)),
                None => (number, None),
            };
        }
        self.offset += length;
        let own = Stored::parse(line).time;
        Ok(
            match own.filter(|time| (self.begun..=self.ended).contains(time)) {
                Some(micros) => {
                    self.approximate = self.approximate.max(micros);
                    Time {
                        micros,
                        exact: true,
                    }
                }
                None => Time {
                    micros: self.approximate,
                    exact: false,
                },
            },
        )
    }
}

/// Returns the time when a file was begun: the rotation of the previous one, or else its creation,
/// which is not known for a compressed file. It is not later than the first entry of the index.
fn begun(log: &Log, number: usize, index: Option<&Index>) -> io::Result<u64> {
    let piece = &log.pieces[number];
    if piece.begun > 0 {
        return Ok(piece.begun);
    }
    let born = match log.content(number)? {
        Content::Plain(file, _) => file.metadata()?.created().ok().map(micros),
        _ => None,
    };
    let first = index.and_then(Index::first);
    let first = first.map(|mark| mark.time.unix_micros());
    Ok(born.into_iter().chain(first).fold(piece.ended, u64::min))
}
