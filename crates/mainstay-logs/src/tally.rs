//! Losses that the logs do not report yet, recorded so that they outlive a supervisor that is
//! killed.
//!
//! While a disk is full, nothing can be recorded on it. The record is therefore in a pipe that the
//! keeper of pipes holds open, too: a line `DIR BYTES LINES MID_LINE ERROR .` for each log. A new
//! record is written before the previous one is removed. The last line of each log counts.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use super::file::Unreported;
use super::report::Lost;

/// The record, and the losses of earlier supervisors in it that no log has taken over.
pub(super) struct Tally {
    /// The pipe, which does not block. `None` if no pipe outlives this process.
    pipe: Option<File>,
    /// The number of bytes in the pipe.
    held: u64,
    left: Vec<(String, Unreported)>,
}

impl Tally {
    /// Reads the record of an earlier supervisor.
    pub(super) fn of(pipe: Option<File>) -> Self {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe.as_ref() {
            // Ends with an error, because the pipe has writers.
            let _empty = pipe.read_to_end(&mut bytes);
        }
        let mut left: Vec<(String, Unreported)> = Vec::new();
        for (dir, unreported) in String::from_utf8_lossy(&bytes).lines().filter_map(parse) {
            left.retain(|(other, _)| *other != dir);
            left.push((dir, unreported));
        }
        let mut tally = Self {
            pipe,
            held: 0,
            left,
        };
        tally.record(std::iter::empty());
        tally
    }

    /// Takes over the losses of a log, whose directory is relative to the root of all logs. Call
    /// [`Tally::record`] next.
    pub(super) fn take(&mut self, dir: &Path) -> Option<Unreported> {
        let found = self
            .left
            .iter()
            .position(|(left, _)| Path::new(left) == dir)?;
        Some(self.left.swap_remove(found).1)
    }

    /// Replaces the record. Best effort: without it, losses are unknown after a kill.
    pub(super) fn record<'a>(&mut self, losses: impl Iterator<Item = (&'a Path, Unreported)>) {
        let Some(mut pipe) = self.pipe.as_ref() else {
            return;
        };
        let mut lines = String::new();
        for (dir, loss) in &self.left {
            lines += &line(Path::new(dir), *loss);
        }
        for (dir, loss) in losses {
            lines += &line(dir, loss);
        }
        let written = pipe.write(lines.as_bytes()).unwrap_or(0) as u64;
        let _emptied = io::copy(&mut pipe.take(self.held), &mut io::sink());
        self.held = written;
    }
}

fn line(dir: &Path, unreported: Unreported) -> String {
    let Unreported {
        lost: Lost { bytes, lines },
        mid_line,
        error,
    } = unreported;
    let (dir, mid_line, error) = (dir.display(), u8::from(mid_line), error.unwrap_or(0));
    format!("{dir} {bytes} {lines} {mid_line} {error} .\n")
}

fn parse(line: &str) -> Option<(String, Unreported)> {
    let fields: Vec<&str> = line.split(' ').collect();
    let [dir, bytes, lines, mid_line, error, "."] = fields[..] else {
        return None;
    };
    let lost = Lost {
        bytes: bytes.parse().ok()?,
        lines: lines.parse().ok()?,
    };
    let unreported = Unreported {
        lost,
        mid_line: mid_line == "1",
        error: error.parse().ok().filter(|error| *error != 0),
    };
    Some((dir.to_owned(), unreported))
}
