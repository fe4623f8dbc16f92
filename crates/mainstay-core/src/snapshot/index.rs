//! The index of a snapshot. Version 1 of the format is frozen: `tests/index-v1.json` must always
//! load.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Digest, Raw, SnapshotId};
use crate::spec::ServiceName;

/// The complete description of a snapshot, without file contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    version: u32,
    /// The ID of the snapshot.
    pub id: SnapshotId,
    /// The name of the service.
    pub service: String,
    /// The start time of the snapshot: the ID in readable form.
    pub created: String,
    /// The reason for the snapshot.
    pub reason: Reason,
    /// Set if the service was healthy with this state.
    pub stable: bool,
    /// One root per directory of the manifest.
    pub roots: Vec<Root>,
}

/// The reason for a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// An operator requested it.
    Manual,
    /// The service had been healthy for a while.
    Healthy,
    /// The snapshot interval elapsed.
    Scheduled,
    /// The service was about to be updated.
    Update,
    /// A restore replaced this state.
    BeforeRestore,
}

impl Reason {
    /// Returns the name as it is stored in the index.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Healthy => "healthy",
            Self::Scheduled => "scheduled",
            Self::Update => "update",
            Self::BeforeRestore => "before-restore",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A directory and its contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The absolute path, without symbolic links.
    pub path: Raw,
    /// The directory itself, then its contents. A directory precedes its contents.
    pub entries: Vec<Entry>,
}

/// A file of any kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The path relative to the root, separated by `/`; empty for the root itself.
    pub path: Raw,
    /// The kind of file.
    #[serde(flatten)]
    pub kind: Kind,
    /// The owner, permissions and other metadata.
    #[serde(flatten)]
    pub metadata: Metadata,
}

/// The kind of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Kind {
    /// A directory.
    Dir,
    /// A regular file.
    File {
        /// The size in bytes, holes included.
        size: u64,
        /// The digest of the contents, holes included.
        sha256: Digest,
    },
    /// A hard link to an earlier file of the same root.
    HardLink {
        /// The path of that file.
        to: Raw,
    },
    /// A symbolic link. Its target may not exist.
    Symlink {
        /// The target of the link.
        target: Raw,
    },
    /// A named pipe.
    Fifo,
}

/// The metadata of a file. Fields that the system does not support are 0 or empty.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Metadata {
    /// The permission bits (`07777`). On Windows, 0 for a read-only file.
    pub mode: u32,
    /// The user ID of the owner.
    pub uid: u32,
    /// The group ID.
    pub gid: u32,
    /// The last modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// The extended attributes (xattr(7)) of directories and regular files, including access
    /// control lists.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<Raw, Raw>,
}

/// The reason why an index is unusable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bad {
    /// The file is not as it was written.
    Damaged(String),
    /// The file has a format version that this mainstay does not support.
    Version(u32),
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(why) => f.write_str(why),
            Self::Version(version) => write!(
                f,
                "its format version {version} is not supported (supported: {VERSION})"
            ),
        }
    }
}

impl std::error::Error for Bad {}

const VERSION: u32 = 1;

impl Index {
    /// Creates the index of a new snapshot.
    pub fn new(
        id: SnapshotId,
        service: &ServiceName,
        reason: Reason,
        stable: bool,
        roots: Vec<Root>,
    ) -> Self {
        Self {
            version: VERSION,
            id,
            service: service.to_string(),
            created: id.time(),
            reason,
            stable,
            roots,
        }
    }

    /// Serializes the index to the contents of `index.json` and of its checksum file,
    /// `index.sha256`.
    ///
    /// # Errors
    /// Never in practice; serde_json returns a `Result`.
    pub fn to_files(&self) -> Result<(Vec<u8>, String), serde_json::Error> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        let seal = format!("{}  index.json\n", Digest::of(&text));
        Ok((text, seal))
    }

    /// Parses the output of [`Index::to_files`].
    ///
    /// # Errors
    /// If the text does not match its checksum, or a path would lead outside its root.
    pub fn read(text: &[u8], seal: &str) -> Result<Self, Bad> {
        let damaged = |why: &str| Bad::Damaged(why.to_owned());
        let seal = seal.get(..64).and_then(Digest::parse);
        if seal != Some(Digest::of(text)) {
            return Err(damaged("its index.json does not match its index.sha256"));
        }
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let unreadable = |error| Bad::Damaged(format!("its index.json: {error}"));
        let Versioned { version } = serde_json::from_slice(text).map_err(unreadable)?;
        if version != VERSION {
            return Err(Bad::Version(version));
        }
        let index: Self = serde_json::from_slice(text).map_err(unreadable)?;
        if index.roots.iter().all(Root::is_sound) {
            Ok(index)
        } else {
            Err(damaged("its index.json contains invalid paths"))
        }
    }

    /// Returns the number of files of all kinds and the total size of their contents in bytes.
    pub fn size(&self) -> (u64, u64) {
        let entries = self.roots.iter().flat_map(|root| &root.entries);
        entries.fold((0, 0), |(files, bytes), entry| match entry.kind {
            Kind::File { size, .. } => (files + 1, bytes.saturating_add(size)),
            _ => (files + 1, bytes),
        })
    }
}

impl Root {
    /// Returns whether the first entry is a directory and every other entry is in an earlier one.
    fn is_sound(&self) -> bool {
        let (mut dirs, mut files) = (BTreeSet::new(), BTreeSet::new());
        self.entries.iter().enumerate().all(|(i, entry)| {
            let path = entry.path.0.as_slice();
            let is_placed = match (i, path.iter().rposition(|byte| *byte == b'/')) {
                (0, _) => path.is_empty() && entry.kind == Kind::Dir,
                (_, Some(at)) => at > 0 && dirs.contains(&path[..at]) && is_name(&path[at + 1..]),
                (_, None) => is_name(path),
            };
            match &entry.kind {
                Kind::Dir => is_placed && dirs.insert(path),
                Kind::File { .. } => is_placed && files.insert(path),
                Kind::HardLink { to } => is_placed && files.contains(to.0.as_slice()),
                Kind::Symlink { .. } | Kind::Fifo => is_placed,
            }
        })
    }
}

fn is_name(name: &[u8]) -> bool {
    let is_separator = |byte: &u8| *byte == 0 || cfg!(windows) && *byte == b'\\';
    !matches!(name, b"" | b"." | b"..") && !name.iter().any(is_separator)
}
