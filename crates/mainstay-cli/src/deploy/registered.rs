//! The registry's part in deployment, for all managers: the definition of an installation, its
//! removal, and drift detection, which compares installed services with their registered
//! definitions.

use std::path::Path;

use mainstay::Manager;
use mainstay_core::failure::{Code, Failure};
use mainstay_core::manifest;
use mainstay_core::registry::{Definition, Expected, Refusal};
use mainstay_core::report::ServiceReport;
use mainstay_core::spec::{ServiceName, Spec};
use mainstay_host::launch;
use mainstay_host::manifest_file::Loaded;
use mainstay_store::registry::{
    ChangeRequest, Error, Program, Registered, Registry, Remains, Work,
};
use mainstay_sys::guarded;
use serde::Serialize;

use crate::installed::find;

/// One piece of evidence about a service's state, from a single source.
#[derive(Debug, Serialize)]
pub(crate) struct Evidence {
    pub(crate) name: &'static str,
    /// The reported state, in a word or two.
    #[serde(rename = "claim")]
    pub(crate) observation: String,
    pub(crate) detail: Option<String>,
    /// The deviations from what is registered, one sentence each.
    #[serde(skip)]
    pub(crate) causes: Vec<String>,
    /// A remedy, if the registry cannot be read and one is known.
    #[serde(skip)]
    pub(crate) hint: Option<String>,
}

impl Evidence {
    pub(crate) fn agrees(
        name: &'static str,
        observation: impl Into<String>,
        detail: Option<String>,
    ) -> Self {
        let (observation, causes) = (observation.into(), Vec::new());
        Self {
            name,
            observation,
            detail,
            causes,
            hint: None,
        }
    }

    pub(crate) fn disagrees(
        name: &'static str,
        observation: impl Into<String>,
        causes: Vec<String>,
    ) -> Self {
        Self {
            name,
            observation: observation.into(),
            detail: causes.first().cloned(),
            causes,
            hint: None,
        }
    }

    /// Evidence that is either as registered or changed, for the given reasons.
    pub(crate) fn of(name: &'static str, causes: Vec<String>) -> Self {
        if causes.is_empty() {
            Self::agrees(name, "as registered", None)
        } else {
            Self::disagrees(name, "changed", causes)
        }
    }
}

/// Returns a base directory in the form that the registry stores.
pub(crate) fn base_dir(dir: &Path) -> Result<String, Failure> {
    dir.to_str().map(str::to_owned).ok_or_else(|| {
        let dir = dir.display();
        let message = format!("cannot register services below {dir}: the path is not UTF-8");
        Failure::new(Code::InvalidManifest, message).hint("rename its directories")
    })
}

/// Returns the registry definition of a manifest for a system-wide service without a sandbox.
pub(crate) fn definition(
    manifest: &Loaded,
    manager: Manager,
    mode: &str,
) -> Result<Definition, Failure> {
    Ok(Definition {
        manifest: manifest.text.clone(),
        format: manifest.format,
        base_dir: base_dir(&manifest.dir)?,
        manager: manager.name().to_owned(),
        mode: mode.to_owned(),
        user: false,
        sandbox: false,
    })
}

/// Returns the program file of a service, if it can be read now.
pub(crate) fn program(spec: &Spec, base_dir: &Path) -> Option<Program> {
    let search = std::env::var_os("PATH");
    let path = launch::find_program(spec.command().program(), base_dir, search.as_deref());
    Program::read(&path.ok()?).ok()
}

