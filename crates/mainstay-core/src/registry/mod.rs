//! What is known of every definition that was ever installed: which one holds, which ones held before, and who changed what and when.
//!
//! A name has one [`Life`]. Whoever changes it *begins*, does the work outside (files, the manager, the program), and then commits or rolls
//! back; in the meantime everybody else is told [`Refusal::Busy`]. Should he die, whoever looks next finishes it: [`Stored::bury`]. A change
//! names the version that it is meant for ([`Expected`]), and a stale one is refused, never merged.
//!
//! Here is what may follow what. The shell (`registry/` of the command) keeps it in a database, and knows whether an owner lives.

mod definition;
mod history;
mod life;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::definition::{Definition, Etag, TextDigest};
pub use self::history::{Entry, Event, Who};
pub use self::life::{
    Active, Begun, Change, Deleted, Failed, Life, Owner, Pending, Settled, Stored, Updating, begin,
};
use crate::spec::ServiceName;

/// Counts the definitions that a name has had, from 1; also across its deletion, so that a version never means two things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u64);

impl Version {
    /// Of the first definition.
    pub const FIRST: Self = Self(1);

    /// The one after it.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What whoever asks for a change believes to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Expected {
    /// Whatever there is, or nothing.
    #[default]
    Any,
    /// Nothing.
    Absent,
    /// This version.
    Version(Version),
}

/// 0 is nothing.
impl From<u64> for Expected {
    fn from(number: u64) -> Self {
        match number {
            0 => Self::Absent,
            number => Self::Version(Version(number)),
        }
    }
}

/// Why a change was not begun. Nothing has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no such definition.
    NotFound {
        /// Whose.
        name: ServiceName,
    },
    /// It was changed since.
    Conflict {
        /// Whose.
        name: ServiceName,
        /// What the change was meant for.
        expected: Version,
        /// What is there.
        actual: Version,
    },
    /// Somebody is changing it.
    Busy {
        /// Whose.
        name: ServiceName,
        /// By whom.
        owner: Owner,
    },
    /// There is one, and none was expected.
    Exists {
        /// Whose.
        name: ServiceName,
        /// What is there.
        actual: Version,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { name } => write!(f, "{name} has no definition"),
            Self::Conflict {
                name,
                expected,
                actual,
            } => write!(f, "{name} is at version {actual}, not {expected}"),
            Self::Busy { name, owner } => {
                let pid = owner.pid;
                write!(f, "{name} is being changed by another mainstay, pid {pid}")
            }
            Self::Exists { name, actual } => write!(f, "{name} is there, at version {actual}"),
        }
    }
}

impl std::error::Error for Refusal {}
