//! The other end of the control socket: what verbs ask of a running supervisor (docs/control.md).

use std::io;
use std::pin::pin;
use std::time::{Duration, Instant};

use hyper::body::{Bytes, Incoming};
use hyper::{Method, Response, StatusCode};
use mainstay_core::engine::{StateName, Style, TrialPhase};
use mainstay_core::report::{ServiceReport, StatusReport};
use mainstay_core::snapshot::SnapshotId;
use serde::Deserialize;

use crate::access::{self, Closed};
use crate::failure::{Code, Failure};
use crate::host::{self, Reach, TrialRequest, endpoint};
use crate::http;
use crate::installed::Installed;
use crate::not_found;
use crate::state_dir::StateDir;

/// A supervisor that runs answers a question about itself within this time, whatever its services do.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a supervisor whose queue of connections is full is left alone.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a supervisor that lives may be without a socket.
const WITHOUT_SOCKET: Duration = Duration::from_secs(2);
/// How often it is looked for meanwhile.
const LOOK: Duration = Duration::from_millis(20);

/// The time between a dying supervisor's last word and its end.
const DEATH: Duration = Duration::from_millis(200);

/// Runs one conversation to its end. Blocks.
pub(crate) fn block_on<T>(conversation: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Code::Failed, format!("start the event loop: {error}")))?;
    Ok(tokio::task::LocalSet::new().block_on(&runtime, conversation))
}

/// The state of every service.
pub(crate) async fn status(state: &StateDir) -> Result<StatusReport, Failure> {
    let (status, body) = ask(state, Method::GET, "/v1/services").await?;
    parse(status, &body)
}

/// Fails where the supervisor does not have this service, with its reason.
pub(crate) async fn expect_service(
    state: &StateDir,
    what: &str,
    name: &str,
) -> Result<(), Failure> {
    let (status, body) = ask(state, Method::GET, &format!("/v1/services/{name}")).await?;
    match status {
        StatusCode::NOT_FOUND => {
            let message = format!("{what} {name}: {}", reason(&body));
            Err(Failure::new(Code::Unknown, message))
        }
        _ => Ok(()),
    }
}

/// Has every service stopped and waits until all have come to rest.
pub(crate) async fn stop_all(state: &StateDir) -> Result<StatusReport, Failure> {
    let (status, body) = ask(state, Method::POST, "/v1/stop").await?;
    if status.is_success() {
        return parse(status, &body);
    }
    let message = format!("stop: {}", reason(&body));
    Err(Failure::new(code(status), message))
}

/// Has a service do something and waits until it has come to rest.
pub(crate) async fn request(
    state: &StateDir,
    name: &str,
    verb: &str,
) -> Result<ServiceReport, Failure> {
    let (status, body) = ask(state, Method::POST, &format!("/v1/services/{name}/{verb}")).await?;
    if status.is_success() {
        return parse(status, &body);
    }
    let why = reason(&body);
    let failure = Failure::new(code(status), format!("{verb} {name}: {why}"));
    Err(match why == format!("it is {}", StateName::Paused) {
        true => failure.hint(format!("`mainstay continue {name}` lets it run again")),
        false => failure,
    })
}

/// Has services do something together and waits until all have come to rest; with the others that a stop is to reach.
pub(crate) async fn request_all(
    state: &StateDir,
    names: &[String],
    verb: &str,
    reach: Reach,
) -> Result<Vec<ServiceReport>, Failure> {
    if let ([name], Reach::Named) = (names, reach) {
        return Ok(vec![request(state, name, verb).await?]);
    }
    let query = match reach {
        Reach::Named => "",
        Reach::WithDependents => "?with-dependents",
    };
    let path = format!("/v1/services/{}/{verb}{query}", names.join(","));
    let (status, body) = ask(state, Method::POST, &path).await?;
    if status.is_success() {
        return parse::<StatusReport>(status, &body).map(|report| report.services);
    }
    let message = format!("{verb} {}: {}", names.join(", "), reason(&body));
    Err(Failure::new(code(status), message))
}

/// Has a snapshot of a running service taken, and waits until it is complete; its name.
pub(crate) async fn snapshot(state: &StateDir, name: &str) -> Result<SnapshotId, Failure> {
    #[derive(Deserialize)]
    struct Taken {
        snapshot: SnapshotId,
    }
    let path = format!("/v1/services/{name}/snapshot");
    let (status, body) = ask(state, Method::POST, &path).await?;
    if status.is_success() {
        return parse::<Taken>(status, &body).map(|taken| taken.snapshot);
    }
    Err(refused(
        &format!("take a snapshot of {name}"),
        status,
        &body,
    ))
}

/// What has become of a definition that was tried.
pub(crate) enum Tried {
    /// It is healthy, and held for a moment until somebody [decides](decide).
    Healthy(Box<ServiceReport>),
    /// The old one is what it was.
    GivenUp(GivenUp),
}

