//! Requests of operators to a supervisor: several services at once, consecutive requests, and stops
//! of services with dependents.

use std::thread;

use rustix::process::Signal;

use super::*;

/// The service `b` needs `a`, and its stop waits until `HERE/go` exists.
const SLOW_DEPENDENT: &str = r#"
    [service.a]
    command = ["PUPPET", "touch", "HERE/a", "hang"]
    start = { ready = { file = "HERE/a" } }
    [service.b]
    command = ["sh", "-c", "trap 'until [ -e HERE/go ]; do sleep 0.01; done; exit 0' TERM; echo up; while :; do sleep 0.01; done"]
    needs = ["a"]
    start = { ready = { log = "up" } }
"#;

/// Runs a verb in the background, as from another terminal.
fn ask(sandbox: &Sandbox, args: &'static [&'static str]) -> thread::JoinHandle<Output> {
    let mut command = sandbox.command(mainstay());
    command.args(args);
    thread::spawn(move || command.output().expect("mainstay runs"))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn state(sandbox: &Sandbox, name: &str) -> String {
    let state = service(sandbox, name)["state"].clone();
    state.as_str().expect("a state").to_owned()
}

fn wait_state(sandbox: &Sandbox, name: &str, expect: &str) {
    wait_until(&format!("{name} to be {expect}"), SOON, || {
        (state(sandbox, name) == expect).then_some(())
    });
}

#[test]
fn a_stop_waits_for_the_dependents_that_are_stopping() {
    let (supervisor, sandbox) = supervise(SLOW_DEPENDENT);
    event(&supervisor, "b", "ready");
    let stop_b = ask(&sandbox, &["stop", "b"]);
    wait_state(&sandbox, "b", "stop-pending");
    let stop_a = ask(&sandbox, &["stop", "a"]);
    wait_state(&sandbox, "a", "stop-pending");
    sandbox.write("go", "");
    for (name, stop) in [("b", stop_b), ("a", stop_a)] {
        let output = stop.join().expect("it ran");
        assert_eq!(code(output.status), 0, "{name}: {}", stderr(&output));
    }
    assert_eq!(order(&supervisor, "stopped"), ["b", "a"]);
    stop(supervisor, &sandbox);
}

#[test]
fn services_that_are_stopped_together_go_in_the_order_of_their_needs() {
    let (supervisor, sandbox) = supervise(SLOW_DEPENDENT);
    sandbox.write("go", "");
    event(&supervisor, "b", "ready");
    for names in [["b", "a"], ["a", "b"]].repeat(5) {
        let output = verb(&sandbox, &["stop", names[0], names[1]]);
        assert_eq!(code(output.status), 0, "{}", stderr(&output));
        let expect = format!("{}: stopped\n{}: stopped\n", names[0], names[1]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), expect);
        assert_eq!(code(verb(&sandbox, &["start", "b", "a"]).status), 0);
        assert_eq!(state(&sandbox, "a"), "running");
        assert_eq!(state(&sandbox, "b"), "running");
    }
    let stopping = order(&supervisor, "stopping");
    let stopped = order(&supervisor, "stopped");
    assert_eq!(stopped, ["b", "a"].repeat(10));
    assert_eq!(stopping, ["b", "a"].repeat(10));
    stop(supervisor, &sandbox);
}

