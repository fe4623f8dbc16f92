//! Data directories that a service cannot use.

use std::error::Error;
use std::path::PathBuf;
use std::{fmt, io};

/// A data directory that the service may not be given.
#[derive(Debug)]
pub enum ForeignData {
    /// The owner cannot be determined.
    Unknown(PathBuf, io::Error),
    /// The owner is another account than the service runs as.
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// The owner.
        owner: String,
        /// The account of the service.
        account: String,
    },
}

/// A directory above a data directory that keeps the service's account out.
#[derive(Debug)]
pub struct ClosedData {
    /// The account of the service.
    pub account: String,
    /// The data directory.
    pub dir: PathBuf,
    /// The directory above it.
    pub place: PathBuf,
    /// The mode of that directory.
    pub mode: u32,
}

impl ClosedData {
    /// Returns what an operator can do.
    pub fn hint(&self) -> String {
        format!(
            "chmod o+x {}, or choose another directory: --state-dir DIR",
            self.place.display()
        )
    }
}

impl fmt::Display for ForeignData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(dir, error) => {
                let dir = dir.display();
                write!(f, "cannot inspect its data directory {dir}: {error}")
            }
            Self::Foreign {
                dir,
                owner,
                account,
            } => {
                let dir = dir.display();
                write!(
                    f,
                    "its data directory {dir} belongs to {owner}, but it runs as {account}: check its contents, then run `chown -R {account} {dir}`, or move it away"
                )
            }
        }
    }
}

impl fmt::Display for ClosedData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            account,
            dir,
            place,
            mode,
        } = self;
        write!(
            f,
            "user {account} cannot reach its data directory {}: {} is not searchable for it (mode {mode:04o})",
            dir.display(),
            place.display()
        )
    }
}

impl Error for ForeignData {}

impl Error for ClosedData {}
