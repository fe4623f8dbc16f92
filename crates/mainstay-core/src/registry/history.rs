//! The change history of definitions.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Version;

/// A change to a definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// The definition was installed where none existed.
    Created,
    /// The first installation failed.
    Failed,
    /// The definition was replaced with another one.
    Updated,
    /// The same definition was installed again, with another program or after a failure.
    Refreshed,
    /// A change failed, and the previous definition remains in effect.
    RolledBack,
    /// The definition was uninstalled.
    Deleted,
}

impl Event {
    /// All events.
    pub const ALL: [Self; 6] = [
        Self::Created,
        Self::Failed,
        Self::Updated,
        Self::Refreshed,
        Self::RolledBack,
        Self::Deleted,
    ];

    /// Returns the name as it is displayed and stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Failed => "failed",
            Self::Updated => "updated",
            Self::Refreshed => "refreshed",
            Self::RolledBack => "rolled-back",
            Self::Deleted => "deleted",
        }
    }
}

/// An entry of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The time in microseconds since 1970.
    pub at: u64,
    /// The person or account that made the change.
    pub who: Who,
    /// The kind of change.
    pub event: Event,
    /// The version in effect after the change, or the version that failed or was deleted.
    pub version: Version,
    /// The entity tag of that version.
    pub etag: String,
    /// The reason for the change.
    pub detail: Option<String>,
}

/// A person or account. The type is stored: new fields must be optional.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// The name of the account; on Windows, including the domain.
    pub user: String,
    /// The user ID, on Unix.
    pub uid: Option<u32>,
    /// The user who switched to that account with sudo.
    pub sudo_user: Option<String>,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.sudo_user {
            Some(person) => write!(f, "{person} as {}", self.user),
            None => f.write_str(&self.user),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_one_name() {
        for event in Event::ALL {
            let json = serde_json::to_value(event).unwrap();
            assert_eq!(json, event.as_str());
        }
    }
}
