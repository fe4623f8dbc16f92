//! Invalid input: one clear line, a hint, and the documented exit code.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// Runs a verb that must fail before it starts anything.
#[track_caller]
fn refused(sandbox: &Sandbox, args: &[&str], expect: i32, parts: &[&str]) {
    let output = verb(sandbox, args);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code(output.status), expect, "{complaint}");
    for part in parts {
        assert!(complaint.contains(part), "{part:?} is not in: {complaint}");
    }
    let error = complaint
        .lines()
        .filter(|line| line.starts_with("error: "))
        .count();
    assert_eq!(error, 1, "one line says what is wrong: {complaint}");
    sandbox.assert_no_leftovers();
}

#[test]
fn a_missing_program() {
    let (sandbox, _) = sandbox("[service.a]\ncommand = [\"no-such-program\"]\n");
    refused(
        &sandbox,
        &["run", "mainstay.toml"],
        69,
        &[
            "start a: program no-such-program: not found in PATH",
            "hint: install it",
        ],
    );
}

/// The header of an ELF file gives a more precise cause than the system's "Exec format error".
#[cfg(target_os = "linux")]
#[test]
fn a_program_of_another_machine() {
    // Little-endian, 64 bits, an executable for machine 243, and a truncated one.
    let mut riscv = b"\x7fELF\x02\x01\x01".to_vec();
    riscv.resize(16, 0);
    riscv.extend([2, 0, 243, 0]);
    riscv.resize(64, 0);
    let (sandbox, _) =
        sandbox("[service.other]\ncommand = [\"./other\"]\n[service.cut]\ncommand = [\"./cut\"]\n");
    for (name, bytes, part) in [
        (
            "other",
            &*riscv,
            "a 64-bit little-endian ELF program for RISC-V",
        ),
        ("cut", &riscv[..5], "a damaged ELF header"),
    ] {
        let path = sandbox.path().join(name);
        fs::write(&path, bytes).expect("written");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("mode");
        let output = verb(&sandbox, &["run", "mainstay.toml", name]);
        let shown = String::from_utf8_lossy(&output.stdout);
        let part = format!("not an executable for this machine ({part}");
        assert!(shown.contains(&part), "{part}: {shown}");
    }
}

#[test]
fn a_file_that_is_no_program() {
    let (sandbox, _) = sandbox("[service.a]\ncommand = [\"./mainstay.toml\"]\n");
    refused(
        &sandbox,
        &["run", "mainstay.toml"],
        69,
        &[
            "ermission denied",
            "hint: it is not marked as executable; try: chmod +x ",
        ],
    );
}

/// Scripts and env files that cannot be used: `run` refuses them, and `install` warns of them.
#[test]
fn what_a_service_cannot_be_started_with() {
    let carriage_return = "its #! line ends in a carriage return; save it with Unix line endings";
    for (script, env_file, cause, hint) in [
        (
            "#!/bin/sh\r\nexit 0\r\n",
            "env",
            "program ./script: ",
            carriage_return,
        ),
        (
            "#!/usr/bin/env sh\r\n",
            "env",
            "program ./script: ",
            carriage_return,
        ),
        (
            "#!/no/such/shell -e\n",
            "env",
            "program ./script: ",
            "the interpreter of its #! line does not: /no/such/shell",
        ),
        (
            "#!/bin/sh\n",
            "none",
            "read env_file ",
            "create it, or correct `env_file`",
        ),
    ] {
        let (sandbox, _) = sandbox(&format!(
            "[service.a]\ncommand = [\"./script\"]\nenv_file = \"{env_file}\"\n"
        ));
        sandbox.write("env", "");
        let path = sandbox.write("script", script);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("mode");
        let parts = [&format!("error: cannot start a: {cause}"), "hint: ", hint];
        refused(&sandbox, &["run", "mainstay.toml"], 69, &parts);
        let install = ["install", "--manager", "embedded", "mainstay.toml"];
        let output = verb(&sandbox, &install);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(code(output.status), 0, "{said}");
        let warning = format!("warning: a: it cannot be started yet: {cause}");
        assert!(said.contains(&warning) && said.contains(hint), "{said}");
    }
}

