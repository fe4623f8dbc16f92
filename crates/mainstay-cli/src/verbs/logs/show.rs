//! The formats of lines: unchanged, with a prefix if several services share the output, with
//! their times, with matches highlighted, or as JSON.

use std::cell::RefCell;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use mainstay_core::log::LINE_MAX;
use mainstay_core::log::Stream;
use mainstay_core::log::stored::{Format, Stored};
use mainstay_core::time::rfc3339;
use mainstay_logs::read::{Damage, Keep, Sink, Time, without_end};
use regex::bytes::Regex;
use serde::Serialize;
use serde::de::IgnoredAny;

use mainstay_host::output::{self, Writer};

/// The colours of service names: those that are readable on black and on white.
const COLOURS: [&str; 6] = ["36", "33", "32", "35", "34", "31"];
/// The start of a match (bold and red), and its end, which resets only these two attributes.
const MATCH: [&str; 2] = ["\x1b[1;31m", "\x1b[22;39m"];

/// The format of all lines.
pub(super) struct Form {
    pub(super) is_json: bool,
    /// Set if lines that are stored without a time begin with it.
    pub(super) has_times: bool,
    /// The expression whose matches are highlighted.
    pub(super) highlight: Option<Regex>,
}

/// The service and stream of lines.
#[derive(Clone)]
pub(super) struct Tag {
    service: String,
    prefix: String,
    /// The stream of lines that do not name one.
    pub(super) stream: Option<Stream>,
}

impl Tag {
    pub(super) fn new(service: &str, prefix: Option<&str>, stream: Option<Stream>) -> Self {
        let prefix = match prefix {
            None => String::new(),
            Some(name) if output::stdout_has_colour() => {
                // FNV-1a hash: a name has the same colour everywhere.
                let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
                    (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
                });
                let colour = COLOURS[hash as usize % COLOURS.len()];
                format!("\x1b[{colour}m{name} |\x1b[0m ")
            }
            Some(name) => format!("{name} | "),
        };
        Self {
            service: service.to_owned(),
            prefix,
            stream,
        }
    }

    pub(super) fn with_stream(&self, stream: Stream) -> Self {
        Self {
            stream: Some(stream),
            ..self.clone()
        }
    }
}

/// A line in JSON form that was not stored as JSON.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    service: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<&'a str>,
    message: &'a str,
    /// Set if the line contains no time of its own.
    #[serde(skip_serializing_if = "is_false")]
    approximate: bool,
    /// Set if invalid UTF-8 was replaced.
    #[serde(skip_serializing_if = "is_false")]
    lossy: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// The output and the format of lines.
pub(super) struct Shown {
    form: Form,
    out: Writer<Box<dyn Write>>,
}

impl Shown {
    pub(super) fn new(form: Form, out: Writer<Box<dyn Write>>) -> Self {
        Self { form, out }
    }

    /// Writes bytes unchanged.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// Writes a line, given with or without its line ending.
    pub(super) fn line(&mut self, tag: &Tag, time: Time, line: &[u8]) -> io::Result<()> {
        if self.form.is_json {
            return self.json(tag, time, without_end(line));
        }
        self.out.own(&tag.prefix)?;
        if self.form.has_times && Stored::parse(line).time.is_none() {
            // The index has the time to about a second.
            let stamp = rfc3339(Duration::from_micros(time.micros));
            let stamp = stamp.split('.').next().unwrap_or_default();
            if output::stdout_has_colour() {
                self.out.own(&format!("\x1b[2m{stamp}Z\x1b[22m "))?;
            } else {
                self.out.own(&format!("{stamp}Z "))?;
            }
        }
        match &self.form.highlight {
            None => self.out.write_all(line)?,
            Some(regex) => {
                let bare = without_end(line);
                let mut from = 0;
                for found in regex.find_iter(bare).filter(|found| !found.is_empty()) {
                    self.out.write_all(&bare[from..found.start()])?;
                    self.out.own(MATCH[0])?;
                    self.out.write_all(found.as_bytes())?;
                    self.out.own(MATCH[1])?;
                    from = found.end();
                }
                self.out.write_all(&line[from..])?;
            }
        }
        if line.ends_with(b"\n") {
            Ok(())
        } else {
            self.out.write_all(b"\n")
        }
    }

    fn json(&mut self, tag: &Tag, time: Time, line: &[u8]) -> io::Result<()> {
        let mut stored = Stored::parse(line);
        if stored.format == Format::Json {
            if serde_json::from_slice::<IgnoredAny>(line).is_ok() {
                self.out.write_all(line)?;
                return self.out.write_all(b"\n");
            }
            stored.stream = None;
        }
        let message = String::from_utf8_lossy(stored.message);
        let line = Line {
            time: rfc3339(Duration::from_micros(time.micros)),
            service: &tag.service,
            stream: stored.stream.or(tag.stream).map(Stream::name),
            approximate: !time.exact,
            lossy: matches!(message, std::borrow::Cow::Owned(_)),
            message: &message,
        };
        serde_json::to_writer(&mut self.out, &line)?;
        self.out.write_all(b"\n")
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The sink for the additions to one log while it is followed.
pub(super) struct Added<'a> {
    shown: &'a RefCell<Shown>,
    tag: Tag,
    /// The filter for lines; `None` to write all bytes unchanged, including incomplete lines.
    keep: Option<Box<Keep<'static>>>,
    /// The incomplete line; without a filter, the last byte.
    pending: Vec<u8>,
}

impl<'a> Added<'a> {
    pub(super) fn bytes(shown: &'a RefCell<Shown>, tag: Tag) -> Self {
        Self {
            shown,
            tag,
            keep: None,
            pending: Vec::new(),
        }
    }

    pub(super) fn lines(
        shown: &'a RefCell<Shown>,
        tag: Tag,
        keep: impl Fn(&[u8]) -> bool + 'static,
    ) -> Self {
        Self {
            keep: Some(Box::new(keep)),
            ..Self::bytes(shown, tag)
        }
    }
}

impl Sink for Added<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut shown = self.shown.borrow_mut();
        let Some(keep) = &self.keep else {
            self.pending.clear();
            self.pending.extend(bytes.last());
            return shown.bytes(bytes);
        };
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.pending.extend_from_slice(part);
            if part.ends_with(b"\n") || self.pending.len() as u64 >= LINE_MAX {
                let bare = without_end(&self.pending);
                if keep(bare) {
                    shown.line(&self.tag, time_of(bare), &self.pending)?;
                }
                self.pending.clear();
            }
        }
        Ok(())
    }

    fn end_of_file(&mut self) -> io::Result<()> {
        match self.pending.last() {
            None | Some(b'\n') => Ok(()),
            Some(_) => self.bytes(b"\n"),
        }
    }

    fn damaged(&mut self, damage: &Damage) {
        let path = damage.path.display();
        output::complain(&format!("error: read {path}: {}", damage.error));
    }
}

/// Returns the time of the line itself, or else the current time.
fn time_of(line: &[u8]) -> Time {
    match Stored::parse(line).time {
        Some(micros) => Time {
            micros,
            exact: true,
        },
        None => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let now = u64::try_from(now.unwrap_or_default().as_micros());
            Time {
                micros: now.unwrap_or(u64::MAX),
                exact: false,
            }
        }
    }
}
