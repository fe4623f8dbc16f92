//! `mainstay enable` and `mainstay disable`: set whether installed services start at boot.

use std::process::ExitCode;

use mainstay_core::failure::Failure;
use mainstay_host::output;
use mainstay_store::embedded;
use mainstay_store::state_dir::StateDir;

use crate::deploy::{self, Enablement};
use crate::installed::Installed;

/// The services to enable or disable.
#[derive(Debug, clap::Args)]
pub(crate) struct Enable {
    /// Names of the services
    #[arg(required = true)]
    names: Vec<String>,
}

impl Enable {
    pub(crate) fn run(self, state: &StateDir, wanted: Enablement) -> Result<ExitCode, Failure> {
        let (embedded, of_system) = embedded::split(state, self.names.clone());
        let all = Installed::named(state, &of_system)?;
        if !embedded.is_empty() {
            deploy::embedded::set_enablement(state, &embedded, wanted)?;
        }
        for installed in all {
            installed.set_enablement(wanted)?;
        }
        let what = match wanted {
            Enablement::Enabled => "enabled",
            Enablement::Disabled => "disabled",
        };
        for name in self.names {
            output::confirm(&format!("{name}: {what}\n"))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
