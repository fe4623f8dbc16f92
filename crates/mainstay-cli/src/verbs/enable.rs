//! `mainstay enable` and `mainstay disable`: set whether installed services start at boot.

use std::process::ExitCode;

use mainstay_core::failure::Failure;
use mainstay_host::output;
use mainstay_store::embedded;
use mainstay_store::state_dir::StateDir;

use crate::deploy;
use crate::installed::Installed;

/// The services to enable or disable.
#[derive(Debug, clap::Args)]
pub(crate) struct Enable {
    /// Names of the services
    #[arg(required = true)]
    names: Vec<String>,
}

impl Enable {
    pub(crate) fn run(self, state: &StateDir, is_enabled: bool) -> Result<ExitCode, Failure> {
        let (embedded, of_system) = embedded::split(state, self.names.clone());
        let all = Installed::named(state, &of_system)?;
        if !embedded.is_empty() {
            deploy::embedded::set_enabled(state, &embedded, is_enabled)?;
        }
        for installed in all {
            installed.set_enabled(is_enabled)?;
        }
        let what = if is_enabled { "enabled" } else { "disabled" };
        for name in self.names {
            output::text(&format!("{name}: {what}\n"))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
