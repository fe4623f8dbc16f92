//! The lifecycle of services: start in order, recover, stop in reverse order, leave nothing behind.

use super::*;

#[test]
fn starts_in_order_of_readiness_and_stops_in_reverse() {
    let (supervisor, sandbox) = supervise(
        r#"
        [service.db]
        command = ["PUPPET", "sleep", "200ms", "touch", "HERE/db-ready", "hang"]
        start = { ready = { file = "HERE/db-ready" } }
        [service.api]
        command = ["PUPPET", "touch", "HERE/api-ready", "hang"]
        needs = ["db"]
        start = { ready = { file = "HERE/api-ready" } }
        [service.web]
        command = ["PUPPET", "hang"]
        needs = ["api"]
        "#,
    );
    event(&supervisor, "web", "started");
    let order_of = |kinds: [&str; 2]| -> Vec<String> {
        let seen = supervisor.events().into_iter();
        seen.filter(|event| kinds.iter().any(|kind| event["event"] == *kind))
            .map(|event| format!("{} {}", event["service"], event["event"]).replace('"', ""))
            .collect()
    };
    assert_eq!(
        order_of(["started", "ready"]),
        [
            "db started",
            "db ready",
            "api started",
            "api ready",
            "web started"
        ]
    );
    let mut supervisor = supervisor;
    supervisor.ctrl_c();
    assert!(supervisor.wait(SOON).success());
    assert_eq!(order(&supervisor, "stopped"), ["web", "api", "db"]);
    sandbox.assert_no_leftovers();
}

#[test]
fn a_crash_is_followed_by_a_restart_that_says_so() {
    let (supervisor, sandbox) = supervise(
        r#"
        [service.shaky]
        command = ["PUPPET", "crash-until", "HERE/starts", "3", "7", "hang"]
        recovery = { delay = "10ms" }
        "#,
    );
    let started = events(&supervisor, "shaky", "started", 4);
    assert_eq!(started[3]["restarts"], 3);
    let exited = events(&supervisor, "shaky", "exited", 3);
    assert_eq!(exited[0]["exit"]["code"], 7);
    wait_until("the restarted one runs", SOON, || {
        let service = service(&sandbox, "shaky");
        (service["state"] == "running").then_some(())
    });
    assert_eq!(service(&sandbox, "shaky")["last_exit"]["code"], 7);
    stop(supervisor, &sandbox);
}

