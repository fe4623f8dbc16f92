//! Tests the whole life cycle of the example under a real systemd, through its own verbs and
//! `systemctl`.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::time::Duration;

use mainstay_testkit::lab::Lab;
use mainstay_testkit::{skip, wait_until};

const SOON: Duration = Duration::from_secs(20);
const HEARTBEAT: &str = "/opt/heartbeat/heartbeat";
const UNIT: &str = "/etc/systemd/system/heartbeat.service";

fn lab() -> Option<Lab> {
    let dir = Path::new(env!("CARGO_BIN_EXE_heartbeat")).parent();
    let dir = dir.expect("a program lies somewhere");
    match Lab::up("systemd", &[(dir, "/opt/heartbeat")]) {
        Ok(lab) => Some(lab),
        Err(why) => {
            skip(why);
            None
        }
    }
}

/// Returns a property that another tool reports.
#[track_caller]
fn property(lab: &Lab, name: &str) -> String {
    let said = lab.check(
        0,
        &[
            "systemctl",
            "show",
            "--value",
            "--property",
            name,
            "heartbeat",
        ],
    );
    said.trim().to_owned()
}

#[track_caller]
fn pid_beside(lab: &Lab, old: &str) -> String {
    wait_until("another process", SOON, || {
        let pid = property(lab, "MainPID");
        let is_new = pid != "0" && pid != old && property(lab, "ActiveState") == "active";
        is_new.then_some(pid)
    })
}

#[test]
fn a_life_under_systemd() {
    let Some(lab) = lab() else { return };
    let heartbeat = |code, verb: &str| lab.check(code, &[HEARTBEAT, verb]);
    // Creates files that exist permanently before the first comparison.
    lab.script("systemctl daemon-reload");
    let before = lab.tree(&["/etc", "/usr"]);
    heartbeat(4, "status");
    heartbeat(4, "uninstall");

    heartbeat(0, "install");
    heartbeat(3, "status");
    heartbeat(0, "stop");
    assert_eq!(lab.check(0, &["systemd-analyze", "verify", UNIT]), "");
    let said = lab.check(
        0,
        &["systemd-analyze", "security", "--threshold=20", "heartbeat"],
    );
    assert!(said.contains("Overall exposure level"), "{said}");
    // A second installation changes nothing.
    let stamp = || lab.check(0, &["stat", "--format=%y %i", UNIT]);
    let unit = stamp();
    heartbeat(0, "install");
    assert_eq!(stamp(), unit);

    heartbeat(0, "start");
    heartbeat(0, "start");
    assert!(heartbeat(0, "status").starts_with("running, pid "));
    assert_eq!(property(&lab, "ActiveState"), "active");
    assert_ne!(property(&lab, "UID"), "0");
    heartbeat(0, "pause");
    assert!(heartbeat(0, "status").starts_with("paused"));
    heartbeat(0, "continue");
    heartbeat(0, "reload");
    let log = lab.check(0, &["journalctl", "--unit=heartbeat", "--output=cat"]);
    let pauses = log
        .lines()
        .filter(|line| matches!(*line, "paused" | "continued"));
    assert_eq!(pauses.collect::<Vec<_>>(), ["paused", "continued"], "{log}");
    assert!(log.contains("there is nothing to read again"), "{log}");
    let said = lab.check(69, &[HEARTBEAT, "control", "130"]);
    assert!(said.contains("on Windows only"), "{said}");

    heartbeat(0, "disable");
    lab.check(1, &["systemctl", "is-enabled", "--quiet", "heartbeat"]);
    heartbeat(0, "enable");
    lab.check(0, &["systemctl", "is-enabled", "--quiet", "heartbeat"]);

    // The service is restarted after a crash and started at boot.
    let first = property(&lab, "MainPID");
    heartbeat(0, "restart");
    let second = pid_beside(&lab, &first);
    lab.check(0, &["systemctl", "kill", "--signal=KILL", "heartbeat"]);
    pid_beside(&lab, &second);
    lab.reboot();
    assert_ne!(pid_beside(&lab, "0"), "0");

    // A paused service can also be stopped.
    heartbeat(0, "pause");
    heartbeat(0, "stop");
    assert_eq!(property(&lab, "ActiveState"), "inactive");
    heartbeat(0, "start");
    heartbeat(0, "uninstall");
    heartbeat(4, "status");
    lab.assert_tree(&["/etc", "/usr"], &before);
}

