//! `verify`: real disagreements, each staged from outside, are found with their cause.
#![cfg(target_os = "linux")]

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use rustix::process::{Signal, kill_process};

use super::*;

/// Returns the document of `verify NAME --json` and the exit code.
fn verify(sandbox: &Sandbox, name: &str) -> (i32, Value) {
    let output = verb(sandbox, &["verify", name, "--json"]);
    let document = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (code(output.status), document)
}

/// Waits until `verify` names this cause, and asserts its exit code.
#[track_caller]
fn disagrees(sandbox: &Sandbox, name: &str, cause: &str) -> Value {
    let mut last = Value::Null;
    for _ in 0..10 {
        let (status, document) = verify(sandbox, name);
        let causes = document["causes"].as_array().cloned().unwrap_or_default();
        let is_named = |it: &Value| it.as_str().is_some_and(|it| it.contains(cause));
        if causes.iter().any(is_named) {
            assert_eq!((status, &document["verdict"]), (79, &"disagree".into()));
            return document;
        }
        last = document;
    }
    panic!("{name}: not {cause:?} but {last:#}");
}

#[track_caller]
fn agrees(sandbox: &Sandbox, name: &str, state: &str, known: usize) {
    let (status, document) = verify(sandbox, name);
    assert_eq!(
        (status, &document["verdict"], &document["state"]),
        (0, &"agree".into(), &state.into()),
        "{document:#}"
    );
    let sources = document["witnesses"].as_array().expect("sources").iter();
    let answered = sources.filter(|it| it["claim"] != "unknown").count();
    assert!(answered >= known, "{document:#}");
}

fn pid(sandbox: &Sandbox, name: &str) -> Pid {
    let pid = service(sandbox, name)["pid"].as_i64().expect("it runs");
    Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid")
}

fn send(pid: Pid, signal: Signal) {
    kill_process(pid, signal).expect("it lives");
}

/// Returns the control group of a process, where the hierarchy is mounted, if it is the service's
/// own.
fn cgroup(pid: Pid) -> Option<PathBuf> {
    let pid = pid.as_raw_nonzero();
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    let dirs = roots.iter().map(|root| Path::new(root).join(path));
    let found = dirs
        .into_iter()
        .find(|dir| dir.join("cgroup.freeze").exists());
    found.filter(|dir| dir.to_string_lossy().contains("mainstay-"))
}

#[test]
fn a_healthy_service_agrees_through_the_restarts_of_its_neighbours() {
    let (supervisor, sandbox) = supervise(
        r#"
        [service.quiet]
        command = ["PUPPET", "touch", "HERE/ready", "hang"]
        start = { ready = { file = "HERE/ready" } }
        [service.noisy]
        command = ["PUPPET", "exit", "1"]
        recovery = { delay = "1ms", max_delay = "5ms", limit = "none" }
        "#,
    );
    event(&supervisor, "quiet", "ready");
    events(&supervisor, "noisy", "started", 3);
    for _ in 0..100 {
        agrees(&sandbox, "quiet", "running", 5);
    }
    let restarts = service(&sandbox, "noisy")["restarts"].as_u64();
    assert!(restarts > Some(20), "{restarts:?}");
    stop(supervisor, &sandbox);
}

#[test]
fn a_process_that_somebody_has_stopped_or_frozen_is_not_running() {
    let (supervisor, sandbox) = supervise(
        r#"
        [service.nap]
        command = ["PUPPET", "hang"]
        "#,
    );
    event(&supervisor, "nap", "started");
    let main = pid(&sandbox, "nap");
    agrees(&sandbox, "nap", "running", 4);
    send(main, Signal::STOP);
    let seen = disagrees(&sandbox, "nap", "was stopped by a signal");
    let hint = seen["findings"][0]["hint"].as_str().expect("a hint");
    let (_, line) = hint.rsplit_once(": ").expect("a command");
    // Its hint is followed, and the finding is gone.
    let words: Vec<&str> = line.split(' ').collect();
    let done = Command::new(words[0]).args(&words[1..]).status();
    assert!(done.expect("kill").success(), "{hint}");
    agrees(&sandbox, "nap", "running", 4);
    if let Some(dir) = cgroup(main) {
        fs::write(dir.join("cgroup.freeze"), "1").expect("it is ours");
        disagrees(&sandbox, "nap", "is frozen");
        fs::write(dir.join("cgroup.freeze"), "0").expect("it is ours");
        agrees(&sandbox, "nap", "running", 4);
        // A process that was moved elsewhere is no longer contained.
        let parent = dir.parent().expect("a nest").parent().expect("a parent");
        let number = main.as_raw_nonzero().to_string();
        fs::write(parent.join("cgroup.procs"), &number).expect("it may be moved");
        disagrees(
            &sandbox,
            "nap",
            "is not in its cgroup: another process has moved it",
        );
        fs::write(dir.join("cgroup.procs"), &number).expect("it may be moved");
        agrees(&sandbox, "nap", "running", 4);
    }
    // A pause through mainstay is what every source says.
    assert_eq!(said(&sandbox, &["pause", "nap"]).0, 0);
    agrees(&sandbox, "nap", "paused", 4);
    assert_eq!(said(&sandbox, &["continue", "nap"]).0, 0);
    stop(supervisor, &sandbox);
}

