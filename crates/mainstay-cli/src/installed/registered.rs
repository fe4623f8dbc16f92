//! Drift detection: compares installed services with their registered definitions.

use std::io;
use std::path::{Path, PathBuf};

use mainstay::{Manager, Scope};
use mainstay_core::failure::{Code, Failure};
use mainstay_core::manifest;
use mainstay_core::registry::{Definition, Expected, Refusal, Stored, Version};
use mainstay_core::report::ServiceReport;
use mainstay_core::spec::{ServiceName, Spec};
use mainstay_sys::guarded;
use serde::Serialize;

use super::install::{Order, Wanted};
use super::{Installed, Mode, Record, account};
use crate::client;
use crate::launch;
use crate::library_failure::of_library;
use crate::manifest_file::Loaded;
use crate::registry::{Error, Program, Registered, Registry, Wish, Work};
use crate::state_dir::{self, StateDir};

/// One piece of evidence about a service's state, from a single source.
#[derive(Debug, Serialize)]
pub(crate) struct Witness {
    name: &'static str,
    /// The reported state, in a word or two.
    claim: String,
    detail: Option<String>,
    /// The deviations from what is registered, one sentence each.
    #[serde(skip)]
    pub(crate) causes: Vec<String>,
}

impl Witness {
    /// Returns a line for people, ending in a newline.
    pub(crate) fn line(&self) -> String {
        let detail = self.detail.as_deref().filter(|_| self.causes.is_empty());
        let detail = detail.map(|text| format!("  ({text})")).unwrap_or_default();
        format!("{:<10}  {}{detail}\n", self.name, self.claim)
    }

    pub(crate) fn agrees(
        name: &'static str,
        claim: impl Into<String>,
        detail: Option<String>,
    ) -> Self {
        let (claim, causes) = (claim.into(), Vec::new());
        Self {
            name,
            claim,
            detail,
            causes,
        }
    }

    pub(crate) fn disagrees(
        name: &'static str,
        claim: impl Into<String>,
        causes: Vec<String>,
    ) -> Self {
        Self {
            name,
            claim: claim.into(),
            detail: causes.first().cloned(),
            causes,
        }
    }

    /// Evidence with the given state. `causes` are its deviations from what is registered.
    pub(crate) fn says(name: &'static str, claim: String, causes: Vec<String>) -> Self {
        match causes.is_empty() {
            true => Self::agrees(name, claim, None),
            false => Self::disagrees(name, claim, causes),
        }
    }

