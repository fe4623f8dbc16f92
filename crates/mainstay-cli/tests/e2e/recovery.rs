//! The reaction to failures: one attempt if another is useless, and no endless waits.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// Returns all events of this kind of a service so far.
fn told(supervisor: &Supervisor, name: &str, kind: &str) -> Vec<Value> {
    let mut events = supervisor.events();
    events.retain(|event| event["service"] == name && event["event"] == kind);
    events
}

/// Returns a manifest in which `a` cannot be started, and 20 services need it, directly or not.
fn unstartable(policy: &str) -> String {
    let mut text = format!(
        "[service.a]\ncommand = [\"HERE/program\"]\nrecovery = {{ policy = \"{policy}\" }}\n\
         on_alert = {{ exec = [\"sh\", \"-c\", \"echo $MAINSTAY_EVENT >> HERE/alerts\"] }}\n"
    );
    for i in 0..20 {
        let need = if i < 15 {
            "a".into()
        } else {
            format!("b{}", i - 1)
        };
        let _ = write!(
            text,
            "[service.b{i}]\ncommand = [\"PUPPET\", \"hang\"]\nneeds = [\"{need}\"]\n"
        );
    }
    text
}

/// A program that no retry can repair is tried once under every policy. Each of its dependents
/// halts once.
#[test]
fn a_program_that_cannot_be_started_is_tried_once() {
    for (policy, mode) in [("restart", 0o755), ("strict", 0o755), ("restart", 0o644)] {
        for embedded in [false, true] {
            if mode == 0o644 && !embedded {
                // `run` refuses the program before it starts anything.
                continue;
            }
            let (sandbox, manifest) = sandbox(&unstartable(policy));
            let program = sandbox.write("program", "neither a program nor a script\n");
            fs::set_permissions(program, fs::Permissions::from_mode(mode)).expect("mode");
            let path = manifest.display().to_string();
            let mut command = sandbox.command(mainstay());
            if embedded {
                let installed = verb(&sandbox, &["install", "--manager", "embedded", &path]);
                assert!(installed.status.success(), "{installed:?}");
                command.args(["daemon", "--json", "--exit-when-done"]);
            } else {
                command.args(["run", "--json", &path]);
            }
            let mut supervisor = Supervisor::spawn(command);
            assert_eq!(code(supervisor.wait(SOON)), 1);
            let what = format!("{policy} {mode:o} {embedded}");
            assert_eq!(told(&supervisor, "a", "failed").len(), 1, "{what}");
            let halted = told(&supervisor, "a", "halted");
            assert_eq!(halted.len(), 1, "{what}");
            let message = halted[0]["message"].as_str().expect("a message");
            assert!(message.contains("execute"), "{message}");
            for i in 0..20 {
                let halted = told(&supervisor, &format!("b{i}"), "halted");
                assert_eq!(halted.len(), 1, "{what}: b{i}");
            }
            let alerts = fs::read_to_string(sandbox.path().join("alerts")).expect("an alert");
            assert_eq!(alerts, "halted\n", "{what}");
            sandbox.assert_no_leftovers();
        }
    }
}

/// The same applies to twenty services that are named at once.
#[test]
fn a_program_that_cannot_be_started_is_tried_once_for_all_that_are_named() {
    let keep = "[service.keep]\ncommand = [\"PUPPET\", \"hang\"]\n";
    let (sandbox, manifest) = sandbox(&(unstartable("restart") + keep));
    let program = sandbox.write("program", "neither a program nor a script\n");
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).expect("mode");
    let supervisor = Supervisor::start(&sandbox, &manifest);
    let names: Vec<String> = (0..20).map(|i| format!("b{i}")).collect();
    names
        .iter()
        .for_each(|name| drop(event(&supervisor, name, "halted")));
    for verb_and_count in [("start", 2), ("restart", 3)] {
        let (name, count) = verb_and_count;
        let args: Vec<&str> = [name]
            .into_iter()
            .chain(names.iter().map(String::as_str))
            .collect();
        let output = verb(&sandbox, &args);
        assert_eq!(code(output.status), 1, "{output:?}");
        for (service, kind) in [
            ("a", "failed"),
            ("a", "halted"),
            ("b0", "halted"),
            ("b19", "halted"),
        ] {
            let seen = events(&supervisor, service, kind, count);
            assert_eq!(seen.len(), count, "{name}: {service} {kind}");
        }
    }
    stop_halted(supervisor);
    let alerts = fs::read_to_string(sandbox.path().join("alerts")).expect("an alert");
    assert_eq!(alerts, "halted\n".repeat(3));
}

