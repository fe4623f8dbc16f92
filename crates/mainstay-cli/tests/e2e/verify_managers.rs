//! `verify` of installed services under real init systems: healthy ones agree, and every
//! disagreement that is staged from outside is found with its cause, until its hint is followed.
#![cfg(target_os = "linux")]

use mainstay_testkit::lab::Lab;

use super::systemd::{MAINSTAY, lab_of, write};
use super::*;

const UNIT: &str = "/etc/systemd/system/shop.service";
/// The process that the manager runs for `shop` on systemd.
const HOST: &str = "$(systemctl show -p MainPID --value shop)";
const PROGRAM: &str = "$(pgrep -f '^[^ ]*shop 86400')";

/// Installs and starts the service `shop` in a lab.
fn shop(kind: &'static str) -> Option<Lab> {
    let lab = lab_of(kind)?;
    lab.script("mkdir -p /srv/bin; cp /bin/sleep /srv/bin/shop");
    write(
        &lab,
        "/srv/shop.toml",
        "environment = \"development\"\n[service.shop]\naccount = \"local-system\"\n\
         command = [\"/srv/bin/shop\", \"86400\"]\n",
    );
    lab.check(0, &[MAINSTAY, "install", "/srv/shop.toml"]);
    lab.check(0, &[MAINSTAY, "start", "shop"]);
    Some(lab)
}

/// Returns the exit code and the document of `verify NAME --json`, with this `PATH` before others.
fn verify(lab: &Lab, name: &str, path: &str) -> (Option<i32>, Value) {
    let paths = format!("PATH={path}:/usr/sbin:/usr/bin:/sbin:/bin");
    let output = lab.run(&["env", &paths, MAINSTAY, "verify", name, "--json"]);
    let document = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code(), document)
}

fn has(document: &Value, cause: &str) -> bool {
    let mut causes = document["causes"].as_array().into_iter().flatten();
    causes.any(|it| it.as_str().is_some_and(|it| it.contains(cause)))
}

/// Asserts that this cause is found, and returns the hint.
#[track_caller]
fn disagrees_on(lab: &Lab, name: &str, path: &str, cause: &str) -> String {
    let (status, document) = verify(lab, name, path);
    assert!(has(&document, cause), "not {cause:?} but {document:#}");
    assert_eq!(
        (status, &document["verdict"]),
        (Some(79), &"disagree".into())
    );
    let mut findings = document["findings"].as_array().into_iter().flatten();
    let found = findings.find(|it| it["cause"].as_str().is_some_and(|it| it.contains(cause)));
    let hint = found.and_then(|it| it["hint"].as_str());
    hint.unwrap_or_default().to_owned()
}

#[track_caller]
fn disagrees(lab: &Lab, name: &str, cause: &str) -> String {
    disagrees_on(lab, name, "/nowhere", cause)
}

#[track_caller]
fn agrees(lab: &Lab, name: &str, state: &str, known: usize) {
    let (status, document) = verify(lab, name, "/nowhere");
    assert_eq!(
        (status, &document["verdict"], &document["state"]),
        (Some(0), &"agree".into(), &state.into()),
        "{document:#}"
    );
    let sources = document["witnesses"].as_array().expect("sources").iter();
    let answered = sources.filter(|it| it["claim"] != "unknown").count();
    assert!(answered >= known, "{document:#}");
}

/// Follows a hint: the command after its last colon.
#[track_caller]
fn follow(lab: &Lab, hint: &str) {
    let (_, command) = hint.rsplit_once(": ").expect("a command");
    lab.script(&command.replace("mainstay ", &format!("{MAINSTAY} ")));
}

/// Waits until the service agrees again.
#[track_caller]
fn recovers(lab: &Lab, name: &str) {
    wait_until("agreement", SOON, || {
        (verify(lab, name, "/nowhere").0 == Some(0)).then_some(())
    });
}

