//! Updates of services run by the system's manager.

use std::path::PathBuf;

use mainstay_api::Verb;
use mainstay_core::engine::StateName;
use mainstay_core::failure::{Code, Failure};
use mainstay_core::registry::{Definition, Version};
use mainstay_core::spec::{ServiceName, Spec};
use mainstay_store::programs::Programs;
use mainstay_store::registry::Program;
use mainstay_store::state_dir::StateDir;

use super::{Change, Site, Trial, UpdateError};
use crate::deploy::system::{self, Kept};
use crate::installed::{Installed, Mode};

impl Site for Installed {
    fn name(&self) -> &ServiceName {
        &self.name
    }

    fn registry_path(&self) -> PathBuf {
        Self::registry_path(self)
    }

    fn programs(&self) -> Programs {
        Programs::of_place(&self.place)
    }

    fn drift(&self) -> Vec<String> {
        match self.report() {
            Ok(mut report) => {
                self.complete(&mut report);
                report.drift.unwrap_or_default()
            }
            Err(failure) => vec![failure.message().to_owned()],
        }
    }

    fn program(&self, definition: &Definition) -> Option<Program> {
        let kept = Kept::of(&self.name, definition).ok()?;
        system::programs(&kept.order()).pop().flatten()
    }

    /// Returns the host, if the account and the sandbox stay the same.
    fn supervisor(&self, old: &Definition, new: &Definition) -> Result<Option<StateDir>, Failure> {
        let (old, new) = (self.spec(old)?, self.spec(new)?);
        self.keeps_manager_name(&new, "update")?;
        let is_same_host = old.account() == new.account() && old.sandbox() == new.sandbox();
        let has_host = self.record.mode == Mode::Hosted && is_same_host;
        Ok(has_host.then(|| self.state.clone()))
    }

    fn put(&self, definition: &Definition, _version: Version) -> Result<(), Failure> {
        system::put(self, &Kept::of(&self.name, definition)?)
    }

    fn restore(
        &self,
        definition: &Definition,
        version: Version,
        _owner: &str,
    ) -> Result<(), Failure> {
        let is_changed = self.is_direct() && !self.changed_files(definition)?.is_empty();
        self.put(definition, version)?;
        let report = self.report()?;
        let is_other = match &report.definition_digest {
            Some(digest) => *digest != definition.text_digest(),
            // A definition passed to a manager takes effect at the next start.
            None if self.is_direct() => is_changed,
            None if report.state == StateName::Stopped => false,
            None => {
                let message = format!(
                    "cannot restore {}: its supervisor does not respond",
                    self.name
                );
                return Err(Failure::new(Code::Busy, message).hint("try again"));
            }
        };
        match report.state {
            StateName::Running if is_other => self.control(Verb::Restart).map(drop),
            _ => Ok(()),
        }
    }

    fn change(&self, change: &Change<'_>) -> Result<Trial, UpdateError> {
        change.by_manager(self)
    }
}

impl Installed {
    /// Returns the spec of this service in a definition.
    pub(crate) fn spec(&self, definition: &Definition) -> Result<Spec, Failure> {
        Ok(Kept::of(&self.name, definition)?.spec)
    }

    /// Returns the state directory of the host.
    pub(crate) fn state(&self) -> &StateDir {
        &self.state
    }
}
