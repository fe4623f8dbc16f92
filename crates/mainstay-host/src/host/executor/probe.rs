//! Probes: each performs one check and returns success, or the reason for its failure.
//!
//! A probe is dropped when its time is over, which closes everything that it had opened. `exec`
//! probes are child processes of the host like any other and are not performed here
//! (`programs.rs`).

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Method;
use hyper::body::Bytes;
use mainstay_core::engine::ProbeFailure;
use mainstay_core::spec::{HostPort, HttpUrl, Probe};
use mainstay_sys as sys;
use mainstay_sys::aside::{aside, resolve};
use mainstay_sys::guarded;
use tokio::net::TcpStream;

use crate::host::delay::Limit;
use crate::owner::{self, Owner, Place};
use mainstay_api::http::exchange;

/// The result of a probe: success and the local address that answered, if known; or the reason for
/// its failure.
pub(super) type Answer = Result<Option<Place>, No>;

/// The reason that a probe did not succeed.
pub(super) enum No {
    /// The service answered with a failure, or did not answer.
    Answer(ProbeFailure),
    /// A lack of resources in this process: the probe was not performed.
    Lacking(String),
    /// A delay of this process during the probe. The service may have answered, or given up.
    Delayed,
}

impl No {
    /// Returns the result of a probe that was not performed. If earlier ones hang, it counts as
    /// timed out.
    fn unasked(what: impl std::fmt::Display, error: &io::Error) -> Self {
        let why = format!("{what}: {}", brief(error));
        match error.kind() {
            io::ErrorKind::TimedOut => Self::Answer(ProbeFailure::Failed(why)),
            _ => Self::Lacking(why),
        }
    }

    fn of(what: impl std::fmt::Display, error: &io::Error) -> Self {
        let why = format!("{what}: {}", brief(error));
        if sys::is_lacking(error) {
            Self::Lacking(why)
        } else {
            Self::Answer(ProbeFailure::Failed(why))
        }
    }
}

/// Returns the operation that a probe performs, as the reasons for its failures name it.
pub(super) fn operation(probe: &Probe, base: &Path) -> String {
    match probe {
        Probe::Http(url) => format!("GET {}", url.without_query()),
        Probe::Tcp(address) => format!("connect to {address}"),
        Probe::Unix(path) => format!("connect to {}", base.join(path).display()),
        Probe::File(path) => format!("check {}", base.join(path).display()),
        Probe::Exec(argv) => format!("the probe command {}", argv.program()),
    }
}

/// Performs a check with a time limit. A timeout counts as failure of the operation.
pub(super) async fn within<T>(
    limit: Duration,
    operation: String,
    question: impl Future<Output = Result<T, No>>,
) -> Result<T, No> {
    let mut time = Limit::new(limit);
    let answer = tokio::select! {
        biased;
        answer = question => answer,
        () = time.over() => Err(No::Answer(ProbeFailure::TimedOut(operation, limit))),
    };
    answer.map_err(|no| match no {
        No::Answer(_) if time.was_delayed() => No::Delayed,
        no => no,
    })
}

/// Performs any probe except `exec`. Relative paths start at `base`.
pub(super) async fn ask(probe: &Probe, base: &Path) -> Answer {
    match probe {
        Probe::Http(url) => http(url).await,
        Probe::Tcp(address) => tcp(address).await,
        Probe::Unix(path) => unix(base.join(path)).await,
        Probe::File(path) => file(base.join(path)).await,
        Probe::Exec(_) => {
            let why = "a command is a child of the host".to_owned();
            Err(No::Answer(ProbeFailure::Failed(why)))
        }
    }
}

/// The result of a probe that was performed once, for a cross-check.
pub(crate) enum Asked {
    /// The probe passed.
    Passed,
    /// The probe failed, for this reason.
    Failed(String),
    /// The probe could not be performed, for this reason.
    Unknown(String),
}

/// Performs any probe except `exec` once, with a time limit.
pub(crate) async fn ask_probe(probe: &Probe, base: &Path, limit: Duration) -> Asked {
    match within(limit, operation(probe, base), ask(probe, base)).await {
        Ok(_) => Asked::Passed,
        Err(No::Answer(failure)) => Asked::Failed(failure.to_string()),
        Err(No::Lacking(why)) => Asked::Unknown(why),
        Err(No::Delayed) => Asked::Unknown("this process was delayed".to_owned()),
    }
}