/// Why a definition was given up.
#[derive(Debug, Deserialize)]
pub(crate) struct GivenUp {
    /// For people.
    #[serde(rename = "error")]
    pub(crate) why: String,
    pub(crate) phase: TrialPhase,
    /// A supervisor of an older version does not tell it.
    #[serde(default)]
    pub(crate) style: Option<Style>,
    /// The last that its program wrote.
    pub(crate) last_lines: Vec<String>,
}

/// Tries a new definition of a service, for as long as that takes. It is given up where this ends before.
pub(crate) async fn try_out(
    state: &StateDir,
    name: &str,
    request: &TrialRequest,
) -> Result<Tried, Failure> {
    let unwritten = |error| Failure::new(Code::Failed, format!("write a request: {error}"));
    let body = serde_json::to_vec(request).map_err(unwritten)?;
    let path = format!("/v1/services/{name}/update");
    let (status, body) = ask_with(state, Method::POST, &path, body.into()).await?;
    if status.is_success() {
        return Ok(Tried::Healthy(Box::new(parse(status, &body)?)));
    }
    if let Ok(given_up) = serde_json::from_slice(&body) {
        return Ok(Tried::GivenUp(given_up));
    }
    let code = match status {
        StatusCode::UNPROCESSABLE_ENTITY => Code::InvalidManifest,
        status => code(status),
    };
    Err(Failure::new(
        code,
        format!("update {name}: {}", reason(&body)),
    ))
}

/// What follows on a trial.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Decision {
    /// The new definition takes the place of the old one.
    Commit,
    /// It is given up.
    Abort,
}

/// Decides on a definition that is being tried.
pub(crate) async fn decide(
    state: &StateDir,
    name: &str,
    decision: Decision,
) -> Result<ServiceReport, Failure> {
    let verb = match decision {
        Decision::Commit => "update/commit",
        Decision::Abort => "update/abort",
    };
    request(state, name, verb).await
}

/// Has the log of a service rotated.
pub(crate) async fn rotate(state: &StateDir, name: &str) -> Result<(), Failure> {
    let path = format!("/v1/services/{name}/logs/rotate");
    let (status, body) = ask(state, Method::POST, &path).await?;
    let code = match status {
        status if status.is_success() => return Ok(()),
        StatusCode::SERVICE_UNAVAILABLE => Code::Busy,
        _ => Code::Unknown,
    };
    let why = format!("rotate the log of {name}: {}", reason(&body));
    Err(Failure::new(code, why))
}

/// Has a daemon take up what is installed under these names, all or nothing; for their owner in the registry.
pub(crate) async fn define(state: &StateDir, names: &[&str], owner: &str) -> Result<(), Failure> {
    let path = format!("/v1/services/{}?owner={owner}", names.join(","));
    let (status, body) = ask(state, Method::PUT, &path).await?;
    done("install", &names.join(", "), status, &body)
}

/// Has a daemon stop these services and forget them, all or none; for their owner in the registry, where they have one.
pub(crate) async fn forget(
    state: &StateDir,
    names: &[String],
    owner: Option<&str>,
) -> Result<(), Failure> {
    let owner = owner.unwrap_or_default();
    let path = format!("/v1/services/{}?owner={owner}", names.join(","));
    let (status, body) = ask(state, Method::DELETE, &path).await?;
    done("uninstall", &names.join(", "), status, &body)
}

fn done(what: &str, whom: &str, status: StatusCode, body: &[u8]) -> Result<(), Failure> {
    match status.is_success() {
        true => Ok(()),
        false => Err(refused(&format!("{what} {whom}"), status, body)),
    }
}

/// The failure of an operation that the supervisor refused, or cannot do now.
fn refused(operation: &str, status: StatusCode, body: &[u8]) -> Failure {
    let code = match status {
        StatusCode::SERVICE_UNAVAILABLE => Code::Busy,
        status => code(status),
    };
    Failure::new(code, format!("{operation}: {}", reason(body)))
}

/// Facts as they happen.
pub(crate) async fn events(state: &StateDir) -> Result<Response<Incoming>, Failure> {
    let conversation = send(state, Method::GET, "/v1/events", Bytes::new());
    while_it_responds(state, conversation).await
}

async fn ask(state: &StateDir, method: Method, path: &str) -> Result<(StatusCode, Bytes), Failure> {
    ask_with(state, method, path, Bytes::new()).await
}

async fn ask_with(
    state: &StateDir,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), Failure> {
    let conversation = async {
        let response = send(state, method, path, body).await?;
        let whole = http::whole(response).await;
        whole.map_err(|error| broken(state, &error))
    };
    while_it_responds(state, conversation).await
}

