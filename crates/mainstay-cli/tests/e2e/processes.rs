//! The environment of a service, and how far it is trusted: environment variables, notifications,
//! ports, limits.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// Starts a supervisor as root, with services in which the user `nobody` may write to `HERE/out`.
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

/// Returns the variables that `env` wrote to a file, by name. Waits until the file exists.
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

/// A key in the session keyring of the account that started the supervisor is not available to
/// other accounts, but it is to services of that account.
#[cfg(target_os = "linux")]
#[test]
fn another_account_inherits_no_keys() {
    if !rustix::process::geteuid().is_root() {
        return mainstay_testkit::skip("only root starts programs as another user");
    }
    if !std::path::Path::new("/proc/keys").exists() {
        return mainstay_testkit::skip("this kernel has no keyrings");
    }
    let list = |file: &str, then: &str| {
        format!(
            r#"["sh", "-c", "(echo keys=$(cat /proc/keys | tr ' ' _); echo END=) > HERE/out/{file}; {then}"]"#
        )
    };
    let (supervisor, sandbox) = supervise_guests(
        &format!(
            r#"
            [service.own]
            command = {}
            [service.guest]
            command = {}
            account = "user:nobody"
            working_dir = "/"
            start = {{ ready = {{ exec = {} }} }}
            "#,
            list("own", ""),
            list("guest", "exec sleep 1000"),
            list("probe", "")
        ),
        |command| mainstay_testkit::procs::give_key(command, c"mainstay-e2e"),
    );
    let has_key = |file: &str| environment(&sandbox, file)["keys"].contains("mainstay-e2e");
    assert!(has_key("own"));
    for file in ["guest", "probe"] {
        assert!(!has_key(file), "{file}");
    }
    drop(supervisor);
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
        // Variables of the shell and of mainstay.
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

/// Sends a message to a service's notification socket from a process outside of the service.
fn notify_from_outside(pid: u64, message: &str) {
    let socket = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
    let sent = socket.send_to_addr(message.as_bytes(), &notification_socket(pid));
    sent.expect("somebody listens");
}

#[test]
fn only_the_processes_of_a_service_are_believed_on_its_socket() {
    for containment in ["cgroup", "subreaper"] {
        let (sandbox, manifest) = sandbox(
            r#"
            [service.own]
            command = ["PUPPET", "await", "HERE/go", "notify", "READY=1", "hang"]
            start = { ready = { notify = true } }
            [service.child]
            command = ["sh", "-c", "PUPPET setsid notify READY=1 hang & wait"]
            start = { ready = { notify = true } }
            [service.open]
            command = ["PUPPET", "hang"]
            start = { ready = { notify = "all" } }
            "#,
        );
        let mut command = sandbox.command(mainstay());
        command.args(["run", "--json"]).arg(manifest);
        command.env("MAINSTAY_CONTAINMENT", containment);
        let supervisor = Supervisor::spawn(command);
        let pid = |name| event(&supervisor, name, "started")["pid"].as_u64();
        let (own, open) = (pid("own").expect("a pid"), pid("open").expect("a pid"));
        notify_from_outside(own, "READY=1\nSTATUS=forged");
        notify_from_outside(own, "READY=1");
        supervisor.wait_event(SOON, |event| {
            let said = event["message"].as_str().unwrap_or_default();
            let ours = format!(
                "own: ignored a notification from pid {}",
                std::process::id()
            );
            said.starts_with(&ours)
        });
        notify_from_outside(open, "READY=1");
        event(&supervisor, "open", "ready");
        event(&supervisor, "child", "ready");
        let own = service(&sandbox, "own");
        assert_eq!(own["state"], "start-pending", "{containment}: {own}");
        assert!(!own.to_string().contains("forged"), "{containment}: {own}");
        fs::write(sandbox.path().join("go"), "").expect("written");
        event(&supervisor, "own", "ready");
        let events = supervisor.events();
        let said = events
            .iter()
            .filter(|it| it.to_string().contains("ignored a notification"));
        assert_eq!(said.count(), 1, "{containment}: {events:#?}");
        stop(supervisor, &sandbox);
    }
}

#[test]
fn a_shell_says_that_it_is_ready_by_systemd_notify() {
    let Ok(_) = std::process::Command::new("systemd-notify")
        .arg("--version")
        .output()
    else {
        return mainstay_testkit::skip("systemd-notify is not installed");
    };
    // As root, `systemd-notify` may send as its parent process.
    let account = if rustix::process::geteuid().is_root() {
        "account = \"user:nobody\""
    } else {
        ""
    };
    let services = (0..12).map(|i| {
        format!(
            "[service.s{i}]\ncommand = [\"sh\", \"-c\", \"systemd-notify --ready --status=up; exec sleep 1000\"]\n\
             working_dir = \"/\"\ninherit_env = [\"MAINSTAY_TESTKIT_SANDBOX\"]\n\
             {account}\nstart = {{ ready = {{ notify = true }} }}\n"
        )
    });
    let services: String = services.collect();
    for containment in ["cgroup", "subreaper"] {
        let (supervisor, sandbox) = supervise_guests(&services, |command| {
            command.env("MAINSTAY_CONTAINMENT", containment);
        });
        for i in 0..12 {
            event(&supervisor, &format!("s{i}"), "ready");
        }
        stop(supervisor, &sandbox);
    }
}

#[test]
fn a_limit_is_what_the_machine_gives_or_refused_with_its_cause() {
    if !rustix::process::geteuid().is_root() {
        return mainstay_testkit::skip("only root may raise a limit");
    }
    let most = fs::read_to_string("/proc/sys/fs/nr_open").expect("a number");
    let most: u64 = most.trim_end().parse().expect("a number");
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let hard = hard.expect("Linux has always one");
    // Root in a container may not do that.
    let mut raise = std::process::Command::new("sh");
    raise.args(["-c", &format!("ulimit -Hn {}", hard + 1)]);
    let may_raise = raise.output().expect("it runs").status.success();
    let (asked, given) = if may_raise {
        ("\"unlimited\"".to_owned(), most)
    } else {
        (hard.to_string(), hard)
    };
    let (supervisor, sandbox) = supervise_guests(
        &format!(
            r#"
            [service.much]
            command = ["bash", "-c", "(ulimit -n; ulimit -Hn) > HERE/out/new && mv HERE/out/new HERE/out/much; exec sleep 1000"]
            account = "user:nobody"
            working_dir = "/"
            inherit_env = ["MAINSTAY_TESTKIT_SANDBOX"]
            limits = {{ open_files = {asked} }}
            "#
        ),
        |_| {},
    );
    let seen = wait_until("its limits", SOON, || {
        fs::read_to_string(sandbox.path().join("out/much")).ok()
    });
    assert_eq!(seen, format!("{given}\n{given}\n"));
    stop(supervisor, &sandbox);

    let refused = |asked: u64, who: u32, cause: &str| {
        let manifest = format!(
            "[service.more]\ncommand = [\"sleep\", \"1000\"]\nlimits = {{ open_files = {asked} }}\n"
        );
        let (mut supervisor, _sandbox) = supervise_guests(&manifest, |command| {
            use std::os::unix::process::CommandExt as _;
            let dir = command.get_current_dir().expect("a directory").to_owned();
            // A state directory must not be writable by others.
            let own = dir.join("own");
            fs::create_dir(&own).expect("made");
            std::os::unix::fs::chown(&own, Some(who), Some(who)).expect("root may");
            command.uid(who).gid(who);
            command.env("MAINSTAY_STATE_DIR", own.join("state"));
            command.stderr(fs::File::create(dir.join("said")).expect("made"));
        });
        assert_eq!(
            code(supervisor.wait(SOON)),
            77,
            "{asked}: {:#?}",
            supervisor.events()
        );
        let said = fs::read_to_string(_sandbox.path().join("said")).expect("text");
        assert!(
            said.contains(&format!("limits.open_files = {asked}: ")),
            "{said}"
        );
        assert!(said.contains(cause), "{said}");
    };
    refused(most + 1, 0, &format!("fs.nr_open is {most}"));
    refused(hard + 1, 65534, &format!("hard limit is {hard}"));
}

/// Returns a port that no process listens on.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

#[test]
fn a_stranger_on_a_services_socket_does_not_make_it_ready() {
    let (sandbox, manifest) = sandbox(
        r#"
        [service.own]
        command = ["sh", "-c", "PUPPET serve unix HERE/own hang & wait"]
        start = { ready = { unix = "own" } }
        [service.taken]
        command = ["PUPPET", "await", "HERE/go", "serve", "unix", "HERE/taken", "hang"]
        start = { ready = { unix = "HERE/taken" } }
        [service.any]
        command = ["PUPPET", "hang"]
        start = { ready = { unix = "HERE/any", owner = "any" } }
        "#,
    );
    let place = |name: &str| sandbox.path().join(name);
    let listen = |name: &str| std::os::unix::net::UnixListener::bind(place(name)).expect("free");
    let (stranger, _any) = (listen("taken"), listen("any"));
    let supervisor = Supervisor::start(&sandbox, &manifest);
    for ready in ["own", "any"] {
        event(&supervisor, ready, "ready");
    }
    let by_us = format!("(pid {})", std::process::id());
    wait_until("the stranger to be named", SOON, || {
        let detail = service(&sandbox, "taken")["detail"].to_string();
        (detail.contains("is answered by") && detail.contains(&by_us)).then_some(())
    });
    drop(stranger);
    fs::remove_file(place("taken")).expect("it is there");
    sandbox.write("go", "");
    event(&supervisor, "taken", "ready");
    stop(supervisor, &sandbox);
}

#[test]
fn a_stranger_on_a_services_port_does_not_make_it_ready() {
    for containment in ["cgroup", "subreaper"] {
        let [own, child, taken, any] = [(); 4].map(|()| free_port());
        let (sandbox, manifest) = sandbox(&format!(
            r#"
            [service.own]
            command = ["PUPPET", "serve", "tcp", "127.0.0.1:{own}", "hang"]
            start = {{ ready = {{ tcp = "127.0.0.1:{own}" }} }}
            [service.child]
            command = ["sh", "-c", "PUPPET setsid serve http 0.0.0.0:{child} hang & wait"]
            start = {{ ready = {{ http = "http://localhost:{child}/" }} }}
            [service.taken]
            command = ["PUPPET", "await", "HERE/go", "serve", "tcp", "127.0.0.1:{taken}", "hang"]
            start = {{ timeout = "1s", ready = {{ tcp = "127.0.0.1:{taken}" }} }}
            recovery = {{ delay = "10ms" }}
            [service.any]
            command = ["PUPPET", "hang"]
            start = {{ ready = {{ tcp = "127.0.0.1:{any}", owner = "any" }} }}
            "#
        ));
        let mut command = sandbox.command(mainstay());
        command.args(["run", "--json"]).arg(manifest);
        command.env("MAINSTAY_CONTAINMENT", containment);
        let supervisor = Supervisor::spawn(command);
        event(&supervisor, "taken", "started");
        event(&supervisor, "any", "started");
        let listen = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).expect("free");
        let (stranger, _any) = (listen(taken), listen(any));
        for ready in ["own", "child", "any"] {
            event(&supervisor, ready, "ready");
        }
        let by_us = format!("(pid {})", std::process::id());
        supervisor.wait_event(SOON, |event| {
            let said = event.to_string();
            event["service"] == "taken" && said.contains("is answered by") && said.contains(&by_us)
        });
        drop(stranger);
        fs::write(sandbox.path().join("go"), "").expect("written");
        event(&supervisor, "taken", "ready");
        let ready = order(&supervisor, "ready");
        assert_eq!(
            ready.iter().filter(|name| *name == "taken").count(),
            1,
            "{ready:?}"
        );
        stop(supervisor, &sandbox);
    }
}

