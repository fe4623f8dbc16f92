//! What a service is given and what it is believed: environment, notifications, ports, limits.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// A supervisor, started as root, of services in which a user of the name `nobody` may write to `HERE/out`.
fn supervise_guests(
    services: &str,
    prepare: impl FnOnce(&mut std::process::Command),
) -> (Supervisor, Sandbox) {
    let (sandbox, manifest) = sandbox(services);
    let mode = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode");
    };
    let out = sandbox.path().join("out");
    fs::create_dir(&out).expect("a directory");
    mode(&out, 0o777);
    mode(sandbox.path(), 0o711);
    let mut command = sandbox.command(mainstay());
    command.args(["run", "--json"]).arg(manifest);
    prepare(&mut command);
    (Supervisor::spawn(command), sandbox)
}

/// What `env` wrote to a file, by name; waits until it is there.
fn environment(sandbox: &Sandbox, file: &str) -> std::collections::BTreeMap<String, String> {
    let path = sandbox.path().join("out").join(file);
    let text = wait_until(file, SOON, || {
        let text = fs::read_to_string(&path).ok()?;
        text.ends_with("END=\n").then_some(text)
    });
    let lines = text.lines().filter_map(|line| line.split_once('='));
    lines
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn another_account_inherits_none_of_the_supervisors_secrets() {
    if !rustix::process::geteuid().is_root() {
        return mainstay_testkit::skip("only root starts programs as another user");
    }
    let write = |file: &str, then: &str| {
        format!(
            r#"["sh", "-c", "(env; echo END=) > HERE/out/{file}.new && mv HERE/out/{file}.new HERE/out/{file}; {then}"]"#
        )
    };
    let (service, probe, reload, alert) = (
        write("service", "exec sleep 1000"),
        write("probe", ""),
        write("reload", ""),
        write("alert", ""),
    );
    let own = write("own", "exec sleep 1000");
    let (supervisor, sandbox) = supervise_guests(
        &format!(
            r#"
            [service.guest]
            command = {service}
            account = "user:nobody"
            working_dir = "/"
            inherit_env = ["PASSED", "MAINSTAY_TESTKIT_SANDBOX"]
            env = {{ OWN = "${{PASSED}}" }}
            env_file = "HERE/variables"
            start = {{ ready = {{ exec = {probe} }} }}
            reload = {{ exec = {reload} }}
            [service.halts]
            command = ["false"]
            account = "user:nobody"
            working_dir = "/"
            inherit_env = ["MAINSTAY_TESTKIT_SANDBOX"]
            recovery = {{ policy = "never" }}
            on_alert = {alert}
            [service.own]
            command = {own}
            "#
        ),
        |command| {
            fs::write(
                command.get_current_dir().unwrap().join("variables"),
                "FILE=1\n",
            )
            .unwrap();
            command
                .env("AWS_SECRET_ACCESS_KEY", "hunter2")
                .env("PASSED", "yes")
                .env("TZ", "Europe/Paris")
                .env("HOME", "/root")
                .env("XDG_RUNTIME_DIR", "/run/user/0");
            for private in [
                "MAINPID",
                "JOURNAL_STREAM",
                "CREDENTIALS_DIRECTORY",
                "LISTEN_FDNAMES",
            ] {
                command.env(private, "1");
            }
        },
    );
    event(&supervisor, "guest", "ready");
    assert!(verb(&sandbox, &["reload", "guest"]).status.success());
    for (file, has_file) in [
        ("service", true),
        ("probe", true),
        ("reload", true),
        ("alert", false),
    ] {
        let mut seen = environment(&sandbox, file);
        assert_eq!(seen.remove("USER").as_deref(), Some("nobody"), "{file}");
        assert_ne!(seen.remove("HOME").as_deref(), Some("/root"), "{file}");
        assert_eq!(seen.remove("TZ").as_deref(), Some("Europe/Paris"), "{file}");
        assert_eq!(seen.remove("FILE").is_some(), has_file, "{file}");
        assert_eq!(
            seen.remove("OWN").as_deref() == Some("yes"),
            has_file,
            "{file}"
        );
        assert_eq!(seen.remove("PASSED").is_some(), has_file, "{file}");
        for name in ["PATH", "LOGNAME", "SHELL"] {
            assert!(seen.remove(name).is_some(), "{file}: {name}");
        }
        // The shell's own, and what mainstay says.
        seen.retain(|name, _| {
            !["PWD", "OLDPWD", "SHLVL", "_", "END", "LANG"].contains(&&**name)
                && !name.starts_with("MAINSTAY_")
        });
        assert!(seen.is_empty(), "{file}: {seen:?}");
    }
    let own = environment(&sandbox, "own");
    assert_eq!(
        own["AWS_SECRET_ACCESS_KEY"], "hunter2",
        "it is the same account's"
    );
    for private in [
        "MAINPID",
        "JOURNAL_STREAM",
        "CREDENTIALS_DIRECTORY",
        "LISTEN_FDNAMES",
    ] {
        assert_eq!(own.get(private), None, "{private}");
    }
    drop(supervisor);
}

/// The process that holds a supervisor's log pipes open.
fn keeper(sandbox: &Sandbox) -> rustix::process::Pid {
    wait_until("a keeper", SOON, || {
        let record = fs::read_to_string(sandbox.state_dir().join("pipes/.keeper")).ok()?;
        let [line] = record.lines().collect::<Vec<_>>()[..] else {
            return None;
        };
        let pid = line.split_once(' ')?.0;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        (name == "mainstay-keeper\n").then(|| rustix::process::Pid::from_raw(pid.parse().ok()?))?
    })
}

#[test]
fn a_killed_keeper_is_replaced_and_no_line_is_lost() {
    let (sandbox, manifest) = sandbox(
        r#"
        [service.writer]
        command = ["PUPPET", "flood", "1000", "await", "HERE/orphaned", "print", "last words", "touch", "HERE/said", "hang"]
        "#,
    );
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "writer", "started");
    let mut keepers = vec![keeper(&sandbox)];
    for _ in 0..2 {
        let last = *keepers.last().expect("one");
        rustix::process::kill_process(last, rustix::process::Signal::KILL).expect("it lives");
        supervisor.wait_event(SOON, |event| {
            let said = event["message"].as_str().unwrap_or_default();
            said.contains(&format!(
                "keeper of the log pipes (mainstay-keeper, pid {last})"
            ))
        });
        keepers.push(wait_until("another keeper", SOON, || {
            Some(keeper(&sandbox)).filter(|keeper| *keeper != last)
        }));
    }
    supervisor.kill_dash_nine();
    fs::write(sandbox.path().join("orphaned"), "").expect("written");
    wait_until("the last words", SOON, || {
        sandbox.path().join("said").exists().then_some(())
    });
    for pid in sandbox.processes() {
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it lives");
    }
    fs::remove_file(sandbox.path().join("orphaned")).expect("removed");
    let supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "writer", "started");
    let log = wait_until("the log", SOON, || {
        let log = fs::read_to_string(sandbox.state_dir().join("logs/writer/current.log")).ok()?;
        log.contains("last words\n").then_some(log)
    });
    assert_eq!(log.matches("last words\n").count(), 1);
    assert!(log.lines().take(1000).all(|line| line.len() == 79), "{log}");
    stop(supervisor, &sandbox);
}

#[test]
fn no_keeper_is_left_behind_by_a_start_that_failed() {
    for in_the_way in ["control.sock", "data"] {
        let (sandbox, manifest) = sandbox("[service.idle]\ncommand = [\"PUPPET\", \"hang\"]\n");
        match in_the_way {
            "control.sock" => fs::create_dir_all(sandbox.state_dir().join("control.sock/in-use")),
            _ => fs::create_dir(sandbox.state_dir())
                .and_then(|()| fs::write(sandbox.state_dir().join("data"), "")),
        }
        .expect("made");
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(sandbox.state_dir(), mode).expect("mode");
        for _ in 0..3 {
            let mut supervisor = Supervisor::start(&sandbox, &manifest);
            assert!(!supervisor.wait(SOON).success(), "{in_the_way}");
        }
        sandbox.assert_no_leftovers();
    }
}