/// Stops a supervisor on request, with all its services halted.
fn stop_halted(mut supervisor: Supervisor) {
    supervisor.ctrl_c();
    assert_eq!(code(supervisor.wait(SOON)), 0);
}

/// A dependent of a service that exits before it is ready halts with the reason, and starts
/// together with it.
#[test]
fn what_needs_a_service_that_ended_too_early_halts() {
    for end in ["exit 0", "exit 3"] {
        let (mut supervisor, sandbox) = supervise(&format!(
            r#"
            [service.a]
            command = ["sh", "-c", "[ -e HERE/go ] && touch HERE/up && exec sleep 1000; {end}"]
            start = {{ ready = {{ file = "HERE/up" }} }}
            recovery = {{ codes = {{ 3 = "stop" }} }}
            [service.b]
            command = ["PUPPET", "hang"]
            needs = ["a"]
            [service.c]
            command = ["PUPPET", "hang"]
            needs = ["b"]
            [service.other]
            command = ["PUPPET", "hang"]
            "#
        ));
        let halted = event(&supervisor, "b", "halted");
        assert_eq!(halted["why"]["need-ended"], "a", "{halted}");
        event(&supervisor, "c", "halted");
        let b = service(&sandbox, "b");
        assert_eq!(b["state"], "halted");
        let detail = b["detail"].as_str().expect("a reason");
        assert!(
            detail.contains("a, which exited before it was ready"),
            "{detail}"
        );
        sandbox.write("go", "");
        assert_eq!(code(verb(&sandbox, &["start", "a"]).status), 0);
        event(&supervisor, "c", "started");
        supervisor.ctrl_c();
        assert_eq!(code(supervisor.wait(SOON)), 0);
        sandbox.assert_no_leftovers();
    }
}

/// Nothing else is running: the supervisor exits, and reports the failure.
#[test]
fn run_ends_when_a_need_ended_too_early() {
    let (mut supervisor, _sandbox) = supervise(
        r#"
        [service.a]
        command = ["true"]
        start = { ready = { file = "HERE/never" } }
        [service.b]
        command = ["PUPPET", "hang"]
        needs = ["a"]
        "#,
    );
    assert_eq!(code(supervisor.wait(SOON)), 1);
    event(&supervisor, "b", "halted");
}

