//! Trials of new definitions through the control socket, with real programs: a healthy one is kept,
//! any other is rolled back.
#![cfg(target_os = "linux")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use mainstay_core::manifest::Format;
use mainstay_core::registry::TextDigest;
use mainstay_testkit::free_port;

use super::*;

/// Sends a request whose answer comes when the trial is decided.
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
    // The body comes in one chunk (RFC 9112).
    let chunk = body.lines().nth(1).unwrap_or_default();
    let body = serde_json::from_str(chunk).unwrap_or_else(|_| panic!("no JSON: {text}"));
    (status.expect("a status"), body)
}

fn ask(sandbox: &Sandbox, path: &str, body: &str) -> (u16, Value) {
    answer(send(sandbox, path, body))
}

/// Returns the body of a request to try these services.
fn tried(sandbox: &Sandbox, services: &str, canary_ms: u64) -> String {
    let text = services
        .replace("PUPPET", &puppet().display().to_string())
        .replace("HERE", &sandbox.path().display().to_string());
    serde_json::json!({
        "manifest": format!("environment = \"development\"\n{text}"),
        "format": "toml",
        "base_dir": sandbox.path(),
        "canary_ms": canary_ms,
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

pub(super) fn read(sandbox: &Sandbox, name: &str) -> String {
    std::fs::read_to_string(sandbox.path().join(name)).unwrap_or_default()
}

const OLD: &str = r#"
    [service.shop]
    command = ["PUPPET", "count", "HERE/old", "print", "old", "hang"]
    start = { ready = { log = "old" } }
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
    let digest = || service(&sandbox, "shop")["definition_digest"].clone();
    let old_digest = digest();
    assert_eq!(old_digest.as_str().map(str::len), Some(64));
    let new = r#"
        [service.shop]
        command = ["PUPPET", "print-env", "touch", "HERE/up", "hang"]
        start = { ready = { file = "HERE/up" } }
    "#;
    let request = tried(&sandbox, new, 300);
    let (status, body) = ask(&sandbox, "shop/update", &request);
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
    let request: Value = serde_json::from_str(&request).expect("JSON");
    let field = |name: &str| request[name].as_str().expect("text");
    let expect = TextDigest::of(field("manifest"), Format::Toml, field("base_dir"), None);
    assert_eq!(digest(), expect.as_str());
    assert_ne!(digest(), old_digest);
    event(&supervisor, "shop", "updated");
    // The services are in the order of the manifest, as before. The dependent was not touched.
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
    // The candidate is the service in every respect: it is restarted as itself and stopped by name.
    let again = json(&sandbox, &["restart", "shop", "--json"]);
    assert_eq!(again["services"][0]["state"], "running");
    assert_eq!(
        read(&sandbox, "old").lines().count(),
        1,
        "starts of the old"
    );
    stop(supervisor, &sandbox);
}

/// Tries a definition that must be rolled back.
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
    // The trial cannot be committed any more.
    let (status, refusal) = ask(&sandbox, "shop/update/commit", "");
    assert_eq!(status, 409, "{refusal}");
    stop(supervisor, &sandbox);
    body
}

#[test]
fn what_exits_at_once_is_given_up_with_its_recent_output() {
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
    gives_up(
        new,
        20_000,
        "canary",
        "missed 2 consecutive liveness probes",
    );
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
        ("shop/update", "{".to_owned(), 400, "invalid request"),
        (
            "shop/update",
            whole(OLD).replace("toml", "ini"),
            400,
            "format",
        ),
        ("shop/update", whole("[service.shop]\n"), 422, "has 1 error"),
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
            "which is not defined",
        ),
        (
            "shop/update",
            whole("[service.shop]\ncommand = [\"PUPPET\"]\nworking_dir = \"HERE/no\"\n"),
            422,
            "working_dir",
        ),
        ("shop/update", large, 413, "at most"),
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
fn what_a_candidate_did_to_the_state_is_undone() {
    let (sandbox, manifest) = sandbox(
        r#"
        [service.shop]
        command = ["PUPPET", "hang"]
        snapshot = { paths = ["HERE/data"] }
    "#,
    );
    let state = sandbox.path().join("data/state");
    std::fs::create_dir(sandbox.path().join("data")).expect("a directory");
    let supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "shop", "started");
    // No other snapshot contains this state.
    std::fs::write(&state, "of the old run\n").expect("written");
    let broken = r#"
        [service.shop]
        command = ["PUPPET", "count", "HERE/data/state", "exit", "1"]
        snapshot = { paths = ["HERE/data"] }
    "#;
    let (status, body) = ask(&sandbox, "shop/update", &tried(&sandbox, broken, 9_000));
    assert_eq!((status, &body["phase"]), (409, &"canary".into()), "{body}");
    assert_eq!(read(&sandbox, "data/state"), "of the old run\n");
    assert_eq!(service(&sandbox, "shop")["state"], "running");
    let order: Vec<Value> = supervisor.events();
    let order: Vec<&str> = order.iter().filter_map(|it| it["event"].as_str()).collect();
    let at = |name: &str| order.iter().position(|event| *event == name);
    assert!(
        at("snapshot-taken") < at("restored") && at("restored") < at("rolled-back"),
        "{order:?}"
    );

    let good = broken.replace("\"exit\", \"1\"", "\"hang\"");
    let (status, body) = ask(&sandbox, "shop/update", &tried(&sandbox, &good, 0));
    assert_eq!(status, 200, "{body}");
    commit(&sandbox, "shop");
    assert_ne!(read(&sandbox, "data/state"), "of the old run\n");
    let list = json(&sandbox, &["snapshot", "list", "shop", "--json"]);
    let reasons: Vec<&str> = list["snapshots"]
        .as_array()
        .expect("snapshots")
        .iter()
        .filter_map(|one| one["reason"].as_str())
        .collect();
    assert_eq!(
        reasons.iter().filter(|reason| **reason == "update").count(),
        2,
        "{list}"
    );
    stop(supervisor, &sandbox);
}

