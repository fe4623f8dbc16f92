//! `mainstay start|stop|restart|pause|continue|reload NAME…`: sends the requests to the running
//! supervisor or the system's service manager, all at once, and waits for the results. Services
//! left by a dead supervisor can be stopped, but not controlled otherwise.

use std::process::ExitCode;

use mainstay_api::{Reach, Refusal, Verb};
use mainstay_core::engine::{Blocker, StateName};
use mainstay_core::failure::{Code, Failure};
use mainstay_core::report::{ServiceReport, StatusReport};
use mainstay_core::spec::ServiceName;
use mainstay_host::{self as host, Orphans, output};
use mainstay_store::state_dir::StateDir;
use serde::Serialize;

use crate::client;
use crate::deploy::update::{self, Embedded};
use crate::installed::Installed;
use crate::not_found;
use crate::progress;
use crate::request_error::RequestError;

/// The services to control.
#[derive(Debug, clap::Args)]
pub(crate) struct Control {
    /// Names of the services
    #[arg(required = true)]
    names: Vec<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// The services to stop; all of them if none is named.
#[derive(Debug, clap::Args)]
pub(crate) struct Stop {
    /// Names of the services [default: all]
    names: Vec<String>,
    /// Also stop the services that need these, directly or indirectly; they are stopped first
    #[arg(long, requires = "names")]
    with_dependents: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Returns whether the request is processed in the order of needs.
fn follows_needs(verb: Verb) -> bool {
    matches!(verb, Verb::Start | Verb::Stop | Verb::Restart)
}

/// Returns the state of a service after a successful request.
fn expected_state(verb: Verb) -> StateName {
    match verb {
        Verb::Stop => StateName::Stopped,
        Verb::Pause => StateName::Paused,
        Verb::Start | Verb::Restart | Verb::Continue | Verb::Reload => StateName::Running,
    }
}

/// Returns the word for a request in progress.
fn doing(verb: Verb) -> &'static str {
    match verb {
        Verb::Start => "starting",
        Verb::Stop => "stopping",
        Verb::Restart => "restarting",
        Verb::Pause => "pausing",
        Verb::Continue => "continuing",
        Verb::Reload => "reloading",
    }
}

impl Stop {
    pub(crate) fn run(self, state: &StateDir) -> Result<ExitCode, Failure> {
        let _progress =
            (!self.json).then(|| progress::of_services(state, doing(Verb::Stop), &self.names));
        let (names, json) = (self.names, self.json);
        let reach = if self.with_dependents {
            Reach::WithDependents
        } else {
            Reach::Named
        };
        if names.is_empty() {
            return match client::block_on(client::stop_all(state))? {
                Ok(report) => show(Verb::Stop, report.services.into_iter().map(Ok), json),
                Err(RequestError::NoSupervisor(_)) if state.has_left_something() => {
                    stop_orphans(state, &names, reach, json)
                }
                Err(error) => Err(error.into()),
            };
        }
        Control { names, json }.ask(Verb::Stop, reach, state)
    }
}

/// The answer to one request: an entry for each service it affected.
type Answer = Result<Vec<ServiceReport>, RequestError>;

impl Control {
    pub(crate) fn run(self, verb: Verb, state: &StateDir) -> Result<ExitCode, Failure> {
        let _progress =
            (!self.json).then(|| progress::of_services(state, doing(verb), &self.names));
        self.ask(verb, Reach::Named, state)
    }

