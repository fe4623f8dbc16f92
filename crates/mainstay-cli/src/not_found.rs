//! Failures of verbs that find no service, or no supervisor. The messages list the existing
//! services and their manager, and the permission that this process lacks to see more.

use mainstay::Manager;
use mainstay_core::failure::{Code, Failure, Sought};
use mainstay_core::report::StatusReport;
use mainstay_core::suggest::did_you_mean;
use mainstay_store::embedded;
use mainstay_store::state_dir::StateDir;

use crate::completion::{self, Live};
use crate::installed::Installed;
use crate::last_event;
use crate::request_error::RequestError;

/// The maximum number of names in a hint.
const MOST_NAMES: usize = 12;

/// Returns the failure of a verb that names a service which no manager has.
pub(crate) fn service(state: &StateDir, name: &str) -> Failure {
    if let Some(failure) = Installed::misnamed(state, name) {
        return failure;
    }
    let failure = Failure::new(
        Code::Unknown,
        format!("no service named {name} is installed"),
    );
    let managers = managers(state);
    let hint = if managers.is_empty() {
        "no services are installed here; install them with `mainstay install FILE`, or choose another directory: --state-dir DIR"
                .to_owned()
    } else {
        let all = managers.iter().map(|(manager, names)| {
            let names = list(names, ", ");
            format!("{names} ({manager})")
        });
        let all = format!("installed services: {}", all.collect::<Vec<_>>().join("; "));
        let names = managers.iter().flat_map(|(_, names)| names);
        match did_you_mean(name, names.map(String::as_str)) {
            Some(near) => format!("{near} {all}"),
            None => all,
        }
    };
    let failure = failure.hint(hint).about([name]);
    failure.seeking(Sought::Service(name.to_owned()))
}

/// Returns the failure of a verb that reads what is stored about services, if there is nothing
/// about the named one.
pub(crate) fn stored(state: &StateDir, what: &str, name: &str) -> Failure {
    let known = completion::names(state, &Live::Services);
    let near = did_you_mean(name, known.iter().map(String::as_str));
    let hint = near.unwrap_or_else(|| match &known[..] {
        [] => "if it runs with another state directory, use --state-dir DIR".to_owned(),
        known => format!("services with stored events or logs: {}", list(known, ", ")),
    });
    let message = format!("no {what} {name} in {}", state.path().display());
    let failure = Failure::new(Code::Unknown, message).hint(hint);
    failure.seeking(Sought::Service(name.to_owned()))
}

/// Returns the same failure for a service that is missing from a report.
pub(crate) fn service_among(state: &StateDir, name: &str, report: &StatusReport) -> Failure {
    let failure = service(state, name);
    let names = report.services.iter().map(|service| service.name.clone());
    match (&report.supervisor, names.collect::<Vec<_>>()) {
        (Some(supervisor), names) if !names.is_empty() => {
            let near = did_you_mean(name, names.iter().map(String::as_str));
            let near = near.map(|near| near + " ").unwrap_or_default();
            let (pid, names) = (supervisor.pid, list(&names, ", "));
            failure.hint(format!("{near}the supervisor (pid {pid}) runs {names}"))
        }
        _ => failure,
    }
}

/// Returns the failure of a verb after the last possible place of a service was searched. If other
/// services are installed or have stored events, the failure names the first of `names` that is
/// unknown. Otherwise, the set of services is unknown, and the failure is that of the request.
pub(crate) fn service_or(
    state: &StateDir,
    names: &[impl AsRef<str>],
    error: impl Into<RequestError>,
) -> Failure {
    let error = error.into();
    let is_absent = matches!(error, RequestError::NoSupervisor(_));
    let is_unknown = matches!(error, RequestError::NoService(_));
    let failure = Failure::from(error).about(names);
    let is_installed =
        |name: &str| embedded::is_installed(state, name) || Installed::find(state, name).is_some();
    // The answer of a running supervisor takes precedence, although its service may be in a place
    // that this process cannot read.
    if is_unknown {
        let mut names = names.iter().map(AsRef::as_ref);
        return match names.find(|name| !is_installed(name)) {
            Some(name) => failure.seeking(Sought::Service(name.to_owned())),
            None => failure,
        };
    }
    if !is_absent && failure.sought().is_none() {
        return failure;
    }
    let mut names = names.iter().map(AsRef::as_ref);
    match names.find(|name| !is_installed(name)) {
        Some(name) if !managers(state).is_empty() => service(state, name),
        Some(name) if is_stranger(state, name) => stored(state, "service named", name),
        Some(name) if failure.sought().is_some() => {
            failure.seeking(Sought::Service(name.to_owned()))
        }
        _ => failure,
    }
}

