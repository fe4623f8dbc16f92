//! Tests of the `mainstay` command with real processes, from the view of an operator.
#![cfg(unix)]

mod adoption;
mod alerts;
mod completions;
mod control;
mod daemon;
#[cfg(target_os = "linux")]
mod events;
#[cfg(target_os = "linux")]
mod exhaustion;
mod failures;
mod hello;
mod init;
mod json;
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
mod receiver;
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
mod traces;
#[cfg(target_os = "linux")]
mod trust;
mod update;
#[cfg(target_os = "linux")]
mod updates;
#[cfg(target_os = "linux")]
mod upgrades;
#[cfg(target_os = "linux")]
mod verify;
mod verify_managers;
#[cfg(target_os = "linux")]
mod versions;
mod viewers;
mod web_stack;

use std::path::PathBuf;
use std::process::{ExitStatus, Output};
use std::time::Duration;

#[cfg(target_os = "linux")]
use mainstay_testkit::procs;
use mainstay_testkit::{Sandbox, Supervisor, mainstay, puppet, wait_until};
#[cfg(target_os = "linux")]
use rustix::process::Pid;
use serde_json::Value;

/// A timeout that is long enough for a busy machine. Everything here should take a fraction of it.
const SOON: Duration = Duration::from_secs(20);

/// The exit codes by which the exit code contract is tested, with a limit of 5 restarts.
#[cfg(target_os = "linux")]
const CODES: [i32; 8] = [0, 1, 101, 137, 143, 201, 202, 255];

/// Returns the number of starts of a program that always exits with `code`, and the final state in
/// systemd.
#[cfg(target_os = "linux")]
fn contract(code: i32) -> (u32, &'static str) {
    match code {
        // The service has completed.
        0 => (1, "inactive"),
        // Requests a restore, but there is no snapshot.
        201 => (1, "failed"),
        _ => (6, "failed"),
    }
}

/// Returns a sandbox with a manifest for the development environment, in which `PUPPET` stands for
/// the puppet's path and `HERE` for the sandbox.
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

/// Starts a supervisor of these services, and returns it with its sandbox (dropped last).
fn supervise(services: &str) -> (Supervisor, Sandbox) {
    let (sandbox, manifest) = sandbox(services);
    (Supervisor::start(&sandbox, &manifest), sandbox)
}

/// Runs a verb to completion.
fn verb(sandbox: &Sandbox, args: &[&str]) -> Output {
    sandbox
        .command(mainstay())
        .args(args)
        .output()
        .expect("mainstay runs")
}

/// Runs a verb to completion. Returns its exit code, and what it writes.
fn said(sandbox: &Sandbox, args: &[&str]) -> (i32, String) {
    let output = verb(sandbox, args);
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (code(output.status), text)
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

/// Returns the entry of one service in `list --json`, whatever its state.
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

/// Waits until this number of events of this kind was received.
#[track_caller]
fn events(supervisor: &Supervisor, name: &str, kind: &str, count: usize) -> Vec<Value> {
    wait_until(&format!("{count} events {kind} of {name}"), SOON, || {
        let mut seen = supervisor.events();
        seen.retain(|event| event["service"] == name && event["event"] == kind);
        (seen.len() >= count).then_some(seen)
    })
}

/// Returns the services in the order of their events of one kind.
fn order(supervisor: &Supervisor, kind: &str) -> Vec<String> {
    let of_kind = supervisor
        .events()
        .into_iter()
        .filter(|event| event["event"] == kind);
    of_kind
        .map(|event| event["service"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// Sends a second Ctrl-C. It counts only after the first one was shown for half a second.
fn ctrl_c_again(supervisor: &Supervisor) {
    std::thread::sleep(Duration::from_millis(600));
    supervisor.ctrl_c();
}

/// Stops the supervisor as an operator would, and checks that it exits cleanly and leaves nothing
/// behind.
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

/// Returns the address that a service sends its notifications to.
#[cfg(target_os = "linux")]
fn notification_socket(pid: u64) -> std::os::unix::net::SocketAddr {
    use std::os::linux::net::SocketAddrExt as _;
    // During exec, a process has no environment for a moment.
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

/// Returns the process that holds a supervisor's log pipes open.
#[cfg(target_os = "linux")]
fn keeper(sandbox: &Sandbox) -> Pid {
    wait_until("a keeper", SOON, || {
        let record = std::fs::read_to_string(sandbox.state_dir().join("pipes/.keeper")).ok()?;
        let [line] = record.lines().collect::<Vec<_>>()[..] else {
            return None;
        };
        let pid = Pid::from_raw(line.split_once(' ')?.0.parse().ok()?)?;
        procs::is_named(pid, "mainstay-keeper").then_some(pid)
    })
}

/// Asserts that no thread of these processes wakes up within 5 s of their last activity.
#[cfg(target_os = "linux")]
#[track_caller]
fn assert_asleep(pids: [Pid; 2]) {
    let switches_in = |duration| {
        let switches = || pids.map(|pid| procs::cost(pid).switches);
        let before = switches();
        std::thread::sleep(duration);
        (before, switches())
    };
    wait_until("the end of their activity", SOON, || {
        // A supervisor wakes up once more, two seconds after the last request.
        let (before, after) = switches_in(Duration::from_secs(3));
        (before == after).then_some(())
    });
    let (before, after) = switches_in(Duration::from_secs(5));
    assert_eq!(before, after, "context switches of {pids:?}");
}
