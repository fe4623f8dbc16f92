//! Installation into the embedded manager, `mainstay daemon`, and removal.
//!
//! A running daemon is notified after the files change; a stopped one reads them when it starts. If
//! the files or the daemon reject a change, it is undone as a whole. Every change takes the lock
//! first, then ownership in the registry.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mainstay::Manager;
use mainstay_api::Reach;
use mainstay_core::engine::{GraphError, Refusal};
use mainstay_core::failure::{Code, Failure};
use mainstay_core::manifest::Format;
use mainstay_core::registry::{Expected, Stored, Version};
use mainstay_core::report::ServiceReport;
use mainstay_core::spec::{ServiceName, Spec};
use mainstay_host as host;
use mainstay_host::definitions::{all, graph};
use mainstay_host::manifest_file::Loaded;
use mainstay_host::preflight;
use mainstay_host::runs;
use mainstay_store::embedded::{
    DESIRED, Definition, FORMAT, MODE, RECORD, Record, is_installed, lock, manifest_path, place,
    read_record, registry_path, stopped, write_desired, write_record,
};
use mainstay_store::file_failure;
use mainstay_store::programs::Programs;
use mainstay_store::registry::{ChangeRequest, Registered, Registry, Remains, Work};
use mainstay_store::state_dir::StateDir;
use mainstay_sys::guarded;
use mainstay_sys::private::{create_private_dir, write_private};

use super::registered::{self, Evidence};
use super::{Enablement, refuse_hung, refuse_irregular};
use crate::client;
use crate::installed::{Installed, find};
use crate::not_found;
use crate::request_error::RequestError;

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

/// Splits names of services to remove, like [`mainstay_store::embedded::split`]. Partly installed
/// services count as the embedded manager's. When purging, so do uninstalled ones.
pub(crate) fn split_left(
    state: &StateDir,
    names: Vec<String>,
    remains: Remains,
) -> (Vec<String>, Vec<String>) {
    names
        .into_iter()
        .partition(|name| has_left(state, name, remains))
}

/// Returns whether the embedded manager has the service, or a part of it.
pub(crate) fn is_known(state: &StateDir, name: &str) -> bool {
    has_left(state, name, Remains::Keep)
}

fn has_left(state: &StateDir, name: &str, remains: Remains) -> bool {
    let is_left = |it: Registered| {
        let is_deleted = matches!(it.life, Stored::Deleted(_));
        it.definition.mode == MODE && (remains == Remains::Purge || !is_deleted)
    };
    let known = || {
        Registry::find(&registry_path(state))
            .ok()??
            .get(name)
            .ok()?
    };
    is_installed(state, name) || known().is_some_and(is_left)
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
                None => found.life.why().unwrap_or("its files are missing"),
            };
            let detail = format!("{why}; install it again, or uninstall it");
            is_ours.then(|| stopped(Some(found.life.version().0), Some(detail), name))
        });
    reports.collect()
}

/// Adds the registered version and the drift to the report of an installed service.
pub(crate) fn complete(state: &StateDir, report: &mut ServiceReport) {
    // A service of the supervisor's own manifest may have the same name.
    if report.mode != MODE || report.version.is_none() {
        return;
    }
    let path = registry_path(state);
    let registered = find(&path, &report.name);
    if let Some(problem) = registered::unseen(&registered) {
        // The version remains the one that the daemon has.
        report.state_problem = report.state_problem.take().or(Some(problem));
        return;
    }
    let evidence = evidence_of(state, &report.name, &registered).into_iter();
    let causes = evidence.flat_map(|it| it.causes);
    let outdated = registered::outdated(&path, &registered, report);
    let drift = causes.chain(outdated).collect();
    registered::set_version(report, &registered);
    report.drift = Some(drift);
}

/// Returns a complaint if the service runs with an earlier definition than the registered one.
pub(crate) fn outdated(state: &StateDir, report: &ServiceReport) -> Option<String> {
    let path = registry_path(state);
    registered::outdated(&path, &find(&path, &report.name), report)
}

/// Collects the evidence from the registry and from the registered files.
pub(crate) fn registered_evidence(state: &StateDir, name: &str) -> Vec<Evidence> {
    evidence_of(state, name, &find(&registry_path(state), name))
}

fn evidence_of(
    state: &StateDir,
    name: &str,
    registered: &Result<Option<Registered>, Failure>,
) -> Vec<Evidence> {
    registered::evidence(registered, |registered| {
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
                "{} differs from version {version}",
                place.join(RECORD).display()
            )),
            Err(error) => Some(error.to_string()),
        });
        vec![Evidence::of("manifest", causes)]
    })
}

