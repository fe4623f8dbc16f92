//! Who changed what, and when.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Version;

/// What has become of a definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// It was installed where there was none.
    Created,
    /// Its first installation did not come to an end.
    Failed,
    /// Another one took its place.
    Updated,
    /// It was installed again as it is, with another program, or after something that had failed.
    Refreshed,
    /// A change did not come to an end: what held before holds.
    RolledBack,
    /// It was uninstalled.
    Deleted,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Created,
        Self::Failed,
        Self::Updated,
        Self::Refreshed,
        Self::RolledBack,
        Self::Deleted,
    ];

    /// As it is shown and stored.
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

/// One line of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Microseconds since 1970.
    pub at: u64,
    /// Whose command it was.
    pub who: Who,
    /// What happened.
    pub event: Event,
    /// The version that holds from then on, or that has failed or was deleted.
    pub version: Version,
    /// Its entity tag.
    pub etag: String,
    /// Why.
    pub detail: Option<String>,
}

/// A person or account. Stored: what is added must be optional.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// The account's name; on Windows with its domain.
    pub user: String,
    /// Its number, on Unix.
    pub uid: Option<u32>,
    /// Who became that account by sudo.
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
