//! The server of the control socket: translates requests into commands to the host, and replies
//! into responses.

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, ETAG};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use mainstay_store::embedded;
use mainstay_store::state_dir::StateDir;
use mainstay_sys as sys;
use mainstay_sys::aside::aside;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::limit::{Connections, Phase, Progress};
use super::{Command, Conditions, Reply};
use mainstay_api::endpoint::Listener;
use mainstay_api::{Route, Unrouted};

/// The number of events that a slow listener may lag behind before it is disconnected.
const EVENT_BACKLOG: usize = 4096;
/// The largest request body, including a manifest in it.
const LARGEST_BODY: usize = 1 << 20;
/// The delay before a request is performed. A timer ends only after the event loop has polled every
/// socket, so a connection whose client has already disconnected is seen to have ended.
const CLIENT_CHECK: Duration = Duration::from_millis(1);
/// The number of concurrent connections after which their memory is returned to the system.
const MANY: usize = 16;
/// The pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(100);
/// The time for clients to read their last responses.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves connections until `closing` is dropped, then until pending responses are sent. Switches
/// to another listener as soon as one arrives. Each connection carries one request, and a failed
/// connection does not affect the others.
pub(crate) async fn serve(
    mut listener: Listener,
    mut others: UnboundedReceiver<Listener>,
    host: UnboundedSender<Command>,
    state: StateDir,
    mut closing: oneshot::Receiver<Infallible>,
) {
    let state = Rc::new(state);
    let mut connections = JoinSet::new();
    let open = Rc::new(RefCell::new(Connections::new()));
    let mut most_at_once = 0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(other) = others.recv() => {
                listener = other;
                continue;
            }
            _ = connections.join_next(), if !connections.is_empty() => {
                if connections.is_empty() && std::mem::take(&mut most_at_once) > MANY {
                    sys::give_memory_back();
                }
                continue;
            }
            _ = &mut closing => break,
        };
        let Ok(stream) = accepted else {
            // The failure concerns one connection (it is gone again) or one moment (no descriptors
            // left).
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let progress = Progress::new();
        let has_room = open.borrow_mut().make_room();
        let conversation = Conversation {
            host: has_room.then(|| host.clone()),
            state: Rc::clone(&state),
            progress: Rc::clone(&progress),
            open: Rc::clone(&open),
        };
        let task = connections.spawn_local(async move {
            let progress = Rc::clone(&conversation.progress);
            let service = service_fn(|request| conversation.clone().answer(request));
            let mut connection = http1::Builder::new();
            let connection = connection.keep_alive(false);
            // The client disconnected early: there is nobody to report an error to.
            let served = connection.serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                _ = served => {}
                () = progress.overdue() => {}
            }
        });
        open.borrow_mut().add(progress, task);
        most_at_once = most_at_once.max(connections.len());
    }
    drop((listener, host));
    let finished = async { while connections.join_next().await.is_some() {} };
    // A client that does not read its response does not get it.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, finished).await;
}

/// The data needed to respond to one request.
#[derive(Clone)]
struct Conversation {
    /// The host; `None` if there are too many connections.
    host: Option<UnboundedSender<Command>>,
    state: Rc<StateDir>,
    progress: Rc<Progress>,
    open: Rc<RefCell<Connections>>,
}

impl Conversation {
    async fn answer(
        self,
        request: hyper::Request<Incoming>,
    ) -> Result<Response<Answer>, Infallible> {
        let Some(host) = &self.host else {
            self.progress.enter(Phase::Answering);
            return Ok(too_many());
        };
        let response = answer(request, host.clone(), &self.state, &self.progress).await;
        if let Answer::Events(_) = response.body() {
            if !self.open.borrow().may_listen() {
                self.progress.enter(Phase::Answering);
                return Ok(too_many());
            }
            self.progress.enter(Phase::Listening);
        } else {
            self.progress.enter(Phase::Answering);
        }
        Ok(response)
    }
}

fn too_many() -> Response<Answer> {
    let why = "the supervisor has too many connections: try again";
    whole(Reply::error(StatusCode::SERVICE_UNAVAILABLE, why))
}