/// Installs services of a manifest in the embedded manager, or updates installed ones; all or none.
/// New services start with the next start of the daemon, or on request. Running services are not
/// affected until their next start. Blocks until a running daemon has been notified.
///
/// # Errors
/// If one cannot be installed. Nothing has changed then.
pub(crate) fn install_all(
    state: &StateDir,
    manifest: &Loaded,
    specs: &[Spec],
    expected: Expected,
) -> Result<Vec<Done>, Failure> {
    // Prepared as the daemon would do it.
    state.prepare()?;
    let _lock = lock(state)?;
    let done = check_all(state, manifest, specs)?;
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
    if let Err(failure) = put.and_then(|()| notify(state, &names, work.token())) {
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
        drop(notify(state, &old, ""));
        return Err(failure);
    }
    Ok(done)
}

/// Describes the actions of [`install_all`] for people, after the same checks. Changes nothing.
pub(crate) fn plan_all(
    state: &StateDir,
    manifest: &Loaded,
    specs: &[Spec],
) -> Result<String, Failure> {
    let mut plan = String::new();
    for done in check_all(state, manifest, specs)? {
        let place = place(state, done.name.as_str());
        let path = place.join(format!("manifest.{}", manifest.format.name()));
        plan += &format!("write {}: a copy of the manifest\n", path.display());
        let record = place.join(RECORD);
        plan += &format!(
            "write {}: its version and base directory\n",
            record.display()
        );
    }
    let registry = registry_path(state);
    plan += &format!("write {}: the definitions\n", registry.display());
    plan += "notify `mainstay daemon`, if it runs\n";
    Ok(plan)
}