#[test]
fn services_that_are_restarted_together_go_in_the_order_of_their_needs() {
    let (supervisor, sandbox) = supervise(SLOW_DEPENDENT);
    sandbox.write("go", "");
    event(&supervisor, "b", "ready");
    let before = supervisor.events().len();
    for names in [["b", "a"], ["a", "b"]].repeat(5) {
        let output = verb(&sandbox, &["restart", names[0], names[1]]);
        assert_eq!(code(output.status), 0, "{}", stderr(&output));
        let expect = format!("{}: running\n{}: running\n", names[0], names[1]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), expect);
    }
    let events = supervisor.events().split_off(before);
    let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let seen = events
        .iter()
        .map(|it| format!("{} {}", text(it, "event"), text(it, "service")));
    let kinds = ["stopping", "exited", "started"];
    let seen = seen.filter(|it| kinds.iter().any(|kind| it.starts_with(kind)));
    let round = [
        "stopping b",
        "exited b",
        "stopping a",
        "exited a",
        "started a",
        "started b",
    ];
    assert_eq!(seen.collect::<Vec<_>>(), round.repeat(10));
    // A superseded request reports that.
    std::fs::remove_file(sandbox.path().join("go")).expect("there");
    let restart = ask(&sandbox, &["restart", "a", "b"]);
    wait_state(&sandbox, "b", "stop-pending");
    wait_state(&sandbox, "a", "stop-pending");
    let stop_a = ask(&sandbox, &["stop", "a"]);
    let output = restart.join().expect("it ran");
    assert_eq!(code(output.status), 1);
    let expect = "restart a, b: superseded by a stop: a was stopped before it was ready";
    assert!(stderr(&output).contains(expect), "{}", stderr(&output));
    sandbox.write("go", "");
    assert_eq!(code(stop_a.join().expect("it ran").status), 0);
    // The answer is that the start waits for a service that an operator has paused.
    assert_eq!(code(verb(&sandbox, &["start", "b"]).status), 0);
    assert_eq!(code(verb(&sandbox, &["pause", "a"]).status), 0);
    let output = verb(&sandbox, &["restart", "b"]);
    assert_eq!(code(output.status), 1);
    let error = stderr(&output);
    let expect = "restart b: it is waiting for a, which is paused";
    assert!(error.contains(expect), "{error}");
    assert!(error.contains("mainstay continue a"), "{error}");
    stop(supervisor, &sandbox);
}

/// The service that was asked for has nothing to do with it.
#[test]
fn a_wait_names_the_service_that_is_at_fault() {
    let (supervisor, sandbox) = supervise(
        r#"
        [service.redis]
        command = ["PUPPET", "exit", "7"]
        start = { ready = { file = "HERE/never" } }
        recovery = { delay = "10ms", max_delay = "60s", limit = { restarts = 1, window = "15m" } }
        [service.app]
        command = ["PUPPET", "hang"]
        needs = ["redis"]
        [service.web]
        command = ["PUPPET", "hang"]
        needs = ["app"]
        "#,
    );
    event(&supervisor, "redis", "crash-looping");
    for (name, need) in [("app", "redis, which is crash-looping"), ("web", "app")] {
        let output = verb(&sandbox, &["start", name]);
        let error = stderr(&output);
        assert_eq!(code(output.status), 1, "{error}");
        for expected in [
            &format!("cannot start {name}: it is waiting for {need}"),
            "hint: see the output of redis: mainstay logs redis -n 20",
        ] {
            assert!(error.contains(expected), "{error}");
        }
    }
    assert_eq!(code(verb(&sandbox, &["stop", "redis"]).status), 0);
    let app = service(&sandbox, "app");
    assert_eq!(
        app["detail"], "waiting for redis, which is stopped",
        "{app}"
    );
    assert_eq!(app["blocker"]["state"], "stopped", "{app}");
    stop(supervisor, &sandbox);
}

#[test]
fn a_request_that_is_overtaken_says_so() {
    let (supervisor, sandbox) = supervise(SLOW_DEPENDENT);
    event(&supervisor, "b", "ready");
    let stop_b = ask(&sandbox, &["stop", "b"]);
    wait_state(&sandbox, "b", "stop-pending");
    let restart = ask(&sandbox, &["restart", "b"]);
    let output = stop_b.join().expect("it ran");
    assert_eq!(code(output.status), 1);
    let expect = "superseded by a start: b was started again before it had stopped";
    assert!(stderr(&output).contains(expect), "{}", stderr(&output));
    let stop_b = ask(&sandbox, &["stop", "b"]);
    let output = restart.join().expect("it ran");
    assert_eq!(code(output.status), 1);
    let expect = "superseded by a stop: b was stopped before it was ready";
    assert!(stderr(&output).contains(expect), "{}", stderr(&output));
    // A start of a dependent also starts the service.
    let stop_a = ask(&sandbox, &["stop", "a"]);
    wait_state(&sandbox, "a", "stop-pending");
    let start_b = ask(&sandbox, &["start", "b"]);
    for stop in [stop_a, stop_b] {
        let output = stop.join().expect("it ran");
        assert_eq!(code(output.status), 1);
        assert!(
            stderr(&output).contains("superseded"),
            "{}",
            stderr(&output)
        );
    }
    sandbox.write("go", "");
    assert_eq!(code(start_b.join().expect("it ran").status), 0);
    stop(supervisor, &sandbox);
}

