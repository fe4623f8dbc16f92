//! What a restore writes down before it touches anything, so that whoever comes after a crash ends it: undone while it is being
//! prepared, completed once it is decided.

use serde::{Deserialize, Serialize};

use super::{Bad, Raw, SnapshotId};

/// A restore under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    version: u32,
    /// What is restored.
    pub snapshot: SnapshotId,
    /// All that was prepared is whole and on the disk: from here on there is only forward.
    pub committed: bool,
    /// The name of the snapshot that the replaced state becomes; it is deleted where there is none.
    pub keep: Option<SnapshotId>,
    /// One for each directory.
    pub moves: Vec<Move>,
}

/// A directory that takes the place of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The directory above all three.
    pub parent: Raw,
    /// The name that is restored.
    pub target: Raw,
    /// What is to be there: gone as soon as it is.
    pub new: Raw,
    /// What was there.
    pub old: Raw,
    /// The inode number of `new`, once it exists: it tells whether the two were exchanged.
    pub inode: Option<u64>,
    /// The inode number of what was there, to become `old`.
    #[serde(default)]
    pub old_inode: Option<u64>,
}

const VERSION: u32 = 1;

impl Journal {
    /// Of a restore that begins.
    pub fn new(snapshot: SnapshotId, keep: Option<SnapshotId>, moves: Vec<Move>) -> Self {
        Self {
            version: VERSION,
            snapshot,
            committed: false,
            keep,
            moves,
        }
    }

    /// JSON.
    ///
    /// # Errors
    /// Never, in truth; serde_json has the type.
    pub fn to_text(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec_pretty(self)
    }

    /// Reads what [`Journal::to_text`] wrote.
    ///
    /// # Errors
    /// Where it is not that.
    pub fn read(text: &[u8]) -> Result<Self, Bad> {
        let journal: Self = serde_json::from_slice(text)
            .map_err(|error| Bad::Damaged(format!("the journal of a restore: {error}")))?;
        match journal.version {
            VERSION => Ok(journal),
            version => Err(Bad::Version(version)),
        }
    }
}
