//! The control socket: HTTP/1.1 and JSON, for this machine and this user only (docs/control.md).
//!
//! The server only translates: a request becomes a [`Command`] for the host, which responds when it
//! can. Nothing is decided here.

mod condition;
mod limit;
mod server;

use std::convert::Infallible;

use hyper::StatusCode;
use hyper::body::Bytes;
use mainstay_api::{Refusal as Refused, Route};
use mainstay_core::engine::Refusal;
use mainstay_core::failure::Failure;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

pub(super) use self::condition::{Conditions, Unmet};
pub(super) use self::server::serve;

/// The task of the control socket.
pub(super) struct Server {
    pub(super) control: JoinHandle<()>,
    pub(super) closes: oneshot::Sender<Infallible>,
}

impl Server {
    /// Waits a limited time for every client to receive its response.
    pub(super) async fn close(self) {
        drop(self.closes);
        let _ = self.control.await;
    }
}

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
        Self::hinted(status, message, None)
    }

    /// Returns a response with an error and, if there is one, a hint.
    pub(super) fn hinted(status: StatusCode, message: &str, hint: Option<String>) -> Self {
        let refused = Refused {
            error: message.to_owned(),
            hint,
            ..Refused::default()
        };
        Self::new(status, serde_json::json!(refused).to_string())
    }

    /// Returns a response with a failure of the kind that a command has, and its exit code.
    pub(super) fn failure(status: StatusCode, failure: &Failure) -> Self {
        let refused = Refused {
            code: Some(failure.code() as u8),
            error: failure.message().to_owned(),
            hint: failure.hint_text().map(str::to_owned),
        };
        Self::new(status, serde_json::json!(refused).to_string())
    }

    /// Returns the response to a request that the engine refused.
    pub(super) fn refused(refusal: &Refusal) -> Self {
        Self::refused_in_words(refusal, &refusal.to_string(), None)
    }

    /// Returns the response to a request that the engine refused, with this text and hint.
    pub(super) fn refused_in_words(refusal: &Refusal, words: &str, hint: Option<String>) -> Self {
        let status = match refusal {
            Refusal::ShuttingDown | Refusal::Snapshotting => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Misfit(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Refusal::Updating => StatusCode::LOCKED,
            Refusal::Removed => StatusCode::NOT_FOUND,
            _ => StatusCode::CONFLICT,
        };
        Self::hinted(status, words, hint)
    }

    /// Returns a response with a JSON document.
    pub(super) fn new(status: StatusCode, body: String) -> Self {
        let etag = None;
        Self { status, body, etag }
    }
}
