//! Tests the example as a process.
#![cfg(unix)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

fn get(address: &str, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let soon = Some(Duration::from_secs(20));
    stream.set_read_timeout(soon).expect("a time");
    let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    stream
}

fn body(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    body.to_owned()
}

#[test]
fn it_serves_and_answers_what_is_under_way_before_it_stops() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_axum-hello"))
        .args(["run", "127.0.0.1:0"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut log = BufReader::new(child.stderr.take().expect("its log"));
    let mut line = String::new();
    log.read_line(&mut line).expect("a line");
    let address = line.trim().strip_prefix("listening on ").expect("where");
    assert_eq!(body(get(address, "/")), "hello\n");
    let slow = get(address, "/slow");
    // The server has read the request: nothing else is in progress on that connection.
    assert_eq!(body(get(address, "/")), "hello\n");
    kill_process(Pid::from_child(&child), Signal::TERM).expect("it lives");
    assert_eq!(body(slow), "finished\n");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn an_address_that_is_taken_is_a_failure_with_its_cause() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_axum-hello"));
    let output = command.args(["run", &address]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.starts_with(&format!("listen on {address}: ")), "{log}");
}
