//! Standard output and standard error. All output of verbs goes through this module. On a terminal,
//! control characters in text from other programs are escaped; files and pipes receive every byte.
//! A reader that closes early (`| head`) is not an error.

use std::io::{self, IsTerminal as _, Write};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use mainstay_core::failure::{Code, Failure};
use mainstay_core::terminal::{Allow, Escaper, escape};
use serde::Serialize;

use crate::text::{width, wrap};

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

    /// Appends another text with its colours.
    pub(crate) fn append(&mut self, other: &Self) {
        let start = self.text.len();
        self.text.push_str(&other.text);
        let marks = other.marks.iter();
        self.marks
            .extend(marks.map(|(at, mark)| (start + at, *mark)));
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

    /// Appends a sequence that this program made.
    pub(crate) fn own(mut self, sequence: &str) -> Self {
        let _ = self.0.own(sequence);
        self
    }

    /// Appends text with its colours.
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
    line().hide();
    Writer {
        out,
        escaper: foreign.escaper(stdout().is_terminal()),
        has_colour: stdout_has_colour(),
        buffer: Vec::new(),
    }
}

/// Returns a writer to standard error.
fn complaints(foreign: Foreign) -> Writer<io::Stderr> {
    line().hide();
    Writer {
        out: stderr(),
        escaper: foreign.escaper(stderr().is_terminal()),
        has_colour: stderr_has_colour(),
        buffer: Vec::new(),
    }
}

/// The line on the terminal at standard error that shows the progress of an operation.
#[derive(Default)]
pub(crate) struct Line {
    /// The number of the operation. One with another number has ended.
    number: u64,
    /// The columns that the line occupies; 0 while it is not shown.
    columns: usize,
    /// The time of the last output of another kind.
    hidden: Option<Instant>,
}

static LINE: LazyLock<Mutex<Line>> = LazyLock::new(Mutex::default);

/// Returns the line of this process.
pub(crate) fn line() -> MutexGuard<'static, Line> {
    LINE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Line {
    /// Returns the number of a new operation, which the line is about from now on.
    pub(crate) fn begin(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Shows a text about an operation, unless that has ended or there was other output within this
    /// time.
    pub(crate) fn show(&mut self, number: u64, text: &str, pause: Duration) {
        if self.number == number && self.hidden.is_none_or(|at| at.elapsed() >= pause) {
            let drawn = self.draw(text);
            let _ = stderr().write_all(drawn.as_bytes());
        }
    }

    /// Returns the output that replaces the text of the line. Terminals without control sequences
    /// show it, too.
    pub(crate) fn draw(&mut self, text: &str) -> String {
        let blank = " ".repeat(std::mem::replace(&mut self.columns, width(text)));
        format!("\r{blank}\r{text}")
    }

    /// Erases the line until its next update.
    fn hide(&mut self) {
        if self.columns > 0 {
            let erased = self.draw("");
            let _ = stderr().write_all(erased.as_bytes());
        }
        self.hidden = Some(Instant::now());
    }

    /// Erases the line if it is about this operation.
    pub(crate) fn end(&mut self, number: u64) {
        if self.number == number {
            self.number += 1;
            self.hide();
        }
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

/// Set when this process has written its JSON document.
static HAS_DOCUMENT: AtomicBool = AtomicBool::new(false);

/// Writes the JSON document of this process, indented, and a newline.
pub fn document(document: &impl Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(document).map_err(unencodable)?;
    HAS_DOCUMENT.store(true, Ordering::Relaxed);
    text(&(json + "\n"))
}

/// Writes text of an endless stream to standard output. Breaks if nobody reads it any more.
pub fn stream(text: &str) -> Result<ControlFlow<()>, Failure> {
    let mut out = screen(Foreign::Text);
    let written = out.foreign(text.as_bytes()).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        written => ignore_closed(written).map(ControlFlow::Continue),
    }
}

/// Returns a document as one line of JSON, with a newline.
pub fn json_line(document: &impl Serialize) -> Result<String, Failure> {
    let json = serde_json::to_string(document).map_err(unencodable)?;
    Ok(json + "\n")
}

/// Writes an error as one line of JSON, unless this process has written its document. To a stream
/// of JSON lines, the error is the last one.
pub fn error_document(error: &impl Serialize) -> Result<(), Failure> {
    if HAS_DOCUMENT.load(Ordering::Relaxed) {
        return Ok(());
    }
    text(&json_line(error)?)
}

fn unencodable(error: serde_json::Error) -> Failure {
    Failure::new(Code::Failed, format!("cannot write JSON: {error}"))
}

/// Converts the result of a write to standard output. A closed pipe counts as success.
pub fn ignore_closed(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let message = format!("cannot write to standard output: {error}");
            Err(Failure::new(Code::CannotWrite, message).caused_by(&error))
        }
        _ => Ok(()),
    }
}

