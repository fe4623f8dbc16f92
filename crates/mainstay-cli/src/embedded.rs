//! Services of the embedded manager, `mainstay daemon`: their files, installation and removal.
//!
//! ```text
//! STATE/installed/NAME/manifest.toml   the manifest (or .yaml, .json), as it was installed
//! STATE/installed/NAME/embedded.json   the mark of an embedded service: a [`Record`]
//! STATE/installed/NAME/desired.json    the reason to keep the service down: [`Desired`]
//! STATE/installed/.lock                held while services are changed, or a daemon starts
//! STATE/registry.db                    the registry, see `registry/`
//! ```
//!
//! The files are authoritative. A running daemon is notified after they change; a stopped one reads
//! them when it starts. If the files or the daemon reject a change, it is undone as a whole. Every
//! change takes the lock first, then ownership in the registry.

mod desired;
mod site;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use mainstay::Manager;
use mainstay_core::engine::{Engine, GraphError, Refusal, StateName};
use mainstay_core::failure::{Code, Failure};
use mainstay_core::manifest::{self, Format};
use mainstay_core::registry::{self, Expected, Stored, TextDigest, Version};
use mainstay_core::report::ServiceReport;
use mainstay_core::spec::{ServiceName, Spec};
use mainstay_sys::{guarded, lock_file};
use serde::{Deserialize, Serialize};

pub(crate) use self::desired::{Desired, read_or_halted as desired, write as write_desired};
use crate::api::Reach;
use crate::artifact::Programs;
use crate::client;
use crate::host;
use crate::installed::Installed;
use crate::installed::registered::{self, Witness};
use crate::manifest_file::{Loaded, Source};
use crate::not_found;
use crate::preflight;
use crate::registry::{Registered, Registry, Wish, Work};
use crate::runs;
use crate::state_dir::{self, StateDir, create_private_dir, write_private};

/// The format of a [`Record`]. Other formats are rejected.
const FORMAT: u32 = 1;
const RECORD: &str = "embedded.json";
/// The name of the embedded mode in the registry and in reports.
const MODE: &str = "embedded";
/// The longest wait for the lock.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(10);

/// The stored properties of a service in addition to its manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Record {
    format: u32,
    /// The base directory of relative paths in the manifest.
    base_dir: PathBuf,
    /// The format of the manifest, which is the extension of the copy.
    manifest_format: String,
    /// Set if the service starts with the daemon.
    enabled: bool,
    /// The version in the registry.
    version: u64,
}

/// A service definition and its origin.
#[derive(Clone, Debug)]
pub(crate) struct Definition {
    pub(crate) spec: Arc<Spec>,
    /// The base directory of relative paths.
    pub(crate) dir: PathBuf,
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

/// The result of an installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) name: ServiceName,
    pub(crate) change: Change,
    /// Settings that this manager does not support, one text each.
    pub(crate) losses: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    New,
    /// The definition changed. A running service adopts it at its next start.
    Updated,
    /// The definition is unchanged.
    None,
}

/// An installed service.
#[derive(Debug)]
pub(crate) struct Embedded {
    state: StateDir,
    name: ServiceName,
}

/// The exclusive right to change what is installed, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held, not read")] File);

