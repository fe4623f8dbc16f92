//! The verbs, run from another terminal.

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

/// Checks the number of starts. A file left by an earlier run makes a later one ready before it has
/// counted itself, so the check waits.
#[track_caller]
fn assert_starts(sandbox: &Sandbox, expect: (usize, usize)) {
    let seen = || (starts(sandbox, "db"), starts(sandbox, "api"));
    wait_until("starts", SOON, || (seen() >= expect).then_some(()));
    assert_eq!(seen(), expect);
}

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
    assert!(String::from_utf8_lossy(&output.stderr).contains("no supervisor is running in"));
}

#[test]
fn verbs_wait_until_the_service_has_settled() {
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
    // Starting api also starts the services it needs.
    assert_eq!(
        state(json(&sandbox, &["start", "api", "--json"])),
        "running"
    );
    assert_eq!(service(&sandbox, "db")["state"], "running");
    assert_starts(&sandbox, (2, 2));
    assert_eq!(
        state(json(&sandbox, &["restart", "db", "--json"])),
        "running"
    );
    assert_eq!(state(json(&sandbox, &["start", "db", "--json"])), "running");
    assert_starts(&sandbox, (3, 2));
    assert_eq!(
        service(&sandbox, "db")["restarts"],
        0,
        "what an operator asks for is no recovery"
    );
    stop(supervisor, &sandbox);
}

