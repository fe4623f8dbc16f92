//! Services of the system's managers, as they are installed: which there are, where their files are
//! and what the registry has of them.
//!
//! ```text
//! STATE/installed/NAME/manifest.toml       the manifest (or .yaml, .json): written by
//!                                          administrators, readable by the service's account
//! STATE/installed/NAME/installation.json   the manager and the mode
//! STATE/registry.db                        the registry, see `registry/`
//! STATE/installed/NAME/state/              the host's state, owned by its account (`state_dir.rs`)
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use mainstay::{Manager, Scope};
use mainstay_core::failure::{Code, Failure};
use mainstay_core::manifest::{self, Format};
use mainstay_core::registry::{self, Definition};
use mainstay_core::spec::ServiceName;
use mainstay_store::registry::{Registered, Registry};
use mainstay_store::state_dir::{self, StateDir};
use mainstay_sys::guarded;
use serde::{Deserialize, Serialize};

/// The name of the installed manifest, without its extension.
const MANIFEST: &str = "manifest";
const RECORD: &str = "installation.json";

/// The manager and the mode of a service. Stored on disk: a change of the format needs a new
/// `version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    #[serde(serialize_with = "name", deserialize_with = "named")]
    pub(crate) manager: Manager,
    pub(crate) mode: Mode,
    /// Set if the service belongs to the user who owns this state directory.
    pub(crate) user: bool,
}

/// The process that the manager runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// The manager runs `mainstay host`, which supervises the program
    Hosted,
    /// The manager runs the program itself, and does what it can of what the manifest asks for
    Direct,
}

impl Mode {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Hosted => "hosted",
            Self::Direct => "direct",
        }
    }
}

impl Record {
    /// Converts a registered definition; `None` if its manager or mode is unknown.
    pub(crate) fn of(definition: &Definition) -> Option<Self> {
        let mode = match &*definition.mode {
            "hosted" => Mode::Hosted,
            "direct" => Mode::Direct,
            _ => return None,
        };
        let scope = if definition.user {
            Scope::User
        } else {
            Scope::System
        };
        Some(Self::new(
            Manager::from_name(&definition.manager)?,
            mode,
            scope,
        ))
    }

    pub(crate) fn new(manager: Manager, mode: Mode, scope: Scope) -> Self {
        Self {
            version: 1,
            manager,
            mode,
            user: scope == Scope::User,
        }
    }

    pub(crate) fn scope(self) -> Scope {
        if self.user {
            Scope::User
        } else {
            Scope::System
        }
    }
}

/// The stored record of an installed service.
#[derive(Serialize, Deserialize)]
pub(crate) struct Stored {
    #[serde(flatten)]
    pub(crate) record: Record,
    /// The manager's name for the service, if it differs from the service's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) manager_name: Option<String>,
}