/// Beyond the limit, one alert is sent, the retries continue, and one alert is sent after recovery.
/// The status shows the loop.
#[test]
fn a_crash_loop_is_told_once_and_tried_on() {
    let (sandbox, manifest) = sandbox(
        r#"
        [service.a]
        command = ["sh", "-c", "[ -e HERE/go ] || exit 3; exec sleep 1000"]
        recovery = { delay = "1ms", max_delay = "20ms", reset_after = "100ms", limit = { restarts = 3, window = "15m" } }
        on_alert = { exec = ["sh", "-c", "echo $MAINSTAY_EVENT >> HERE/alerts"], limit = { alerts = 1, window = "1h" } }
        "#,
    );
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    let begun = event(&supervisor, "a", "crash-looping");
    assert_eq!(
        (&begun["alert"], &begun["limit"]),
        (&Value::Bool(true), &3.into())
    );
    // The retries continue.
    events(&supervisor, "a", "exited", 12);
    let a = wait_until("a pause", SOON, || {
        let a = service(&sandbox, "a");
        (a["state"] == "backing-off").then_some(a)
    });
    assert_eq!(a["crash_looping"], true, "{a}");
    assert_eq!(a["detail"], "exit code 3");
    assert_eq!(a["last_exit"]["code"], 3);
    assert!(a["next_try"].is_string(), "{a}");
    let table = verb(&sandbox, &["status"]);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.contains("crash-looping"), "{table}");
    for failed in told(&supervisor, "a", "failed").iter().skip(4) {
        assert_eq!(failed["alert"], false, "{failed}");
    }
    assert_eq!(told(&supervisor, "a", "crash-looping").len(), 1);
    // Whether a supervisor lives or not.
    supervisor.kill_dash_nine();
    let list = verb(&sandbox, &["list", "--json"]);
    let list: Value = serde_json::from_slice(&list.stdout).expect("a JSON document");
    assert_eq!(list["services"][0]["crash_looping"], true, "{list}");
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    sandbox.write("go", "");
    event(&supervisor, "a", "recovered");
    assert_eq!(service(&sandbox, "a")["crash_looping"], false);
    assert_eq!(told(&supervisor, "a", "crash-looping"), [Value::Null; 0]);
    assert_eq!(told(&supervisor, "a", "halted").len(), 0);
    supervisor.ctrl_c();
    assert_eq!(code(supervisor.wait(SOON)), 0);
    // The alert limit suppresses neither of them.
    let alerts = fs::read_to_string(sandbox.path().join("alerts")).expect("alerts");
    assert_eq!(alerts, "failed\ncrash-looping\nrecovered\n");
}

#[test]
fn a_limit_that_halts_still_halts() {
    let (mut supervisor, _sandbox) = supervise(
        r#"
        [service.a]
        command = ["PUPPET", "exit", "3"]
        recovery = { delay = "1ms", limit = { restarts = 3, window = "15m", then = "halt" } }
        "#,
    );
    assert_eq!(code(supervisor.wait(SOON)), 1);
    assert_eq!(told(&supervisor, "a", "exited").len(), 4);
    assert_eq!(told(&supervisor, "a", "crash-looping").len(), 0);
}

/// A warning is printed for a limit that the delays make unreachable. The manifest is still valid.
#[test]
fn a_limit_out_of_reach_is_warned_of() {
    let (sandbox, _) = sandbox(
        "[service.a]\ncommand = [\"PUPPET\", \"hang\"]\n\
         recovery = { limit = { restarts = 10, window = \"1m\" } }\n",
    );
    let output = verb(&sandbox, &["check", "mainstay.toml"]);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code(output.status), 0, "{complaint}");
    assert!(
        complaint.contains("warning[unreachable-limit]"),
        "{complaint}"
    );
    let found = json(&sandbox, &["check", "mainstay.toml", "--json"]);
    assert_eq!(found[0]["severity"], "warning", "{found}");
    assert_eq!(found[0]["path"], "service.a.recovery.limit");
}

/// A program that forks into the background does not count as a clean exit. Its children are ended.
#[test]
fn a_program_that_goes_to_the_background_is_said_to() {
    let (mut supervisor, sandbox) = supervise(
        r#"
        [service.a]
        command = ["sh", "-c", "sleep 1000 & exit 0"]
        "#,
    );
    assert_eq!(code(supervisor.wait(SOON)), 1);
    let halted = event(&supervisor, "a", "halted");
    let message = halted["message"].as_str().expect("a message");
    assert!(message.contains("went into the background"), "{message}");
    assert!(
        message.contains("hint: keep it in the foreground"),
        "{message}"
    );
    let all = format!("{:?}", supervisor.events());
    assert!(!all.contains("exited cleanly"), "{all}");
    assert_eq!(told(&supervisor, "a", "started").len(), 1);
    sandbox.assert_no_leftovers();
}

