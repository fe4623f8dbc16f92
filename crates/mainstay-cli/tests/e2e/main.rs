//! The `mainstay` command against real processes: what an operator would see, from outside.
#![cfg(unix)]

mod adoption;
mod alerts;
mod control;
mod daemon;
#[cfg(target_os = "linux")]
mod exhaustion;
mod failures;
mod hello;
mod lifecycle;
#[cfg(target_os = "linux")]
mod locks;
mod logs;
#[cfg(target_os = "linux")]
mod managers;
#[cfg(target_os = "linux")]
mod paths;
#[cfg(target_os = "linux")]
mod processes;
mod recovery;
#[cfg(target_os = "linux")]
mod registry;
mod requests;
mod responsive;
mod snapshots;
mod sockets;
mod survival;

#[cfg(target_os = "linux")]
mod systemd;
mod terminal;
#[cfg(target_os = "linux")]
mod trust;
mod update;
#[cfg(target_os = "linux")]
mod updates;
mod web_stack;

use std::path::PathBuf;
use std::process::{ExitStatus, Output};
use std::time::Duration;

use mainstay_testkit::{Sandbox, Supervisor, mainstay, puppet, wait_until};
use serde_json::Value;

/// Long enough for a busy machine; nothing here is expected to take a fraction of it.
const SOON: Duration = Duration::from_secs(20);

/// What the contract of exit codes is seen with, where 5 restarts are the limit.
const CODES: [i32; 8] = [0, 1, 101, 137, 143, 201, 202, 255];

/// How often a program is started that ends with `code` each time, and what systemd calls the end.
fn contract(code: i32) -> (u32, &'static str) {
    match code {
        // Done.
        0 => (1, "inactive"),
        // Wants a snapshot, and there is none.
        201 => (1, "failed"),
        _ => (6, "failed"),
    }
}

/// A sandbox with a manifest, in development, in which `PUPPET` stands for the puppet's path and `HERE` for the sandbox.
fn sandbox(services: &str) -> (Sandbox, PathBuf) {
    let sandbox = Sandbox::new();
    let text = services
        .replace("PUPPET", &puppet().display().to_string())
        .replace("HERE", &sandbox.path().display().to_string());
    let manifest = sandbox.write(
        "mainstay.toml",
        &format!("environment = \"development\"\n{text}"),
    );
    (sandbox, manifest)
}

/// A supervisor of these services, and the sandbox that it lives in (dropped last).
fn supervise(services: &str) -> (Supervisor, Sandbox) {
    let (sandbox, manifest) = sandbox(services);
    (Supervisor::start(&sandbox, &manifest), sandbox)
}

/// Runs a verb to its end.
fn verb(sandbox: &Sandbox, args: &[&str]) -> Output {
    sandbox
        .command(mainstay())
        .args(args)
        .output()
        .expect("mainstay runs")
}

/// Runs a verb that must succeed, and parses what it prints as JSON.
#[track_caller]
fn json(sandbox: &Sandbox, args: &[&str]) -> Value {
    let output = verb(sandbox, args);
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "{args:?}: {:?} {complaint}",
        output.status
    );
    serde_json::from_slice(&output.stdout).expect("a JSON document")
}

/// The entry of one service in `status --json`, whatever its state.
fn service(sandbox: &Sandbox, name: &str) -> Value {
    let report = json(sandbox, &["list", "--json"]);
    let services = report["services"].as_array().expect("services");
    services
        .iter()
        .find(|service| service["name"] == name)
        .expect("the service")
        .clone()
}

/// Waits for an event of a service.
#[track_caller]
fn event(supervisor: &Supervisor, name: &str, kind: &str) -> Value {
    supervisor.wait_event(SOON, |event| {
        event["service"] == name && event["event"] == kind
    })
}

/// Waits until so many events of this kind were seen.
#[track_caller]
fn events(supervisor: &Supervisor, name: &str, kind: &str, count: usize) -> Vec<Value> {
    wait_until(&format!("{count} events {kind} of {name}"), SOON, || {
        let mut seen = supervisor.events();
        seen.retain(|event| event["service"] == name && event["event"] == kind);
        (seen.len() >= count).then_some(seen)
    })
}

/// The order in which events of one kind came.
fn order(supervisor: &Supervisor, kind: &str) -> Vec<String> {
    let of_kind = supervisor
        .events()
        .into_iter()
        .filter(|event| event["event"] == kind);
    of_kind
        .map(|event| event["service"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// A second ctrl-c counts once the first one was shown for half a second.
fn ctrl_c_again(supervisor: &Supervisor) {
    std::thread::sleep(Duration::from_millis(600));
    supervisor.ctrl_c();
}

/// Ends it as an operator would, and checks that it went well and left nothing.
#[track_caller]
fn stop(mut supervisor: Supervisor, sandbox: &Sandbox) {
    supervisor.ctrl_c();
    let status = supervisor.wait(SOON);
    assert!(status.success(), "{status:?}: {:#?}", supervisor.events());
    sandbox.assert_no_leftovers();
}

fn code(status: ExitStatus) -> i32 {
    status.code().expect("it exits by itself")
}

/// The address that a service sends its notifications to.
#[cfg(target_os = "linux")]
fn notification_socket(pid: u64) -> std::os::unix::net::SocketAddr {
    use std::os::linux::net::SocketAddrExt as _;
    // In the middle of its exec a process has no environment for a moment.
    let address = wait_until("its environment", SOON, || {
        let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).ok()?;
        let mut variables = environment.split('\0');
        let address = variables.find_map(|it| it.strip_prefix("NOTIFY_SOCKET="))?;
        Some(address.to_owned())
    });
    let address = match address.strip_prefix('@') {
        Some(name) => std::os::unix::net::SocketAddr::from_abstract_name(name),
        None => std::os::unix::net::SocketAddr::from_pathname(address),
    };
    address.expect("an address")
}
