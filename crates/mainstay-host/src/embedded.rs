//! Services of the embedded manager, `mainstay daemon`, as they are installed: their definitions
//! and their desired states.
//!
//! ```text
//! STATE/installed/NAME/manifest.toml   the manifest (or .yaml, .json), as it was installed
//! STATE/installed/NAME/embedded.json   the mark of an embedded service: a [`Record`]
//! STATE/installed/NAME/desired.json    the reason to keep the service down: [`Desired`]
//! STATE/installed/.lock                held while services are changed, or a daemon starts
//! STATE/registry.db                    the registry, see `registry/`
//! ```
//!
//! The files are authoritative. A daemon reads them when it starts, and when it is notified of a
//! change (`deploy/embedded.rs`).

mod desired;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use mainstay::Manager;
use mainstay_core::engine::{Engine, GraphError, StateName};
use mainstay_core::failure::{Code, Failure};
use mainstay_core::manifest::{self, Format};
use mainstay_core::registry::{self, TextDigest};
use mainstay_core::report::ServiceReport;
use mainstay_core::spec::{ServiceName, Spec};
use mainstay_store::registry::Registry;
use mainstay_store::state_dir::{self, StateDir};
use mainstay_sys::private::{create_private_dir, write_private};
use mainstay_sys::{guarded, lock_file};
use serde::{Deserialize, Serialize};

pub use self::desired::{
    Desired, FILE as DESIRED, read_or_halted as desired, write as write_desired,
};
use crate::manifest_file::Source;

/// The format of a [`Record`]. Other formats are rejected.
pub const FORMAT: u32 = 1;
/// The file that marks an embedded service.
pub const RECORD: &str = "embedded.json";
/// The name of the embedded mode in the registry and in reports.
pub const MODE: &str = "embedded";
/// The longest wait for the lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);
const LOCK_INTERVAL: Duration = Duration::from_millis(10);

/// The stored properties of a service in addition to its manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`FORMAT`].
    pub format: u32,
    /// The base directory of relative paths in the manifest.
    pub base_dir: PathBuf,
    /// The format of the manifest, which is the extension of the copy.
    pub manifest_format: String,
    /// Set if the service starts with the daemon.
    pub enabled: bool,
    /// The version in the registry.
    pub version: u64,
}

/// A service definition and its origin.
#[derive(Clone, Debug)]
pub struct Definition {
    /// The definition itself.
    pub spec: Arc<Spec>,
    /// The base directory of relative paths.
    pub dir: PathBuf,
    /// The version of the installation; 0 if the service is not installed.
    pub(crate) version: u64,
    /// Set if the service starts with its supervisor.
    pub(crate) is_enabled: bool,
    /// The reason why the service stays down nevertheless.
    pub(crate) desired: Option<Desired>,
    /// The digest of the manifest's text, if known.
    pub(crate) digest: Option<TextDigest>,
    /// The reason why the definition cannot be read or used. A process of the service that still
    /// runs is supervised and can be stopped, but the service cannot be started.
    pub(crate) problem: Option<String>,
}

/// The exclusive right to change what is installed, held until it is dropped.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, not read")] File);

impl Definition {
    /// Creates the definition of a service that is not installed.
    pub fn of_manifest(spec: Spec, dir: &Path, digest: Option<TextDigest>) -> Self {
        Self {
            spec: Arc::new(spec),
            dir: dir.to_owned(),
            version: 0,
            is_enabled: true,
            desired: None,
            digest,
            problem: None,
        }
    }

    /// Creates a placeholder for a service whose definition is lost, so that it can be stopped like
    /// any other.
    pub(crate) fn of_unknown(name: &str) -> Option<Self> {
        let text = format!("[service.{name}]\ncommand = [\"{name}\"]\n");
        let spec = manifest::parse(&text, Format::Toml).ok()?.pop()?;
        Some(Self::of_manifest(spec, Path::new("/"), None))
    }

    /// The stand-in for an installed service whose definition cannot be read, so that a process of
    /// it that runs is neither ended nor forgotten.
    fn unreadable(state: &StateDir, name: &str, problem: String) -> Option<Self> {
        let record = read_record(state, name).ok();
        Some(Self {
            version: record.map_or(0, |record| record.version),
            is_enabled: false,
            desired: Some(Desired::Halted {
                why: problem.clone(),
                restarts: 0,
                last_exit: None,
            }),
            problem: Some(problem),
            ..Self::of_unknown(name)?
        })
    }
}

fn all_dir(state: &StateDir) -> PathBuf {
    state.path().join("installed")
}

/// Returns the directory of the service of this name.
pub fn place(state: &StateDir, name: &str) -> PathBuf {
    all_dir(state).join(name)
}