#[test]
fn a_supervisor_that_is_silent_or_dead_is_found() {
    let (sandbox, manifest) = sandbox(
        r#"
        [service.nap]
        command = ["PUPPET", "hang"]
        "#,
    );
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "nap", "started");
    let main = pid(&sandbox, "nap");
    let own = Pid::from_raw(i32::try_from(supervisor.id()).expect("a pid")).expect("a pid");
    send(own, Signal::STOP);
    disagrees(&sandbox, "nap", "was stopped by a signal or by a debugger");
    // Meanwhile the program ends, and nobody notices.
    send(main, Signal::KILL);
    disagrees(&sandbox, "nap", "is not running, although");
    send(own, Signal::CONT);
    events(&supervisor, "nap", "started", 2);
    agrees(&sandbox, "nap", "running", 4);
    supervisor.kill_dash_nine();
    disagrees(&sandbox, "nap", "was killed; it runs without one");
    let supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "nap", "adopted");
    agrees(&sandbox, "nap", "running", 4);
    stop(supervisor, &sandbox);
}

#[test]
fn a_copy_that_runs_outside_of_the_supervisor_is_found() {
    let (supervisor, sandbox) = supervise(
        r#"
        [service.nap]
        command = ["sleep", "86399"]
        "#,
    );
    event(&supervisor, "nap", "started");
    assert_eq!(said(&sandbox, &["stop", "nap"]).0, 0);
    agrees(&sandbox, "nap", "stopped", 3);
    let mut stray = Command::new("sleep").arg("86399").spawn().expect("sleep");
    let cause = format!(
        "pid {} runs the same command, but does not belong",
        stray.id()
    );
    disagrees(&sandbox, "nap", &cause);
    stray.kill().expect("it lives");
    stray.wait().expect("it ends");
    agrees(&sandbox, "nap", "stopped", 3);
    stop(supervisor, &sandbox);
}

#[test]
fn a_service_that_is_down_or_keeps_failing_is_not_what_is_wished() {
    let (supervisor, sandbox) = supervise(
        r#"
        [service.halted]
        command = ["PUPPET", "exit", "3"]
        recovery = { policy = "strict" }
        [service.away]
        command = ["PUPPET", "exit", "1"]
        recovery = { delay = "1h", max_delay = "1h" }
        [service.loops]
        command = ["PUPPET", "exit", "1"]
        recovery = { delay = "1ms", max_delay = "1h", limit = { restarts = 1, window = "1m" } }
        [service.needy]
        command = ["PUPPET", "hang"]
        needs = ["away"]
        start = { timeout = "1h" }
        "#,
    );
    event(&supervisor, "halted", "halted");
    event(&supervisor, "away", "backing-off");
    event(&supervisor, "loops", "crash-looping");
    disagrees(&sandbox, "halted", "it failed and is down: exit code 3");
    disagrees(
        &sandbox,
        "away",
        "it failed and will be restarted: exit code 1",
    );
    disagrees(&sandbox, "loops", "it keeps failing");
    let output = verb(&sandbox, &["verify", "--all", "--json"]);
    assert_eq!(code(output.status), 79);
    let all: Value = serde_json::from_slice(&output.stdout).expect("a document");
    let names = all["services"].as_array().expect("services").iter();
    let names: Vec<&str> = names.filter_map(|it| it["name"].as_str()).collect();
    assert_eq!(names, ["away", "halted", "loops", "needy"]);
    assert_eq!(code(verb(&sandbox, &["verify", "nosuch"]).status), 4);
    assert_eq!(code(verb(&sandbox, &["verify"]).status), 2);
    stop(supervisor, &sandbox);
}

#[test]
fn a_service_whose_listener_is_gone_is_not_ready_whatever_else_is_said() {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
    let port = port.expect("a free port").port();
    let (supervisor, sandbox) = supervise(&format!(
        r#"
        [service.web]
        command = ["sh", "-c", "PUPPET serve http 127.0.0.1:{port} hang & wait; sleep 86398"]
        start = {{ ready = {{ http = "http://127.0.0.1:{port}/" }} }}
        "#
    ));
    event(&supervisor, "web", "ready");
    agrees(&sandbox, "web", "running", 7);
    let main = pid(&sandbox, "web").as_raw_nonzero();
    let children = fs::read_to_string(format!("/proc/{main}/task/{main}/children"));
    let child = children
        .expect("its children")
        .trim()
        .parse()
        .expect("one child");
    send(Pid::from_raw(child).expect("a pid"), Signal::KILL);
    disagrees(&sandbox, "web", "its readiness probe fails, although");
    disagrees(
        &sandbox,
        "web",
        &format!("no process listens on 127.0.0.1:{port}"),
    );
    let _taken = TcpListener::bind(("127.0.0.1", port)).expect("it is free now");
    let own = std::process::id();
    let seen = disagrees(&sandbox, "web", "belongs to another program");
    assert!(
        seen["causes"].to_string().contains(&format!("(pid {own})")),
        "{seen:#}"
    );
    stop(supervisor, &sandbox);
}
