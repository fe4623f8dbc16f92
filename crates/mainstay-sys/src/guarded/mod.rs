//! Safe access to paths that a manifest names: env files, keys, certificates, state directories,
//! sockets.
//!
//! Another account may own part of such a path, typically the service's own account. It must not be
//! able to make a privileged supervisor follow a link to a place of its choosing, block on a pipe,
//! or read without end. Therefore:
//!
//! - A path is resolved one component at a time, relative to the descriptor of the directory before
//!   it. Symbolic links are followed up to the first component that an account other than root can
//!   replace, and never below. An unprivileged process has no rights to abuse, and leaves
//!   resolution to the kernel.
//! - Files are opened without blocking, must be regular, and are read up to a limit.
//!
//! All checks use open descriptors, so renaming or replacing files in the meantime has no effect.

#[cfg(all(test, target_os = "linux"))]
mod tests;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::{error, fmt};

#[cfg(unix)]
pub use self::unix::{Reached, directory, exists, parent, socket};
#[cfg(unix)]
use self::unix::{open, open_plainly};
#[cfg(windows)]
pub use self::windows::{directory, exists};
#[cfg(windows)]
use self::windows::{open, open_plainly};

/// The size limit of an env file.
pub const ENV_FILE: u64 = 1 << 20;
/// The size limit of PEM files: certificates, private keys, and the CA bundle of a whole system.
pub const PEM: u64 = 8 << 20;
/// The size limit of manifests, and of the records stored with an installed one.
pub const MANIFEST: u64 = 16 << 20;

/// The reason why a path is not opened, carried by an [`io::Error`].
#[derive(Debug)]
pub enum Refusal {
    /// A symbolic link that another account can replace.
    Link {
        /// The link.
        path: PathBuf,
        /// The account that can replace it.
        by: Other,
    },
    /// Another kind of file than a regular one.
    Kind(&'static str),
    /// More bytes than this limit.
    TooLarge(u64),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link { path, by } => {
                let path = path.display();
                write!(f, "{path} is a symbolic link that {by} can change")
            }
            Self::Kind(kind) => write!(f, "it is {kind}, not a regular file"),
            Self::TooLarge(limit) => write!(f, "it is larger than {} KiB", limit >> 10),
        }
    }
}

impl error::Error for Refusal {}

/// An account other than root, or the system's on Windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// A user, by ID.
    #[cfg(unix)]
    User(u32),
    /// A group, by ID.
    #[cfg(unix)]
    Group(u32),
    /// Every user.
    #[cfg(unix)]
    Everyone,
    /// An account that is not determined further.
    #[cfg(windows)]
    Account,
}

impl fmt::Display for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            #[cfg(unix)]
            Self::User(uid) => write!(f, "uid {uid}"),
            #[cfg(unix)]
            Self::Group(gid) => write!(f, "gid {gid}"),
            #[cfg(unix)]
            Self::Everyone => f.write_str("every user"),
            #[cfg(windows)]
            Self::Account => f.write_str("another account"),
        }
    }
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        let kind = match refusal {
            // The process does not lack a right, so this is not `PermissionDenied`.
            Refusal::Link { .. } => io::ErrorKind::Other,
            Refusal::Kind(_) => io::ErrorKind::InvalidInput,
            Refusal::TooLarge(_) => io::ErrorKind::FileTooLarge,
        };
        Self::new(kind, refusal)
    }
}

/// Returns the refusal that an error carries.
pub fn refusal(error: &io::Error) -> Option<&Refusal> {
    error.get_ref()?.downcast_ref()
}

/// Returns advice for the operator about a refused path.
pub fn hint(error: &io::Error) -> Option<&'static str> {
    match refusal(error)? {
        Refusal::Link { .. } => {
            Some("a privileged supervisor does not follow it: use the path of the link's target")
        }
        Refusal::Kind(_) | Refusal::TooLarge(_) => None,
    }
}

/// Returns the cause and the hint on one line.
pub fn explain(error: &io::Error) -> String {
    match hint(error) {
        Some(hint) => format!("{error} ({hint})"),
        None => error.to_string(),
    }
}

/// Opens a regular file for reading. Never blocks.
///
/// # Errors
/// A [`Refusal`], or an error of the system.
pub fn file(path: &Path) -> io::Result<File> {
    open(path)
}

/// Opens a regular file like [`file()`], but follows all links. For files whose content is not
/// disclosed.
///
/// # Errors
/// As for [`file()`].
pub fn plain_file(path: &Path) -> io::Result<File> {
    open_plainly(path)
}

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// As for [`file()`], and if the file is larger.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_limited(&file(path)?, limit)
}

/// Reads a regular file like [`read`], as UTF-8.
pub fn read_to_string(path: &Path, limit: u64) -> io::Result<String> {
    let bytes = read(path, limit)?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let message = format!("byte {at} is not UTF-8");
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

/// Reads to the end, which must come within `limit` bytes.
pub fn read_limited(source: impl io::Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        Err(Refusal::TooLarge(limit).into())
    } else {
        Ok(bytes)
    }
}