#[test]
fn a_stop_of_everything_that_is_overtaken_says_so() {
    let (supervisor, sandbox) = supervise(SLOW_DEPENDENT);
    event(&supervisor, "b", "ready");
    for started in [&["start", "b"], &["restart", "a"]] {
        let stop_all = ask(&sandbox, &["stop"]);
        wait_state(&sandbox, "b", "stop-pending");
        let start = ask(&sandbox, started);
        let output = stop_all.join().expect("it ran");
        assert_eq!(code(output.status), 1);
        let expect =
            "error: cannot stop: superseded by a start: a was started again before it had stopped";
        assert!(stderr(&output).contains(expect), "{}", stderr(&output));
        sandbox.write("go", "");
        assert_eq!(code(start.join().expect("it ran").status), 0);
        std::fs::remove_file(sandbox.path().join("go")).expect("it is there");
        // Otherwise `b` is not running in the next round.
        assert_eq!(code(verb(&sandbox, &["start", "b"]).status), 0);
    }
    sandbox.write("go", "");
    stop(supervisor, &sandbox);
}

#[test]
fn a_start_waits_for_the_needs_that_it_brings_up_again() {
    let (supervisor, sandbox) = supervise(
        r#"
        [service.a]
        command = ["sh", "-c", "trap 'until [ -e HERE/go ]; do sleep 0.01; done; exit 0' TERM; echo up; while :; do sleep 0.01; done"]
        start = { ready = { log = "up" } }
        [service.b]
        command = ["PUPPET", "hang"]
        needs = ["a"]
        "#,
    );
    event(&supervisor, "b", "started");
    let stop_a = ask(&sandbox, &["stop", "a"]);
    event(&supervisor, "a", "stopping");
    let start_b = ask(&sandbox, &["start", "b"]);
    // The stop is superseded as soon as the start is received.
    assert_eq!(code(stop_a.join().expect("it ran").status), 1);
    assert_eq!(state(&sandbox, "a"), "stop-pending");
    sandbox.write("go", "");
    let output = start_b.join().expect("it ran");
    assert_eq!(code(output.status), 0, "{}", stderr(&output));
    assert_eq!(state(&sandbox, "a"), "running");
    stop(supervisor, &sandbox);
}

#[test]
fn a_stopped_need_leaves_its_dependents_running_and_says_so() {
    for daemon in [false, true] {
        let (sandbox, manifest) = sandbox(SLOW_DEPENDENT);
        sandbox.write("go", "");
        let path = manifest.display().to_string();
        let mut command = sandbox.command(mainstay());
        if daemon {
            let install = verb(&sandbox, &["install", "--manager", "embedded", &path]);
            assert_eq!(code(install.status), 0, "{}", stderr(&install));
            command.args(["daemon", "--json"])
        } else {
            command.args(["run", "--json", &path])
        };
        let mut supervisor = Supervisor::spawn(command);
        event(&supervisor, "b", "ready");
        let output = verb(&sandbox, &["stop", "a"]);
        assert_eq!(code(output.status), 0, "{}", stderr(&output));
        let note = "note: b needs a and keeps running\n\
                    hint: `mainstay stop a --with-dependents` stops both\n";
        assert_eq!(stderr(&output), note);
        let told = event(&supervisor, "a", "still-needed");
        assert_eq!(told["by"], serde_json::json!(["b"]));
        let a = service(&sandbox, "a");
        assert_eq!(a["needed_by"], serde_json::json!(["b"]));
        assert_eq!(state(&sandbox, "b"), "running");

        json(&sandbox, &["start", "a", "--json"]);
        let report = json(&sandbox, &["stop", "a", "--with-dependents", "--json"]);
        let services = report["services"].as_array().expect("services");
        let names: Vec<&Value> = services.iter().map(|it| &it["name"]).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(services.iter().all(|it| it["state"] == "stopped"));
        // The first stop was a separate one.
        events(&supervisor, "a", "stopped", 2);
        assert_eq!(order(&supervisor, "stopped"), ["a", "b", "a"]);
        supervisor.ctrl_c();
        assert_eq!(code(supervisor.wait(SOON)), 0);
        sandbox.assert_no_leftovers();
    }
}