#[test]
fn exit_codes_are_a_contract() {
    // The reaction to each exit code under the default policy: (steps, expected event, part of its
    // message).
    for (steps, kind, message) in [
        (r#""exit", "0""#, "stopped", "exited cleanly"),
        (r#""exit", "1""#, "backing-off", "attempt 1"),
        (r#""exit", "101""#, "backing-off", "attempt 1"),
        (r#""signal", "KILL""#, "backing-off", "attempt 1"),
        (r#""exit", "143""#, "backing-off", "attempt 1"),
        (
            r#""exit", "201""#,
            "halted",
            "its manifest has no `snapshot` key",
        ),
        (
            r#""exit", "202""#,
            "halted",
            "was still unavailable after 5 retries",
        ),
        (r#""exit", "255""#, "backing-off", "attempt 1"),
    ] {
        let (supervisor, sandbox) = supervise(&format!(
            "[service.a]\ncommand = [\"PUPPET\", {steps}]\n[service.anchor]\n\
             command = [\"PUPPET\", \"hang\"]\n"
        ));
        let seen = event(&supervisor, "a", kind);
        let text = seen["message"].as_str().expect("a message");
        assert!(text.contains(message), "{steps}: {text}");
        stop(supervisor, &sandbox);
    }
}

/// A service has several probes, and an operator may know none of them.
#[test]
fn a_failed_probe_is_named() {
    let hung = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/live", hung.local_addr().expect("an address"));
    let puppet = mainstay_testkit::puppet().display().to_string();
    for (probe, expected) in [
        (
            format!("http = '{url}'"),
            format!("GET {url}: no response within 100ms"),
        ),
        (
            r#"exec = ["PUPPET", "hang"]"#.to_owned(),
            format!("the probe command {puppet}: no response within 100ms"),
        ),
        (
            r#"exec = ["PUPPET", "exit", "3"]"#.to_owned(),
            format!("the probe command {puppet} failed: exit code 3"),
        ),
    ] {
        let (supervisor, sandbox) = supervise(&format!(
            "[service.a]\ncommand = [\"PUPPET\", \"hang\"]\n\
             liveness = {{ {probe}, every = \"100ms\", timeout = \"100ms\", misses = 1000 }}\n"
        ));
        let missed = event(&supervisor, "a", "missed");
        assert_eq!(missed["why"], expected.as_str(), "{probe}");
        stop(supervisor, &sandbox);
    }
}

#[test]
fn a_run_of_clean_ends_is_a_success_and_a_halt_is_not() {
    for (exit, expect) in [("0", 0), ("3", 1)] {
        let (mut supervisor, _sandbox) = supervise(&format!(
            "[service.once]\ncommand = [\"PUPPET\", \"exit\", \"{exit}\"]\n\
             recovery = {{ policy = \"strict\" }}\n"
        ));
        assert_eq!(code(supervisor.wait(SOON)), expect);
    }
}

#[test]
fn grandchildren_do_not_outlive_a_stop() {
    for containment in ["cgroup", "subreaper"] {
        let (sandbox, manifest) = sandbox(
            r#"
            [service.family]
            command = ["PUPPET", "ignore", "term,int,hup", "fork", "fork-setsid", "touch", "HERE/all-there", "hang"]
            start = { ready = { file = "HERE/all-there" } }
            stop = { graceful = "300ms" }
            "#,
        );
        let mut command = sandbox.command(mainstay());
        command
            .args(["run", "--json"])
            .arg(&manifest)
            .env("MAINSTAY_CONTAINMENT", containment);
        let mut supervisor = Supervisor::spawn(command);
        event(&supervisor, "family", "ready");
        // The supervisor, the main process and two grandchildren.
        assert_eq!(sandbox.processes().len(), 4, "{containment}");
        supervisor.ctrl_c();
        supervisor.wait(SOON);
        event(&supervisor, "family", "killing");
        sandbox.assert_no_leftovers();
    }
}

#[test]
fn what_a_crash_leaves_behind_is_gone_before_the_restart() {
    let (supervisor, sandbox) = supervise(
        r#"
        [service.litter]
        command = ["PUPPET", "ignore", "term,int,hup", "fork-setsid", "crash-until", "HERE/starts", "1", "1", "hang"]
        recovery = { delay = "1ms" }
        stop = { graceful = "100ms" }
        "#,
    );
    events(&supervisor, "litter", "started", 2);
    // The supervisor, the second main process and its grandchild. The first grandchild is gone.
    wait_until("one family", SOON, || {
        (sandbox.processes().len() == 3).then_some(())
    });
    let killing = event(&supervisor, "litter", "killing");
    assert_eq!(killing["why"], "remains");
    stop(supervisor, &sandbox);
}

#[test]
fn a_second_ctrl_c_kills() {
    let (mut supervisor, sandbox) = supervise(
        r#"
        [service.deaf]
        command = ["PUPPET", "ignore", "term,int", "touch", "HERE/up", "hang"]
        start = { ready = { file = "HERE/up" } }
        stop = { graceful = "1h" }
        "#,
    );
    event(&supervisor, "deaf", "ready");
    supervisor.ctrl_c();
    event(&supervisor, "deaf", "stopping");
    ctrl_c_again(&supervisor);
    assert_eq!(code(supervisor.wait(SOON)), 1);
    sandbox.assert_no_leftovers();
}

#[test]
fn a_requested_stop_is_a_success_whatever_the_code() {
    let (supervisor, sandbox) = supervise(
        r#"
        [service.polite]
        command = ["PUPPET", "on-term", "exit", "42", "touch", "HERE/up", "hang"]
        start = { ready = { file = "HERE/up" } }
        [service.anchor]
        command = ["PUPPET", "hang"]
        "#,
    );
    event(&supervisor, "polite", "ready");
    let answer = json(&sandbox, &["stop", "polite", "--json"]);
    assert_eq!(answer["services"][0]["state"], "stopped");
    assert_eq!(answer["services"][0]["last_exit"]["code"], 42);
    stop(supervisor, &sandbox);
}

#[test]
fn every_kind_of_readiness() {
    let ports: Vec<u16> = (0..2).map(|_| mainstay_testkit::free_port()).collect();
    let (supervisor, sandbox) = supervise(
        &r#"
        [service.tcp]
        command = ["PUPPET", "serve", "tcp", "127.0.0.1:PORT0", "--after", "50ms", "hang"]
        start = { ready = { tcp = "127.0.0.1:PORT0" } }
        [service.http]
        command = ["PUPPET", "serve", "http", "127.0.0.1:PORT1", "hang"]
        start = { ready = { http = "http://127.0.0.1:PORT1/healthz" } }
        [service.unix]
        command = ["PUPPET", "serve", "unix", "HERE/socket", "hang"]
        start = { ready = { unix = "HERE/socket" } }
        [service.exec]
        command = ["PUPPET", "sleep", "50ms", "touch", "HERE/done", "hang"]
        start = { ready = { exec = ["test", "-e", "HERE/done"] } }
        [service.file]
        command = ["PUPPET", "touch", "HERE/file", "hang"]
        start = { ready = { file = "HERE/file" } }
        [service.log]
        command = ["PUPPET", "print", "starting", "print", "listening on 80", "hang"]
        start = { ready = { log = "^listening on [0-9]+$" } }
        [service.notify]
        command = ["PUPPET", "notify", "STATUS=warming up", "notify", "READY=1", "hang"]
        start = { ready = { notify = true } }
        "#
        .replace("PORT0", &ports[0].to_string())
        .replace("PORT1", &ports[1].to_string()),
    );
    for name in ["tcp", "http", "unix", "exec", "file", "log", "notify"] {
        event(&supervisor, name, "ready");
    }
    assert_eq!(event(&supervisor, "notify", "status")["text"], "warming up");
    stop(supervisor, &sandbox);
}

#[test]
fn a_service_that_does_not_become_ready_has_failed() {
    let port = mainstay_testkit::free_port();
    let (mut supervisor, _sandbox) = supervise(
        &r#"
        [service.sick]
        command = ["PUPPET", "serve", "http", "127.0.0.1:PORT", "--status", "503", "hang"]
        start = { timeout = "300ms", ready = { http = "http://127.0.0.1:PORT/" } }
        stop = { graceful = "1s" }
        recovery = { policy = "strict" }
        "#
        .replace("PORT", &port.to_string()),
    );
    let halted = event(&supervisor, "sick", "halted");
    let message = halted["message"].as_str().expect("a message");
    assert!(
        message.contains("not ready after") && message.contains("status 503"),
        "{message}"
    );
    assert_eq!(code(supervisor.wait(SOON)), 1);
}

#[test]
fn lost_liveness_restarts() {
    let (supervisor, sandbox) = supervise(
        r#"
        [service.zombie]
        command = ["PUPPET", "touch", "HERE/alive", "hang"]
        start = { ready = { file = "HERE/alive" } }
        liveness = { file = "HERE/alive", every = "20ms", misses = 2 }
        recovery = { delay = "1ms" }
        "#,
    );
    event(&supervisor, "zombie", "ready");
    std::fs::remove_file(sandbox.path().join("alive")).expect("the file is there");
    let failed = event(&supervisor, "zombie", "failed");
    assert!(
        failed["message"]
            .as_str()
            .expect("a message")
            .contains("missed 2 consecutive liveness probes")
    );
    events(&supervisor, "zombie", "ready", 2);
    stop(supervisor, &sandbox);
}

#[test]
fn a_child_inherits_nothing_but_its_due() {
    let (sandbox, manifest) = sandbox(
        r#"
        [service.heir]
        command = ["PUPPET", "report-state", "hang"]
        working_dir = "HERE"
        env = { COLOUR = "blue" }
        start = { ready = { log = "^\\{" } }
        "#,
    );
    let supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "heir", "ready");
    let log = std::fs::read(sandbox.state_dir().join("logs/heir/current.log")).expect("its log");
    let state: Value = serde_json::from_slice(&log).expect("a JSON line");
    assert_eq!(state["fds"], serde_json::json!([]), "{state}");
    assert_eq!(
        state["sig_ign"]
            .as_str()
            .unwrap_or("0")
            .trim_start_matches('0'),
        "",
        "{state}"
    );
    assert_eq!(
        state["sig_blk"]
            .as_str()
            .unwrap_or("0")
            .trim_start_matches('0'),
        "",
        "{state}"
    );
    assert_eq!(state["cwd"], sandbox.path().display().to_string());
    assert_eq!(state["env"]["COLOUR"], "blue");
    assert_eq!(state["env"]["MAINSTAY_SERVICE"], "heir");
    assert_eq!(state["env"]["MAINSTAY_STATE_DIR"], Value::Null);
    stop(supervisor, &sandbox);
}

/// The result does not depend on which verb comes first.
#[cfg(unix)]
#[test]
fn directories_above_the_state_stay_open() {
    use std::os::unix::fs::PermissionsExt as _;
    let (sandbox, manifest) = sandbox(
        "[service.a]\ncommand = [\"sleep\", \"1\"]\nsnapshot = { paths = [\"HERE/kept\"] }\n",
    );
    std::fs::create_dir(sandbox.path().join("kept")).expect("a directory");
    let path = manifest.display().to_string();
    for (i, args) in [
        &["install", "--manager", "embedded", &path][..],
        &["snapshot", "create", "a", "--manifest", &path],
    ]
    .into_iter()
    .enumerate()
    {
        let above = sandbox.path().join(format!("new{i}"));
        let state = above.join("deep/state").display().to_string();
        let output = verb(&sandbox, &[&["--state-dir", &state][..], args].concat());
        assert!(output.status.success(), "{output:?}");
        let closed = ["", "deep", "deep/state"].map(|path| {
            let found = std::fs::metadata(above.join(path)).expect(path);
            found.permissions().mode() & 0o011 == 0
        });
        assert_eq!(closed, [false, false, true], "{args:?}");
    }
}

/// Directories created on the way to the state directory let service accounts through. An existing
/// directory that does not is named in the error.
#[cfg(unix)]
#[test]
fn another_account_can_reach_its_data() {
    use std::os::unix::fs::PermissionsExt as _;
    if !rustix::process::geteuid().is_root() {
        return mainstay_testkit::skip("only root starts programs as another user");
    }
    let (sandbox, manifest) = sandbox(
        r#"
        [service.guest]
        command = ["sh", "-c", "touch $MAINSTAY_DATA_DIR/here && exec sleep 1000"]
        account = "user:nobody"
        working_dir = "/"
        inherit_env = ["MAINSTAY_TESTKIT_SANDBOX"]
        "#,
    );
    let mode = |path: &std::path::Path, mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, mode).expect("a mode");
    };
    mode(sandbox.path(), 0o711);
    let closed = sandbox.path().join("closed");
    std::fs::create_dir(&closed).expect("a directory");
    mode(&closed, 0o700);
    let run = |state: &std::path::Path| {
        let mut command = sandbox.command(mainstay());
        command.args(["run", "--json", "--state-dir"]).arg(state);
        command.arg(&manifest);
        command
    };
    let mut command = run(&closed.join("deep/state"));
    let said = sandbox.path().join("said");
    command.stderr(std::fs::File::create(&said).expect("a file"));
    let status = Supervisor::spawn(command).wait(SOON);
    let said = std::fs::read_to_string(said).expect("what it said");
    assert_eq!(code(status), 77, "{said}");
    let cause = format!("{} is not searchable for it (mode 0700)", closed.display());
    assert!(
        said.contains("start guest: user nobody cannot reach"),
        "{said}"
    );
    assert!(said.contains(&cause), "{said}");
    assert!(said.contains("hint: chmod o+x "), "{said}");

    let state = sandbox.path().join("new/deep/state");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "umask 077; exec \"$0\" \"$@\""]);
    let plain = run(&state);
    command.arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let mut supervisor = Supervisor::spawn(command);
    let data = state.join("data/guest/here");
    wait_until("its file", SOON, || data.exists().then_some(()));
    let mode_of = |path: &str| {
        let found = std::fs::metadata(sandbox.path().join(path)).expect(path);
        found.permissions().mode() & 0o777
    };
    let modes = ["new", "new/deep", "new/deep/state", "new/deep/state/data"].map(mode_of);
    assert_eq!(modes, [0o755, 0o755, 0o711, 0o711]);
    supervisor.ctrl_c();
    supervisor.wait(SOON);
    sandbox.assert_no_leftovers();
}

#[test]
fn another_account_has_its_own_home_and_data() {
    if !rustix::process::geteuid().is_root() {
        return mainstay_testkit::skip("only root starts programs as somebody else");
    }
    let (sandbox, manifest) = sandbox(
        r#"
        [service.guest]
        command = ["sh", "-c", "id -un > \"$MAINSTAY_DATA_DIR/who\" && echo $USER $LOGNAME && exec sleep 1000"]
        account = "user:nobody"
        inherit_env = ["MAINSTAY_TESTKIT_SANDBOX"]
        working_dir = "/"
        start = { ready = { log = "^nobody nobody$" } }
        "#,
    );
    // A temporary directory is private to its owner. The state inside it must not be what denies
    // access.
    let through = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(sandbox.path(), through).expect("mode");
    let supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "guest", "ready");
    let who = std::fs::read_to_string(sandbox.state_dir().join("data/guest/who"));
    assert_eq!(who.expect("it wrote there"), "nobody\n");
    stop(supervisor, &sandbox);
}

