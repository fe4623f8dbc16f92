//! A request takes part in the trace of its client, and so does what it causes.

use super::receiver::{next, receiver, write_key};
use super::*;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const STATE: &str = "vendor=1";

/// Runs a verb as a part of a trace.
#[track_caller]
fn traced(sandbox: &Sandbox, parent: &str, args: &[&str]) -> i32 {
    let mut command = sandbox.command(mainstay());
    command.env("TRACEPARENT", parent).env("TRACESTATE", STATE);
    let output = command.args(args).output().expect("mainstay runs");
    code(output.status)
}

/// Returns the trace in the environment of the commands that wrote to this file, one line each.
fn traces(sandbox: &Sandbox, name: &str, count: usize) -> Vec<String> {
    wait_until(name, SOON, || {
        let text = std::fs::read_to_string(sandbox.path().join(name)).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (lines.len() >= count && text.ends_with('\n')).then_some(lines)
    })
}

fn write_trace(file: &str) -> String {
    format!(
        r#"["/bin/sh", "-c", 'echo "${{TRACEPARENT-none}} ${{TRACESTATE-none}}" >> HERE/{file}']"#
    )
}

#[test]
fn what_a_request_causes_carries_its_trace_and_nothing_else_does() {
    let (address, got) = receiver(&[]);
    let [probe, reload, quiesce, thaw, page] =
        ["probe", "reload", "quiesce", "thaw", "page"].map(write_trace);
    let (sandbox, manifest) = sandbox(&format!(
        r#"
        [service.a]
        command = ["PUPPET", "print-env", "await", "HERE/go", "exit", "7"]
        start = {{ ready = {{ exec = {probe} }} }}
        recovery = {{ policy = "strict" }}
        reload = {{ exec = {reload} }}
        snapshot = {{ paths = ["HERE/data"], quiesce = {quiesce}, thaw = {thaw} }}
        on_alert = {{ exec = {page}, webhook = {{ url = "http://{address}/", secret_file = "webhook.key" }} }}
        [service.b]
        command = ["PUPPET", "exit", "7"]
        start = {{ ready = {{ file = "HERE/never" }} }}
        recovery = {{ policy = "strict" }}
        on_alert = {{ exec = {page}, webhook = {{ url = "http://{address}/", secret_file = "webhook.key" }} }}
        "#
    ));
    write_key(&sandbox);
    std::fs::create_dir(sandbox.path().join("data")).expect("a directory");
    // The supervisor itself was started by somebody who traces: no service was.
    let mut command = sandbox.command(mainstay());
    command.env("TRACEPARENT", PARENT).env("TRACESTATE", STATE);
    command.args(["run", "--json"]).arg(&manifest);
    let supervisor = Supervisor::spawn(command);
    event(&supervisor, "a", "ready");
    event(&supervisor, "b", "halted");
    let (none, carried) = ("none none".to_owned(), format!("{PARENT} {STATE}"));
    assert_eq!(traces(&sandbox, "probe", 1), [&*none]);
    // The failure, and the halt.
    assert_eq!(traces(&sandbox, "page", 2), [&*none, &*none]);
    let has_trace = |it: &super::receiver::Request| {
        it.headers.iter().any(|(name, _)| name.starts_with("trace"))
    };
    assert!([next(&got), next(&got)].iter().all(|it| !has_trace(it)));

    assert_eq!(traced(&sandbox, PARENT, &["reload", "a"]), 0);
    assert_eq!(traces(&sandbox, "reload", 1), [&*carried]);
    assert_eq!(traced(&sandbox, PARENT, &["snapshot", "create", "a"]), 0);
    assert_eq!(traces(&sandbox, "quiesce", 1), [&*carried]);
    assert_eq!(traces(&sandbox, "thaw", 1), [&*carried]);
    assert_eq!(traced(&sandbox, PARENT, &["restart", "a"]), 0);
    assert_eq!(traces(&sandbox, "probe", 2), [&*none, &*carried]);
    assert_eq!(traced(&sandbox, PARENT, &["start", "b"]), 1);
    assert_eq!(traces(&sandbox, "page", 4)[2..], [&*carried, &*carried]);
    for request in [next(&got), next(&got)] {
        assert_eq!(request.header("traceparent"), PARENT);
        assert_eq!(request.header("tracestate"), STATE);
    }
    let requested = events(&supervisor, "a", "requested", 3);
    let operations = ["reload", "snapshot", "restart"];
    for (event, operation) in requested.iter().zip(operations) {
        assert_eq!(event["operation"], operation);
        assert_eq!(event["traceparent"], PARENT);
    }

    // A request without a trace, or with an invalid one, takes its place.
    for parent in ["", &PARENT.to_uppercase(), &PARENT[..54]] {
        assert_eq!(traced(&sandbox, parent, &["reload", "a"]), 0, "{parent}");
    }
    let reloads = traces(&sandbox, "reload", 4);
    assert_eq!(reloads[1..], [&*none, &*none, &*none]);
    let invalid = &events(&supervisor, "a", "requested", 6)[3..];
    let is_traced = |it: &Value| it.get("traceparent").is_some();
    assert!(!invalid.iter().any(is_traced), "{invalid:?}");

    // It ran when the request was answered: what ends it later is not the request.
    std::fs::write(sandbox.path().join("go"), "").expect("a file");
    event(&supervisor, "a", "halted");
    assert_eq!(traces(&sandbox, "page", 6)[4..], [&*none, &*none]);
    assert!([next(&got), next(&got)].iter().all(|it| !has_trace(it)));
    assert_untraced(&sandbox);
    stop_all(supervisor, &sandbox);
}

/// Asserts that the program itself, which prints its environment, has no trace in it.
fn assert_untraced(sandbox: &Sandbox) {
    let log = sandbox.state_dir().join("logs/a/current.log");
    let log = std::fs::read_to_string(log).expect("its environment");
    assert!(log.contains("MAINSTAY_SERVICE=a\n"), "{log}");
    for variable in ["TRACEPARENT", "TRACESTATE"] {
        assert!(!log.contains(variable), "{log}");
    }
}

/// Stops the supervisor of services that were halted.
fn stop_all(mut supervisor: Supervisor, sandbox: &Sandbox) {
    supervisor.ctrl_c();
    supervisor.wait(SOON);
    sandbox.assert_no_leftovers();
}
