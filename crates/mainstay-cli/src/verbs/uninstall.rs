//! `mainstay uninstall`: the other way round.

use std::process::ExitCode;

use crate::failure::Failure;
use crate::installed::Installed;
use crate::state_dir::StateDir;
use crate::{embedded, output};

/// Stops services and removes them from this system. Their logs and data stay.
#[derive(Debug, clap::Args)]
pub(crate) struct Uninstall {
    /// The services.
    #[arg(required = true)]
    names: Vec<String>,
    /// Their logs and data go as well.
    #[arg(long)]
    purge: bool,
}

impl Uninstall {
    pub(crate) fn run(self, state: &StateDir) -> Result<ExitCode, Failure> {
        let (embedded, of_system) = embedded::split(state, self.names);
        let found = Installed::named(state, &of_system)?;
        if !embedded.is_empty() {
            embedded::uninstall_all(state, &embedded, self.purge)?;
            for name in embedded {
                output::text(&format!("{name}: uninstalled\n"))?;
            }
        }
        let mut failure = None;
        for installed in found {
            match installed.uninstall(self.purge) {
                Ok(()) => output::text(&format!("{}: uninstalled\n", installed.name()))?,
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(ExitCode::SUCCESS), Err)
    }
}
