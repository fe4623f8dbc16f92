//! Refinement of the bytes from a pipe into the contents of a log file: redacted, filtered,
//! formatted.
//!
//! The output depends only on the bytes, never on the chunks in which they arrived. An unfinished
//! line stays in the pipe and is passed in again with the data that follows, so nothing is buffered
//! here that a kill could lose. Only a line of [`LINE_MAX`] bytes without an end is consumed in
//! pieces. The first piece is its first `LINE_MAX` bytes without the last `OVERLAP` bytes, extended
//! to the end of any hidden value at that point. Any hidden value of up to 4 KiB is therefore
//! complete within one piece.
//!
//! Raw text keeps every byte that is not hidden or filtered out, and is copied in runs as long as
//! possible. In text and JSON, lines have no LF and no CR before it, and a piece is a line of its
//! own.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::time::Duration;

use memchr::{memchr, memrchr};

use super::Stream;
use super::json;
use super::level::level_of;
use super::redact::{Find, Labels, Memory, RedactionKey, Scanner, Text, What, without_end};
use crate::spec::{Level, LogFormat, LogPolicy};
use crate::time::rfc3339;

/// The maximum length of a line in bytes, including its end. A longer line is consumed in pieces.
pub const LINE_MAX: usize = 32 * 1024;

/// The number of bytes of a long line that are scanned but not consumed. A key of 64 bytes and a
/// value of 4 KiB fit in it.
const OVERLAP: usize = 5 * 1024;

/// The origin of bytes.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The name of the service.
    pub service: &'a str,
    /// The time in nanoseconds since 1970, UTC.
    pub time: u64,
    /// The stream; `None` if both streams share a pipe.
    pub stream: Option<Stream>,
    /// The process ID of the service's main process.
    pub pid: u32,
    /// The number of restarts before this run.
    pub restart: u32,
}

/// A line, or a piece of a long one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The level recognized in the line. A piece has the level of its line.
    pub level: Option<Level>,
    /// The redacted contents, without LF or CR LF.
    pub message: &'a [u8],
    /// Set if the line continues in the next record, if there is one.
    pub partial: bool,
}

/// The refinement of the lines of one pipe.
pub struct Refiner {
    format: LogFormat,
    /// The lowest level that is kept; lines below it are dropped.
    least: Option<Level>,
    records: bool,
    redactor: Option<Redactor>,
    /// The line whose start has already been consumed.
    begun: Option<Begun>,
    /// The prefix of each line in one call.
    head: Vec<u8>,
    scratch: Vec<u8>,
}

struct Redactor {
    scanner: Scanner,
    labels: Labels,
    memory: Memory,
    finds: Vec<Find>,
}

/// The handling of a line at the end of the input that has no end yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfinished {
    /// Left in the pipe.
    Leave,
    /// Consumed, because the pipe is full, or its writers have exited.
    Take,
}

/// The decisions that apply to the rest of a line.
#[derive(Clone, Copy)]
struct Begun {
    level: Option<Level>,
    left_out: bool,
}

impl Refiner {
    /// Creates the refiner of one pipe. Returns `None` if the bytes are copied unchanged and no
    /// `records` are needed.
    pub fn new(policy: &LogPolicy, key: &RedactionKey, records: bool) -> Option<Self> {
        let redaction = policy.redact();
        let plain = policy.format() == LogFormat::Raw && !policy.filter() && redaction.is_empty();
        if plain && !records {
            return None;
        }
        let redactor = (!redaction.is_empty()).then(|| Redactor {
            scanner: Scanner::new(redaction),
            labels: Labels::new(redaction, key),
            memory: Memory::default(),
            finds: Vec::new(),
        });
        Some(Self {
            format: policy.format(),
            least: policy.filter().then(|| policy.level()),
            records,
            redactor,
            begun: None,
            head: Vec::new(),
            scratch: Vec::new(),
        })
    }

