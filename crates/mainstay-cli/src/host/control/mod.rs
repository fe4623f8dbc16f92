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

/// What a client asks of the host, and where the answer goes.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) operation: Operation,
    pub(super) reply: oneshot::Sender<Reply>,
}

/// What is asked of the host.
#[derive(Debug)]
pub(super) enum Operation {
    /// `GET /v1`: who supervises what.
    About,
    /// `GET /v1/services`
    Status,
    /// `GET /v1/services/NAME`
    Entry { name: String },
    /// Only where the definitions of these services, by their names, are what the client believes.
    If {
        names: String,
        conditions: Conditions,
        operation: Box<Operation>,
    },
    /// `POST /v1/stop`: answered when every service has come to rest.
    StopAll,
    /// `POST /v1/services/NAME[,NAME…]/stop`: answered when all of them are down.
    Stop { names: String, reach: Reach },
    /// `POST /v1/services/NAME[,NAME…]/VERB`: answered when the services have come to rest. Several only for `start` and `restart`.
    Request { names: String, request: Request },
    /// `POST /v1/services/NAME/reload`
    Reload { name: String },
    /// `POST /v1/services/NAME/snapshot`: answered when it is complete.
    Snapshot { name: String },
    /// `POST /v1/services/NAME/logs/rotate`
    RotateLog { name: String },
    /// `POST /v1/services/NAME/update`: answered when the new definition is healthy, or the old one runs again.
    Update { name: String, body: Bytes },
    /// `POST /v1/services/NAME/update/commit` and `…/abort`
    Decide { name: String, decision: Decision },
    /// `PUT /v1/services/NAME[,NAME…]`: takes up what is installed; answered when it is.
    Define { names: String },
    /// `DELETE /v1/services/NAME[,NAME…]`: answered when nothing is left of them.
    Forget { names: String },
    /// `GET /v1/events`: every fact from now on, one JSON object a line; answered when it listens.
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
        Self::refused_in_words(refusal, &refusal.to_string())
    }

    /// The same, as this is said.
    pub(super) fn refused_in_words(refusal: &Refusal, words: &str) -> Self {
        let status = match refusal {
            Refusal::ShuttingDown | Refusal::Snapshotting => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Misfit(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Refusal::Updating => StatusCode::LOCKED,
            Refusal::Removed => StatusCode::NOT_FOUND,
            _ => StatusCode::CONFLICT,
        };
        Self::error(status, words)
    }

    /// With a JSON document.
    pub(super) fn new(status: StatusCode, body: String) -> Self {
        let etag = None;
        Self { status, body, etag }
    }
}
