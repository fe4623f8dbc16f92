//! Tests readiness notification by a newline on a descriptor.
#![cfg(target_os = "linux")]

use std::fs;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mainstay_testkit::wait_until;

const SOON: Duration = Duration::from_secs(20);

/// Runs the example in place of a shell that first runs `before`. Its own standard output is
/// discarded.
fn heartbeat(before: &str) -> Child {
    Command::new("sh")
        .args(["-c", &format!("{before}\nexec \"$0\" >/dev/null 2>&1")])
        .arg(env!("CARGO_BIN_EXE_heartbeat"))
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sh")
}

fn stop(mut child: Child) -> String {
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is there");
    let mut said = String::new();
    let mut output = child.stdout.take().expect("a pipe");
    output.read_to_string(&mut said).expect("text");
    assert!(child.wait().expect("it ends").success());
    said
}

#[test]
fn a_pipe_is_told_and_closed() {
    for pid in ["", "export MAINSTAY_READY_PID=$$"] {
        let mut child = heartbeat(&format!("{pid}\nexport MAINSTAY_READY_FD=3\nexec 3>&1"));
        let mut said = String::new();
        let output = child.stdout.as_mut().expect("a pipe");
        output.read_to_string(&mut said).expect("text");
        assert_eq!(said, "\n");
        assert_eq!(child.try_wait().expect("a child"), None, "it runs");
        stop(child);
    }
}

#[test]
fn a_file_is_told_where_the_process_is_named() {
    let path = std::env::temp_dir().join(format!("mainstay-ready-{}", std::process::id()));
    let file = path.display();
    let named = "export MAINSTAY_READY_FD=3 MAINSTAY_READY_PID=$$";
    let child = heartbeat(&format!("{named}\nexec 3>'{file}'"));
    wait_until("a newline", SOON, || {
        (fs::read_to_string(&path).ok()? == "\n").then_some(())
    });
    stop(child);
    // The descriptor may be any file.
    fs::write(&path, "mine").expect("a file");
    let child = heartbeat(&format!(
        "export MAINSTAY_READY_FD=3\nexec 3>>'{file}' 4>&1"
    ));
    wait_until_it_listens(&child);
    stop(child);
    assert_eq!(fs::read_to_string(&path).expect("a file"), "mine");
    fs::remove_file(&path).expect("a file");
}

#[test]
fn what_is_meant_for_another_is_left_alone() {
    for (fd, pid) in [
        ("3", "1"),
        ("1", "$$"),
        ("9", "$$"),
        ("x", "$$"),
        ("3", "x"),
    ] {
        let child = heartbeat(&format!(
            "export MAINSTAY_READY_FD={fd} MAINSTAY_READY_PID={pid}\nexec 3>&1"
        ));
        wait_until_it_listens(&child);
        assert_eq!(stop(child), "", "{fd} {pid}");
    }
}

/// Waits until the signal handler is installed, so that a stop does not kill the process.
fn wait_until_it_listens(child: &Child) {
    let status = format!("/proc/{}/status", child.id());
    let term = 1u64 << (rustix::process::Signal::TERM.as_raw() - 1);
    wait_until("its handler", SOON, || {
        let text = fs::read_to_string(&status).ok()?;
        let mask = text.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
        let caught = u64::from_str_radix(mask.trim(), 16).ok()?;
        (caught & term != 0).then_some(())
    });
}
