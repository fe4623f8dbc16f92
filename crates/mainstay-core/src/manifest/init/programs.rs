//! Programs in the directory itself.

use super::directory::{Directory, Entry, EntryKind};
use super::found::{Found, Kind};

/// Returns a process for each program.
pub(super) fn find(dir: &impl Directory) -> Vec<Found> {
    let entries = dir.entries("").into_iter();
    let programs = entries.filter(|it| it.kind == EntryKind::Program);
    let found = programs.map(|Entry { name, .. }| {
        let stem = name.strip_suffix(".exe").unwrap_or(&name);
        Found::new(Kind::Program, stem, &*name, [format!("./{name}")])
    });
    found.collect()
}
