//! The lines of several logs, ordered by time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;

use mainstay_logs::read::{Keep, Lines, Log, Query, Time};

/// One log of those that are merged.
pub(super) struct Input<'a> {
    pub(super) log: &'a Log,
    /// The index of the service: the logs of one service share the limit of lines.
    pub(super) service: usize,
    /// The filter for lines; `None` if all of them are selected.
    pub(super) keep: Option<&'a Keep<'a>>,
    /// Returns the position of a line among lines of the same time in other logs.
    pub(super) rank: fn(&[u8]) -> u64,
}

/// The reason why not all lines were shown.
pub(super) enum MergeError {
    /// The input with this index cannot be read.
    Input(usize, io::Error),
    /// The output does not accept more.
    Output(io::Error),
}

/// Calls `show` with the index of the input, the time and the bytes of each selected line.
pub(super) fn merge(
    inputs: &[Input<'_>],
    query: &Query,
    mut show: impl FnMut(usize, Time, &[u8]) -> io::Result<()>,
) -> Result<(), MergeError> {
    let services = inputs.iter().map(|input| input.service + 1).max();
    // If a service has two logs, each supplies its last N lines. The surplus over N is skipped.
    let mut surplus = vec![0_u64; services.unwrap_or(0)];
    let mut readers = Vec::with_capacity(inputs.len());
    for (number, input) in inputs.iter().enumerate() {
        let range = input.log.select(query, input.keep);
        let range = range.map_err(|error| MergeError::Input(number, error))?;
        surplus[input.service] += range.counted;
        let mut reader = Reader {
            number,
            lines: input.log.lines(range, input.keep),
            line: Vec::new(),
            time: None,
            rank: input.rank,
        };
        reader.advance()?;
        readers.push(reader);
    }
    for surplus in &mut surplus {
        *surplus = query.lines.map_or(0, |lines| surplus.saturating_sub(lines));
    }
    let first = |reader: &Reader<'_>| reader.key(0);
    let mut next: BinaryHeap<_> = readers.iter().filter_map(first).map(Reverse).collect();
    while let Some(Reverse((now, _, number))) = next.pop() {
        let reader = &mut readers[number];
        let surplus = &mut surplus[inputs[number].service];
        if *surplus > 0 {
            *surplus -= 1;
        } else if let Some(time) = reader.time {
            show(number, time, &reader.line).map_err(MergeError::Output)?;
        }
        reader.advance()?;
        // A clock that was set back does not change the order of lines within a log.
        next.extend(reader.key(now).map(Reverse));
    }
    Ok(())
}

/// A log, positioned at one of its lines.
struct Reader<'a> {
    number: usize,
    lines: Lines<'a>,
    line: Vec<u8>,
    /// The time of the line; `None` at the end.
    time: Option<Time>,
    rank: fn(&[u8]) -> u64,
}

impl Reader<'_> {
    fn advance(&mut self) -> Result<(), MergeError> {
        let next = self.lines.next(&mut self.line);
        self.time = next.map_err(|error| MergeError::Input(self.number, error))?;
        Ok(())
    }

    /// Returns the key by which the line is ordered, with a time not before `earliest`; `None` at
    /// the end.
    fn key(&self, earliest: u64) -> Option<(u64, u64, usize)> {
        let micros = self.time?.micros.max(earliest);
        Some((micros, (self.rank)(&self.line), self.number))
    }
}