#[test]
fn a_service_that_the_supervisor_was_started_without() {
    let (sandbox, manifest) = sandbox(
        "[service.x]\ncommand = [\"PUPPET\", \"hang\"]\n\
         [service.y]\ncommand = [\"PUPPET\", \"hang\"]\n",
    );
    let args = [manifest.as_os_str(), "x".as_ref()];
    let mut supervisor = Supervisor::start_with(&sandbox, args);
    supervisor.wait_event(SOON, |event| event["event"] == "started");
    let part = "this supervisor was started without y";
    refused_by(&sandbox, &["start", "y"], 4, part);
    refused_by(&sandbox, &["start", "z"], 4, "has no service z");
    // SIGQUIT has the effect of a second Ctrl-C at once: the services are killed.
    supervisor.signal(rustix::process::Signal::QUIT);
    assert_eq!(code(supervisor.wait(SOON)), 1);
}

#[track_caller]
fn refused_by(sandbox: &Sandbox, args: &[&str], expect: i32, part: &str) {
    let output = verb(sandbox, args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code(output.status), expect, "{said}");
    assert!(said.contains(part), "{said}");
}

/// Every verb that takes a name reports that there is no such service, and none waits for one.
#[test]
fn a_name_that_the_supervisor_does_not_have() {
    let (sandbox, manifest) = sandbox(
        "[service.x]\ncommand = [\"PUPPET\", \"hang\"]\n\
         [service.y]\ncommand = [\"PUPPET\", \"hang\"]\n",
    );
    let args = [manifest.as_os_str(), "x".as_ref()];
    let supervisor = Supervisor::start_with(&sandbox, args);
    supervisor.wait_event(SOON, |event| event["event"] == "started");
    for verb in ["events", "status", "logs", "start"] {
        let part = "this supervisor was started without y";
        refused_by(&sandbox, &[verb, "y"], 4, part);
        refused_by(&sandbox, &[verb, "z"], 4, "has no service z");
    }
    let part = "install them with `mainstay install FILE`";
    refused_by(&sandbox, &["enable", "x"], 4, part);
    stop(supervisor, &sandbox);
}

/// Commands other than the program itself: `install` and `run` warn of those that cannot be
/// executed.
#[test]
fn helper_commands_that_cannot_be_executed() {
    let (sandbox, manifest) = sandbox(
        r#"
        [service.a]
        command = ["PUPPET", "hang"]
        start = { ready = { exec = ["no-such-ready"] }, timeout = "1h" }
        liveness = { exec = ["./mainstay.toml"] }
        reload = { exec = ["/no/such/reload"] }
        on_alert = ["no-such-pager"]
        "#,
    );
    let causes = [
        "start: program no-such-ready: not found in PATH (install it, or correct `start`; ",
        "liveness: program ./mainstay.toml: Permission denied (os error 13) (it is not marked as executable; ",
        "reload: program /no/such/reload: No such file or directory",
        "on_alert: program no-such-pager: not found in PATH",
    ];
    let output = verb(
        &sandbox,
        &["install", "--manager", "embedded", "mainstay.toml"],
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code(output.status), 0, "{said}");
    for cause in causes {
        let warning = format!("warning: a: {cause}");
        assert!(said.contains(&warning), "{warning}: {said}");
    }
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    for cause in causes {
        let remark = format!("a: {cause}");
        supervisor.wait_event(SOON, |event| {
            let message = event["message"].as_str();
            message.is_some_and(|message| message.starts_with(&remark))
        });
    }
    supervisor.ctrl_c();
    supervisor.wait(SOON);
}