/// A tracer (ptrace(2)) that never waits keeps a dead process of a service, and its exit status,
/// from the supervisor.
#[test]
fn a_tracer_that_keeps_a_dead_process_keeps_no_service_down() {
    for containment in ["cgroup", "subreaper"] {
        let (sandbox, manifest) = sandbox(
            r#"
            [service.traced]
            command = ["PUPPET", "hang"]
            stop = { graceful = "100ms" }
            "#,
        );
        let mut command = sandbox.command(mainstay());
        command.args(["run", "--json"]).arg(manifest);
        command.env("MAINSTAY_CONTAINMENT", containment);
        let supervisor = Supervisor::spawn(command);
        let started = event(&supervisor, "traced", "started");
        let pid = started["pid"].as_u64().expect("a pid").to_string();
        let mut tracer = sandbox.command(puppet());
        tracer.args(["trace", &pid, "hang"]);
        let mut tracer = tracer.spawn().expect("it starts");
        let stat = |pid: &str, key: &str| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.map(|value| value.trim().to_owned())
        };
        wait_until("the tracer", SOON, || {
            (stat(&pid, "TracerPid:")? == tracer.id().to_string()).then_some(())
        });
        let restarted = verb(&sandbox, &["restart", "traced"]);
        let said = String::from_utf8_lossy(&restarted.stderr).into_owned();
        assert_eq!((code(restarted.status), &*said), (0, ""), "{containment}");
        let now = service(&sandbox, "traced");
        assert_eq!(now["state"], "running", "{containment}: {now}");
        assert_ne!(now["pid"].to_string(), pid, "{containment}");
        // The process is still there, as a zombie.
        assert!(stat(&pid, "State:").is_some_and(|state| state.starts_with('Z')));
        tracer.kill().expect("it is ours");
        tracer.wait().expect("it ends");
        stop(supervisor, &sandbox);
    }
}