impl Definition {
    /// Creates the definition of a service that is not installed.
    pub(crate) fn of_manifest(spec: Spec, dir: &Path, digest: Option<TextDigest>) -> Self {
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
fn place(state: &StateDir, name: &str) -> PathBuf {
    all_dir(state).join(name)
}

/// Returns whether the embedded manager has a service of this name.
pub(crate) fn is_installed(state: &StateDir, name: &str) -> bool {
    ServiceName::new(name).is_some() && place(state, name).join(RECORD).is_file()
}

/// Splits the names into those of the embedded manager and the others.
pub(crate) fn split(state: &StateDir, names: Vec<String>) -> (Vec<String>, Vec<String>) {
    names
        .into_iter()
        .partition(|name| is_installed(state, name))
}

/// Splits names of services to remove like [`split`]. Partly installed services count as the
/// embedded manager's. When purging, so do uninstalled ones.
pub(crate) fn split_left(
    state: &StateDir,
    names: Vec<String>,
    purge: bool,
) -> (Vec<String>, Vec<String>) {
    names
        .into_iter()
        .partition(|name| has_left(state, name, purge))
}

fn has_left(state: &StateDir, name: &str, purge: bool) -> bool {
    let is_left = |it: Registered| {
        it.definition.mode == MODE && (purge || !matches!(it.life, Stored::Deleted(_)))
    };
    let known = || {
        Registry::find(&registry_path(state))
            .ok()??
            .get(name)
            .ok()?
    };
    is_installed(state, name) || known().is_some_and(is_left)
}

fn registry_path(state: &StateDir) -> PathBuf {
    state_dir::registry_path(&all_dir(state))
}

/// Returns the names of the installed services, sorted.
pub(crate) fn names(state: &StateDir) -> Vec<String> {
    let entries = fs::read_dir(all_dir(state)).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| is_installed(state, name)).collect();
    names.sort();
    names
}

/// Returns the reports of the installed services while no daemon is running and no processes of a
/// killed one remain.
pub(crate) fn reports(state: &StateDir) -> Vec<ServiceReport> {
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

/// Returns the reports of services that are registered but not installed, so that no daemon has
/// them. An installation or a removal of them was interrupted.
pub(crate) fn missing(state: &StateDir) -> Vec<ServiceReport> {
    let Ok(Some(registry)) = Registry::find(&registry_path(state)) else {
        return Vec::new();
    };
    let names = registry.names().unwrap_or_default().into_iter();
    let reports = names
        .filter(|name| !is_installed(state, name))
        .filter_map(|name| {
            let found = registry.get(&name).ok()??;
            let is_ours =
                found.definition.mode == MODE && !matches!(found.life, Stored::Deleted(_));
            let why = match found.life.owner() {
                Some(_) => "it is being installed",
                None => found.life.why().unwrap_or("its files are gone"),
            };
            let detail = format!("{why}; install it again, or uninstall it");
            is_ours.then(|| stopped(Some(found.life.version().0), Some(detail), name))
        });
    reports.collect()
}

fn stopped(version: Option<u64>, detail: Option<String>, name: String) -> ServiceReport {
    ServiceReport {
        version,
        detail,
        ..ServiceReport::stopped(&name, Manager::Mainstay.name(), MODE)
    }
}

/// Adds the registered version and the drift to the report of an installed service.
pub(crate) fn complete(state: &StateDir, report: &mut ServiceReport) {
    // A service of the supervisor's own manifest may have the same name.
    if report.mode != MODE || report.version.is_none() {
        return;
    }
    let registered = registered::find(&registry_path(state), &report.name);
    let witnesses = registered_witnesses(state, &report.name, &registered).into_iter();
    let causes = witnesses.flat_map(|witness| witness.causes);
    let drift = causes.chain(outdated(state, &registered, report)).collect();
    let known = registered.as_ref().ok().and_then(Option::as_ref);
    report.version = known.map(|it| it.life.version().0);
    report.etag = known.map(|it| it.etag.as_str().to_owned());
    report.drift = Some(drift);
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

/// Collects the evidence about a service from all sources, including the daemon. `None` if the
/// service is not the embedded manager's. Blocks.
pub(crate) fn witnesses(state: &StateDir, name: &str) -> Result<Option<Vec<Witness>>, Failure> {
    const DAEMON: &str = "manager";
    if !has_left(state, name, false) {
        return Ok(None);
    }
    let registered = registered::find(&registry_path(state), name);
    let mut witnesses = registered_witnesses(state, name, &registered);
    let answer = client::block_on(client::status(state))?;
    let report = answer.map(|report| report.services.into_iter().find(|it| it.name == name));
    witnesses.push(match report {
        Ok(Some(report)) => {
            let causes = outdated(state, &registered, &report).into_iter().collect();
            Witness::says(DAEMON, report.state.to_string(), causes)
        }
        Ok(None) => {
            let why = "the supervisor that runs here does not have it: install it again".to_owned();
            Witness::disagrees(DAEMON, "unknown", vec![why])
        }
        Err(absent) if absent.code() == Code::NotRunning => {
            Witness::agrees(DAEMON, "gone", Some(absent.message().to_owned()))
        }
        Err(failure) => Witness::disagrees(DAEMON, "silent", vec![failure.message().to_owned()]),
    });
    Ok(Some(witnesses))
}

fn outdated(
    state: &StateDir,
    registered: &Result<Option<Registered>, Failure>,
    report: &ServiceReport,
) -> Option<String> {
    registered::outdated(
        &registry_path(state),
        registered.as_ref().ok()?.as_ref()?,
        report,
    )
}

fn registered_witnesses(
    state: &StateDir,
    name: &str,
    registered: &Result<Option<Registered>, Failure>,
) -> Vec<Witness> {
    registered::witnesses(registered, |registered| {
        let (definition, version) = (&registered.definition, registered.life.version());
        let place = place(state, name);
        let path = place.join(format!("manifest.{}", definition.format.name()));
        let mut causes = registered::changed_manifest(&path, registered);
        causes.extend(match read_record(state, name) {
            Ok(record)
                if record.version == version.0
                    && record.base_dir == Path::new(&definition.base_dir)
                    && record.manifest_format == definition.format.name() =>
            {
                None
            }
            Ok(_) => Some(format!(
                "{} is not version {version}",
                place.join(RECORD).display()
            )),
            Err(why) => Some(why),
        });
        vec![Witness::of("manifest", causes)]
    })
}

/// Waits up to 30 seconds for the exclusive right to change what is installed. Blocks.
///
/// # Errors `Busy` after that time; `CannotWrite` if the lock file cannot be created.
pub(crate) fn lock(state: &StateDir) -> Result<Lock, Failure> {
    let path = all_dir(state).join(".lock");
    let cannot = |error: io::Error| cannot("lock", &path, &error);
    state_dir::create_state_dir(state.path()).map_err(cannot)?;
    create_private_dir(&all_dir(state)).map_err(cannot)?;
    let file = lock_file::open(&path).map_err(cannot)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Lock(file)),
            Err(fs::TryLockError::Error(error)) => return Err(cannot(error)),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(LOOK),
            Err(fs::TryLockError::WouldBlock) => {
                let message = format!("{}: somebody else is installing", path.display());
                return Err(Failure::new(Code::Busy, message).hint("try again"));
            }
        }
    }
}