/// Returns whether the embedded manager has a service of this name.
pub fn is_installed(state: &StateDir, name: &str) -> bool {
    ServiceName::new(name).is_some() && place(state, name).join(RECORD).is_file()
}

/// Splits the names into those of the embedded manager and the others.
pub fn split(state: &StateDir, names: Vec<String>) -> (Vec<String>, Vec<String>) {
    names
        .into_iter()
        .partition(|name| is_installed(state, name))
}

/// Returns the path of the registry.
pub fn registry_path(state: &StateDir) -> PathBuf {
    state_dir::registry_path(&all_dir(state))
}

/// Returns the names of the installed services, sorted.
pub fn names(state: &StateDir) -> Vec<String> {
    let entries = fs::read_dir(all_dir(state)).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| is_installed(state, name)).collect();
    names.sort();
    names
}

/// Returns the reports of the installed services while no daemon is running and no processes of a
/// killed one remain.
pub fn reports(state: &StateDir) -> Vec<ServiceReport> {
    let version = |name: &str| Some(read_record(state, name).ok()?.version);
    let names = names(state).into_iter();
    let report = |name: String| {
        let desired = desired(state, &name);
        let report = stopped(version(&name), None, name);
        match desired {
            Some(Desired::Halted {
                why,
                restarts,
                last_exit,
            }) => ServiceReport {
                state: StateName::Halted,
                detail: Some(why),
                restarts,
                last_exit,
                ..report
            },
            _ => ServiceReport {
                detail: Some("`mainstay daemon` is not running".to_owned()),
                ..report
            },
        }
    };
    names.map(report).collect()
}

/// Returns the report of a service that no daemon runs.
pub fn stopped(version: Option<u64>, detail: Option<String>, name: String) -> ServiceReport {
    ServiceReport {
        version,
        detail,
        ..ServiceReport::stopped(&name, Manager::Mainstay.name(), MODE)
    }
}

/// Returns an objection if another process is changing one of the services, according to the
/// registry. If the registry cannot be read, there is none. Blocks.
///
/// # Errors `Busy` if another process keeps the registry locked.
pub(crate) fn owned_by_others(
    state: &StateDir,
    names: &[&str],
    token: Option<&str>,
) -> Result<Option<String>, Failure> {
    let registry = match Registry::find(&registry_path(state)) {
        Ok(Some(registry)) => registry,
        Err(failure) if failure.code() == Code::Busy => return Err(failure),
        Ok(None) | Err(_) => return Ok(None),
    };
    for name in names {
        let found = match registry.get(name) {
            Ok(found) => found,
            Err(failure) if failure.code() == Code::Busy => return Err(failure),
            Err(_) => None,
        };
        let owner = found.as_ref().and_then(|it| it.life.owner());
        if let Some(owner) = owner.filter(|it| Some(&*it.token) != token)
            && let Some(name) = ServiceName::new(name)
        {
            let owner = owner.clone();
            return Ok(Some(registry::Refusal::Busy { name, owner }.to_string()));
        }
    }
    Ok(None)
}

/// Waits up to 30 seconds for the exclusive right to change what is installed. Blocks.
///
/// # Errors `Busy` after that time; `CannotWrite` if the lock file cannot be created.
pub fn lock(state: &StateDir) -> Result<Lock, Failure> {
    let path = all_dir(state).join(".lock");
    let cannot = |error: io::Error| cannot("lock", &path, &error);
    state_dir::create_state_dir(state.path()).map_err(cannot)?;
    create_private_dir(&all_dir(state)).map_err(cannot)?;
    let file = lock_file::open(&path).map_err(cannot)?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Lock(file)),
            Err(fs::TryLockError::Error(error)) => return Err(cannot(error)),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < deadline => {
                thread::sleep(LOCK_INTERVAL)
            }
            Err(fs::TryLockError::WouldBlock) => {
                let message = format!(
                    "cannot lock {}: another process is installing services",
                    path.display()
                );
                return Err(Failure::new(Code::Busy, message).hint("try again"));
            }
        }
    }
}

/// Reads the installed definition of this name.
///
/// # Errors A description of the problem, with the service's name.
pub fn read(state: &StateDir, name: &str) -> Result<Definition, String> {
    read_desired(state, name, desired(state, name))
}

