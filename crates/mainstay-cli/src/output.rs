//! Standard output and standard error. Everything that a verb shows goes through here: on a terminal, control characters in text from
//! other programs are escaped; files and pipes get every byte. A reader that left early (`| head`) is not an error.

use std::io::{self, IsTerminal as _, Write};

use mainstay_core::terminal::{Allow, Escaper, escape};
use serde::Serialize;

use crate::failure::{Code, Failure};

const RESET: &str = "\x1b[0m";

/// Text with colours of this program's own.
#[derive(Debug, Default)]
pub(crate) struct Painted {
    text: String,
    /// Where attributes of characters change, in bytes.
    marks: Vec<(usize, &'static str)>,
}

impl Painted {
    pub(crate) fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Appends `text` with an SGR sequence before it.
    pub(crate) fn paint(&mut self, colour: &'static str, text: &str) {
        self.marks.push((self.text.len(), colour));
        self.text.push_str(text);
        self.marks.push((self.text.len(), RESET));
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn trim_end(&mut self) {
        let length = self.text.trim_end_matches(' ').len();
        self.text.truncate(length);
        self.marks
            .iter_mut()
            .for_each(|(at, _)| *at = length.min(*at));
    }
}

impl From<String> for Painted {
    fn from(text: String) -> Self {
        Self {
            text,
            marks: Vec::new(),
        }
    }
}

/// Writes to a stream; where that is a terminal, only this program's own sequences reach it unescaped.
pub(crate) struct Writer<W> {
    out: W,
    escaper: Option<Escaper>,
    has_colour: bool,
    buffer: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Text from other programs.
    pub(crate) fn foreign(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(escaper) = &mut self.escaper else {
            return self.out.write_all(bytes);
        };
        self.buffer.clear();
        escaper.push(bytes, &mut self.buffer);
        self.out.write_all(&self.buffer)
    }

    /// Sequences that this program made.
    pub(crate) fn own(&mut self, sequence: &str) -> io::Result<()> {
        self.settle()?;
        self.out.write_all(sequence.as_bytes())
    }

    pub(crate) fn painted(&mut self, painted: &Painted) -> io::Result<()> {
        let mut from = 0;
        let has_colour = self.has_colour;
        for &(at, mark) in painted.marks.iter().filter(|_| has_colour) {
            self.foreign(&painted.text.as_bytes()[from..at])?;
            self.own(mark)?;
            from = at;
        }
        self.foreign(&painted.text.as_bytes()[from..])?;
        self.settle()
    }

    /// Ends what others began: a sequence, a colour.
    fn settle(&mut self) -> io::Result<()> {
        let Some(escaper) = &mut self.escaper else {
            return Ok(());
        };
        self.buffer.clear();
        escaper.end(&mut self.buffer);
        self.out.write_all(&self.buffer)
    }
}

/// Text from other programs.
impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.foreign(bytes).map(|()| bytes.len())
    }

    /// A sequence that is not complete yet stays held back.
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What reaches a terminal of text from other programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// Text without colours.
    Text,
    /// Text and its colours.
    Coloured,
    /// Every byte.
    Raw,
}

impl Foreign {
    fn escaper(self, is_terminal: bool) -> Option<Escaper> {
        match self {
            _ if !is_terminal => None,
            Self::Text => Some(Escaper::new(Allow::Nothing)),
            Self::Coloured => Some(Escaper::new(Allow::Colours)),
            Self::Raw => None,
        }
    }
}

/// Standard output.
pub(crate) fn screen(foreign: Foreign) -> Writer<io::Stdout> {
    onto(stdout(), foreign)
}

/// Bytes that standard output may get as they are, whatever it is.
#[derive(Debug)]
pub(crate) struct Safe(Vec<u8>);

impl Safe {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Makes bytes for standard output that another thread writes.
pub(crate) struct Composer(Writer<Vec<u8>>);

impl Composer {
    /// Appends text from other programs.
    pub(crate) fn foreign(mut self, bytes: &[u8]) -> Self {
        // Memory takes everything.
        let _ = self.0.foreign(bytes);
        self
    }

    /// Appends sequences that this program made.
    pub(crate) fn own(mut self, sequence: &str) -> Self {
        let _ = self.0.own(sequence);
        self
    }