/// Returns the owner of a local address, or an error if that is none of the service's processes.
/// The lookup may read every process, so it runs in a thread.
pub(super) async fn owner(at: Place, members: sys::Members) -> Result<Owner, No> {
    let place = at.clone();
    let look = aside(at.to_string(), move || owner::of(&place, Some(&members)));
    match look.await {
        Ok(Owner::Stranger(who)) => {
            let at = at.to_string();
            Err(No::Answer(ProbeFailure::Stranger { at, who }))
        }
        Ok(owner) => Ok(owner),
        Err(error) => Err(No::unasked(
            format_args!("determine which process listens at {at}"),
            &error,
        )),
    }
}

/// Succeeds if a connection is accepted.
async fn tcp(address: &HostPort) -> Answer {
    let stream = connect(address).await?;
    stream
        .map(|stream| here(&stream))
        .map_err(|error| No::of(format_args!("connect to {address}"), &error))
}

/// Returns the address of the peer, if it is on this machine.
fn here(stream: &TcpStream) -> Option<Place> {
    let (ours, other) = (stream.local_addr().ok()?, stream.peer_addr().ok()?);
    (other.ip().is_loopback() || other.ip() == ours.ip()).then_some(Place::Tcp(other))
}

/// Succeeds if the status is 200–399. The body is not read.
async fn http(url: &HttpUrl) -> Answer {
    let address = url.address();
    let stream = connect(address).await?;
    let answer = async {
        let stream = stream?;
        let here = here(&stream);
        let host = address.to_string();
        let path = url.path_and_query();
        let response = exchange(stream, Method::GET, &host, path, None, Bytes::new()).await?;
        Ok((response.status(), here))
    };
    match answer.await {
        Ok((status, here)) if status.is_success() || status.is_redirection() => Ok(here),
        Ok((status, _)) => {
            let failure =
                ProbeFailure::Status(format!("GET {}", url.without_query()), status.as_u16());
            Err(No::Answer(failure))
        }
        Err(error) => Err(No::of(format_args!("GET {}", url.without_query()), &error)),
    }
}

/// Succeeds if a connection is accepted. A link that another account can change is not followed.
#[cfg(unix)]
async fn unix(path: PathBuf) -> Answer {
    let what = format!("connect to {}", path.display());
    let connect = move || {
        let socket = guarded::socket(&path)?;
        let creator = mainstay_sys::probe_unix(socket.path())?;
        Ok(Some(Place::Unix(path, creator)))
    };
    let connected = aside(what.clone(), connect).await;
    let connected = connected.map_err(|error| No::unasked(&what, &error))?;
    connected.map_err(|error| No::of(&what, &error))
}

/// Always fails: Windows has Unix sockets, but the runtime does not support them there.
#[cfg(windows)]
#[expect(clippy::unused_async, reason = "the same shape on every system")]
async fn unix(path: PathBuf) -> Answer {
    let path = path.display();
    let why = format!("connect to {path}: Unix sockets are not supported on Windows");
    Err(No::Answer(ProbeFailure::Failed(why)))
}

/// Succeeds if the file exists. A link that another account can change is not followed: it would
/// reveal whether a file exists that only root can see.
async fn file(path: PathBuf) -> Answer {
    let shown = path.display().to_string();
    let asked = aside(shown.clone(), move || guarded::exists(&path)).await;
    let path = shown;
    let exists = asked.map_err(|error| No::unasked(format_args!("check {path}"), &error))?;
    match exists {
        Ok(true) => Ok(None),
        Ok(false) => Err(No::Answer(ProbeFailure::Absent(path))),
        Err(error) => Err(No::of(format_args!("check {path}"), &error)),
    }
}

/// Connects to an address. The outer error means that the name could not be resolved for lack of a
/// thread.
async fn connect(address: &HostPort) -> Result<io::Result<TcpStream>, No> {
    let found = resolve(address.host(), address.port()).await;
    let found = found.map_err(|error| No::unasked(format_args!("resolve {address}"), &error))?;
    Ok(match found {
        Ok(addresses) => TcpStream::connect(&*addresses).await,
        Err(error) => Err(error),
    })
}

/// Returns the system's error message without Rust's `(os error N)`.
fn brief(error: &io::Error) -> String {
    if guarded::refusal(error).is_some() {
        return guarded::explain(error);
    }
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((text, _)) => text.to_lowercase(),
        None => text,
    }
}