/// Writes a line to standard error. If that fails, the line is lost.
pub fn complain(text: &impl std::fmt::Display) {
    let _ = complaints(Foreign::Text).foreign(format!("{text}\n").as_bytes());
}

/// Writes a note or a warning to standard error, unless output is quiet.
pub fn remark(text: &impl std::fmt::Display) {
    if !is_quiet() {
        complain(text);
    }
}

/// Writes the confirmation of a change to standard output, unless output is quiet.
pub fn confirm(confirmation: &str) -> Result<(), Failure> {
    if is_quiet() {
        return Ok(());
    }
    text(confirmation)
}

/// Writes the failure of a verb to standard error. The report may contain colours; its text has
/// been escaped. Verbose output adds the causes and the exit code.
pub fn fail(failure: &Failure) {
    let _ = complaints(Foreign::Coloured).foreign(failure.preface().as_bytes());
    complain(&failure.summary());
    if VERBOSITY.get() == Some(&Verbosity::Verbose) {
        let causes = failure.causes().iter();
        causes.for_each(|cause| complain(&format!("cause: {cause}")));
        let (number, name) = (failure.code() as u8, failure.code().name());
        complain(&format!(
            "exit code: {number} ({name}); see `mainstay explain {name}`"
        ));
    }
}

/// Breaks a text into lines of at most this width, at spaces if possible.
pub fn wrapped(text: &str, columns: usize) -> impl Iterator<Item = &str> {
    wrap(text, columns)
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

/// Returns whether standard error shows colours: if it is a terminal that can, unless the
/// environment decides otherwise (no-color.org, bixense.com/clicolors).
pub(crate) fn stderr_has_colour() -> bool {
    has_colour(&stderr())
}

/// Returns whether standard output shows colours, by the same rules.
pub fn stdout_has_colour() -> bool {
    has_colour(&stdout())
}

/// The choice of the user, if there is one.
static CHOICE: OnceLock<bool> = OnceLock::new();

/// Sets whether output has colours, once. Otherwise the environment and the terminal decide.
pub fn set_colour(choice: bool) {
    // Only the first choice counts.
    let _ = CHOICE.set(choice);
}

/// The amount of output beside what a verb was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbosity {
    /// Errors only.
    Quiet,
    /// Errors with their causes.
    Verbose,
}

/// The choice of the user, if there is one.
static VERBOSITY: OnceLock<Verbosity> = OnceLock::new();

/// Sets the amount of output, once.
pub fn set_verbosity(choice: Verbosity) {
    // Only the first choice counts.
    let _ = VERBOSITY.set(choice);
}

/// Returns whether confirmations, notes and warnings are left out.
pub fn is_quiet() -> bool {
    VERBOSITY.get() == Some(&Verbosity::Quiet)
}

fn has_colour(stream: &impl io::IsTerminal) -> bool {
    if let Some(choice) = CHOICE.get() {
        return *choice;
    }
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_forced =
        std::env::var_os("CLICOLOR_FORCE").is_some_and(|value| !value.is_empty() && value != "0");
    !is_set("NO_COLOR") && (is_forced || stream.is_terminal() && !is_dumb())
}

/// Returns whether the terminal obeys no control sequences, such as that of an editor.
pub fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Returns the number of columns of the terminal at standard output; `None` as below.
pub fn terminal_width() -> Option<usize> {
    terminal_size().map(|(_, columns)| columns)
}

/// Returns the number of columns of the terminal at standard error; `None` if it is none that can
/// redraw a line.
pub(crate) fn line_width() -> Option<usize> {
    size(&stderr())
        .filter(|_| !is_dumb())
        .map(|(_, columns)| columns)
}

/// Returns the lines and columns of the terminal at standard output; `None` if it is not a
/// terminal, or the size is unknown.
pub fn terminal_size() -> Option<(usize, usize)> {
    size(&stdout())
}

#[cfg(unix)]
fn size(stream: &impl std::os::fd::AsFd) -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    let size = (size.ws_row.into(), size.ws_col.into());
    Some(size).filter(|&(rows, columns)| rows > 0 && columns > 0)
}

#[cfg(windows)]
fn size(stream: &impl std::os::windows::io::AsHandle) -> Option<(usize, usize)> {
    mainstay_sys::console_size(stream).filter(|&(rows, columns)| rows > 0 && columns > 0)
}