/// Data used with other rights than those it was created with could be a trap, or be disclosed.
#[test]
fn data_of_another_account_is_refused_unless_there_is_none() {
    if !rustix::process::geteuid().is_root() {
        return mainstay_testkit::skip("only root starts programs as another user");
    }
    let sandbox = Sandbox::new();
    fs::set_permissions(sandbox.path(), fs::Permissions::from_mode(0o755)).expect("mode");
    let write = |account: &str, file: &str| {
        let text = format!(
            "environment = \"development\"\n[service.guest]\n{account}\nworking_dir = \"/\"\n\
             command = [\"sh\", \"-c\", \"{file}; exec sleep 1000\"]\n\
             inherit_env = [\"MAINSTAY_TESTKIT_SANDBOX\"]\nstop = {{ graceful = \"0s\" }}\n"
        );
        sandbox.write("mainstay.toml", &text)
    };
    let nobody = "account = \"user:nobody\"";
    let touch = "touch $MAINSTAY_DATA_DIR/mine";
    let dir = sandbox.state_dir().join("data/guest");
    let owner = || std::os::unix::fs::MetadataExt::uid(&fs::metadata(&dir).expect("it is there"));
    // An empty directory changes its owner.
    for (account, uid) in [("", 0), (nobody, 65_534), ("", 0), (nobody, 65_534)] {
        let supervisor = Supervisor::start(&sandbox, &write(account, ":"));
        event(&supervisor, "guest", "started");
        assert_eq!(owner(), uid);
        stop(supervisor, &sandbox);
    }
    for (first, then, why) in [
        (nobody, "", "belongs to nobody, but it runs as root"),
        ("", nobody, "belongs to root, but it runs as nobody"),
    ] {
        let supervisor = Supervisor::start(&sandbox, &write(first, touch));
        event(&supervisor, "guest", "started");
        wait_until("its file", SOON, || dir.join("mine").exists().then_some(()));
        stop(supervisor, &sandbox);
        let before = owner();
        let mut supervisor = Supervisor::start(&sandbox, &write(then, touch));
        let halted = event(&supervisor, "guest", "halted");
        let message = halted["message"].as_str().expect("a message");
        assert!(message.contains(why), "{message}");
        assert_eq!(owner(), before);
        supervisor.wait(SOON);
        fs::remove_dir_all(&dir).expect("removed");
    }
    sandbox.assert_no_leftovers();
}