#[test]
fn a_crash_loop_is_no_success_and_its_panic_is_in_the_journal() {
    let Some(lab) = lab() else { return };
    lab.check(0, &[HEARTBEAT, "install"]);
    lab.script(&format!(
        "mkdir -p {UNIT}.d
         printf '[Service]\\nExecStart=\\nExecStart={HEARTBEAT} run 1 0 panic\\nRestart=always\\nRestartSec=1h\\n' > {UNIT}.d/loop.conf
         systemctl daemon-reload; systemctl start heartbeat || true"
    ));
    wait_until("the pause before its next start", SOON, || {
        (property(&lab, "SubState") == "auto-restart").then_some(())
    });
    assert_eq!(property(&lab, "ExecMainStatus"), "101");
    let said = lab.check(3, &[HEARTBEAT, "status"]);
    assert!(said.contains("restarting after code 101"), "{said}");
    let argv = [
        "journalctl",
        "--unit=heartbeat",
        "--output=cat",
        "--priority=err",
    ];
    let log = lab.check(0, &argv);
    assert!(log.contains(": asked for"), "{log}");
    lab.check(0, &[HEARTBEAT, "stop"]);
    lab.check(3, &[HEARTBEAT, "status"]);
}

/// The contract of exit codes: 201 is final, and 202 is followed by another start.
#[test]
fn an_exit_code_determines_what_follows() {
    let Some(lab) = lab() else { return };
    let said = lab.check(0, &[HEARTBEAT, "install"]);
    assert!(
        said.contains("separate count of retries after exit code 202"),
        "{said}"
    );
    let run = |how: &str| {
        lab.script(&format!(
            "mkdir -p {UNIT}.d
             printf '[Service]\\nExecStart=\\nExecStart={HEARTBEAT} run 1 0 {how}\\n' > {UNIT}.d/how.conf
             systemctl daemon-reload; systemctl start heartbeat || true"
        ));
    };
    run("alone");
    wait_until("a restart after 202", SOON, || {
        let restarts = property(&lab, "NRestarts").parse::<u32>().ok()?;
        (restarts > 1 && property(&lab, "ExecMainStatus") == "202").then_some(())
    });
    lab.check(0, &[HEARTBEAT, "stop"]);
    let restarts = property(&lab, "NRestarts");
    run("corrupt");
    wait_until("its end", SOON, || {
        (property(&lab, "ActiveState") == "failed").then_some(())
    });
    for (name, value) in [
        ("SubState", "failed"),
        ("ExecMainStatus", "201"),
        ("NRestarts", &restarts),
    ] {
        assert_eq!(property(&lab, name), value, "{name}");
    }
    let said = lab.check(3, &[HEARTBEAT, "status"]);
    assert_eq!(said.trim(), "stopped, code 201");
}

