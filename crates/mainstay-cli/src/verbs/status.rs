//! `mainstay status` and `mainstay list`: what a running supervisor says of its services, or what a dead one left of them.

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use mainstay_core::engine::StateName;
use mainstay_core::report::{ServiceReport, StatusReport};

use crate::failure::{Code, Failure};
use crate::installed::Installed;
use crate::state_dir::StateDir;
use crate::{client, embedded, host, output, table};

/// How often it is looked while it is waited.
const LOOK: Duration = Duration::from_millis(50);

/// Shows the state of services.
///
/// Exits 0 if all that are shown run, 3 if one does not, or their supervisor is gone, 4 if there is no such service.
#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    /// Only these services.
    names: Vec<String>,
    /// Waits until all that are named have come to rest (run, are stopped, paused or halted), this long at most.
    #[arg(long, value_name = "DURATION", value_parser = super::duration, requires = "names")]
    wait: Option<Duration>,
    /// One JSON document.
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(crate) fn run(self, state: &StateDir) -> Result<ExitCode, Failure> {
        let deadline = self.wait.map(|wait| Instant::now() + wait);
        let rests = |report: &StatusReport| report.services.iter().all(|it| it.state.is_settled());
        let report = loop {
            let asked = ask(state, &self.names);
            let has_time = deadline.is_some_and(|deadline| Instant::now() < deadline);
            // Its host may not be there yet.
            match asked {
                Ok(report) if rests(&report) || !has_time => break report,
                Err(failure) if !has_time => return Err(failure),
                _ => thread::sleep(LOOK),
            }
        };
        let mut report = report;
        look_for_drift(state, &mut report);
        show(&report, self.json)?;
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
        let mut report = ask(state, &[])?;
        look_for_drift(state, &mut report);
        show(&report, self.json)?;
        match is_supervised(&report) {
            true => Ok(ExitCode::SUCCESS),
            false => Ok(ExitCode::from(Code::NotRunning as u8)),
        }
    }
}

/// Of services that are installed.
fn look_for_drift(state: &StateDir, report: &mut StatusReport) {
    let names: Vec<String> = report.services.iter().map(|it| it.name.clone()).collect();
    for installed in installed(state, &names) {
        let name = installed.name().as_str();
        let mut services = report.services.iter_mut();
        // A supervisor's own may have the same name.
        if let Some(service) = services.find(|it| it.name == name && it.manager != "embedded") {
            service.drift = Some(installed.drift(service));
        }
    }
    let services = report.services.iter_mut();
    services.for_each(|service| embedded::complete(state, service));
}

fn is_supervised(report: &StatusReport) -> bool {
    report.supervisor.as_ref().is_none_or(|it| it.alive)
}

/// From the supervisor; where it was killed, from what it left; from the system's own manager of the services that it has.
fn ask(state: &StateDir, names: &[String]) -> Result<StatusReport, Failure> {
    let installed = installed(state, names);
    let misnamed = || {
        names
            .iter()
            .find_map(|name| Installed::misnamed(state, name))
    };
    let mut report = match names.is_empty() || names.len() > installed.len() {
        true => supervised(state, installed.is_empty())
            .map_err(|failure| misnamed().unwrap_or(failure))?,
        false => StatusReport::default(),
    };
    for service in &installed {
        report.services.push(service.report()?);
    }
    for name in names {
        if !report.services.iter().any(|service| service.name == *name) {
            // A supervisor that runs gives the reason.
            let asked = client::block_on(client::expect_service(state, "status", name))?;
            let unknown = match asked {
                Err(failure) if failure.code() == Code::Unknown => failure,
                _ => Failure::new(Code::Unknown, format!("no service {name} is supervised")),
            };
            let unknown = unknown.hint("`mainstay list` shows those that are supervised");
            return Err(misnamed().unwrap_or(unknown));
        }
    }
    if !names.is_empty() {
        report
            .services
            .retain(|service| names.contains(&service.name));
    }
    Ok(report)
}

fn show(report: &StatusReport, json: bool) -> Result<(), Failure> {
    match json {
        true => output::document(report),
        false => output::painted(&table::status(report)),
    }
}

/// What the supervisor says, or a dead one left; what is installed for one, where there is none; nothing, unless there `must` be something.
fn supervised(state: &StateDir, must: bool) -> Result<StatusReport, Failure> {
    let missing = embedded::missing(state);
    let mut report = match client::block_on(client::status(state))? {
        Err(absent) if absent.code() == Code::NotRunning => match host::orphans(state) {
            Some(orphans) => {
                let (what, hint) = orphans.remark();
                output::complain(&format!("{what}\nhint: {hint}"));
                orphans.report
            }
            None => {
                let services = embedded::reports(state);
                if must && services.is_empty() && missing.is_empty() {
                    return Err(absent);
                }
                StatusReport {
                    supervisor: None,
                    services,
                }
            }
        },
        answer => answer?,
    };
    report.services.extend(missing);
    Ok(report)
}

/// Those that the system's own manager has: the named ones, or all.
fn installed(state: &StateDir, names: &[String]) -> Vec<Installed> {
    let mut found: Vec<Installed> = match names.is_empty() {
        true => Installed::all(state),
        false => {
            let found = names.iter().filter_map(|name| Installed::find(state, name));
            found.collect()
        }
    };
    // Our own daemon is asked like any supervisor.
    found.retain(|installed| !embedded::is_installed(state, installed.name().as_str()));
    found
}
