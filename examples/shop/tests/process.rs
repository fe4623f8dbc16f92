//! Tests the command line of the example, and one of its services in the foreground.
#![cfg(unix)]

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use mainstay_testkit::Sandbox;

#[track_caller]
fn check(code: i32, arguments: &[&str], part: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shop"));
    let output = command.args(arguments).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(said.contains(part), "{arguments:?}: {said}");
}

#[test]
fn a_name_follows_the_verb() {
    check(0, &["--help"], "  shop-mail    Sends confirmations\n");
    let names = "requires the name of a service: shop-web, shop-mail";
    check(2, &["run"], names);
    check(2, &[], names);
    // A misspelt name starts nothing.
    check(2, &["start", "shop-wbe"], names);
    check(2, &["stop", "shop-wbe"], "unexpected argument shop-wbe");
    check(1, &["run", "shop-web", "often"], "invalid digit");
}

#[test]
fn one_service_runs_in_the_foreground() {
    let sandbox = Sandbox::new();
    let path = sandbox.path().join("notify");
    let told = UnixDatagram::bind(&path).expect("bind");
    let soon = Some(Duration::from_secs(20));
    told.set_read_timeout(soon).expect("a time");
    let mut child = Command::new(env!("CARGO_BIN_EXE_shop"))
        .args(["run", "shop-mail", "1"])
        .env("NOTIFY_SOCKET", &path)
        .spawn()
        .expect("it starts");
    let says = || {
        let mut buffer = [0; 1000];
        let count = told.recv(&mut buffer).expect("it says something");
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    };
    assert_eq!(says(), "READY=1");
    assert_eq!(says(), "STATUS=1 confirmations sent");
    child.kill().expect("it lives");
    child.wait().expect("it ends");
}