#[test]
fn a_healthy_service_agrees_while_its_neighbour_crashes() {
    let Some(lab) = shop("systemd") else { return };
    write(
        &lab,
        "/srv/noisy.toml",
        "environment = \"development\"\n[service.noisy]\naccount = \"local-system\"\n\
         command = [\"false\"]\nrecovery = { delay = \"1ms\", max_delay = \"5ms\", limit = \"none\" }\n",
    );
    lab.check(0, &[MAINSTAY, "install", "/srv/noisy.toml"]);
    lab.script("systemctl start --no-block noisy");
    let restarts = || systemd::status(&lab, "noisy")["restarts"].as_u64();
    wait_until("restarts", SOON, || restarts().filter(|it| *it > 3));
    for _ in 0..100 {
        agrees(&lab, "shop", "running", 12);
    }
    assert!(restarts() > Some(100), "{:?}", restarts());
    lab.check(0, &[MAINSTAY, "stop", "shop"]);
    agrees(&lab, "shop", "stopped", 10);
}

#[test]
fn what_systemd_does_not_notice_is_found() {
    let Some(lab) = shop("systemd") else { return };
    let ok = || agrees(&lab, "shop", "running", 12);
    ok();
    // Registered files and the manager's settings.
    for (what, cause) in [
        (
            format!("echo '# mine' >> {UNIT}"),
            "the manager still uses the old one",
        ),
        (
            format!("rm {UNIT}; systemctl daemon-reload"),
            "shop.service is missing",
        ),
        (
            "cp /bin/cat /srv/bin/new; mv /srv/bin/new /srv/bin/shop".to_owned(),
            "the program /srv/bin/shop has changed",
        ),
        (
            "echo '# mine' >> /var/lib/mainstay/installed/shop/manifest.toml".to_owned(),
            "manifest.toml differs from version",
        ),
    ] {
        lab.script(&what);
        disagrees(&lab, "shop", cause);
        lab.check(0, &[MAINSTAY, "install", "/srv/shop.toml"]);
        ok();
    }
    lab.script("cp /bin/sleep /srv/bin/new; mv /srv/bin/new /srv/bin/shop");
    lab.check(0, &[MAINSTAY, "install", "/srv/shop.toml"]);
    lab.check(0, &[MAINSTAY, "restart", "shop"]);
    lab.script("systemctl disable --quiet shop");
    follow(&lab, &disagrees(&lab, "shop", "will not start at boot"));
    ok();
}

#[test]
fn processes_that_something_holds_up_or_kills_are_found() {
    let Some(lab) = shop("systemd") else { return };
    let ok = || agrees(&lab, "shop", "running", 12);
    for (what, cause) in [
        (
            format!("kill -STOP {HOST}"),
            "was stopped by a signal or by a debugger",
        ),
        (
            format!("kill -STOP {PROGRAM}"),
            "its program was stopped by a signal, although",
        ),
        (
            "systemctl freeze shop".to_owned(),
            "its supervisor is frozen",
        ),
        (
            "echo 1 > /sys/fs/cgroup/system.slice/shop.service/cgroup.freeze".to_owned(),
            "its program is frozen, although the ledger",
        ),
    ] {
        lab.script(&what);
        follow(&lab, &disagrees(&lab, "shop", cause));
        recovers(&lab, "shop");
    }

    // A killed host whose restart takes long.
    lab.script(&format!(
        "mkdir /run/systemd/system/shop.service.d
         printf '[Service]\\nRestartSec=1h\\n' > /run/systemd/system/shop.service.d/x.conf
         systemctl daemon-reload; kill -KILL {HOST}"
    ));
    wait_until("its end", SOON, || {
        let sub = lab.script("systemctl show -p SubState --value shop");
        (sub.trim() == "auto-restart").then_some(())
    });
    let hint = disagrees(&lab, "shop", "was killed; it runs without one");
    assert!(hint.ends_with("mainstay start shop"), "{hint}");
    lab.script("rm -r /run/systemd/system/shop.service.d; systemctl daemon-reload");
    lab.check(0, &[MAINSTAY, "start", "shop"]);
    ok();

    // A copy outside of the stopped unit.
    lab.check(0, &[MAINSTAY, "stop", "shop"]);
    agrees(&lab, "shop", "stopped", 10);
    lab.script("setsid /srv/bin/shop 86400 </dev/null >/dev/null 2>&1 &");
    disagrees(&lab, "shop", "runs the same command, but does not belong");
    lab.script(&format!("kill {PROGRAM}"));
    recovers(&lab, "shop");
}

