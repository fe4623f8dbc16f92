//! The format of queued lines, in memory and on disk: consecutive records, as compact as fast
//! copying allows.

use std::sync::Arc;

use mainstay_core::log::{Line, Stream};
use mainstay_core::spec::{Facility, Level, ServiceName};

use super::Lost;

/// The size of the header before the message: length, time, pid, restart and flags.
const HEAD: usize = 4 + 8 + 4 + 4 + 1;

const LEVELS: [Option<Level>; 6] = [
    None,
    Some(Level::Trace),
    Some(Level::Debug),
    Some(Level::Info),
    Some(Level::Warn),
    Some(Level::Error),
];
const STREAMS: [Option<Stream>; 3] = [None, Some(Stream::Stdout), Some(Stream::Stderr)];

/// Appends a record. A message is truncated at 4 GiB.
pub(super) fn put(line: &Line<'_>, out: &mut Vec<u8>) {
    let length = u32::try_from(line.message.len()).unwrap_or(u32::MAX);
    let level = LEVELS.iter().position(|level| *level == line.level);
    let stream = STREAMS.iter().position(|stream| *stream == line.stream);
    let flags = level.unwrap_or(0) | stream.unwrap_or(0) << 3 | usize::from(line.partial) << 5;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&line.time_ns.to_le_bytes());
    out.extend_from_slice(&line.pid.to_le_bytes());
    out.extend_from_slice(&line.restart.to_le_bytes());
    out.push(flags as u8);
    out.extend_from_slice(&line.message[..length as usize]);
}

/// Returns the first record of `bytes`, and its size.
fn take(bytes: &[u8]) -> Option<(Line<'_>, usize)> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let word = |at: usize| Some(u32::from_le_bytes(*head.get(at..)?.first_chunk()?));
    let length = word(0)? as usize;
    let flags = usize::from(head[20]);
    let line = Line {
        time_ns: u64::from_le_bytes(*head[4..].first_chunk()?),
        level: *LEVELS.get(flags & 7)?,
        stream: *STREAMS.get(flags >> 3 & 3)?,
        pid: word(12)?,
        restart: word(16)?,
        message: rest.get(..length)?,
        partial: flags >> 5 & 1 == 1,
    };
    Some((line, HEAD + length))
}

/// The origin of lines.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) service: ServiceName,
    pub(super) facility: Facility,
}

/// Some lines of one service. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) source: Arc<Source>,
    data: Arc<Vec<u8>>,
    /// The offset of the first record that has not been sent.
    at: usize,
}

impl Block {
    pub(super) fn new(source: Arc<Source>, data: Arc<Vec<u8>>) -> Self {
        Self {
            source,
            data,
            at: 0,
        }
    }

    /// Returns the remaining records.
    pub(super) fn rest(&self) -> &[u8] {
        &self.data[self.at..]
    }

    /// Returns the number of bytes that were sent.
    pub(super) fn sent(&self) -> usize {
        self.at
    }

    /// Records that everything before byte `at`, where a record begins, was sent.
    pub(super) fn sent_up_to(&mut self, at: usize) {
        self.at = at.min(self.data.len());
    }

    /// Returns the remaining lines, each with the offset of its end.
    pub(super) fn lines(&self) -> impl Iterator<Item = (Line<'_>, usize)> {
        let mut at = self.at;
        std::iter::from_fn(move || {
            let (line, size) = take(&self.data[at..])?;
            at += size;
            Some((line, at))
        })
    }

    /// Returns the next line, and the offset of its end.
    pub(super) fn first(&self) -> Option<(Line<'_>, usize)> {
        let (line, size) = take(self.rest())?;
        Some((line, self.at + size))
    }

    /// Returns the loss if this block were dropped.
    pub(super) fn lost(&self) -> Lost {
        let mut lost = Lost::default();
        for (line, _) in self.lines() {
            lost.lines += 1;
            lost.bytes += line.message.len() as u64;
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_keeps_all() {
        let mut data = Vec::new();
        let mut lines = Vec::new();
        for level in LEVELS {
            for stream in STREAMS {
                for (partial, message) in [(true, &b"a\0\n"[..]), (false, b"")] {
                    lines.push(Line {
                        time_ns: u64::MAX - 3,
                        level,
                        stream,
                        pid: u32::MAX,
                        restart: 7,
                        message,
                        partial,
                    });
                }
            }
        }
        lines.iter().for_each(|line| put(line, &mut data));
        let source = Arc::new(Source {
            service: ServiceName::new("a").unwrap(),
            facility: Facility::Daemon,
        });
        let block = Block::new(source, Arc::new(data.clone()));
        let read: Vec<_> = block.lines().map(|(line, _)| line).collect();
        assert_eq!(read, lines);
        assert_eq!((block.lost().lines, block.lost().bytes), (36, 54));
        for end in 0..data.len() {
            let torn = Block::new(block.source.clone(), Arc::new(data[..end].to_vec()));
            assert!(torn.lines().count() < 36);
        }
    }
}