#[test]
fn a_hanging_probe_delays_no_stop() {
    let (supervisor, sandbox) = supervise(
        r#"
        [service.slow]
        command = ["PUPPET", "hang"]
        start = { timeout = "1m", ready = { exec = ["PUPPET", "touch", "HERE/asked", "hang"] } }
        "#,
    );
    wait_until("the question", SOON, || {
        sandbox.path().join("asked").exists().then_some(())
    });
    let asked = std::time::Instant::now();
    stop(supervisor, &sandbox);
    assert!(
        asked.elapsed() < Duration::from_secs(4),
        "its limit is five"
    );
}

#[test]
fn whoever_ignores_one_request_gets_the_next() {
    let (supervisor, sandbox) = supervise(
        r#"
        [service.deaf]
        command = ["PUPPET", "ignore", "term", "touch", "HERE/up", "hang"]
        start = { ready = { file = "HERE/up" } }
        stop = { graceful = "10m", ladder = [{ ask = "TERM" }, { ask = "close" }, { ask = "INT", after = "200ms" }] }
        "#,
    );
    event(&supervisor, "deaf", "ready");
    let mut supervisor = supervisor;
    supervisor.ctrl_c();
    assert!(supervisor.wait(SOON).success());
    let exited = event(&supervisor, "deaf", "exited");
    assert_eq!(exited["exit"]["signal"], 2, "{exited}");
    sandbox.assert_no_leftovers();
}

