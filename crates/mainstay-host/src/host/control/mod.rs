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
use mainstay_api::endpoint::Listener;
use mainstay_api::{Refusal as Refused, Route, code_of};
use mainstay_core::engine::{Principal, Refusal};
use mainstay_core::failure::Failure;
use mainstay_core::trace::TraceContext;
use mainstay_store::state_dir::StateDir;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

pub(super) use self::condition::{Conditions, Unmet};

/// The tasks of the sockets, each with what ends it.
#[derive(Default)]
pub(super) struct Server(Vec<(JoinHandle<()>, oneshot::Sender<Infallible>)>);

impl Server {
    /// Serves the clients of a socket, and of those that take its place.
    pub(super) fn serve(
        &mut self,
        (listener, others): (Listener, UnboundedReceiver<Listener>),
        host: UnboundedSender<Command>,
        state: &StateDir,
        audience: Audience,
    ) {
        let (closes, closing) = oneshot::channel();
        let serving = server::serve((listener, others), host, state.clone(), audience, closing);
        self.0.push((tokio::task::spawn_local(serving), closes));
    }

    /// Waits a limited time for every client to receive its response.
    pub(super) async fn close(self) {
        let (tasks, closes): (Vec<_>, Vec<_>) = self.0.into_iter().unzip();
        drop(closes);
        for task in tasks {
            let _ = task.await;
        }
    }
}

/// The clients of a socket.
pub(super) enum Audience {
    /// The supervisor's own account and root, who may do everything.
    Owner,
    /// The members of a group, who may only view.
    Viewers {
        #[cfg_attr(windows, expect(dead_code, reason = "no group is admitted there"))]
        group: u32,
        name: String,
    },
}

/// A client's request to the host, and the channel for the response.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) route: Route,
    /// The requester.
    pub(super) principal: Principal,
    /// The position of the request in the trace of its client.
    pub(super) trace: Option<TraceContext>,
    /// The conditions on the definitions of the services.
    pub(super) conditions: Option<Conditions>,
    pub(super) body: Bytes,
    /// The channel for the events that the client listens to, if it requests them.
    pub(super) listener: Option<mpsc::Sender<Bytes>>,
    pub(super) reply: oneshot::Sender<Reply>,
}

impl Command {
    /// Creates a command of the service manager, without conditions and without a body.
    pub(super) fn new(route: Route, reply: oneshot::Sender<Reply>) -> Self {
        Self {
            route,
            principal: Principal::Manager,
            trace: None,
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
        Self::with(StatusCode::OK, document)
    }

    /// Returns a response with the document.
    pub(super) fn with(status: StatusCode, document: &impl serde::Serialize) -> Self {
        match serde_json::to_string(document) {
            Ok(body) => Self::new(status, body),
            Err(error) => Self::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }

    /// Returns a response with an error, whose exit code follows from the status.
    pub(super) fn error(status: StatusCode, message: &str) -> Self {
        Self::hinted(status, message, None)
    }

    /// Returns a response with an error and, if there is one, a hint.
    pub(super) fn hinted(status: StatusCode, message: &str, hint: Option<String>) -> Self {
        let refused = Refused {
            hint,
            ..Refused::new(code_of(status), message)
        };
        Self::with(status, &refused)
    }

    /// Returns a response with a failure of the kind that a command has, and its exit code.
    pub(super) fn failure(status: StatusCode, failure: &Failure) -> Self {
        Self::with(status, &Refused::from(failure))
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