    fn ask(self, verb: Verb, reach: Reach, state: &StateDir) -> Result<ExitCode, Failure> {
        let (mut managed, mut supervised) = (Vec::new(), Vec::new());
        for name in &self.names {
            match Installed::find(state, name) {
                Some(installed) => managed.push(installed),
                None => supervised.push(name.clone()),
            }
        }
        // All names are checked before any service is changed. If there is one request only, the
        // supervisor checks it as a whole.
        let is_one_request = managed.is_empty() && (follows_needs(verb) || supervised.len() < 2);
        if !is_one_request {
            for name in &supervised {
                let known = client::block_on(client::expect_service(state, verb.as_str(), name))?;
                known.map_err(|error| {
                    let misnamed = Installed::misnamed(state, name).map(RequestError::Failed);
                    let error = misnamed.unwrap_or(error);
                    not_found::service_or(state, std::slice::from_ref(name), error)
                })?;
            }
        }
        // One request for all services whose order depends on the needs graph.
        let groups: Vec<Vec<String>> = match follows_needs(verb) {
            _ if supervised.is_empty() => Vec::new(),
            true => vec![supervised],
            false => supervised.into_iter().map(|name| vec![name]).collect(),
        };
        let answers = client::block_on(async {
            let mut asked = Vec::new();
            let mut ask = |names: Vec<String>, question: Box<dyn FnOnce() -> Answer + Send>| {
                asked.push((names, tokio::task::spawn_blocking(question)));
            };
            let names: Vec<String> = managed.iter().map(|it| it.name().to_string()).collect();
            let place = state.clone();
            match verb {
                _ if managed.is_empty() => {}
                Verb::Stop => {
                    let stopped = names.clone();
                    ask(
                        names,
                        Box::new(move || stop_installed(&place, &stopped, reach)),
                    );
                }
                Verb::Restart if managed.len() > 1 => {
                    let restarted = names.clone();
                    ask(
                        names,
                        Box::new(move || restart_installed(&place, &restarted)),
                    );
                }
                _ => {
                    for installed in managed {
                        let name = installed.name().to_string();
                        ask(
                            vec![name],
                            Box::new(move || Ok(vec![update::control(&installed, verb)?])),
                        );
                    }
                }
            }
            for names in groups {
                let (state, asked) = (state.clone(), names.clone());
                let question = move || supervised_control(&state, &asked, verb, reach);
                ask(names, Box::new(question));
            }
            let mut answers = Vec::with_capacity(asked.len());
            for (names, answer) in asked {
                let failed = |error| {
                    let message = format!("cannot {}: {error}", verb.as_str());
                    RequestError::Failed(Failure::new(Code::Failed, message))
                };
                answers.push((names, answer.await.map_err(failed).flatten()));
            }
            answers
        })?;
        let is_absent =
            |(_, answer): &(_, Answer)| matches!(answer, Err(RequestError::NoSupervisor(_)));
        if answers.iter().all(is_absent) && state.has_left_something() {
            if verb == Verb::Stop {
                return stop_orphans(state, &self.names, reach, self.json);
            }
            if let Some(orphans) = host::orphans(state) {
                return Err(unsupervised(&orphans, verb, &self.names));
            }
        }
        let answers = answers
            .into_iter()
            .flat_map(|(names, answer)| match answer {
                Ok(services) => services.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(not_found::service_or(state, &names, error))],
            });
        show(verb, answers, self.json)
    }
}

/// Returns the failure of a request for services whose supervisor is dead.
fn unsupervised(orphans: &Orphans, verb: Verb, names: &[String]) -> Failure {
    let (what, hint) = orphans.remark();
    let message = format!("cannot {} {}: {what}", verb.as_str(), names.join(", "));
    let failure = Failure::new(Code::NotRunning, message).hint(hint);
    failure.about(names)
}

/// Stops services of the system's manager, each after those that need it.
fn stop_installed(state: &StateDir, names: &[String], reach: Reach) -> Answer {
    let mut all = Installed::with_dependents(state, names);
    if reach == Reach::Named {
        all.retain(|it| names.iter().any(|name| name == it.name().as_str()));
    }
    let stopped = all.iter().map(|installed| Ok(installed.stop(state)?));
    stopped.collect()
}

/// Stops services of the system's manager, each after those that need it, and starts them again in
/// reverse order.
fn restart_installed(state: &StateDir, names: &[String]) -> Answer {
    let is_named = |it: &Installed| names.iter().any(|name| name == it.name().as_str());
    // Some managers also stop the services that need a stopped one.
    let mut all = Installed::with_dependents(state, names);
    all.retain(|it| is_named(it) || it.is_up());
    let named = all.iter().filter(|it| is_named(it));
    let stopped = named
        .map(|it| Ok(update::control(it, Verb::Stop)?))
        .collect::<Answer>();
    let mut reports = Vec::with_capacity(names.len());
    for installed in all.iter().rev() {
        match is_named(installed) {
            true => reports.push(update::control(installed, Verb::Start)?),
            false if installed.is_up() => {}
            false => drop(update::control(installed, Verb::Start)?),
        }
    }
    stopped.map(|_| reports)
}