/// Returns the directory of this process's cgroup, if cgroups (v2) are in use here.
fn cgroup_dir() -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let mounts = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    let found = mounts.filter(|fields| fields.get(2) == Some(&"cgroup2"));
    let mut dirs = found.map(|fields| std::path::Path::new(fields[1]).join(own));
    dirs.find(|dir| dir.join("cgroup.procs").exists())
}

/// A PID does not identify a supervisor of another PID namespace that shares the cgroup file
/// system.
#[test]
fn a_supervisor_leaves_the_nests_of_other_pid_namespaces_alone() {
    let Some(own_dir) = cgroup_dir() else {
        return mainstay_testkit::skip("needs cgroups (v2)");
    };
    let shared_dir = own_dir.join(format!("mainstay-e2e-{}", std::process::id()));
    if fs::create_dir(&shared_dir).is_err() {
        return mainstay_testkit::skip("needs a writable cgroup");
    }
    let nests = || {
        let entries = fs::read_dir(&shared_dir).expect("a cgroup").flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let nests = names.filter(|name| name.starts_with("mainstay-"));
        nests.collect::<std::collections::BTreeSet<_>>()
    };
    let supervise_there = |wrapper: &[&str]| {
        let (sandbox, manifest) = sandbox("[service.a]\ncommand = [\"PUPPET\", \"hang\"]\n");
        let stale_dir = shared_dir.join("mainstay-9999999-0123456789abcdef");
        fs::create_dir(&stale_dir).expect("a cgroup");
        let mut command = sandbox.command("sh");
        let script = "echo $$ > \"$0\"/cgroup.procs && exec \"$@\"";
        command.args(["-c", script]).arg(&shared_dir).args(wrapper);
        let args = ["run", "--json"];
        command.arg(mainstay()).args(args).arg(manifest);
        let supervisor = Supervisor::spawn(command);
        event(&supervisor, "a", "started");
        wait_until("the nest of a dead supervisor is removed", SOON, || {
            (!stale_dir.exists()).then_some(())
        });
        (supervisor, sandbox)
    };
    let (supervisor, sandbox) = supervise_there(&[]);
    // No process is left in its cgroup.
    assert!(verb(&sandbox, &["stop", "a"]).status.success());
    let living = nests();
    assert_eq!(living.len(), 1);
    let namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    let (mut other, other_sandbox) = supervise_there(&namespace);
    assert!(nests().is_superset(&living), "{living:?}: {:?}", nests());
    let processes = other_sandbox.processes().into_iter();
    let mut inits = processes.filter(|pid| mainstay_testkit::procs::program(*pid) == "mainstay");
    let init = inits.next().expect("a supervisor");
    rustix::process::kill_process(init, rustix::process::Signal::INT).expect("it lives");
    assert!(other.wait(SOON).success());
    stop(supervisor, &sandbox);
    assert_eq!(nests().len(), 0);
    wait_until("it is empty", SOON, || fs::remove_dir(&shared_dir).ok());
}