/// The error describes a service that did not reach the state requested by `start`.
#[test]
fn a_start_that_ends_elsewhere_says_what_happened() {
    let (sandbox, manifest) = sandbox(
        r#"
        [service.coded]
        command = ["PUPPET", "exit", "3"]
        start = { ready = { file = "HERE/never" } }
        recovery = { codes = { 3 = "stop" } }
        [service.need]
        command = ["PUPPET", "exit", "1"]
        start = { ready = { file = "HERE/never" } }
        recovery = { policy = "never" }
        [service.never-ran]
        command = ["PUPPET", "hang"]
        needs = ["need"]
        [service.held]
        command = ["PUPPET", "hang"]
        "#,
    );
    let supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "never-ran", "halted");
    let output = verb(&sandbox, &["start", "coded"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code(output.status), 1, "{said}");
    assert!(
        said.contains("start coded: it is stopped: exit code 3"),
        "{said}"
    );
    let output = verb(&sandbox, &["start", "never-ran"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code(output.status), 1, "{said}");
    assert!(!said.contains("recent output"), "{said}");
    verb(&sandbox, &["pause", "held"]);
    refused_by(
        &sandbox,
        &["start", "held"],
        1,
        "hint: resume it: mainstay continue held",
    );
}

#[test]
fn manifests_that_cannot_be_read() {
    let (sandbox, _) = sandbox("");
    fs::create_dir(sandbox.path().join("dir.toml")).expect("a directory");
    refused(
        &sandbox,
        &["run", "dir.toml"],
        78,
        &["dir.toml", "directory"],
    );
    refused(&sandbox, &["run", "absent.toml"], 78, &["absent.toml"]);
    fs::write(sandbox.path().join("bytes.toml"), b"\xff\xfe").expect("written");
    refused(
        &sandbox,
        &["run", "bytes.toml"],
        78,
        &["bytes.toml", "UTF-8"],
    );
    if rustix::process::geteuid().is_root() {
        return mainstay_testkit::skip(
            "root may read an unreadable manifest; the rest was checked",
        );
    }
    let secret = sandbox.write("secret.toml", "");
    fs::set_permissions(secret, fs::Permissions::from_mode(0o0)).expect("mode");
    refused(
        &sandbox,
        &["run", "secret.toml"],
        77,
        &["secret.toml", "hint: "],
    );
}

#[test]
fn a_taken_port() {
    let squatter = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = squatter.local_addr().expect("an address").to_string();
    let (sandbox, _) = sandbox(
        &r#"
        [service.web]
        command = ["PUPPET", "hang"]
        start = { ready = { tcp = "ADDRESS" } }
        "#
        .replace("ADDRESS", &address),
    );
    let me = format!("(pid {})", std::process::id());
    let parts = [
        &format!("{address} is already in use by"),
        &me,
        "hint: stop the process that listens",
    ];
    refused(
        &sandbox,
        &["run", "mainstay.toml"],
        75,
        &parts.map(|part| part as &str),
    );
}

#[test]
fn a_state_directory_that_cannot_be_written() {
    let (sandbox, _) = sandbox("[service.a]\ncommand = [\"PUPPET\", \"hang\"]\n");
    // Directories cannot be created in /proc, not even by root.
    let args = ["run", "mainstay.toml", "--state-dir", "/proc/mainstay"];
    refused(
        &sandbox,
        &args,
        73,
        &["state directory /proc/mainstay", "hint: choose a directory"],
    );
}

#[test]
fn a_state_directory_that_is_open_to_others() {
    let (sandbox, _) = sandbox("[service.a]\ncommand = [\"PUPPET\", \"hang\"]\n");
    fs::create_dir(sandbox.state_dir()).expect("a directory");
    fs::set_permissions(sandbox.state_dir(), fs::Permissions::from_mode(0o777)).expect("mode");
    refused(
        &sandbox,
        &["run", "mainstay.toml"],
        77,
        &["everyone may write to", "hint: chmod go-w"],
    );
}

#[test]
fn an_account_that_cannot_be_had() {
    if !rustix::process::geteuid().is_root() {
        return mainstay_testkit::skip("only root asks for other accounts");
    }
    for (account, code, part) in [
        ("user:nobody-has-this-name", 69, "no such user"),
        (
            "user:4000000001",
            69,
            "hint: use the name of the user, not the number",
        ),
        (
            "dynamic",
            77,
            "only a service manager can provide this account",
        ),
    ] {
        let (sandbox, _) = sandbox(&format!(
            "[service.a]\ncommand = [\"PUPPET\", \"hang\"]\naccount = \"{account}\"\n"
        ));
        refused(&sandbox, &["run", "mainstay.toml"], code, &[part, "hint: "]);
    }
}

/// Settings that the machine or the supervisor's rights do not allow are refused before anything
/// starts, and are not retried.
#[cfg(target_os = "linux")]
#[test]
fn a_setting_that_cannot_be_given() {
    if !rustix::process::geteuid().is_root() {
        return mainstay_testkit::skip("only root asks for other accounts");
    }
    let (sandbox, _) = sandbox(
        r#"
        [service.processors]
        command = ["PUPPET", "hang"]
        cpus = [1023]
        [service.rank]
        command = ["PUPPET", "hang"]
        priority = "high"
        [service.capability]
        command = ["PUPPET", "hang"]
        account = "user:nobody"
        sandbox = { capabilities = ["CAP_SYS_BOOT"] }
        "#,
    );
    for (name, expect, cause, hint) in [
        (
            "processors",
            69,
            "cpus = [1023]: none of these processors can be used",
            "hint: choose processors of this machine",
        ),
        (
            "rank",
            77,
            "is not permitted to raise its priority",
            "hint: run as root, or choose",
        ),
        (
            "capability",
            77,
            "does not have CAP_SYS_BOOT",
            "hint: start the supervisor with it",
        ),
    ] {
        let mut command = sandbox.command("setpriv");
        command.args(["--bounding-set", "-sys_boot,-sys_nice"]);
        command.arg(mainstay()).args(["run", "mainstay.toml", name]);
        let output = command.output().expect("setpriv runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(code(output.status), expect, "{said}");
        let error = format!("error: cannot start {name}: ");
        for part in [&error, cause, hint] {
            assert!(said.contains(part), "{part}: {said}");
        }
        sandbox.assert_no_leftovers();
    }
}

#[test]
fn a_service_that_is_not_in_the_manifest() {
    let (sandbox, _) = sandbox("[service.a]\ncommand = [\"PUPPET\", \"hang\"]\n");
    refused(
        &sandbox,
        &["run", "mainstay.toml", "b"],
        4,
        &["no service b", "hint: its services: a"],
    );
}

#[test]
fn an_invalid_manifest_is_shown_with_its_line() {
    let (sandbox, _) = sandbox("[service.a]\ncomand = [\"true\"]\n");
    let output = verb(&sandbox, &["run", "mainstay.toml"]);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code(output.status), 78, "{complaint}");
    assert!(
        complaint.contains("comand") && complaint.contains("command"),
        "{complaint}"
    );
}

#[test]
fn secrets_stay_out_of_sight() {
    let (sandbox, manifest) = sandbox(
        r#"
        [service.a]
        command = ["PUPPET", "print", "up", "exit", "5"]
        env = { PASSWORD = "hunter2-secret" }
        recovery = { policy = "strict" }
        "#,
    );
    let output = verb(
        &sandbox,
        &["run", "--json", &manifest.display().to_string()],
    );
    for text in [&output.stdout, &output.stderr] {
        assert!(!String::from_utf8_lossy(text).contains("hunter2"));
    }
    // The secret is not in its state, either.
    let mut open = vec![sandbox.state_dir()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(
                fs::read_dir(path)
                    .expect("state")
                    .map(|entry| entry.expect("entry").path()),
            );
        } else if path.is_file() {
            let bytes = fs::read(&path).expect("a file");
            assert!(
                !String::from_utf8_lossy(&bytes).contains("hunter2"),
                "{}",
                path.display()
            );
        }
    }
}

