//! Exhausted resources: no file descriptors, no inodes. The supervisor and its services continue,
//! and recover by themselves.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::*;

/// Returns a service that survives everything, and one that crashes as long as a file exists.
fn pair(steady: &str) -> String {
    format!(
        r#"
        [service.steady]
        {steady}
        [service.worker]
        command = ["PUPPET", "print", "up", "await", "HERE/crash", "exit", "1"]
        recovery = {{ delay = "10ms", max_delay = "100ms", limit = "none" }}
        "#
    )
}

fn crash(sandbox: &Sandbox) {
    fs::write(sandbox.path().join("crash"), "").expect("the sandbox is writable");
}

/// Checks that the worker recovers, its output is written again, and the steady service was not
/// affected.
#[track_caller]
fn assert_recovers(supervisor: Supervisor, sandbox: &Sandbox, steady: &Value) {
    fs::remove_file(sandbox.path().join("crash")).expect("it was there");
    wait_until("the worker to run", SOON, || {
        (service(sandbox, "worker")["state"] == "running").then_some(())
    });
    let count = || {
        let log = fs::read_to_string(sandbox.state_dir().join("logs/worker/current.log"));
        log.map_or(0, |log| log.matches("up\n").count())
    };
    let before = count();
    json(sandbox, &["restart", "worker", "--json"]);
    wait_until("its output", SOON, || (count() > before).then_some(()));
    let now = service(sandbox, "steady");
    assert_eq!(now["pid"], steady["pid"], "{now}");
    stop(supervisor, sandbox);
}

#[test]
fn a_supervisor_without_descriptors_goes_on() {
    let (supervisor, sandbox) = supervise(&pair("command = [\"PUPPET\", \"hang\"]"));
    event(&supervisor, "worker", "started");
    let steady = service(&sandbox, "steady");
    let pid = Pid::from_raw(supervisor.id().cast_signed());
    let open = fs::read_dir(format!("/proc/{}/fd", supervisor.id())).expect("it lives");
    let open = open
        .flatten()
        .filter_map(|fd| fd.file_name().to_str()?.parse::<u64>().ok());
    let most = getrlimit(Resource::Nofile);
    let limit = |current| {
        let limit = Rlimit {
            current,
            maximum: most.maximum,
        };
        prlimit(pid, Resource::Nofile, limit).expect("it is ours");
    };
    let highest = open.max().expect("it has some");
    // Every descriptor number above is refused. Those that are closed below are used by the next
    // start.
    limit(Some(highest.min(12)));
    crash(&sandbox);
    supervisor.wait_event(SOON, |event| {
        event["service"] == "worker" && event.to_string().contains("Too many open files")
    });
    limit(most.maximum);
    assert_recovers(supervisor, &sandbox, &steady);
}

/// The account of a service may start no more processes, so its probe cannot run. That does not
/// count against the service. Root on the same machine can start processes and continues.
#[test]
fn a_probe_that_no_process_is_left_for_is_not_missed() {
    if !rustix::process::geteuid().is_root() {
        return mainstay_testkit::skip("only root runs services of other accounts");
    }
    let (supervisor, sandbox) = supervise(
        r#"
        [service.poor]
        command = ["sleep", "1000"]
        account = "user:nobody"
        working_dir = "/"
        liveness = { exec = ["test", "!", "-e", "HERE/fail"], every = "20ms", misses = 1 }
        [service.rich]
        command = ["PUPPET", "hang"]
        liveness = { exec = ["sh", "-c", "echo >> HERE/asked"], every = "200ms" }
        "#,
    );
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(sandbox.path(), mode).expect("it is ours");
    let pid = event(&supervisor, "poor", "started")["pid"].clone();
    let limit = |current| {
        let supervisor = Pid::from_raw(supervisor.id().cast_signed());
        let maximum = getrlimit(Resource::Nproc).maximum;
        let limit = Rlimit { current, maximum };
        prlimit(supervisor, Resource::Nproc, limit).expect("it is ours");
    };
    limit(Some(1));
    let asked = || fs::read_to_string(sandbox.path().join("asked")).map_or(0, |asked| asked.len());
    let before = asked();
    wait_until("many probes", SOON, || {
        (asked() >= before + 15).then_some(())
    });
    let poor = service(&sandbox, "poor");
    assert_eq!(
        (&poor["state"], &poor["pid"]),
        (&"running".into(), &pid),
        "{poor}"
    );
    let events = supervisor.events();
    let is_missed = |event: &&Value| event["event"] == "missed" || event["event"] == "failed";
    assert_eq!(events.iter().find(is_missed), None);
    // The probe was attempted all the time, and runs again.
    limit(getrlimit(Resource::Nproc).current);
    sandbox.write("fail", "");
    event(&supervisor, "poor", "missed");
    stop(supervisor, &sandbox);
}