/// Both exit with 0.
#[test]
fn work_that_is_done_is_told_from_a_stop() {
    let (supervisor, sandbox) = supervise(
        r#"
        [service.job]
        command = ["PUPPET", "exit", "0"]
        [service.server]
        command = ["PUPPET", "on-term", "exit", "0", "touch", "HERE/up", "hang"]
        start = { ready = { file = "HERE/up" } }
        "#,
    );
    event(&supervisor, "server", "ready");
    event(&supervisor, "job", "stopped");
    assert!(service(&sandbox, "server").get("completed").is_none());
    assert_eq!(code(verb(&sandbox, &["start", "job"]).status), 0);
    let server = json(&sandbox, &["stop", "server", "--json"])["services"][0].clone();
    let job = service(&sandbox, "job");
    for (service, has_completed) in [(server, false), (job, true)] {
        assert_eq!(service["last_exit"]["code"], 0, "{service}");
        assert_eq!(service["completed"], has_completed, "{service}");
    }
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
    // The freezer completes a moment after the request. From then on, nothing changes for many
    // ticks.
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
    // A stop resumes it first.
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
        .args(["events", "db", "--follow", "--json"])
        .stdout(std::process::Stdio::piped());
    let mut listener = listener.spawn().expect("mainstay runs");
    let stdout = listener.stdout.take().expect("piped");
    let reader = std::thread::spawn(move || std::io::read_to_string(stdout));
    // The listener is connected once its first event arrives. Until then, the test makes restarts.
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

/// Sends a request of these lines to the socket. Returns the head of the answer, and its unparsed
/// body.
pub(super) fn ask(sandbox: &Sandbox, lines: &str, body: &str) -> (String, String) {
    use std::io::{Read as _, Write as _};
    let path = sandbox.state_dir().join("control.sock");
    let mut stream = std::os::unix::net::UnixStream::connect(path).expect("it listens");
    let (first, more) = lines.split_once('\n').unwrap_or((lines, ""));
    let length = body.len();
    let head = format!("{first} HTTP/1.1\nHost: x\nContent-Length: {length}\n{more}");
    let head = head.trim_end().replace('\n', "\r\n");
    write!(stream, "{head}\r\n\r\n{body}").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("HTTP");
    (head.to_ascii_lowercase(), body.to_owned())
}

#[track_caller]
fn answers(sandbox: &Sandbox, lines: &str, body: &str, status: u16, part: &str) -> String {
    let (head, body) = ask(sandbox, lines, body);
    assert!(
        head.starts_with(&format!("http/1.1 {status}")),
        "{lines}: {head} {body}"
    );
    assert!(body.contains(part), "{lines}: {body}");
    head
}

/// Returns the entity tag in a head, with its quotes.
#[track_caller]
fn etag(head: &str) -> String {
    let lines = head.lines();
    let tag = lines.filter_map(|line| line.strip_prefix("etag: ")).next();
    tag.unwrap_or_else(|| panic!("no ETag: {head}")).to_owned()
}

#[test]
fn the_socket_speaks_http() {
    let (supervisor, sandbox) = supervise(TWO);
    event(&supervisor, "api", "ready");
    for (request, status, part) in [
        ("GET /v1", 200, r#""pid":"#),
        ("GET /v1/openapi.json", 200, r#"{"openapi":"3.1.0""#),
        ("GET /v1/services", 200, r#""name":"db""#),
        ("GET /v1/services/api", 200, r#"{"name":"api""#),
        ("GET /v1/services/none", 404, "has no service none"),
        ("POST /v1/services/db/pause", 200, r#""state":"paused""#),
        ("POST /v1/services/db/start", 409, "it is paused"),
        ("POST /v1/services/none/stop", 404, "has no service none"),
        ("POST /v1/services/db/dance", 404, "no such verb"),
        ("DELETE /v1/services", 405, "no such request"),
        ("DELETE /v1/services/db", 405, "not `mainstay daemon`"),
        ("GET /", 404, "/v1"),
    ] {
        // An unexpected body does no harm.
        for body in ["", "words"] {
            answers(&sandbox, request, body, status, part);
        }
    }
    stop(supervisor, &sandbox);
}

/// Conditional requests: RFC 9110, sections 13.1 and 13.2.
#[test]
fn a_request_may_be_for_one_definition_only() {
    let (supervisor, sandbox) = supervise(TWO);
    event(&supervisor, "api", "ready");
    let tag = etag(&answers(
        &sandbox,
        "GET /v1/services/db",
        "",
        200,
        "running",
    ));
    let digest = service(&sandbox, "db")["definition_digest"].clone();
    assert_eq!(tag, digest.to_string());
    let unchanged = format!("GET /v1/services/db\nIf-None-Match: \"other\", W/{tag}");
    let head = answers(&sandbox, &unchanged, "", 304, "");
    assert_eq!(etag(&head), tag);
    assert_eq!(ask(&sandbox, &unchanged, "").1, "");
    answers(
        &sandbox,
        "GET /v1/services/db\nIf-None-Match: \"other\"",
        "",
        200,
        "running",
    );

    let stale = "POST /v1/services/db/restart\nIf-Match: \"other\", \"another\"";
    let head = answers(
        &sandbox,
        stale,
        "",
        412,
        "the definition of db does not match the condition",
    );
    assert_eq!(etag(&head), tag);
    for (lines, status, part) in [
        (
            format!("restart\nIf-Match: W/{tag}"),
            412,
            "does not match the condition",
        ),
        (
            "restart\nIf-None-Match: *".to_owned(),
            412,
            "does not match the condition",
        ),
        (
            format!("restart\nIf-Match: {}", tag.trim_matches('"')),
            400,
            "if-match is `*`, or",
        ),
        (
            "update\nIf-Match: \"other\"".to_owned(),
            412,
            "does not match the condition",
        ),
        (format!("update\nIf-Match: {tag}"), 400, "invalid request"),
        (
            "update/abort\nIf-Match: \"other\"".to_owned(),
            412,
            "does not match the condition",
        ),
    ] {
        let lines = format!("POST /v1/services/db/{lines}");
        answers(&sandbox, &lines, "", status, part);
    }
    let none = "POST /v1/services/none/restart\nIf-Match: *";
    answers(&sandbox, none, "", 412, "no service none");
    assert_eq!(starts(&sandbox, "db"), 1, "nothing of that was done");
    let other = format!("POST /v1/services/db/restart\nIf-Match: \"other\"\nIf-Match: {tag}");
    answers(&sandbox, &other, "", 200, "running");
    answers(
        &sandbox,
        "POST /v1/services/db/restart\nIf-Match: *",
        "",
        200,
        "running",
    );
    events(&supervisor, "db", "started", 3);
    stop(supervisor, &sandbox);
}

/// If several processes change a service, by any means, none overwrites a change that it has not
/// seen.
#[cfg(target_os = "linux")]
#[test]
fn a_daemon_changes_what_is_expected_and_nobody_else_is_at() {
    let sandbox = Sandbox::new();
    let here = sandbox.path().display().to_string();
    let program = "trap 'touch HERE/asked; while [ ! -e HERE/go ]; do sleep 0.01; done; exit 0' TERM\n\
                   echo up; while :; do sleep 0.01; done";
    let program = sandbox.write("slow.sh", &program.replace("HERE", &here));
    let services = |more: &str| {
        let program = program.display().to_string();
        format!(
            "environment = \"development\"\n[service.slow]\ncommand = [\"sh\", {program:?}]\n\
             start = {{ ready = {{ log = \"up\" }} }}\n{more}"
        )
    };
    let install = |more: &str| {
        let file = sandbox.write("mainstay.toml", &services(more));
        let file = file.display().to_string();
        let output = verb(&sandbox, &["install", "--manager", "embedded", &file]);
        assert_eq!(
            code(output.status),
            0,
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    install("");
    let mut command = sandbox.command(mainstay());
    command.args(["daemon", "--json"]);
    let supervisor = Supervisor::spawn(command);
    event(&supervisor, "slow", "ready");
    let tag = || etag(&answers(&sandbox, "GET /v1/services/slow", "", 200, "slow"));
    let first = tag();
    install("stop = { graceful = \"60s\" }");
    let second = tag();
    assert_ne!(
        first, second,
        "it is of what is installed, though the first runs"
    );
    assert_eq!(
        service(&sandbox, "slow")["definition_digest"].to_string(),
        first
    );
    for method in ["PUT", "DELETE"] {
        let stale = format!("{method} /v1/services/slow\nIf-Match: {first}");
        let head = answers(&sandbox, &stale, "", 412, "does not match the condition");
        assert_eq!(etag(&head), second);
    }
    let right = format!("PUT /v1/services/slow\nIf-Match: {second}");
    answers(&sandbox, &right, "", 200, "running");
    sandbox.write("go", "");
    json(&sandbox, &["restart", "slow", "--json"]);
    for file in ["go", "asked"] {
        std::fs::remove_file(sandbox.path().join(file)).expect("it was made");
    }

    // The uninstallation holds the service until it is down.
    let mut command = sandbox.command(mainstay());
    command.args(["uninstall", "slow"]);
    let mut uninstall = command.spawn().expect("mainstay runs");
    wait_until("the stop", SOON, || {
        sandbox.path().join("asked").exists().then_some(())
    });
    for method in ["PUT", "DELETE"] {
        for more in ["", "?owner=nobody"] {
            let request = format!("{method} /v1/services/slow{more}");
            let why = format!("by another mainstay process (pid {})", uninstall.id());
            answers(&sandbox, &request, "", 423, &why);
        }
    }
    sandbox.write("go", "");
    assert!(uninstall.wait().expect("our child").success());
    answers(&sandbox, "DELETE /v1/services/slow", "", 200, "{}");
    answers(
        &sandbox,
        "GET /v1/services/slow",
        "",
        404,
        "no service named slow is installed",
    );
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

/// Every verb suggests the nearest name, from where it looks for names. Without a supervisor, that
/// is the stored events and logs.
#[test]
fn a_misspelt_name_is_answered_with_the_nearest() {
    let (supervisor, sandbox) = supervise(
        "[service.alpha]\ncommand = [\"PUPPET\", \"print\", \"x\", \"hang\"]\nstart = { ready = { log = \"x\" } }\n",
    );
    event(&supervisor, "alpha", "ready");
    let expect_suggestions = || {
        for args in [
            &["start", "alpah"][..],
            &["stop", "alpah"],
            &["status", "alpah"],
            &["logs", "alpah"],
            &["logs", "rotate", "alpah"],
            &["events", "alpah"],
            &["run", "mainstay.toml", "alpah"],
        ] {
            let (code, text) = said(&sandbox, args);
            assert_eq!(code, 4, "{args:?}: {text}");
            assert!(
                text.contains("hint: did you mean `alpha`?"),
                "{args:?}: {text}"
            );
        }
    };
    expect_suggestions();
    let (_, text) = said(&sandbox, &["start", "alp\u{7}a"]);
    assert!(!text.contains("did you mean"), "{text}");
    stop(supervisor, &sandbox);
    expect_suggestions();
    assert_eq!(said(&sandbox, &["status", "alpha"]).0, 3);
    let (code, text) = said(&sandbox, &["status"]);
    assert_eq!(code, 3, "{text}");
    let hint = "hint: see what happened: mainstay events; start one with `mainstay run FILE`";
    assert!(text.contains(hint), "{text}");
}
