//! File operations for snapshots, with the same names on every operating system.
//!
//! A [`Dir`] is held open, and its entries are reached through it. Symbolic links are never
//! followed, and other mounts are never entered. The owner of a directory that we copy with higher
//! privileges therefore cannot redirect us to another place.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use mainstay_core::snapshot::Metadata;

#[cfg(unix)]
pub(super) use self::unix::*;
#[cfg(windows)]
pub(super) use self::windows::*;

/// The kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    Dir,
    File,
    Symlink,
    Fifo,
    /// Sockets and devices, which do not survive a restart.
    Other,
}

/// The properties of a file that are visible without opening it. Two equal values mean equal
/// content, unless the file was changed through a memory mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) kind: FileKind,
    /// Without extended attributes.
    pub(super) metadata: Metadata,
    pub(super) size: u64,
    /// 0 if the system does not provide one.
    pub(super) inode: u64,
    /// The number of hard links.
    pub(super) links: u64,
    /// The last change to content or metadata, in nanoseconds since 1970.
    pub(super) changed_ns: i64,
}
