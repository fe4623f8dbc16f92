//! The parts of a state directory's layout that several crates rely on.

use std::path::{Path, PathBuf};

/// Returns the directory with the socket of those who may only view.
pub fn viewers_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("viewers")
}

/// Returns the directory of an installed service, `STATE/installed/NAME`, if `state_dir` is its
/// state directory, `STATE/installed/NAME/state`.
pub fn installed_place(state_dir: &Path) -> Option<&Path> {
    let place = state_dir
        .parent()
        .filter(|_| state_dir.ends_with("state"))?;
    place.parent()?.ends_with("installed").then_some(place)
}
