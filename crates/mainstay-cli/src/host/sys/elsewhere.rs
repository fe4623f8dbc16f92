//! What only Linux has, for the others: nothing to do, and nothing that would fail.

use std::io;

use super::Processes;

/// Nothing by which a successor could find what is left behind: a job dies with its holder, and kinship is not recorded elsewhere.
pub(crate) fn testament(_processes: &Processes) -> String {
    String::new()
}

/// Finds nothing.
pub(crate) fn end_remains(_testament: &str) -> io::Result<usize> {
    Ok(0)
}

/// Has nothing to do.
pub(crate) fn settle_in(_processes: &Processes) {}
