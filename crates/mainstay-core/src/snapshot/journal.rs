//! The journal of a restore, which is written before anything is changed. After a crash, recovery
//! undoes a restore that was still being prepared, and completes one that was committed.

use serde::{Deserialize, Serialize};

use super::{Bad, Raw, SnapshotId};

/// A restore in progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    version: u32,
    /// The ID of the snapshot being restored.
    pub snapshot: SnapshotId,
    /// Set once everything is prepared and on disk. From then on, the restore can only be
    /// completed.
    pub committed: bool,
    /// The ID of the snapshot that the replaced state becomes; `None` deletes that state.
    pub keep: Option<SnapshotId>,
    /// One move per directory.
    pub moves: Vec<Move>,
}

/// The replacement of one directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The parent directory of the three names below.
    pub parent: Raw,
    /// The name of the directory that is restored.
    pub target: Raw,
    /// The name of the restored directory until it is in place.
    pub new: Raw,
    /// The name under which the replaced directory is kept.
    pub old: Raw,
    /// The inode number of `new`, once it exists. It shows whether the two directories were
    /// exchanged.
    pub inode: Option<u64>,
    /// The inode number of the replaced directory, which becomes `old`.
    #[serde(default)]
    pub old_inode: Option<u64>,
}

const VERSION: u32 = 1;

impl Journal {
    /// Creates the journal of a new restore.
    pub fn new(snapshot: SnapshotId, keep: Option<SnapshotId>, moves: Vec<Move>) -> Self {
        Self {
            version: VERSION,
            snapshot,
            committed: false,
            keep,
            moves,
        }
    }

    /// Serializes the journal as JSON.
    ///
    /// # Errors
    /// Never in practice; serde_json returns a `Result`.
    pub fn to_text(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec_pretty(self)
    }

    /// Parses the output of [`Journal::to_text`].
    ///
    /// # Errors
    /// If the text is not a valid journal, or has another format version.
    pub fn read(text: &[u8]) -> Result<Self, Bad> {
        let journal: Self = serde_json::from_slice(text)
            .map_err(|error| Bad::Damaged(format!("the journal of a restore: {error}")))?;
        match journal.version {
            VERSION => Ok(journal),
            version => Err(Bad::Version(version)),
        }
    }
}