/// Children that exit within a moment after their parent are not a daemon, and have time for their
/// last output.
#[test]
fn children_that_follow_are_no_daemon() {
    let (mut supervisor, sandbox) = supervise(
        r#"
        [service.a]
        command = ["sh", "-c", "(sleep 0.2; echo done) & exit 0"]
        "#,
    );
    assert_eq!(code(supervisor.wait(SOON)), 0);
    let stopped = event(&supervisor, "a", "stopped");
    assert_eq!(stopped["outcome"], "completed");
    let said = verb(&sandbox, &["logs", "a"]);
    assert_eq!(String::from_utf8_lossy(&said.stdout), "done\n");
}

#[test]
fn nginx_is_told_how_to_stay() {
    let nginx = "/usr/sbin/nginx";
    if fs::metadata(nginx).is_err() {
        return mainstay_testkit::skip("nginx is not installed");
    }
    let port = mainstay_testkit::free_port();
    let (sandbox, manifest) = sandbox(&format!(
        "[service.web]\ncommand = [\"{nginx}\", \"-p\", \"HERE\", \"-c\", \"HERE/nginx.conf\", \
         \"-e\", \"HERE/error.log\"]\n"
    ));
    let here = sandbox.path().display().to_string();
    sandbox.write(
        "nginx.conf",
        &format!(
            "pid {here}/nginx.pid;\ndaemon on;\nevents {{}}\n\
             http {{ access_log off; server {{ listen 127.0.0.1:{port}; }} }}\n"
        ),
    );
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    assert_eq!(code(supervisor.wait(SOON)), 1);
    let halted = event(&supervisor, "web", "halted");
    let message = halted["message"].as_str().expect("a message");
    assert!(message.contains("nginx -g 'daemon off;'"), "{message}");
    sandbox.assert_no_leftovers();
}

/// Returns the number of runs in a test of a race; `MAINSTAY_ROUNDS` increases it.
fn rounds() -> usize {
    let rounds = std::env::var("MAINSTAY_ROUNDS").ok();
    rounds.and_then(|rounds| rounds.parse().ok()).unwrap_or(200)
}

/// Services that report readiness and exit at once, each needed by a counting one.
#[track_caller]
fn recent_output_counts(command: &str, ready: &str) {
    let (mut supervisor, sandbox) = supervise(&format!(
        r#"
        [service.a]
        command = {command}
        start = {{ ready = {ready} }}
        recovery = {{ delay = "0s", limit = "none", codes = {{ 0 = "restart" }} }}
        "#
    ));
    let exits = events(&supervisor, "a", "exited", rounds());
    supervisor.ctrl_c();
    supervisor.wait(SOON);
    let mut ready = false;
    let (mut seen, mut missed) = (0, 0);
    for event in supervisor.events() {
        match event["event"].as_str() {
            Some("ready") => ready = true,
            Some("exited") if seen < exits.len() => {
                missed += usize::from(!std::mem::take(&mut ready));
                seen += 1;
            }
            _ => {}
        }
    }
    assert_eq!(missed, 0, "of {seen} runs that were ready");
    drop(sandbox);
}

#[test]
fn a_line_before_the_exit_counts() {
    recent_output_counts(
        r#"["sh", "-c", "echo migrated"]"#,
        r#"{ log = "^migrated$" }"#,
    );
}

#[test]
fn an_unfinished_line_before_the_exit_counts() {
    recent_output_counts(
        r#"["sh", "-c", "printf migrated"]"#,
        r#"{ log = "^migrated$" }"#,
    );
}

