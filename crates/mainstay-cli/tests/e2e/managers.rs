//! A real server as a service of real managers other than systemd, installed by `mainstay install`:
//! from installation through crashes and a boot to complete removal.

use mainstay_testkit::lab::Lab;

use super::*;

const MAINSTAY: &str = "/opt/mainstay/mainstay";
/// The directories that must not change. Files that a manager keeps below /usr/lib while it runs
/// are not checked.
const DIRS: &[&str] = &["/etc", "/usr/bin", "/usr/sbin", "/usr/local"];

/// The native commands of a manager.
struct Native {
    kind: &'static str,
    /// The one-time preparation.
    prepare: &'static str,
    /// Exits with 0 if the service is running.
    runs: &'static str,
    stop: &'static str,
    start: &'static str,
    /// Set if the manager restarts a killed host. Otherwise an operator does.
    restarts: bool,
}

const MANAGERS: [Native; 4] = [
    Native {
        kind: "openrc",
        prepare: "rc-update del redis-server default 2> /dev/null || true",
        runs: "rc-service shop-redis status",
        stop: "rc-service shop-redis stop",
        start: "rc-service shop-redis start",
        restarts: true,
    },
    Native {
        kind: "sysv",
        prepare: "insserv -r redis-server 2> /dev/null; insserv",
        runs: "service shop-redis status",
        stop: "service shop-redis stop",
        start: "service shop-redis start",
        restarts: false,
    },
    Native {
        kind: "runit",
        prepare: "rm -f /etc/service/redis-server",
        runs: "sv check shop-redis && sv status shop-redis | grep ^run",
        stop: "sv stop shop-redis",
        start: "sv start shop-redis",
        restarts: true,
    },
    Native {
        kind: "s6",
        prepare: "true",
        runs: "s6-svstat -o up,ready /run/service/shop-redis | grep '^true true'",
        stop: "s6-svc -wD -T 20000 -d /run/service/shop-redis",
        start: "s6-svc -wU -T 20000 -u /run/service/shop-redis",
        restarts: true,
    },
];

const MANIFEST: &str = r#"
[service.shop-redis]
description = "The shop's cache, 100 %"
command = ["redis-server", "--port", "6390", "--save", ""]
account = "user:shop"
working_dir = "/"
start = { ready = { tcp = "127.0.0.1:6390" } }
recovery = { delay = "10ms" }
reload = { exec = ["redis-cli", "-p", "6390", "config", "resetstat"] }
"#;

const BROKEN: &str = r#"
[service.shop-broken]
command = ["sh", "-c", "echo >> /srv/starts; exit 3"]
account = "local-system"
recovery = { delay = "10ms", limit = { restarts = 1, window = "1h", then = "halt" } }
"#;

