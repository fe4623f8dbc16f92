//! The registry of installed definitions: the current and previous definitions, and the history of
//! changes.
//!
//! Each name has one [`Life`]. A process that changes a definition *begins* the change, does the
//! external work (files, the service manager, the program), and then commits it or rolls it back.
//! Meanwhile, other processes get [`Refusal::Busy`]. If the process dies, the next process to
//! access the definition completes the change with [`Stored::repair_stale`]. A change names the
//! version that it applies to ([`Expected`]). A stale change is refused, never merged.
//!
//! This module defines the valid transitions. The database, and the check whether an owner is
//! alive, are outside the core.

mod definition;
mod history;
mod life;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::definition::{Definition, Etag, TextDigest};
pub use self::history::{Entry, Event, Who, before, before_current, is_rejected};
pub use self::life::{
    Active, Begun, Change, Deleted, Failed, Life, Owner, Pending, Settled, Stored, Updating, begin,
};
use crate::spec::ServiceName;

/// The version of a definition: a count of the definitions of a name, from 1. The count continues
/// after a deletion, so that no version is ever reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u64);

impl Version {
    /// The version of the first definition.
    pub const FIRST: Self = Self(1);

    /// Returns the next version.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The state that the requester of a change expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Expected {
    /// Any definition, or none.
    #[default]
    Any,
    /// No definition.
    Absent,
    /// This version.
    Version(Version),
}

/// Converts a version number; 0 means that no definition is expected.
impl From<u64> for Expected {
    fn from(number: u64) -> Self {
        match number {
            0 => Self::Absent,
            number => Self::Version(Version(number)),
        }
    }
}

/// The reason why a change was refused. A refused change has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The definition does not exist.
    NotFound {
        /// The name of the service.
        name: ServiceName,
    },
    /// The definition has changed since the expected version.
    Conflict {
        /// The name of the service.
        name: ServiceName,
        /// The version that the change was based on.
        expected: Version,
        /// The current version.
        actual: Version,
    },
    /// Another process is changing the definition.
    Busy {
        /// The name of the service.
        name: ServiceName,
        /// The process that is making the change.
        owner: Owner,
    },
    /// A definition exists, but none was expected.
    Exists {
        /// The name of the service.
        name: ServiceName,
        /// The current version.
        actual: Version,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { name } => write!(f, "{name} is not registered"),
            Self::Conflict {
                name,
                expected,
                actual,
            } => write!(f, "{name} is at version {actual}, not {expected}"),
            Self::Busy { name, owner } => {
                let pid = owner.pid;
                write!(
                    f,
                    "{name} is being changed by another mainstay process (pid {pid})"
                )
            }
            Self::Exists { name, actual } => {
                write!(f, "{name} is already registered, at version {actual}")
            }
        }
    }
}

impl std::error::Error for Refusal {}
