//! Updates of services run by the embedded manager.

use std::path::PathBuf;

use mainstay_api::Verb;
use mainstay_core::engine::StateName;
use mainstay_core::failure::{Code, Failure};
use mainstay_core::manifest;
use mainstay_core::registry::{self, Version};
use mainstay_core::spec::ServiceName;
use mainstay_host as host;
use mainstay_host::definitions;
use mainstay_store::embedded::{self, Definition};
use mainstay_store::programs::Programs;
use mainstay_store::registry::Program;
use mainstay_store::state_dir::StateDir;

use super::{Change, Site, Trial, Untried, UpdateError};
use crate::client;
use crate::deploy::embedded::{
    Saved, misfit, next_record, notify, outdated, put, registered_evidence,
};
use crate::deploy::registered;
use crate::request_error::RequestError;

/// An installed service of the embedded manager.
#[derive(Debug)]
pub(crate) struct Embedded {
    state: StateDir,
    name: ServiceName,
}

impl Embedded {
    /// Returns the service of this name, if it is installed.
    pub(crate) fn find(state: &StateDir, name: &ServiceName) -> Option<Self> {
        embedded::is_installed(state, name.as_str()).then(|| Self {
            state: state.clone(),
            name: name.clone(),
        })
    }

    fn defined(&self, definition: &registry::Definition) -> Result<Definition, Failure> {
        let specs = manifest::parse(&definition.manifest, definition.format).unwrap_or_default();
        let spec = specs.into_iter().find(|spec| *spec.name() == self.name);
        let spec = spec.ok_or_else(|| {
            let message = format!("the registered definition of {} is unusable: its manifest does not define the service", self.name);
            Failure::new(Code::Failed, message)
        })?;
        let dir = definition.base_dir.as_ref();
        let digest = Some(definition.text_digest());
        Ok(Definition::of_manifest(spec.beside_others(), dir, digest))
    }
}

impl Site for Embedded {
    fn name(&self) -> &ServiceName {
        &self.name
    }

    fn registry_path(&self) -> PathBuf {
        embedded::registry_path(&self.state)
    }

    fn programs(&self) -> Programs {
        Programs::of_place(&embedded::place(&self.state, self.name.as_str()))
    }

    fn drift(&self) -> Vec<String> {
        let name = self.name.as_str();
        let evidence = registered_evidence(&self.state, name).into_iter();
        let report = client::block_on(client::status(&self.state));
        let report = report.ok().and_then(Result::ok);
        let mut services = report.into_iter().flat_map(|it| it.services);
        let service = services.find(|it| it.name == name);
        let outdated = service.and_then(|it| outdated(&self.state, &it));
        evidence.flat_map(|it| it.causes).chain(outdated).collect()
    }

    fn program(&self, definition: &registry::Definition) -> Option<Program> {
        let defined = self.defined(definition).ok()?;
        registered::program(&defined.spec, &defined.dir)
    }

    /// Returns the daemon.
    fn supervisor(
        &self,
        _old: &registry::Definition,
        _new: &registry::Definition,
    ) -> Result<Option<StateDir>, Failure> {
        Ok(Some(self.state.clone()))
    }

    fn put(&self, definition: &registry::Definition, version: Version) -> Result<(), Failure> {
        let _lock = embedded::lock(&self.state)?;
        let place = embedded::place(&self.state, self.name.as_str());
        let what = (definition.base_dir.clone().into(), definition.format);
        let record = next_record(&self.state, self.name.as_str(), what, version);
        let saved = Saved::of(&place)?;
        put(&place, &definition.manifest, &record).inspect_err(|_| saved.take_back())
    }

    fn restore(
        &self,
        definition: &registry::Definition,
        version: Version,
        owner: &str,
    ) -> Result<(), Failure> {
        self.put(definition, version)?;
        let name = self.name.as_str();
        notify(&self.state, &[name], owner)?;
        let report = match client::block_on(client::status(&self.state))? {
            Err(RequestError::NoSupervisor(_)) => None,
            report => Some(report?),
        };
        let is_supervised = report.is_some();
        // Processes of a killed daemon may still be running.
        let report = report.or_else(|| Some(host::orphans(&self.state)?.report));
        let services = report.map(|report| report.services).unwrap_or_default();
        let is_other = services.iter().any(|service| {
            let digest = service.definition_digest.as_ref();
            service.name == name
                && service.state == StateName::Running
                && digest.is_some_and(|digest| *digest != definition.text_digest())
        });
        match (is_other, is_supervised) {
            (false, _) => Ok(()),
            (true, true) => {
                client::block_on(client::request(&self.state, name, Verb::Restart))??;
                Ok(())
            }
            (true, false) => {
                let message = format!(
                    "cannot restore {name}: it runs with another definition and without a supervisor"
                );
                Err(Failure::new(Code::NotRunning, message)
                    .hint("start the daemon, then the service"))
            }
        }
    }

    /// Writes the new definition. No supervisor is running, so nothing is started.
    fn change(&self, change: &Change<'_>) -> Result<Trial, UpdateError> {
        let (new, version) = change.new;
        let (mut all, _) = definitions::all(&self.state, &[]);
        all.retain(|it| *it.spec.name() != self.name);
        all.push(self.defined(new)?);
        definitions::graph(&all).map_err(misfit)?;
        self.put(new, version)?;
        Ok(Err(Untried::NoDaemon))
    }
}