#[test]
fn a_state_that_cannot_be_kept_is_not_put_at_risk() {
    let (supervisor, sandbox) = supervise(
        r#"
        [service.shop]
        command = ["PUPPET", "hang"]
        snapshot = { paths = ["HERE/missing"] }
    "#,
    );
    event(&supervisor, "shop", "started");
    let new = r#"
        [service.shop]
        command = ["PUPPET", "count", "HERE/new", "hang"]
    "#;
    let (status, body) = ask(&sandbox, "shop/update", &tried(&sandbox, new, 0));
    assert_eq!(
        (status, &body["phase"]),
        (409, &"snapshot".into()),
        "{body}"
    );
    let why = body["error"].as_str().expect("why");
    assert!(
        why.contains("no snapshot of its state could be taken") && why.contains("missing"),
        "{why}"
    );
    assert_eq!(read(&sandbox, "new"), "");
    assert_eq!(service(&sandbox, "shop")["state"], "running");
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
    // The candidate would pass its canary in a minute.
    let client = send(&sandbox, "shop/update", &tried(&sandbox, HEALTHY, 60_000));
    wait_until("the candidate", SOON, || {
        (service(&sandbox, "shop")["update"]["phase"] == "canary").then_some(())
    });
    // Meanwhile, all other operations on the service and other updates of it are refused.
    for word in ["start", "restart", "pause", "update"] {
        let body = tried(&sandbox, HEALTHY, 0);
        let (status, answer) = ask(&sandbox, &format!("shop/{word}"), &body);
        assert_eq!(
            (status, &answer["error"]),
            (423, &"it is being updated".into()),
            "{word}"
        );
    }
    let early = ask(&sandbox, "shop/update/commit", "");
    assert_eq!(early.0, 423, "{}", early.1);
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
    // An abort by name rolls back, too.
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
            .is_some_and(|error| error.contains("a stop was requested"))
    );
    json(&sandbox, &["start", "shop", "--json"]);
    assert_eq!(
        read(&sandbox, "old").lines().count(),
        2,
        "it is what it was"
    );
    // The end of the supervisor also ends a trial.
    let client = send(&sandbox, "shop/update", &tried(&sandbox, HEALTHY, 60_000));
    wait_until("the candidate", SOON, || {
        (service(&sandbox, "shop")["update"]["phase"] == "canary").then_some(())
    });
    stop(supervisor, &sandbox);
    drop(client);
}