#[test]
fn a_need_is_stopped_the_same_way_without_a_supervisor() {
    let (mut supervisor, sandbox) = supervise(SLOW_DEPENDENT);
    sandbox.write("go", "");
    event(&supervisor, "b", "ready");
    supervisor.kill_dash_nine();
    let output = verb(&sandbox, &["stop", "a"]);
    assert_eq!(code(output.status), 0, "{}", stderr(&output));
    let note = "note: b needs a and keeps running\n";
    assert!(stderr(&output).contains(note), "{}", stderr(&output));
    let output = verb(&sandbox, &["stop", "a", "--with-dependents"]);
    assert_eq!(code(output.status), 0, "{}", stderr(&output));
    let expect = "a: stopped\nb: stopped\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), expect);
    sandbox.assert_no_leftovers();
}

/// `timeout -s INT`, and a terminal with a wrapper, send a signal to the group and to the process.
/// Whoever waits for an answer is told that there will be none.
#[test]
fn a_supervisor_that_is_killed_answers_with_its_end() {
    let (mut supervisor, sandbox) = supervise(
        r#"
        [service.slow]
        command = ["PUPPET", "hang"]
        start = { ready = { file = "HERE/never" } }
        "#,
    );
    event(&supervisor, "slow", "started");
    let ask = |args: &[&str]| {
        let mut client = sandbox.command(mainstay());
        client.args(args).stderr(std::process::Stdio::piped());
        client.spawn().expect("mainstay runs")
    };
    let clients = [ask(&["start", "slow"]), ask(&["events", "-f"])];
    let socket = sandbox.state_dir().join("control.sock");
    wait_until("both are connected", SOON, || {
        let peers = std::fs::read_to_string("/proc/net/unix").expect("sockets");
        let connections = peers
            .lines()
            .filter(|it| it.ends_with(&*socket.to_string_lossy()));
        // The one that listens, and one for each.
        (connections.count() == 3).then_some(())
    });
    supervisor.kill_dash_nine();
    for client in clients {
        let output = client.wait_with_output().expect("our child");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(code(output.status), 3, "{said}");
        // It may have been killed before the request was sent.
        let is_said = ["exited before it responded", "was killed"].map(|end| said.contains(end));
        assert!(is_said.contains(&true), "{said}");
    }
    assert_eq!(code(verb(&sandbox, &["stop"]).status), 0);
    sandbox.assert_no_leftovers();
}

#[test]
fn two_signals_at_once_are_one() {
    let (mut supervisor, sandbox) = supervise(
        r#"
        [service.slow]
        command = ["sh", "-c", "trap 'until [ -e HERE/go ]; do sleep 0.01; done; exit 0' TERM; echo up; while :; do sleep 0.01; done"]
        start = { ready = { log = "up" } }
        "#,
    );
    event(&supervisor, "slow", "ready");
    for signal in [Signal::INT, Signal::TERM, Signal::INT] {
        supervisor.signal(signal);
        thread::sleep(Duration::from_millis(10));
    }
    event(&supervisor, "slow", "stopping");
    sandbox.write("go", "");
    let status = supervisor.wait(SOON);
    assert_eq!(code(status), 0, "{:#?}", supervisor.events());
    let killed = |event: &Value| {
        let message = event["message"].as_str().unwrap_or_default();
        message.contains("killing")
    };
    assert!(!supervisor.events().iter().any(killed));
    sandbox.assert_no_leftovers();
}
