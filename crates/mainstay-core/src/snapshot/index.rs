//! What is written of a snapshot. Version 1 is frozen: `tests/index-v1.json` must load for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Digest, Raw, SnapshotId};
use crate::spec::ServiceName;

/// Everything about a snapshot but the contents of its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    version: u32,
    /// Its name.
    pub id: SnapshotId,
    /// Whose state it is.
    pub service: String,
    /// When it was begun: the id for people.
    pub created: String,
    /// Why it was taken.
    pub reason: Reason,
    /// Whether the service was healthy with this state.
    pub stable: bool,
    /// One for each directory of the manifest.
    pub roots: Vec<Root>,
}

/// Why a snapshot was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// An operator asked for it.
    Manual,
    /// The service had been healthy for a while.
    Healthy,
    /// Its time had come.
    Scheduled,
    /// The service was to be updated.
    Update,
    /// It is what a restore replaced.
    BeforeRestore,
}

impl Reason {
    /// As in the index.
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

/// A directory and everything in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Absolute, without symbolic links.
    pub path: Raw,
    /// The directory itself, then its content; each below one that came before.
    pub entries: Vec<Entry>,
}

/// A file of any kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// From its root, with `/`; empty for the root itself.
    pub path: Raw,
    /// What it is.
    #[serde(flatten)]
    pub kind: Kind,
    /// Whose it is, and so on.
    #[serde(flatten)]
    pub metadata: Metadata,
}

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Kind {
    /// A directory.
    Dir,
    /// A regular file: its bytes, and what they hash to.
    File {
        /// In bytes, holes included.
        size: u64,
        /// Of the content, holes included.
        sha256: Digest,
    },
    /// Another name of a file of the same root that came before.
    HardLink {
        /// That file's path.
        to: Raw,
    },
    /// A symbolic link, whatever it points to.
    Symlink {
        /// What it says.
        target: Raw,
    },
    /// A named pipe.
    Fifo,
}

/// What is kept of every file. Systems without one of these have 0 or nothing there.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Metadata {
    /// The permission bits (`07777`); on Windows 0 for a file that may be read only.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// When the content was changed last, in nanoseconds after 1970.
    pub mtime_ns: i64,
    /// Extended attributes (xattr(7)), access control lists among them; of directories and regular files.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<Raw, Raw>,
}

/// Why an index is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bad {
    /// It is not what was written.
    Damaged(String),
    /// Another version of mainstay wrote it.
    Version(u32),
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(why) => f.write_str(why),
            Self::Version(version) => write!(
                f,
                "it has version {version} of the format, this mainstay knows version {VERSION}"
            ),
        }
    }
}

impl std::error::Error for Bad {}

const VERSION: u32 = 1;

impl Index {
    /// Of a snapshot that is being taken.
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

    /// `index.json`, and `index.sha256` that vouches for it.
    ///
    /// # Errors
    /// Never, in truth; serde_json has the type.
    pub fn to_files(&self) -> Result<(Vec<u8>, String), serde_json::Error> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        let seal = format!("{}  index.json\n", Digest::of(&text));
        Ok((text, seal))
    }

    /// Reads what [`Index::to_files`] made of it.
    ///
    /// # Errors
    /// Where a bit of it differs, or a path would lead out of its root.
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
        match index.roots.iter().all(Root::is_sound) {
            true => Ok(index),
            false => Err(damaged("its index.json names paths that cannot be")),
        }
    }

    /// Files of all kinds, and bytes of content.
    pub fn size(&self) -> (u64, u64) {
        let entries = self.roots.iter().flat_map(|root| &root.entries);
        entries.fold((0, 0), |(files, bytes), entry| match entry.kind {
            Kind::File { size, .. } => (files + 1, bytes.saturating_add(size)),
            _ => (files + 1, bytes),
        })
    }
}

impl Root {
    /// Whether it begins with a directory, and everything else lies below one that came before.
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