fn a_real_server_lives_under(kind: &str) {
    let found = MANAGERS.iter().find(|native| native.kind == kind);
    let native = found.expect("a manager");
    let program = mainstay();
    let dir = program.parent().expect("a program lies somewhere");
    let lab = match Lab::up(native.kind, &[(dir, "/opt/mainstay")]) {
        Ok(lab) => lab,
        Err(why) => return mainstay_testkit::skip(why),
    };
    lab.script("useradd --system shop");
    lab.script(native.prepare);
    lab.script(&format!(
        "cat > /srv/shop.toml <<'TEXT'\n{MANIFEST}TEXT\ncat > /srv/broken.toml <<'TEXT'\n{BROKEN}TEXT"
    ));
    let before = lab.tree(DIRS);
    let mainstay = |code, arguments: &[&str]| lab.check(code, &[&[MAINSTAY], arguments].concat());
    let ping = || lab.run(&["redis-cli", "-p", "6390", "ping"]).stdout == b"PONG\n";
    let says = |line: &str| lab.run(&["sh", "-c", line]).status.code() == Some(0);
    let status = || {
        let output = lab.run(&[MAINSTAY, "status", "shop-redis", "--json"]);
        let report: Value = serde_json::from_slice(&output.stdout).expect("a JSON document");
        report["services"][0].clone()
    };
    let running_beside = |old: &Value| {
        wait_until("another server", SOON, || {
            let now = status();
            (now["pid"] != *old && now["state"] == "running").then(|| now["pid"].clone())
        })
    };

    let said = mainstay(0, &["install", "/srv/shop.toml"]);
    assert!(said.contains("shop-redis: installed ("), "{said}");
    assert_eq!(status()["state"], "stopped");
    mainstay(3, &["status", "shop-redis"]);
    let said = mainstay(0, &["install", "/srv/shop.toml"]);
    assert!(said.contains("shop-redis: up to date\n"), "{said}");

    mainstay(0, &["install", "/srv/broken.toml"]);
    mainstay(0, &["disable", "shop-broken"]);

    mainstay(0, &["start", "shop-redis"]);
    assert!(ping(), "it is ready when start says so");
    assert!(says(native.runs));
    let running = status();
    assert_eq!(
        (&running["manager"], &running["mode"]),
        (&native.kind.into(), &"hosted".into())
    );
    let server = running["pid"].to_string();
    let owner = lab.check(0, &["ps", "-o", "user=", "-p", &server]);
    assert_eq!(owner.trim(), "shop");
    mainstay(0, &["reload", "shop-redis"]);
    mainstay(0, &["pause", "shop-redis"]);
    assert_eq!(status()["state"], "paused");
    mainstay(0, &["continue", "shop-redis"]);
    assert!(ping());

    // The host handles a crash of the server.
    lab.check(0, &["kill", "-KILL", &server]);
    let server = running_beside(&running["pid"]);
    assert!(ping() && says(native.runs));
    // The server survives a crash of the host.
    lab.script("pkill -KILL -x mainstay");
    if !native.restarts {
        assert!(ping());
        mainstay(0, &["start", "shop-redis"]);
    }
    wait_until("another host", SOON, || {
        let now = status();
        (now["state"] == "running" && now["pid"] == server).then_some(())
    });
    assert!(ping());

    // The service starts at boot, and the manager's own commands control it.
    lab.reboot();
    wait_until("an answer after the boot", SOON, || ping().then_some(()));
    lab.script(native.stop);
    assert!(!ping() && !says(native.runs));
    assert_eq!(status()["state"], "stopped");
    lab.script(native.start);
    wait_until("an answer", SOON, || ping().then_some(()));
    assert!(mainstay(0, &["logs", "shop-redis"]).contains("Ready to accept connections"));
    mainstay(0, &["restart", "shop-redis"]);
    assert!(ping());

    // If a host gives up, its manager does not try again.
    mainstay(1, &["start", "shop-broken"]);
    let is_down = || {
        let code = lab.run(&[MAINSTAY, "status", "shop-broken"]).status.code();
        (code == Some(3)).then_some(())
    };
    wait_until("that it is given up", SOON, is_down);

    // A service that ended for good is down for its manager, too.
    lab.check(0, &["redis-cli", "-p", "6390", "shutdown", "nosave"]);
    wait_until("the end", SOON, || (!says(native.runs)).then_some(()));
    assert_eq!(status()["state"], "stopped");
    mainstay(0, &["start", "shop-redis"]);
    mainstay(0, &["disable", "shop-redis"]);
    lab.reboot();
    mainstay(3, &["status", "shop-redis"]);
    assert!(!ping());
    mainstay(0, &["enable", "shop-redis"]);
    mainstay(0, &["start", "shop-redis"]);
    mainstay(0, &["stop", "shop-redis"]);
    mainstay(0, &["stop", "shop-redis"]);
    mainstay(0, &["start", "shop-redis"]);
    assert_eq!(lab.script("wc -l < /srv/starts").trim(), "2");
    mainstay(0, &["uninstall", "shop-redis", "shop-broken", "--purge"]);
    mainstay(4, &["uninstall", "shop-redis"]);
    assert!(!ping());
    let left =
        lab.script("ps -eo pid,ppid,stat,args | grep -E 'mainstay|:6390' | grep -v grep || true");
    assert_eq!(left, "");
    let left = lab.script("ls -d /var/lib/mainstay /run/*shop-* 2> /dev/null || true");
    assert_eq!(left, "");
    lab.assert_tree(DIRS, &before);
}

#[test]
fn a_real_server_lives_under_openrc() {
    a_real_server_lives_under("openrc");
}

#[test]
fn a_real_server_lives_under_sysv() {
    a_real_server_lives_under("sysv");
}

#[test]
fn a_real_server_lives_under_runit() {
    a_real_server_lives_under("runit");
}

#[test]
fn a_real_server_lives_under_s6() {
    a_real_server_lives_under("s6");
}

