//! The control socket: HTTP/1.1 and JSON, for this machine and this user only (docs/control.md).
//!
//! The server only translates: a request becomes a [`Command`] for the host, which responds when it
//! can. Nothing is decided here.

mod condition;
mod limit;
mod server;

use hyper::StatusCode;
use hyper::body::Bytes;
use mainstay_api::{Refusal as Refused, Route};
use mainstay_core::engine::Refusal;
use tokio::sync::{mpsc, oneshot};

pub(super) use self::condition::{Conditions, Unmet};
pub(super) use self::server::serve;

/// A client's request to the host, and the channel for the response.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) route: Route,
    /// The conditions on the definitions of the services.
    pub(super) conditions: Option<Conditions>,
    pub(super) body: Bytes,
    /// The channel for the events that the client listens to, if it requests them.
    pub(super) listener: Option<mpsc::Sender<Bytes>>,
    pub(super) reply: oneshot::Sender<Reply>,
}

impl Command {
    /// Creates a command without conditions and without a body.
    pub(super) fn new(route: Route, reply: oneshot::Sender<Reply>) -> Self {
        Self {
            route,
            conditions: None,
            body: Bytes::new(),
            listener: None,
            reply,
        }
    }
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
        let error = message.to_owned();
        let body = serde_json::json!(Refused { error });
        Self::new(status, body.to_string())
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
