//! The only two ways to the terminal.

use std::io::{self, IsTerminal, Write};

use crate::failure::Failure;

/// Writes `text` and a line break to stdout. A reader that has gone away (`| head`) is no failure.
pub(crate) fn to_stdout(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::io("write to stdout", &error))
        }
        _ => Ok(()),
    }
}

/// Writes `text` and a line break to stderr; where that fails there is nobody left to tell.
pub(crate) fn to_stderr(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Whether stderr shows colours, and nobody asked for none (no-color.org).
pub(crate) fn stderr_has_colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !refused
}