/// Sends the request to the supervisor of this state directory.
fn supervised_control(state: &StateDir, names: &[String], verb: Verb, reach: Reach) -> Answer {
    ask_supervisor(state, names, verb, reach).map_err(|error| match error {
        RequestError::NoSupervisor(_) | RequestError::NoService(_) => {
            let misnamed = names
                .iter()
                .find_map(|name| Installed::misnamed(state, name));
            misnamed.map_or(error, RequestError::Failed)
        }
        error => error,
    })
}

fn ask_supervisor(state: &StateDir, names: &[String], verb: Verb, reach: Reach) -> Answer {
    if matches!(verb, Verb::Start | Verb::Restart) {
        for name in names.iter().filter_map(|name| ServiceName::new(name)) {
            if let Some(embedded) = Embedded::find(state, &name) {
                update::repair_before_start(&embedded)?;
            }
        }
    }
    client::block_on(client::request_all(state, names, verb, reach))?
}

/// Stops the services that a dead supervisor left. They settle like those of a running supervisor.
fn stop_orphans(
    state: &StateDir,
    names: &[String],
    reach: Reach,
    json: bool,
) -> Result<ExitCode, Failure> {
    if let Some(orphans) = host::orphans(state) {
        output::remark(&orphans.remark().0);
    }
    let stopped = host::stop_without_supervisor(state, names, reach)?;
    let report = stopped.ok_or_else(|| not_found::supervisor(state))?;
    show(Verb::Stop, report.services.into_iter().map(Ok), json)
}

/// The document of a request: the services in the state that they settled in, and the errors.
#[derive(Serialize)]
struct Results<'a> {
    #[serde(flatten)]
    report: &'a StatusReport,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Refusal>,
}

