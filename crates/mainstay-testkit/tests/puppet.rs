//! The puppet does what it is told.
#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Output, Stdio};
use std::time::Duration;
#[cfg(target_os = "linux")]
use std::time::Instant;

use mainstay_testkit::{Sandbox, free_port, puppet, wait_until};
#[cfg(target_os = "linux")]
use rustix::process::{Pid, Signal, kill_process};

const LIMIT: Duration = Duration::from_secs(10);

fn run(sandbox: &Sandbox, steps: &str) -> Output {
    let mut command = sandbox.command(puppet());
    command
        .args(steps.split(' '))
        .output()
        .expect("puppet runs")
}

fn spawn(sandbox: &Sandbox, steps: &str) -> (Child, BufReader<ChildStdout>) {
    let mut command = sandbox.command(puppet());
    command.args(steps.split(' ')).stdout(Stdio::piped());
    let mut child = command.spawn().expect("puppet runs");
    let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
    (child, stdout)
}

fn line(stdout: &mut impl BufRead) -> String {
    let mut line = String::new();
    stdout.read_line(&mut line).expect("stdout is readable");
    line.trim_end().to_owned()
}

#[test]
fn steps_run_in_order() {
    let sandbox = Sandbox::new();
    #[track_caller]
    fn check(sandbox: &Sandbox, steps: &str, stdout: &str, stderr: &str, code: i32) {
        let output = run(sandbox, steps);
        assert_eq!(String::from_utf8_lossy(&output.stdout), stdout, "{steps}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), stderr, "{steps}");
        assert_eq!(output.status.code(), Some(code), "{steps}");
    }
    check(
        &sandbox,
        "print hello eprint oh sleep 1ms exit 3",
        "hello\n",
        "oh\n",
        3,
    );
    check(
        &sandbox,
        "print a touch here await here print b",
        "a\nb\n",
        "",
        0,
    );
    check(
        &sandbox,
        "ignore term,hup signal TERM print alive",
        "alive\n",
        "",
        0,
    );
    check(&sandbox, "on-term exit 7 after 1ms signal term", "", "", 7);
    check(
        &sandbox,
        "flood 2 --bytes 16",
        "000000000000 aa\n000000000001 bb\n",
        "",
        0,
    );
    check(
        &sandbox,
        "flood 2 --bytes 16 --block",
        "000000000000 aa\n000000000001 bb\n",
        "",
        0,
    );
    check(
        &sandbox,
        "print a dance",
        "",
        "puppet: no step \"dance\"\n",
        64,
    );
    check(
        &sandbox,
        "sleep 5",
        "",
        "puppet: a duration is like 100ms or 2s, not \"5\"\n",
        64,
    );
    check(
        &sandbox,
        "notify READY=1",
        "",
        "puppet: NOTIFY_SOCKET is not set\n",
        70,
    );
}

#[test]
fn it_dies_of_the_signal_it_is_told_to() {
    let output = run(&Sandbox::new(), "signal SEGV");
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV));
}

#[test]
fn starts_are_counted() {
    let sandbox = Sandbox::new();
    let codes = [1, 2, 3].map(|_| run(&sandbox, "crash-until n 2 75 exit 4").status.code());
    assert_eq!(codes, [Some(75), Some(75), Some(4)]);
    run(&sandbox, "count n");
    assert_eq!(
        fs::read_to_string(sandbox.path().join("n"))
            .unwrap()
            .lines()
            .count(),
        4
    );
}

#[test]
fn servers_answer_and_keep_it_alive() {
    let sandbox = Sandbox::new();
    let (http, tcp) = (free_port(), free_port());
    let steps = format!(
        "serve http 127.0.0.1:{http} --after 1ms --status 503 serve tcp 127.0.0.1:{tcp} serve unix s print on"
    );
    let (mut child, mut stdout) = spawn(&sandbox, &steps);
    assert_eq!(line(&mut stdout), "on");
    let connect = |port| move || TcpStream::connect(("127.0.0.1", port)).ok();
    wait_until("tcp", LIMIT, connect(tcp));
    wait_until("unix", LIMIT, || {
        UnixStream::connect(sandbox.path().join("s")).ok()
    });
    let mut stream = wait_until("http", LIMIT, connect(http));
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(line(&mut BufReader::new(stream)), "HTTP/1.1 503 Puppet");
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_taken_port_ends_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let output = run(
        &Sandbox::new(),
        &format!("serve tcp {}", taken.local_addr().unwrap()),
    );
    assert_eq!(output.status.code(), Some(70));
}

#[test]
fn it_notifies() {
    let sandbox = Sandbox::new();
    let socket = UnixDatagram::bind(sandbox.path().join("notify")).unwrap();
    let mut command = sandbox.command(puppet());
    command
        .env("NOTIFY_SOCKET", "notify")
        .args(["notify", "READY=1"]);
    assert!(command.status().unwrap().success());
    let mut buffer = [0; 64];
    let size = socket.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..size], b"READY=1");
}

#[test]
fn it_reports_what_it_inherits() {
    let output = run(&Sandbox::new(), "report-state");
    let state: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    // Rust's own `Command` resets SIGPIPE, so nothing is left to report.
    for clean in ["fds", "sig_ign", "sig_blk"] {
        assert_eq!(state[clean], serde_json::json!([]), "{clean}");
    }
    assert_eq!(state["ppid"], std::process::id());
    let environment = run(&Sandbox::new(), "print-env");
    assert!(String::from_utf8_lossy(&environment.stdout).contains("\nMAINSTAY_STATE_DIR="));
}

#[cfg(target_os = "linux")]
#[test]
fn grandchildren_stray_but_belong_to_the_sandbox() {
    use mainstay_testkit::procs;

    let sandbox = Sandbox::new();
    let steps = "ignore term,int,hup fork fork-setsid print done hang";
    let (mut child, mut stdout) = spawn(&sandbox, steps);
    let pids = [line(&mut stdout), line(&mut stdout)].map(|line| {
        let pid = line.strip_prefix("fork ").unwrap().parse().unwrap();
        Pid::from_raw(pid).unwrap()
    });
    assert_eq!(line(&mut stdout), "done");
    let own_group = rustix::process::getpgid(None).unwrap();
    let groups = pids.map(|pid| rustix::process::getpgid(Some(pid)).unwrap());
    assert_eq!(groups[0], own_group);
    assert_ne!(groups[1], own_group);

    child.kill().unwrap();
    child.wait().unwrap();
    for pid in pids {
        kill_process(pid, Signal::TERM).unwrap();
        assert!(procs::alive(pid), "they ignore TERM as their parent did");
    }
    assert_eq!(sandbox.processes().len(), 2);
    drop(sandbox);
    let deadline = Instant::now() + LIMIT;
    while pids.into_iter().any(procs::alive) {
        assert!(
            Instant::now() < deadline,
            "the sandbox left processes behind"
        );
    }
}
