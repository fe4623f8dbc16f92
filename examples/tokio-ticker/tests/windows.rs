//! Tests the example as a service of the Service Control Manager.
#![cfg(windows)]

use std::process::Command;

use mainstay::State;

/// Runs a verb, which must exit with `code`.
#[track_caller]
fn ticker(code: i32, arguments: &[&str]) {
    // The wrapper of the lab's compiler is a shell script, and dash drops `CARGO_BIN_EXE_…` because
    // of the hyphen in the name.
    let test = std::env::current_exe().expect("its path");
    let dir = test.ancestors().nth(2).expect("a place");
    let mut command = Command::new(dir.join("tokio-ticker.exe"));
    let output = command.args(arguments).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
}

#[test]
fn it_runs_and_stops_in_order_under_the_service_control_manager() {
    ticker(0, &["install"]);
    ticker(0, &["start"]);
    ticker(0, &["status"]);
    ticker(0, &["reload"]);
    ticker(0, &["restart"]);
    ticker(0, &["stop"]);
    let status = mainstay::service("tokio-ticker").status();
    let status = status.expect("it is installed");
    assert_eq!(
        (status.state, status.exit_code()),
        (State::Stopped, Some(0))
    );
    ticker(0, &["uninstall"]);
    ticker(4, &["status"]);
}