/// The host handles all exits of a program, including those before it was ready for the first time.
/// A completed service satisfies its dependents.
fn starts_are_the_hosts_affair_under(kind: &'static str) {
    let Some(lab) = systemd::lab_of(kind) else {
        return;
    };
    let mainstay = |code, arguments: &[&str]| lab.check(code, &[&[MAINSTAY], arguments].concat());
    systemd::write(
        &lab,
        "/srv/never.toml",
        r#"
        environment = "development"
        [service.hangs]
        command = ["sleep", "1000"]
        account = "local-system"
        start = { timeout = "2s", ready = { tcp = "127.0.0.1:15998" } }
        recovery = { delay = "100ms", limit = { restarts = 4, window = "15m", then = "halt" } }
        [service.job]
        command = ["/bin/sh", "-c", "echo job"]
        account = "local-system"
        [service.after-job]
        command = ["sleep", "1000"]
        account = "local-system"
        needs = ["job"]
        "#,
    );
    mainstay(0, &["install", "/srv/never.toml"]);
    let said = mainstay(1, &["start", "hangs"]);
    let cause = "start hangs: it failed and will be restarted: not ready after 2s: connect to 127.0.0.1:15998: ";
    assert!(said.contains(cause), "{said}");
    wait_until("that it is halted", 2 * SOON, || {
        let now = systemd::status(&lab, "hangs");
        (now["state"] == "halted").then(|| assert_eq!(now["restarts"], 4, "{now}"))
    });
    for _ in 0..3 {
        mainstay(0, &["start", "job"]);
        mainstay(0, &["start", "after-job"]);
        mainstay(0, &["stop", "after-job"]);
    }
}

#[test]
fn starts_are_the_hosts_affair_under_openrc() {
    starts_are_the_hosts_affair_under("openrc");
}

#[test]
fn starts_are_the_hosts_affair_under_sysv() {
    starts_are_the_hosts_affair_under("sysv");
}

#[test]
fn starts_are_the_hosts_affair_under_runit() {
    starts_are_the_hosts_affair_under("runit");
}

#[test]
fn starts_are_the_hosts_affair_under_s6() {
    starts_are_the_hosts_affair_under("s6");
}

/// A service without an account is refused if it would run as root: without a dynamic account, the
/// manifest must name one.
#[test]
fn without_an_account_it_is_refused_where_it_would_be_root() {
    let program = mainstay();
    let dir = program.parent().expect("a program lies somewhere");
    let lab = match Lab::up("s6", &[(dir, "/opt/mainstay")]) {
        Ok(lab) => lab,
        Err(why) => return mainstay_testkit::skip(why),
    };
    lab.script("printf '[service.a]\\ncommand = [\"sleep\", \"1\"]\\n' > /srv/a.toml");
    let before = lab.tree(&["/etc", "/var/lib"]);
    let said = lab.check(78, &[MAINSTAY, "install", "/srv/a.toml"]);
    assert!(
        said.contains("s6 has no accounts for single services"),
        "{said}"
    );
    lab.assert_tree(&["/etc", "/var/lib"], &before);
}

