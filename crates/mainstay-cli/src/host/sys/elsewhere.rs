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

/// How much of a program's code is mapped counts nowhere but on Linux.
pub(crate) fn forget_start_up() -> io::Result<()> {
    Ok(())
}
