//! Tests the whole life cycle of the example under real Unix managers other than systemd, through
//! its own verbs and the manager's own commands.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::time::Duration;

use mainstay_testkit::lab::Lab;
use mainstay_testkit::{skip, wait_until};

const SOON: Duration = Duration::from_secs(20);
const HEARTBEAT: &str = "/opt/heartbeat/heartbeat";
/// Excludes /usr/lib, where OpenRC stores data at shutdown.
const DIRS: &[&str] = &["/etc", "/usr/bin", "/usr/sbin", "/usr/local"];

/// The properties of a manager.
struct Native {
    kind: &'static str,
    unit: &'static str,
    /// Creates files that the manager creates only once.
    prepare: &'static str,
    /// Exits with 0 if the service is running, according to the manager's own tool.
    runs: &'static str,
    /// Exits with 0 if the service starts at boot.
    is_enabled: &'static str,
    start: &'static str,
    stop: &'static str,
    /// Set if the manager restarts a killed program.
    restarts: bool,
    /// Creates a service of the same name that belongs to another program.
    foreign: &'static str,
}

const OPENRC: Native = Native {
    kind: "openrc",
    unit: "/etc/init.d/heartbeat",
    prepare: "",
    runs: "rc-service heartbeat status",
    is_enabled: "rc-update show default | grep -qw heartbeat",
    start: "rc-service heartbeat start",
    stop: "rc-service heartbeat stop",
    restarts: true,
    foreign: "printf '#!/sbin/openrc-run\\n' > /etc/init.d/heartbeat; chmod 755 /etc/init.d/heartbeat",
};

const SYSV: Native = Native {
    kind: "sysv",
    unit: "/etc/init.d/heartbeat",
    prepare: "insserv",
    runs: "service heartbeat status",
    is_enabled: "ls /etc/rc2.d/S??heartbeat",
    start: "service heartbeat start",
    stop: "service heartbeat stop",
    restarts: false,
    foreign: "printf '#!/bin/sh\\n' > /etc/init.d/heartbeat; chmod 755 /etc/init.d/heartbeat",
};

fn lab(native: &Native) -> Option<Lab> {
    let dir = Path::new(env!("CARGO_BIN_EXE_heartbeat")).parent();
    let dir = dir.expect("a program lies somewhere");
    match Lab::up(native.kind, &[(dir, "/opt/heartbeat")]) {
        Ok(lab) => {
            lab.script(native.prepare);
            Some(lab)
        }
        Err(why) => {
            skip(why);
            None
        }
    }
}

