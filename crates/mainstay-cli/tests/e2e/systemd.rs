//! Programs that `mainstay install` has made services of a real systemd.

use mainstay_testkit::lab::Lab;

use super::*;

const MAINSTAY: &str = "/opt/mainstay/mainstay";
const PUPPET: &str = "/opt/mainstay/puppet";

fn lab() -> Option<Lab> {
    let mainstay = mainstay();
    let dir = mainstay.parent().expect("a program lies somewhere");
    match Lab::up("systemd", &[(dir, "/opt/mainstay")]) {
        Ok(lab) => Some(lab),
        Err(why) => {
            mainstay_testkit::skip(why);
            None
        }
    }
}

fn write(lab: &Lab, path: &str, text: &str) {
    lab.script(&format!(
        "mkdir -p $(dirname {path}); cat > {path} <<'TEXT'\n{text}\nTEXT"
    ));
}

#[track_caller]
fn status(lab: &Lab, name: &str) -> Value {
    let output = lab.run(&[MAINSTAY, "status", name, "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("a JSON document");
    report["services"][0].clone()
}

/// What systemd says.
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
    assert_eq!(said, "shop-redis: installed\n");
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

    // A crash of the server is its host's affair.
    let host = property(&lab, "shop-redis", "MainPID");
    lab.check(0, &["kill", "-KILL", &server]);
    wait_until("another server", SOON, || {
        let now = status(&lab, "shop-redis");
        (now["pid"] != running["pid"] && now["state"] == "running").then_some(())
    });
    assert_eq!(property(&lab, "shop-redis", "MainPID"), host);

    // A crash of the host is systemd's, and takes nobody along.
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

    // With the machine; and by systemd's own commands.
    lab.reboot();
    wait_until("an answer after the boot", SOON, || ping().then_some(()));
    lab.check(0, &["systemctl", "stop", "shop-redis"]);
    assert!(!ping());
    assert_eq!(status(&lab, "shop-redis")["state"], "stopped");
    lab.check(0, &["systemctl", "start", "shop-redis"]);
    assert!(ping());
    assert!(mainstay(0, &["logs", "shop-redis"]).contains("Ready to accept connections"));
    mainstay(0, &["restart", "shop-redis"]);
    // What an operator has disabled stays so.
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
    lab.script("rmdir /var/lib/mainstay/installed /var/lib/mainstay");
    lab.assert_tree(&["/etc", "/usr"], &before);
}

/// What follows each code is the same as under `mainstay run`, and systemd knows how it ended.
#[test]
fn exit_codes_are_a_contract_under_systemd_too() {
    let Some(lab) = lab() else { return };
    let codes = [0, 1, 101, 137, 143, 201, 202, 255];
    let mut text = "environment = \"development\"\n".to_owned();
    for code in codes {
        text += &format!(
            "[service.code-{code}]\ncommand = [\"{PUPPET}\", \"count\", \"/srv/starts-{code}\", \"exit\", \"{code}\"]\n\
             recovery = {{ delay = \"10ms\", limit = {{ restarts = 2, window = \"1m\" }} }}\naccount = \"local-system\"\n"
        );
    }
    write(&lab, "/srv/codes.toml", &text);
    lab.check(0, &[MAINSTAY, "install", "/srv/codes.toml"]);
    lab.script("systemctl start --no-block $(cd /etc/systemd/system && echo code-*.service)");
    for code in codes {
        let unit = format!("code-{code}");
        wait_until(&format!("the end of {unit}"), SOON, || {
            let state = property(&lab, &unit, "ActiveState");
            ["inactive", "failed"].contains(&&*state).then_some(())
        });
        let starts = lab.script(&format!("wc -l < /srv/starts-{code}"));
        // 0 is done, 201 wants a snapshot that is not there, 202 is tried five times more, the rest twice.
        let (expected, state) = match code {
            0 => (1, "inactive"),
            201 => (1, "failed"),
            202 => (6, "failed"),
            _ => (3, "failed"),
        };
        assert_eq!(starts.trim().parse(), Ok(expected), "{code}");
        assert_eq!(property(&lab, &unit, "ActiveState"), state, "{code}");
        assert_eq!(property(&lab, &unit, "ExecMainStatus"), code.to_string());
        assert_eq!(status(&lab, &unit)["last_exit"]["code"], code);
    }
}

/// Without an account it has one that exists while it runs, and may do next to nothing.
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
        command = ["sleep", "1000"]
        account = "user:nobody"
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
    // Never started, and already there.
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

    // A crash of its host takes nobody along, here either.
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

    // What it has kept is not another account's.
    lab.script(
        "sed 's/^ *start = /account = \"local-system\"\\n&/' /srv/modest.toml > /srv/other.toml",
    );
    let said = mainstay(73, &["install", "/srv/other.toml", "modest"]);
    assert!(said.contains("that of another account"), "{said}");
    mainstay(0, &["stop", "modest", "ordinary"]);
    let left = lab.run(&["pgrep", "-u", &owner.to_string()]);
    assert_eq!(left.stdout, b"");
    // Neither with another account, nor where that fails, is anything lost that an earlier installation has left.
    mainstay(0, &["uninstall", "modest"]);
    mainstay(73, &["install", "/srv/other.toml", "modest"]);
    mainstay(0, &["install", "/srv/modest.toml"]);
    assert!(mainstay(0, &["logs", "modest"]).starts_with("wrote\n"));
    mainstay(0, &["uninstall", "modest", "ordinary", "--purge"]);
    lab.script("rmdir /var/lib/mainstay/installed /var/lib/mainstay; ! ls -d /var/lib/*/*modest* /var/lib/*modest* 2> /dev/null");
    lab.assert_tree(&["/etc", "/usr"], &before);
}
