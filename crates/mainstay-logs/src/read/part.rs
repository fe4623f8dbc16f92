//! Parts of files: reading of blocks and lines at an offset.

use std::fs::File;
use std::io::{self, BufRead, Read, Seek, SeekFrom};

use mainstay_core::log::LINE_MAX;

use super::BLOCK;

/// A part of a plain file. Reading moves the file's own position.
pub(super) struct Part<'a> {
    pub(super) file: &'a File,
    pub(super) from: u64,
    pub(super) to: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = to_usize(self.to.saturating_sub(self.from)).min(buffer.len());
        let mut file = self.file;
        file.seek(SeekFrom::Start(self.from))?;
        let read = file.read(&mut buffer[..wanted])?;
        self.from += read as u64;
        Ok(read)
    }
}

/// Passes on all content in large blocks.
pub(super) fn copy(
    from: &mut impl Read,
    to: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut block = vec![0; 4 * BLOCK];
    loop {
        match from.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(length) => to(&block[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Returns the first bytes of a file, at most this many.
pub(super) fn first(mut file: &File, most: usize) -> Option<Vec<u8>> {
    file.rewind().ok()?;
    read_some(file, most)
}

pub(super) fn read_some(from: impl Read, most: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(most as u64).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

pub(super) fn read_exact_at(file: &File, block: &mut [u8], offset: u64) -> io::Result<()> {
    let mut file = file;
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(block)
}

/// Appends the next line with its terminator to `line`, or [`LINE_MAX`] bytes of a longer one.
/// Returns the number of bytes appended; 0 if there is no line.
pub(super) fn next_line(part: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<u64> {
    Ok(part.take(LINE_MAX).read_until(b'\n', line)? as u64)
}

/// Returns a line without its terminator.
pub fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

pub(super) fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
