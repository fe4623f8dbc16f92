//! The registry's part in installations into the system's managers, and their drift.

use std::io;
use std::path::{Path, PathBuf};

use mainstay::ErrorKind;
use mainstay_core::failure::{Code, Failure};
use mainstay_core::manifest;
use mainstay_core::registry::{Definition, Expected, Version};
use mainstay_core::report::ServiceReport;
use mainstay_core::spec::{ServiceName, Spec};
use mainstay_host::manifest_file::Loaded;
use mainstay_store::registry::{ChangeRequest, Program, Registered, Registry, Remains, Work};
use mainstay_store::state_dir::StateDir;

use super::account;
use super::order::{Order, Wanted};
use crate::deploy::registered::{
    Evidence, changed_manifest, definition, evidence, outdated, program, set_version, unregister,
    unseen,
};
use crate::installed::{Installed, Record, registry_of};
use crate::library_failure::of_library;

/// Marks all services of an order as owned by this process.
pub(super) fn begin(order: &Order<'_>, places: &[Installed]) -> Result<Work, Failure> {
    let Record {
        manager,
        mode,
        user,
        ..
    } = order.record;
    let definition = definition(order.manifest, manager, mode.as_str())?;
    let requests = places
        .iter()
        .zip(&order.wanted)
        .map(|(place, wanted)| ChangeRequest {
            name: place.name.clone(),
            expected: order.expected,
            definition: Some(Definition {
                user,
                sandbox: wanted.has_sandbox,
                ..definition.clone()
            }),
        });
    let requests: Vec<ChangeRequest> = requests.collect();
    let Some(place) = places.first() else {
        return Err(Failure::new(Code::Usage, "no services to install"));
    };
    let path = place.registry_path();
    place.create_all_dir().map_err(|error| {
        let message = format!("cannot create the directory of {}: {error}", path.display());
        match error.kind() {
            io::ErrorKind::PermissionDenied => Failure::new(Code::PermissionDenied, message).hint(
                "run it as an administrator; remove files that another account has created there",
            ),
            _ => Failure::new(Code::CannotWrite, message),
        }
    })?;
    let registry = Registry::open(&path)?;
    Ok(registry.begin(&requests)?)
}

/// Returns the program files of an order, where they can be read now.
pub(crate) fn programs(order: &Order<'_>) -> Vec<Option<Program>> {
    let dir = &order.manifest.dir;
    let programs = order.wanted.iter().map(|wanted| {
        // Programs of an image are not on this system.
        order.root.is_none().then_some(())?;
        program(wanted.spec, dir)
    });
    programs.collect()
}

impl Installed {
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
        let why = registered
            .life
            .why()
            .unwrap_or("the service manager does not have it");
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
        remains: Remains,
        remove: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let name = std::slice::from_ref(&self.name);
        unregister(&self.registry_path(), name, (expected, remains), |_| {
            remove()
        })
    }

    /// Adds the registered version and the drift to a report: the deviations from what is
    /// registered, one sentence each, including those of the running program as far as the report
    /// shows them. The drift is unknown if this process cannot read the registry.
    pub(crate) fn complete(&self, report: &mut ServiceReport) {
        let registered = self.registered();
        set_version(report, &registered);
        let is_denied = |failure: &Failure| failure.code() == Code::PermissionDenied;
        if let Some(problem) = unseen(&registered) {
            report.state_problem = report.state_problem.take().or(Some(problem));
        } else if !registered.as_ref().is_err_and(is_denied) {
            let evidence = self.evidence_of(&registered).into_iter();
            let causes = evidence.flat_map(|it| it.causes);
            let outdated = outdated(&self.registry_path(), &registered, report);
            report.drift = Some(causes.chain(outdated).collect());
        }
    }

    /// Checks that this process may read the registry and query the manager.
    ///
    /// # Errors
    /// If it may not. That is no deviation from what is registered.
    pub(crate) fn check_access(&self) -> Result<(), Failure> {
        if let Err(failure) = self.registered()
            && failure.code() == Code::PermissionDenied
        {
            return Err(failure);
        }
        match self.service().status() {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(of_library(error)),
            _ => Ok(()),
        }
    }

    /// Returns a complaint if the service runs with an earlier definition than the registered one.
    pub(crate) fn outdated(&self, report: &ServiceReport) -> Option<String> {
        outdated(&self.registry_path(), &self.registered(), report)
    }

    /// Collects the evidence from the registry and from the registered files.
    pub(crate) fn registered_evidence(&self) -> Vec<Evidence> {
        self.evidence_of(&self.registered())
    }

    fn evidence_of(&self, registered: &Result<Option<Registered>, Failure>) -> Vec<Evidence> {
        evidence(registered, |registered| {
            let path = self.manifest_path(registered.definition.format);
            let files = match self.changed_files(&registered.definition) {
                Ok(paths) => paths
                    .iter()
                    .map(|path| {
                        if path.exists() {
                            format!("{} has changed since the installation", path.display())
                        } else {
                            format!("{} is missing", path.display())
                        }
                    })
                    .collect(),
                Err(failure) => vec![failure.message().to_owned()],
            };
            vec![
                Evidence::of("manifest", changed_manifest(&path, registered)),
                Evidence::of("unit files", files),
            ]
        })
    }

    pub(crate) fn changed_files(&self, definition: &Definition) -> Result<Vec<PathBuf>, Failure> {
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
pub(crate) struct Kept {
    manifest: Loaded,
    pub(crate) spec: Spec,
    record: Record,
    has_sandbox: bool,
}

impl Kept {
    pub(crate) fn of(name: &ServiceName, definition: &Definition) -> Result<Self, Failure> {
        let unknown = |why: &str| {
            let message = format!("the registered definition of {name} is unusable: {why}");
            Failure::new(Code::Failed, message)
        };
        let specs = manifest::parse(&definition.manifest, definition.format)
            .map_err(|_| unknown("its manifest is invalid for this version of mainstay"))?;
        let spec = specs.iter().find(|spec| spec.name() == name).cloned();
        Ok(Self {
            spec: spec.ok_or_else(|| unknown("its manifest does not define the service"))?,
            manifest: Loaded {
                specs,
                dir: definition.base_dir.clone().into(),
                text: definition.manifest.clone(),
                format: definition.format,
            },
            record: Record::of(definition)
                .ok_or_else(|| unknown("its service manager is unknown"))?,
            has_sandbox: definition.sandbox,
        })
    }

    /// Returns the order that reinstalls the definition as it was.
    pub(crate) fn order(&self) -> Order<'_> {
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
    if let Some(definition) = registry.definition(name, version)? {
        return Ok(definition);
    }
    let message = format!("{name} has no version {version}, or the version is no longer stored");
    let stored = registry.versions(name)?.into_iter();
    let stored: Vec<_> = stored.map(|version| version.to_string()).collect();
    let stored = stored.join(", ");
    let hint = format!("stored versions: {stored}; see their changes: mainstay history {name}");
    Err(Failure::new(Code::Unknown, message).hint(hint))
}
