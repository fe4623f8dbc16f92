//! `mainstay status` and `mainstay list`: what a running supervisor says of its services, or what a dead one left of them.

use std::process::ExitCode;

use mainstay_core::engine::StateName;
use mainstay_core::report::{ServiceReport, StatusReport};

use crate::failure::{Code, Failure};
use crate::installed::Installed;
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
        let up = |service: &ServiceReport| {
            service.ready && matches!(service.state, StateName::Running | StateName::Paused)
        };
        match is_supervised(&report) && report.services.iter().all(up) {
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

/// From the supervisor; where it was killed, from what it left; from the system's own manager of the services that it has.
fn show(state: &StateDir, names: &[String], json: bool) -> Result<StatusReport, Failure> {
    let installed = installed(state, names);
    let mut report = match names.is_empty() || names.len() > installed.len() {
        true => supervised(state, installed.is_empty())?,
        false => StatusReport::default(),
    };
    for service in &installed {
        report.services.push(service.report()?);
    }
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

/// What the supervisor says, or a dead one left; nothing where there is none, unless there `must` be one.
fn supervised(state: &StateDir, must: bool) -> Result<StatusReport, Failure> {
    match client::block_on(client::status(state))? {
        Err(absent) if absent.code() == Code::NotRunning => match host::orphans(state) {
            Some(orphans) => {
                let (what, hint) = orphans.remark();
                output::complain(&format!("{what}\nhint: {hint}"));
                Ok(orphans.report)
            }
            None if must => Err(absent),
            None => Ok(StatusReport::default()),
        },
        answer => answer,
    }
}

/// Those that the system's own manager has: the named ones, or all.
fn installed(state: &StateDir, names: &[String]) -> Vec<Installed> {
    match names.is_empty() {
        true => Installed::all(state),
        false => {
            let found = names.iter().filter_map(|name| Installed::find(state, name));
            found.collect()
        }
    }
}
