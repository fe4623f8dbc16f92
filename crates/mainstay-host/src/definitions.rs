//! Definitions of the services that are installed into the embedded manager, checked like every
//! manifest, and checked to fit together.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use mainstay_core::engine::{Engine, GraphError};
use mainstay_core::failure::Failure;
use mainstay_core::manifest::Format;
use mainstay_core::spec::ServiceName;
use mainstay_store::Unreadable;
use mainstay_store::embedded::{self, Definition, Desired};
use mainstay_store::ledger::LedgerSnapshot;
use mainstay_store::state_dir::StateDir;

use crate::manifest_file::Source;

/// The reason why the installed definition of this service cannot be loaded.
#[derive(Debug)]
pub(crate) struct Unloadable {
    name: String,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Name,
    Record(Unreadable),
    Format(String),
    Manifest(Failure),
    /// The manifest at this path does not define the service.
    Undefined(PathBuf),
}

impl fmt::Display for Unloadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot load the installed service {}: ", self.name)?;
        match &self.why {
            Why::Name => f.write_str("this is not a valid service name"),
            Why::Record(error) => error.fmt(f),
            Why::Format(format) => write!(f, "its manifest format {format} is not supported"),
            Why::Manifest(failure) => f.write_str(failure.message()),
            Why::Undefined(path) => write!(f, "{} does not define the service", path.display()),
        }
    }
}

/// Reads the installed definition of this name.
pub(crate) fn read(state: &StateDir, name: &str) -> Result<Definition, Unloadable> {
    read_with(state, name, embedded::desired(state, name))
}

/// Returns the definition of a service of a supervisor, installed or not, as its ledger names it.
/// `None` if it cannot be read.
pub fn of_service(state: &StateDir, name: &str) -> Option<Definition> {
    if embedded::is_installed(state, name) {
        return read(state, name).ok();
    }
    let snapshot = LedgerSnapshot::read(state).ok()??;
    let all = snapshot.definitions(state, installed).ok()?;
    all.into_iter().find(|it| it.spec.name().as_str() == name)
}

/// Does the same as [`read`], for a service whose desired state is known.
fn read_with(
    state: &StateDir,
    name: &str,
    desired: Option<Desired>,
) -> Result<Definition, Unloadable> {
    let failed = |why| Unloadable {
        name: name.to_owned(),
        why,
    };
    let unusable = |failure| failed(Why::Manifest(failure));
    if ServiceName::new(name).is_none() {
        return Err(failed(Why::Name));
    }
    let record = embedded::read_record(state, name).map_err(|error| failed(Why::Record(error)))?;
    let path = embedded::manifest_path(&embedded::place(state, name), &record);
    let format = Format::from_extension(&record.manifest_format);
    let format = format.ok_or_else(|| failed(Why::Format(record.manifest_format.clone())))?;
    let source = Source::read_installed(&path, Some(format)).map_err(unusable)?;
    let manifest = source.based_on(Some(record.base_dir.clone())).load();
    let manifest = manifest.map_err(unusable)?;
    let digest = manifest.digest();
    let mut specs = manifest.specs.into_iter();
    let spec = specs.find(|spec| spec.name().as_str() == name);
    let spec = spec.ok_or_else(|| failed(Why::Undefined(path)))?;
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

/// Returns the definitions of all installed services and of those that are `living`, sorted by
/// name, and a sentence for each problem. A definition that cannot be read, or that does not fit
/// the others, is replaced by a stand-in.
pub fn all(state: &StateDir, living: &[String]) -> (Vec<Definition>, Vec<String>) {
    let mut problems = Vec::new();
    let mut found = Vec::new();
    let mut names = embedded::names(state);
    names.extend_from_slice(living);
    names.sort();
    names.dedup();
    for name in names {
        let desired = embedded::read_desired(state, &name);
        if let Err(why) = &desired {
            problems.push(format!(
                "{name}: {why}; if it is not running, it is not started until `mainstay start {name}`"
            ));
        }
        let definition = read_with(state, &name, embedded::or_halted(desired));
        found.extend(definition.map_or_else(
            |why| {
                let why = why.to_string();
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

/// Returns the definitions of all installed services, as far as they fit together.
pub(crate) fn installed(state: &StateDir) -> Vec<Definition> {
    all(state, &[]).0
}

/// Checks that the definitions fit together.
pub fn graph(definitions: &[Definition]) -> Result<(), GraphError> {
    let specs = definitions.iter().map(|it| Arc::clone(&it.spec));
    Engine::new(specs, 0).map(drop)
}
