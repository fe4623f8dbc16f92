//! Files in the state directory that cannot be read.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{fmt, io};

/// A file that cannot be read, or whose content cannot be used.
#[derive(Debug)]
pub struct Unreadable {
    path: PathBuf,
    cause: Cause,
}

/// The reason why a file cannot be read.
#[derive(Debug)]
pub(crate) enum Cause {
    Io(io::Error),
    Json(serde_json::Error),
    /// The file has a format of another version.
    Format(u32),
    Truncated,
    /// The manifest in the file does not define the service.
    Undefined,
}

impl Unreadable {
    pub(crate) fn new(path: &Path, cause: impl Into<Cause>) -> Self {
        Self {
            path: path.to_owned(),
            cause: cause.into(),
        }
    }
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<serde_json::Error> for Cause {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

/// Writes one sentence, such as `cannot read /var/lib/mainstay/ledger: unsupported format 7`.
impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot read {}: {}", self.path.display(), self.cause)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Json(error) => error.fmt(f),
            Self::Format(format) => write!(f, "unsupported format {format}"),
            Self::Truncated => f.write_str("the file is truncated"),
            Self::Undefined => f.write_str("it does not define the service"),
        }
    }
}

impl Error for Unreadable {}
