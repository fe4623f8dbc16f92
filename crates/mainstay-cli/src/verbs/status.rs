//! `mainstay status` and `mainstay list`: what a running supervisor says of its services, or what a dead one left of them.

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use mainstay_core::engine::StateName;
use mainstay_core::report::{ServiceReport, StatusReport};

use crate::failure::{Code, Failure};
use crate::installed::Installed;
use crate::state_dir::StateDir;
use crate::{client, completed, embedded, host, not_found, output, table};

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
    /// Also exits 0 for a service that is not ready in time, or keeps failing, while its host retries: the ready check of managers.
    #[arg(long, hide = true, requires = "wait")]
    started: bool,
    /// One JSON document.
    #[arg(long)]
    json: bool,
}

/// After so many restarts nobody should wait for a start.
const STEADY: u64 = 2;

/// Whether a host of the service is there and starts it again.
fn is_retried(service: &ServiceReport) -> bool {
    use StateName::{BackingOff, StartPending, StopPending, Waiting};
    let state = service.state;
    // A manager that says the same tells nothing of the host.
    service.since.is_some() && matches!(state, BackingOff | StartPending | StopPending | Waiting)
}

impl Status {
    pub(crate) fn run(self, state: &StateDir) -> Result<ExitCode, Failure> {
        let deadline = self.wait.map(|wait| Instant::now() + wait);
        let is_lost = |it: &ServiceReport| {
            let is_failing = it.state == StateName::BackingOff && it.restarts >= STEADY;
            self.started && (is_failing || it.crash_looping)
        };
        let rests = |seen: &Seen| {
            let mut services = seen.report.services.iter();
            services.all(|it| it.state.is_settled() || is_lost(it))
        };
        let mut remark = None;
        let seen = loop {
            let asked = ask(state, &self.names, &mut remark);
            let has_time = deadline.is_some_and(|deadline| Instant::now() < deadline);
            // Its host may not be there yet.
            match asked {
                Ok(seen) if rests(&seen) => break Ok(seen),
                // Its host has ended after it.
                Err(_) if self.started && completed::is_stored(state) => {
                    return Ok(ExitCode::SUCCESS);
                }
                asked if !has_time => break asked,
                _ => thread::sleep(LOOK),
            }
        };
        say(remark);
        let Seen { mut report, hidden } = seen?;
        look_for_drift(state, &mut report);
        show(&report, self.json)?;
        let is_up = |service: &ServiceReport| {
            let is_up = matches!(service.state, StateName::Running | StateName::Paused);
            service.ready && is_up || self.started && is_retried(service)
        };
        let is_hidden = |name: &str| hidden.iter().any(|(hidden, _)| hidden == name);
        let mut services = report.services.iter();
        let is_down = services.any(|it| !is_hidden(&it.name) && !is_up(it));
        match hidden.into_iter().next() {
            _ if is_down || !is_supervised(&report) => Ok(ExitCode::from(Code::NotRunning as u8)),
            Some((_, failure)) => Err(failure),
            None => Ok(ExitCode::SUCCESS),
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
        let mut remark = None;
        let seen = ask(state, &[], &mut remark);
        say(remark);
        let mut report = seen?.report;
        look_for_drift(state, &mut report);
        show(&report, self.json)?;
        match is_supervised(&report) {
            true => Ok(ExitCode::SUCCESS),
            false => Ok(ExitCode::from(Code::NotRunning as u8)),
        }
    }
}

/// A fact about a dead supervisor, and what to do.
type Remark = (String, &'static str);

/// Shows what the last look has found, however often it was looked.
fn say(remark: Option<Remark>) {
    if let Some((what, hint)) = remark {
        output::complain(&format!("{what}\nhint: {hint}"));
    }
}

/// What can be told of services.
struct Seen {
    report: StatusReport,
    /// The services of which only their manager can be asked, with the failure of asking more.
    hidden: Vec<(String, Failure)>,
}

/// Of services that are installed.
fn look_for_drift(state: &StateDir, report: &mut StatusReport) {
    let names: Vec<String> = report.services.iter().map(|it| it.name.clone()).collect();
    for installed in installed(state, &names) {
        let name = installed.name().as_str();
        let mut services = report.services.iter_mut();
        // A supervisor's own may have the same name.
        if let Some(service) = services.find(|it| it.name == name && it.manager != "embedded") {
            service.drift = installed.drift(service);
        }
    }
    let services = report.services.iter_mut();
    services.for_each(|service| embedded::complete(state, service));
}

fn is_supervised(report: &StatusReport) -> bool {
    report.supervisor.as_ref().is_none_or(|it| it.alive)
}

/// From the supervisor; where it was killed, from what it left; from the system's own manager of the services that it has.
fn ask(state: &StateDir, names: &[String], remark: &mut Option<Remark>) -> Result<Seen, Failure> {
    *remark = None;
    let installed = installed(state, names);
    let found = |name: &String| installed.iter().any(|it| it.name().as_str() == name);
    let other = names.iter().find(|name| !found(name));
    let mut report = match names.is_empty() || other.is_some() {
        true => supervised(state, installed.is_empty(), remark).map_err(|failure| match other {
            Some(name) => not_found::service_or(state, &[name], failure),
            None => failure,
        })?,
        false => StatusReport::default(),
    };
    let mut hidden = Vec::new();
    for service in &installed {
        let (seen, failure) = service.seen()?;
        hidden.extend(failure.map(|failure| (seen.name.clone(), failure)));
        report.services.push(seen);
    }
    for name in names {
        if !report.services.iter().any(|service| service.name == *name) {
            // A supervisor that runs gives the reason.
            let asked = client::block_on(client::expect_service(state, "status", name))?;
            return Err(match asked {
                Err(failure) if failure.code() == Code::Unknown => {
                    failure.hint("`mainstay list` shows those that are supervised")
                }
                _ => not_found::service_among(state, name, &report),
            });
        }
    }
    if !names.is_empty() {
        report
            .services
            .retain(|service| names.contains(&service.name));
    }
    Ok(Seen { report, hidden })
}

fn show(report: &StatusReport, json: bool) -> Result<(), Failure> {
    match json {
        true => output::document(report),
        false => output::painted(&table::status(report)),
    }
}

/// What the supervisor says, or a dead one left; what is installed for one, where there is none; nothing, unless there `must` be something.
fn supervised(
    state: &StateDir,
    must: bool,
    remark: &mut Option<Remark>,
) -> Result<StatusReport, Failure> {
    let missing = embedded::missing(state);
    let mut report = match client::block_on(client::status(state))? {
        Err(absent) if absent.code() == Code::NotRunning => match host::orphans(state) {
            Some(orphans) => {
                *remark = Some(orphans.remark());
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
    for service in missing {
        // A service that runs is more than its files.
        match report
            .services
            .iter_mut()
            .find(|it| it.name == service.name)
        {
            Some(known) => known.state_problem = known.state_problem.take().or(service.detail),
            None => report.services.push(service),
        }
    }
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
