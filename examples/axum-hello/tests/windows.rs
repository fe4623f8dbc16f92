//! Tests the example as a service of the Service Control Manager: answers to requests, also to one
//! in progress when it is stopped.
#![cfg(windows)]

use std::net::TcpStream;
use std::process::Command;
use std::thread;

use mainstay::State;
use mainstay_testkit::scm_windows::output;
use mainstay_testkit::{free_port, wait_until};

mod http;

use http::{SOON, body, get};

/// Runs a verb, which must exit with `code`.
#[track_caller]
fn hello(code: i32, arguments: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_axum-hello"));
    let output = output(command.args(arguments), SOON);
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
}

#[test]
fn it_serves_and_stops_in_order_under_the_service_control_manager() {
    let address = format!("127.0.0.1:{}", free_port());
    hello(0, &["install"]);
    hello(0, &["start", &address]);
    hello(0, &["status"]);
    assert_eq!(body(get(&address, "/")), "hello\n");
    let slow = get(&address, "/slow/3000");
    // The server has read the slow request, too.
    assert_eq!(body(get(&address, "/")), "hello\n");
    let stop = thread::spawn(|| hello(0, &["stop"]));
    let service = mainstay::service("axum-hello");
    wait_until("the stop", SOON, || {
        let state = service.status().expect("it is installed").state;
        (state == State::StopPending).then_some(())
    });
    assert_eq!(body(slow), "finished\n");
    stop.join().expect("it stops");
    let status = service.status().expect("it is installed");
    assert_eq!(
        (status.state, status.exit_code()),
        (State::Stopped, Some(0))
    );
    assert!(TcpStream::connect(&address).is_err());
    hello(0, &["uninstall"]);
    hello(4, &["status"]);
}