impl Stored {
    /// Reads the record in this directory.
    pub(crate) fn read(place: &Path) -> Option<Self> {
        let text = guarded::read(&place.join(RECORD), guarded::MANIFEST).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

fn name<S: serde::Serializer>(manager: &Manager, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(manager.name())
}

fn named<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Manager, D::Error> {
    let name = String::deserialize(deserializer)?;
    let unknown = || serde::de::Error::custom(format!("unknown service manager {name}"));
    Manager::from_name(&name).ok_or_else(unknown)
}

/// A service of the system's manager, installed or not.
pub(crate) struct Installed {
    pub(crate) name: ServiceName,
    /// The manager's name for the service.
    pub(crate) manager_name: String,
    pub(crate) place: PathBuf,
    pub(crate) state: StateDir,
    pub(crate) record: Record,
    /// Set if the service is installed into the system below this directory.
    pub(crate) root: Option<PathBuf>,
}

impl Installed {
    pub(crate) fn at(state: &StateDir, name: &ServiceName, record: Record) -> Self {
        let place = state.installed_dir(record.scope()).join(name.as_str());
        Self {
            state: state.at(place.join("state")),
            place,
            name: name.clone(),
            manager_name: name.to_string(),
            record,
            root: None,
        }
    }

    /// Sets the manager's name for the service.
    pub(crate) fn known_as(self, manager_name: impl Into<String>) -> Self {
        let manager_name = manager_name.into();
        Self {
            manager_name,
            ..self
        }
    }

    /// Finds an installed service by name: the user's own first, then the system's.
    pub(crate) fn find(state: &StateDir, name: &str) -> Option<Self> {
        let name = ServiceName::new(name)?;
        let scopes = [Scope::User, Scope::System].into_iter();
        let all = scopes.map(|scope| state.installed_dir(scope).join(name.as_str()));
        let found = all.filter_map(|place| {
            let stored = Stored::read(&place)?;
            let manager_name = stored.manager_name.unwrap_or_else(|| name.to_string());
            let installed = Self::at(state, &name, stored.record).known_as(manager_name);
            (installed.place == place && installed.manifest().is_some()).then_some(installed)
        });
        found
            .into_iter()
            .next()
            .or_else(|| Self::unfinished(state, &name))
    }

    /// Returns the installed service whose supervisor uses this state directory.
    pub(crate) fn of_state(state: &StateDir) -> Option<Self> {
        let place = state
            .path()
            .parent()
            .filter(|_| state.path().ends_with("state"))?;
        let stored = Stored::read(place)?;
        let name = ServiceName::new(place.file_name()?.to_str()?)?;
        Some(Self {
            manager_name: stored.manager_name.unwrap_or_else(|| name.to_string()),
            name,
            record: stored.record,
            place: place.to_owned(),
            state: state.clone(),
            root: None,
        })
    }

    /// Returns a failure if a name is not a service's own name, but its manager's name for it.
    pub(crate) fn misnamed(state: &StateDir, name: &str) -> Option<Failure> {
        if Self::find(state, name).is_some() {
            return None;
        }
        let mut all = Self::all(state).into_iter();
        let it = all.find(|it| it.manager_name == name)?;
        let (manager, key) = (it.record.manager, &it.name);
        let message =
            format!("no service named {name} is installed: it is the name of {key} in {manager}");
        Some(Failure::new(Code::Unknown, message).hint(format!("use the name {key}")))
    }

    pub(crate) fn name(&self) -> &ServiceName {
        &self.name
    }

    /// Returns the manager's name for the service.
    pub(crate) fn manager_name(&self) -> &str {
        &self.manager_name
    }

    /// Returns the manager and the mode.
    pub(crate) fn record(&self) -> Record {
        self.record
    }

    /// Returns whether the manager runs the program itself.
    pub(crate) fn is_direct(&self) -> bool {
        self.record.mode == Mode::Direct
    }

    /// Returns all installed services, sorted by name.
    pub(crate) fn all(state: &StateDir) -> Vec<Self> {
        let dirs =
            [Scope::User, Scope::System].map(|scope| fs::read_dir(state.installed_dir(scope)));
        let entries = dirs.into_iter().flatten().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let names = names.chain(unfinished_names(state));
        let mut all: Vec<Self> = names.filter_map(|name| Self::find(state, &name)).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.dedup_by(|a, b| a.name == b.name);
        all
    }

    /// Maps a path of the target system to this system.
    pub(crate) fn here(&self, path: &Path) -> PathBuf {
        match &self.root {
            Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
            None => path.to_owned(),
        }
    }

    /// Returns the path of the installed manifest.
    pub(crate) fn manifest(&self) -> Option<PathBuf> {
        let formats = [Format::Toml, Format::Yaml, Format::Json];
        let paths = formats.map(|format| self.manifest_path(format));
        paths.into_iter().find(|path| self.here(path).exists())
    }

    pub(crate) fn manifest_path(&self, format: Format) -> PathBuf {
        self.place.join(format!("{MANIFEST}.{}", format.name()))
    }

    pub(crate) fn record_path(&self) -> PathBuf {
        self.place.join(RECORD)
    }

    pub(crate) fn registry_path(&self) -> PathBuf {
        let all = self.place.parent().unwrap_or(&self.place);
        self.here(&state_dir::registry_path(all))
    }

    /// Returns the registry entry, unless the service is deleted.
    pub(crate) fn registered(&self) -> Result<Option<Registered>, Failure> {
        find(&self.registry_path(), self.name.as_str())
    }

    /// Returns a service whose installation was never completed. Any part of it may be missing.
    pub(crate) fn unfinished(state: &StateDir, name: &ServiceName) -> Option<Self> {
        let (_, found) = registry_of(state, name.as_str()).ok()??;
        let found = Some(found).filter(|found| is_unfinished(&found.life))?;
        Self::of_definition(state, name, &found.definition)
    }

    /// Returns the service as it was registered.
    pub(crate) fn of_definition(
        state: &StateDir,
        name: &ServiceName,
        of: &Definition,
    ) -> Option<Self> {
        let installed = Self::at(state, name, Record::of(of)?);
        let specs = manifest::parse(&of.manifest, of.format).unwrap_or_default();
        let spec = specs.iter().find(|spec| spec.name() == name);
        Some(match spec {
            Some(spec) => installed.known_as(spec.manager_name()),
            None => installed,
        })
    }
}

/// Returns the registry that contains this name, and its entry, including that of a deleted
/// service. The user's own registry comes first.
pub(crate) fn registry_of(
    state: &StateDir,
    name: &str,
) -> Result<Option<(Registry, Registered)>, Failure> {
    for scope in [Scope::User, Scope::System] {
        let Some(registry) = Registry::find(&state.registry_path(scope))? else {
            continue;
        };
        if let Some(registered) = registry.get(name)? {
            return Ok(Some((registry, registered)));
        }
    }
    Ok(None)
}

/// Returns the entry for this name, unless the service is deleted.
pub(crate) fn find(registry: &Path, name: &str) -> Result<Option<Registered>, Failure> {
    let Some(registry) = Registry::find(registry)? else {
        return Ok(None);
    };
    let found = registry.get(name)?;
    Ok(found.filter(|it| !matches!(it.life, registry::Stored::Deleted(_))))
}

/// Returns the names whose installation is in progress or was never completed.
pub(crate) fn unfinished_names(state: &StateDir) -> Vec<String> {
    let scopes = [Scope::User, Scope::System].into_iter();
    let registries = scopes.map(|scope| Registry::find(&state.registry_path(scope)));
    let names = registries.flatten().flatten().filter_map(|registry| {
        let names = registry.names().ok()?.into_iter();
        let unfinished = names.filter(|name| {
            let found = registry.get(name).ok().flatten();
            found.is_some_and(|it| is_unfinished(&it.life))
        });
        Some(unfinished.collect::<Vec<_>>())
    });
    names.flatten().collect()
}

fn is_unfinished(life: &registry::Stored) -> bool {
    matches!(
        life,
        registry::Stored::Pending(_) | registry::Stored::Failed(_)
    ) || life.why().is_some()
}
