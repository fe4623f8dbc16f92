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
use hyper::header::{CONTENT_TYPE, ETAG, HeaderMap};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use mainstay_core::engine::Principal;
use mainstay_core::trace::TraceContext;
use mainstay_store::embedded;
use mainstay_store::state_dir::StateDir;
use mainstay_sys as sys;
use mainstay_sys::aside::aside;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::limit::{Connections, Phase, Progress};
use super::{Audience, Command, Conditions, Reply};
use mainstay_api::endpoint::Listener;
use mainstay_api::{Route, Unrouted};

/// The number of events that a slow listener may lag behind before it is disconnected.
const EVENT_BACKLOG: usize = 4096;
/// The largest request body, including a manifest in it.
const LARGEST_BODY: usize = 1 << 20;
/// The same for clients who only view. Their requests have none.
const LARGEST_VIEW: usize = 1 << 12;
/// The delay before a request is performed. A timer ends only after the event loop has polled every
/// socket, so a connection whose client has already disconnected is seen to have ended.
const CLIENT_CHECK: Duration = Duration::from_millis(1);
/// The number of concurrent connections after which their memory is returned to the system.
const MANY: usize = 16;
/// The pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(100);
/// The pause after a connection of a viewer who has too many.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);
/// The time for clients to read their last responses.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves connections until `closing` is dropped, then until pending responses are sent. Switches
/// to another listener as soon as one arrives. Each connection carries one request, and a failed
/// connection does not affect the others.
pub(super) fn serve(
    listeners: (Listener, UnboundedReceiver<Listener>),
    host: UnboundedSender<Command>,
    state: StateDir,
    audience: Audience,
    closing: oneshot::Receiver<Infallible>,
) -> impl Future<Output = ()> {
    // The look-up of the name may block, so it precedes the loop.
    let site = Site {
        own: own_name(),
        state,
        audience,
    };
    serve_at(Rc::new(site), listeners, host, closing)
}

/// The data that all connections of a socket share.
struct Site {
    /// The name of this account.
    own: String,
    state: StateDir,
    audience: Audience,
}

async fn serve_at(
    site: Rc<Site>,
    (mut listener, mut others): (Listener, UnboundedReceiver<Listener>),
    host: UnboundedSender<Command>,
    mut closing: oneshot::Receiver<Infallible>,
) {
    let mut connections = JoinSet::new();
    let open = Rc::new(RefCell::new(match site.audience {
        Audience::Owner => Connections::of_owner(),
        Audience::Viewers { .. } => Connections::of_viewers(),
    }));
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
        let peer = site.peer_of(&stream);
        let user = peer.user;
        let has_room = open.borrow_mut().make_room(user);
        let conversation = Conversation {
            peer: Rc::new(peer),
            host: has_room.then(|| host.clone()),
            site: Rc::clone(&site),
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
        open.borrow_mut().add(user, progress, task);
        most_at_once = most_at_once.max(connections.len());
        if !has_room && let Audience::Viewers { .. } = site.audience {
            // Whoever connects again and again waits in the queue of this socket.
            tokio::time::sleep(REFUSED_PAUSE).await;
        }
    }
    drop((listener, host));
    let finished = async { while connections.join_next().await.is_some() {} };
    // A client that does not read its response does not get it.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, finished).await;
}

/// A client, as the system identifies it.
struct Peer {
    principal: Principal,
    /// The user ID; `u32::MAX` if the system does not tell.
    user: u32,
    /// Set if the client is one of those whom the socket is for.
    is_admitted: bool,
}

