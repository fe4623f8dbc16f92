//! Receivers of webhook requests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::mpsc::{self, Receiver};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use std::{fs, thread};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::*;

/// The secret shared with the receiver: `whsec_` and this in Base64.
pub(super) const KEY: &[u8] = b"thirty-two bytes that are secret";

/// Writes the key file.
pub(super) fn write_key(sandbox: &Sandbox) -> String {
    let secret = BASE64_STANDARD.encode(KEY);
    let path = sandbox.write("webhook.key", &format!("whsec_{secret}\n"));
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("mode");
    secret
}

/// A request received by a receiver.
pub(super) struct Request {
    pub(super) line: String,
    /// The headers, with names in lower case.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) at: Instant,
}

impl Request {
    pub(super) fn read(stream: impl Read) -> Option<Self> {
        let mut reader = BufReader::new(stream);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
            let line = line.trim_end().to_owned();
            if line.is_empty() {
                break;
            }
            head.push(line);
        }
        let headers = head.iter().skip(1).filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        });
        let mut request = Self {
            line: head.first()?.clone(),
            headers: headers.collect(),
            body: Vec::new(),
            at: Instant::now(),
        };
        let length = request.header("content-length").parse().ok()?;
        reader.take(length).read_to_end(&mut request.body).ok()?;
        Some(request)
    }

    #[track_caller]
    pub(super) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(it, _)| it == name);
        &found
            .unwrap_or_else(|| panic!("{name} is missing: {:?}", self.headers))
            .1
    }

    /// Returns the event after checking its signature as Standard Webhooks defines it.
    #[track_caller]
    pub(super) fn judge(&self) -> Value {
        let (id, timestamp) = (self.header("webhook-id"), self.header("webhook-timestamp"));
        let seconds: u64 = timestamp.parse().expect("seconds");
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("now")
            .as_secs();
        assert!(now.abs_diff(seconds) < 60, "{timestamp} is not now");
        let mut mac = Hmac::<Sha256>::new_from_slice(KEY).expect("a key");
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(&self.body);
        let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
        assert_eq!(self.header("webhook-signature"), format!("v1,{signature}"));
        assert_eq!(self.header("content-type"), "application/json");
        let event: Value = serde_json::from_slice(&self.body).expect("JSON");
        assert_eq!(event["id"], id);
        event
    }
}

/// Starts an HTTP server that sends these answers one after the other, and then 204. Returns its
/// URL and the received requests.
pub(super) fn receiver(answers: &'static [&'static str]) -> (String, Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let (tell, got) = mpsc::channel();
    thread::spawn(move || {
        let mut answers = answers.iter();
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let Some(request) = Request::read(&stream) else {
                continue;
            };
            let answer = answers.next().unwrap_or(&"204 No Content\r\n");
            let answer = format!("HTTP/1.1 {answer}content-length: 0\r\nconnection: close\r\n\r\n");
            // The answer is sent first: a test that gets the request may check the effects of the
            // answer.
            let _ = stream.write_all(answer.as_bytes());
            let _ = tell.send(request);
        }
    });
    (address, got)
}

#[track_caller]
pub(super) fn next(got: &Receiver<Request>) -> Request {
    got.recv_timeout(SOON).expect("a request")
}

/// Starts a server whose answer never ends: it sends `begin` and then `more` again and again.
/// Returns its URL.
#[cfg(target_os = "linux")]
pub(super) fn endless(begin: &'static [u8], more: &'static [u8], pause: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            thread::spawn(move || {
                let mut sent = stream.write_all(begin);
                while sent.is_ok() {
                    thread::sleep(pause);
                    sent = stream.write_all(more);
                }
            });
        }
    });
    address
}