/// Sends a message to a notification socket as another user.
fn notify_as(uid: u32, address: &std::os::unix::net::SocketAddr) -> std::io::Result<()> {
    let send = || {
        let uid = rustix::process::Uid::from_raw(uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        let socket = std::os::unix::net::UnixDatagram::unbound()?;
        socket.send_to_addr(b"STATUS=forged", address).map(drop)
    };
    std::thread::scope(|threads| threads.spawn(send).join().expect("no panic"))
}

/// The sender of a message can delay later messages by what the message carries.
#[test]
fn strangers_cannot_send_to_the_socket_of_another_account() {
    if !rustix::process::geteuid().is_root() {
        return mainstay_testkit::skip("only root starts programs as another user");
    }
    let command = "[\"sh\", \"-c\", \"exec sleep 1000\"]";
    let (mut supervisor, sandbox) = supervise_guests(
        &format!(
            "[service.guest]\ncommand = {command}\naccount = \"user:nobody\"\nworking_dir = \"/\"\n\
             inherit_env = [\"MAINSTAY_TESTKIT_SANDBOX\"]\n\
             start = {{ timeout = \"1m\", ready = {{ notify = true }} }}\n"
        ),
        |_| {},
    );
    let pid = event(&supervisor, "guest", "started")["pid"].as_u64();
    let address = notification_socket(pid.expect("a pid"));
    let stranger = notify_as(2, &address);
    let refused = stranger.map_err(|error| error.kind());
    assert_eq!(refused, Err(std::io::ErrorKind::PermissionDenied));
    let path = address.as_pathname().expect("a file").to_owned();
    let owner = fs::metadata(&path).map(|found| std::os::unix::fs::MetadataExt::uid(&found));
    let owner = owner.expect("a socket");
    let is_heard = |supervisor: &Supervisor| {
        notify_as(owner, &address).expect("its account may send");
        supervisor.wait_event(SOON, |event| {
            let said = event["message"].as_str().unwrap_or_default();
            said.starts_with("guest: ignored a notification from pid")
        });
    };
    is_heard(&supervisor);
    // A successor listens at the same path, even if the directory is created again.
    supervisor.kill_dash_nine();
    fs::write(path.with_file_name("left"), "").expect("written");
    let manifest = sandbox.path().join("mainstay.toml");
    let supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "guest", "adopted");
    is_heard(&supervisor);
    wait_until("what is left of others is removed", SOON, || {
        (!path.with_file_name("left").exists()).then_some(())
    });
    assert_eq!(
        notify_as(2, &address).map_err(|error| error.kind()),
        Err(std::io::ErrorKind::PermissionDenied)
    );
    fs::remove_dir_all(sandbox.state_dir()).expect("removed");
    wait_until("it is made anew", SOON, || notify_as(owner, &address).ok());
    assert!(verb(&sandbox, &["stop", "guest"]).status.success());
    assert!(!path.exists());
    stop(supervisor, &sandbox);
}

