//! The only ways of the verbs to the terminal. A reader that left early (`| head`) is no failure of ours.

use std::io::{self, Write as _};

use serde::Serialize;

use crate::failure::{Code, Failure};

/// Writes text as it is.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    ignore_closed(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
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

/// Writes a line to standard error; where that fails there is nobody left to tell.
pub(crate) fn complain(text: &impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Whether standard error shows colours: a terminal does, unless the environment decides (no-color.org, bixense.com/clicolors).
pub(crate) fn stderr_has_colour() -> bool {
    has_colour(&io::stderr())
}

/// Whether standard output does.
pub(crate) fn stdout_has_colour() -> bool {
    has_colour(&io::stdout())
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
    let size = rustix::termios::tcgetwinsize(io::stdout())
        .ok()
        .map(|size| (size.ws_row.into(), size.ws_col.into()));
    #[cfg(not(unix))]
    let size = io::IsTerminal::is_terminal(&io::stdout()).then_some((24, 80));
    size.filter(|&(rows, columns)| rows > 0 && columns > 0)
}