/// Waits for an answer as long as it takes, provided that the supervisor responds meanwhile.
async fn while_it_responds<T>(
    state: &StateDir,
    conversation: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut conversation = pin!(conversation);
    loop {
        let check = async {
            tokio::time::sleep(PATIENCE).await;
            let question = async {
                let response = send(state, Method::GET, "/v1", Bytes::new()).await?;
                let whole = http::whole(response).await;
                whole.map_err(|error| broken(state, &error))
            };
            tokio::time::timeout(PATIENCE, question).await
        };
        tokio::select! {
            result = &mut conversation => return result,
            answer = check => {
                let Ok(answer) = answer else {
                    return Err(unresponsive(state));
                };
                answer?;
            }
        }
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
            failure.hint(format!("it is stopped (SIGSTOP): kill -CONT {pid}"))
        }
        _ => failure.hint("try again; nothing was done that was not answered"),
    }
}

/// Whether the process is stopped by a signal or a debugger, if the system tells.
fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before may hold anything (proc(5)).
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    matches!(state, Some('T' | 't'))
}

async fn send(
    state: &StateDir,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Response<Incoming>, Failure> {
    let stream = connect(state).await?;
    http::exchange(stream, method, "mainstay", path, body)
        .await
        .map_err(|error| broken(state, &error))
}

/// A supervisor whose socket somebody has deleted makes another one in a moment.
async fn connect(state: &StateDir) -> Result<endpoint::Stream, Failure> {
    let deadline = Instant::now() + WITHOUT_SOCKET;
    loop {
        let error = match endpoint::connect(state.path()).await {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(error) => error,
        };
        let is_gone = matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
        );
        let Some(pid) = is_gone.then(|| host::supervisor(state)).flatten() else {
            return Err(absent(state, &error));
        };
        if Instant::now() > deadline {
            let place = state.path().display();
            let message =
                format!("talk to the supervisor of {place} (pid {pid}): its socket is lost");
            let hint = format!("see what it does, or end it: kill {pid}");
            return Err(Failure::new(Code::Failed, message).hint(hint));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn absent(state: &StateDir, error: &io::Error) -> Failure {
    let place = state.path().display();
    let foreign = error.get_ref().and_then(|it| it.downcast_ref());
    if let Some(endpoint::Foreign { owner }) = foreign {
        let message = format!("talk to the supervisor of {place}: its socket belongs to {owner}");
        let hint = format!("{}; or name another --state-dir DIR", access::run_as(owner));
        return Failure::new(Code::PermissionDenied, message).hint(hint);
    }
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => not_found::supervisor(state),
        io::ErrorKind::PermissionDenied => {
            let installed = Installed::of_state(state);
            let whose = installed
                .as_ref()
                .map_or(place.to_string(), |it| it.name().to_string());
            let operation = format!("talk to the supervisor of {whose}");
            let failure = match Closed::at(&endpoint::path(state.path())) {
                Some(closed) => closed.failure(&operation),
                None => Failure::new(Code::PermissionDenied, format!("{operation}: {error}"))
                    .hint(access::run_as_administrator()),
            };
            match installed {
                // It may run as an account of its own.
                Some(_) => failure.hint(access::run_as_administrator()),
                None => failure,
            }
        }
        _ => broken(state, error),
    }
}

/// The failure of a conversation that ended too early. A supervisor that is being killed closes its
/// socket a moment before it is gone, so this blocks for that long.
pub(crate) fn broken(state: &StateDir, error: &io::Error) -> Failure {
    let place = state.path().display();
    let deadline = Instant::now() + DEATH;
    while state.holder().is_some() {
        if Instant::now() > deadline {
            let message = format!("talk to the supervisor of {place}: {error}");
            return Failure::new(Code::Failed, message).hint("try again");
        }
        std::thread::sleep(LOOK);
    }
    let message = format!("the supervisor of {place} ended before it had answered");
    Failure::cut_short(message).hint("see what was done: mainstay status")
}

fn parse<'a, T: Deserialize<'a>>(status: StatusCode, body: &'a [u8]) -> Result<T, Failure> {
    if !status.is_success() {
        return Err(Failure::new(
            Code::Failed,
            format!("the supervisor refused: {}", reason(body)),
        ));
    }
    serde_json::from_slice(body).map_err(|error| {
        Failure::new(
            Code::Failed,
            format!("read the supervisor's answer: {error}"),
        )
    })
}

/// What a refusal means to whoever asked.
fn code(status: StatusCode) -> Code {
    match status {
        StatusCode::NOT_FOUND => Code::Unknown,
        StatusCode::LOCKED | StatusCode::PRECONDITION_FAILED => Code::Busy,
        _ => Code::Failed,
    }
}

fn reason(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
    }
    match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => refusal.error,
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    }
}