#[test]
fn what_is_not_performed_is_said() {
    let (sandbox, manifest) = sandbox(
        r#"
        [service.a]
        command = ["PUPPET", "exit", "0"]
        needs = ["os:postgresql"]
        http = { port = 9100 }
        "#,
    );
    let output = verb(&sandbox, &["run", &manifest.display().to_string()]);
    let text = String::from_utf8_lossy(&output.stdout);
    for part in ["os:postgresql is ignored", "`http`"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn whatever_is_missing_at_a_start_has_one_exit_code() {
    let (sandbox, manifest) = sandbox(
        r#"
        [service.program]
        command = ["./missing"]
        [service.searched]
        command = ["no-such-program"]
        [service.place]
        command = ["PUPPET", "hang"]
        working_dir = "missing"
        "#,
    );
    let manifest = manifest.display().to_string();
    let installed = verb(&sandbox, &["install", "--manager", "embedded", &manifest]);
    assert!(installed.status.success(), "{installed:?}");
    let mut command = sandbox.command(mainstay());
    command.args(["daemon", "--json"]);
    let supervisor = Supervisor::spawn(command);
    for name in ["program", "searched", "place"] {
        event(&supervisor, name, "backing-off");
        let output = verb(&sandbox, &["restart", name]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(code(output.status), 69, "{name}: {said}");
        let hint = "hint: create or install what is missing";
        assert!(said.contains(hint), "{name}: {said}");
    }
    let stopped = verb(&sandbox, &["stop"]);
    assert!(stopped.status.success(), "{stopped:?}");
    stop(supervisor, &sandbox);
}