/// Each tool alone is replaced by one that lies.
#[test]
fn a_tool_of_systemd_that_lies_is_found() {
    let Some(lab) = shop("systemd") else { return };
    for (tool, text, source) in [
        (
            "busctl",
            r#"/usr/bin/busctl "$@" | sed 's/\("ActiveState":{"type":"s","data":"\)active/\1inactive/'"#,
            "D-Bus",
        ),
        (
            "journalctl",
            r#"echo '{"MESSAGE_ID":"9d1aaa27d60140bd96365438aad20286","MESSAGE":"Stopped"}'"#,
            "the journal",
        ),
        (
            "systemctl",
            r#"/usr/bin/systemctl "$@" | sed s/^ActiveState=active/ActiveState=inactive/"#,
            "the manager",
        ),
    ] {
        let path = format!("/srv/lies/{source}").replace(' ', "-");
        write(
            &lab,
            &format!("{path}/{tool}"),
            &format!("#!/bin/sh\n{text}"),
        );
        lab.script(&format!("chmod +x {path}/{tool}"));
        let cause = format!("is running, but not according to {source}");
        let hint = disagrees_on(&lab, "shop", &path, &cause);
        assert!(hint.contains("only one source differs"), "{hint}");
        agrees(&lab, "shop", "running", 12);
    }
    // Without its tools, systemd is unknown, not stopped.
    let mainstay = ["env", "PATH=/nowhere", MAINSTAY, "verify", "shop", "--json"];
    let said = lab.check(0, &mainstay);
    assert!(said.contains("busctl is not installed"), "{said}");
}

#[test]
fn a_service_that_systemd_runs_itself_is_checked_too() {
    let Some(lab) = shop("systemd") else { return };
    write(
        &lab,
        "/srv/more.toml",
        r#"
        environment = "development"
        [service.plain]
        command = ["sleep", "86401"]
        account = "local-system"
        recovery = { delay = "1h", max_delay = "1h" }
        [service.fails]
        command = ["sh", "-c", "exit 3"]
        account = "local-system"
        recovery = { policy = "strict" }
        [service.ends]
        command = ["true"]
        account = "local-system"
        "#,
    );
    let more = "/srv/more.toml";
    lab.check(0, &[MAINSTAY, "install", "--mode", "direct", more]);
    lab.check(0, &[MAINSTAY, "start", "plain"]);
    lab.run(&[MAINSTAY, "start", "fails", "ends"]);
    agrees(&lab, "plain", "running", 9);
    // systemd reports some of these starts after their end.
    for _ in 0..10 {
        lab.run(&[MAINSTAY, "start", "ends"]);
        recovers(&lab, "ends");
    }
    agrees(&lab, "ends", "stopped", 8);
    let hint = disagrees(&lab, "fails", "it failed and is down: ");
    assert!(hint.contains("mainstay logs fails"), "{hint}");
    let (_, document) = verify(&lab, "fails", "/nowhere");
    assert!(has(&document, "code 3"), "{document:#}");
    assert_eq!(document["causes"].as_array().map(Vec::len), Some(1));

    lab.check(0, &[MAINSTAY, "pause", "plain"]);
    agrees(&lab, "plain", "paused", 9);
    lab.check(0, &[MAINSTAY, "continue", "plain"]);
    let main = "$(systemctl show -p MainPID --value plain)";
    lab.script(&format!("kill -STOP {main}"));
    follow(&lab, &disagrees(&lab, "plain", "was stopped by a signal"));
    agrees(&lab, "plain", "running", 9);

    // A hosted service that has failed: its host has ended, too.
    lab.script("sed -i 's/service[.]/service.hosted-/' /srv/more.toml");
    lab.check(0, &[MAINSTAY, "install", more]);
    lab.run(&[MAINSTAY, "start", "hosted-fails"]);
    wait_until("its halt", SOON, || {
        let said = lab.script("systemctl show -p ActiveState --value hosted-fails");
        (said.trim() == "failed").then_some(())
    });
    disagrees(&lab, "hosted-fails", "it failed and is down: ");
    let (_, document) = verify(&lab, "hosted-fails", "/nowhere");
    assert!(has(&document, "code 3"), "{document:#}");
}

