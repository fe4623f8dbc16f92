//! The lines of several logs, ordered by time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;

use mainstay_logs::read::{Lines, Log, Query, Time, without_end};

/// Returns the meaning of a line, and its position among lines of the same time in other logs;
/// `None` if it is not selected.
pub(super) type Read<'a, T> = dyn Fn(&[u8]) -> Option<(u64, T)> + 'a;

/// One log of those that are merged.
pub(super) struct Input<'a, T> {
    pub(super) log: &'a Log,
    /// The index of the service: the logs of one service share the limit of lines.
    pub(super) service: usize,
    pub(super) read: &'a Read<'a, T>,
    /// Set if all lines are selected.
    pub(super) is_whole: bool,
}

/// The reason why not all lines were shown.
pub(super) enum MergeError {
    /// The input with this index cannot be read.
    Input(usize, io::Error),
    /// The output does not accept more.
    Output(io::Error),
}

/// Calls `show` with the index of the input, the time, the bytes and the meaning of each selected
/// line.
pub(super) fn merge<T>(
    inputs: &[Input<'_, T>],
    query: &Query,
    mut show: impl FnMut(usize, Time, &[u8], T) -> io::Result<()>,
) -> Result<(), MergeError> {
    let services = inputs.iter().map(|input| input.service + 1).max();
    // If a service has two logs, each supplies its last N lines. The surplus over N is skipped.
    let mut surplus = vec![0_u64; services.unwrap_or(0)];
    let mut readers = Vec::with_capacity(inputs.len());
    for (number, input) in inputs.iter().enumerate() {
        let keep = |line: &[u8]| (input.read)(line).is_some();
        let range = input.log.select(query, (!input.is_whole).then_some(&keep));
        let range = range.map_err(|error| MergeError::Input(number, error))?;
        surplus[input.service] += range.counted;
        let mut reader = Reader {
            number,
            lines: input.log.lines(range),
            line: Vec::new(),
            found: None,
            read: input.read,
        };
        reader.advance()?;
        readers.push(reader);
    }
    for surplus in &mut surplus {
        *surplus = query.lines.map_or(0, |lines| surplus.saturating_sub(lines));
    }
    let first = |reader: &Reader<'_, T>| reader.key(0);
    let mut next: BinaryHeap<_> = readers.iter().filter_map(first).map(Reverse).collect();
    while let Some(Reverse((now, _, number))) = next.pop() {
        let reader = &mut readers[number];
        let surplus = &mut surplus[inputs[number].service];
        if *surplus > 0 {
            *surplus -= 1;
        } else if let Some((time, _, meaning)) = reader.found.take() {
            show(number, time, &reader.line, meaning).map_err(MergeError::Output)?;
        }
        reader.advance()?;
        // A clock that was set back does not change the order of lines within a log.
        next.extend(reader.key(now).map(Reverse));
    }
    Ok(())
}

/// A log, positioned at one of its selected lines.
struct Reader<'a, T> {
    number: usize,
    lines: Lines<'a>,
    line: Vec<u8>,
    /// The time of the line, its rank and its meaning; `None` at the end.
    found: Option<(Time, u64, T)>,
    read: &'a Read<'a, T>,
}

impl<T> Reader<'_, T> {
    fn advance(&mut self) -> Result<(), MergeError> {
        self.found = None;
        let failed = |error| MergeError::Input(self.number, error);
        while let Some(time) = self.lines.next(&mut self.line).map_err(failed)? {
            if let Some((rank, meaning)) = (self.read)(without_end(&self.line)) {
                self.found = Some((time, rank, meaning));
                break;
            }
        }
        Ok(())
    }

    /// Returns the key by which the line is ordered, with a time not before `earliest`; `None` at
    /// the end.
    fn key(&self, earliest: u64) -> Option<(u64, u64, usize)> {
        let (time, rank, _) = self.found.as_ref()?;
        Some((time.micros.max(earliest), *rank, self.number))
    }
}
