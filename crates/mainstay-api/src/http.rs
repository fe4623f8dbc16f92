//! One HTTP/1.1 exchange over a connected stream, shared by probes and the control client.

use std::io;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode, client::conn::http1};
use hyper_util::rt::TokioIo;
use mainstay_core::trace::TraceContext;
use tokio::io::{AsyncRead, AsyncWrite};

/// The `User-Agent` header.
pub const USER_AGENT: &str = concat!("mainstay/", env!("CARGO_PKG_VERSION"));

/// Sends a request and returns as soon as the head of the response arrives.
///
/// The connection lives on in its own task until the body of the response is read or dropped.
pub async fn exchange<S>(
    stream: S,
    method: Method,
    host: &str,
    path_and_query: &str,
    trace: Option<&TraceContext>,
    body: Bytes,
) -> io::Result<Response<Incoming>>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    tokio::task::spawn_local(connection);
    let headers = trace.into_iter().flat_map(TraceContext::headers);
    let request = headers.fold(Request::builder(), |request, (name, value)| {
        request.header(name, value)
    });
    let request = request
        .method(method)
        .uri(path_and_query)
        .header("host", host)
        .header("user-agent", USER_AGENT)
        .header("accept", "*/*")
        .body(Full::new(body))
        .map_err(io::Error::other)?;
    sender.send_request(request).await.map_err(io::Error::other)
}

/// Reads the status and the whole body, which must be small.
pub async fn whole(response: Response<Incoming>) -> io::Result<(StatusCode, Bytes)> {
    let status = response.status();
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(io::Error::other)?;
    Ok((status, body.to_bytes()))
}