#[cfg(target_os = "linux")]
#[test]
fn its_priority_processors_limits_and_variables_are_as_the_manifest_says() {
    let (sandbox, manifest) = sandbox(
        r#"
        [service.modest]
        command = ["sh", "-c", "nice; sed -n 's/^Cpus_allowed_list:[^0-9]*//p' /proc/self/status; ulimit -n; ulimit -c; echo $GREETING; exec sleep 1000"]
        env_file = "HERE/env"
        env = { GREETING = "hello ${COLOUR} $${COLOUR}" }
        priority = "below-normal"
        cpus = [0]
        limits = { open_files = 77, core_size = "none" }
        start = { ready = { log = "^hello" } }
        "#,
    );
    std::fs::write(sandbox.path().join("env"), "COLOUR=blue\n").expect("written");
    let supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "modest", "ready");
    let log = std::fs::read_to_string(sandbox.state_dir().join("logs/modest/current.log"));
    assert_eq!(
        log.expect("its log"),
        "10\n0\n77\n0\nhello blue ${COLOUR}\n"
    );
    stop(supervisor, &sandbox);
}

#[test]
fn a_variable_that_is_not_there_is_told_before_anything_starts() {
    let (sandbox, manifest) = sandbox(
        r#"
        [service.lost]
        command = ["PUPPET", "touch", "HERE/started"]
        env = { A = "${NO_SUCH_VARIABLE}" }
        "#,
    );
    let run = verb(&sandbox, &["run", &manifest.display().to_string()]);
    let said = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(69), "{said}");
    assert!(
        said.contains("env A: `${NO_SUCH_VARIABLE}` is not set"),
        "{said}"
    );
    assert!(!sandbox.path().join("started").exists());
}