/// The supervisor can create no more threads, so a name cannot be resolved. The probe is not sent,
/// and is repeated later.
#[test]
fn a_name_that_no_thread_is_left_for_is_asked_for_later() {
    let listen = || std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let (named, counted) = (listen(), listen());
    let port = |listener: &std::net::TcpListener| listener.local_addr().expect("a port").port();
    let (supervisor, sandbox) = supervise(&format!(
        r#"
        [service.named]
        command = ["PUPPET", "hang"]
        liveness = {{ tcp = "localhost:{}", every = "1500ms", misses = 1 }}
        [service.counted]
        command = ["PUPPET", "hang"]
        liveness = {{ tcp = "127.0.0.1:{}", every = "1500ms", misses = 1 }}
        "#,
        port(&named),
        port(&counted),
    ));
    let pid = event(&supervisor, "named", "started")["pid"].clone();
    event(&supervisor, "counted", "started");
    let limit = |current| {
        let supervisor = Pid::from_raw(supervisor.id().cast_signed());
        let maximum = getrlimit(Resource::As).maximum;
        let limit = Rlimit { current, maximum };
        prlimit(supervisor, Resource::As, limit).expect("it is ours");
    };
    let status = fs::read_to_string(format!("/proc/{}/status", supervisor.id()));
    let status = status.expect("it lives");
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
    let size = size.and_then(|size| size.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    // Less memory than the stack of a thread needs is left.
    limit(size.map(|size| (size + 128) << 10));
    for _ in 0..3 {
        counted.accept().expect("a probe");
    }
    let status = service(&sandbox, "named");
    assert_eq!(
        (&status["state"], &status["pid"]),
        (&"running".into(), &pid),
        "{status}"
    );
    limit(None);
    drop(named);
    event(&supervisor, "named", "missed");
    stop(supervisor, &sandbox);
}

/// Runs the pair with its state on a small tmpfs. `break_it` makes the file system unusable, and
/// `repair` repairs it.
fn on_a_file_system(options: &str, break_it: impl Fn(&Path), repair: impl Fn(&Path)) {
    let port = mainstay_testkit::free_port();
    let (sandbox, manifest) = sandbox(&pair(&format!(
        r#"
        command = ["PUPPET", "serve", "tcp", "127.0.0.1:{port}", "hang"]
        start = {{ ready = {{ tcp = "127.0.0.1:{port}" }} }}
        liveness = {{ every = "50ms", misses = 3 }}
        "#
    )));
    let dir = sandbox.state_dir();
    fs::create_dir(&dir).expect("a directory");
    if !mount(&["-t", "tmpfs", "-o", options, "tmpfs"], &dir) {
        return mainstay_testkit::skip("this root may not mount a tmpfs");
    }
    let supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "steady", "ready");
    event(&supervisor, "worker", "started");
    let steady = service(&sandbox, "steady");
    break_it(&dir);
    crash(&sandbox);
    events(&supervisor, "worker", "exited", 5);
    assert_eq!(service(&sandbox, "steady")["pid"], steady["pid"]);
    json(&sandbox, &["restart", "worker", "--json"]);
    repair(&dir);
    assert_recovers(supervisor, &sandbox, &steady);
    let unmounted = std::process::Command::new("umount").arg(&dir).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
}

fn mount(options: &[&str], dir: &Path) -> bool {
    let mut command = std::process::Command::new("mount");
    let status = command.args(options).arg(dir).status();
    status.is_ok_and(|status| status.success())
}

/// Loses lines of a service on a full disk; then `next` follows, with room on the disk, with which
/// the log must tell of the loss.
#[track_caller]
fn lose_lines(next: impl FnOnce(Supervisor, &Sandbox, &Path) -> Supervisor) {
    let (sandbox, manifest) = sandbox(
        r#"
        [service.a]
        command = ["PUPPET", "print", "up", "await", "HERE/go", "flood", "500", "hang"]
        "#,
    );
    let dir = sandbox.state_dir().join("logs");
    fs::create_dir_all(&dir).expect("a directory");
    if !mount(&["-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs"], &dir) {
        return mainstay_testkit::skip("this root may not mount a tmpfs");
    }
    let supervisor = Supervisor::start(&sandbox, &manifest);
    wait_until("its log", SOON, || {
        let log = fs::read_to_string(dir.join("a/current.log"));
        log.is_ok_and(|log| log == "up\n").then_some(())
    });
    let waste = dir.join("waste");
    assert!(fs::write(&waste, [0; 100_000]).is_err(), "the disk is full");
    sandbox.write("go", "");
    wait_until("a loss", SOON, || {
        let problem = service(&sandbox, "a")["log_problem"].clone();
        problem.as_str()?.contains("No space left").then_some(())
    });
    let supervisor = next(supervisor, &sandbox, &waste);
    let text = || {
        let shown = verb(&sandbox, &["logs", "a", "-n", "1000"]);
        String::from_utf8_lossy(&shown.stdout).into_owned()
    };
    let log = wait_until("the loss to be told", SOON, || {
        Some(text()).filter(|log| log.contains("were lost"))
    });
    // 500 lines of 80 bytes.
    let kept = log.lines().filter(|line| line.len() == 79).count();
    let told = format!(
        "mainstay: {} bytes ({} lines) were lost",
        (500 - kept) * 80,
        500 - kept
    );
    assert!(kept < 500 && log.contains(&told), "{told}: {log}");
    stop(supervisor, &sandbox);
    let unmounted = std::process::Command::new("umount").arg(&dir).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
}