#[test]
fn a_notice_before_the_exit_counts() {
    recent_output_counts(r#"["PUPPET", "notify", "READY=1"]"#, "{ notify = true }");
}

/// The reason why a service is down, its last exit and its next start are in the table, in JSON and
/// in errors, even after its supervisor was killed.
#[test]
fn what_is_down_says_why() {
    let (mut supervisor, sandbox) = supervise(
        r#"
        [service.off]
        command = ["PUPPET", "exit", "3"]
        start = { ready = { file = "HERE/never" } }
        recovery = { delay = "1h", max_delay = "1h" }
        [service.halted]
        command = ["PUPPET", "exit", "4"]
        start = { ready = { file = "HERE/never" } }
        recovery = { policy = "strict" }
        [service.up]
        command = ["PUPPET", "hang"]
        "#,
    );
    event(&supervisor, "off", "backing-off");
    event(&supervisor, "halted", "halted");
    let off = service(&sandbox, "off");
    assert_eq!(
        (&off["state"], &off["detail"]),
        (&"backing-off".into(), &"exit code 3".into())
    );
    let seconds = off["next_try_seconds"].as_u64().expect("seconds");
    assert!((3000..=3600).contains(&seconds), "{off}");
    let said = |args: &[&str]| {
        let output = verb(&sandbox, args);
        let text = [output.stdout, output.stderr].concat();
        (
            code(output.status),
            String::from_utf8_lossy(&text).into_owned(),
        )
    };
    let (_, table) = said(&["status"]);
    for line in [
        "  exit code 3; next start in ",
        "  exit code 4; its recovery policy",
    ] {
        assert!(table.contains(line), "{table}");
    }
    let (code, error) = said(&["restart", "off"]);
    assert_eq!(code, 1);
    assert!(
        error.contains("it failed and will be restarted: exit code 3; next start in "),
        "{error}"
    );
    let (code, error) = said(&["restart", "halted"]);
    assert_eq!(code, 1);
    assert!(
        error.contains("it is halted: exit code 4; its recovery policy"),
        "{error}"
    );

    supervisor.kill_dash_nine();
    for (name, state, why) in [
        ("off", "backing-off", "exit code 3"),
        ("halted", "halted", "exit code 4"),
    ] {
        let output = verb(&sandbox, &["list", "--json"]);
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let mut services = report["services"].as_array().expect("services").iter();
        let service = services.find(|it| it["name"] == name).expect("it");
        assert_eq!(service["state"], state);
        let detail = service["detail"].as_str().expect("a reason");
        assert!(detail.starts_with(why), "{detail}");
    }
    assert_eq!(said(&["stop"]).0, 0);
    sandbox.assert_no_leftovers();
}

/// A successor sends no alert for a halt that its predecessor has reported.
#[test]
#[cfg(target_os = "linux")]
fn a_halt_that_was_told_is_not_told_by_a_successor() {
    let (sandbox, manifest) = sandbox(
        r#"
        [service.keep]
        command = ["PUPPET", "hang"]
        [service.b]
        command = ["sh", "-c", "exit 3"]
        start = { ready = { file = "HERE/never" } }
        recovery = { policy = "strict" }
        on_alert = ["sh", "-c", "echo $MAINSTAY_EVENT >> HERE/alerts"]
        [service.c]
        command = ["PUPPET", "hang"]
        needs = ["b"]
        [service.d]
        command = ["PUPPET", "hang"]
        needs = ["c"]
        "#,
    );
    let alerts = || fs::read_to_string(sandbox.path().join("alerts")).unwrap_or_default();
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "b", "halted");
    wait_until("the alert", SOON, || {
        alerts().ends_with("halted\n").then_some(())
    });
    let told_before = alerts();
    event(&supervisor, "d", "halted");
    let of_b = "exit code 3; its recovery policy does not restart it";
    let of_c = format!("it needs b, which is halted: {of_b}");
    let details = || {
        let list = verb(&sandbox, &["list", "--json"]);
        let list: Value = serde_json::from_slice(&list.stdout).expect("a JSON document");
        [1, 2, 3].map(|i| list["services"][i]["detail"].clone())
    };
    let expect = [
        of_b.to_owned(),
        of_c.clone(),
        format!("it needs c, which is halted: {of_c}"),
    ];
    assert_eq!(details(), expect);
    for _ in 0..2 {
        supervisor.kill_dash_nine();
        assert_eq!(details(), expect);
        supervisor = Supervisor::start(&sandbox, &manifest);
        for name in ["b", "c", "d"] {
            let halted = event(&supervisor, name, "halted");
            assert_eq!(halted["alert"], false, "{halted}");
        }
        assert_eq!(details(), expect);
    }
    stop_halted(supervisor);
    assert_eq!(alerts(), told_before);
}