/// Checks that services can be installed, and returns what that would change.
fn check_all(state: &StateDir, manifest: &Loaded, specs: &[Spec]) -> Result<Vec<Done>, Failure> {
    let (mut all, _) = all(state, &[]);
    let mut done = Vec::new();
    for spec in specs {
        let name = spec.name();
        if Installed::find(state, name.as_str()).is_some() {
            let message = format!(
                "cannot install {name}: it is already installed in the system's service manager"
            );
            let hint = format!("uninstall it first: mainstay uninstall {name}");
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
    for spec in specs {
        let name = spec.name().as_str();
        refuse_irregular(&format!("install {name}"), files(state, name))?;
    }
    Ok(done)
}

/// Returns the paths of the files of a service.
fn files(state: &StateDir, name: &str) -> Vec<PathBuf> {
    let place = place(state, name);
    let paths = manifest_paths(&place).chain([RECORD, DESIRED].map(|file| place.join(file)));
    paths.collect()
}

/// Marks all services as owned by this process.
fn begin(
    state: &StateDir,
    manifest: &Loaded,
    specs: &[Spec],
    expected: Expected,
) -> Result<Work, Failure> {
    let definition = registered::definition(manifest, Manager::Mainstay, MODE)?;
    let requests = specs.iter().map(|spec| ChangeRequest {
        name: spec.name().clone(),
        expected,
        definition: Some(definition.clone()),
    });
    let requests: Vec<ChangeRequest> = requests.collect();
    Ok(Registry::open(&registry_path(state))?.begin(&requests)?)
}

/// Stops services and removes them from the embedded manager, all or none. Logs and data are what
/// remains of them. Blocks until none of their processes run.
///
/// # Errors
/// If one cannot be removed. Services that were stopped stay stopped.
pub(crate) fn uninstall_all(
    state: &StateDir,
    names: &[String],
    expected: Expected,
    remains: Remains,
) -> Result<(), Failure> {
    let _lock = lock(state)?;
    let (all, _) = all(state, &[]);
    for name in names {
        if !has_left(state, name, remains) {
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
            let message = format!("cannot uninstall {name}: {}", Refusal::Needed(others));
            let failure = Failure::new(Code::Failed, message);
            return Err(
                failure.hint("uninstall the dependents first, or all services in one command")
            );
        }
    }
    let services: Vec<ServiceName> = names.iter().filter_map(|it| ServiceName::new(it)).collect();
    let (path, how) = (registry_path(state), (expected, remains));
    registered::unregister(&path, &services, how, |token| {
        remove_all(state, names, remains, token)
    })
}

fn remove_all(
    state: &StateDir,
    names: &[String],
    remains: Remains,
    token: Option<&str>,
) -> Result<(), Failure> {
    for name in names {
        refuse_irregular(&format!("uninstall {name}"), files(state, name))?;
    }
    match client::block_on(client::forget(state, names, token))? {
        Err(RequestError::NoSupervisor(_)) => stop_orphans(state, names)?,
        done => done?,
    }
    if remains == Remains::Purge {
        for name in names {
            refuse_hung(&state.logs_dir().join(name))?;
            refuse_hung(&state.data_dir(name))?;
        }
    }
    names.iter().try_for_each(|name| {
        let place = place(state, name);
        // The file that marks the service as installed goes first.
        remove(&place.join(RECORD))?;
        write_desired(state, name, None)
            .map_err(|error| file_failure("write to", &place, &error))?;
        for path in manifest_paths(&place) {
            remove(&path)?;
        }
        // The directory may contain other files.
        let _ = fs::remove_dir(&place);
        if remains == Remains::Purge {
            let pipes = [name.clone(), format!("{name}.stderr")];
            for pipe in pipes {
                remove(&state.pipes_dir().join(pipe))?;
            }
            let programs = Programs::of_place(&place);
            programs
                .purge()
                .map_err(|error| file_failure("remove the programs of", &place, &error))?;
            let dirs = [
                state.logs_dir().join(name),
                state.events_dir().join(name),
                state.data_dir(name),
                place,
            ];
            for dir in dirs {
                match fs::remove_dir_all(&dir) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(file_failure("remove", &dir, &error));
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
/// # Errors
/// If one is not installed. Nothing has changed then.
pub(crate) fn set_enablement(
    state: &StateDir,
    names: &[String],
    wanted: Enablement,
) -> Result<(), Failure> {
    let _lock = lock(state)?;
    let mut records = Vec::new();
    for name in names {
        if !is_installed(state, name) {
            return Err(not_found::service(state, name));
        }
        let record = read_record(state, name)
            .map_err(|error| Failure::new(Code::Failed, error.to_string()))?;
        records.push((place(state, name).join(RECORD), record));
    }
    for (path, record) in records {
        let record = Record {
            enabled: wanted == Enablement::Enabled,
            ..record
        };
        write_record(&path, &record)?;
    }
    Ok(())
}

/// Notifies a running daemon of new definitions.
pub(super) fn notify(state: &StateDir, names: &[&str], token: &str) -> Result<(), Failure> {
    if names.is_empty() {
        return Ok(());
    }
    match client::block_on(client::define(state, names, token))? {
        // A daemon reads them when it starts.
        Err(RequestError::NoSupervisor(_)) => Ok(()),
        notified => Ok(notified?),
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
    if living.is_empty() {
        Ok(())
    } else {
        match host::stop_without_supervisor(state, &living, Reach::Named)? {
            Some(_) => Ok(()),
            None => Err(not_found::supervisor(state)),
        }
    }
}

pub(super) fn misfit(error: GraphError) -> Failure {
    match error {
        GraphError::Missing { service, need } => {
            let message = format!(
                "cannot install {service}: it needs {need}, which is neither in its manifest nor installed"
            );
            Failure::new(Code::Failed, message).hint(format!("install {need} first"))
        }
        error => Failure::new(Code::Failed, format!("cannot install: {error}"))
            .hint("remove one of these needs (`os:NAME` also refers to installed services)"),
    }
}

/// The previous contents of a service's directory.
pub(super) struct Saved {
    place: PathBuf,
    is_new: bool,
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl Saved {
    pub(super) fn of(place: &Path) -> Result<Self, Failure> {
        let mut files = Vec::new();
        for path in manifest_paths(place).chain([place.join(RECORD)]) {
            match guarded::read(&path, guarded::MANIFEST) {
                Ok(bytes) => files.push((path, bytes)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(file_failure("read", &path, &error)),
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
    pub(super) fn take_back(self) {
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

pub(super) fn put(place: &Path, manifest: &str, record: &Record) -> Result<(), Failure> {
    create_private_dir(place).map_err(|error| file_failure("create", place, &error))?;
    let path = manifest_path(place, record);
    let written = write_private(&path, manifest.as_bytes());
    written.map_err(|error| file_failure("write", &path, &error))?;
    write_record(&place.join(RECORD), record)?;
    for other in manifest_paths(place).filter(|other| *other != path) {
        remove(&other)?;
    }
    Ok(())
}

/// Returns the record of a new version. A service that was disabled by an operator stays disabled.
pub(super) fn next_record(
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

fn manifest_paths(place: &Path) -> impl Iterator<Item = PathBuf> + use<'_> {
    let formats = Format::ALL.into_iter();
    formats.map(|format| place.join(format!("manifest.{}", format.name())))
}

fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(file_failure("remove", path, &error))
        }
        _ => Ok(()),
    }
}