/// Reads the installed definition of this name.
///
/// # Errors A description of the problem, with the service's name.
pub(crate) fn read(state: &StateDir, name: &str) -> Result<Definition, String> {
    let failed = |why: String| format!("the installed service {name}: {why}");
    if ServiceName::new(name).is_none() {
        return Err(failed("this names no service".to_owned()));
    }
    let record = read_record(state, name).map_err(failed)?;
    let path = manifest_path(&place(state, name), &record);
    let format = Format::from_extension(&record.manifest_format)
        .ok_or_else(|| failed(format!("its manifest is {}", record.manifest_format)))?;
    let source = Source::read_installed(&path, Some(format.into()))
        .map_err(|error| failed(error.message().to_owned()))?;
    let manifest = source.based_on(Some(record.base_dir.clone())).load();
    let manifest = manifest.map_err(|error| failed(error.message().to_owned()))?;
    let digest = manifest.digest();
    let mut specs = manifest.specs.into_iter();
    let spec = specs.find(|spec| spec.name().as_str() == name);
    let spec = spec.ok_or_else(|| failed(format!("{} does not define it", path.display())))?;
    Ok(Definition {
        spec: Arc::new(spec.beside_others()),
        dir: record.base_dir,
        version: record.version,
        is_enabled: record.enabled,
        desired: desired(state, name),
        digest: Some(digest),
        problem: None,
    })
}

fn read_record(state: &StateDir, name: &str) -> Result<Record, String> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let path = place(state, name).join(RECORD);
    let cannot = |error: &dyn std::fmt::Display| format!("read {}: {error}", path.display());
    let bytes = guarded::read(&path, guarded::MANIFEST).map_err(|error| cannot(&error))?;
    let version: Version = serde_json::from_slice(&bytes).map_err(|error| cannot(&error))?;
    if version.format != FORMAT {
        return Err(cannot(&format!("its format is {}", version.format)));
    }
    serde_json::from_slice(&bytes).map_err(|error| cannot(&error))
}

fn manifest_path(place: &Path, record: &Record) -> PathBuf {
    place.join(format!("manifest.{}", record.manifest_format))
}

