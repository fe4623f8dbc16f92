//! `mainstay uninstall`: the other way round.

use std::process::ExitCode;

use crate::failure::{Code, Failure};
use crate::installed::Installed;
use crate::output;
use crate::state_dir::StateDir;

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
        let mut found = Vec::with_capacity(self.names.len());
        for name in &self.names {
            let missing = || {
                let failure =
                    Failure::new(Code::Unknown, format!("no service {name} is installed"));
                failure.hint("`mainstay list` shows those that are")
            };
            found.push((name, Installed::find(state, name).ok_or_else(missing)?));
        }
        let mut failure = None;
        for (name, installed) in found {
            match installed.uninstall(self.purge) {
                Ok(()) => output::text(&format!("{name}: uninstalled\n"))?,
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(ExitCode::SUCCESS), Err)
    }
}
