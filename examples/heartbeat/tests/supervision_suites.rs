//! Tests the whole life cycle of the example under real Unix service managers, through its own
//! verbs and each manager's own tools.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::time::Duration;

use mainstay_testkit::lab::Lab;
use mainstay_testkit::{skip, wait_until};

const SOON: Duration = Duration::from_secs(20);
const HEARTBEAT: &str = "/opt/heartbeat/heartbeat";

/// The properties of a manager that the test uses.
struct Native {
    kind: &'static str,
    /// The file that exists if and only if the service is installed.
    unit: &'static str,
    /// Prints the service's PID, or 0, with the manager's own tool.
    pid: &'static str,
    /// Starts, stops and restarts the service with the manager's own tool.
    start: &'static str,
    stop: &'static str,
    restart: &'static str,
    /// Lists the services of the manager.
    running: &'static str,
    /// Prints the service's log.
    log: &'static str,
    /// Creates a service of the same name that belongs to another program, and removes it.
    foreign: &'static str,
    unforeign: &'static str,
}

const RUNIT: Native = Native {
    kind: "runit",
    unit: "/etc/sv/heartbeat/run",
    pid: "sv status heartbeat | sed -n 's/^run: heartbeat: (pid \\([0-9]*\\)).*/\\1/p' | grep . || echo 0",
    start: "sv start heartbeat",
    stop: "sv stop heartbeat",
    restart: "sv restart heartbeat",
    running: "ls -A /etc/service",
    log: "cat /var/log/runit/heartbeat/current",
    foreign: "mkdir /etc/sv/heartbeat; printf '#!/bin/sh\\nexec sleep 1000\\n' > /etc/sv/heartbeat/run; touch /etc/sv/heartbeat/down; chmod +x /etc/sv/heartbeat/run",
    unforeign: "rm -r /etc/sv/heartbeat",
};

const S6: Native = Native {
    kind: "s6",
    unit: "/etc/s6/service/heartbeat/run",
    pid: "s6-svstat -o pid /run/service/heartbeat | sed 's/^-1$/0/'",
    start: "s6-svc -u -wU -T 10000 /run/service/heartbeat",
    stop: "s6-svc -d -wD -T 10000 /run/service/heartbeat",
    restart: "s6-svc -d -wD -T 10000 /run/service/heartbeat; s6-svc -u -wU -T 10000 /run/service/heartbeat",
    running: "ls -A /run/service",
    log: "cat /var/log/s6/heartbeat/current",
    foreign: "mkdir /etc/s6/service/heartbeat; printf '#!/bin/sh\\nexec sleep 1000\\n' > /etc/s6/service/heartbeat/run",
    unforeign: "rm -r /etc/s6/service/heartbeat",
};

struct Life {
    lab: Lab,
    native: &'static Native,
}

impl Life {
    fn begin(native: &'static Native) -> Option<Self> {
        let dir = Path::new(env!("CARGO_BIN_EXE_heartbeat")).parent();
        let dir = dir.expect("a program lies somewhere");
        match Lab::up(native.kind, &[(dir, "/opt/heartbeat")]) {
            Ok(lab) => Some(Self { lab, native }),
            Err(why) => {
                skip(why);
                None
            }
        }
    }

    #[track_caller]
    fn heartbeat(&self, code: i32, verb: &str) -> String {
        self.lab.check(code, &[HEARTBEAT, verb])
    }

    #[track_caller]
    fn install(&self) -> String {
        self.lab
            .check(0, &[HEARTBEAT, "install", "--account", "local-system"])
    }

    /// Returns the PID that the manager reports.
    #[track_caller]
    fn pid(&self) -> String {
        self.lab.script(self.native.pid).trim().to_owned()
    }

    /// Returns the PID that both report, once the service is ready and the PID differs from `old`.
    #[track_caller]
    fn pid_beside(&self, old: &str) -> String {
        wait_until("another process", SOON, || {
            let pid = self.pid();
            let said = self.lab.run(&[HEARTBEAT, "status"]).stdout;
            let is_new = said.starts_with(format!("running, pid {pid}\n").as_bytes());
            (is_new && pid != old).then_some(pid)
        })
    }

    #[track_caller]
    fn is_down(&self) {
        wait_until("no process", SOON, || (self.pid() == "0").then_some(()));
        self.heartbeat(3, "status");
    }
}