/// The error is about the manager, whatever the services are.
#[test]
fn a_manager_of_another_system_is_said_to_be_one() {
    // Without an account, which most managers refuse.
    let (sandbox, manifest) = sandbox("[service.any]\ncommand = [\"/bin/sleep\", \"1\"]\n");
    let path = manifest.display().to_string();
    for (manager, cause) in [
        ("windows", "windows is not available on this system\nhint: "),
        ("smf", "smf is not running on this system\nhint: "),
        ("aix", "aix is not running on this system\nhint: "),
    ] {
        for more in [&["--dry-run"][..], &[]] {
            let args = ["install", "--manager", manager, &path];
            let output = verb(&sandbox, &[&args, more].concat());
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(code(output.status), 69, "{said}");
            assert!(said.contains(cause), "{said}");
        }
    }
    let args = [
        "install",
        "--manager",
        "embedded",
        "--mode",
        "direct",
        &path,
    ];
    let output = verb(&sandbox, &args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(code(output.status), 2, "{said}");
    let cause = "the embedded manager does not support --mode direct\nhint: omit --mode direct";
    assert!(said.contains(cause), "{said}");
}

/// An image needs no running manager. Its files show whether anything was changed.
#[test]
fn an_installation_says_whether_it_changed_anything() {
    let (sandbox, _) = sandbox("");
    let root = sandbox.path().join("image");
    std::fs::create_dir_all(root.join("etc/systemd/system")).expect("directories");
    let install = |account: &str, more: &[&str]| {
        let text =
            format!("[service.a]\ncommand = [\"/bin/sleep\", \"1\"]\naccount = \"{account}\"\n");
        sandbox.write("a.toml", &text);
        let root = root.display().to_string();
        let args = ["install", "--manager", "systemd", "--root", &root, "a.toml"];
        let output = verb(&sandbox, &[&args, more].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(code(output.status), 0, "{said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let direct = ["--mode", "direct"];
    for (account, more, expect) in [
        ("user:one", &[][..], "a: installed (systemd)\n"),
        ("user:one", &[], "a: up to date\n"),
        ("user:two", &[], "a: updated\n"),
        ("user:two", &direct, "a: updated\n"),
        ("user:two", &direct, "a: up to date\n"),
        ("user:two", &[], "a: updated\n"),
    ] {
        assert_eq!(install(account, more), expect, "{account} {more:?}");
    }
}

/// An image does not work as a system if only root may enter `/var`.
#[test]
fn an_image_gets_directories_for_everybody() {
    use std::os::unix::fs::PermissionsExt as _;
    for (manager, has) in [
        ("systemd", "usr/bin"),
        ("runit", "etc/sv"),
        ("s6", "etc/s6"),
    ] {
        let (sandbox, _) = sandbox("");
        let root = sandbox.path().join("image");
        std::fs::create_dir_all(root.join(has)).expect("directories");
        sandbox.write(
            "a.toml",
            "[service.a]\ncommand = [\"/bin/sleep\", \"1\"]\naccount = \"user:one\"\n",
        );
        // A strict umask does not apply to them.
        let mut command = std::process::Command::new("sh");
        command
            .args(["-c", "umask 077; exec \"$0\" \"$@\""])
            .arg(mainstay())
            .args(["install", "--manager", manager, "--root"])
            .args([&root, &sandbox.path().join("a.toml")]);
        let output = command.output().expect("a shell");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(code(output.status), 0, "{manager}: {said}");
        let mode = |path: &str| {
            let found = std::fs::metadata(root.join(path)).expect(path);
            found.permissions().mode() & 0o777
        };
        for open in ["var", "var/lib"] {
            assert_eq!(mode(open), 0o755, "{manager}: {open}");
        }
        assert_eq!(mode("var/lib/mainstay"), 0o711, "{manager}");
        assert_eq!(
            mode("var/lib/mainstay/installed/a/state") & 0o77,
            0,
            "{manager}"
        );
    }
}

#[test]
fn a_manager_that_does_not_run_is_said_to() {
    if std::path::Path::new("/run/systemd/system").exists() {
        return mainstay_testkit::skip("systemd runs here");
    }
    let (sandbox, manifest) = sandbox("[service.any]\ncommand = [\"/bin/sleep\", \"1\"]\n");
    let path = manifest.display().to_string();
    for more in [&["--dry-run"][..], &[]] {
        let args = ["install", "--manager", "systemd", &path];
        let output = verb(&sandbox, &[&args, more].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(code(output.status), 69, "{said}");
        let cause = "systemd is not running on this system\nhint: ";
        assert!(said.contains(cause), "{said}");
    }
}

#[test]
fn an_image_is_installed_into_as_it_will_be() {
    use std::os::unix::fs::PermissionsExt;
    let (sandbox, _) = sandbox("");
    let root = sandbox.path().join("image");
    let app = root.join("srv/app");
    std::fs::create_dir_all(&app).expect("directories");
    std::fs::create_dir_all(root.join("etc/systemd/system")).expect("directories");
    for dir in [sandbox.path(), &root] {
        std::fs::set_permissions(dir, PermissionsExt::from_mode(0o700)).expect("a mode");
    }
    let text = "[service.app]\ncommand = [\"/opt/app/run\"]\n[service.other]\n\
                command = [\"sleep\", \"9\"]\n";
    std::fs::write(app.join("app.toml"), text).expect("a manifest");
    let path = app.join("app.toml").display().to_string();
    let root_path = root.display().to_string();
    let install = |more: &[&str]| {
        let args = [
            "install",
            &path,
            "--root",
            &root_path,
            "--manager",
            "systemd",
        ];
        let output = verb(&sandbox, &[&args, more].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let unit = |name: &str| {
        let path = root.join(format!("etc/systemd/system/{name}.service"));
        std::fs::read_to_string(path).expect("a unit")
    };
    let (code, said) = install(&["--mode", "direct"]);
    assert_eq!(code, Some(0), "{said}");
    let missing =
        "warning: app: /opt/app/run does not exist in the image: another package must provide it";
    assert!(said.contains(missing), "{said}");
    assert!(said.contains("warning: other: /"), "{said}");
    assert!(
        unit("app").contains("WorkingDirectory=/srv/app\n"),
        "{}",
        unit("app")
    );

    // Programs of the image, one of which its account cannot execute.
    let make = |path: &str, mode| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        std::fs::write(&path, "#!/bin/sh\n").expect("a program");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("a mode");
    };
    make("opt/app/run", 0o755);
    make("usr/bin/sleep", 0o755);
    make("usr/bin/mainstay", 0o755);
    let (code, said) = install(&["--mode", "direct"]);
    assert_eq!((code, said.contains("warning")), (Some(0), false), "{said}");
    assert!(
        unit("other").contains("ExecStart=/usr/bin/sleep 9\n")
            || unit("other").contains("\"/usr/bin/sleep\""),
        "{}",
        unit("other")
    );
    let (code, said) = install(&[]);
    assert_eq!((code, said.contains("warning")), (Some(0), false), "{said}");
    assert!(unit("app").contains("/usr/bin/mainstay"), "{}", unit("app"));
    assert!(unit("app").contains("/srv/app"), "{}", unit("app"));
    make("opt/app/run", 0o700);
    let (code, said) = install(&["--mode", "direct"]);
    let run = root.join("opt/app/run");
    let closed = format!(
        "cannot execute /opt/app/run: {} has mode 0700",
        run.display()
    );
    assert_eq!(code, Some(77), "{said}");
    assert!(said.contains(&closed), "{said}");
}

#[test]
fn a_stopped_need_leaves_hosted_services_running_under_openrc() {
    let Some(lab) = systemd::lab_of("openrc") else {
        return;
    };
    let mainstay = |code, arguments: &[&str]| lab.check(code, &[&[MAINSTAY], arguments].concat());
    systemd::write(
        &lab,
        "/srv/needs.toml",
        r#"
        environment = "development"
        [service.a]
        command = ["sleep", "1000"]
        account = "local-system"
        [service.b]
        command = ["sleep", "1000"]
        account = "local-system"
        needs = ["a"]
        start = { timeout = "2s" }
        "#,
    );
    mainstay(0, &["install", "/srv/needs.toml"]);
    mainstay(0, &["start", "b"]);
    assert_eq!(systemd::status(&lab, "a")["state"], "running");
    let pid = systemd::status(&lab, "b")["pid"].clone();
    let said = mainstay(0, &["stop", "a"]);
    assert!(said.contains("note: b needs a and keeps running"), "{said}");
    lab.check(3, &["rc-service", "a", "status"]);
    assert_eq!(systemd::status(&lab, "b")["pid"], pid);

    // The host waits for a need that cannot be started, and reports why it gives up.
    mainstay(0, &["stop", "b"]);
    // OpenRC compares times in seconds, so its cache of dependencies is renewed explicitly.
    lab.script("mkdir -p /etc/conf.d; echo 'rc_need=nowhere' > /etc/conf.d/a; rc-update -u");
    let said = lab.run(&[MAINSTAY, "start", "b"]);
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("b needs a, which is stopped"), "{said}");
}

/// runit reports states to root only. Other users see that there is a service.
#[test]
fn a_state_that_only_root_may_query_is_unknown_to_others() {
    let Some(lab) = systemd::lab_of("runit") else {
        return;
    };
    lab.script("useradd --create-home bob");
    systemd::write(
        &lab,
        "/srv/hidden.toml",
        "environment = \"development\"\n[service.hidden]\ncommand = [\"sleep\", \"1000\"]\n\
         account = \"local-system\"\n",
    );
    lab.check(0, &[MAINSTAY, "install", "/srv/hidden.toml"]);
    lab.check(0, &[MAINSTAY, "start", "hidden"]);
    let bob = |code, arguments: &[&str]| {
        let user = ["runuser", "-u", "bob", "--", MAINSTAY];
        lab.check(code, &[&user, arguments].concat())
    };
    let said = bob(0, &["list"]);
    assert!(said.contains("hidden   unknown"), "{said}");
    for verb in ["status", "start", "stop", "verify", "logs"] {
        let said = bob(77, &[verb, "hidden"]);
        let hint = format!("hint: run it as root: sudo mainstay {verb} hidden");
        assert!(said.contains(&hint), "{said}");
    }
    bob(4, &["status", "nosuch"]);

    // A supervisor of the user does not have the service, but root may have installed it.
    lab.script(&format!(
        "chmod 0700 /var/lib/mainstay\n\
         sed 's/hidden/own/; /account/d' /srv/hidden.toml > /srv/own.toml\n\
         chmod 0644 /srv/own.toml\n\
         setsid runuser -u bob -- {MAINSTAY} run /srv/own.toml </dev/null >/dev/null 2>&1 &"
    ));
    let status = ["runuser", "-u", "bob", "--", MAINSTAY, "status", "own"];
    wait_until("bob's supervisor", SOON, || {
        lab.run(&status).status.success().then_some(())
    });
    for verb in ["status", "logs", "stop"] {
        let said = bob(77, &[verb, "hidden"]);
        let closed = "/var/lib/mainstay belongs to root (mode 0700)";
        assert!(said.contains(closed), "{said}");
    }
    bob(0, &["stop"]);
}
