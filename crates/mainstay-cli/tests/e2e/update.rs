//! A new definition of a service is tried, kept if it is healthy, and given up if not: through the control socket, on real programs.
#![cfg(target_os = "linux")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use mainstay_testkit::free_port;

use super::*;

/// A request under way, whose answer comes when it is decided.
fn send(sandbox: &Sandbox, path: &str, body: &str) -> UnixStream {
    let socket = sandbox.state_dir().join("control.sock");
    let mut stream = UnixStream::connect(socket).expect("it listens");
    stream.set_read_timeout(Some(SOON)).expect("set");
    write!(
        stream,
        "POST /v1/services/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("sent");
    stream
}

fn answer(mut stream: UnixStream) -> (u16, Value) {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("HTTP");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    // It comes in one chunk (RFC 9112).
    let chunk = body.lines().nth(1).unwrap_or_default();
    let body = serde_json::from_str(chunk).unwrap_or_else(|_| panic!("no JSON: {text}"));
    (status.expect("a status"), body)
}

fn ask(sandbox: &Sandbox, path: &str, body: &str) -> (u16, Value) {
    answer(send(sandbox, path, body))
}

/// The body of a request to try these services.
fn tried(sandbox: &Sandbox, services: &str, canary_ms: u64) -> String {
    let text = services
        .replace("PUPPET", &puppet().display().to_string())
        .replace("HERE", &sandbox.path().display().to_string());
    serde_json::json!({
        "manifest": format!("environment = \"development\"\n{text}"),
        "format": "toml",
        "base_dir": sandbox.path(),
        "canary_ms": canary_ms,
        "snapshot": null,
    })
    .to_string()
}

#[track_caller]
fn commit(sandbox: &Sandbox, name: &str) -> Value {
    let (status, body) = ask(sandbox, &format!("{name}/update/commit"), "");
    assert_eq!(status, 200, "{body}");
    body
}

fn pid(sandbox: &Sandbox, name: &str) -> Option<u64> {
    service(sandbox, name)["pid"].as_u64()
}

fn read(sandbox: &Sandbox, name: &str) -> String {
    std::fs::read_to_string(sandbox.path().join(name)).unwrap_or_default()
}

const OLD: &str = r#"
    [service.shop]
    command = ["PUPPET", "print", "old", "count", "HERE/old", "hang"]
    stop = { graceful = "5s" }
    [service.other]
    command = ["PUPPET", "hang"]
    needs = ["shop"]
"#;

#[test]
fn a_healthy_definition_takes_the_place_of_the_old_one() {
    let (supervisor, sandbox) = supervise(OLD);
    event(&supervisor, "other", "started");
    let old = pid(&sandbox, "shop").expect("it runs");
    let new = r#"
        [service.shop]
        command = ["PUPPET", "print-env", "touch", "HERE/up", "hang"]
        start = { ready = { file = "HERE/up" } }
    "#;
    let (status, body) = ask(&sandbox, "shop/update", &tried(&sandbox, new, 300));
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["outcome"], "healthy");
    assert_eq!(body["update"]["phase"], "trial", "{body}");
    assert_eq!(body["update"]["style"], "restart");
    assert_eq!(body["state"], "running");
    let candidate = body["update"]["pid"].as_u64().expect("it runs");
    let report = commit(&sandbox, "shop");
    assert_eq!(report["state"], "running");
    assert_eq!(report["pid"].as_u64(), Some(candidate));
    assert!(candidate != old && report["update"].is_null(), "{report}");
    assert_eq!(pid(&sandbox, "shop"), Some(candidate));
    event(&supervisor, "shop", "updated");
    // In the order of the manifest, as before; who needs it was not touched.
    let listed = json(&sandbox, &["list", "--json"]);
    assert_eq!(listed["services"][0]["name"], "shop");
    assert_eq!(order(&supervisor, "started"), ["shop", "other", "shop"]);
    assert_eq!(sandbox.processes().len(), 3, "one each, and the supervisor");
    let log = wait_until("its environment", SOON, || {
        let log = verb(&sandbox, &["logs", "shop", "-n", "100"]).stdout;
        let log = String::from_utf8_lossy(&log).into_owned();
        log.contains("MAINSTAY_SERVICE=shop").then_some(log)
    });
    assert!(log.starts_with("old\n"), "{log}");
    // It is the service in every respect: restarted as itself, stopped by name.
    let again = json(&sandbox, &["restart", "shop", "--json"]);
    assert_eq!(again["services"][0]["state"], "running");
    assert_eq!(
        read(&sandbox, "old").lines().count(),
        1,
        "starts of the old"
    );
    stop(supervisor, &sandbox);
}