/// The data needed to respond to one request.
#[derive(Clone)]
struct Conversation {
    peer: Rc<Peer>,
    /// The host; `None` if there are too many connections.
    host: Option<UnboundedSender<Command>>,
    site: Rc<Site>,
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
        let pause = self.open.borrow_mut().turn(self.peer.user);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let client = (&*self.peer, &*self.progress);
        let response = answer(request, host.clone(), &self.site, client).await;
        if let Answer::Events(_) = response.body() {
            if !self.open.borrow().may_listen(self.peer.user) {
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

/// Returns the name of this account.
#[cfg(unix)]
fn own_name() -> String {
    sys::trust::user(sys::current_uid())
}

/// Returns nothing: the peers of pipes are not identified.
#[cfg(windows)]
fn own_name() -> String {
    String::new()
}

impl Site {
    /// Returns the peer of a connection.
    #[cfg(unix)]
    fn peer_of(&self, stream: &tokio::net::UnixStream) -> Peer {
        let peer = stream.peer_cred().ok();
        let name = |uid| match uid {
            0 => "root".to_owned(),
            uid if uid == sys::current_uid() => self.own.clone(),
            // Whoever was let in: a look-up of the name could block.
            uid => format!("uid {uid}"),
        };
        let is_owner = |uid| uid == 0 || uid == sys::current_uid();
        let is_admitted = match (&self.audience, peer) {
            (Audience::Owner, _) => true,
            (Audience::Viewers { .. }, None) => false,
            // If the system does not tell, the modes of the socket have decided.
            (Audience::Viewers { group, .. }, Some(peer)) => {
                let is_member = || matches!(sys::has_group(stream, *group), Ok(Some(true) | None));
                is_owner(peer.uid()) || peer.gid() == *group || is_member()
            }
        };
        Peer {
            principal: Principal::Local {
                user: peer.map(|peer| name(peer.uid())),
                pid: peer.and_then(|peer| u32::try_from(peer.pid()?).ok()),
            },
            user: peer.map_or(u32::MAX, |peer| peer.uid()),
            is_admitted,
        }
    }

    /// Returns the peer of a connection, which the pipe does not tell.
    #[cfg(windows)]
    #[expect(clippy::unused_self, reason = "as on Unix")]
    fn peer_of<T>(&self, _stream: &T) -> Peer {
        Peer {
            principal: Principal::Local {
                user: None,
                pid: None,
            },
            user: u32::MAX,
            is_admitted: true,
        }
    }

    /// Returns the response to a request that is not open to this client.
    fn refuse(&self, peer: &Peer, route: &Route) -> Option<Reply> {
        let Audience::Viewers { name, .. } = &self.audience else {
            return None;
        };
        let (why, hint) = match (peer.is_admitted, route.is_view()) {
            (true, true) => return None,
            (false, _) => (
                format!("only members of the group {name} may view the services"),
                format!("become a member of {name}, and log in again"),
            ),
            (true, false) => (
                format!("members of the group {name} may view the services, but not change them"),
                match self.own.as_str() {
                    "root" => "send the request as root".to_owned(),
                    own => format!("send the request as {own} or root"),
                },
            ),
        };
        Some(Reply::hinted(StatusCode::FORBIDDEN, &why, Some(hint)))
    }

    /// Returns the limit of the body of a request.
    fn largest_body(&self) -> usize {
        match self.audience {
            Audience::Owner => LARGEST_BODY,
            Audience::Viewers { .. } => LARGEST_VIEW,
        }
    }
}

fn too_many() -> Response<Answer> {
    let why = "the supervisor has too many connections: try again";
    whole(Reply::error(StatusCode::SERVICE_UNAVAILABLE, why))
}

async fn answer(
    request: hyper::Request<Incoming>,
    host: UnboundedSender<Command>,
    site: &Site,
    (peer, progress): (&Peer, &Progress),
) -> Response<Answer> {
    let (reply, replied) = oneshot::channel();
    let (request, body) = request.into_parts();
    // Read the body even if it is not needed: a client that is still sending when the connection
    // closes never sees the response.
    let most = site.largest_body();
    let body = match Limited::new(body, most).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            let status = if error.is::<LengthLimitError>() {
                StatusCode::PAYLOAD_TOO_LARGE
            } else {
                StatusCode::BAD_REQUEST
            };
            let why = format!("cannot read the request (at most {most} bytes): {error}");
            return whole(Reply::error(status, &why));
        }
    };
    progress.enter(Phase::Working);
    let conditions = match Conditions::of(&request.headers) {
        Ok(conditions) => conditions,
        Err(why) => return whole(Reply::error(StatusCode::BAD_REQUEST, &why.to_string())),
    };
    let route = match Route::parse(&request.method, &request.uri) {
        Ok(route) => route,
        Err(unrouted) => return whole(no_such(unrouted)),
    };
    if let Some(refused) = site.refuse(peer, &route) {
        return whole(refused);
    }
    if let Route::Define { names, owner } | Route::Forget { names, owner } = &route
        && let Some(refused) = refuse_owned(&site.state, names, owner.as_ref()).await
    {
        return whole(refused);
    }
    let command = Command {
        principal: peer.principal.clone(),
        trace: trace_of(&request.headers),
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

/// Returns the trace context in the headers of a request (docs/control.md).
fn trace_of(headers: &HeaderMap) -> Option<TraceContext> {
    let mut parents = headers.get_all(TraceContext::PARENT_HEADER).iter();
    let parent = parents.next()?.to_str().ok()?;
    let states = headers.get_all(TraceContext::STATE_HEADER).iter();
    let states: Option<Vec<&str>> = states.map(|it| it.to_str().ok()).collect();
    // Several values would be several parents.
    let parent = Some(parent).filter(|_| parents.next().is_none())?;
    TraceContext::parse(parent, states.map(|it| it.join(",")).as_deref())
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