/// Clients that send one request after another, each on its own connection.
pub(super) struct Load {
    is_over: std::sync::Arc<AtomicBool>,
    answered: std::sync::Arc<AtomicUsize>,
    visitors: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    pub(super) fn on(port: u16) -> Self {
        let is_over = std::sync::Arc::new(AtomicBool::new(false));
        let answered = std::sync::Arc::new(AtomicUsize::new(0));
        let visitors = (0..4).map(|_| {
            let (is_over, answered) = (is_over.clone(), answered.clone());
            thread::spawn(move || {
                let mut failures = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    match visit(port) {
                        Ok(_) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        Err(why) => failures.push(why),
                    }
                }
                failures
            })
        });
        let visitors = visitors.collect();
        let load = Self {
            is_over,
            answered,
            visitors,
        };
        load.go_on();
        load
    }

    /// Waits until many more requests were answered.
    pub(super) fn go_on(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        wait_until("visits", SOON, || {
            (self.answered.load(Ordering::Relaxed) > before + 200).then_some(())
        });
    }

    /// Ends the load and returns the number of answers. Panics if a request was not answered.
    #[track_caller]
    pub(super) fn end(self) -> usize {
        self.go_on();
        self.is_over.store(true, Ordering::Relaxed);
        let visitors = self.visitors.into_iter();
        let failures: Vec<String> = visitors
            .flat_map(|visitor| visitor.join().expect("a visitor"))
            .collect();
        let answered = self.answered.load(Ordering::Relaxed);
        assert!(
            failures.is_empty(),
            "{} of {answered}: {failures:?}",
            failures.len()
        );
        answered
    }
}

/// Requests `/` and returns the body of the answer, or the error if the status is not 200 or the
/// body is empty.
pub(super) fn visit(port: u16) -> Result<String, String> {
    let said = |error: std::io::Error| error.to_string();
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).map_err(said)?;
    stream.set_read_timeout(Some(SOON)).map_err(said)?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").map_err(said)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(said)?;
    let status = text.split(' ').nth(1).unwrap_or_default();
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    match (status, body) {
        ("200", Some(body)) if !body.is_empty() => Ok(body),
        _ => Err(format!("it answered {text:?}")),
    }
}

/// Returns the definition of a server of this version on this port, which reports its readiness.
pub(super) fn server(port: u16, version: &str, more: &str) -> String {
    format!(
        r#"
        [service.web]
        command = ["PUPPET", "print", "{version}", "count", "HERE/{version}", "serve", "http", "given:0", "--drain", {more} "notify", "READY=1", "hang"]
        listen = ["127.0.0.1:{port}"]
        start = {{ ready = {{ notify = true }}, timeout = "5s" }}
        stop = {{ graceful = "10s" }}
        "#
    )
}

#[test]
fn nobody_notices_a_good_update_of_who_listens() {
    let port = free_port();
    let (supervisor, sandbox) = supervise(&server(port, "one", ""));
    event(&supervisor, "web", "ready");
    let old = pid(&sandbox, "web");
    let load = Load::on(port);
    for (version, before) in [("two", old), ("three", None)] {
        let before = before.or_else(|| pid(&sandbox, "web"));
        let body = tried(&sandbox, &server(port, version, ""), 200);
        let (status, body) = ask(&sandbox, "web/update", &body);
        assert_eq!(status, 200, "{body}");
        assert_eq!(
            (&body["update"]["style"], body["pid"].as_u64()),
            (&"overlap".into(), before)
        );
        load.go_on();
        assert_eq!(sandbox.processes().len(), 3, "both run");
        let report = commit(&sandbox, "web");
        assert_eq!(
            (&report["state"], &report["ready"]),
            (&"running".into(), &true.into())
        );
        assert_ne!(report["pid"].as_u64(), before);
        wait_until("one of them", SOON, || {
            (sandbox.processes().len() == 2).then_some(())
        });
    }
    let answered = load.end();
    assert!(answered > 800);
    // The old runs were asked to stop, and could finish their requests.
    let exits = events(&supervisor, "web", "exited", 2);
    assert!(
        exits
            .iter()
            .all(|exit| exit["exit"]["code"] == 0 && exit["beside"] == "predecessor")
    );
    assert_eq!(order(&supervisor, "killing"), [""; 0]);
    // A restart uses the new definition.
    json(&sandbox, &["restart", "web", "--json"]);
    assert_eq!(read(&sandbox, "three").lines().count(), 2);
    assert!(visit(port).is_ok());
    stop(supervisor, &sandbox);
}

