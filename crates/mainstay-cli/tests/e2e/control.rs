//! The verbs, from another terminal.

use super::*;

const TWO: &str = r#"
    [service.db]
    command = ["PUPPET", "count", "HERE/db-starts", "touch", "HERE/db", "hang"]
    start = { ready = { file = "HERE/db" } }
    [service.api]
    command = ["PUPPET", "count", "HERE/api-starts", "touch", "HERE/api", "hang"]
    needs = ["db"]
    start = { ready = { file = "HERE/api" } }
"#;

fn starts(sandbox: &Sandbox, name: &str) -> usize {
    let text = std::fs::read_to_string(sandbox.path().join(format!("{name}-starts")));
    text.map_or(0, |text| text.lines().count())
}

#[test]
fn status_says_what_is() {
    let (supervisor, sandbox) = supervise(TWO);
    event(&supervisor, "api", "ready");
    let report = json(&sandbox, &["status", "--json"]);
    let db = &report["services"][0];
    assert_eq!(
        (&db["name"], &db["state"], &db["ready"], &db["restarts"]),
        (&"db".into(), &"running".into(), &true.into(), &0.into())
    );
    assert!(db["pid"].as_u64().is_some_and(|pid| pid > 1));
    assert_eq!(code(verb(&sandbox, &["status", "api"]).status), 0);
    assert_eq!(code(verb(&sandbox, &["status", "nonsense"]).status), 4);
    json(&sandbox, &["stop", "api", "--json"]);
    assert_eq!(code(verb(&sandbox, &["status", "api"]).status), 3);
    assert_eq!(code(verb(&sandbox, &["list"]).status), 0);
    stop(supervisor, &sandbox);
    let output = verb(&sandbox, &["status"]);
    assert_eq!(code(output.status), 3);
    assert!(String::from_utf8_lossy(&output.stderr).contains("no supervisor runs in"));
}

#[test]
fn verbs_wait_until_the_service_has_come_to_rest() {
    let (supervisor, sandbox) = supervise(TWO);
    event(&supervisor, "api", "ready");
    let state = |answer: Value| answer["services"][0]["state"].clone();
    assert_eq!(state(json(&sandbox, &["stop", "db", "--json"])), "stopped");
    assert_eq!(
        service(&sandbox, "api")["state"],
        "running",
        "an operator who stops db means db"
    );
    assert_eq!(state(json(&sandbox, &["stop", "api", "--json"])), "stopped");
    // Starting api brings up what it needs.
    assert_eq!(
        state(json(&sandbox, &["start", "api", "--json"])),
        "running"
    );
    assert_eq!(service(&sandbox, "db")["state"], "running");
    assert_eq!((starts(&sandbox, "db"), starts(&sandbox, "api")), (2, 2));
    assert_eq!(
        state(json(&sandbox, &["restart", "db", "--json"])),
        "running"
    );
    assert_eq!(state(json(&sandbox, &["start", "db", "--json"])), "running");
    assert_eq!((starts(&sandbox, "db"), starts(&sandbox, "api")), (3, 2));
    assert_eq!(
        service(&sandbox, "db")["restarts"],
        0,
        "what an operator asks for is no recovery"
    );
    stop(supervisor, &sandbox);
}

#[test]
fn pause_stops_all_progress_and_continue_resumes_it() {
    let (supervisor, sandbox) = supervise(
        r#"
        [service.ticker]
        command = ["sh", "-c", "while :; do echo tick; sleep 0.01; done"]
        start = { ready = { log = "tick" } }
        "#,
    );
    event(&supervisor, "ticker", "ready");
    assert_eq!(
        json(&sandbox, &["pause", "ticker", "--json"])["services"][0]["state"],
        "paused"
    );
    let log = sandbox.state_dir().join("logs/ticker/current.log");
    let size = || std::fs::metadata(&log).expect("its log").len();
    // The freezer is done a moment after it is told; then nothing moves for the length of many ticks.
    let frozen = wait_until("silence", SOON, || {
        let before = size();
        std::thread::sleep(Duration::from_millis(200));
        (size() == before).then_some(before)
    });
    assert_eq!(
        code(verb(&sandbox, &["pause", "ticker"]).status),
        0,
        "paused already"
    );
    assert_eq!(
        code(verb(&sandbox, &["start", "ticker"]).status),
        1,
        "start is not continue"
    );
    assert_eq!(
        json(&sandbox, &["continue", "ticker", "--json"])["services"][0]["state"],
        "running"
    );
    wait_until("more ticks", SOON, || (size() > frozen).then_some(()));
    json(&sandbox, &["pause", "ticker", "--json"]);
    // A stop wakes it up first.
    assert_eq!(
        json(&sandbox, &["stop", "ticker", "--json"])["services"][0]["state"],
        "stopped"
    );
    assert_eq!(code(verb(&sandbox, &["pause", "ticker"]).status), 1);
    stop(supervisor, &sandbox);
}