/// Returns the definitions of all installed services and of those that are `living`, sorted by
/// name, and a sentence for each problem. A definition that cannot be read, or that does not fit
/// the others, is replaced by a stand-in.
pub(crate) fn all(state: &StateDir, living: &[String]) -> (Vec<Definition>, Vec<String>) {
    let mut problems = Vec::new();
    let mut found = Vec::new();
    let mut names = names(state);
    names.extend_from_slice(living);
    names.sort();
    names.dedup();
    for name in names {
        if let Err(why) = desired::read(state, &name) {
            problems.push(format!(
                "{name}: {why}; unless it runs, it stays down until `mainstay start {name}`"
            ));
        }
        found.extend(read(state, &name).map_or_else(
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
        problems.push(format!("{wrong}; so that is not started"));
        let fits = |name: &ServiceName| match &wrong {
            GraphError::Missing { service, .. } => name != service,
            GraphError::Cycle(names) => !names.contains(name),
            // Names are unique.
            _ => false,
        };
        let fitting = found
            .into_iter()
            .filter_map(|it| match fits(it.spec.name()) {
                true => Some(it),
                false => Definition::unreadable(state, it.spec.name().as_str(), wrong.to_string()),
            });
        found = fitting.collect();
    }
}

fn graph(definitions: &[Definition]) -> Result<(), GraphError> {
    let specs = definitions.iter().map(|it| Arc::clone(&it.spec));
    Engine::new(specs, 0).map(drop)
}

/// Installs services of a manifest in the embedded manager, or updates installed ones; all or none.
/// New services start with the next start of the daemon, or on request. Running services are not
/// affected until their next start. Blocks until a running daemon has been notified.
///
/// # Errors If one cannot be installed. Nothing has changed then.
pub(crate) fn install_all(
    state: &StateDir,
    manifest: &Loaded,
    specs: &[Spec],
    expected: Expected,
) -> Result<Vec<Done>, Failure> {
    // Prepared as the daemon would do it.
    state.prepare()?;
    let _lock = lock(state)?;
    let (mut all, _) = all(state, &[]);
    let mut done = Vec::new();
    for spec in specs {
        let name = spec.name();
        if Installed::find(state, name.as_str()).is_some() {
            let message = format!("install {name}: the system's manager has it");
            let hint = format!("first `mainstay uninstall {name}`");
            return Err(Failure::new(Code::Failed, message).hint(hint));
        }
        let user = preflight::user_of(spec)?;
        let search = std::env::var_os("PATH");
        runs::refuse_exposed(spec, user.as_ref(), &manifest.dir, search.as_deref())?;
        let (here, digest) = (spec.clone().beside_others(), manifest.digest());
        let definition = Definition::of_manifest(here, &manifest.dir, Some(digest));
        let known = all.iter().position(|it| it.spec.name() == name);
        let known = known.map(|known| all.swap_remove(known));
        let is_same =
            known.is_some_and(|it| it.spec == definition.spec && it.dir == definition.dir);
        done.push(Done {
            name: name.clone(),
            change: match (is_installed(state, name.as_str()), is_same) {
                (_, true) => Change::None,
                (true, false) => Change::Updated,
                (false, false) => Change::New,
            },
            losses: preflight::losses(&definition.spec),
        });
        all.push(definition);
    }
    graph(&all).map_err(misfit)?;
    let work = begin(state, manifest, specs, expected)?;
    let mut saved = Vec::new();
    let put = specs
        .iter()
        .zip(work.versions())
        .try_for_each(|(spec, version)| {
            let place = place(state, spec.name().as_str());
            saved.push(Saved::of(&place)?);
            let (dir, format) = (manifest.dir.clone(), manifest.format);
            let record = next_record(state, spec.name().as_str(), (dir, format), *version);
            put(&place, &manifest.text, &record)
        });
    let names: Vec<&str> = specs.iter().map(|spec| spec.name().as_str()).collect();
    if let Err(failure) = put.and_then(|()| tell(state, &names, work.token())) {
        saved.into_iter().for_each(Saved::take_back);
        // The failure matters more. The next process to open the registry finishes the rollback.
        drop(work.roll_back(failure.message()));
        return Err(failure);
    }
    let programs = specs
        .iter()
        .map(|spec| registered::program(spec, &manifest.dir));
    if let Err(failure) = work.commit(&programs.collect::<Vec<_>>()) {
        saved.into_iter().for_each(Saved::take_back);
        let (old, new): (Vec<&str>, Vec<&str>) = names
            .into_iter()
            .partition(|name| is_installed(state, name));
        let new: Vec<String> = new.into_iter().map(str::to_owned).collect();
        // A daemon that cannot go back reports that, and `status` shows the difference.
        drop(client::block_on(client::forget(state, &new, None)));
        drop(tell(state, &old, ""));
        return Err(failure);
    }
    Ok(done)
}

/// Marks all services as owned by this process.
fn begin(
    state: &StateDir,
    manifest: &Loaded,
    specs: &[Spec],
    expected: Expected,
) -> Result<Work, Failure> {
    let definition = registered::definition(manifest, Manager::Mainstay, MODE)?;
    let wishes = specs.iter().map(|spec| Wish {
        name: spec.name().clone(),
        expected,
        definition: Some(definition.clone()),
    });
    let wishes: Vec<Wish> = wishes.collect();
    Ok(Registry::open(&registry_path(state))?.begin(&wishes)?)
}

/// Stops services and removes them from the embedded manager, all or none. Logs and data stay,
/// unless `purge` is set. Blocks until none of their processes run.
///
/// # Errors If one cannot be removed. Services that were stopped stay stopped.
pub(crate) fn uninstall_all(
    state: &StateDir,
    names: &[String],
    expected: Expected,
    purge: bool,
) -> Result<(), Failure> {
    let _lock = lock(state)?;
    let (all, _) = all(state, &[]);
    for name in names {
        if !has_left(state, name, purge) {
            return Err(not_found::service(state, name));
        }
        let needs = |it: &&Definition| {
            let mut needs = it.spec.needed_services();
            !names.iter().any(|name| name == it.spec.name().as_str())
                && needs.any(|need| need.as_str() == name)
        };
        let others = all.iter().filter(needs).map(|it| it.spec.name().clone());
        let others: Vec<ServiceName> = others.collect();
        if !others.is_empty() {
            let message = format!("uninstall {name}: {}", Refusal::Needed(others));
            let failure = Failure::new(Code::Failed, message);
            return Err(failure.hint("uninstall that first, or all at once"));
        }
    }
    let services: Vec<ServiceName> = names.iter().filter_map(|it| ServiceName::new(it)).collect();
    let (path, how) = (registry_path(state), (expected, purge));
    registered::unregister(&path, &services, how, |token| {
        remove_all(state, names, purge, token)
    })
}

fn remove_all(
    state: &StateDir,
    names: &[String],
    purge: bool,
    token: Option<&str>,
) -> Result<(), Failure> {
    match client::block_on(client::forget(state, names, token))? {
        Err(absent) if absent.code() == Code::NotRunning => stop_orphans(state, names)?,
        done => done?,
    }
    names.iter().try_for_each(|name| {
        let place = place(state, name);
        // The file that marks the service as installed goes first.
        remove(&place.join(RECORD))?;
        write_desired(state, name, None).map_err(|error| cannot("write in", &place, &error))?;
        for path in manifest_paths(&place) {
            remove(&path)?;
        }
        // The directory may contain other files.
        let _ = fs::remove_dir(&place);
        if purge {
            let pipes = [name.clone(), format!("{name}.stderr")];
            for pipe in pipes {
                remove(&state.pipes_dir().join(pipe))?;
            }
            let programs = Programs::of_place(&place);
            programs
                .purge()
                .map_err(|error| cannot("remove the programs of", &place, &error))?;
            for dir in [state.logs_dir().join(name), state.data_dir(name), place] {
                match fs::remove_dir_all(&dir) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(cannot("remove", &dir, &error));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    })
}

/// Enables or disables the start with the daemon. Running services are not affected.
///
/// # Errors If one is not installed. Nothing has changed then.
pub(crate) fn set_enabled(
    state: &StateDir,
    names: &[String],
    is_enabled: bool,
) -> Result<(), Failure> {
    let _lock = lock(state)?;
    let mut records = Vec::new();
    for name in names {
        if !is_installed(state, name) {
            return Err(not_found::service(state, name));
        }
        let record = read_record(state, name).map_err(|why| Failure::new(Code::Failed, why))?;
        records.push((place(state, name).join(RECORD), record));
    }
    for (path, record) in records {
        let record = Record {
            enabled: is_enabled,
            ..record
        };
        write_record(&path, &record)?;
    }
    Ok(())
}

/// Notifies a running daemon of new definitions.
fn tell(state: &StateDir, names: &[&str], token: &str) -> Result<(), Failure> {
    if names.is_empty() {
        return Ok(());
    }
    match client::block_on(client::define(state, names, token))? {
        // A daemon reads them when it starts.
        Err(absent) if absent.code() == Code::NotRunning => Ok(()),
        told => told,
    }
}

/// Stops the processes that a killed daemon left running.
fn stop_orphans(state: &StateDir, names: &[String]) -> Result<(), Failure> {
    let Some(orphans) = host::orphans(state) else {
        return Ok(());
    };
    let living = orphans.report.services.into_iter();
    let living = living.filter(|service| service.pid.is_some() && names.contains(&service.name));
    let living: Vec<String> = living.map(|service| service.name).collect();
    match living.is_empty() {
        true => Ok(()),
        false => match host::stop_without_supervisor(state, &living, Reach::Named)? {
            Some(_) => Ok(()),
            None => Err(not_found::supervisor(state)),
        },
    }
}

fn misfit(error: GraphError) -> Failure {
    match error {
        GraphError::Missing { service, need } => {
            let message = format!(
                "install {service}: it needs {need}, which is neither in its manifest nor installed"
            );
            Failure::new(Code::Failed, message).hint(format!("install {need} first"))
        }
        error => Failure::new(Code::Failed, format!("install: {error}"))
            .hint("remove one of these needs; `os:NAME` is an installed service, too"),
    }
}

/// The previous contents of a service's directory.
struct Saved {
    place: PathBuf,
    is_new: bool,
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl Saved {
    fn of(place: &Path) -> Result<Self, Failure> {
        let mut files = Vec::new();
        for path in manifest_paths(place).chain([place.join(RECORD)]) {
            match guarded::read(&path, guarded::MANIFEST) {
                Ok(bytes) => files.push((path, bytes)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(cannot("read", &path, &error)),
            }
        }
        Ok(Self {
            place: place.to_owned(),
            is_new: !place.exists(),
            files,
        })
    }

    /// Restores the previous contents. Best effort: an error here is likely the one that failed the
    /// change.
    fn take_back(self) {
        let written = manifest_paths(&self.place).chain([self.place.join(RECORD)]);
        for path in written.filter(|path| self.files.iter().all(|(old, _)| old != path)) {
            let _ = fs::remove_file(path);
        }
        for (path, bytes) in self.files {
            let _ = write_private(&path, &bytes);
        }
        if self.is_new {
            let _ = fs::remove_dir(self.place);
        }
    }
}

fn put(place: &Path, manifest: &str, record: &Record) -> Result<(), Failure> {
    create_private_dir(place).map_err(|error| cannot("create", place, &error))?;
    let path = manifest_path(place, record);
    let written = write_private(&path, manifest.as_bytes());
    written.map_err(|error| cannot("write", &path, &error))?;
    write_record(&place.join(RECORD), record)?;
    for other in manifest_paths(place).filter(|other| *other != path) {
        remove(&other)?;
    }
    Ok(())
}

/// Returns the record of a new version. A service that was disabled by an operator stays disabled.
fn next_record(
    state: &StateDir,
    name: &str,
    (base_dir, format): (PathBuf, Format),
    version: Version,
) -> Record {
    let old = read_record(state, name).ok();
    Record {
        format: FORMAT,
        base_dir,
        manifest_format: format.name().to_owned(),
        enabled: old.is_none_or(|old| old.enabled),
        version: version.0,
    }
}

fn write_record(path: &Path, record: &Record) -> Result<(), Failure> {
    let bytes = serde_json::to_vec(record).map_err(io::Error::other);
    let written = bytes.and_then(|bytes| write_private(path, &bytes));
    written
        .map(drop)
        .map_err(|error| cannot("write", path, &error))
}

fn manifest_paths(place: &Path) -> impl Iterator<Item = PathBuf> + use<'_> {
    let formats = Format::ALL.into_iter();
    formats.map(|format| place.join(format!("manifest.{}", format.name())))
}

fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(cannot("remove", path, &error))
        }
        _ => Ok(()),
    }
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    let code = match error.kind() {
        io::ErrorKind::PermissionDenied => Code::PermissionDenied,
        _ => Code::CannotWrite,
    };
    Failure::new(code, format!("{what} {}: {error}", path.display()))
}
