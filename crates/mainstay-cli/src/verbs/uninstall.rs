//! `mainstay uninstall`: removes installed services.

use std::process::ExitCode;

use mainstay_core::failure::{Code, Failure};
use mainstay_core::registry::Expected;
use mainstay_host::output;
use mainstay_store::registry::Remains;
use mainstay_store::state_dir::StateDir;

use super::number;
use crate::deploy::embedded;
use crate::installed::Installed;
use crate::progress;

/// Stop and remove services; keep their logs and data
#[derive(Debug, clap::Args)]
pub(crate) struct Uninstall {
    /// Names of the services
    #[arg(required = true)]
    names: Vec<String>,
    /// Also delete their logs, data and history, even those of services uninstalled without --purge
    #[arg(long)]
    purge: bool,
    /// Uninstall only if version N is installed (one service only)
    #[arg(long, value_name = "N", value_parser = number)]
    if_version: Option<u64>,
}

impl Uninstall {
    pub(crate) fn run(self, state: &StateDir) -> Result<ExitCode, Failure> {
        if self.if_version.is_some() && self.names.len() != 1 {
            let message = format!(
                "cannot uninstall {} services: --if-version applies to one service",
                self.names.len()
            );
            return Err(Failure::new(Code::Usage, message));
        }
        let remains = if self.purge {
            Remains::Purge
        } else {
            Remains::Keep
        };
        let _progress = progress::of_services(state, "uninstalling", &self.names);
        let (embedded, of_system) = embedded::split_left(state, self.names, remains);
        let expected = self.if_version.map_or(Expected::Any, Expected::from);
        let found = if self.purge {
            Installed::named_once(state, &of_system)?
        } else {
            Installed::named(state, &of_system)?
        };
        if !embedded.is_empty() {
            embedded::uninstall_all(state, &embedded, expected, remains)?;
            for name in embedded {
                output::confirm(&format!("{name}: uninstalled\n"))?;
            }
        }
        let mut failure = None;
        for installed in found {
            match installed.uninstall(expected, remains) {
                Ok(()) => output::confirm(&format!("{}: uninstalled\n", installed.name()))?,
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(ExitCode::SUCCESS), Err)
    }
}
