//! The control socket: HTTP/1.1 and JSON, for this machine and this user only (docs/control.md).
//!
//! The server only translates: a request becomes a [`Command`] for the host, which responds when it
//! can. Nothing is decided here.

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

/// A client's request to the host, and the channel for the response.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) operation: Operation,
    pub(super) reply: oneshot::Sender<Reply>,
}

/// An operation of the host.
#[derive(Debug)]
pub(super) enum Operation {
    /// `GET /v1`: information about the supervisor.
    About,
    /// `GET /v1/services`
    Status,
    /// `GET /v1/services/NAME`
    Entry { name: String },
    /// An operation that is performed only if the definitions of the named services meet the
    /// conditions.
    If {
        names: String,
        conditions: Conditions,
        operation: Box<Operation>,
    },
    /// `POST /v1/stop`: responds when every service has settled.
    StopAll,
    /// `POST /v1/services/NAME[,NAME…]/stop`: responds when all of them are down.
    Stop { names: String, reach: Reach },
    /// `POST /v1/services/NAME[,NAME…]/VERB`: responds when the services have settled. Only `start`
    /// and `restart` accept several names.
    Request { names: String, request: Request },
    /// `POST /v1/services/NAME/reload`
    Reload { name: String },
    /// `POST /v1/services/NAME/snapshot`: responds when the snapshot is complete.
    Snapshot { name: String },
    /// `POST /v1/services/NAME/logs/rotate`
    RotateLog { name: String },
    /// `POST /v1/services/NAME/update`: responds when the new definition is healthy, or the old one
    /// is running again.
    Update { name: String, body: Bytes },
    /// `POST /v1/services/NAME/update/commit` and `…/abort`
    Decide { name: String, decision: Decision },
    /// `PUT /v1/services/NAME[,NAME…]`: loads installed definitions and responds when they are
    /// loaded.
    Define { names: String },
    /// `DELETE /v1/services/NAME[,NAME…]`: responds when nothing is left of the services.
    Forget { names: String },
    /// `GET /v1/events`: streams every later fact, one JSON object per line. Responds when the
    /// stream is registered.
    Events(mpsc::Sender<Bytes>),
}

/// The services that a stop applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The named services only.
    Named,
    /// The named services and all their dependents.
    WithDependents,
}

/// The decision about a new definition.
#[derive(Clone, Copy, Debug)]
pub(super) enum Decision {
    Commit,
    Abort,
}

/// A response: a status and a JSON document.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: String,
    /// The entity tag of the definition that the response is about.
    pub(super) etag: Option<String>,
}

impl Reply {
    /// Returns a response with the document and status 200.
    pub(super) fn document(document: &impl serde::Serialize) -> Self {
        match serde_json::to_string(document) {
            Ok(body) => Self::new(StatusCode::OK, body),
            Err(error) => Self::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }

    /// Returns a response with the document `{"error": message}`.
    pub(super) fn error(status: StatusCode, message: &str) -> Self {
        Self::new(status, serde_json::json!({ "error": message }).to_string())
    }

    /// Returns the response to a request that the engine refused.
    pub(super) fn refused(refusal: &Refusal) -> Self {
        Self::refused_in_words(refusal, &refusal.to_string())
    }

    /// Returns the response to a request that the engine refused, with this text.
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

    /// Returns a response with a JSON document.
    pub(super) fn new(status: StatusCode, body: String) -> Self {
        let etag = None;
        Self { status, body, etag }
    }
}
