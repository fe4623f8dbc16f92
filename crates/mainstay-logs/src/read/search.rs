//! Selection of the requested bytes of a log. A plain file is searched by seeking, so that its
//! length does not matter.
//!
//! Times come from three sources, the most precise first: a line's own stamp, the file's index, and
//! the file names. If none of them is certain, more is shown rather than less.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};

use mainstay_core::log::LINE_MAX;
use mainstay_core::log::stored::{HEAD, Stored};

use super::files::{Content, Log, micros};
use super::index::Bracket;
use super::part::{Part, next_line, read_exact_at, to_usize, without_end};
use super::{BLOCK, SLACK};

/// The lines to select from a log; all of them by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query {
    /// The maximum number of lines, counted from the end.
    pub lines: Option<u64>,
    /// The earliest time, in microseconds since 1970.
    pub since: Option<u64>,
    /// The latest time.
    pub until: Option<u64>,
}

/// A filter for lines, by their bytes without the terminator.
pub type Keep<'a> = dyn Fn(&[u8]) -> bool + 'a;

/// A place in the log as it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) piece: usize,
    /// The offset in the uncompressed piece. An offset beyond its end means its end.
    pub(super) offset: u64,
}

/// A range of consecutive lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    pub(super) start: Place,
    pub(super) end: Place,
    /// The number of lines that passed the filter, if it was requested.
    pub counted: u64,
}

impl Range {
    /// Returns the start and end of the range within this piece.
    pub(super) fn of_piece(&self, piece: usize) -> (u64, u64) {
        let from = if piece == self.start.piece {
            self.start.offset
        } else {
            0
        };
        let to = if piece == self.end.piece {
            self.end.offset
        } else {
            u64::MAX
        };
        (from, to)
    }
}

/// The choice if the exact place is not known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lean {
    Early,
    Late,
}

impl Log {
    /// Returns the range of lines that `query` selects, of those for which `keep` returns true. The
    /// range contains every selected line.
    pub fn select(&self, query: &Query, keep: Option<&Keep<'_>>) -> io::Result<Range> {
        let mut range = Range::default();
        let Some(last) = self.pieces.len().checked_sub(1) else {
            return Ok(range);
        };
        range.end = Place {
            piece: last,
            offset: u64::MAX,
        };
        if let Some(until) = query.until {
            let after = until.saturating_add(1);
            let begun = |piece: &super::files::Piece| piece.begun <= until.saturating_add(SLACK);
            let mut piece = self.pieces.partition_point(begun).saturating_sub(1);
            range.end = loop {
                let offset = self.first_at(piece, after, Lean::Late)?;
                if offset > 0 || piece == 0 {
                    break Place { piece, offset };
                }
                piece -= 1;
            };
        }
        if let Some(since) = query.since {
            let piece = self.pieces.partition_point(|piece| piece.ended < since);
            range.start = if piece <= last {
                Place {
                    piece,
                    offset: self.first_at(piece, since, Lean::Early)?,
                }
            } else {
                range.end
            };
        }
        range.start = range.start.min(range.end);
        if let Some(lines) = query.lines {
            (range.start, range.counted) = self.last_lines(lines, range, keep)?;
        }
        Ok(range)
    }

    /// Returns the start of the first line in a piece that has this time or is younger.
    fn first_at(&self, piece: usize, time: u64, lean: Lean) -> io::Result<u64> {
        let content = self.content(piece)?;
        let nothing = Bracket {
            before: None,
            after: None,
        };
        let bracket = match self.index(piece) {
            Some(index) => index.bracket(time),
            None => nothing,
        };
        let (before, after) = (bracket.before, bracket.after);
        let piece = &self.pieces[piece];
        let search = StampSearch {
            time,
            lean,
            // Stamps that a service writes itself must not mislead the search.
            earliest: before
                .map_or(piece.begun, |mark| mark.time.unix_micros())
                .saturating_sub(SLACK),
            latest: after
                .map_or(piece.ended, |mark| mark.time.unix_micros())
                .saturating_add(SLACK),
        };
        let from = before.map_or(0, |mark| mark.offset);
        let to = after.map_or(u64::MAX, |mark| mark.offset);
        match content {
            Content::Gone => Ok(0),
            Content::Plain(file, len) => {
                let limit = to.min(len);
                let (from, to) = search.narrow(&file, from.min(len), limit)?;
                let part = Part {
                    file: &file,
                    from,
                    to,
                };
                let place = search.first(&mut BufReader::with_capacity(BLOCK, part), from, to)?;
                let is_unknown = lean == Lean::Late && place == limit && piece.begun == 0;
                // Without any stamp, the creation time is the best estimate.
                if is_unknown && before.is_none() && born_unstamped(&file)? >= time {
                    Ok(0)
                } else {
                    Ok(place)
                }
            }
            Content::Packed(mut packed) => {
                packed.skip(from)?;
                let part = packed.take(to.saturating_sub(from));
                search.first(&mut BufReader::with_capacity(BLOCK, part), from, to)
            }
        }
    }

