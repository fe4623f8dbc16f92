//! Files as snapshots see them, on each operating system: same names everywhere.
//!
//! A [`Dir`] is held open, and what lies in it is reached through it, never through a symbolic link or into another mount: whoever
//! owns a directory that we copy with more rights than his cannot lead us elsewhere.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use mainstay_core::snapshot::Metadata;

#[cfg(unix)]
pub(super) use self::unix::*;
#[cfg(windows)]
pub(super) use self::windows::*;

/// What a file is, without its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    Dir,
    File,
    Symlink,
    Fifo,
    /// Nothing that outlives a restart: sockets, devices.
    Other,
}

/// What can be seen of a file without opening it. Two that are equal have the same content, unless it was changed through a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) kind: FileKind,
    /// Without extended attributes.
    pub(super) metadata: Metadata,
    pub(super) size: u64,
    /// 0 where the system does not tell.
    pub(super) inode: u64,
    /// How many names it has.
    pub(super) links: u64,
    /// When anything of it was changed last, in nanoseconds after 1970.
    pub(super) changed_ns: i64,
}
