//! Waiting for changes in a directory by polling every 50 ms, on systems without notifications.

use std::io;
use std::path::Path;
use std::time::Duration;

/// A watch on the files of directories.
pub(super) struct Watch;

impl Watch {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self)
    }

    /// Watches this directory from now on, if it exists.
    pub(super) fn look_at(&mut self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Blocks until something may have changed.
    pub(super) fn wait(&mut self, _at_most: Option<Duration>) -> io::Result<()> {
        std::thread::sleep(super::PAUSE);
        Ok(())
    }
}
