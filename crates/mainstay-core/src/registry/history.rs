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
    /// A change failed, and the previous definition remains in effect. The version is that of the
    /// rejected definition, if the change was to another definition.
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
    /// The version in effect after the change, or the version that failed, was rejected or deleted.
    pub version: Version,
    /// The entity tag of that version.
    pub etag: String,
    /// The reason for the change.
    pub detail: Option<String>,
    /// The earlier version whose definition a rollback restored.
    pub restored: Option<Version>,
}

impl Entry {
    /// Returns whether the version came into effect, or was installed again.
    fn is_deployment(&self) -> bool {
        use Event::{Created, Refreshed, Updated};
        matches!(self.event, Created | Updated | Refreshed)
    }
}

/// Returns the version that was in effect before `version`, or when `version` was rejected.
pub fn before(entries: &[Entry], version: Version) -> Option<Version> {
    let deployed = entries.iter().filter(|entry| entry.is_deployment());
    let versions = deployed.map(|entry| entry.version);
    versions.filter(|it| *it < version).max()
}

/// Returns whether a version was rejected and never came into effect.
pub fn is_rejected(entries: &[Entry], version: Version) -> bool {
    let mut of_version = entries.iter().filter(|entry| entry.version == version);
    let was_rolled_back = of_version.clone().any(|it| it.event == Event::RolledBack);
    was_rolled_back && !of_version.any(Entry::is_deployment)
}

/// Returns the version that a rollback restores: the one in effect before the current one. Versions
/// that a rollback has left behind do not count, so that repeated rollbacks go further back.
pub fn before_current(entries: &[Entry]) -> Option<Version> {
    let mut line: Vec<&Entry> = Vec::new();
    for entry in entries.iter().filter(|entry| entry.is_deployment()) {
        let is_same = |it: &&Entry| it.etag == entry.etag;
        if entry.restored.is_some()
            && let Some(at) = line.iter().rposition(is_same)
        {
            line.truncate(at);
        }
        line.push(entry);
    }
    let current = line.pop()?;
    let mut others = line.iter().rev().filter(|it| it.etag != current.etag);
    others.next().map(|entry| entry.version)
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

    /// Returns a history from words such as `A`, for an update to that definition, `-B` for a
    /// rejected one, and `=A` for a rollback to it.
    fn history(text: &str) -> Vec<Entry> {
        let entries = text.split(' ').zip(1..).map(|(word, number)| Entry {
            at: number,
            who: Who {
                user: "root".to_owned(),
                uid: None,
                sudo_user: None,
            },
            event: if word.starts_with('-') {
                Event::RolledBack
            } else if number == 1 {
                Event::Created
            } else {
                Event::Updated
            },
            version: Version(number),
            etag: word.trim_start_matches(['-', '=']).to_owned(),
            detail: None,
            restored: word.starts_with('=').then_some(Version(1)),
        });
        entries.collect()
    }

    #[test]
    fn rollbacks_go_further_and_further_back() {
        for (text, expected) in [
            ("A", None),
            ("A B", Some(1)),
            ("A B C", Some(2)),
            ("A B C =B", Some(1)),
            ("A B C =B =A", None),
            // What is deployed after a rollback comes after the restored version.
            ("A B C =B D", Some(4)),
            ("A B C =B D =B", Some(1)),
            // A rejected definition was never in effect.
            ("A B -C", Some(1)),
            ("A B -C D", Some(2)),
            ("A B -C D =B", Some(1)),
            // `rollback --to`: back beyond the previous version, and forward again.
            ("A B C =A", None),
            ("A B C =A =C", Some(4)),
            // An update to an old definition is no rollback.
            ("A B A", Some(2)),
        ] {
            let version = before_current(&history(text));
            assert_eq!(version.map(|it| it.0), expected, "{text}");
        }
    }

    #[test]
    fn a_rejected_version_comes_after_the_one_in_effect() {
        let entries = history("A B -C -D E");
        let before = |version| before(&entries, Version(version)).map(|it| it.0);
        let expected = [None, Some(1), Some(2), Some(2), Some(2), Some(5)];
        assert_eq!([1, 2, 3, 4, 5, 6].map(before), expected);
        let rejected = [1, 2, 3, 4, 5].map(|version| is_rejected(&entries, Version(version)));
        assert_eq!(rejected, [false, false, true, true, false]);
    }

    #[test]
    fn events_have_one_name() {
        for event in Event::ALL {
            let json = serde_json::to_value(event).unwrap();
            assert_eq!(json, event.as_str());
        }
    }
}
