//! Descent into directories of any depth, with few descriptors and no recursion.

use std::io;
use std::path::Path;

use super::sys::{Dir, Id};

/// The number of directories held open in addition to the first.
const OPEN: usize = 16;

/// A path of directories from `top` down to the current one.
pub(super) struct Descent<'d> {
    top: &'d Dir,
    below: Vec<Level>,
}

enum Level {
    Open(Dir),
    /// Reopened through `..` of the directory below, and recognized by this ID.
    Closed(Id),
}

impl<'d> Descent<'d> {
    pub(super) fn new(top: &'d Dir) -> Self {
        let below = Vec::new();
        Self { top, below }
    }

    /// Returns the number of levels below the first directory.
    pub(super) fn depth(&self) -> usize {
        self.below.len()
    }

    /// Returns the directory that was entered last.
    pub(super) fn dir(&self) -> &Dir {
        match self.below.last() {
            Some(Level::Open(dir)) => dir,
            // The innermost directory is always open.
            Some(Level::Closed(_)) | None => self.top,
        }
    }

    /// Enters a directory. Never follows a link and never enters another mount.
    pub(super) fn enter(&mut self, name: &Path) -> io::Result<()> {
        let next = self.dir().dir(name)?;
        self.below.push(Level::Open(next));
        let outer = self.below.len().checked_sub(OPEN + 1);
        if let Some(level) = outer.and_then(|outer| self.below.get_mut(outer))
            && let Level::Open(dir) = level
        {
            *level = Level::Closed(dir.id()?);
        }
        Ok(())
    }

    /// Returns to the parent directory.
    ///
    /// # Errors
    /// If the directory was moved to another parent in the meantime, among others.
    pub(super) fn leave(&mut self) -> io::Result<()> {
        let Some(Level::Open(left)) = self.below.pop() else {
            return Ok(());
        };
        if let Some(level) = self.below.last_mut()
            && let Level::Closed(id) = level
        {
            let above = left.above()?;
            if above.id()? != *id {
                return Err(io::Error::other("it was moved meanwhile"));
            }
            *level = Level::Open(above);
        }
        Ok(())
    }
}