    /// Returns where the last lines of a range begin, and their number, up to `lines`.
    fn last_lines(
        &self,
        lines: u64,
        range: Range,
        keep: Option<&Keep<'_>>,
    ) -> io::Result<(Place, u64)> {
        let mut wanted = lines;
        let mut start = range.end;
        for piece in (range.start.piece..=range.end.piece).rev() {
            if wanted == 0 {
                break;
            }
            let (from, to) = range.of_piece(piece);
            let offset = match self.content(piece)? {
                Content::Gone => break,
                Content::Plain(file, len) => {
                    let (from, to) = (from.min(len), to.min(len));
                    last_of_plain(&file, from, to, &mut wanted, keep)?
                }
                Content::Packed(mut packed) => {
                    packed.skip(from)?;
                    let part = packed.take(to.saturating_sub(from));
                    let mut part = BufReader::with_capacity(BLOCK, part);
                    last_of_stream(&mut part, from, &mut wanted, keep)?
                }
            };
            start = Place { piece, offset };
        }
        Ok((start, lines - wanted))
    }
}

/// The comparison of lines by their own stamps.
struct StampSearch {
    time: u64,
    lean: Lean,
    /// The range outside of which stamps are ignored.
    earliest: u64,
    latest: u64,
}

impl StampSearch {
    /// Returns whether a line has the time or is younger, if it contains a stamp.
    fn is_at(&self, head: &[u8]) -> Option<bool> {
        let time = Stored::parse(head).time?;
        (self.earliest..=self.latest)
            .contains(&time)
            .then_some(time >= self.time)
    }

    /// Halves a part of a file until it is small; the part begins at the start of a line.
    fn narrow(&self, file: &File, from: u64, to: u64) -> io::Result<(u64, u64)> {
        // The result is the start of a line in `from..=end`; no line that starts beyond `to` needs
        // to be examined.
        let (mut from, mut to, mut end) = (from, to, to);
        let mut block = vec![0; BLOCK];
        while to.saturating_sub(from) > BLOCK as u64 {
            let middle = from + (to - from) / 2;
            let block = &mut block[..to_usize(end - middle).min(BLOCK)];
            read_exact_at(file, block, middle)?;
            let starts = memchr::memchr_iter(b'\n', block).map(|end| end + 1);
            let mut first = None;
            let stamped = starts
                .inspect(|start| {
                    first.get_or_insert(*start);
                })
                .filter(|start| *start < block.len())
                .find_map(|start| Some((start, self.is_at(head(&block[start..]))?)));
            match stamped {
                Some((start, false)) => from = middle + start as u64,
                Some((start, true)) => {
                    to = middle;
                    end = end.min(middle + start as u64);
                }
                None if self.lean == Lean::Early => {
                    to = middle;
                    end = middle;
                }
                None => from = middle + first.unwrap_or(block.len()) as u64,
            }
        }
        Ok((from, end))
    }

    /// Scans the lines of a part that begins at `from` and ends at `to`, or before.
    fn first(&self, part: &mut impl BufRead, from: u64, to: u64) -> io::Result<u64> {
        let mut place = match self.lean {
            Lean::Early => from,
            Lean::Late => to,
        };
        let mut start = from;
        let mut head = Vec::with_capacity(HEAD);
        loop {
            let length = next_head(part, &mut head)?;
            if length == 0 {
                return Ok(place);
            }
            match self.is_at(&head) {
                Some(true) if self.lean == Lean::Late => return Ok(start),
                Some(true) => return Ok(place),
                Some(false) if self.lean == Lean::Early => place = start + length,
                _ => {}
            }
            start += length;
        }
    }
}

