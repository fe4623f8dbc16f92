//! The control socket: HTTP/1.1 and JSON, for this machine and this user only (docs/control.md).
//!
//! The server only translates: a request becomes a [`Command`] for the host, which answers when it can. Nothing is decided here.

mod condition;
pub(crate) mod endpoint;
mod limit;
mod server;

use hyper::StatusCode;
use hyper::body::Bytes;
use mainstay_core::engine::{Refusal, Request};
use tokio::sync::{mpsc, oneshot};

pub(super) use self::condition::{Conditions, Unmet};
pub(super) use self::server::serve;

/// What a client asks of the host.
#[derive(Debug)]
pub(super) enum Command {
    /// `GET /v1`: who supervises what.
    About(oneshot::Sender<Reply>),
    /// `GET /v1/services`
    Status(oneshot::Sender<Reply>),
    /// `GET /v1/services/NAME`
    Entry {
        name: String,
        reply: oneshot::Sender<Reply>,
    },
    /// Only where the definitions of these services, by their names, are what the client believes.
    If {
        names: String,
        conditions: Conditions,
        command: Box<Command>,
    },
    /// `POST /v1/stop`: answered when every service has come to rest.
    StopAll(oneshot::Sender<Reply>),
    /// `POST /v1/services/NAME[,NAME…]/stop`: answered when all of them are down.
    Stop {
        names: String,
        reach: Reach,
        reply: oneshot::Sender<Reply>,
    },
    /// `POST /v1/services/NAME/VERB`: answered when the service has come to rest.
    Request {
        name: String,
        request: Request,
        reply: oneshot::Sender<Reply>,
    },
    /// `POST /v1/services/NAME/reload`
    Reload {
        name: String,
        reply: oneshot::Sender<Reply>,
    },
    /// `POST /v1/services/NAME/snapshot`: answered when it is complete.
    Snapshot {
        name: String,
        reply: oneshot::Sender<Reply>,
    },
    /// `POST /v1/services/NAME/logs/rotate`
    RotateLog {
        name: String,
        reply: oneshot::Sender<Reply>,
    },
    /// `POST /v1/services/NAME/update`: answered when the new definition is healthy, or the old one runs again.
    Update {
        name: String,
        body: Bytes,
        reply: oneshot::Sender<Reply>,
    },
    /// `POST /v1/services/NAME/update/commit` and `…/abort`
    Decide {
        name: String,
        decision: Decision,
        reply: oneshot::Sender<Reply>,
    },
    /// `PUT /v1/services/NAME[,NAME…]`: takes up what is installed; answered when it is.
    Define {
        names: String,
        reply: oneshot::Sender<Reply>,
    },
    /// `DELETE /v1/services/NAME[,NAME…]`: answered when nothing is left of them.
    Forget {
        names: String,
        reply: oneshot::Sender<Reply>,
    },
    /// `GET /v1/events`: every fact from now on, one JSON object a line.
    Events(mpsc::Sender<Bytes>),
}

/// Which services a stop is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Those that were named.
    Named,
    /// Also all that need one of them.
    WithDependents,
}

/// What becomes of a new definition.
#[derive(Clone, Copy, Debug)]
pub(super) enum Decision {
    Commit,
    Abort,
}

impl Command {
    /// Whether nobody waits for its answer any more.
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Self::About(reply)
            | Self::Status(reply)
            | Self::Entry { reply, .. }
            | Self::StopAll(reply)
            | Self::Stop { reply, .. }
            | Self::Request { reply, .. }
            | Self::Reload { reply, .. }
            | Self::Snapshot { reply, .. }
            | Self::RotateLog { reply, .. }
            | Self::Update { reply, .. }
            | Self::Decide { reply, .. }
            | Self::Define { reply, .. }
            | Self::Forget { reply, .. } => reply.is_closed(),
            Self::If { command, .. } => command.is_abandoned(),
            Self::Events(listener) => listener.is_closed(),
        }
    }

    /// Answers it, and does not do it.
    pub(super) fn answer(self, answer: Reply) {
        match self {
            Self::About(reply)
            | Self::Status(reply)
            | Self::Entry { reply, .. }
            | Self::StopAll(reply)
            | Self::Stop { reply, .. }
            | Self::Request { reply, .. }
            | Self::Reload { reply, .. }
            | Self::Snapshot { reply, .. }
            | Self::RotateLog { reply, .. }
            | Self::Update { reply, .. }
            | Self::Decide { reply, .. }
            | Self::Define { reply, .. }
            | Self::Forget { reply, .. } => drop(reply.send(answer)),
            Self::If { command, .. } => command.answer(answer),
            Self::Events(_) => {}
        }
    }
}

/// An answer: a status and a JSON document.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: String,
    /// Of the definition that it is about.
    pub(super) etag: Option<String>,
}

impl Reply {
    /// The document, with status 200.
    pub(super) fn document(document: &impl serde::Serialize) -> Self {
        match serde_json::to_string(document) {
            Ok(body) => Self::new(StatusCode::OK, body),
            Err(error) => Self::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }

    /// `{"error": message}`
    pub(super) fn error(status: StatusCode, message: &str) -> Self {
        Self::new(status, serde_json::json!({ "error": message }).to_string())
    }

    /// Why the engine did not do it.
    pub(super) fn refused(refusal: &Refusal) -> Self {
        let status = match refusal {
            Refusal::ShuttingDown | Refusal::Snapshotting => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Misfit(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Refusal::Updating => StatusCode::LOCKED,
            Refusal::Removed => StatusCode::NOT_FOUND,
            _ => StatusCode::CONFLICT,
        };
        Self::error(status, &refusal.to_string())
    }

    /// With a JSON document.
    pub(super) fn new(status: StatusCode, body: String) -> Self {
        let etag = None;
        Self { status, body, etag }
    }
}
