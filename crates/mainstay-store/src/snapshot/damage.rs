//! Snapshots that are not as they were written.

use std::error::Error;
use std::path::PathBuf;
use std::{fmt, io};

use mainstay_core::snapshot::{Bad, Raw, SnapshotId};

/// The reason why a snapshot is unusable.
#[derive(Debug)]
pub enum Damage {
    /// A file that describes it cannot be read.
    Unreadable(&'static str, io::Error),
    /// The index is unusable.
    Index(Bad),
    /// The index is that of another snapshot.
    Other {
        /// The ID of that snapshot.
        id: SnapshotId,
        /// The service of that snapshot.
        service: String,
    },
    /// A directory of it cannot be opened.
    Dir(PathBuf, io::Error),
    /// A file is missing.
    Missing(Raw),
    /// A file has another content.
    Changed(Raw),
    /// A file has another size.
    Size {
        /// The file.
        path: Raw,
        /// The size in bytes.
        found: u64,
        /// The size when it was copied.
        wanted: u64,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(name, error) => write!(f, "its {name} cannot be read: {error}"),
            Self::Index(bad) => bad.fmt(f),
            Self::Other { id, service } => write!(f, "it contains snapshot {id} of {service}"),
            Self::Dir(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Missing(path) => write!(f, "{path} is missing"),
            Self::Changed(path) => {
                write!(f, "the content of {path} has changed since it was copied")
            }
            Self::Size {
                path,
                found,
                wanted,
            } => write!(f, "{path} has {found} bytes instead of {wanted}"),
        }
    }
}

impl Error for Damage {}