    /// Processes the unconsumed contents of the pipe, `input`. Appends the output to `out`, calls
    /// `record` for each line of it, and returns the number of bytes consumed. The caller must pass
    /// in the rest again, followed by new data.
    pub fn refine(
        &mut self,
        input: &[u8],
        unfinished: Unfinished,
        origin: &Origin<'_>,
        out: &mut Vec<u8>,
        record: &mut dyn FnMut(&Record<'_>),
    ) -> usize {
        self.write_head(origin);
        let mut at = 0;
        loop {
            let rest = &input[at..];
            let window = &rest[..rest.len().min(LINE_MAX)];
            if self.begun.is_none() {
                let whole = whole_lines(rest);
                if whole > 0 {
                    self.lines(&rest[..whole], out, record);
                    at += whole;
                    continue;
                }
            } else if let Some(end) = memchr(b'\n', window) {
                at += self.piece(&window[..=end], Piece::Last, out, record);
                continue;
            }
            if window.len() == LINE_MAX {
                at += self.piece(window, Piece::Cut, out, record);
            } else if unfinished == Unfinished::Take && !window.is_empty() {
                at += self.piece(window, Piece::Open, out, record);
            } else {
                return at;
            }
        }
    }

    fn write_head(&mut self, origin: &Origin<'_>) {
        self.head.clear();
        let since_epoch = Duration::from_nanos(origin.time);
        let time = match self.format {
            LogFormat::Raw => return,
            LogFormat::Text | LogFormat::Json => rfc3339(since_epoch),
        };
        let stream = origin.stream.map(Stream::name);
        let head = match self.format {
            LogFormat::Json => {
                let seconds = time.trim_end_matches('Z');
                let rest = since_epoch.subsec_nanos() % 1_000_000;
                let stream = stream.map_or(String::new(), |name| format!(r#""stream":"{name}","#));
                let (pid, restart) = (origin.pid, origin.restart);
                let mut service = Vec::new();
                json::escape(origin.service.as_bytes(), &mut service);
                let service = String::from_utf8_lossy(&service);
                format!(
                    r#"{{"time":"{seconds}{rest:06}Z",{stream}"service":"{service}","pid":{pid},"restart":{restart}"#
                )
            }
            _ => match stream {
                Some(name) => format!("{time} {name} "),
                None => format!("{time} "),
            },
        };
        self.head.extend_from_slice(head.as_bytes());
    }

    /// Returns whether lines are processed individually.
    fn goes_by_line(&self) -> bool {
        self.format != LogFormat::Raw || self.least.is_some() || self.records
    }

    fn is_left_out(&self, level: Option<Level>) -> bool {
        self.least
            .is_some_and(|least| level.is_some_and(|level| level < least))
    }

    /// Processes complete lines, including their ends.
    fn lines(&mut self, lines: &[u8], out: &mut Vec<u8>, record: &mut dyn FnMut(&Record<'_>)) {
        let mut redactor = self.redactor.take();
        let mut finds: &[Find] = &[];
        if let Some(redactor) = &mut redactor {
            let Redactor {
                scanner,
                memory,
                finds,
                ..
            } = redactor;
            scanner.scan(lines, Text::Lines, memory, finds);
        }
        let labels = redactor.as_ref().map(|redactor| {
            finds = &redactor.finds;
            &redactor.labels
        });
        if self.goes_by_line() {
            self.each_line(lines, finds, labels, out, record);
        } else {
            splice(lines, 0..lines.len(), finds, labels, out);
        }
        self.redactor = redactor;
    }

    fn each_line(
        &mut self,
        lines: &[u8],
        mut finds: &[Find],
        labels: Option<&Labels>,
        out: &mut Vec<u8>,
        record: &mut dyn FnMut(&Record<'_>),
    ) {
        let raw = self.format == LogFormat::Raw;
        let mut scratch = std::mem::take(&mut self.scratch);
        // Unchanged raw lines, from `unwritten` to `start`, are copied together.
        let (mut unwritten, mut start) = (0, 0);
        while start < lines.len() {
            let next = memchr(b'\n', &lines[start..]).map_or(lines.len(), |len| start + len + 1);
            let line = &lines[start..next];
            let here = finds.partition_point(|find| find.start < next);
            let (inside, later) = finds.split_at(here);
            finds = later;
            let gone = matches!(inside, [find, ..] if is_gone(find, start, next));
            let level = level_of(line);
            if gone || self.is_left_out(level) {
                out.extend_from_slice(&lines[unwritten..if raw { start } else { unwritten }]);
                (unwritten, start) = (next, next);
                continue;
            }
            let plain = without_end(line);
            let content = start..start + plain.len();
            let message = if inside.is_empty() {
                plain
            } else {
                scratch.clear();
                splice(lines, content.clone(), inside, labels, &mut scratch);
                &scratch
            };
            if !raw {
                self.write(message, level, Part::Whole, out);
            } else if !inside.is_empty() {
                out.extend_from_slice(&lines[unwritten..start]);
                out.extend_from_slice(message);
                out.extend_from_slice(&lines[content.end..next]);
                unwritten = next;
            }
            if self.records {
                record(&Record {
                    level,
                    message,
                    partial: false,
                });
            }
            start = next;
        }
        if raw {
            out.extend_from_slice(&lines[unwritten..]);
        }
        self.scratch = scratch;
    }

    /// Processes a piece of a line and returns its length within `window`.
    fn piece(
        &mut self,
        window: &[u8],
        piece: Piece,
        out: &mut Vec<u8>,
        record: &mut dyn FnMut(&Record<'_>),
    ) -> usize {
        let is_first = self.begun.is_none();
        let Begun { level, left_out } = self.begun.unwrap_or_else(|| {
            let level = level_of(window);
            let left_out = self.is_left_out(level);
            Begun { level, left_out }
        });
        let mut cut = match piece {
            Piece::Cut => character_start(window, LINE_MAX - OVERLAP),
            Piece::Last | Piece::Open => window.len(),
        };
        let mut redactor = self.redactor.take();
        let mut finds: &[Find] = &[];
        if let Some(redactor) = &mut redactor {
            let Redactor {
                scanner,
                memory,
                finds,
                ..
            } = redactor;
            let kind = if is_first { Text::First } else { Text::Next };
            scanner.scan(window, kind, memory, finds);
            for find in &*finds {
                if find.anchor < cut && cut < find.end {
                    cut = find.end;
                }
            }
            finds.retain(|find| find.start < cut);
            match piece {
                Piece::Last => scanner.end_line(memory),
                Piece::Cut | Piece::Open => {
                    scanner.pass(&window[..cut], cut == window.len(), memory)
                }
            }
        }
        let labels = redactor.as_ref().map(|redactor| {
            finds = &redactor.finds;
            &redactor.labels
        });
        let taken = &window[..cut];
        let partial = piece != Piece::Last;
        let plain = if partial { taken } else { without_end(taken) };
        self.scratch.clear();
        splice(taken, 0..plain.len(), finds, labels, &mut self.scratch);
        let gone = matches!(finds, [find, ..] if is_gone(find, 0, cut));
        if !left_out && !gone {
            let message = std::mem::take(&mut self.scratch);
            if self.format == LogFormat::Raw {
                out.extend_from_slice(&message);
                out.extend_from_slice(&taken[plain.len()..]);
            } else {
                let part = match (is_first, partial) {
                    (_, true) => Part::Unfinished,
                    (true, false) => Part::Whole,
                    (false, false) => Part::Last,
                };
                self.write(&message, level, part, out);
            }
            if self.records {
                record(&Record {
                    level,
                    message: &message,
                    partial,
                });
            }
            self.scratch = message;
        }
        self.redactor = redactor;
        self.begun = partial.then_some(Begun { level, left_out });
        cut
    }

    /// Writes one line of a file in text or JSON format.
    fn write(&self, message: &[u8], level: Option<Level>, part: Part, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        if self.format == LogFormat::Text {
            out.extend_from_slice(message);
            out.push(b'\n');
            return;
        }
        let level: &[u8] = match level {
            None => b"",
            Some(Level::Trace) => br#","level":"trace""#,
            Some(Level::Debug) => br#","level":"debug""#,
            Some(Level::Info) => br#","level":"info""#,
            Some(Level::Warn) => br#","level":"warn""#,
            Some(Level::Error) => br#","level":"error""#,
        };
        out.extend_from_slice(level);
        // The fast path of `from_utf8_lossy` covers only a few bytes.
        let text = match std::str::from_utf8(message) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => String::from_utf8_lossy(message),
        };
        let lossy = matches!(text, Cow::Owned(_));
        let object = message.trim_ascii();
        if part == Part::Whole && !lossy && object.starts_with(b"{") && json::is_object(object) {
            out.extend_from_slice(br#","fields":"#);
            out.extend_from_slice(object);
        } else {
            out.extend_from_slice(br#","message":""#);
            json::escape(text.as_bytes(), out);
            out.push(b'"');
        }
        if lossy {
            out.extend_from_slice(br#","lossy":true"#);
        }
        if part == Part::Unfinished {
            out.extend_from_slice(br#","partial":true"#);
        }
        out.extend_from_slice(b"}\n");
    }
}

/// The part of a program's line that a line of the file contains.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    /// A piece, which others follow.
    Unfinished,
    /// The last piece.
    Last,
}

/// The reason why a piece of a line is consumed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    /// The line is too long.
    Cut,
    /// The end of the line has been reached.
    Last,
    /// Nothing may remain in the pipe.
    Open,
}

/// Returns the length of the complete lines of `text` that are not too long.
fn whole_lines(text: &[u8]) -> usize {
    let mut end = 0;
    loop {
        let rest = &text[end..];
        match memrchr(b'\n', &rest[..rest.len().min(LINE_MAX)]) {
            Some(last) => end += last + 1,
            None => return end,
        }
    }
}

/// Returns whether nothing remains of the line from `start` to `next`, because a label on another
/// line replaces it.
fn is_gone(find: &Find, start: usize, next: usize) -> bool {
    find.what == What::Nothing && find.start <= start && find.end >= next
}

/// Returns the start of the character whose last byte is at or after `at`; `at` itself if the text
/// is not UTF-8.
fn character_start(text: &[u8], at: usize) -> usize {
    let is_start = |index: &usize| text.get(*index).is_some_and(|b| b & 0xc0 != 0x80);
    (at - 3..=at).rev().find(is_start).unwrap_or(at)
}

/// Appends `range` of `text` with labels in place of `finds`.
fn splice(
    text: &[u8],
    range: std::ops::Range<usize>,
    finds: &[Find],
    labels: Option<&Labels>,
    out: &mut Vec<u8>,
) {
    let mut at = range.start;
    for find in finds {
        out.extend_from_slice(&text[at..find.start.clamp(at, range.end)]);
        if let Some(labels) = labels {
            labels.write(find, &text[find.start..find.end], out);
        }
        at = find.end.clamp(at, range.end);
    }
    out.extend_from_slice(&text[at..range.end]);
}
