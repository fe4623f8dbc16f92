//! The client of the control socket: requests from verbs to a running supervisor (docs/control.md).

use std::env;
use std::io;
use std::time::{Duration, Instant};

use hyper::body::{Bytes, Incoming};
use hyper::{Response, StatusCode};
use mainstay_api::{
    Client, Decision, Error, GivenUp, Healthy, Reach, Refusal, Route, Taken, TrialRequest, Verb,
    code_of, endpoint,
};
use mainstay_core::failure::{Code, Failure};
use mainstay_core::report::{ServiceReport, StatusReport};
use mainstay_core::snapshot::SnapshotId;
use mainstay_core::trace::TraceContext;
use mainstay_store::state_dir::StateDir;
use mainstay_sys::access;
use serde::Deserialize;

use crate::installed::Installed;
use crate::not_found;
use crate::request_error::RequestError;

/// The interval between checks of whether a supervisor is gone.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// The time within which a supervisor that has closed its socket exits.
const DEATH: Duration = Duration::from_millis(200);

/// Runs one conversation to completion. Blocks.
pub(crate) fn block_on<T>(conversation: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(
                Code::Failed,
                format!("cannot start the event loop: {error}"),
            )
        })?;
    Ok(tokio::task::LocalSet::new().block_on(&runtime, conversation))
}

/// Returns the state of every service.
pub(crate) async fn status(state: &StateDir) -> Result<StatusReport, RequestError> {
    let (status, body) = ask(state, &Route::Status).await?;
    parse(status, &body)
}

/// Checks that the supervisor has this service.
///
/// # Errors
/// If it does not, with the supervisor's reason.
pub(crate) async fn expect_service(
    state: &StateDir,
    what: &str,
    name: &str,
) -> Result<(), RequestError> {
    let route = Route::Entry {
        name: name.to_owned(),
    };
    let (status, body) = ask(state, &route).await?;
    match status {
        StatusCode::NOT_FOUND => {
            let Refusal { error, hint, .. } = refusal(&body);
            let failure = Failure::new(Code::Unknown, format!("cannot {what} {name}: {error}"));
            Err(RequestError::NoService(match hint {
                Some(hint) => failure.hint(hint),
                None => failure,
            }))
        }
        _ => Ok(()),
    }
}

/// Stops every service and waits until all have settled.
pub(crate) async fn stop_all(state: &StateDir) -> Result<StatusReport, RequestError> {
    let (status, body) = ask(state, &Route::StopAll).await?;
    if status.is_success() {
        return parse(status, &body);
    }
    Err(refused("stop", status, &body))
}

/// Sends a request for a service and waits until the service has settled.
pub(crate) async fn request(
    state: &StateDir,
    name: &str,
    verb: Verb,
) -> Result<ServiceReport, RequestError> {
    let route = verb.route(&[name.to_owned()], Reach::Named);
    request_one(state, name, verb.as_str(), &route).await
}

async fn request_one(
    state: &StateDir,
    name: &str,
    verb: &str,
    route: &Route,
) -> Result<ServiceReport, RequestError> {
    let (status, body) = ask(state, route).await?;
    if status.is_success() {
        return parse(status, &body);
    }
    Err(refused(&format!("{verb} {name}"), status, &body))
}

/// Sends one request for several services and waits until all have settled. The result includes the
/// dependents that a stop reaches.
pub(crate) async fn request_all(
    state: &StateDir,
    names: &[String],
    verb: Verb,
    reach: Reach,
) -> Result<Vec<ServiceReport>, RequestError> {
    if let ([name], Reach::Named) = (names, reach) {
        return Ok(vec![request(state, name, verb).await?]);
    }
    let (status, body) = ask(state, &verb.route(names, reach)).await?;
    if status.is_success() {
        return parse::<StatusReport>(status, &body).map(|report| report.services);
    }
    let operation = format!("{} {}", verb.as_str(), names.join(", "));
    Err(refused(&operation, status, &body))
}

/// Takes a snapshot of a running service, waits until it is complete and returns its ID.
pub(crate) async fn snapshot(state: &StateDir, name: &str) -> Result<SnapshotId, RequestError> {
    let route = Route::Snapshot {
        name: name.to_owned(),
    };
    let (status, body) = ask(state, &route).await?;
    if status.is_success() {
        return parse::<Taken>(status, &body).map(|taken| taken.snapshot);
    }
    let operation = format!("take a snapshot of {name}");
    Err(refused(&operation, status, &body))
}

