//! A client of the control socket, for one request at a time.

use std::fmt;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::time::{Duration, Instant};

use hyper::body::{Bytes, Incoming};
use hyper::{Response, StatusCode};

use mainstay_core::trace::TraceContext;

use super::route::Route;
use super::{endpoint, http};

/// The timeout of a liveness check (`GET /v1`), and the interval between checks. A running
/// supervisor answers within this time, whatever its services do.
const LIVENESS_TIMEOUT: Duration = Duration::from_secs(5);
/// The delay before the next attempt if the connection queue of the supervisor is full.
const PAUSE: Duration = Duration::from_millis(50);
/// The time for which a live supervisor may be without a socket.
const WITHOUT_SOCKET: Duration = Duration::from_secs(2);
/// The interval between connection attempts during that time.
const CONNECT_INTERVAL: Duration = Duration::from_millis(20);

/// The client of the supervisor of one state directory.
pub struct Client<'a> {
    state_dir: &'a Path,
    /// Returns the process ID of the supervisor, if it is alive, whatever has happened to its
    /// socket.
    supervisor: &'a dyn Fn() -> Option<u32>,
    /// The trace that the requests belong to.
    trace: Option<TraceContext>,
}

/// The reason why a request was not answered.
#[derive(Debug)]
pub enum Error {
    /// The connection failed: `NotFound` or `ConnectionRefused` if no supervisor is alive, or an
    /// error as for [`endpoint::connect`].
    Unreachable(io::Error),
    /// The supervisor is alive, and its socket is gone.
    SocketLost {
        /// The supervisor's process ID.
        pid: u32,
    },
    /// The supervisor did not pass a liveness check.
    Unresponsive,
    /// The connection ended too early.
    Broken(io::Error),
}

impl<'a> Client<'a> {
    /// Creates the client of a state directory's supervisor. `supervisor` returns the supervisor's
    /// process ID while it is alive.
    pub fn new(state_dir: &'a Path, supervisor: &'a dyn Fn() -> Option<u32>) -> Self {
        Self {
            state_dir,
            supervisor,
            trace: None,
        }
    }

    /// Makes the requests part of a trace.
    #[must_use]
    pub fn within(self, trace: Option<TraceContext>) -> Self {
        Self { trace, ..self }
    }

    /// Sends a request and returns the whole response. There is no time limit, provided that the
    /// supervisor passes the liveness checks meanwhile.
    ///
    /// # Errors
    /// If there is no response. A refusal is one.
    pub async fn ask(&self, route: &Route, body: Bytes) -> Result<(StatusCode, Bytes), Error> {
        self.while_it_responds(self.ask_once(route, body)).await
    }

    /// Sends a request and returns the response as soon as it begins, as [`ask`](Self::ask) does.
    pub async fn stream(&self, route: &Route) -> Result<Response<Incoming>, Error> {
        self.while_it_responds(self.send(route, Bytes::new())).await
    }

    async fn ask_once(&self, route: &Route, body: Bytes) -> Result<(StatusCode, Bytes), Error> {
        let response = self.send(route, body).await?;
        http::whole(response).await.map_err(Error::Broken)
    }

    async fn while_it_responds<T>(
        &self,
        conversation: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let mut conversation = pin!(conversation);
        loop {
            let check = async {
                tokio::time::sleep(LIVENESS_TIMEOUT).await;
                let question = self.ask_once(&Route::About, Bytes::new());
                tokio::time::timeout(LIVENESS_TIMEOUT, question).await
            };
            tokio::select! {
                result = &mut conversation => return result,
                answer = check => {
                    answer.map_err(|_| Error::Unresponsive)??;
                }
            }
        }
    }

    async fn send(&self, route: &Route, body: Bytes) -> Result<Response<Incoming>, Error> {
        let stream = self.connect(route).await?;
        let (path, trace) = (route.path(), self.trace.as_ref());
        http::exchange(stream, route.method(), "mainstay", &path, trace, body)
            .await
            .map_err(Error::Broken)
    }

    /// Connects to the control socket. If that is closed to this process, a request that changes
    /// nothing goes to the socket of those who may only view, if that is open.
    async fn connect_once(&self, route: &Route) -> io::Result<endpoint::Stream> {
        let is_closed = |error: &io::Error| {
            matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound
            )
        };
        match endpoint::connect(self.state_dir).await {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && route.is_view() => {
                let viewed = endpoint::connect_as_viewer(self.state_dir).await;
                match viewed {
                    Err(other) if is_closed(&other) => Err(error),
                    viewed => viewed,
                }
            }
            connected => connected,
        }
    }

    /// Connects to the supervisor. A supervisor whose socket was deleted creates another one
    /// shortly after, so this function retries.
    async fn connect(&self, route: &Route) -> Result<endpoint::Stream, Error> {
        let deadline = Instant::now() + WITHOUT_SOCKET;
        loop {
            let error = match self.connect_once(route).await {
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
            let Some(pid) = is_gone.then(|| (self.supervisor)()).flatten() else {
                return Err(Error::Unreachable(error));
            };
            if Instant::now() > deadline {
                return Err(Error::SocketLost { pid });
            }
            tokio::time::sleep(CONNECT_INTERVAL).await;
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(_) => f.write_str("connect to the supervisor"),
            Self::SocketLost { pid } => write!(f, "the supervisor (pid {pid}) has no socket"),
            Self::Unresponsive => f.write_str("the supervisor does not respond"),
            Self::Broken(_) => f.write_str("the supervisor closed the connection"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreachable(error) | Self::Broken(error) => Some(error),
            Self::SocketLost { .. } | Self::Unresponsive => None,
        }
    }
}
