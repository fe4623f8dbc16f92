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

mod definition;
mod desired;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use mainstay_core::engine::StateName;
use mainstay_core::failure::{Code, Failure};
use mainstay_core::registry;
use mainstay_core::report::ServiceReport;
use mainstay_core::spec::ServiceName;
use mainstay_sys::private::{create_private_dir, write_private};
use mainstay_sys::{guarded, lock_file};
use serde::{Deserialize, Serialize};

pub use self::definition::Definition;
pub use self::desired::{
    Desired, FILE as DESIRED, or_halted, read as read_desired, read_or_halted as desired,
    write as write_desired,
};
use crate::file_failure::file_failure;
use crate::registry::Registry;
use crate::state_dir::{self, StateDir};
use crate::unreadable::{Cause, Unreadable};

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

/// The exclusive right to change what is installed, held until it is dropped.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, not read")] File);

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
        ..ServiceReport::embedded(&name)
    }
}

/// Returns an objection if another process is changing one of the services, according to the
/// registry. If the registry cannot be read, there is none. Blocks.
///
/// # Errors
/// `Busy` if another process keeps the registry locked.
pub fn owned_by_others(
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
/// # Errors
/// `Busy` after that time; `CannotWrite` if the lock file cannot be created.
pub fn lock(state: &StateDir) -> Result<Lock, Failure> {
    let path = all_dir(state).join(".lock");
    let cannot = |error: io::Error| file_failure("lock", &path, &error);
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

/// Reads the record of an installed service.
pub fn read_record(state: &StateDir, name: &str) -> Result<Record, Unreadable> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let path = place(state, name).join(RECORD);
    let load = || -> Result<Record, Cause> {
        let bytes = guarded::read(&path, guarded::MANIFEST)?;
        match serde_json::from_slice(&bytes)? {
            Version { format: FORMAT } => Ok(serde_json::from_slice(&bytes)?),
            Version { format } => Err(Cause::Format(format)),
        }
    };
    load().map_err(|cause| Unreadable::new(&path, cause))
}

/// Returns the path of the installed manifest in the directory of its service.
pub fn manifest_path(place: &Path, record: &Record) -> PathBuf {
    place.join(format!("manifest.{}", record.manifest_format))
}

/// Writes the record of a service to this path.
pub fn write_record(path: &Path, record: &Record) -> Result<(), Failure> {
    let bytes = serde_json::to_vec(record).map_err(io::Error::other);
    let written = bytes.and_then(|bytes| write_private(path, &bytes));
    written
        .map(drop)
        .map_err(|error| file_failure("write", path, &error))
}