/// A service asks for another hour at every opportunity. Its start still ends, and so does its
/// stop.
#[cfg(unix)]
#[test]
fn more_time_is_not_given_for_ever() {
    let (mut supervisor, sandbox) = supervise(
        r#"
        [service.asks]
        command = ["PUPPET", "ignore", "term", "notify", "EXTEND_TIMEOUT_USEC=3600000000", "sleep", "2100ms",
            "notify", "EXTEND_TIMEOUT_USEC=3600000000", "hang"]
        start = { timeout = "200ms", ready = { notify = true } }
        stop = { graceful = "200ms" }
        recovery = { policy = "never" }
        "#,
    );
    let failed = event(&supervisor, "asks", "failed");
    let message = failed["message"].as_str().expect("a message");
    assert!(message.contains("not ready after 2s"), "{message}");
    event(&supervisor, "asks", "killing");
    let ended = event(&supervisor, "asks", "exited");
    let message = ended["message"].as_str().expect("a message");
    assert!(message.contains("exited after 4s"), "{message}");
    assert_eq!(code(supervisor.wait(SOON)), 1);
    sandbox.assert_no_leftovers();
}

/// Without cgroups, the environment shows which service an orphan belongs to. A service forges the
/// marks of its neighbours, in the form of this version and of earlier ones, and removes its own.
/// It keeps neither a neighbour from stopping nor a task from completing, and all of its processes
/// are ended.
#[cfg(target_os = "linux")]
#[test]
fn a_service_cannot_pass_for_its_neighbours() {
    if !rustix::process::geteuid().is_root() {
        return mainstay_testkit::skip("only root starts programs as another user");
    }
    const FORGE: &str = "\
        stay() { (setsid env -i MAINSTAY_TESTKIT_SANDBOX=$MAINSTAY_TESTKIT_SANDBOX \
            $1 PUPPET ignore term touch HERE/out/$2 hang &); }; \
        stay A=1 none; \
        for i in 0 1 2 3 4 5 6 7; do \
            stay MAINSTAY_INSTANCE=${MAINSTAY_INSTANCE%%.*}.$i old-$i; \
            stay MAINSTAY_INSTANCE=$i.0.${MAINSTAY_INSTANCE##*.} new-$i; \
        done; exec PUPPET hang";
    let mut services = r#"
        [service.first]
        command = ["PUPPET", "on-term", "exit", "0", "touch", "HERE/out/first", "hang"]
        start = { ready = { file = "HERE/out/first" } }
        [service.forger]
        command = ["sh", "-c", 'FORGE']
        account = "user:nobody"
        working_dir = "/"
        inherit_env = ["MAINSTAY_TESTKIT_SANDBOX"]
        stop = { graceful = "1s" }
        [service.task]
        command = ["PUPPET", "await", "HERE/out/go", "exit", "0"]
        "#
    .replace("FORGE", FORGE);
    // The test runs for every counter of a mark.
    for i in 0..3 {
        services.push_str(&format!(
            "[service.other{i}]\ncommand = [\"PUPPET\", \"on-term\", \"exit\", \"0\", \"hang\"]\n"
        ));
    }
    let (mut supervisor, sandbox) = supervise_guests(&services, |command| {
        command.env("MAINSTAY_CONTAINMENT", "subreaper");
    });
    event(&supervisor, "first", "ready");
    let out = sandbox.path().join("out");
    for file in (0..8).flat_map(|i| [format!("old-{i}"), format!("new-{i}")]) {
        wait_until(&file, SOON, || out.join(&file).exists().then_some(()));
    }
    fs::write(out.join("go"), "").expect("a file");
    wait_until("the task's end", SOON, || {
        let task = service(&sandbox, "task");
        assert_ne!(task["state"], "halted", "{task}");
        (task["state"] == "stopped").then_some(())
    });
    let stopped = verb(&sandbox, &["stop", "first"]);
    assert!(stopped.status.success(), "{stopped:?}");
    let killed = order(&supervisor, "killing");
    assert!(killed.is_empty(), "{killed:?}");
    supervisor.ctrl_c();
    let status = supervisor.wait(SOON);
    assert!(status.success(), "{status:?}: {:#?}", supervisor.events());
    sandbox.assert_no_leftovers();
}
