//! Tests the example as a process: its notifications to a manager, and its response to signals.
#![cfg(unix)]

use std::io::Read as _;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use mainstay_testkit::{Sandbox, wait_until};
use rustix::process::{Pid, Signal, kill_process};

mod log_dir;

/// The timeout for every step.
const SOON: Duration = Duration::from_secs(20);

struct Service {
    child: Child,
    told: UnixDatagram,
}

impl Service {
    fn start(sandbox: &Sandbox, arguments: &[&str]) -> Self {
        let path = sandbox.path().join("notify");
        let told = UnixDatagram::bind(&path).expect("bind");
        told.set_read_timeout(Some(SOON)).expect("a time");
        let child = Command::new(env!("CARGO_BIN_EXE_heartbeat"))
            .arg("run")
            .args(arguments)
            .env("NOTIFY_SOCKET", path)
            // Set as in a manager's script.
            .env("MAINSTAY_MANAGER", "runit")
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        Self { child, told }
    }

    /// Returns the next notification.
    fn says(&self) -> String {
        let mut buffer = [0; 1000];
        let count = self.told.recv(&mut buffer).expect("it says something");
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("it lives");
    }

    fn end(self) -> Output {
        self.child.wait_with_output().expect("it ends")
    }
}

/// systemd would treat an exit before readiness as a failure.
#[test]
fn it_is_ready_before_it_ends_cleanly() {
    let sandbox = Sandbox::new();
    let service = Service::start(&sandbox, &["1", "0", "starting"]);
    wait_until("its response to signals", SOON, || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", service.child.id()));
        let caught = status
            .ok()?
            .lines()
            .find_map(|line| u64::from_str_radix(line.strip_prefix("SigCgt:")?.trim(), 16).ok())?;
        (caught & 1 << (Signal::TERM.as_raw() - 1) != 0).then_some(())
    });
    service.signal(Signal::TERM);
    assert_eq!(service.says(), "READY=1");
    assert_eq!(service.end().status.code(), Some(0));
    // A failure is not reported as ready.
    let sandbox = Sandbox::new();
    let service = Service::start(&sandbox, &["many"]);
    let told = service.told.try_clone().expect("its socket");
    assert_eq!(service.end().status.code(), Some(2));
    told.set_nonblocking(true).expect("its mode");
    let kind = told.recv(&mut [0; 9]).map_err(|error| error.kind());
    assert_eq!(kind, Err(std::io::ErrorKind::WouldBlock));
}

#[test]
fn it_tells_its_manager_how_it_is() {
    let sandbox = Sandbox::new();
    let service = Service::start(&sandbox, &["1"]);
    assert_eq!(service.says(), "READY=1");
    assert_eq!(service.says(), "STATUS=1 beats");
    service.signal(Signal::HUP);
    let said = service.says();
    assert!(said.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{said}");
    assert_eq!(service.says(), "READY=1");
    service.signal(Signal::TERM);
    // A heartbeat may have arrived in between.
    let said = std::iter::repeat_with(|| service.says());
    let said = said.take(3).find(|said| !said.starts_with("STATUS="));
    assert_eq!(said.as_deref(), Some("STOPPING=1"));
    let Output { status, stderr, .. } = service.end();
    assert_eq!(status.code(), Some(0));
    let log = String::from_utf8_lossy(&stderr);
    for line in ["begun", "alive", "there is nothing to read again"] {
        assert!(log.lines().any(|logged| logged == line), "{log}");
    }
}

#[test]
fn a_second_interrupt_ends_it_at_once() {
    let sandbox = Sandbox::new();
    let mut service = Service::start(&sandbox, &["100", "100"]);
    assert_eq!(service.says(), "READY=1");
    service.signal(Signal::INT);
    assert_eq!(service.says(), "STOPPING=1");
    // Signals that arrive together count as one, so another one is sent on each poll.
    wait_until("its end", SOON, || {
        service.signal(Signal::INT);
        service.child.try_wait().expect("it is our child")
    });
    assert_eq!(service.end().status.signal(), Some(Signal::INT.as_raw()));
}

#[test]
fn a_failure_is_said_and_is_the_exit_code() {
    let sandbox = Sandbox::new();
    let mut service = Service::start(&sandbox, &["often"]);
    let mut log = String::new();
    let mut stderr = service.child.stderr.take().unwrap();
    stderr.read_to_string(&mut log).unwrap();
    assert_eq!(log, "often is no number of seconds\n");
    assert_eq!(service.end().status.code(), Some(2));
}

#[test]
fn a_wrong_command_line_explains_itself() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heartbeat"));
    let output = command.arg("instal").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    let begin = "error: unknown verb instal\nusage: heartbeat [--user] [VERB]\n\n  install ";
    assert!(text.starts_with(begin), "{text}");
}

#[test]
fn pause_and_continue_reach_it() {
    let sandbox = Sandbox::new();
    let service = Service::start(&sandbox, &["3600"]);
    assert_eq!(service.says(), "READY=1");
    service.signal(Signal::TSTP);
    assert_eq!(service.says(), "STATUS=paused");
    // The stop signal of the terminal does not stop the process, which handles the following
    // signals.
    service.signal(Signal::TSTP);
    service.signal(Signal::CONT);
    assert_eq!(service.says(), "STATUS=");
    service.signal(Signal::TSTP);
    assert_eq!(service.says(), "STATUS=paused");
    service.signal(Signal::TERM);
    assert_eq!(service.says(), "STOPPING=1");
    let Output { status, stderr, .. } = service.end();
    assert_eq!(status.code(), Some(0));
    let log = String::from_utf8_lossy(&stderr);
    assert!(log.contains("paused\ncontinued\npaused\n"), "{log}");
}

#[test]
fn a_panic_is_said_with_its_message_and_is_the_exit_code() {
    let sandbox = Sandbox::new();
    let service = Service::start(&sandbox, &["0", "0", "panic"]);
    let Output { status, stderr, .. } = service.end();
    assert_eq!(status.code(), Some(101));
    let log = String::from_utf8_lossy(&stderr);
    let last = log.lines().next_back().unwrap_or_default();
    assert!(
        last.starts_with("panicked at ") && last.ends_with(": asked for"),
        "{log}"
    );
}

#[test]
fn help_and_version_are_what_they_are_everywhere() {
    let said = |argument: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_heartbeat"));
        let output = command.arg(argument).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{argument}");
        assert!(output.stderr.is_empty(), "{argument}");
        String::from_utf8(output.stdout).unwrap()
    };
    let version = format!("heartbeat {}\n", env!("CARGO_PKG_VERSION"));
    for argument in ["--version", "-V", "version"] {
        assert_eq!(said(argument), version);
    }
    for argument in ["--help", "-h", "help"] {
        let text = said(argument);
        assert!(text.starts_with("Says every few seconds"), "{text}");
        assert!(
            text.contains("\nusage: heartbeat [--user] [VERB]\n"),
            "{text}"
        );
    }
}