#[test]
fn an_env_file_of_any_editor_is_read_and_the_level_is_told() {
    let (sandbox, manifest) = sandbox(
        r#"
        [service.a]
        command = ["/bin/sh", "-c", 'echo "$A|$B|$E|$Q|$MAINSTAY_LOG_LEVEL"']
        env_file = "HERE/a.env"
        log = { level = "info" }
        [service.b]
        command = ["/bin/sh", "-c", 'echo "$MAINSTAY_LOG_LEVEL"']
        env = { MAINSTAY_LOG_LEVEL = "trace" }
        "#,
    );
    sandbox.write(
        "a.env",
        "\u{feff}A=first\r\n# comment\r\nexport B='b b'\r\nE=v # c\r\nQ=\"q # q\"\r\n",
    );
    let output = verb(&sandbox, &["run", &manifest.display().to_string()]);
    assert!(output.status.success(), "{output:?}");
    let shown = |name| String::from_utf8(verb(&sandbox, &["logs", name]).stdout).expect("text");
    assert_eq!(shown("a"), "first|b b|v # c|q # q|info\n");
    assert_eq!(shown("b"), "trace\n");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let warned = "a.env, line 4: ` #` and the text after it are part of the value of E";
    assert!(said.contains(warned), "{said}");
    assert_eq!(said.matches("are part of the value").count(), 1, "{said}");
}
