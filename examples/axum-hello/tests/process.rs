//! Tests the example axum-hello as a process.
#![cfg(unix)]

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

mod http;

use http::{body, get};

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
    let slow = get(address, "/slow/500");
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
