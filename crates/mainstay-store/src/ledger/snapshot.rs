//! The ledger of a dead supervisor.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use mainstay_core::manifest::{self, Format};
use mainstay_core::registry::TextDigest;
use mainstay_sys::{self as sys, Birth, Identity, guarded};
use serde::Deserialize;

use super::entry::{Child, Entry, State, millis};
use super::format::{ENTRY, FORMAT, HEADER, Header, INSTALLED};
use super::survivors::Survivors;
use super::updated::Updated;
use crate::embedded::{self, Definition, Desired};
use crate::state_dir::{Predecessor, StateDir};
use crate::unreadable::{Cause, Unreadable};

/// The ledger of a dead supervisor.
#[derive(Debug)]
pub struct LedgerSnapshot {
    /// The header.
    pub header: Header,
    /// The ledger file.
    path: PathBuf,
    /// The reason that the ledger could not be read. It is then rebuilt from the surviving
    /// processes.
    pub rebuilt: Option<String>,
    /// The entries of the services, in order, without those that cannot be read.
    pub entries: Vec<Entry>,
    /// Set if every entry could be read.
    pub is_whole: bool,
}

impl LedgerSnapshot {
    /// Reads the ledger. Returns `None` if there is none from this boot.
    ///
    /// # Errors
    /// If the ledger cannot be read, is damaged, or has an unknown format.
    pub fn read(state: &StateDir) -> Result<Option<Self>, Unreadable> {
        let both = [state.ledger_path(), state.spare_ledger_path()];
        let [first, spare] = both.map(|path| Self::read_at(&path));
        let generation = |it: &Self| it.header.generation;
        match (first, spare) {
            (Ok(Some(first)), Ok(Some(spare))) if generation(&first) < generation(&spare) => {
                Ok(Some(spare))
            }
            (Err(_) | Ok(None), Ok(Some(spare))) => Ok(Some(spare)),
            (first, _) => first,
        }
    }

