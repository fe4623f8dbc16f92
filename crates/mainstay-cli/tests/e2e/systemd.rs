//! Programs installed as services of a real systemd by `mainstay install`.

use mainstay_testkit::lab::Lab;

use super::*;

pub(super) const MAINSTAY: &str = "/opt/mainstay/mainstay";
const PUPPET: &str = "/opt/mainstay/puppet";

pub(super) fn lab() -> Option<Lab> {
    lab_of("systemd")
}

pub(super) fn lab_of(kind: &'static str) -> Option<Lab> {
    let mainstay = mainstay();
    let dir = mainstay.parent().expect("a program lies somewhere");
    match Lab::up(kind, &[(dir, "/opt/mainstay")]) {
        Ok(lab) => Some(lab),
        Err(why) => {
            mainstay_testkit::skip(why);
            None
        }
    }
}

pub(super) fn write(lab: &Lab, path: &str, text: &str) {
    lab.script(&format!(
        "mkdir -p $(dirname {path}); cat > {path} <<'TEXT'\n{text}\nTEXT"
    ));
}

#[track_caller]
pub(super) fn status(lab: &Lab, name: &str) -> Value {
    let output = lab.run(&[MAINSTAY, "status", name, "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("a JSON document");
    report["services"][0].clone()
}

/// Returns a property of a unit, as systemd reports it.
#[track_caller]
fn property(lab: &Lab, unit: &str, name: &str) -> String {
    let said = lab.check(
        0,
        &["systemctl", "show", "--value", "--property", name, unit],
    );
    said.trim().to_owned()
}

#[test]
fn a_real_server_lives_under_systemd() {
    let Some(lab) = lab() else { return };
    lab.script("systemctl disable --quiet --now redis-server; useradd --system shop");
    let before = lab.tree(&["/etc", "/usr"]);
    let mainstay = |code, arguments: &[&str]| lab.check(code, &[&[MAINSTAY], arguments].concat());
    let ping = || lab.run(&["redis-cli", "-p", "6390", "ping"]).stdout == b"PONG\n";
    write(
        &lab,
        "/srv/shop.toml",
        r#"
        [service.shop-redis]
        description = "The shop's cache, 100 %"
        command = ["redis-server", "--port", "6390", "--save", ""]
        account = "user:shop"
        working_dir = "/"
        start = { ready = { tcp = "127.0.0.1:6390" } }
        recovery = { delay = "10ms" }
        reload = { exec = ["redis-cli", "-p", "6390", "config", "resetstat"] }
        "#,
    );
    let plan = mainstay(0, &["install", "--dry-run", "/srv/shop.toml"]);
    assert!(
        plan.ends_with("run systemctl --no-ask-password daemon-reload\n"),
        "{plan}"
    );
    lab.assert_tree(&["/etc", "/usr"], &before);
    let said = mainstay(0, &["install", "/srv/shop.toml"]);
    assert_eq!(said, "shop-redis: installed (systemd)\n");
    let unit = "/etc/systemd/system/shop-redis.service";
    let text = lab.check(0, &["cat", unit]);
    assert!(
        plan.contains(&format!("write {unit} (0644):\n\n{text}")),
        "{plan}"
    );
    assert_eq!(lab.check(0, &["systemd-analyze", "verify", unit]), "");
    assert_eq!(status(&lab, "shop-redis")["state"], "stopped");
    mainstay(3, &["status", "shop-redis"]);

    mainstay(0, &["start", "shop-redis"]);
    assert!(ping());
    let running = status(&lab, "shop-redis");
    assert_eq!(
        (&running["state"], &running["manager"]),
        (&"running".into(), &"systemd".into())
    );
    let server = running["pid"].to_string();
    let owner = lab.check(0, &["ps", "-o", "user=", "-p", &server]);
    assert_eq!(owner.trim(), "shop");
    assert_eq!(property(&lab, "shop-redis", "ActiveState"), "active");
    mainstay(0, &["reload", "shop-redis"]);
    mainstay(0, &["pause", "shop-redis"]);
    assert_eq!(status(&lab, "shop-redis")["state"], "paused");
    mainstay(0, &["continue", "shop-redis"]);
    assert!(ping());

    // The host handles a crash of the server.
    let host = property(&lab, "shop-redis", "MainPID");
    lab.check(0, &["kill", "-KILL", &server]);
    wait_until("another server", SOON, || {
        let now = status(&lab, "shop-redis");
        (now["pid"] != running["pid"] && now["state"] == "running").then_some(())
    });
    assert_eq!(property(&lab, "shop-redis", "MainPID"), host);

    // systemd handles a crash of the host, and the server keeps running.
    let server = status(&lab, "shop-redis")["pid"].clone();
    lab.check(0, &["kill", "-KILL", &host]);
    wait_until("another host", SOON, || {
        let pid = property(&lab, "shop-redis", "MainPID");
        let is_ready = property(&lab, "shop-redis", "ActiveState") == "active";
        (pid != "0" && pid != host && is_ready).then_some(())
    });
    assert!(ping());
    let adopted = status(&lab, "shop-redis");
    assert_eq!(
        (&adopted["pid"], &adopted["state"]),
        (&server, &"running".into())
    );

    // The service starts at boot, and systemd's own commands control it.
    lab.reboot();
    wait_until("an answer after the boot", SOON, || ping().then_some(()));
    lab.check(0, &["systemctl", "stop", "shop-redis"]);
    assert!(!ping());
    assert_eq!(status(&lab, "shop-redis")["state"], "stopped");
    lab.check(0, &["systemctl", "start", "shop-redis"]);
    assert!(ping());
    assert!(mainstay(0, &["logs", "shop-redis"]).contains("Ready to accept connections"));
    mainstay(0, &["restart", "shop-redis"]);
    // A service that an operator has disabled stays disabled.
    let enabled = |code| lab.check(code, &["systemctl", "is-enabled", "shop-redis"]);
    assert_eq!(enabled(0), "enabled\n");
    mainstay(0, &["disable", "shop-redis"]);
    assert_eq!(
        mainstay(0, &["install", "/srv/shop.toml"]),
        "shop-redis: up to date\n"
    );
    assert_eq!(enabled(1), "disabled\n");
    mainstay(0, &["enable", "shop-redis"]);
    assert_eq!(enabled(0), "enabled\n");
    mainstay(4, &["enable", "nobody"]);
    mainstay(0, &["stop", "shop-redis"]);
    mainstay(0, &["stop", "shop-redis"]);
    mainstay(0, &["uninstall", "shop-redis", "--purge"]);
    mainstay(4, &["uninstall", "shop-redis"]);
    lab.script("test -z \"$(ls -d /var/lib/mainstay 2> /dev/null)\"");
    lab.assert_tree(&["/etc", "/usr"], &before);
}

/// The reaction to each exit code is the same as under `mainstay run` in either mode, and systemd
/// reports how the service ended.
#[test]
fn exit_codes_are_a_contract_under_systemd_too() {
    let Some(lab) = lab() else { return };
    for mode in ["hosted", "direct"] {
        let mut text = "environment = \"development\"\n".to_owned();
        for code in CODES {
            text += &format!(
                "[service.{mode}-{code}]\ncommand = [\"{PUPPET}\", \"count\", \"/srv/{mode}-{code}\", \"exit\", \"{code}\"]\n\
                 recovery = {{ delay = \"10ms\", limit = {{ restarts = 5, window = \"1m\", then = \"halt\" }} }}\naccount = \"local-system\"\n\
                 on_alert = [\"sh\", \"-c\", \"cat > /srv/{mode}-{code}.alert\"]\n"
            );
        }
        let path = format!("/srv/{mode}.toml");
        write(&lab, &path, &text);
        lab.check(0, &[MAINSTAY, "install", "--mode", mode, &path]);
        lab.script(&format!(
            "systemctl start --no-block $(cd /etc/systemd/system && echo {mode}-*.service)"
        ));
    }
    for (mode, code) in ["hosted", "direct"]
        .iter()
        .flat_map(|mode| CODES.map(|code| (mode, code)))
    {
        let unit = format!("{mode}-{code}");
        wait_until(&format!("the end of {unit}"), SOON, || {
            let state = property(&lab, &unit, "ActiveState");
            ["inactive", "failed"].contains(&&*state).then_some(())
        });
        let starts = lab.script(&format!("wc -l < /srv/{unit}"));
        let (expected, state) = contract(code);
        assert_eq!(starts.trim().parse(), Ok(expected), "{unit}");
        assert_eq!(property(&lab, &unit, "ActiveState"), state, "{unit}");
        assert_eq!(property(&lab, &unit, "ExecMainStatus"), code.to_string());
        assert_eq!(status(&lab, &unit)["last_exit"]["code"], code, "{unit}");
        if *mode == "hosted" && code != 0 {
            let halted = status(&lab, &unit);
            assert_eq!(halted["state"], "halted", "{unit}");
            assert!(halted["detail"].is_string(), "{halted}");
        }
        // A host reports the halt before it ends.
        if *mode == "hosted" && code != 0 {
            let alert = lab.script(&format!("cat /srv/{unit}.alert"));
            let alert: Value = serde_json::from_str(&alert).expect("JSON");
            assert_eq!(
                (&alert["event"], &alert["service"]),
                (&"halted".into(), &unit.as_str().into())
            );
            let warnings = lab.script(&format!(
                "journalctl --unit {unit} --priority warning --output cat"
            ));
            let halted = alert["message"].as_str().unwrap_or_default();
            assert!(warnings.contains(halted), "{unit}: {warnings}");
        }
    }
}

#[test]
fn systemd_can_run_a_program_itself() {
    let Some(lab) = lab() else { return };
    lab.script("systemctl disable --quiet --now redis-server");
    let before = lab.tree(&["/etc", "/usr"]);
    let mainstay = |code, arguments: &[&str]| lab.check(code, &[&[MAINSTAY], arguments].concat());
    let ping = || lab.run(&["redis-cli", "-p", "6390", "ping"]).stdout == b"PONG\n";
    write(
        &lab,
        "/srv/plain.toml",
        r#"
        [service.plain-redis]
        command = ["redis-server", "--port", "6390", "--save", "", "--logfile", ""]
        working_dir = "/"
        limits = { open_files = 5000 }
        start = { ready = { tcp = "127.0.0.1:6390" } }
        recovery = { delay = "10ms" }
        reload = { exec = ["redis-cli", "-p", "6390", "config", "resetstat"] }
        "#,
    );
    let said = mainstay(0, &["install", "--mode", "direct", "/srv/plain.toml"]);
    assert!(
        said.contains("not supported by the service manager: `start.ready`"),
        "{said}"
    );
    let unit = "/etc/systemd/system/plain-redis.service";
    assert_eq!(lab.check(0, &["systemd-analyze", "verify", unit]), "");
    let security = [
        "systemd-analyze",
        "security",
        "--threshold=20",
        "plain-redis",
    ];
    lab.check(0, &security);
    mainstay(0, &["start", "plain-redis"]);
    wait_until("an answer", SOON, || ping().then_some(()));
    let running = status(&lab, "plain-redis");
    assert_eq!(
        (&running["state"], &running["mode"], &running["ready"]),
        (&"running".into(), &"direct".into(), &true.into())
    );
    let server = running["pid"].to_string();
    let limits = lab.check(
        0,
        &["grep", "open files", &format!("/proc/{server}/limits")],
    );
    assert!(limits.contains(" 5000 "), "{limits}");
    mainstay(0, &["reload", "plain-redis"]);
    mainstay(0, &["pause", "plain-redis"]);
    assert_eq!(status(&lab, "plain-redis")["state"], "paused");
    mainstay(0, &["continue", "plain-redis"]);
    lab.check(0, &["kill", "-KILL", &server]);
    wait_until("another server", SOON, || {
        let now = status(&lab, "plain-redis");
        (now["pid"] != running["pid"] && now["state"] == "running").then_some(())
    });
    lab.reboot();
    wait_until("an answer after the boot", SOON, || ping().then_some(()));
    mainstay(0, &["stop", "plain-redis"]);
    assert!(!ping());
    // A hosted installation replaces the direct one.
    mainstay(0, &["install", "/srv/plain.toml"]);
    mainstay(0, &["start", "plain-redis"]);
    assert_eq!(status(&lab, "plain-redis")["mode"], "hosted");
    mainstay(0, &["uninstall", "plain-redis", "--purge"]);
    lab.script("test -z \"$(ls -d /var/lib/mainstay /var/lib/*/*plain* 2> /dev/null)\"");
    lab.assert_tree(&["/etc", "/usr"], &before);
}

#[test]
fn many_services_are_installed_at_once() {
    let Some(lab) = lab() else { return };
    let text: String = (0..20)
        .map(|number| format!("[service.many-{number}]\ncommand = [\"sleep\", \"1000\"]\n"))
        .collect();
    write(&lab, "/srv/many.toml", &text);
    let reloads = || {
        let log = lab.script(
            "journalctl --sync; journalctl _PID=1 --output=cat | grep -c '^Reloading\\.' || true",
        );
        log.trim().parse::<u32>().expect("a number")
    };
    let before = reloads();
    lab.check(0, &[MAINSTAY, "install", "/srv/many.toml"]);
    assert_eq!(reloads(), before + 1);
    // An existing unit does not cause another reload.
    lab.check(0, &[MAINSTAY, "install", "/srv/many.toml"]);
    assert_eq!(reloads(), before + 1);
    let failed =
        lab.script("systemctl list-unit-files 'many-*' --no-legend | grep -vc enabled || true");
    assert_eq!(failed.trim(), "0");
    lab.check(
        0,
        &[
            "systemd-analyze",
            "verify",
            "/etc/systemd/system/many-0.service",
        ],
    );
}

/// Services work without root, in the user's own manager and with the user's own state.
#[test]
fn a_user_has_services_too() {
    let Some(lab) = lab() else { return };
    lab.script(
        "useradd --create-home joe; loginctl enable-linger joe
         until [ -S /run/user/$(id -u joe)/bus ]; do sleep 0.05; done",
    );
    let id = lab.check(0, &["id", "-u", "joe"]);
    let runtime = format!("XDG_RUNTIME_DIR=/run/user/{}", id.trim());
    let joe = [
        "runuser",
        "-u",
        "joe",
        "--",
        "env",
        &runtime,
        "HOME=/home/joe",
        MAINSTAY,
    ];
    let mainstay = |code, arguments: &[&str]| lab.check(code, &[&joe[..], arguments].concat());
    write(
        &lab,
        "/srv/own.toml",
        "[service.own]\ncommand = [\"sh\", \"-c\", \"id -un; exec sleep 1000\"]\nstart = { ready = { log = \"^joe$\" } }\n",
    );
    let before = lab.tree(&["/etc", "/home"]);
    for mode in ["hosted", "direct"] {
        mainstay(0, &["install", "--user", "--mode", mode, "/srv/own.toml"]);
        mainstay(0, &["start", "own"]);
        let said = mainstay(0, &["status", "own", "--json"]);
        assert!(
            said.contains(mode) && said.contains("\"running\""),
            "{said}"
        );
        lab.check(4, &[MAINSTAY, "enable", "own"]);
        mainstay(0, &["uninstall", "own", "--purge"]);
    }
    lab.script("rm -rf /home/joe/.config /home/joe/.local");
    lab.assert_tree(&["/etc", "/home"], &before);
}

/// An installation into an image runs nothing, and is complete at the first boot.
#[test]
fn an_image_gets_services_before_it_runs() {
    let Some(lab) = lab() else { return };
    lab.script("mkdir -p /srv/image/etc/systemd/system");
    write(
        &lab,
        "/srv/image.toml",
        "[service.first]\ncommand = [\"sleep\", \"1000\"]\n",
    );
    let before = lab.tree(&["/etc", "/var/lib"]);
    let staged = [
        MAINSTAY,
        "install",
        "--root",
        "/srv/image",
        "/srv/image.toml",
    ];
    // Another package installs the program.
    let missing = format!("warning: first: {MAINSTAY} does not exist in the image: ");
    for done in ["first: installed (systemd)\n", "first: up to date\n"] {
        let said = lab.check(0, &staged);
        assert!(said.starts_with(done) && said.contains(&missing), "{said}");
    }
    lab.assert_tree(&["/etc", "/var/lib"], &before);
    let enabled = ["systemctl", "--root=/srv/image", "is-enabled", "first"];
    assert_eq!(lab.check(0, &enabled), "enabled\n");
    // Simulates the boot of the image.
    lab.script(
        "cp -a /srv/image/etc/. /etc/ && mkdir -p /var/lib && cp -a /srv/image/var/lib/. /var/lib/",
    );
    lab.reboot();
    wait_until("the first service", SOON, || {
        (status(&lab, "first")["state"] == "running").then_some(())
    });
}

/// A host that runs as root keeps the sandbox of its program intact.
#[test]
fn a_sandbox_holds_for_the_account_of_a_user_too() {
    let Some(lab) = lab() else { return };
    write(
        &lab,
        "/srv/caged.toml",
        r#"
        [service.caged]
        command = ["sh", "-c", "grep -E '^(CapEff|CapAmb|NoNewPrivs)' /proc/self/status; touch /srv/open/file && echo wrote; touch /srv/closed/file || echo kept; ls /dev/kmsg || echo hidden; id -un; exec sleep 1000"]
        account = "user:nobody"
        working_dir = "/"
        start = { ready = { log = "^nobody$" } }
        sandbox = { writable = ["/srv/open"], capabilities = ["CAP_NET_BIND_SERVICE"] }
        "#,
    );
    lab.script("mkdir -p /srv/open /srv/closed && chmod 777 /srv/open /srv/closed");
    let mainstay = |code, arguments: &[&str]| lab.check(code, &[&[MAINSTAY], arguments].concat());
    mainstay(0, &["install", "/srv/caged.toml"]);
    let unit = "/etc/systemd/system/caged.service";
    assert_eq!(lab.check(0, &["systemd-analyze", "verify", unit]), "");
    mainstay(0, &["start", "caged"]);
    let said = mainstay(0, &["logs", "caged"]);
    let bind = format!("{:016x}", 1 << 10);
    let expected = [
        &format!("CapEff:\t{bind}"),
        "NoNewPrivs:\t1",
        &format!("CapAmb:\t{bind}"),
        "wrote",
        "kept",
        "hidden",
        "nobody",
    ];
    let mut said: Vec<&str> = said
        .lines()
        .filter(|line| !line.starts_with("touch") && !line.starts_with("ls"))
        .collect();
    said[..3].sort_unstable();
    let mut expected = expected;
    expected[..3].sort_unstable();
    assert_eq!(said, expected);
    // The host survives a crash of the program and restarts it, as it does outside of a sandbox.
    let before = status(&lab, "caged");
    lab.check(0, &["kill", "-KILL", &before["pid"].to_string()]);
    wait_until("another process", SOON, || {
        let now = status(&lab, "caged");
        (now["pid"] != before["pid"] && now["state"] == "running").then_some(())
    });
    mainstay(0, &["stop", "caged"]);
    mainstay(0, &["uninstall", "caged", "--purge"]);
}

/// A service without an account gets a dynamic one, with almost no rights.
#[test]
fn without_an_account_it_may_do_next_to_nothing() {
    let Some(lab) = lab() else { return };
    let before = lab.tree(&["/etc", "/usr"]);
    write(
        &lab,
        "/srv/modest.toml",
        r#"
        [service.modest]
        command = ["sh", "-c", "touch $MAINSTAY_DATA_DIR/own && echo wrote; touch /etc/other || echo kept; touch /srv/other || echo kept; echo up; exec sleep 1000"]
        start = { ready = { log = "^up$" } }
        [service.ordinary]
        command = ["sh", "-c", "id -un > $MAINSTAY_DATA_DIR/who && echo up; exec sleep 1000"]
        account = "user:nobody"
        start.ready = { log = "^up$" }
        "#,
    );
    let mainstay = |code, arguments: &[&str]| lab.check(code, &[&[MAINSTAY], arguments].concat());
    mainstay(0, &["install", "/srv/modest.toml"]);
    let unit = "/etc/systemd/system/modest.service";
    assert_eq!(lab.check(0, &["systemd-analyze", "verify", unit]), "");
    lab.check(
        0,
        &["systemd-analyze", "security", "--threshold=20", "modest"],
    );
    // The service has not been started, but is already listed.
    assert_eq!(status(&lab, "modest")["state"], "stopped");
    mainstay(0, &["start", "modest", "ordinary"]);
    let said = mainstay(0, &["logs", "modest"]);
    let words: Vec<&str> = said
        .lines()
        .filter(|line| !line.starts_with("touch"))
        .collect();
    assert_eq!(words, ["wrote", "kept", "kept", "up"]);
    let running = status(&lab, "modest");
    let owner = lab.check(0, &["ps", "-o", "uid=", "-p", &running["pid"].to_string()]);
    let owner: u32 = owner.trim().parse().expect("a number");
    assert!((61184..=65519).contains(&owner), "{owner}");
    // Others can read the directory of another account, which services exist, and who manages them;
    // nothing else.
    let seen =
        lab.script("cd /var/lib/mainstay && find . -type d ! -perm -001 ! -user nobody -prune -o ! -type l ! -path ./installed ! -name installation.json \\( -perm /066 -o -user nobody \\) -print | sort");
    let own = "./installed/ordinary/state/data/ordinary";
    assert_eq!(seen, format!("{own}\n{own}/who\n"));

    // The service survives a crash of its host here, too.
    let host = property(&lab, "modest", "MainPID");
    lab.check(0, &["kill", "-KILL", &host]);
    wait_until("another host", SOON, || {
        let pid = property(&lab, "modest", "MainPID");
        let is_ready = property(&lab, "modest", "ActiveState") == "active";
        (pid != "0" && pid != host && is_ready).then_some(())
    });
    assert_eq!(status(&lab, "modest")["pid"], running["pid"]);
    mainstay(0, &["pause", "modest"]);
    mainstay(0, &["continue", "modest"]);

    // The state that it stored does not pass to another account.
    lab.script(
        "sed 's/^ *start = /account = \"local-system\"\\n&/' /srv/modest.toml > /srv/other.toml",
    );
    let said = mainstay(73, &["install", "/srv/other.toml", "modest"]);
    assert!(
        said.contains("its state belongs to another account"),
        "{said}"
    );
    mainstay(0, &["stop", "modest", "ordinary"]);
    let left = lab.run(&["pgrep", "-u", &owner.to_string()]);
    assert_eq!(left.stdout, b"");
    // An installation with another account, even a failed one, loses nothing that an earlier
    // installation left.
    mainstay(0, &["uninstall", "modest"]);
    mainstay(73, &["install", "/srv/other.toml", "modest"]);
    mainstay(0, &["install", "/srv/modest.toml"]);
    assert!(mainstay(0, &["logs", "modest"]).starts_with("wrote\n"));
    mainstay(0, &["uninstall", "modest", "ordinary", "--purge"]);
    lab.script(
        "test -z \"$(ls -d /var/lib/mainstay /var/lib/*/*modest* /var/lib/*modest* 2> /dev/null)\"",
    );
    lab.assert_tree(&["/etc", "/usr"], &before);
}

/// Writes a manifest of one service into a new directory.
fn write_app(lab: &Lab, dir: &str, more: &str) -> String {
    let path = format!("{dir}/app.toml");
    let text = format!("[service.app]\ncommand = [\"/bin/sleep\", \"1000\"]\n{more}");
    write(lab, &path, &text);
    path
}

#[test]
fn what_its_account_cannot_reach_is_said_when_it_is_installed() {
    let Some(lab) = lab() else { return };
    lab.script(
        "useradd --system --create-home shop; chmod 755 /home/shop; install -m 600 /dev/null /etc/secret.env",
    );
    let before = lab.tree(&["/etc", "/var/lib"]);
    let refused = |arguments: &[&str], expect: &[&str]| {
        let output = lab.run(&[&[MAINSTAY, "install"], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(77), "{arguments:?}: {said}");
        for expect in expect {
            assert!(said.contains(expect), "{expect}: {said}");
        }
        assert!(said.contains("\nhint: move it to"), "{said}");
    };
    let at_root = write_app(&lab, "/root/app", "");
    let closed = "its working directory /root/app: /root has mode 0700";
    refused(&[&at_root], &[closed]);
    refused(&["--dry-run", &at_root], &[closed]);
    let temporary = write_app(&lab, "/tmp/app", "");
    refused(
        &[&temporary],
        &["its working directory /tmp/app: ", "PrivateTmp"],
    );
    let confined = write_app(&lab, "/tmp/app", "account = \"user:shop\"\nsandbox = {}");
    refused(&[&confined], &["/tmp/app: ", "PrivateTmp"]);
    let at_home = write_app(&lab, "/home/shop/app", "");
    refused(
        &["--mode", "direct", &at_home],
        &["/home/shop/app: ", "ProtectHome"],
    );
    let of_user = write_app(&lab, "/root/app", "account = \"user:shop\"");
    refused(&[&of_user], &[closed, "user shop"]);
    let secret = write_app(&lab, "/srv/app", "env_file = \"/etc/secret.env\"");
    refused(
        &[&secret],
        &["its env_file /etc/secret.env: /etc/secret.env has mode 0600"],
    );
    lab.assert_tree(&["/etc", "/var/lib"], &before);

    // A program that the account can reach is installed and runs.
    let mainstay = |code, arguments: &[&str]| lab.check(code, &[&[MAINSTAY], arguments].concat());
    mainstay(0, &["install", &at_home]);
    mainstay(0, &["start", "app"]);
    mainstay(0, &["uninstall", "--purge", "app"]);
    let as_root = write_app(&lab, "/root/app", "account = \"local-system\"");
    mainstay(0, &["install", &as_root]);
    mainstay(0, &["start", "app"]);
    mainstay(0, &["uninstall", "--purge", "app"]);
}

#[test]
fn a_start_that_fails_says_why() {
    let Some(lab) = lab() else { return };
    lab.script("install -m 644 /dev/null /etc/app.env; mkdir -p /srv/work");
    let said = |name: &str| {
        let output = lab.run(&[MAINSTAY, "start", name]);
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let hosted = write_app(&lab, "/srv/hosted", "env_file = \"/etc/app.env\"");
    lab.check(0, &[MAINSTAY, "install", &hosted]);
    lab.script("rm /etc/app.env");
    let text = said("app");
    assert!(text.contains("read env_file /etc/app.env: "), "{text}");
    assert!(!text.contains("Job for"), "{text}");
    lab.check(0, &[MAINSTAY, "uninstall", "--purge", "app"]);

    let direct = write_app(&lab, "/srv/direct", "working_dir = \"/srv/work\"");
    lab.check(0, &[MAINSTAY, "install", "--mode", "direct", &direct]);
    let unit = lab.check(0, &["cat", "/etc/systemd/system/app.service"]);
    assert!(
        unit.contains("Environment=\"MAINSTAY_LOG_LEVEL=warn\""),
        "{unit}"
    );
    lab.script("rmdir /srv/work");
    let text = said("app");
    assert!(text.contains("CHDIR"), "{text}");
    assert!(text.contains("No such file or directory"), "{text}");
    assert!(!text.contains("Job for"), "{text}");
}

/// The services `b`, `direct` and `os` need `a`; `os` needs it as a service of the system.
const NEEDS: &str = r#"
    environment = "development"
    [service.a]
    command = ["sleep", "1000"]
    [service.b]
    command = ["sleep", "1000"]
    needs = ["a"]
    start = { timeout = "2s" }
    [service.os]
    command = ["sleep", "1000"]
    account = "local-system"
    needs = ["os:redis-server", "os:network.target"]
    "#;

/// A need that stops after the start of its dependents does not affect them, as under `mainstay
/// run`.
#[test]
fn a_stopped_need_leaves_hosted_services_running() {
    let Some(lab) = lab() else { return };
    let mainstay = |code, arguments: &[&str]| lab.check(code, &[&[MAINSTAY], arguments].concat());
    write(&lab, "/srv/needs.toml", NEEDS);
    mainstay(0, &["install", "/srv/needs.toml"]);
    let said = lab.script("systemd-analyze verify /etc/systemd/system/[ab].service 2>&1");
    assert_eq!(said, "");
    mainstay(0, &["start", "b", "os"]);
    assert_eq!(status(&lab, "a")["state"], "running");

    let note = "a: stopped\n\
                note: b needs a and keeps running\n\
                hint: `mainstay stop a --with-dependents` stops both\n";
    let pid = status(&lab, "b")["pid"].clone();
    assert_eq!(mainstay(0, &["stop", "a"]), note);
    assert_eq!(property(&lab, "a", "ActiveState"), "inactive");
    lab.check(0, &["systemctl", "stop", "redis-server"]);
    for (name, pid) in [("b", pid), ("os", status(&lab, "os")["pid"].clone())] {
        let now = status(&lab, name);
        assert_eq!(
            (&now["state"], &now["pid"]),
            (&"running".into(), &pid),
            "{now}"
        );
    }

    // A need that fails keeps its dependents from starting, and the reason is reported.
    mainstay(0, &["stop", "b", "os"]);
    lab.script(
        "for unit in a redis-server; do mkdir -p /run/systemd/system/$unit.service.d\n\
         printf '[Service]\\nExecStartPre=false\\n' > /run/systemd/system/$unit.service.d/fail.conf; done\n\
         systemctl daemon-reload",
    );
    for (name, why) in [
        ("b", "b needs a, which has failed"),
        ("os", "os needs os:redis-server, which has failed"),
    ] {
        let said = mainstay(1, &["start", name]);
        assert!(said.contains(why), "{said}");
        let shown = status(&lab, name);
        assert_eq!(shown["state"], "stopped", "{shown}");
        let detail = shown["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(why), "{shown}");
    }
    lab.script("rm -r /run/systemd/system/*.service.d; systemctl daemon-reload");
    mainstay(0, &["start", "b", "os"]);
    assert_eq!(status(&lab, "b")["detail"], Value::Null);

    // systemd runs a direct service itself and stops it together with its needs. `install` and
    // `stop` report that.
    let said = mainstay(0, &["install", "--mode", "direct", "/srv/needs.toml", "b"]);
    let loss = "b: not supported by the service manager: independent stops: systemd also stops the service when one that it needs stops";
    assert!(said.contains(loss), "{said}");
    mainstay(0, &["restart", "b"]);
    let said = mainstay(0, &["stop", "a"]);
    assert!(
        said.contains("note: b needs a, so systemd stopped it too"),
        "{said}"
    );
}

/// Other units depend on the established name of a service.
#[test]
fn a_service_keeps_the_name_that_systemd_knows_it_by() {
    let Some(lab) = lab() else { return };
    let before = lab.tree(&["/etc"]);
    let mainstay = |code, arguments: &[&str]| lab.check(code, &[&[MAINSTAY], arguments].concat());
    let manifest = |name: &str| {
        format!(
            "[service.sample]\ncommand = [\"sleep\", \"1000\"]\nmanager_name = \"{name}\"\n\
             [service.b]\ncommand = [\"sleep\", \"1000\"]\nneeds = [\"sample\"]\n"
        )
    };
    write(&lab, "/srv/legacy.toml", &manifest("GoSampleService"));
    let other = "[Unit]\nRequires=GoSampleService.service\nAfter=GoSampleService.service\n\
                 [Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=true";
    write(&lab, "/run/systemd/system/other.service", other);
    mainstay(0, &["install", "/srv/legacy.toml"]);
    lab.check(0, &["systemctl", "start", "other"]);
    assert_eq!(property(&lab, "GoSampleService", "ActiveState"), "active");
    assert_eq!(status(&lab, "sample")["state"], "running");
    assert_eq!(property(&lab, "sample", "LoadState"), "not-found");
    mainstay(0, &["stop", "sample"]);
    assert_eq!(property(&lab, "GoSampleService", "ActiveState"), "inactive");

    // Its dependents and commands refer to it by its key.
    mainstay(0, &["start", "b"]);
    let wants = property(&lab, "b", "Wants");
    assert!(
        wants
            .split(' ')
            .any(|unit| unit == "GoSampleService.service"),
        "{wants}"
    );
    assert_eq!(status(&lab, "sample")["state"], "running");
    let said = mainstay(0, &["stop", "sample"]);
    assert!(
        said.contains("note: b needs sample and keeps running"),
        "{said}"
    );
    for verb in ["start", "stop", "status", "enable", "verify", "uninstall"] {
        let said = mainstay(4, &[verb, "GoSampleService"]);
        assert!(
            said.contains("it is the name of sample in systemd\nhint: use the name sample"),
            "{said}"
        );
    }
    mainstay(0, &["restart", "sample"]);
    mainstay(0, &["disable", "sample"]);
    lab.check(1, &["systemctl", "is-enabled", "GoSampleService"]);
    assert!(mainstay(79, &["verify", "sample"]).contains("will not start at boot"));
    let said = mainstay(0, &["stop", "sample", "--with-dependents"]);
    assert_eq!(said, "b: stopped\nsample: stopped\n");

    // A service with another name is another service to systemd.
    write(&lab, "/srv/legacy.toml", &manifest("other"));
    for verb in ["install", "update"] {
        let said = mainstay(1, &[verb, "/srv/legacy.toml", "sample"]);
        assert!(
            said.contains("its name in systemd would change from GoSampleService to other"),
            "{said}"
        );
    }
    mainstay(0, &["uninstall", "sample", "--purge"]);
    let said = mainstay(1, &["install", "/srv/legacy.toml", "sample"]);
    assert!(
        said.contains("the service manager already has a service named other"),
        "{said}"
    );
    write(&lab, "/srv/legacy.toml", &manifest("my-legacy.service"));
    let said = mainstay(78, &["install", "/srv/legacy.toml", "sample"]);
    assert!(said.contains("omit .service"), "{said}");
    mainstay(0, &["uninstall", "b", "--purge"]);
    lab.assert_tree(&["/etc"], &before);
}

/// Public information from systemd is shown. For the rest, the message names the required
/// permission.
#[test]
fn a_user_without_root_sees_what_there_is() {
    let Some(lab) = lab() else { return };
    lab.script("useradd --create-home bob");
    for (name, mode) in [("web", "hosted"), ("plain", "direct")] {
        let path = format!("/srv/{name}.toml");
        let service = format!(
            "environment = \"development\"\n[service.{name}]\n\
             command = [\"sleep\", \"1000000\"]\naccount = \"local-system\"\n"
        );
        write(&lab, &path, &service);
        lab.check(0, &[MAINSTAY, "install", "--mode", mode, &path]);
    }
    lab.check(0, &[MAINSTAY, "start", "web", "plain"]);
    let started = status(&lab, "web")["pid"].clone();
    let root = |code, verb: &str| {
        let words = verb.split(' ');
        lab.check(code, &[&[MAINSTAY], &*words.collect::<Vec<_>>()].concat())
    };
    let bob = |code, verb: &str| {
        let user = ["runuser", "-u", "bob", "--", MAINSTAY];
        let words = verb.split(' ');
        lab.check(code, &[&user[..], &*words.collect::<Vec<_>>()].concat())
    };
    let have = |said: String, parts: &[&str]| {
        let missing = parts.iter().find(|part| !said.contains(**part));
        assert_eq!(missing, None, "{said}");
    };
    have(bob(0, "list"), &["plain    running", "web      running"]);
    bob(0, "status plain");
    for verb in [
        "status",
        "status web",
        "logs web",
        "logs rotate web",
        "events web",
        "verify web",
        "history web",
        "diff web",
        "snapshot list web",
        "snapshot create web",
        "start web",
        "stop web",
        "restart web",
        "pause web",
        "continue web",
        "reload web",
        "enable web",
        "disable web",
        "rollback web",
        "update /srv/web.toml",
        "uninstall web",
        "start plain",
        "stop plain",
        "pause plain",
        "restart plain",
        "disable plain",
        "events",
    ] {
        have(
            bob(77, verb),
            &[&format!("hint: run it as root: sudo mainstay {verb}")],
        );
    }
    for verb in [
        "status",
        "logs",
        "events",
        "start",
        "stop",
        "restart",
        "pause",
        "reload",
        "enable",
        "verify",
        "snapshot list",
        "rollback",
        "uninstall",
    ] {
        let verb = format!("{verb} nosuch");
        for said in [bob(4, &verb), root(4, &verb)] {
            have(said, &["no service named nosuch", "plain, web (systemd)"]);
        }
    }
    for said in [bob(3, "stop"), root(3, "stop"), root(3, "events -f")] {
        have(said, &["systemd manages the services here", "plain web"]);
    }
    have(root(0, "events"), &["web: started"]);
    assert_eq!(status(&lab, "web")["pid"], started);
    root(0, "stop web");
    bob(3, "status web");
    // A failed service is distinct from a stopped one.
    write(
        &lab,
        "/srv/fail.toml",
        "environment = \"development\"\n[service.fail]\ncommand = [\"sh\", \"-c\", \"exit 3\"]\naccount = \"local-system\"\nrecovery = { policy = \"strict\" }\n",
    );
    root(0, "install /srv/fail.toml");
    root(1, "start fail");
    have(root(3, "status fail"), &["halted"]);
    have(bob(3, "status fail"), &["systemd: failed with code 3"]);
    have(bob(0, "list"), &["systemd: failed with code 3"]);
    root(0, "uninstall --purge fail");
    have(
        root(3, "pause web"),
        &["hint: start it: mainstay start web"],
    );
    // Restores the mode that an earlier version set.
    lab.script("chmod 0700 /var/lib/mainstay");
    for verb in [
        "status",
        "list",
        "stop",
        "stop web",
        "events",
        "logs web",
        "verify web",
    ] {
        let closed = "/var/lib/mainstay belongs to root (mode 0700)";
        have(bob(77, verb), &[closed, &format!("sudo mainstay {verb}")]);
    }
}

/// The host handles all exits of a program, including those before it was ready for the first time.
/// systemd would count from zero.
#[test]
fn a_service_that_is_never_ready_halts_by_its_own_limit() {
    let Some(lab) = lab() else { return };
    write(
        &lab,
        "/srv/never.toml",
        r#"
        environment = "development"
        [service.exits]
        command = ["/bin/sh", "-c", "echo >> /srv/starts; echo cannot open socket; exit 3"]
        account = "local-system"
        start = { timeout = "3s", ready = { tcp = "127.0.0.1:15999" } }
        recovery = { delay = "300ms", max_delay = "300ms", limit = { restarts = 30, window = "15m", then = "halt" } }
        [service.hangs]
        command = ["sleep", "1000"]
        start = { timeout = "2s", ready = { tcp = "127.0.0.1:15998" } }
        recovery = { delay = "100ms", limit = { restarts = 7, window = "15m", then = "halt" } }
        [service.dependent]
        command = ["sleep", "1000"]
        needs = ["hangs"]
        start = { timeout = "2s" }
        "#,
    );
    let mainstay = |code, arguments: &[&str]| lab.check(code, &[&[MAINSTAY], arguments].concat());
    mainstay(0, &["install", "/srv/never.toml"]);

    // `start` reports the cause, as under `mainstay run`.
    let said = mainstay(1, &["start", "exits"]);
    assert!(
        said.contains("error: cannot start exits: it failed and will be restarted: exit code 3"),
        "{said}"
    );
    let before = std::time::Instant::now();
    let said = mainstay(1, &["start", "hangs"]);
    let cause = "not ready after 2s: connect to 127.0.0.1:15998: ";
    assert!(
        said.contains(&format!(
            "error: cannot start hangs: it failed and will be restarted: {cause}"
        )),
        "{said}"
    );
    assert!(before.elapsed() < Duration::from_secs(10));

    // systemd shows that the host is up, and why its program is not.
    let host = property(&lab, "hangs", "MainPID");
    assert_eq!(property(&lab, "hangs", "ActiveState"), "active");
    let shown = property(&lab, "hangs", "StatusText");
    assert!(shown.contains(&format!("backing-off: {cause}")), "{shown}");

    // A dependent is not started as if the service were ready.
    let said = mainstay(1, &["start", "dependent"]);
    let lack = format!("dependent needs hangs, which failed and will be restarted: {cause}");
    let hint = "hint: see `mainstay status hangs` and `mainstay logs hangs -n 20`, then mainstay start dependent";
    let is_starting = said.contains("dependent needs hangs, which is starting");
    assert!(said.contains(&lack) || is_starting, "{said}");
    assert!(said.contains(hint), "{said}");
    assert_eq!(status(&lab, "dependent")["state"], "stopped");

    for (name, restarts) in [("exits", 30), ("hangs", 7)] {
        wait_until("that it is halted", 2 * SOON, || {
            let pid = property(&lab, name, "MainPID");
            let now = status(&lab, name);
            if name == "hangs" && now["state"] != "halted" {
                assert_eq!(pid, host, "the same host");
            }
            (now["state"] == "halted").then(|| assert_eq!(now["restarts"], restarts, "{now}"))
        });
        assert_eq!(property(&lab, name, "ActiveState"), "failed");
    }
    assert_eq!(lab.script("wc -l < /srv/starts").trim(), "31");
}

/// A completed service satisfies its dependents until the next boot, as under `mainstay run`.
#[test]
fn a_job_that_is_done_satisfies_those_that_need_it() {
    let Some(lab) = lab() else { return };
    write(
        &lab,
        "/srv/job.toml",
        r#"
        environment = "development"
        [service.job]
        command = ["/bin/sh", "-c", "echo job"]
        [service.failing]
        command = ["/bin/sh", "-c", "exit 3"]
        start = { ready = { log = "never" } }
        recovery = { policy = "strict" }
        [service.unready]
        command = ["/bin/sh", "-c", "exit 0"]
        start = { ready = { log = "never" } }
        [service.after-job]
        command = ["sleep", "1000"]
        needs = ["job"]
        [service.after-failing]
        command = ["sleep", "1000"]
        needs = ["failing"]
        [service.after-unready]
        command = ["sleep", "1000"]
        needs = ["unready"]
        "#,
    );
    let mainstay = |code, arguments: &[&str]| lab.check(code, &[&[MAINSTAY], arguments].concat());
    mainstay(0, &["install", "/srv/job.toml"]);
    for _ in 0..5 {
        mainstay(0, &["start", "after-job"]);
        mainstay(0, &["stop", "after-job"]);
        mainstay(0, &["start", "job"]);
    }
    assert_eq!(status(&lab, "job")["last_exit"]["code"], 0);
    let said = mainstay(1, &["start", "after-failing"]);
    assert!(
        said.contains("after-failing needs failing, which has failed with code 3"),
        "{said}"
    );
    let said = mainstay(1, &["start", "after-unready"]);
    assert!(
        said.contains("after-unready needs unready, which is stopped"),
        "{said}"
    );
    mainstay(0, &["disable", "after-failing", "after-unready", "failing"]);
    lab.reboot();
    wait_until("the job's dependent after the boot", SOON, || {
        (status(&lab, "after-job")["state"] == "running").then_some(())
    });
}

/// No service is changed if one of the names is wrong, as under one supervisor.
#[test]
fn names_are_judged_before_anything_is_done() {
    let Some(lab) = lab() else { return };
    let path = write_app(&lab, "/srv/names", "");
    let mainstay = |code, arguments: &[&str]| lab.check(code, &[&[MAINSTAY], arguments].concat());
    mainstay(0, &["install", &path]);
    for names in [["app", "nosuch"], ["nosuch", "app"]] {
        let said = mainstay(4, &[&["start"], &names[..]].concat());
        assert!(said.contains("no service named nosuch"), "{said}");
        assert_eq!(status(&lab, "app")["state"], "stopped");
    }
    mainstay(0, &["start", "app"]);
    let pid = status(&lab, "app")["pid"].clone();
    for verb in ["stop", "restart", "pause"] {
        mainstay(4, &[verb, "app", "nosuch"]);
        let now = status(&lab, "app");
        assert_eq!((&now["state"], &now["pid"]), (&"running".into(), &pid));
    }
}

#[test]
fn a_disk_that_takes_nothing_is_said_with_what_helps() {
    let Some(lab) = lab() else { return };
    let path = write_app(&lab, "/srv/disk", "");
    let mainstay = |code, arguments: &[&str]| lab.check(code, &[&[MAINSTAY], arguments].concat());
    mainstay(0, &["install", &path]);
    let other = "[service.other]\ncommand = [\"/bin/sleep\", \"1000\"]\n";
    write(&lab, "/srv/disk/other.toml", other);
    for dir in ["/etc", "/var/lib/mainstay"] {
        lab.script(&format!(
            "mount --bind {dir} {dir}; mount -o remount,ro,bind {dir}"
        ));
        let verbs: &[&[&str]] = match dir {
            "/etc" => &[
                &["disable", "app"],
                &["uninstall", "app"],
                &["install", "/srv/disk/other.toml"],
            ],
            _ => &[&["uninstall", "app"], &["install", "/srv/disk/other.toml"]],
        };
        for verb in verbs {
            let said = mainstay(73, verb);
            assert!(said.contains("\nhint: "), "{said}");
            assert!(said.contains("read-only"), "{said}");
        }
        lab.script(&format!("umount {dir}"));
    }
}