/// Returns whether something is stored about services, and nothing about this one.
fn is_stranger(state: &StateDir, name: &str) -> bool {
    let known = completion::names(state, &Live::Services);
    !known.is_empty() && !known.iter().any(|it| it == name)
}

/// Returns the failure of a request to a supervisor that is not running.
pub(crate) fn supervisor(state: &StateDir) -> Failure {
    let absent = |message: String| Failure::new(Code::NotRunning, message);
    let place = state.path().display();
    if let Some(installed) = Installed::of_state(state) {
        let (name, manager) = (installed.name(), installed.record().manager);
        return if installed.is_direct() {
            absent(format!(
                "{manager} runs {name} directly, without a supervisor"
            ))
            .hint(format!(
                "use the tools of {manager}, or install {name} again with --mode hosted"
            ))
        } else {
            absent(format!(
                "{name} is not running: {manager} has not started its supervisor"
            ))
            .hint(format!("start it: mainstay start {name}"))
            .about([name.as_str()])
        };
    }
    let embedded = embedded::names(state);
    if !embedded.is_empty() {
        let names = list(&embedded, ", ");
        return absent(format!("`mainstay daemon` is not running in {place}"))
            .hint(format!("start `mainstay daemon`: it manages {names}"));
    }
    let absent = absent(format!("no supervisor is running in {place}")).seeking(Sought::Supervisor);
    match managers(state).first() {
        Some((manager, names)) => {
            let names = list(names, " ");
            absent.hint(format!(
                "{manager} manages the services here; name one or more: {names}"
            ))
        }
        None => {
            let start =
                "start one with `mainstay run FILE`, or choose another directory: --state-dir DIR";
            let is_empty = completion::names(state, &Live::Services).is_empty();
            absent.hint(if is_empty {
                start.to_owned()
            } else {
                format!("see what happened: mainstay events; {start}")
            })
        }
    }
}

/// Adds to a failure why the services do not run that it is about. Replaces it if the missing
/// service or supervisor may be in a place that this process cannot read.
pub(crate) fn explain(state: &StateDir, failure: Failure) -> Failure {
    let failure = last_event::note(state, failure);
    let name = match failure.sought() {
        Some(Sought::Service(name)) => Some(&**name),
        Some(Sought::Supervisor) => None,
        None => return failure,
    };
    match state.closed(name) {
        Some(closed) => {
            let message = failure.message();
            closed.failure(&format!("{message}, but not all services are visible"))
        }
        None => failure,
    }
}

/// Returns the installed services, grouped by manager.
fn managers(state: &StateDir) -> Vec<(&'static str, Vec<String>)> {
    let own = embedded::names(state).into_iter();
    let mut all: Vec<(&str, Vec<String>)> = Vec::new();
    let own = own.map(|name| (Manager::Mainstay.name(), name));
    let of_system = Installed::all(state).into_iter();
    let of_system = of_system.map(|it| (it.record().manager.name(), it.name().to_string()));
    for (manager, name) in of_system.chain(own) {
        match all.iter_mut().find(|(it, _)| *it == manager) {
            Some((_, names)) => names.push(name),
            None => all.push((manager, vec![name])),
        }
    }
    all
}

fn list(names: &[String], separator: &str) -> String {
    let shown = names.iter().take(MOST_NAMES).map(String::as_str);
    let mut text = shown.collect::<Vec<_>>().join(separator);
    if names.len() > MOST_NAMES {
        text += &format!("{separator}… ({} in all)", names.len());
    }
    text
}