/// Sources that this user may not ask are unknown.
#[test]
fn a_user_without_root_gets_no_wrong_answer() {
    let Some(lab) = shop("systemd") else { return };
    lab.script("useradd --create-home bob");
    let bob = ["runuser", "-u", "bob", "--", MAINSTAY, "verify", "shop"];
    let said = lab.run(&bob);
    let text = String::from_utf8_lossy(&said.stdout) + String::from_utf8_lossy(&said.stderr);
    assert!([Some(4), Some(77)].contains(&said.status.code()), "{text}");
    assert!(!text.contains("stopped"), "{text}");
}

#[test]
fn openrc_is_checked() {
    let Some(lab) = shop("openrc") else { return };
    let ok = || agrees(&lab, "shop", "running", 10);
    ok();
    let file = "/run/openrc/options/shop/child_pid";
    lab.script(&format!("cp {file} /srv/pid; echo 4194304 > {file}"));
    disagrees(&lab, "shop", &format!("the pid file {file} is stale"));
    lab.script(&format!("cp /srv/pid {file}"));
    ok();
    lab.script("kill -KILL $(pgrep -f '^supervise-daemon shop')");
    let cause = "supervise-daemon, which restarts its supervisor after a crash, is not running";
    follow(&lab, &disagrees(&lab, "shop", cause));
    recovers(&lab, "shop");
    lab.script(&format!("kill -STOP {PROGRAM}"));
    follow(&lab, &disagrees(&lab, "shop", "was stopped by a signal"));
    ok();
    lab.check(0, &["rc-service", "shop", "stop"]);
    agrees(&lab, "shop", "stopped", 8);
}

#[test]
fn runit_is_checked() {
    let Some(lab) = shop("runit") else { return };
    let ok = || agrees(&lab, "shop", "running", 11);
    ok();
    let pause = "was stopped by a signal or by a debugger";
    lab.check(0, &["sv", "pause", "shop"]);
    follow(&lab, &disagrees(&lab, "shop", pause));
    lab.check(0, &["sv", "cont", "shop"]);
    ok();
    let file = "/etc/service/shop/supervise/pid";
    lab.script(&format!("cp {file} /srv/pid; echo 4194304 > {file}"));
    let cause = format!("the pid file {file} is stale");
    follow(&lab, &disagrees(&lab, "shop", &cause));
    recovers(&lab, "shop");
    // This is what `mainstay stop` does.
    lab.check(0, &["sv", "-w", "60", "down", "shop"]);
    agrees(&lab, "shop", "stopped", 8);
    lab.check(0, &[MAINSTAY, "start", "shop"]);
    ok();
}

#[test]
fn s6_is_checked() {
    let Some(lab) = shop("s6") else { return };
    let ok = || agrees(&lab, "shop", "running", 10);
    ok();
    lab.check(0, &["s6-svc", "-p", "/run/service/shop"]);
    let pause = "was stopped by a signal or by a debugger";
    disagrees(&lab, "shop", pause);
    lab.check(0, &["s6-svc", "-c", "/run/service/shop"]);
    recovers(&lab, "shop");
    lab.check(0, &["s6-svc", "-wd", "-d", "/run/service/shop"]);
    agrees(&lab, "shop", "stopped", 7);
    lab.check(0, &[MAINSTAY, "start", "shop"]);
    ok();
}

#[test]
fn sysv_is_checked() {
    let Some(lab) = shop("sysv") else { return };
    let ok = || agrees(&lab, "shop", "running", 10);
    ok();
    let file = "/var/run/shop.pid";
    lab.script(&format!("cp {file} /srv/pid; echo 4194304 > {file}"));
    disagrees(&lab, "shop", &format!("the pid file {file} is stale"));
    lab.script(&format!("cp /srv/pid {file}"));
    ok();
    // Nobody restarts a host here.
    lab.script(&format!("kill -KILL $(head -n 1 {file})"));
    let hint = disagrees(&lab, "shop", "was killed; it runs without one");
    assert!(hint.ends_with("mainstay start shop"), "{hint}");
    lab.check(0, &[MAINSTAY, "start", "shop"]);
    recovers(&lab, "shop");
    lab.check(0, &[MAINSTAY, "stop", "shop"]);
    agrees(&lab, "shop", "stopped", 8);
}