/// Shows the result for each service, and fails with the first one that did not reach the requested
/// state.
fn show(
    verb: Verb,
    answers: impl Iterator<Item = Result<ServiceReport, Failure>>,
    json: bool,
) -> Result<ExitCode, Failure> {
    let mut report = StatusReport::default();
    let mut failures = Vec::new();
    for answer in answers {
        match answer {
            Ok(service) => {
                failures.extend(disappointment(verb, &service));
                report.services.push(service);
            }
            Err(error) => failures.push(error),
        }
    }
    if report.services.is_empty() && !failures.is_empty() {
        // The failure is the document.
    } else if json {
        output::document(&Results {
            report: &report,
            errors: failures.iter().map(Refusal::from).collect(),
        })?;
    } else {
        for service in &report.services {
            output::confirm(&format!("{}: {}\n", service.name, service.state))?;
        }
    }
    for service in &report.services {
        let name = &service.name;
        if let (Verb::Start | Verb::Restart, Some(id)) = (verb, service.restored) {
            output::remark(&format!(
                "warning: {name}: its state failed to load (exit code 201), so snapshot {id} was restored\n\
                 hint: see its snapshots, and the replaced state: mainstay snapshot list {name}"
            ));
        }
        if let Some(problem) = &service.state_problem {
            output::remark(&format!("warning: {name}: {problem}"));
        }
    }
    if verb == Verb::Stop {
        let needed = report.services.iter();
        needed
            .filter_map(still_needed)
            .for_each(|note| output::remark(&note));
    }
    let first = failures.into_iter().next();
    first.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// Returns a note about the running services that need a stopped one.
fn still_needed(service: &ServiceReport) -> Option<String> {
    let (by, name) = (&service.needed_by, &service.name);
    let (need, keep, all) = match by.len() {
        0 => return None,
        1 => ("needs", "keeps", "both"),
        _ => ("need", "keep", "all of them"),
    };
    let by = by.join(", ");
    Some(format!(
        "note: {by} {need} {name} and {keep} running\n\
         hint: `mainstay stop {name} --with-dependents` stops {all}"
    ))
}

/// Returns the failure of a service that settled in another state than requested. For `start` and
/// `restart`, a service that completed its work and exited cleanly is a success. One that somebody
/// stopped while it was starting may have exited cleanly, too.
fn disappointment(verb: Verb, service: &ServiceReport) -> Option<Failure> {
    let is_start = matches!(verb, Verb::Start | Verb::Restart);
    let is_stopped = service.state == StateName::Stopped;
    let exit = service.last_exit;
    let is_clean = is_stopped && exit.is_some_and(|exit| exit.code == Some(0));
    let has_completed = is_clean && service.completed.unwrap_or(true);
    if service.state == expected_state(verb) || is_start && has_completed {
        return None;
    }
    let ended = exit.filter(|_| is_stopped && verb != Verb::Stop);
    let detail = if is_start && is_clean {
        Some("it exited before it was ready, or was stopped meanwhile".to_owned())
    } else {
        service.remark().or(ended.map(|exit| exit.to_string()))
    };
    let state = service.it_is(detail.as_deref());
    let message = format!("cannot {} {}: {state}", verb.as_str(), service.name);
    let code = service.start_code.filter(|_| is_start);
    if let Some(Code::MissingPart) = code.and_then(Code::from_number) {
        let hint = "create or install what is missing, or correct its manifest";
        return Some(Failure::new(Code::MissingPart, message).hint(hint));
    }
    let name = &service.name;
    let failure = Failure::new(Code::Failed, message).about([name]);
    // A service that has not run has no output, and that of one that waits explains nothing.
    Some(match &service.blocker {
        Some(blocker) => match unblocking(blocker) {
            Some(hint) => failure.hint(hint),
            None => failure,
        },
        None if service.state == StateName::Waiting => failure,
        None if exit.is_some() || service.pid.is_some() => {
            failure.hint(format!("see its recent output: mainstay logs {name} -n 20"))
        }
        None if matches!(service.state, StateName::Halted | StateName::BackingOff) => {
            failure.hint(format!("see its events: mainstay events {name} -n 20"))
        }
        None => failure,
    })
}

/// Returns what to do about a service that others wait for.
fn unblocking(blocker: &Blocker) -> Option<String> {
    let name = &blocker.name;
    match blocker.state {
        StateName::Stopped => Some(format!("start {name}: mainstay start {name}")),
        StateName::Paused => Some(format!("resume {name}: mainstay continue {name}")),
        StateName::StopPending => None,
        _ if !blocker.has_run => None,
        _ => Some(format!(
            "see the output of {name}: mainstay logs {name} -n 20"
        )),
    }
}

#[cfg(test)]
mod tests {
    use mainstay_core::engine::Exit;

    use super::*;

    /// A program may exit with 0 because it was stopped. Earlier supervisors do not tell.
    #[test]
    fn a_start_succeeds_if_the_work_is_done_and_fails_if_it_was_stopped() {
        let failure = |completed| {
            let service = ServiceReport {
                last_exit: Some(Exit::Code(0).into()),
                completed,
                ..ServiceReport::embedded("app")
            };
            disappointment(Verb::Start, &service)
        };
        assert!(failure(Some(true)).is_none() && failure(None).is_none());
        let stopped = failure(Some(false)).expect("it was not ready");
        let expected = "cannot start app: it is stopped: it exited before it was ready, or was stopped meanwhile";
        assert_eq!(stopped.message(), expected);
    }

    /// A service that waits has no output that would explain it.
    #[test]
    fn the_hint_about_a_wait_names_the_service_that_is_at_fault() {
        let hint = |blocker: Option<(StateName, bool)>| {
            let mut service = ServiceReport::embedded("app");
            service.state = StateName::Waiting;
            service.last_exit = Some(Exit::Code(0).into());
            service.blocker = blocker.map(|(state, has_run)| Blocker {
                name: "redis".to_owned(),
                state,
                has_run,
            });
            let failure = disappointment(Verb::Start, &service).expect("it does not run");
            failure.hint_text().map(str::to_owned)
        };
        let logs = "see the output of redis: mainstay logs redis -n 20";
        for (blocker, expected) in [
            (Some((StateName::BackingOff, true)), Some(logs)),
            (Some((StateName::BackingOff, false)), None),
            (
                Some((StateName::Stopped, true)),
                Some("start redis: mainstay start redis"),
            ),
            (
                Some((StateName::Paused, true)),
                Some("resume redis: mainstay continue redis"),
            ),
            (Some((StateName::StopPending, true)), None),
            (None, None),
        ] {
            assert_eq!(hint(blocker).as_deref(), expected, "{blocker:?}");
        }
    }
}
