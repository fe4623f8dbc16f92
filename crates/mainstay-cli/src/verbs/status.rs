//! `mainstay status` and `mainstay list`: show services as reported by a running supervisor, or as
//! left by a dead one.

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use mainstay_core::engine::StateName;
use mainstay_core::failure::{Code, Failure};
use mainstay_core::manifest::duration;
use mainstay_core::report::{ServiceReport, StatusReport};
use mainstay_host as host;
use mainstay_host::{output, table};
use mainstay_store::state_dir::StateDir;
use mainstay_store::{completed, embedded};

use crate::client;
use crate::installed::Installed;
use crate::request_error::RequestError;
use crate::{deploy, last_event, not_found};

/// The polling interval of `--wait`.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Show the state of services
///
/// Exits 0 if every service shown is running or paused, and ready; 3 if one is not, or the
/// supervisor is gone; 4 if there is no such service.
#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    /// Show only these services [default: all]
    names: Vec<String>,
    /// Wait until every named service has settled (running, stopped, paused or halted), up to this
    /// long (e.g. 30s); needs NAMES
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "names")]
    wait: Option<Duration>,
    /// Also exit 0 for a service that is not ready in time or keeps failing while its host retries:
    /// the readiness check of managers
    #[arg(long, hide = true, requires = "wait")]
    started: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// The number of restarts after which a start is no longer waited for.
const STEADY: u64 = 2;

/// Returns whether a host of the service is running and starts the service again.
fn is_retried(service: &ServiceReport) -> bool {
    use StateName::{BackingOff, StartPending, StopPending, Waiting};
    let state = service.state;
    // The same state from a manager shows nothing about a host.
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
            // The host may not be up yet.
            match asked {
                Ok(seen) if rests(&seen) => break Ok(seen),
                // The host ended after its service.
                Err(_) if self.started && completed::is_stored(state) => {
                    return Ok(ExitCode::SUCCESS);
                }
                asked if !has_time => break asked,
                _ => thread::sleep(POLL_INTERVAL),
            }
        };
        print_remark(remark);
        let Seen { mut report, hidden } = seen?;
        look_for_drift(state, &mut report);
        look_for_replaced_files(state, &mut report);
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

/// List all services and their state
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl List {
    pub(crate) fn run(self, state: &StateDir) -> Result<ExitCode, Failure> {
        let mut remark = None;
        let seen = ask(state, &[], &mut remark);
        print_remark(remark);
        let mut report = seen?.report;
        look_for_drift(state, &mut report);
        look_for_replaced_files(state, &mut report);
        show(&report, self.json)?;
        if is_supervised(&report) {
            Ok(ExitCode::SUCCESS)
        } else {
            Ok(ExitCode::from(Code::NotRunning as u8))
        }
    }
}