/// Tries a definition that must be given up.
#[track_caller]
fn gives_up(services: &str, canary_ms: u64, phase: &str, why: &str) -> Value {
    let (supervisor, sandbox) = supervise(OLD);
    event(&supervisor, "other", "started");
    let body = tried(&sandbox, services, canary_ms);
    let (status, body) = ask(&sandbox, "shop/update", &body);
    assert_eq!(status, 409, "{body}");
    assert_eq!(body["outcome"], "rolled-back");
    assert_eq!(body["phase"], phase, "{body}");
    let error = body["error"].as_str().expect("an error");
    assert!(error.contains(why), "{error}");
    let shop = service(&sandbox, "shop");
    assert_eq!(shop["state"], "running");
    assert!(shop["update"].is_null());
    assert_eq!(read(&sandbox, "old").lines().count(), 2, "started again");
    let fact = event(&supervisor, "shop", "rolled-back");
    assert_eq!(fact["phase"], phase);
    assert_eq!(sandbox.processes().len(), 3);
    // Nobody can commit it any more.
    let (status, refusal) = ask(&sandbox, "shop/update/commit", "");
    assert_eq!(status, 409, "{refusal}");
    stop(supervisor, &sandbox);
    body
}

#[test]
fn what_exits_at_once_is_given_up_with_its_last_words() {
    let body = gives_up(
        r#"
        [service.shop]
        command = ["sh", "-c", "i=0; while [ $i -lt 30 ]; do echo line $i; i=$((i+1)); done; printf 'the end'; exit 3"]
        recovery = { delay = "0s" }
        start = { ready = { file = "HERE/never" } }
        "#,
        10_000,
        "start",
        "exit code 3",
    );
    let lines: Vec<&str> = body["last_lines"]
        .as_array()
        .expect("lines")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(
        (lines.len(), lines[0], lines[19]),
        (20, "line 11", "the end")
    );
}

#[test]
fn a_clean_exit_is_no_service_either() {
    let new = r#"
        [service.shop]
        command = ["PUPPET", "sleep", "100ms", "exit", "0"]
    "#;
    gives_up(new, 20_000, "canary", "exit code 0");
}

#[test]
fn what_is_never_ready_is_given_up() {
    let new = r#"
        [service.shop]
        command = ["PUPPET", "hang"]
        start = { ready = { file = "HERE/never" }, timeout = "300ms" }
    "#;
    gives_up(new, 0, "ready", "not ready after");
}

#[test]
fn what_dies_in_its_canary_is_given_up() {
    let new = r#"
        [service.shop]
        command = ["PUPPET", "print", "up", "sleep", "200ms", "signal", "SEGV"]
        start = { ready = { log = "up" } }
    "#;
    gives_up(new, 20_000, "canary", "killed by SIGSEGV");
}

#[test]
fn what_is_not_alive_in_its_canary_is_given_up() {
    let new = r#"
        [service.shop]
        command = ["PUPPET", "hang"]
        liveness = { file = "HERE/never", every = "10ms", misses = 2 }
    "#;
    gives_up(new, 20_000, "canary", "2 liveness probes missed");
}

#[test]
fn what_cannot_be_tried_touches_nothing() {
    let (supervisor, sandbox) = supervise(OLD);
    event(&supervisor, "other", "started");
    let before = pid(&sandbox, "shop");
    let whole = |text: &str| tried(&sandbox, text, 0);
    let large = format!("{{\"manifest\": \"{}\"", "x".repeat(1 << 20));
    for (path, body, status, part) in [
        ("none/update", whole(OLD), 404, "no service none"),
        ("shop/update", "{".to_owned(), 400, "the request"),
        (
            "shop/update",
            whole(OLD).replace("toml", "ini"),
            400,
            "format",
        ),
        ("shop/update", whole("[service.shop]\n"), 422, "1 mistake"),
        (
            "shop/update",
            whole("[service.x]\ncommand = [\"PUPPET\"]\n"),
            422,
            "no service shop",
        ),
        (
            "shop/update",
            whole("[service.shop]\ncommand = [\"HERE/none\"]\n"),
            422,
            "HERE/none",
        ),
        (
            "shop/update",
            whole(
                "[service.shop]\ncommand = [\"PUPPET\"]\nneeds = [\"b\"]\n[service.b]\ncommand = [\"PUPPET\"]\n",
            ),
            422,
            "which is not among",
        ),
        (
            "shop/update",
            whole("[service.shop]\ncommand = [\"PUPPET\"]\nworking_dir = \"HERE/no\"\n"),
            422,
            "working_dir",
        ),
        (
            "shop/update",
            whole(OLD).replace("null", "\"x\""),
            400,
            "snapshot",
        ),
        (
            "shop/update",
            whole(OLD).replace("null", "\"20261122T101112.123456Z\""),
            422,
            "has no snapshot",
        ),
        ("shop/update", large, 413, "bytes at most"),
        (
            "shop/update/commit",
            String::new(),
            409,
            "not being updated",
        ),
        ("shop/update/abort", String::new(), 409, "not being updated"),
    ] {
        let here = sandbox.path().display().to_string();
        let (found, answer) = ask(&sandbox, path, &body);
        let text = answer["error"].as_str().expect("an error");
        assert_eq!(found, status, "{path} {part}: {text}");
        assert!(
            text.contains(&part.replace("HERE", &here)),
            "{part}: {text}"
        );
    }
    assert_eq!(pid(&sandbox, "shop"), before);
    assert_eq!(order(&supervisor, "updating"), [""; 0]);
    stop(supervisor, &sandbox);
}