fn a_life(native: &'static Native) {
    let Some(life) = Life::begin(native) else {
        return;
    };
    let lab = &life.lab;
    let before = lab.tree(&["/etc", "/usr"]);
    let running = lab.script(native.running);
    life.heartbeat(4, "status");
    life.heartbeat(4, "uninstall");
    let said = life.heartbeat(78, "install");
    assert!(said.contains("--account user:NAME"), "{said}");

    let losses = life.install();
    life.heartbeat(3, "status");
    life.heartbeat(0, "stop");
    assert_eq!(life.pid(), "0", "an installation starts nothing");
    // A second installation changes nothing.
    let stamp = || lab.check(0, &["stat", "--format=%y %i", native.unit]);
    let unit = stamp();
    assert_eq!(life.install(), losses);
    assert_eq!(stamp(), unit);

    life.heartbeat(0, "start");
    life.heartbeat(0, "start");
    let first = life.pid_beside("0");
    let nobody = ["runuser", "-u", "nobody", "--", HEARTBEAT, "status"];
    let said = lab.check(77, &nobody);
    assert!(said.contains("run it as root"), "{said}");
    life.heartbeat(0, "pause");
    assert!(life.heartbeat(0, "status").starts_with("paused"));
    life.heartbeat(0, "continue");
    life.heartbeat(0, "reload");
    wait_until("what it has said", SOON, || {
        let log = lab.script(native.log);
        log.contains("there is nothing to read again").then_some(())
    });
    life.heartbeat(0, "restart");
    let second = life.pid_beside(&first);

    // After an unrequested exit, the service is restarted after a delay.
    lab.check(0, &["kill", "-KILL", &second]);
    let third = life.pid_beside(&second);
    // Requested through the manager's own tools.
    lab.script(native.restart);
    life.pid_beside(&third);
    lab.script(native.stop);
    life.is_down();
    lab.script(native.start);
    life.pid_beside("0");

    // The service starts at boot only if it is enabled.
    life.heartbeat(0, "disable");
    life.pid_beside("0");
    lab.reboot();
    wait_until("its supervisor", SOON, || {
        let code = lab.run(&[HEARTBEAT, "status"]).status.code();
        (code == Some(3)).then_some(())
    });
    assert_eq!(life.pid(), "0");
    life.heartbeat(0, "start");
    life.heartbeat(0, "enable");
    lab.reboot();
    life.pid_beside("0");

    life.heartbeat(0, "pause");
    life.heartbeat(0, "stop");
    life.is_down();
    life.heartbeat(0, "start");
    life.heartbeat(0, "uninstall");
    life.heartbeat(4, "status");
    lab.check(1, &["pidof", "heartbeat"]);
    lab.assert_tree(&["/etc", "/usr"], &before);
    assert_eq!(lab.script(native.running), running);
}

fn what_is_not_ours(native: &'static Native) {
    let Some(life) = Life::begin(native) else {
        return;
    };
    let refused = |code, argv: &[&str], part: &str| {
        let before = life.lab.tree(&["/etc"]);
        let said = life.lab.check(code, argv);
        assert!(said.contains(part), "{said}");
        life.lab.assert_tree(&["/etc"], &before);
    };
    let install = [HEARTBEAT, "install", "--account", "local-system"];
    let nobody = ["runuser", "-u", "nobody", "--"];
    refused(77, &[&nobody[..], &install].concat(), "install service");
    life.lab.script(native.foreign);
    refused(1, &install, "another service of that name");
    refused(1, &[HEARTBEAT, "uninstall"], "another service of that name");
    life.lab.script(native.unforeign);
    // A step that fails half-way.
    let path = native.unit;
    life.lab.script(&format!("mkdir -p {path}"));
    refused(1, &install, path);
}

#[test]
fn a_life_under_runit() {
    a_life(&RUNIT);
}

#[test]
fn what_is_not_ours_or_not_allowed_is_left_alone_under_runit() {
    what_is_not_ours(&RUNIT);
}

#[test]
fn a_life_under_s6() {
    a_life(&S6);
}

#[test]
fn what_is_not_ours_or_not_allowed_is_left_alone_under_s6() {
    what_is_not_ours(&S6);
}
