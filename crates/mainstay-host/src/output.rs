//! Standard output and standard error. All output of verbs goes through this module. On a terminal,
//! control characters in text from other programs are escaped; files and pipes receive every byte.
//! A reader that closes early (`| head`) is not an error.

use std::io::{self, IsTerminal as _, Write};

use mainstay_core::failure::{Code, Failure};
use mainstay_core::terminal::{Allow, Escaper, escape};
use serde::Serialize;

const RESET: &str = "\x1b[0m";

/// Text with colours set by this program.
#[derive(Debug, Default)]
pub struct Painted {
    text: String,
    /// The byte offsets at which character attributes change, with their SGR sequences.
    marks: Vec<(usize, &'static str)>,
}

impl Painted {
    pub(crate) fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Appends `text` with an SGR sequence before it and a reset after it.
    pub(crate) fn paint(&mut self, colour: &'static str, text: &str) {
        self.marks.push((self.text.len(), colour));
        self.text.push_str(text);
        self.marks.push((self.text.len(), RESET));
    }

    /// Returns the text without colours.
    pub fn text(&self) -> &str {
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

/// A writer that escapes text for a terminal. Only the sequences of this program reach a terminal
/// unescaped.
pub struct Writer<W> {
    out: W,
    escaper: Option<Escaper>,
    has_colour: bool,
    buffer: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Writes text from other programs.
    pub(crate) fn foreign(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(escaper) = &mut self.escaper else {
            return self.out.write_all(bytes);
        };
        self.buffer.clear();
        escaper.push(bytes, &mut self.buffer);
        self.out.write_all(&self.buffer)
    }

    /// Writes a sequence that this program made.
    pub fn own(&mut self, sequence: &str) -> io::Result<()> {
        self.settle()?;
        self.out.write_all(sequence.as_bytes())
    }

    /// Writes text with its colours, if colours are wanted.
    pub fn painted(&mut self, painted: &Painted) -> io::Result<()> {
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

    /// Ends sequences and colours that text from other programs left open.
    fn settle(&mut self) -> io::Result<()> {
        let Some(escaper) = &mut self.escaper else {
            return Ok(());
        };
        self.buffer.clear();
        escaper.end(&mut self.buffer);
        self.out.write_all(&self.buffer)
    }
}

/// Writes text from other programs, as `Writer::foreign` does.
impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.foreign(bytes).map(|()| bytes.len())
    }

    /// Flushes the output. An incomplete sequence stays in the buffer.
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The part of text from other programs that reaches a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
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

/// Returns a writer to standard output.
pub fn screen(foreign: Foreign) -> Writer<io::Stdout> {
    onto(stdout(), foreign)
}

/// Bytes that are safe to write unchanged to standard output, including a terminal.
#[derive(Debug)]
pub(crate) struct Safe(Vec<u8>);

impl Safe {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A builder of bytes for standard output that another thread writes.
pub(crate) struct Composer(Writer<Vec<u8>>);

impl Composer {
    /// Appends text from other programs.
    pub(crate) fn foreign(mut self, bytes: &[u8]) -> Self {
        // Writes to memory do not fail.
        let _ = self.0.foreign(bytes);
        self
    }

    /// Appends sequences that this program made.
    /// Adds a control sequence of ours.
    pub(crate) fn own(mut self, sequence: &str) -> Self {
        let _ = self.0.own(sequence);
        self
    }

    /// Adds text with its colours.
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

/// Returns a writer to `out`, whose content is passed on to standard output later.
pub fn onto<W: Write>(out: W, foreign: Foreign) -> Writer<W> {
    Writer {
        out,
        escaper: foreign.escaper(stdout().is_terminal()),
        has_colour: stdout_has_colour(),
        buffer: Vec::new(),
    }
}

/// Returns a writer to standard error.
fn complaints(foreign: Foreign) -> Writer<io::Stderr> {
    Writer {
        out: stderr(),
        escaper: foreign.escaper(stderr().is_terminal()),
        has_colour: stderr_has_colour(),
        buffer: Vec::new(),
    }
}

/// Writes text from other programs to standard output.
pub fn text(text: &str) -> Result<(), Failure> {
    let mut out = screen(Foreign::Text);
    ignore_closed(out.foreign(text.as_bytes()).and_then(|()| out.flush()))
}

/// Writes text to standard output, with colours if they are enabled.
pub fn painted(painted: &Painted) -> Result<(), Failure> {
    let mut out = screen(Foreign::Text);
    ignore_closed(out.painted(painted).and_then(|()| out.flush()))
}

/// Writes one JSON document, indented, and a newline.
pub fn document(document: &impl Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(document)
        .map_err(|error| Failure::new(Code::Failed, format!("cannot write JSON: {error}")))?;
    text(&(json + "\n"))
}

/// Converts the result of a write to standard output. A closed pipe counts as success.
pub fn ignore_closed(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
            Code::CannotWrite,
            format!("cannot write to standard output: {error}"),
        )),
        _ => Ok(()),
    }
}

/// Writes a line to standard error. If that fails, the line is lost.
pub fn complain(text: &impl std::fmt::Display) {
    let _ = complaints(Foreign::Text).foreign(format!("{text}\n").as_bytes());
}

/// Writes the failure of a verb to standard error. The report may contain colours; its text has
/// been escaped.
pub fn fail(failure: &Failure) {
    let _ = complaints(Foreign::Coloured).foreign(failure.preface().as_bytes());
    complain(&failure.summary());
}

/// Returns `text` in a form that occupies one line on a terminal: control characters and line
/// breaks are escaped.
pub fn one_line(text: &str) -> String {
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

/// Returns whether standard output is a terminal.
pub fn is_terminal() -> bool {
    stdout().is_terminal()
}

/// Returns whether standard error shows colours: if it is a terminal, unless the environment
/// decides otherwise (no-color.org, bixense.com/clicolors).
pub(crate) fn stderr_has_colour() -> bool {
    has_colour(&stderr())
}

/// Returns whether standard output shows colours, by the same rules.
pub fn stdout_has_colour() -> bool {
    has_colour(&stdout())
}

fn has_colour(stream: &impl io::IsTerminal) -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_forced =
        std::env::var_os("CLICOLOR_FORCE").is_some_and(|value| !value.is_empty() && value != "0");
    !is_set("NO_COLOR") && (is_forced || stream.is_terminal())
}

/// Returns the number of lines of the terminal at standard output; `None` if it is not a terminal,
/// or the size is unknown.
pub fn terminal_height() -> Option<usize> {
    terminal_size().map(|(rows, _)| rows)
}

/// Returns the lines and columns of the terminal at standard output, or `None` as above.
pub fn terminal_size() -> Option<(usize, usize)> {
    #[cfg(unix)]
    let size = rustix::termios::tcgetwinsize(stdout())
        .ok()
        .map(|size| (size.ws_row.into(), size.ws_col.into()));
    #[cfg(not(unix))]
    let size = is_terminal().then_some((24, 80));
    size.filter(|&(rows, columns)| rows > 0 && columns > 0)
}