#[test]
fn a_stopped_service_is_not_started_for_it() {
    let (supervisor, sandbox) = supervise(OLD);
    event(&supervisor, "other", "started");
    json(&sandbox, &["stop", "shop", "--json"]);
    let new = "[service.shop]\ncommand = [\"PUPPET\", \"count\", \"HERE/new\", \"hang\"]\n";
    let (status, body) = ask(&sandbox, "shop/update", &tried(&sandbox, new, 60_000));
    assert_eq!((status, &body["state"]), (200, &"stopped".into()), "{body}");
    assert_eq!(commit(&sandbox, "shop")["state"], "stopped");
    assert_eq!(read(&sandbox, "new"), "");
    json(&sandbox, &["start", "shop", "--json"]);
    wait_until("its start", SOON, || {
        (read(&sandbox, "new").lines().count() == 1).then_some(())
    });
    stop(supervisor, &sandbox);
}

const HEALTHY: &str = r#"
    [service.shop]
    command = ["PUPPET", "count", "HERE/new", "hang"]
"#;

#[test]
fn nobody_who_waits_for_the_answer_means_no() {
    let (supervisor, sandbox) = supervise(OLD);
    event(&supervisor, "other", "started");
    // It would be healthy in a minute.
    let client = send(&sandbox, "shop/update", &tried(&sandbox, HEALTHY, 60_000));
    wait_until("the candidate", SOON, || {
        (service(&sandbox, "shop")["update"]["phase"] == "canary").then_some(())
    });
    // Meanwhile nothing else is done to it, and nobody else updates it.
    for word in ["start", "restart", "pause", "update"] {
        let body = tried(&sandbox, HEALTHY, 0);
        let (status, answer) = ask(&sandbox, &format!("shop/{word}"), &body);
        assert_eq!(
            (status, &answer["error"]),
            (409, &"it is being updated".into()),
            "{word}"
        );
    }
    let early = ask(&sandbox, "shop/update/commit", "");
    assert_eq!(early.0, 409, "{}", early.1);
    drop(client);
    let fact = event(&supervisor, "shop", "rolled-back");
    assert_eq!(fact["why"], "aborted");
    assert_eq!(service(&sandbox, "shop")["state"], "running");
    assert_eq!(read(&sandbox, "old").lines().count(), 2);
    stop(supervisor, &sandbox);
}

#[test]
fn nobody_who_commits_means_no() {
    let (supervisor, sandbox) = supervise(OLD);
    event(&supervisor, "other", "started");
    let (status, body) = ask(&sandbox, "shop/update", &tried(&sandbox, HEALTHY, 0));
    assert_eq!(status, 200, "{body}");
    let fact = event(&supervisor, "shop", "rolled-back");
    assert_eq!(
        (&fact["why"], &fact["phase"]),
        (&"not-committed".into(), &"trial".into())
    );
    // Called off by name, too.
    let (status, body) = ask(&sandbox, "shop/update", &tried(&sandbox, HEALTHY, 0));
    assert_eq!(status, 200, "{body}");
    assert_eq!(ask(&sandbox, "shop/update/abort", "").0, 200);
    events(&supervisor, "shop", "rolled-back", 2);
    assert_eq!(service(&sandbox, "shop")["state"], "running");
    assert_eq!(read(&sandbox, "old").lines().count(), 3);
    stop(supervisor, &sandbox);
}

#[test]
fn a_stop_in_a_trial_stops_both() {
    let (supervisor, sandbox) = supervise(OLD);
    event(&supervisor, "other", "started");
    let client = send(&sandbox, "shop/update", &tried(&sandbox, HEALTHY, 60_000));
    wait_until("the candidate", SOON, || {
        (service(&sandbox, "shop")["update"]["phase"] == "canary").then_some(())
    });
    let stopped = json(&sandbox, &["stop", "shop", "--json"]);
    assert_eq!(stopped["services"][0]["state"], "stopped");
    assert_eq!(sandbox.processes().len(), 2, "neither runs");
    let (status, body) = answer(client);
    assert_eq!(status, 409, "{body}");
    assert!(
        body["error"]
            .as_str()
            .is_some_and(|error| error.contains("asked to stop"))
    );
    json(&sandbox, &["start", "shop", "--json"]);
    assert_eq!(
        read(&sandbox, "old").lines().count(),
        2,
        "it is what it was"
    );
    // The end of everything is an end of a trial, too.
    let client = send(&sandbox, "shop/update", &tried(&sandbox, HEALTHY, 60_000));
    wait_until("the candidate", SOON, || {
        (service(&sandbox, "shop")["update"]["phase"] == "canary").then_some(())
    });
    stop(supervisor, &sandbox);
    drop(client);
}
