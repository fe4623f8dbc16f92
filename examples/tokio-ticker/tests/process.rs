//! Tests the example tokio-ticker as a process.
#![cfg(unix)]

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use mainstay_testkit::Sandbox;
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn it_is_ready_says_how_it_is_and_stops_in_order() {
    let sandbox = Sandbox::new();
    let path = sandbox.path().join("notify");
    let told = UnixDatagram::bind(&path).expect("bind");
    told.set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a time");
    let says = || {
        let mut buffer = [0; 1000];
        let count = told.recv(&mut buffer).expect("it says something");
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    };
    let child = Command::new(env!("CARGO_BIN_EXE_tokio-ticker"))
        .env("NOTIFY_SOCKET", &path)
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    assert_eq!(says(), "READY=1");
    assert_eq!(says(), "STATUS=1 ticks");
    kill_process(Pid::from_child(&child), Signal::TERM).expect("it lives");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0));
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.ends_with(" ticks\n"), "{log}");
}