#[test]
fn reload_never_kills() {
    let (supervisor, sandbox) = supervise(
        r#"
        [service.handles]
        command = ["sh", "-c", "trap 'echo reloaded' HUP; echo up; while :; do sleep 0.01; done"]
        start = { ready = { log = "up" } }
        [service.does-not]
        command = ["PUPPET", "hang"]
        [service.command]
        command = ["PUPPET", "hang"]
        reload = { exec = ["touch", "HERE/reloaded"] }
        "#,
    );
    event(&supervisor, "handles", "ready");
    assert_eq!(code(verb(&sandbox, &["reload", "handles"]).status), 0);
    let log = sandbox.state_dir().join("logs/handles/current.log");
    wait_until("its word", SOON, || {
        std::fs::read_to_string(&log)
            .is_ok_and(|log| log.contains("reloaded"))
            .then_some(())
    });
    let refused = verb(&sandbox, &["reload", "does-not"]);
    assert_eq!(code(refused.status), 1);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("does not handle SIGHUP"));
    assert_eq!(service(&sandbox, "does-not")["state"], "running");
    assert_eq!(code(verb(&sandbox, &["reload", "command"]).status), 0);
    wait_until("the command", SOON, || {
        sandbox.path().join("reloaded").exists().then_some(())
    });
    stop(supervisor, &sandbox);
}

#[test]
fn a_second_supervisor_is_told_who_holds_the_place() {
    let (supervisor, sandbox) = supervise(TWO);
    event(&supervisor, "api", "ready");
    let output = verb(&sandbox, &["run", "mainstay.toml"]);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code(output.status), 75, "{complaint}");
    assert!(
        complaint.contains(&format!("pid {}", supervisor.id())),
        "{complaint}"
    );
    assert_eq!(starts(&sandbox, "db"), 1);
    stop(supervisor, &sandbox);
}

#[test]
fn events_are_told_as_they_happen() {
    let (supervisor, sandbox) = supervise(TWO);
    event(&supervisor, "api", "ready");
    let mut listener = sandbox.command(mainstay());
    listener
        .args(["events", "db", "--json"])
        .stdout(std::process::Stdio::piped());
    let mut listener = listener.spawn().expect("mainstay runs");
    let stdout = listener.stdout.take().expect("piped");
    let reader = std::thread::spawn(move || std::io::read_to_string(stdout));
    // The listener is there once its first event comes; restarts are made until then.
    let (mut starts, deadline) = (0, std::time::Instant::now() + SOON);
    while starts < 3 && std::time::Instant::now() < deadline {
        json(&sandbox, &["restart", "db", "--json"]);
        starts += 1;
    }
    stop(supervisor, &sandbox);
    assert!(
        listener.wait().expect("our child").success(),
        "it ends with the supervisor"
    );
    let text = reader.join().expect("a reader").expect("text");
    let last: Value = serde_json::from_str(text.lines().last().expect("events")).expect("JSON");
    assert_eq!(
        (&last["service"], &last["event"]),
        (&"db".into(), &"stopped".into())
    );
}

#[test]
fn the_socket_speaks_http() {
    use std::io::{Read as _, Write as _};
    let (supervisor, sandbox) = supervise(TWO);
    event(&supervisor, "api", "ready");
    let ask = |request: &str| {
        let path = sandbox.state_dir().join("control.sock");
        let mut stream = std::os::unix::net::UnixStream::connect(path).expect("it listens");
        write!(
            stream,
            "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer
    };
    for (request, status, part) in [
        ("GET /v1", "200", r#""pid":"#),
        ("GET /v1/services", "200", r#""name":"db""#),
        ("POST /v1/services/db/pause", "200", r#""state":"paused""#),
        ("POST /v1/services/db/start", "409", "it is paused"),
        ("POST /v1/services/none/stop", "404", "has no service none"),
        ("POST /v1/services/db/dance", "404", "no such verb"),
        ("DELETE /v1/services", "405", "no such request"),
        ("DELETE /v1/services/db", "405", "not `mainstay daemon`"),
        ("GET /", "404", "/v1"),
    ] {
        let answer = ask(request);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{request}: {answer}"
        );
        assert!(answer.contains(part), "{request}: {answer}");
    }
    stop(supervisor, &sandbox);
}

#[test]
fn the_state_is_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let (supervisor, sandbox) = supervise(TWO);
    event(&supervisor, "api", "ready");
    let mode = |name: &str| {
        let path = sandbox.state_dir().join(name);
        std::fs::metadata(path)
            .expect("it is there")
            .permissions()
            .mode()
            & 0o777
    };
    for (name, expect) in [
        ("", 0o700),
        ("control.sock", 0o600),
        ("logs", 0o700),
        ("logs/db", 0o700),
        ("logs/db/current.log", 0o600),
        ("data/db", 0o700),
    ] {
        assert_eq!(mode(name), expect, "{name}");
    }
    stop(supervisor, &sandbox);
}