/// The result of a trial of a new definition.
pub(crate) enum Tried {
    /// The service is healthy. The trial stays open for a short time, until the client
    /// [decides](decide).
    Healthy(Box<ServiceReport>),
    /// The trial failed, and the old definition is in effect.
    GivenUp(Box<GivenUp>),
}

/// Tries a new definition of a service, for as long as that takes. If this call is cancelled, the
/// trial is rolled back.
pub(crate) async fn try_out(
    state: &StateDir,
    name: &str,
    request: &TrialRequest,
) -> Result<Tried, RequestError> {
    let unwritten = |error| {
        let message = format!("cannot encode the request: {error}");
        Failure::new(Code::Failed, message)
    };
    let body = serde_json::to_vec(request).map_err(unwritten)?;
    let route = Route::Update {
        name: name.to_owned(),
    };
    let (status, body) = ask_with(state, &route, body.into()).await?;
    if status.is_success() {
        let healthy: Healthy = parse(status, &body)?;
        return Ok(Tried::Healthy(Box::new(healthy.report)));
    }
    if let Ok(given_up) = serde_json::from_slice(&body) {
        return Ok(Tried::GivenUp(given_up));
    }
    Err(refused(&format!("update {name}"), status, &body))
}

/// Commits or aborts a trial.
pub(crate) async fn decide(
    state: &StateDir,
    name: &str,
    decision: Decision,
) -> Result<ServiceReport, RequestError> {
    let verb = match decision {
        Decision::Commit => "update/commit",
        Decision::Abort => "update/abort",
    };
    let route = Route::Decide {
        name: name.to_owned(),
        decision,
    };
    request_one(state, name, verb, &route).await
}

/// Rotates the log of a service.
pub(crate) async fn rotate(state: &StateDir, name: &str) -> Result<(), RequestError> {
    let route = Route::RotateLog {
        name: name.to_owned(),
    };
    let (status, body) = ask(state, &route).await?;
    done("rotate the log of", name, status, &body)
}

/// Loads the services installed under these names into a running daemon, all or none, on behalf of
/// their owner in the registry.
pub(crate) async fn define(
    state: &StateDir,
    names: &[&str],
    owner: &str,
) -> Result<(), RequestError> {
    let route = Route::Define {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        owner: Some(owner.to_owned()),
    };
    let (status, body) = ask(state, &route).await?;
    done("install", &names.join(", "), status, &body)
}

/// Stops and removes these services in a running daemon, all or none, on behalf of their owner in
/// the registry, if they have one.
pub(crate) async fn forget(
    state: &StateDir,
    names: &[String],
    owner: Option<&str>,
) -> Result<(), RequestError> {
    let route = Route::Forget {
        names: names.to_vec(),
        owner: owner.map(str::to_owned),
    };
    let (status, body) = ask(state, &route).await?;
    done("uninstall", &names.join(", "), status, &body)
}

fn done(what: &str, whom: &str, status: StatusCode, body: &[u8]) -> Result<(), RequestError> {
    if status.is_success() {
        Ok(())
    } else {
        Err(refused(&format!("{what} {whom}"), status, body))
    }
}

/// Returns the failure of an operation that the supervisor refused. If the supervisor is of an
/// older version and gives no exit code, it follows from the status.
fn refused(operation: &str, status: StatusCode, body: &[u8]) -> RequestError {
    let refusal = refusal(body);
    let code = refusal.code.and_then(Code::from_number);
    let code = code.unwrap_or(code_of(status));
    let failure = Failure::new(code, format!("cannot {operation}: {}", refusal.error));
    let failure = match refusal.hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    };
    match status {
        StatusCode::NOT_FOUND => RequestError::NoService(failure),
        _ => RequestError::Failed(failure),
    }
}

/// Opens the stream of events.
pub(crate) async fn events(state: &StateDir) -> Result<Response<Incoming>, RequestError> {
    let supervisor = || state.supervisor();
    let client = Client::new(state.path(), &supervisor).within(trace());
    let stream = client.stream(&Route::Events).await;
    stream.map_err(|error| unanswered(state, error))
}

async fn ask(state: &StateDir, route: &Route) -> Result<(StatusCode, Bytes), RequestError> {
    ask_with(state, route, Bytes::new()).await
}

async fn ask_with(
    state: &StateDir,
    route: &Route,
    body: Bytes,
) -> Result<(StatusCode, Bytes), RequestError> {
    let supervisor = || state.supervisor();
    let client = Client::new(state.path(), &supervisor).within(trace());
    let answer = client.ask(route, body).await;
    answer.map_err(|error| unanswered(state, error))
}

