//! Going down into directories of any depth, with few descriptors and no recursion.

use std::io;
use std::path::Path;

use super::sys::{Dir, Id};

/// How many directories are held open besides the first.
const OPEN: usize = 16;

/// The way from a directory to one that lies below it.
pub(super) struct Descent<'d> {
    top: &'d Dir,
    below: Vec<Level>,
}

enum Level {
    Open(Dir),
    /// It is reached again from below, and known by this.
    Closed(Id),
}

impl<'d> Descent<'d> {
    pub(super) fn new(top: &'d Dir) -> Self {
        let below = Vec::new();
        Self { top, below }
    }

    /// How far below the first directory this is.
    pub(super) fn depth(&self) -> usize {
        self.below.len()
    }

    /// The directory that was entered last.
    pub(super) fn dir(&self) -> &Dir {
        match self.below.last() {
            Some(Level::Open(dir)) => dir,
            // The last one is always open.
            Some(Level::Closed(_)) | None => self.top,
        }
    }

    /// Goes into a directory; never by a link, nor into another mount.
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

    /// Goes back to the directory above.
    ///
    /// # Errors
    /// Where the directory was moved to another one meanwhile, among others.
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
