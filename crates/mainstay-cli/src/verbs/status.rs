//! `mainstay status` and `mainstay list`: what a running supervisor says of its services.

use std::process::ExitCode;

use mainstay_core::engine::StateName;
use mainstay_core::report::StatusReport;

use crate::failure::{Code, Failure};
use crate::state_dir::StateDir;
use crate::{client, output, table};

/// Shows the state of services.
///
/// Exits 0 if all that are shown run, 3 if one does not, 4 if there is no such service.
#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    /// Only these services.
    names: Vec<String>,
    /// One JSON document.
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(crate) fn run(self, state: &StateDir) -> Result<ExitCode, Failure> {
        let report = show(state, &self.names, self.json)?;
        let up = |state| matches!(state, StateName::Running | StateName::Paused);
        match report.services.iter().all(|service| up(service.state)) {
            true => Ok(ExitCode::SUCCESS),
            false => Ok(ExitCode::from(Code::NotRunning as u8)),
        }
    }
}

/// Lists the services of the supervisor.
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// One JSON document.
    #[arg(long)]
    json: bool,
}

impl List {
    pub(crate) fn run(self, state: &StateDir) -> Result<ExitCode, Failure> {
        show(state, &[], self.json)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn show(state: &StateDir, names: &[String], json: bool) -> Result<StatusReport, Failure> {
    let mut report = client::block_on(client::status(state))??;
    for name in names {
        if !report.services.iter().any(|service| service.name == *name) {
            return Err(
                Failure::new(Code::Unknown, format!("no service {name} is supervised"))
                    .hint("`mainstay list` shows those that are"),
            );
        }
    }
    if !names.is_empty() {
        report
            .services
            .retain(|service| names.contains(&service.name));
    }
    if json {
        output::document(&report)?;
    } else {
        output::text(&table::status(&report, output::stdout_has_colour()))?;
    }
    Ok(report)
}