/// Does the same as [`read`], for a service whose desired state is known.
fn read_desired(
    state: &StateDir,
    name: &str,
    desired: Option<Desired>,
) -> Result<Definition, String> {
    let failed = |why: String| format!("cannot load the installed service {name}: {why}");
    if ServiceName::new(name).is_none() {
        return Err(failed("this is not a valid service name".to_owned()));
    }
    let record = read_record(state, name).map_err(failed)?;
    let path = manifest_path(&place(state, name), &record);
    let format = Format::from_extension(&record.manifest_format).ok_or_else(|| {
        failed(format!(
            "its manifest format {} is not supported",
            record.manifest_format
        ))
    })?;
    let source = Source::read_installed(&path, Some(format))
        .map_err(|error| failed(error.message().to_owned()))?;
    let manifest = source.based_on(Some(record.base_dir.clone())).load();
    let manifest = manifest.map_err(|error| failed(error.message().to_owned()))?;
    let digest = manifest.digest();
    let mut specs = manifest.specs.into_iter();
    let spec = specs.find(|spec| spec.name().as_str() == name);
    let spec =
        spec.ok_or_else(|| failed(format!("{} does not define the service", path.display())))?;
    Ok(Definition {
        spec: Arc::new(spec.beside_others()),
        dir: record.base_dir,
        version: record.version,
        is_enabled: record.enabled,
        desired,
        digest: Some(digest),
        problem: None,
    })
}

/// Reads the record of an installed service.
///
/// # Errors
/// A description of the problem.
pub fn read_record(state: &StateDir, name: &str) -> Result<Record, String> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let path = place(state, name).join(RECORD);
    let cannot = |error: &dyn std::fmt::Display| format!("cannot read {}: {error}", path.display());
    let bytes = guarded::read(&path, guarded::MANIFEST).map_err(|error| cannot(&error))?;
    let version: Version = serde_json::from_slice(&bytes).map_err(|error| cannot(&error))?;
    if version.format != FORMAT {
        return Err(cannot(&format!("unsupported format {}", version.format)));
    }
    serde_json::from_slice(&bytes).map_err(|error| cannot(&error))
}

/// Returns the path of the installed manifest in the directory of its service.
pub fn manifest_path(place: &Path, record: &Record) -> PathBuf {
    place.join(format!("manifest.{}", record.manifest_format))
}

/// Returns the definitions of all installed services and of those that are `living`, sorted by
/// name, and a sentence for each problem. A definition that cannot be read, or that does not fit
/// the others, is replaced by a stand-in.
pub fn all(state: &StateDir, living: &[String]) -> (Vec<Definition>, Vec<String>) {
    let mut problems = Vec::new();
    let mut found = Vec::new();
    let mut names = names(state);
    names.extend_from_slice(living);
    names.sort();
    names.dedup();
    for name in names {
        let desired = desired::read(state, &name);
        if let Err(why) = &desired {
            problems.push(format!(
                "{name}: {why}; if it is not running, it is not started until `mainstay start {name}`"
            ));
        }
        let definition = read_desired(state, &name, desired::or_halted(desired));
        found.extend(definition.map_or_else(
            |why| {
                problems.push(format!(
                    "{why}; it cannot be started until it is installed again"
                ));
                Definition::unreadable(state, &name, why)
            },
            Some,
        ));
    }
    // The first check usually succeeds, because the installation ensures that the services fit
    // together.
    loop {
        let wrong = match graph(&found) {
            Ok(()) => return (found, problems),
            Err(error) => error,
        };
        problems.push(format!("{wrong}; not started"));
        let fits = |name: &ServiceName| match &wrong {
            GraphError::Missing { service, .. } => name != service,
            GraphError::Cycle(names) => !names.contains(name),
            // Names are unique.
            _ => false,
        };
        let fitting = found.into_iter().filter_map(|it| {
            if fits(it.spec.name()) {
                Some(it)
            } else {
                Definition::unreadable(state, it.spec.name().as_str(), wrong.to_string())
            }
        });
        found = fitting.collect();
    }
}

/// Checks that the definitions fit together.
pub fn graph(definitions: &[Definition]) -> Result<(), GraphError> {
    let specs = definitions.iter().map(|it| Arc::clone(&it.spec));
    Engine::new(specs, 0).map(drop)
}

/// Writes the record of a service to this path.
pub fn write_record(path: &Path, record: &Record) -> Result<(), Failure> {
    let bytes = serde_json::to_vec(record).map_err(io::Error::other);
    let written = bytes.and_then(|bytes| write_private(path, &bytes));
    written
        .map(drop)
        .map_err(|error| cannot("write", path, &error))
}

/// Returns the failure of an operation on a file.
pub fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    let code = match error.kind() {
        io::ErrorKind::PermissionDenied => Code::PermissionDenied,
        _ => Code::CannotWrite,
    };
    Failure::new(code, format!("cannot {what} {}: {error}", path.display()))
}
