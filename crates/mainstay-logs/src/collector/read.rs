//! The transfer of bytes from a service's pipe to its file, on systems with read(2) only. If the
//! supervisor is killed, the bytes that it has read are lost.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use mainstay_core::log::refine::Unfinished;

use super::super::capture::{Capture, SourceId};
use super::super::pipes::{OurEnd, Pipes};
use super::{LARGE_BUFFER, SMALL_BUFFER};

/// The result of one read of a pipe.
pub(super) enum Taken {
    /// The pipe is empty.
    Nothing,
    /// This many bytes, and nothing is left.
    All(usize),
    /// This many bytes, and more may be left.
    Some(usize),
}

pub(super) struct Handoff {
    buffer: Vec<u8>,
    /// The beginnings of unfinished lines.
    unfinished: HashMap<SourceId, Vec<u8>>,
}

impl Handoff {
    #[expect(clippy::unnecessary_wraps, reason = "the same shape on every system")]
    pub(super) fn new(_pipes: &mut Pipes, _root_dir: &Path) -> io::Result<Self> {
        Ok(Self {
            buffer: Vec::new(),
            unfinished: HashMap::new(),
        })
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
        if self.buffer.is_empty() {
            self.buffer = vec![0; SMALL_BUFFER];
        }
        let held = usize::try_from(pipe.held()).unwrap_or(usize::MAX);
        let length = held.min(self.buffer.len());
        let room = &mut self.buffer[..length];
        let count = pipe.take(|reader| rustix::io::read(reader, room).unwrap_or(0));
        if count == 0 {
            return Taken::Nothing;
        }
        let bytes = &self.buffer[..count];
        let is_whole = count == held;
        let unfinished = if is_whole {
            unfinished
        } else {
            Unfinished::Leave
        };
        match self.unfinished.remove(&source) {
            Some(mut begun) => {
                begun.extend_from_slice(bytes);
                let taken = capture.refine(source, &begun, unfinished);
                capture.put(source, &begun[..taken]);
                begun.drain(..taken);
                self.leave(source, begun);
            }
            None => {
                let taken = capture.refine(source, bytes, unfinished);
                capture.put(source, &bytes[..taken]);
                let begun = bytes[taken..].to_vec();
                self.leave(source, begun);
            }
        }
        if is_whole {
            return Taken::All(count);
        }
        if count < LARGE_BUFFER {
            self.buffer = vec![0; LARGE_BUFFER];
        }
        Taken::Some(count)
    }

    /// Does nothing: there is no content to resume.
    #[expect(clippy::unused_self, reason = "the same shape on every system")]
    pub(super) fn resume(&mut self, _capture: &mut Capture, _source: SourceId, _name: &str) {}

    /// Does nothing: there is no content to drop.
    #[expect(clippy::unused_self, reason = "the same shape on every system")]
    pub(super) fn forget(&mut self) {}

    /// Releases a source, whose number may be reused.
    pub(super) fn released(&mut self, source: SourceId) {
        self.unfinished.remove(&source);
    }

    fn leave(&mut self, source: SourceId, begun: Vec<u8>) {
        if !begun.is_empty() {
            self.unfinished.insert(source, begun);
        }
    }
}