/// Somebody other than systemd stops the service while it is starting, which systemd would treat as
/// a failure, "protocol", whatever the exit code is.
#[test]
fn a_service_that_is_stopped_while_it_starts_is_not_restarted() {
    let Some(lab) = lab() else { return };
    lab.check(0, &[HEARTBEAT, "install"]);
    lab.script(&format!(
        "mkdir -p {UNIT}.d
         printf '[Service]\\nExecStart=\\nExecStart={HEARTBEAT} run 1 0 starting\\n' > {UNIT}.d/slow.conf
         systemctl daemon-reload; systemctl start --no-block heartbeat"
    ));
    wait_until("its start", SOON, || {
        let pid = property(&lab, "MainPID");
        let is_starting = pid != "0" && property(&lab, "ActiveState") == "activating";
        let caught = || {
            lab.script(&format!(
                "sed -n 's/^SigCgt:.*\\(....\\)$/\\1/p' /proc/{pid}/status"
            ))
        };
        let is_set =
            || u16::from_str_radix(caught().trim(), 16).is_ok_and(|set| set & 1 << 14 != 0);
        (is_starting && is_set()).then_some(())
    });
    lab.check(0, &["systemctl", "kill", "--signal=TERM", "heartbeat"]);
    wait_until("its end", SOON, || {
        (property(&lab, "ActiveState") != "activating" && property(&lab, "MainPID") == "0")
            .then_some(())
    });
    for (name, value) in [
        ("ActiveState", "inactive"),
        ("Result", "success"),
        ("NRestarts", "0"),
    ] {
        assert_eq!(property(&lab, name), value, "{name}");
    }
}

#[test]
fn what_is_not_ours_or_not_allowed_is_left_alone() {
    let Some(lab) = lab() else { return };
    let refused = |code, argv: &[&str], part: &str| {
        let before = lab.tree(&["/etc"]);
        let said = lab.check(code, argv);
        assert!(said.contains(part), "{said}");
        lab.assert_tree(&["/etc"], &before);
    };
    refused(
        77,
        &["runuser", "-u", "nobody", HEARTBEAT, "install"],
        "install service",
    );
    // A unit of another program, in either directory.
    for dir in ["/etc/systemd/system", "/usr/lib/systemd/system"] {
        lab.script(&format!(
            "printf '[Service]\\nExecStart=/bin/true\\n' > {dir}/heartbeat.service; systemctl daemon-reload"
        ));
        refused(1, &[HEARTBEAT, "install"], "another service of that name");
        lab.script(&format!(
            "rm {dir}/heartbeat.service; systemctl daemon-reload"
        ));
    }
    // The service's account could not execute the program.
    lab.script(&format!("cp {HEARTBEAT} /root/; chmod 700 /root"));
    refused(
        77,
        &["/root/heartbeat", "install"],
        "cannot execute /root/heartbeat: /root has mode 0700",
    );
    // A step that fails half-way.
    lab.script("mkdir -p /etc/systemd/system; rm -rf /etc/systemd/system/multi-user.target.wants; touch /etc/systemd/system/multi-user.target.wants");
    refused(
        1,
        &[HEARTBEAT, "install"],
        "write /etc/systemd/system/multi-user.target.wants/heartbeat.service",
    );
}

#[test]
fn a_user_has_services_too() {
    let Some(lab) = lab() else { return };
    lab.script(
        "useradd --create-home joe; loginctl enable-linger joe
         until [ -S /run/user/$(id -u joe)/bus ]; do sleep 0.05; done",
    );
    let id = lab.check(0, &["id", "-u", "joe"]);
    let runtime = format!("XDG_RUNTIME_DIR=/run/user/{}", id.trim());
    let heartbeat = |code, verb: &str| {
        let argv = [
            "runuser",
            "-u",
            "joe",
            "--",
            "env",
            &runtime,
            "HOME=/home/joe",
            HEARTBEAT,
            "--user",
            verb,
        ];
        lab.check(code, &argv)
    };
    let before = lab.tree(&["/etc", "/home"]);
    heartbeat(0, "install");
    heartbeat(0, "start");
    assert!(heartbeat(0, "status").starts_with("running, pid "));
    let owner = lab.script("ps -o user= -p $(pgrep -x heartbeat)");
    assert_eq!(owner.trim(), "joe");
    lab.check(4, &[HEARTBEAT, "status"]);
    heartbeat(0, "uninstall");
    heartbeat(4, "status");
    lab.script("rm -rf /home/joe/.config /home/joe/.local");
    lab.assert_tree(&["/etc", "/home"], &before);
}
