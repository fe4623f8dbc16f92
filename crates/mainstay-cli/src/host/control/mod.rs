//! The control socket: HTTP/1.1 and JSON, for this machine and this user only (docs/control.md).
//!
//! The server only translates: a request becomes a [`Command`] for the host, which answers when it can. Nothing is decided here.

pub(crate) mod endpoint;
mod server;

use hyper::StatusCode;
use hyper::body::Bytes;
use mainstay_core::engine::Request;
use tokio::sync::{mpsc, oneshot};

pub(super) use self::server::serve;

/// What a client asks of the host.
#[derive(Debug)]
pub(super) enum Command {
    /// `GET /v1`: who supervises what.
    About(oneshot::Sender<Reply>),
    /// `GET /v1/services`
    Status(oneshot::Sender<Reply>),
    /// `POST /v1/stop`: answered when every service has come to rest.
    StopAll(oneshot::Sender<Reply>),
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
}

impl Reply {
    /// The document, with status 200.
    pub(super) fn document(document: &impl serde::Serialize) -> Self {
        match serde_json::to_string(document) {
            Ok(body) => Self {
                status: StatusCode::OK,
                body,
            },
            Err(error) => Self::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }

    /// `{"error": message}`
    pub(super) fn error(status: StatusCode, message: &str) -> Self {
        Self {
            status,
            body: serde_json::json!({ "error": message }).to_string(),
        }
    }
}