/// Returns the PID of the running process, once it differs from `old`.
#[track_caller]
fn pid_beside(lab: &Lab, old: &str) -> String {
    wait_until("another process", SOON, || {
        let output = lab.run(&[HEARTBEAT, "status"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let pid = said.strip_prefix("running, pid ")?.trim().to_owned();
        (pid != old).then_some(pid)
    })
}

fn life(native: &Native) {
    let Some(lab) = lab(native) else { return };
    let heartbeat = |code, verb: &str| lab.check(code, &[HEARTBEAT, verb]);
    let says = |line: &str| lab.run(&["sh", "-c", line]).status.code() == Some(0);
    let processes = || lab.script("pgrep -x heartbeat || true").trim().to_owned();
    let install = [HEARTBEAT, "install", "--account", "local-system"];
    let before = lab.tree(DIRS);
    heartbeat(4, "status");
    heartbeat(4, "uninstall");
    let refused = lab.check(78, &[HEARTBEAT, "install"]);
    assert!(refused.contains("use a user"), "{refused}");
    let plan = lab.check(
        0,
        &[
            HEARTBEAT,
            "install",
            "--dry-run",
            "--account",
            "local-system",
        ],
    );
    assert!(plan.contains(native.unit), "{plan}");
    lab.assert_tree(DIRS, &before);

    lab.check(0, &install);
    heartbeat(3, "status");
    heartbeat(0, "stop");
    assert!(!says(native.runs));
    assert!(says(native.is_enabled));
    // A second installation changes nothing.
    let installed = lab.tree(DIRS);
    let stamp = || lab.check(0, &["stat", "--format=%y %i", native.unit]);
    let unit = stamp();
    lab.check(0, &install);
    assert_eq!(stamp(), unit);
    lab.assert_tree(DIRS, &installed);

    heartbeat(0, "start");
    heartbeat(0, "start");
    let first = pid_beside(&lab, "");
    assert_eq!(processes(), first);
    assert!(says(native.runs));
    // Any user may query the status.
    let said = lab.check(0, &["runuser", "-u", "nobody", "--", HEARTBEAT, "status"]);
    assert!(said.contains(&first), "{said}");
    heartbeat(0, "reload");
    lab.check(1, &[HEARTBEAT, "pause"]);
    assert_eq!(pid_beside(&lab, ""), first);
    heartbeat(0, "restart");
    let second = pid_beside(&lab, &first);
    assert_eq!(processes(), second);

    heartbeat(0, "stop");
    heartbeat(3, "status");
    assert!(!says(native.runs));
    assert_eq!(processes(), "");
    // Changes made by the manager's own commands are visible, and vice versa.
    lab.script(native.start);
    let third = pid_beside(&lab, "");
    lab.script(native.stop);
    heartbeat(3, "status");
    heartbeat(0, "start");
    let fourth = pid_beside(&lab, &third);

    lab.check(0, &["kill", "-KILL", &fourth]);
    if native.restarts {
        let fifth = pid_beside(&lab, &fourth);
        assert_eq!(processes(), fifth);
    } else {
        wait_until("that it is down", SOON, || {
            let said = lab.run(&[HEARTBEAT, "status"]);
            (said.status.code() == Some(3)).then_some(())
        });
        assert!(!says(native.runs));
        heartbeat(0, "start");
    }

    // The service starts at boot if it is enabled.
    lab.reboot();
    pid_beside(&lab, "");
    heartbeat(0, "disable");
    assert!(!says(native.is_enabled));
    heartbeat(0, "status");
    lab.reboot();
    heartbeat(3, "status");
    assert_eq!(processes(), "");
    heartbeat(0, "enable");
    assert!(says(native.is_enabled));

    heartbeat(0, "start");
    heartbeat(0, "uninstall");
    heartbeat(4, "status");
    assert_eq!(processes(), "");
    lab.assert_tree(DIRS, &before);
}

fn refusals(native: &Native) {
    let Some(lab) = lab(native) else { return };
    let refused = |code, argv: &[&str], part: &str| {
        let before = lab.tree(&["/etc"]);
        let said = lab.check(code, argv);
        assert!(said.contains(part), "{said}");
        lab.assert_tree(&["/etc"], &before);
    };
    let account = ["--account", "local-system"];
    let nobody = ["runuser", "-u", "nobody", "--", HEARTBEAT, "install"];
    refused(77, &[&nobody[..], &account].concat(), "install service");
    lab.script(native.foreign);
    let install = [HEARTBEAT, "install"];
    refused(
        1,
        &[&install[..], &account].concat(),
        "another service of that name",
    );
}

#[test]
fn a_life_under_openrc() {
    life(&OPENRC);
}

#[test]
fn a_life_under_sysv() {
    life(&SYSV);
}

#[test]
fn sysv_refusals() {
    refusals(&SYSV);
}

#[test]
fn openrc_refusals() {
    refusals(&OPENRC);
}

/// OpenRC records that a program has exited for good. A program whose supervisor was killed keeps
/// running and can still be stopped. If both were killed, the service can be started again.
#[test]
fn ends_under_openrc() {
    let Some(lab) = lab(&OPENRC) else { return };
    lab.check(0, &[HEARTBEAT, "install", "--account", "local-system"]);
    lab.check(0, &[HEARTBEAT, "start"]);
    let pid = pid_beside(&lab, "");
    lab.check(0, &["kill", "-TERM", &pid]);
    wait_until("a good end", SOON, || {
        (lab.run(&["rc-service", "heartbeat", "status"])
            .status
            .code()
            == Some(3))
        .then_some(())
    });
    lab.check(3, &[HEARTBEAT, "status"]);
    lab.check(0, &[HEARTBEAT, "start"]);
    let pid = pid_beside(&lab, &pid);
    lab.script("pkill -KILL supervise-daemo");
    wait_until("that nobody supervises it", SOON, || {
        (lab.run(&["rc-service", "heartbeat", "status"])
            .status
            .code()
            == Some(64))
        .then_some(())
    });
    let said = lab.check(0, &[HEARTBEAT, "status"]);
    assert!(said.contains(&format!("running, pid {pid}")), "{said}");
    lab.check(0, &[HEARTBEAT, "stop"]);
    assert_eq!(lab.script("pgrep -x heartbeat || true"), "");
    // Killed together with its supervisor.
    lab.check(0, &[HEARTBEAT, "start"]);
    lab.script("pkill -KILL supervise-daemo; pkill -KILL -x heartbeat");
    lab.check(3, &[HEARTBEAT, "status"]);
    lab.check(0, &[HEARTBEAT, "start"]);
    pid_beside(&lab, &pid);
}
