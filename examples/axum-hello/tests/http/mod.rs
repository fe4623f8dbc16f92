//! Requests to the example.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// The timeout for every step.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Sends a request.
#[track_caller]
pub(crate) fn get(address: &str, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(SOON)).expect("a time");
    let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    stream
}

/// Returns the body of the response, which must be a success.
#[track_caller]
pub(crate) fn body(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    body.to_owned()
}