/// Returns the trace that this process takes part in: each request belongs to it (docs/control.md).
fn trace() -> Option<TraceContext> {
    let parent = env::var(TraceContext::PARENT_VARIABLE).ok()?;
    let state = env::var(TraceContext::STATE_VARIABLE).ok();
    TraceContext::parse(&parent, state.as_deref())
}

/// Returns the failure of a request that was not answered.
fn unanswered(state: &StateDir, error: Error) -> RequestError {
    match error {
        Error::Unreachable(error) => absent(state, &error),
        Error::SocketLost { pid } => {
            let place = state.path().display();
            let message = format!(
                "cannot connect to the supervisor of {place} (pid {pid}): its socket is missing"
            );
            let hint = format!("check this process, or stop it: kill {pid}");
            Failure::new(Code::Failed, message).hint(hint).into()
        }
        Error::Unresponsive => unresponsive(state).into(),
        Error::Broken(error) => broken(state, &error).into(),
    }
}

fn unresponsive(state: &StateDir) -> Failure {
    let pid = state.holder();
    let who = pid.map_or_else(String::new, |pid| format!(", pid {pid},"));
    let failure = Failure::new(
        Code::Busy,
        format!(
            "the supervisor of {}{who} does not respond",
            state.path().display()
        ),
    );
    match pid {
        Some(pid) if is_stopped(pid) => {
            failure.hint(format!("it is suspended (SIGSTOP): kill -CONT {pid}"))
        }
        _ => failure.hint("try again; requests without a response were not executed"),
    }
}

/// Returns whether a signal or a debugger has stopped the process; false if the system does not
/// report it.
fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The process name before it can contain any characters (proc(5)).
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    matches!(state, Some('T' | 't'))
}

fn absent(state: &StateDir, error: &io::Error) -> RequestError {
    let place = state.path().display();
    let foreign = error.get_ref().and_then(|it| it.downcast_ref());
    if let Some(endpoint::Foreign { owner }) = foreign {
        let message =
            format!("cannot connect to the supervisor of {place}: its socket belongs to {owner}");
        let hint = format!(
            "{}; or choose another directory: --state-dir DIR",
            access::run_as(owner)
        );
        let failure = Failure::new(Code::PermissionDenied, message).hint(hint);
        return RequestError::Denied(failure);
    }
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            RequestError::NoSupervisor(not_found::supervisor(state).caused_by(error))
        }
        io::ErrorKind::PermissionDenied => {
            let installed = Installed::of_state(state);
            let whose = installed
                .as_ref()
                .map_or(place.to_string(), |it| it.name().to_string());
            let operation = format!("cannot connect to the supervisor of {whose}");
            let failure = access::denied(&operation, &endpoint::path(state.path()), error);
            RequestError::Denied(match installed {
                // An installed service can run as an account of its own.
                Some(_) => failure.hint(access::run_as_administrator()),
                None => failure,
            })
        }
        _ => broken(state, error).into(),
    }
}

/// The failure of a conversation that ended too early. A supervisor that is being killed closes its
/// socket a moment before it is gone, so this blocks for that long.
pub(crate) fn broken(state: &StateDir, error: &io::Error) -> Failure {
    let place = state.path().display();
    let deadline = Instant::now() + DEATH;
    while state.holder().is_some() {
        if Instant::now() > deadline {
            let message = format!("cannot connect to the supervisor of {place}: {error}");
            let failure = Failure::new(Code::Failed, message).caused_by(error);
            return failure.hint("try again");
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    let message = format!("the supervisor of {place} exited before it responded");
    let failure = Failure::new(Code::NotRunning, message).caused_by(error);
    failure.hint("check the result: mainstay status")
}

fn parse<'a, T: Deserialize<'a>>(status: StatusCode, body: &'a [u8]) -> Result<T, RequestError> {
    if !status.is_success() {
        return Err(refused("perform the request", status, body));
    }
    serde_json::from_slice(body).map_err(|error| {
        let message = format!("cannot decode the supervisor's response: {error}");
        Failure::new(Code::Failed, message).into()
    })
}

fn refusal(body: &[u8]) -> Refusal {
    serde_json::from_slice(body)
        .unwrap_or_else(|_| Refusal::new(Code::Failed, String::from_utf8_lossy(body)))
}