/// A fact about a dead supervisor, and a hint.
type Remark = (String, &'static str);

/// Prints the remark of the last poll, however many polls there were.
fn print_remark(remark: Option<Remark>) {
    if let Some((what, hint)) = remark {
        output::remark(&format!("{what}\nhint: {hint}"));
    }
}

/// The visible state of services.
struct Seen {
    report: StatusReport,
    /// The services whose state only the manager can report, with the failure of the request for
    /// more.
    hidden: Vec<(String, Failure)>,
}

/// Adds the registered version and the drift of every installed service to the report.
fn look_for_drift(state: &StateDir, report: &mut StatusReport) {
    let names: Vec<String> = report.services.iter().map(|it| it.name.clone()).collect();
    for installed in installed(state, &names) {
        let name = installed.name().as_str();
        let mut services = report.services.iter_mut();
        // A service of the embedded supervisor can have the same name.
        if let Some(service) = services.find(|it| it.name == name && it.manager != "embedded") {
            installed.complete(service);
        }
    }
    let services = report.services.iter_mut();
    services.for_each(|service| deploy::embedded::complete(state, service));
}

/// Adds a remark to the supervisor, and to each of its services, that runs a program file which has
/// been replaced or deleted.
fn look_for_replaced_files(state: &StateDir, report: &mut StatusReport) {
    let supervisor = report.supervisor.as_mut();
    // The process IDs of another container are those of other processes here.
    let Some(supervisor) = supervisor.filter(|it| state.holder() == Some(it.pid)) else {
        return;
    };
    let is_replaced = mainstay_sys::runs_replaced_file(supervisor.pid);
    supervisor.replaced = is_replaced.then(|| {
        "it runs from a file that has been replaced or deleted: restart it; to keep its services \
         running meanwhile, see docs/install.md"
            .to_owned()
    });
    let services = report.services.iter_mut();
    for service in services.filter(|it| it.manager == "embedded") {
        service.replaced = deploy::replaced(&service.name, [("its program", service.pid)]);
    }
}

fn is_supervised(report: &StatusReport) -> bool {
    report.supervisor.as_ref().is_none_or(|it| it.alive)
}

/// Collects reports from the supervisor, or from the state that a killed supervisor left, and from
/// the system's service manager for its own services.
fn ask(state: &StateDir, names: &[String], remark: &mut Option<Remark>) -> Result<Seen, Failure> {
    *remark = None;
    let installed = installed(state, names);
    let found = |name: &String| installed.iter().any(|it| it.name().as_str() == name);
    let other = names.iter().find(|name| !found(name));
    let mut report = if names.is_empty() || other.is_some() {
        supervised(state, installed.is_empty(), remark).map_err(|error| match other {
            Some(name) => not_found::service_or(state, &[name], error),
            None => error.into(),
        })?
    } else {
        StatusReport::default()
    };
    let mut hidden = Vec::new();
    for service in &installed {
        let (seen, failure) = service.seen()?;
        hidden.extend(failure.map(|failure| (seen.name.clone(), failure)));
        report.services.push(seen);
    }
    for name in names {
        if !report.services.iter().any(|service| service.name == *name) {
            // A running supervisor returns the reason.
            let asked =
                client::block_on(client::expect_service(state, "show the status of", name))?;
            return Err(match asked {
                Err(error @ RequestError::NoService(_)) => {
                    let near = error.hint().map(str::to_owned);
                    let hint =
                        near.unwrap_or("list the supervised services: mainstay list".to_owned());
                    not_found::service_or(state, &[name], error).hint(hint)
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
    if json {
        output::document(report)
    } else {
        output::painted(&table::status(report, output::terminal_width()))
    }
}

/// Returns the report of the supervisor, or of the state that a dead one left. Without either,
/// reports the services installed for the embedded manager.
///
/// # Errors
/// If there is no supervisor and nothing to report, and `must` is set.
fn supervised(
    state: &StateDir,
    must: bool,
    remark: &mut Option<Remark>,
) -> Result<StatusReport, RequestError> {
    let missing = deploy::embedded::missing(state);
    let mut report = match client::block_on(client::status(state))? {
        Err(RequestError::NoSupervisor(absent)) => {
            let mut report = match host::orphans(state) {
                Some(orphans) => {
                    *remark = Some(orphans.remark());
                    orphans.report
                }
                None => StatusReport {
                    supervisor: None,
                    services: embedded::reports(state),
                },
            };
            if remark.is_none() && must && report.services.is_empty() && missing.is_empty() {
                return Err(RequestError::NoSupervisor(absent));
            }
            let services = report.services.iter_mut();
            services.for_each(|service| last_event::explain(state, service));
            report
        }
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

/// Returns the services of the system's service manager: the named ones, or all.
fn installed(state: &StateDir, names: &[String]) -> Vec<Installed> {
    let mut found: Vec<Installed> = if names.is_empty() {
        Installed::all(state)
    } else {
        let found = names.iter().filter_map(|name| Installed::find(state, name));
        found.collect()
    };
    // The embedded manager is queried like any supervisor.
    found.retain(|installed| !embedded::is_installed(state, installed.name().as_str()));
    found
}