    /// Evidence that is either as registered or changed, for the given reasons.
    pub(crate) fn of(name: &'static str, causes: Vec<String>) -> Self {
        match causes.is_empty() {
            true => Self::agrees(name, "as registered", None),
            false => Self::disagrees(name, "changed", causes),
        }
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
    Ok(found.filter(|it| !matches!(it.life, Stored::Deleted(_))))
}

/// Returns the names whose installation is in progress or was never completed.
pub(super) fn unfinished_names(state: &StateDir) -> Vec<String> {
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

fn is_unfinished(life: &Stored) -> bool {
    matches!(life, Stored::Pending(_) | Stored::Failed(_)) || life.why().is_some()
}

/// Returns a base directory in the form that the registry stores.
pub(crate) fn base_dir(dir: &Path) -> Result<String, Failure> {
    dir.to_str().map(str::to_owned).ok_or_else(|| {
        let dir = dir.display();
        let message = format!("register services below {dir}: this path is not UTF-8");
        Failure::new(Code::InvalidManifest, message).hint("give its directories other names")
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

/// Marks all services of an order as owned by this process.
pub(super) fn begin(order: &Order<'_>, places: &[Installed]) -> Result<Work, Failure> {
    let Record {
        manager,
        mode,
        user,
        ..
    } = order.record;
    let definition = definition(order.manifest, manager, mode.as_str())?;
    let wishes = places
        .iter()
        .zip(&order.wanted)
        .map(|(place, wanted)| Wish {
            name: place.name.clone(),
            expected: order.expected,
            definition: Some(Definition {
                user,
                sandbox: wanted.has_sandbox,
                ..definition.clone()
            }),
        });
    let wishes: Vec<Wish> = wishes.collect();
    let Some(place) = places.first() else {
        return Err(Failure::new(Code::Usage, "install no services"));
    };
    let path = place.registry_path();
    place.create_all_dir().map_err(|error| {
        let message = format!("create the place of {}: {error}", path.display());
        match error.kind() {
            io::ErrorKind::PermissionDenied => Failure::new(Code::PermissionDenied, message)
                .hint("run it as an administrator; remove what another account has made there"),
            _ => Failure::new(Code::CannotWrite, message),
        }
    })?;
    let registry = Registry::open(&path)?;
    Ok(registry.begin(&wishes)?)
}

/// Returns the program files of an order, where they can be read now.
pub(super) fn programs(order: &Order<'_>) -> Vec<Option<Program>> {
    let dir = &order.manifest.dir;
    let programs = order.wanted.iter().map(|wanted| {
        // Programs of an image are not on this system.
        order.root.is_none().then_some(())?;
        program(wanted.spec, dir)
    });
    programs.collect()
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
    (expected, purge): (Expected, bool),
    remove: impl FnOnce(Option<&str>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (mut wishes, mut others) = (Vec::new(), Vec::new());
    for name in names {
        match find(path, name.as_str())? {
            Some(_) => wishes.push(Wish {
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
    let registry = Registry::find(path)?.filter(|_| !wishes.is_empty());
    let work = registry
        .map(|registry| registry.begin(&wishes))
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
        work.delete(purge)?;
    }
    if purge {
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

/// Collects the evidence from the registry, from `others` that depend on the registered definition,
/// and from the program file.
pub(crate) fn witnesses(
    registered: &Result<Option<Registered>, Failure>,
    others: impl FnOnce(&Registered) -> Vec<Witness>,
) -> Vec<Witness> {
    const NAME: &str = "registry";
    let registered = match registered {
        Ok(Some(registered)) => registered,
        Ok(None) => {
            let why = "the registry does not have it: install it again".to_owned();
            return vec![Witness::disagrees(NAME, "unknown", vec![why])];
        }
        Err(failure) => {
            let why = failure.message().to_owned();
            return vec![Witness::disagrees(NAME, "unreadable", vec![why])];
        }
    };
    let life = &registered.life;
    let claim = format!("{}, version {}", life.state(), life.version());
    let mut witnesses = vec![match life.why() {
        Some(why) => Witness::disagrees(NAME, claim, vec![why.to_owned()]),
        None => {
            let etag = format!("etag {}", registered.etag.as_str());
            Witness::agrees(NAME, claim, Some(etag))
        }
    }];
    witnesses.extend(others(registered));
    witnesses.push(match &registered.program {
        Some(program) => {
            let change = program.change();
            let path = || program.path.display().to_string();
            Witness {
                detail: change.clone().or_else(|| Some(path())),
                ..Witness::of("program", change.into_iter().collect())
            }
        }
        None => Witness::agrees("program", "not registered", None),
    });
    witnesses
}

/// Compares the installed copy of the manifest with the registered one.
pub(crate) fn changed_manifest(path: &Path, registered: &Registered) -> Vec<String> {
    match guarded::read_to_string(path, guarded::MANIFEST) {
        Ok(text) if text == registered.definition.manifest => Vec::new(),
        Ok(_) => {
            let version = registered.life.version();
            vec![format!("{} is not version {version}", path.display())]
        }
        Err(error) => vec![format!("read {}: {error}", path.display())],
    }
}

/// Returns a complaint if the service runs with an outdated definition, as reported by its
/// supervisor. A definition that differs in wording only is not outdated.
pub(crate) fn outdated(
    registry: &Path,
    registered: &Registered,
    report: &ServiceReport,
) -> Option<String> {
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
        None => "what is not registered, or not any more".to_owned(),
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

impl Record {
    /// Converts a registered definition; `None` if its manager or mode is unknown.
    fn of(definition: &Definition) -> Option<Self> {
        let mode = match &*definition.mode {
            "hosted" => Mode::Hosted,
            "direct" => Mode::Direct,
            _ => return None,
        };
        let scope = match definition.user {
            true => Scope::User,
            false => Scope::System,
        };
        Some(Self::new(
            Manager::from_name(&definition.manager)?,
            mode,
            scope,
        ))
    }
}

impl Installed {
    pub(super) fn registry_path(&self) -> PathBuf {
        let all = self.place.parent().unwrap_or(&self.place);
        self.here(&state_dir::registry_path(all))
    }

    /// Returns the registry entry, unless the service is deleted.
    pub(super) fn registered(&self) -> Result<Option<Registered>, Failure> {
        find(&self.registry_path(), self.name.as_str())
    }

    /// Returns a service whose installation was never completed. Any part of it may be missing.
    pub(super) fn unfinished(state: &StateDir, name: &ServiceName) -> Option<Self> {
        let (_, found) = registry_of(state, name.as_str()).ok()??;
        let found = Some(found).filter(|found| is_unfinished(&found.life))?;
        Self::of_definition(state, name, &found.definition)
    }

    /// Returns the service as it was registered.
    fn of_definition(state: &StateDir, name: &ServiceName, of: &Definition) -> Option<Self> {
        let installed = Self::at(state, name, Record::of(of)?);
        Some(match Kept::of(name, of) {
            Ok(kept) => installed.known_as(kept.spec.manager_name()),
            Err(_) => installed,
        })
    }

    /// Returns the named services, each of which must be installed or have been installed before.
    pub(crate) fn named_once(state: &StateDir, names: &[String]) -> Result<Vec<Self>, Failure> {
        let find = |name: &String| {
            let once = || {
                let (_, found) = registry_of(state, name).ok()??;
                Self::of_definition(state, &ServiceName::new(name)?, &found.definition)
            };
            match Self::find(state, name).or_else(once) {
                Some(installed) => Ok(vec![installed]),
                None => Self::named(state, std::slice::from_ref(name)),
            }
        };
        let found: Result<Vec<_>, Failure> = names.iter().map(find).collect();
        Ok(found?.into_iter().flatten().collect())
    }

    /// Returns the report for a registered service that its manager does not know.
    pub(super) fn unfinished_report(&self) -> Option<ServiceReport> {
        let registered = self.registered().ok()??;
        let why = registered.life.why().unwrap_or("its manager has none");
        let detail = format!("{why}; install it again, or uninstall it");
        let report = self.nothing_known();
        Some(self.of_manager(ServiceReport {
            detail: Some(detail),
            ..report
        }))
    }

    /// Calls [`unregister`] for this service.
    pub(super) fn unregister(
        &self,
        expected: Expected,
        purge: bool,
        remove: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let name = std::slice::from_ref(&self.name);
        unregister(&self.registry_path(), name, (expected, purge), |_| remove())
    }

    /// Returns the deviations from what is registered, one sentence each, including those of the
    /// running program as far as `report` shows them. `None` if this process may not read the
    /// registry.
    pub(crate) fn drift(&self, report: &ServiceReport) -> Option<Vec<String>> {
        self.check_access().ok()?;
        let registered = self.registered();
        let witnesses = self.registered_witnesses(&registered).into_iter();
        let causes = witnesses.flat_map(|witness| witness.causes);
        Some(causes.chain(self.outdated(&registered, report)).collect())
    }

    /// Checks that this process may read the registry.
    ///
    /// # Errors If it may not.
    pub(crate) fn check_access(&self) -> Result<(), Failure> {
        match self.registered() {
            Err(failure) if failure.code() == Code::PermissionDenied => Err(failure),
            _ => Ok(()),
        }
    }

    fn outdated(
        &self,
        registered: &Result<Option<Registered>, Failure>,
        report: &ServiceReport,
    ) -> Option<String> {
        outdated(
            &self.registry_path(),
            registered.as_ref().ok()?.as_ref()?,
            report,
        )
    }

    /// Collects the evidence from all sources, including the manager and the host. Blocks.
    pub(crate) fn witnesses(&self) -> Vec<Witness> {
        let registered = self.registered();
        let mut witnesses = self.registered_witnesses(&registered);
        let status = self.service().status();
        let hosted = match self.record.mode {
            Mode::Direct => None,
            Mode::Hosted => Some(client::block_on(client::status(&self.state)).and_then(|it| it)),
        };
        let is_up = status
            .as_ref()
            .is_ok_and(|status| status.state == mainstay::State::Running);
        witnesses.push(match &status {
            Ok(status) => Witness::agrees("manager", self.by_manager(status).state.to_string(), {
                Some(format!("{}: {status}", self.record.manager))
            }),
            Err(error) => {
                let why = mainstay_core::failure::chain(error);
                Witness::disagrees("manager", "unknown", vec![why])
            }
        });
        witnesses.extend(hosted.map(|answer| match answer {
            Ok(report) => match report.services.first() {
                Some(report) => {
                    let causes = self.outdated(&registered, report).into_iter().collect();
                    Witness::says("host", report.state.to_string(), causes)
                }
                None => Witness::agrees("host", "no service", None),
            },
            Err(failure) if is_up => {
                let why = format!(
                    "{} says that it runs, and its host does not answer: {}",
                    self.record.manager,
                    failure.message()
                );
                Witness::disagrees("host", "silent", vec![why])
            }
            Err(failure) => Witness::agrees("host", "gone", Some(failure.message().to_owned())),
        }));
        witnesses
    }

    /// Collects the evidence from the registry and from the registered files.
    fn registered_witnesses(
        &self,
        registered: &Result<Option<Registered>, Failure>,
    ) -> Vec<Witness> {
        witnesses(registered, |registered| {
            let path = self.manifest_path(registered.definition.format);
            let files = match self.changed_files(&registered.definition) {
                Ok(paths) => paths
                    .iter()
                    .map(|path| match path.exists() {
                        true => format!("{} is not what was installed", path.display()),
                        false => format!("{} is missing", path.display()),
                    })
                    .collect(),
                Err(failure) => vec![failure.message().to_owned()],
            };
            vec![
                Witness::of("manifest", changed_manifest(&path, registered)),
                Witness::of("unit files", files),
            ]
        })
    }

    pub(super) fn changed_files(&self, definition: &Definition) -> Result<Vec<PathBuf>, Failure> {
        let kept = Kept::of(&self.name, definition)?;
        let as_registered = Self {
            name: self.name.clone(),
            manager_name: kept.spec.manager_name().to_owned(),
            place: self.place.clone(),
            state: self.state.clone(),
            record: kept.record,
            root: None,
        };
        let path = as_registered.manifest_path(definition.format);
        let base_dir = Path::new(&definition.base_dir);
        let (definition, _) = as_registered.definition(&kept.wanted(), &path, base_dir)?;
        definition.changed_files().map_err(of_library)
    }
}

/// A stored definition together with its parsed form.
pub(super) struct Kept {
    manifest: Loaded,
    pub(super) spec: Spec,
    record: Record,
    has_sandbox: bool,
}

impl Kept {
    pub(super) fn of(name: &ServiceName, definition: &Definition) -> Result<Self, Failure> {
        let unknown = |why: &str| {
            let message = format!("what is registered of {name}: {why}");
            Failure::new(Code::Failed, message)
        };
        let specs = manifest::parse(&definition.manifest, definition.format)
            .map_err(|_| unknown("this version of mainstay refuses its manifest"))?;
        let spec = specs.iter().find(|spec| spec.name() == name).cloned();
        Ok(Self {
            spec: spec.ok_or_else(|| unknown("its manifest does not have it"))?,
            manifest: Loaded {
                specs,
                dir: definition.base_dir.clone().into(),
                text: definition.manifest.clone(),
                format: definition.format,
            },
            record: Record::of(definition).ok_or_else(|| unknown("of no manager here"))?,
            has_sandbox: definition.sandbox,
        })
    }

    /// Returns the order that reinstalls the definition as it was.
    pub(super) fn order(&self) -> Order<'_> {
        Order {
            manifest: &self.manifest,
            wanted: vec![self.wanted()],
            record: self.record,
            expected: Expected::Any,
            root: None,
        }
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            spec: &self.spec,
            account: account(self.spec.account(), self.record.mode),
            has_sandbox: self.has_sandbox,
        }
    }
}

/// Returns a stored version of a definition.
pub(crate) fn kept(
    registry: &Registry,
    name: &str,
    version: Version,
) -> Result<Definition, Failure> {
    registry.definition(name, version)?.ok_or_else(|| {
        let message = format!("{name} has no version {version}, or it is too old to be kept");
        let hint = format!("mainstay history {name} shows its versions");
        Failure::new(Code::Unknown, message).hint(hint)
    })
}