    pub(super) fn read_at(path: &Path) -> Result<Option<Self>, Unreadable> {
        // The account of a service owns the state directory of its host.
        let bytes = match guarded::read(path, guarded::MANIFEST) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|error| Unreadable::new(path, error))?,
        };
        Self::parse(path, &bytes).map_err(|cause| Unreadable::new(path, cause))
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Option<Self>, Cause> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let header = bytes.get(..HEADER).ok_or(Cause::Truncated)?;
        let version: Option<Version> = serde_json::from_slice(header)?;
        // The file is blank.
        let Some(version) = version else {
            return Ok(None);
        };
        if version.format != FORMAT {
            return Err(Cause::Format(version.format));
        }
        let header: Header = serde_json::from_slice(header)?;
        if sys::boot().as_ref() != Some(&header.boot) {
            return Ok(None);
        }
        let entries = bytes[HEADER..].chunks(ENTRY);
        let count = header.services.unwrap_or(entries.len());
        let entries = entries.take(count);
        let entries: Vec<Entry> = entries
            .filter_map(|entry| serde_json::from_slice(entry).ok())
            .collect();
        let is_whole = entries.len() == count;
        Ok(Some(Self {
            header,
            path: path.to_owned(),
            rebuilt: None,
            entries,
            is_whole,
        }))
    }

    /// Rebuilds what can be known without a ledger: the services with surviving processes, and
    /// which of these is the main process. Only a cgroup shows that, as no unrelated process can
    /// join it.
    pub fn rebuild(
        state: &StateDir,
        (predecessor, manifest): (&Predecessor, &str),
        why: String,
    ) -> Option<Self> {
        let survivors = Survivors::of(&predecessor.orphan_markers);
        let installed = embedded::names(state);
        // A service whose pipes are gone with the directory would be killed when it writes, or
        // would lose its output.
        let is_heard = |name: &str| state.pipes_dir().join(name).exists();
        let mains = survivors.mains.iter().filter(|(name, _)| is_heard(name));
        let entries = mains.map(|(name, main)| {
            let mut entry = Entry::new(name, State::Running);
            let began_ms = millis(main.began);
            entry.since_ms = began_ms;
            entry.unwanted = embedded::desired(state, name) == Some(Desired::Stopped);
            entry.child = Some(Child {
                pid: main.identity.pid,
                birth: main.identity.birth,
                tree: main.identity.tree.clone(),
                began_ms,
                notify: None,
                is_outdated: false,
                is_quiesced: false,
                digest: None,
            });
            entry
        });
        let entries: Vec<Entry> = entries.collect();
        let header = Header {
            format: FORMAT,
            boot: sys::boot()?,
            supervisor: predecessor.pid?,
            birth: Birth { first: 0, last: 0 },
            manifest: manifest.to_owned(),
            manifest_dir: PathBuf::new(),
            manifest_format: if installed.is_empty() {
                String::new()
            } else {
                INSTALLED.to_owned()
            },
            orphan_markers: predecessor.orphan_markers.clone(),
            generation: 0,
            services: None,
        };
        (!survivors.pids.is_empty()).then_some(Self {
            header,
            path: PathBuf::new(),
            rebuilt: Some(why),
            entries,
            is_whole: true,
        })
    }

    /// Returns the path to pass to [`Ledger::go_on`](super::Ledger::go_on).
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether the supervisor that wrote the ledger is alive.
    pub fn is_kept(&self) -> bool {
        sys::lives(&Identity {
            pid: self.header.supervisor,
            birth: self.header.birth,
            tree: String::new(),
        })
    }

    /// Returns whether the services were installed ones.
    pub fn is_of_installed(&self) -> bool {
        self.header.manifest_format == INSTALLED
    }

    /// Returns whether the ledger has an entry for this service.
    pub fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry.name == name)
    }

    /// Returns the services' definitions as of the beginning of the ledger, with later updates.
    /// `installed` reads those of installed services.
    ///
    /// # Errors
    /// If a definition cannot be read.
    pub fn definitions(
        &self,
        state: &StateDir,
        installed: impl FnOnce(&StateDir) -> Vec<Definition>,
    ) -> Result<Vec<Definition>, Undefined> {
        let mut all = if self.is_of_installed() {
            installed(state)
        } else {
            self.copied_definitions(state)?
        };
        for entry in self.entries.iter().filter(|entry| entry.is_updated) {
            let updated = Updated::read(state, &entry.name)?;
            all.retain(|it| it.spec.name().as_str() != entry.name);
            all.push(updated);
        }
        Ok(all)
    }

    /// Returns the definitions in the copy of the manifest.
    fn copied_definitions(&self, state: &StateDir) -> Result<Vec<Definition>, Undefined> {
        let format = &self.header.manifest_format;
        if let Some(why) = self.rebuilt.as_ref().filter(|_| format.is_empty()) {
            return Err(Undefined::NoLedger(why.clone()));
        }
        let path = state.manifest_path(format);
        let text = fs::read_to_string(&path).map_err(|error| Unreadable::new(&path, error))?;
        // The text was validated when it was copied. Conditions that have changed since do not
        // matter for stopping the services.
        let format = Format::from_extension(format);
        let specs = format.map(|format| manifest::parse(&text, format));
        let Some(Ok(specs)) = specs else {
            return Err(Undefined::Changed(path));
        };
        let dir = &self.header.manifest_dir;
        let digest =
            format.map(|format| TextDigest::of(&text, format, &dir.to_string_lossy(), None));
        let specs = specs.into_iter();
        Ok(specs
            .map(|spec| Definition::of_manifest(spec, dir, digest.clone()))
            .collect())
    }
}

/// The reason why the definitions of a dead supervisor's services are not known.
#[derive(Debug)]
pub enum Undefined {
    /// There is no ledger that names the manifest, for this reason.
    NoLedger(String),
    /// A stored definition cannot be read.
    Unreadable(Unreadable),
    /// The copy of the manifest is no longer the one that was written.
    Changed(PathBuf),
}

impl From<Unreadable> for Undefined {
    fn from(error: Unreadable) -> Self {
        Self::Unreadable(error)
    }
}

impl fmt::Display for Undefined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLedger(why) => f.write_str(why),
            Self::Unreadable(error) => error.fmt(f),
            Self::Changed(path) => write!(
                f,
                "{} has changed since its services were started",
                path.display()
            ),
        }
    }
}

impl Error for Undefined {}