#[test]
fn a_rotation_tells_of_what_was_lost_before() {
    if !rustix::process::geteuid().is_root() {
        return mainstay_testkit::skip("a small file system needs a mount, and a mount needs root");
    }
    lose_lines(|supervisor, sandbox, waste| {
        fs::remove_file(waste).expect("it is there");
        assert_eq!(code(verb(sandbox, &["logs", "rotate", "a"]).status), 0);
        let event = supervisor.wait_event(SOON, |event| {
            event.to_string().contains("its log is written again")
        });
        assert!(!event.to_string().contains("lost: 0 bytes"), "{event}");
        supervisor
    });
}

#[test]
fn what_was_lost_is_told_although_its_supervisor_is_killed() {
    if !rustix::process::geteuid().is_root() {
        return mainstay_testkit::skip("a small file system needs a mount, and a mount needs root");
    }
    lose_lines(|mut supervisor, sandbox, waste| {
        supervisor.kill_dash_nine();
        fs::remove_file(waste).expect("it is there");
        Supervisor::start(sandbox, &sandbox.path().join("mainstay.toml"))
    });
}

#[test]
fn a_full_inode_table_stops_nobody() {
    if !rustix::process::geteuid().is_root() {
        return mainstay_testkit::skip("a small file system needs a mount, and a mount needs root");
    }
    let waste = |dir: &Path| dir.join("waste");
    on_a_file_system(
        "size=8m,nr_inodes=100,mode=700",
        |dir| {
            fs::create_dir(waste(dir)).expect("there is room yet");
            let is_full = (0..200).any(|i| fs::write(waste(dir).join(i.to_string()), "").is_err());
            assert!(is_full, "no inode is left");
        },
        |dir| fs::remove_dir_all(waste(dir)).expect("removed"),
    );
}

/// The disk under the state directory becomes read-only while the supervisor runs, as ext4 does
/// after an I/O error.
#[test]
fn a_file_system_that_becomes_read_only_stops_nobody() {
    if !rustix::process::geteuid().is_root() {
        return mainstay_testkit::skip("only root mounts");
    }
    let (sandbox, manifest) = sandbox(&pair("command = [\"PUPPET\", \"hang\"]"));
    let dir = sandbox.state_dir();
    fs::create_dir(&dir).expect("a directory");
    let run = |program: &str, args: &[&str]| {
        let status = std::process::Command::new(program).args(args).status();
        status.is_ok_and(|status| status.success())
    };
    let image = sandbox.path().join("image").display().to_string();
    let there = dir.display().to_string();
    if !(run("truncate", &["-s", "16M", &image])
        && run("mkfs.ext4", &["-q", &image])
        && run("mount", &["-o", "loop", &image, &there]))
    {
        return mainstay_testkit::skip("no ext4 can be mounted from a file here");
    }
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(&dir, mode).expect("ours");
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "steady", "started");
    event(&supervisor, "worker", "started");
    let steady = service(&sandbox, "steady");
    // As the kernel does after an I/O error; open files cannot be written to, either.
    assert!(run("mount", &["-o", "remount,abort", &there]));
    assert!(fs::write(dir.join("probe"), "").is_err(), "it is read-only");
    crash(&sandbox);
    events(&supervisor, "worker", "exited", 5);
    fs::remove_file(sandbox.path().join("crash")).expect("it was there");
    wait_until("the worker to run", SOON, || {
        (service(&sandbox, "worker")["state"] == "running").then_some(())
    });
    json(&sandbox, &["restart", "worker", "--json"]);
    json(&sandbox, &["stop", "worker", "--json"]);
    json(&sandbox, &["start", "worker", "--json"]);
    assert_eq!(service(&sandbox, "steady")["pid"], steady["pid"]);
    supervisor.ctrl_c();
    let status = supervisor.wait(SOON);
    let _ = run("umount", &["-l", &there]);
    assert!(status.success(), "{status:?}: {:#?}", supervisor.events());
    sandbox.assert_no_leftovers();
}