async fn answer(
    request: hyper::Request<Incoming>,
    host: UnboundedSender<Command>,
    state: &StateDir,
    progress: &Progress,
) -> Response<Answer> {
    let (reply, replied) = oneshot::channel();
    let (request, body) = request.into_parts();
    // Read the body even if it is not needed: a client that is still sending when the connection
    // closes never sees the response.
    let body = match Limited::new(body, LARGEST_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            let status = if error.is::<LengthLimitError>() {
                StatusCode::PAYLOAD_TOO_LARGE
            } else {
                StatusCode::BAD_REQUEST
            };
            let why = format!("cannot read the request (at most {LARGEST_BODY} bytes): {error}");
            return whole(Reply::error(status, &why));
        }
    };
    progress.enter(Phase::Working);
    let conditions = match Conditions::of(&request.headers) {
        Ok(conditions) => conditions,
        Err(why) => return whole(Reply::error(StatusCode::BAD_REQUEST, &why)),
    };
    let route = match Route::parse(&request.method, &request.uri) {
        Ok(route) => route,
        Err(unrouted) => return whole(no_such(unrouted)),
    };
    if let Route::Define { names, owner } | Route::Forget { names, owner } = &route
        && let Some(refused) = refuse_owned(state, names, owner.as_ref()).await
    {
        return whole(refused);
    }
    let command = Command {
        body,
        ..Command::new(route, reply)
    };
    if command.route == Route::Events {
        let (sender, receiver) = mpsc::channel(EVENT_BACKLOG);
        let listener = Some(sender);
        // This fails only if the host is ending. The client then gets no events.
        let _ = host.send(Command {
            listener,
            ..command
        });
        let _ = replied.await;
        let mut response = Response::new(Answer::Events(receiver));
        let kind = hyper::header::HeaderValue::from_static("application/x-ndjson");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        return response;
    }
    // If the client has disconnected, the connection ends here, and the request with it.
    tokio::time::sleep(CLIENT_CHECK).await;
    // Both fail only if the host is ending.
    let _ = host.send(Command {
        conditions,
        ..command
    });
    let gone = || Reply::error(StatusCode::SERVICE_UNAVAILABLE, "the supervisor is exiting");
    whole(replied.await.unwrap_or_else(|_| gone()))
}

/// Returns the response if the registry assigns a service to another owner. Another process may
/// hold the registry's lock, so the wait for it is kept off the event loop.
async fn refuse_owned(state: &StateDir, names: &[String], owner: Option<&String>) -> Option<Reply> {
    let subject = format!("registry {}", names.join(","));
    let (state, names, owner) = (state.clone(), names.to_vec(), owner.cloned());
    let look = aside(subject, move || {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        embedded::owned_by_others(&state, &names, owner.as_deref())
    });
    let (status, why) = match look.await {
        Ok(Ok(owned)) => (StatusCode::LOCKED, owned?),
        Ok(Err(busy)) => (StatusCode::SERVICE_UNAVAILABLE, busy.line()),
        Err(error) => {
            let why = format!("cannot read the registry: {error}; try again");
            (StatusCode::SERVICE_UNAVAILABLE, why)
        }
    };
    Some(Reply::error(status, &why))
}

fn no_such(unrouted: Unrouted) -> Reply {
    let (status, why) = match unrouted {
        Unrouted::Verb => (StatusCode::NOT_FOUND, "no such verb"),
        Unrouted::Request => (StatusCode::METHOD_NOT_ALLOWED, "no such request"),
        Unrouted::Protocol => (StatusCode::NOT_FOUND, "the protocol begins at /v1"),
    };
    Reply::error(status, why)
}

fn whole(reply: Reply) -> Response<Answer> {
    let mut response = Response::new(Answer::Whole(Some(reply.body.into())));
    *response.status_mut() = reply.status;
    let etag = reply.etag.map(|etag| format!("\"{etag}\"").try_into());
    if let Some(Ok(etag)) = etag {
        response.headers_mut().insert(ETAG, etag);
    }
    let kind = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// The body of a response: a document, or a stream of events.
enum Answer {
    Whole(Option<Bytes>),
    Events(mpsc::Receiver<Bytes>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Events(events) => events
                .poll_recv(context)
                .map(|event| event.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }
}