/// Returns the beginning of a line, as far as it can contain a stamp.
fn head(bytes: &[u8]) -> &[u8] {
    let bytes = &bytes[..bytes.len().min(HEAD)];
    memchr::memchr(b'\n', bytes).map_or(bytes, |end| &bytes[..end])
}

/// Returns the creation time of a file whose first line has no stamp; 0 if unknown.
fn born_unstamped(file: &File) -> io::Result<u64> {
    let part = Part {
        file,
        from: 0,
        to: HEAD as u64,
    };
    let mut first = Vec::with_capacity(HEAD);
    next_head(&mut BufReader::with_capacity(HEAD, part), &mut first)?;
    let born = file.metadata()?.created().map_or(0, micros);
    Ok(match Stored::parse(&first).time {
        Some(_) => 0,
        None => born.saturating_sub(SLACK),
    })
}

/// Reads a line of any length and keeps its beginning. Returns its length including the terminator;
/// 0 if there is no line.
fn next_head(part: &mut impl BufRead, kept: &mut Vec<u8>) -> io::Result<u64> {
    kept.clear();
    let mut length = 0;
    loop {
        let block = match part.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            block => block?,
        };
        let end = memchr::memchr(b'\n', block);
        let line = &block[..end.unwrap_or(block.len())];
        kept.extend_from_slice(&line[..line.len().min(HEAD - kept.len())]);
        let used = end.map_or(block.len(), |end| end + 1);
        part.consume(used);
        length += used as u64;
        if end.is_some() || used == 0 {
            return Ok(length);
        }
    }
}

/// Returns where the last `wanted` lines of `from..to` that pass `keep` begin, or all of them, and
/// reduces `wanted` by their number.
///
/// Reads at most one block and one piece of a line at a time, however long the range is.
fn last_of_plain(
    file: &File,
    from: u64,
    to: u64,
    wanted: &mut u64,
    keep: Option<&Keep<'_>>,
) -> io::Result<u64> {
    let mut block = vec![0; BLOCK];
    let mut piece = Vec::new();
    let mut start = to;
    // The end of the line whose beginning is searched for.
    let mut end = to;
    while end > from {
        // The terminator of the last line does not end the line before it.
        let (looked_at, mut ends) = (start, Vec::new());
        if start > from {
            let length = (start - from).min(BLOCK as u64);
            start -= length;
            let block = &mut block[..to_usize(length)];
            read_exact_at(file, block, start)?;
            ends.extend(memchr::memrchr_iter(b'\n', block).map(|end| start + end as u64 + 1));
        }
        if start == from {
            ends.push(from);
        }
        for line in ends.into_iter().filter(|line| *line < to) {
            if line >= end {
                continue;
            }
            // A line longer than a piece is counted in pieces from its beginning, as it is read.
            for number in (0..(end - line).div_ceil(LINE_MAX)).rev() {
                let first = line + number * LINE_MAX;
                let last = end.min(first + LINE_MAX);
                let counts = match keep {
                    None => true,
                    Some(keep) if last <= looked_at => {
                        let (first, last) = (to_usize(first - start), to_usize(last - start));
                        keep(without_end(&block[first..last]))
                    }
                    Some(keep) => {
                        piece.resize(to_usize(last - first), 0);
                        read_exact_at(file, &mut piece, first)?;
                        keep(without_end(&piece))
                    }
                };
                if counts {
                    *wanted -= 1;
                    if *wanted == 0 {
                        return Ok(first);
                    }
                }
            }
            end = line;
        }
    }
    Ok(from)
}

/// Does the same for a stream that cannot be read backwards.
fn last_of_stream(
    part: &mut impl BufRead,
    from: u64,
    wanted: &mut u64,
    keep: Option<&Keep<'_>>,
) -> io::Result<u64> {
    let mut starts = VecDeque::new();
    let mut start = from;
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = next_line(part, &mut line)?;
        if length == 0 {
            break;
        }
        if keep.is_none_or(|keep| keep(without_end(&line))) {
            if starts.len() as u64 == *wanted {
                starts.pop_front();
            }
            starts.push_back(start);
        }
        start += length;
    }
    *wanted -= starts.len() as u64;
    Ok(match *wanted {
        0 => starts.front().copied().unwrap_or(from),
        _ => from,
    })
}