/// Removes the given services with `remove`, which receives this process's owner token, and records
/// the deletion in the registry. Services that are not registered are ignored.
pub(crate) fn unregister(
    path: &Path,
    names: &[ServiceName],
    (expected, remains): (Expected, Remains),
    remove: impl FnOnce(Option<&str>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (mut requests, mut others) = (Vec::new(), Vec::new());
    for name in names {
        match find(path, name.as_str())? {
            Some(_) => requests.push(ChangeRequest {
                name: name.clone(),
                expected,
                definition: None,
            }),
            None if expected != Expected::Any => {
                let name = name.clone();
                return Err(Error::Refused(Refusal::NotFound { name }).into());
            }
            None => others.push(name),
        }
    }
    let registry = Registry::find(path)?.filter(|_| !requests.is_empty());
    let work = registry
        .map(|registry| registry.begin(&requests))
        .transpose()?;
    if let Err(failure) = remove(work.as_ref().map(Work::token)) {
        if let Some(work) = work {
            // The failure matters more. The next process to open the registry finishes the
            // rollback.
            drop(work.roll_back(failure.message()));
        }
        return Err(failure);
    }
    if let Some(work) = work {
        work.delete(remains)?;
    }
    if remains == Remains::Purge {
        // Services that were deleted earlier.
        if let Some(mut registry) = Registry::find(path)? {
            for name in others {
                match registry.forget(name) {
                    Err(Error::Refused(Refusal::NotFound { .. })) => {}
                    done => done?,
                }
            }
        }
        Registry::remove_empty(path);
    }
    Ok(())
}

/// Returns the reason why the registry cannot be read, if its disk is that reason: then nothing is
/// known to deviate from it.
pub(crate) fn unseen(registered: &Result<Option<Registered>, Failure>) -> Option<String> {
    let failure = registered.as_ref().err();
    let failure = failure.filter(|failure| failure.code() == Code::CannotWrite)?;
    Some(format!(
        "its registration cannot be read: {}",
        failure.line()
    ))
}

/// Sets the registered version of a service in its report.
pub(crate) fn set_version(
    report: &mut ServiceReport,
    registered: &Result<Option<Registered>, Failure>,
) {
    let known = registered.as_ref().ok().and_then(Option::as_ref);
    report.version = known.map(|it| it.life.version().0);
    report.etag = known.map(|it| it.etag.as_str().to_owned());
}

/// Collects the evidence from the registry, from `others` that depend on the registered definition,
/// and from the program file.
pub(crate) fn evidence(
    registered: &Result<Option<Registered>, Failure>,
    others: impl FnOnce(&Registered) -> Vec<Evidence>,
) -> Vec<Evidence> {
    const NAME: &str = "registry";
    let registered = match registered {
        Ok(Some(registered)) => registered,
        Ok(None) => {
            let why = "it is not in the registry: install it again".to_owned();
            return vec![Evidence::disagrees(NAME, "unknown", vec![why])];
        }
        Err(failure) => {
            let why = failure.message().to_owned();
            return vec![Evidence {
                hint: failure.hint_text().map(str::to_owned),
                ..Evidence::disagrees(NAME, "unreadable", vec![why])
            }];
        }
    };
    let life = &registered.life;
    let observation = format!("{}, version {}", life.state(), life.version());
    let mut evidence = vec![match life.why() {
        Some(why) => Evidence::disagrees(NAME, observation, vec![why.to_owned()]),
        None => {
            let etag = format!("etag {}", registered.etag.as_str());
            Evidence::agrees(NAME, observation, Some(etag))
        }
    }];
    evidence.extend(others(registered));
    evidence.push(match &registered.program {
        Some(program) => {
            let change = program.change();
            let path = || program.path.display().to_string();
            Evidence {
                detail: change.clone().or_else(|| Some(path())),
                ..Evidence::of("program", change.into_iter().collect())
            }
        }
        None => Evidence::agrees("program", "not registered", None),
    });
    evidence
}

/// Compares the installed copy of the manifest with the registered one.
pub(crate) fn changed_manifest(path: &Path, registered: &Registered) -> Vec<String> {
    match guarded::read_to_string(path, guarded::MANIFEST) {
        Ok(text) if text == registered.definition.manifest => Vec::new(),
        Ok(_) => {
            let version = registered.life.version();
            vec![format!("{} differs from version {version}", path.display())]
        }
        Err(error) => vec![format!("cannot read {}: {error}", path.display())],
    }
}

/// Returns a complaint if the service runs with an outdated definition, as reported by its
/// supervisor. A definition that differs in wording only is not outdated.
pub(crate) fn outdated(
    registry: &Path,
    registered: &Result<Option<Registered>, Failure>,
    report: &ServiceReport,
) -> Option<String> {
    let registered = registered.as_ref().ok()?.as_ref()?;
    let (digest, name) = (report.definition_digest.as_ref()?, &*report.name);
    let now = &registered.definition;
    // Current, or another process is changing it.
    if now.text_digest() == *digest || registered.life.owner().is_some() {
        return None;
    }
    let is_that = |definition: &Definition| definition.text_digest() == *digest;
    let registry = Registry::find(registry).ok()??;
    let what = match registry.version_like(name, is_that).ok()? {
        Some((_, before)) if says_the_same(name, &before, now) => return None,
        Some((version, _)) => format!("version {version}"),
        None => "a definition that is not registered".to_owned(),
    };
    Some(format!(
        "it still runs {what}: restart it (mainstay restart {name})"
    ))
}

fn says_the_same(name: &str, one: &Definition, other: &Definition) -> bool {
    let spec = |it: &Definition| {
        let specs = manifest::parse(&it.manifest, it.format).ok()?;
        specs.into_iter().find(|spec| spec.name().as_str() == name)
    };
    one.base_dir == other.base_dir && spec(one).is_some_and(|one| Some(one) == spec(other))
}
