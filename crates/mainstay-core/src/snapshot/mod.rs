//! Snapshots of a service's state directories: their names, index format and retention.
//!
//! A snapshot is a directory named by its [`SnapshotId`]. `index.json` ([`Index`]) lists the type,
//! metadata and checksum of every file, `index.sha256` is the checksum of the index in the format
//! of sha256sum(1), and `tree/` contains the file contents. A snapshot can therefore always be
//! verified: it is either intact or damaged. A restore, which may be interrupted, first writes a
//! [`Journal`].

mod digest;
mod index;
mod journal;
mod raw;
mod retention;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::digest::{Digest, Hasher};
pub use self::index::{Bad, Entry, Index, Kind, Metadata, Reason, Root};
pub use self::journal::{Journal, Move};
pub use self::raw::Raw;
pub use self::retention::{Known, older_stable, surplus};
use crate::log::Stamp;
use crate::time::rfc3339;

/// The name of a snapshot: the time at which it was begun, such as `20261122T101112.123456Z`. Names
/// are unique within a service and sort by age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId(Stamp);

impl SnapshotId {
    /// Creates the ID for `micros` microseconds since 1970. If the clock stood still or went back,
    /// returns the first ID after `last`.
    pub fn new(micros: u64, last: Option<Self>) -> Self {
        Self(Stamp::from_unix_micros(micros).after(last.map(|last| last.0)))
    }

    /// Returns the time since 1970.
    pub fn since_epoch(self) -> Duration {
        Duration::from_micros(self.0.unix_micros())
    }

    /// Returns the time at which the snapshot was begun, as RFC 3339.
    pub fn time(self) -> String {
        rfc3339(self.since_epoch())
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.file_name().trim_end_matches(".log"))
    }
}

impl FromStr for SnapshotId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let stamp = Stamp::of_file_name(&format!("{text}.log"));
        let stamp = stamp.filter(|_| !text.contains(".log"));
        stamp
            .map(Self)
            .ok_or("a snapshot ID has the form 20261122T101112.123456Z")
    }
}

impl Serialize for SnapshotId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SnapshotId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
