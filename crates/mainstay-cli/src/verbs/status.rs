//! `mainstay status` and `mainstay list`: what a running supervisor says of its services, or what a dead one left of them.

use std::process::ExitCode;

use mainstay_core::engine::StateName;
use mainstay_core::report::StatusReport;

use crate::failure::{Code, Failure};
use crate::state_dir::StateDir;
use crate::{client, host, output, table};

/// Shows the state of services.
///
/// Exits 0 if all that are shown run, 3 if one does not, or their supervisor is gone, 4 if there is no such service.
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
        match is_supervised(&report) && report.services.iter().all(|service| up(service.state)) {
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
        let report = show(state, &[], self.json)?;
        match is_supervised(&report) {
            true => Ok(ExitCode::SUCCESS),
            false => Ok(ExitCode::from(Code::NotRunning as u8)),
        }
    }
}

fn is_supervised(report: &StatusReport) -> bool {
    report.supervisor.is_none_or(|supervisor| supervisor.alive)
}

/// From the supervisor; where it was killed, from what it left.
fn show(state: &StateDir, names: &[String], json: bool) -> Result<StatusReport, Failure> {
    let mut report = match client::block_on(client::status(state))? {
        Ok(report) => report,
        Err(absent) if absent.code() == Code::NotRunning => {
            let orphans = host::orphans(state).ok_or(absent)?;
            let (what, hint) = orphans.remark();
            output::complain(&format!("{what}\nhint: {hint}"));
            orphans.report
        }
        Err(failure) => return Err(failure),
    };
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