#[test]
fn nobody_notices_a_broken_update_of_who_listens() {
    let port = free_port();
    let (supervisor, sandbox) = supervise(&server(port, "one", ""));
    event(&supervisor, "web", "ready");
    let old = pid(&sandbox, "web");
    let load = Load::on(port);
    // The candidate accepts no connection: it would have to answer those that it accepts.
    let broken = |steps: &str| {
        server(port, "broken", "").replace(
            r#""serve", "http", "given:0", "--drain",  "notify", "READY=1", "hang""#,
            steps,
        )
    };
    for (steps, phase) in [
        (r#""exit", "1""#, "start"),
        (r#""hang""#, "ready"),
        (
            r#""notify", "READY=1", "sleep", "100ms", "exit", "0""#,
            "canary",
        ),
    ] {
        let services = broken(steps).replace("\"5s\"", "\"300ms\"");
        let (status, body) = ask(&sandbox, "web/update", &tried(&sandbox, &services, 20_000));
        assert_eq!((status, &body["phase"]), (409, &phase.into()), "{body}");
        assert_eq!(body["last_lines"], serde_json::json!(["broken"]));
        let web = service(&sandbox, "web");
        assert_eq!((web["pid"].as_u64(), &web["restarts"]), (old, &0.into()));
        assert_eq!(sandbox.processes().len(), 2);
    }
    // An update with a draining server can also be aborted.
    let body = tried(&sandbox, &server(port, "two", ""), 100);
    let (status, body) = ask(&sandbox, "web/update", &body);
    assert_eq!(status, 200, "{body}");
    load.go_on();
    assert_eq!(ask(&sandbox, "web/update/abort", "").0, 200);
    events(&supervisor, "web", "rolled-back", 4);
    load.end();
    assert_eq!(pid(&sandbox, "web"), old);
    assert_eq!(read(&sandbox, "one").lines().count(), 1);
    stop(supervisor, &sandbox);
}

#[test]
fn whoever_comes_while_one_listener_takes_the_place_of_another_waits() {
    let port = free_port();
    // A probe of the shared address could be answered by the old run, so the runs follow one
    // another.
    let probed = |version: &str| {
        let text = server(port, version, "").replace(
            "notify = true",
            &format!("http = \"http://127.0.0.1:{port}/\""),
        );
        text.replace(r#""notify", "READY=1", "#, "")
    };
    let (supervisor, sandbox) = supervise(&probed("one"));
    event(&supervisor, "web", "ready");
    let load = Load::on(port);
    let (status, body) = ask(
        &sandbox,
        "web/update",
        &tried(&sandbox, &probed("two"), 100),
    );
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["update"]["style"], "restart");
    commit(&sandbox, "web");
    let broken = probed("broken").replace("\"serve\"", "\"exit\", \"1\", \"serve\"");
    let (status, body) = ask(&sandbox, "web/update", &tried(&sandbox, &broken, 100));
    assert_eq!(status, 409, "{body}");
    load.end();
    assert_eq!(read(&sandbox, "two").lines().count(), 2, "started again");
    stop(supervisor, &sandbox);
}

#[test]
fn nginx_is_updated_under_load() {
    let nginx = Path::new("/usr/sbin/nginx");
    if !nginx.exists() {
        return mainstay_testkit::skip("nginx is not installed");
    }
    let port = free_port();
    let sandbox = Sandbox::new();
    let services = |version: &str| {
        let here = sandbox.path().display();
        let conf = format!(
            "daemon off; master_process on; worker_processes 2; pid {here}/{version}.pid; error_log stderr;\n\
             events {{ worker_connections 256; }}\n\
             http {{ access_log off; keepalive_timeout 0; client_body_temp_path {here}/{version}-body; proxy_temp_path {here}/{version}-proxy;\n\
             fastcgi_temp_path {here}/{version}-fastcgi; uwsgi_temp_path {here}/{version}-uwsgi; scgi_temp_path {here}/{version}-scgi;\n\
             server {{ listen 127.0.0.1:{port}; location / {{ return 200 \"{version}\"; }} }} }}\n"
        );
        sandbox.write(&format!("{version}.conf"), &conf);
        format!(
            r#"
            environment = "development"
            [service.web]
            command = ["/usr/sbin/nginx", "-e", "stderr", "-c", "{here}/{version}.conf"]
            listen = ["127.0.0.1:{port}"]
            env = {{ NGINX = "3;" }}
            stop = {{ graceful = "10s", signal = "QUIT" }}
            "#
        )
    };
    let manifest = sandbox.write("mainstay.toml", &services("one"));
    let supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "web", "started");
    wait_until("nginx", SOON, || (visit(port).ok()? == "one").then_some(()));
    let load = Load::on(port);
    let body = |services: String| {
        let text = services.replace("environment = \"development\"", "");
        tried(&sandbox, &text, 500)
    };
    let (status, answer) = ask(&sandbox, "web/update", &body(services("two")));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["update"]["style"], "overlap");
    load.go_on();
    let seen: std::collections::BTreeSet<String> =
        (0..200).filter_map(|_| visit(port).ok()).collect();
    assert_eq!(seen.len(), 2, "both serve: {seen:?}");
    commit(&sandbox, "web");
    events(&supervisor, "web", "stopped", 1);
    // A candidate that ends because of its own configuration.
    let broken = services("three");
    sandbox.write("three.conf", "nonsense;");
    let (status, answer) = ask(&sandbox, "web/update", &body(broken));
    assert_eq!(status, 409, "{answer}");
    let lines = answer["last_lines"].to_string();
    assert!(lines.contains("unknown directive"), "{lines}");
    let answered = load.end();
    assert!(answered > 600, "{answered}");
    let seen: std::collections::BTreeSet<String> =
        (0..50).filter_map(|_| visit(port).ok()).collect();
    assert_eq!(Vec::from_iter(seen), ["two"]);
    stop(supervisor, &sandbox);
}

