//! `mainstay enable` and `mainstay disable`: whether installed services start with the system.

use std::process::ExitCode;

use crate::failure::Failure;
use crate::installed::Installed;
use crate::output;
use crate::state_dir::StateDir;

/// Which services.
#[derive(Debug, clap::Args)]
pub(crate) struct Enable {
    /// The services.
    #[arg(required = true)]
    names: Vec<String>,
}

impl Enable {
    pub(crate) fn run(self, state: &StateDir, is_enabled: bool) -> Result<ExitCode, Failure> {
        let all = Installed::named(state, &self.names)?;
        for installed in all {
            installed.set_enabled(is_enabled)?;
            let what = if is_enabled { "enabled" } else { "disabled" };
            output::text(&format!("{}: {what}\n", installed.name()))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
