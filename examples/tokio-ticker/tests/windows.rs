//! Tests the example as a service of the Service Control Manager.
#![cfg(windows)]

use std::process::Command;
use std::time::Duration;

use mainstay::State;
use mainstay_testkit::scm_windows::output;

const SOON: Duration = Duration::from_secs(30);

/// Runs a verb, which must exit with `code`.
#[track_caller]
fn ticker(code: i32, arguments: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokio-ticker"));
    let output = output(command.args(arguments), SOON);
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