    pub(crate) fn painted(mut self, painted: &Painted) -> Self {
        let _ = self.0.painted(painted);
        self
    }

    pub(crate) fn finish(mut self) -> Safe {
        let _ = self.0.settle();
        Safe(self.0.out)
    }
}

pub(crate) fn safe(foreign: Foreign) -> Composer {
    Composer(onto(Vec::new(), foreign))
}

/// What will get to standard output by way of `out`.
pub(crate) fn onto<W: Write>(out: W, foreign: Foreign) -> Writer<W> {
    Writer {
        out,
        escaper: foreign.escaper(stdout().is_terminal()),
        has_colour: stdout_has_colour(),
        buffer: Vec::new(),
    }
}

/// Standard error.
fn complaints(foreign: Foreign) -> Writer<io::Stderr> {
    Writer {
        out: stderr(),
        escaper: foreign.escaper(stderr().is_terminal()),
        has_colour: stderr_has_colour(),
        buffer: Vec::new(),
    }
}

/// Writes text.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    let mut out = screen(Foreign::Text);
    ignore_closed(out.foreign(text.as_bytes()).and_then(|()| out.flush()))
}

/// Writes text with colours, where standard output shows them.
pub(crate) fn painted(painted: &Painted) -> Result<(), Failure> {
    let mut out = screen(Foreign::Text);
    ignore_closed(out.painted(painted).and_then(|()| out.flush()))
}

/// Writes one JSON document, indented, and a newline.
pub(crate) fn document(document: &impl Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(document)
        .map_err(|error| Failure::new(Code::Failed, format!("write JSON: {error}")))?;
    text(&(json + "\n"))
}

/// What a failed write to standard output means.
pub(crate) fn ignore_closed(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
            Code::CannotWrite,
            format!("write to standard output: {error}"),
        )),
        _ => Ok(()),
    }
}

/// Writes a line to standard error. If that fails, the line is lost.
pub(crate) fn complain(text: &impl std::fmt::Display) {
    let _ = complaints(Foreign::Text).foreign(format!("{text}\n").as_bytes());
}

/// Writes why a verb failed to standard error. The report before it has colours, and no text that has not been escaped.
pub(crate) fn fail(failure: &Failure) {
    let _ = complaints(Foreign::Coloured).foreign(failure.preface().as_bytes());
    complain(&failure.summary());
}

/// One line on a terminal: `text` without line breaks of its own.
pub(crate) fn one_line(text: &str) -> String {
    escape(text).replace('\n', "\\n")
}

#[expect(clippy::disallowed_methods, reason = "the one place that has it")]
fn stdout() -> io::Stdout {
    io::stdout()
}

#[expect(clippy::disallowed_methods, reason = "the one place that has it")]
fn stderr() -> io::Stderr {
    io::stderr()
}

pub(crate) fn is_terminal() -> bool {
    stdout().is_terminal()
}

/// Whether standard error shows colours: a terminal does, unless the environment decides (no-color.org, bixense.com/clicolors).
pub(crate) fn stderr_has_colour() -> bool {
    has_colour(&stderr())
}

/// Whether standard output does.
pub(crate) fn stdout_has_colour() -> bool {
    has_colour(&stdout())
}

fn has_colour(stream: &impl io::IsTerminal) -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_forced =
        std::env::var_os("CLICOLOR_FORCE").is_some_and(|value| !value.is_empty() && value != "0");
    !is_set("NO_COLOR") && (is_forced || stream.is_terminal())
}

/// How many lines the terminal at standard output shows; `None` where it is none, or does not say.
pub(crate) fn terminal_height() -> Option<usize> {
    terminal_size().map(|(rows, _)| rows)
}

/// Its lines and columns.
pub(crate) fn terminal_size() -> Option<(usize, usize)> {
    #[cfg(unix)]
    let size = rustix::termios::tcgetwinsize(stdout())
        .ok()
        .map(|size| (size.ws_row.into(), size.ws_col.into()));
    #[cfg(not(unix))]
    let size = is_terminal().then_some((24, 80));
    size.filter(|&(rows, columns)| rows > 0 && columns > 0)
}