#[test]
fn a_supervisor_that_is_killed_in_a_trial_leaves_the_old_definition() {
    let port = free_port();
    for (services, new, style) in [
        (OLD.to_owned(), HEALTHY.to_owned(), "restart"),
        (server(port, "old", ""), server(port, "new", ""), "overlap"),
    ] {
        let name = if style == "restart" { "shop" } else { "web" };
        let (sandbox, manifest) = sandbox(&services);
        let mut supervisor = Supervisor::start(&sandbox, &manifest);
        let is_up = |event: &Value| {
            let event = event["event"].as_str().unwrap_or_default();
            ["started", "ready", "adopted"].contains(&event)
        };
        supervisor.wait_event(SOON, is_up);
        wait_until("it runs", SOON, || {
            (service(&sandbox, name)["ready"] == true).then_some(())
        });
        let old = pid(&sandbox, name);
        let client = send(
            &sandbox,
            &format!("{name}/update"),
            &tried(&sandbox, &new, 60_000),
        );
        wait_until("the candidate", SOON, || {
            (service(&sandbox, name)["update"]["phase"] == "canary").then_some(())
        });
        supervisor.kill_dash_nine();
        drop(client);
        let supervisor = Supervisor::start(&sandbox, &manifest);
        supervisor.wait_event(SOON, is_up);
        wait_until("it runs", SOON, || {
            (service(&sandbox, name)["ready"] == true).then_some(())
        });
        let now = service(&sandbox, name);
        assert!(now["update"].is_null());
        match style {
            "overlap" => assert_eq!(now["pid"].as_u64(), old, "it never noticed"),
            _ => assert_eq!(
                read(&sandbox, "old").lines().count(),
                2,
                "it is started again"
            ),
        }
        let count = if style == "overlap" { 2 } else { 3 };
        assert_eq!(sandbox.processes().len(), count, "the candidate was ended");
        stop(supervisor, &sandbox);
    }
}

#[test]
fn a_successor_knows_what_a_service_has_become() {
    let (sandbox, manifest) = sandbox(OLD);
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "other", "started");
    let new = r#"
        [service.shop]
        command = ["PUPPET", "count", "HERE/new", "on-term", "exit", "9", "hang"]
        stop = { graceful = "5s", signal = "INT" }
    "#;
    let (status, body) = ask(&sandbox, "shop/update", &tried(&sandbox, new, 0));
    assert_eq!(status, 200, "{body}");
    let candidate = commit(&sandbox, "shop")["pid"].as_u64();
    supervisor.kill_dash_nine();
    // The given manifest differs from the definition in effect, which is reported.
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    supervisor.wait_event(SOON, |event| {
        let message = event["message"].as_str().unwrap_or_default();
        message.contains("shop: its definition has changed")
    });
    assert_eq!(pid(&sandbox, "shop"), candidate, "it is adopted");
    assert_eq!(read(&sandbox, "new").lines().count(), 1);
    // With the new manifest, nothing is reported. The same applies without a successor.
    supervisor.kill_dash_nine();
    let stopped = json(&sandbox, &["stop", "--json"]);
    assert_eq!(stopped["services"][0]["state"], "stopped");
    sandbox.assert_no_leftovers();
}

#[test]
fn the_old_definition_serves_again_soon_after_the_verdict() {
    let (supervisor, sandbox) = supervise(OLD);
    event(&supervisor, "other", "started");
    let new = "[service.shop]\ncommand = [\"PUPPET\", \"exit\", \"1\"]\nstart = { ready = { file = \"HERE/no\" } }\n";
    let began = Instant::now();
    let (status, body) = ask(&sandbox, "shop/update", &tried(&sandbox, new, 60_000));
    assert_eq!(status, 409, "{body}");
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    stop(supervisor, &sandbox);
}
