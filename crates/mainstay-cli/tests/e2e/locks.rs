//! One supervisor per state directory, whatever process locks, truncates or deletes its lock files.
#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Stdio};

use super::*;

/// Any account except root. It need not have a name.
const OTHER: u32 = 65_534;

const TWO: &str = r#"
    [service.a]
    command = ["PUPPET", "count", "HERE/a-starts", "touch", "HERE/a", "hang"]
    start = { ready = { file = "HERE/a" } }
    [service.b]
    command = ["PUPPET", "count", "HERE/b-starts", "hang"]
"#;

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        mainstay_testkit::skip("only root runs programs as somebody else");
    }
    is_root
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
}

/// Starts a process of another account that waits for the lock of a file, and then keeps it.
fn covet(sandbox: &Sandbox, lock: &Path) -> Child {
    let child = sandbox
        .command("flock")
        .arg("--no-fork")
        .arg(lock)
        .args(["sleep", "1000"])
        .uid(OTHER)
        .stdout(Stdio::null())
        .current_dir("/")
        .spawn();
    child.expect("flock runs")
}

/// Returns whether a process has this file open.
fn has_open(pid: u32, path: &Path) -> bool {
    let fds = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten();
    let links = fds.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
    let mut links = links;
    links.any(|link| link == path)
}

fn lines(sandbox: &Sandbox, name: &str) -> usize {
    let text = fs::read_to_string(sandbox.path().join(name));
    text.map_or(0, |text| text.lines().count())
}

fn notice(supervisor: &Supervisor, part: &str) -> Value {
    supervisor.wait_event(SOON, |event| {
        event["event"] == "notice"
            && event["message"]
                .as_str()
                .is_some_and(|message| message.contains(part))
    })
}

fn notices(supervisor: &Supervisor, part: &str) -> usize {
    let events = supervisor.events().into_iter();
    let messages = events.filter(|event| event["event"] == "notice");
    messages
        .filter(|event| event["message"].to_string().contains(part))
        .count()
}

#[test]
fn a_lock_that_another_account_holds_keeps_no_successor_out() {
    if !is_root() {
        return;
    }
    let (sandbox, manifest) = sandbox(TWO);
    let state = sandbox.state_dir();
    let lock = state.join("lock");
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "a", "ready");
    event(&supervisor, "b", "started");
    // Restores the modes that earlier versions set.
    for (path, mode) in [(sandbox.path(), 0o755), (&state, 0o755), (&lock, 0o644)] {
        chmod(path, mode);
    }
    let mut other = covet(&sandbox, &lock);
    wait_until("the other account", SOON, || {
        has_open(other.id(), &lock).then_some(())
    });
    supervisor.kill_dash_nine();
    wait_until("its lock", SOON, || {
        let locks = fs::read_to_string("/proc/locks").expect("locks");
        let pid = format!(" {} ", other.id());
        let holds = |line: &str| line.contains(&pid) && !line.contains("->");
        locks.lines().any(holds).then_some(())
    });
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "a", "adopted");
    event(&supervisor, "b", "adopted");
    let mode = fs::metadata(&lock).expect("a lock").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // The other process still has the old file open, which has no effect.
    refused(&sandbox, supervisor.id(), "a second one");
    supervisor.kill_dash_nine();
    let supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "b", "adopted");
    other.kill().and_then(|()| other.wait()).expect("ours");
    stop(supervisor, &sandbox);
    assert_eq!(
        (lines(&sandbox, "a-starts"), lines(&sandbox, "b-starts")),
        (1, 1)
    );
}

#[test]
fn other_accounts_open_no_lock() {
    if !is_root() {
        return;
    }
    let (sandbox, manifest) = sandbox(
        r#"
        [service.a]
        command = ["PUPPET", "hang"]
        account = "user:nobody"
        working_dir = "/"
        snapshot = { after = "10ms" }
        "#,
    );
    // The result depends neither on the umask nor on the previous modes.
    let state = sandbox.state_dir();
    chmod(sandbox.path(), 0o755);
    fs::create_dir(&state).expect("a directory");
    chmod(&state, 0o755);
    for dir in ["snapshots/a", "installed"] {
        fs::create_dir_all(state.join(dir)).expect("a directory");
    }
    for file in [
        "lock",
        "snapshots/a/lock",
        "snapshots/a/in-use",
        "installed/.lock",
    ] {
        fs::write(state.join(file), "").expect("a file");
        chmod(&state.join(file), 0o666);
    }
    let mut command = sandbox.command("sh");
    command
        .args(["-c", "umask 0; exec \"$0\" \"$@\""])
        .arg(mainstay())
        .args(["run", "--json"])
        .arg(&manifest);
    let supervisor = Supervisor::spawn(command);
    event(&supervisor, "a", "started");
    wait_until("its snapshot", SOON, || {
        let listed = json(&sandbox, &["snapshot", "list", "a", "--json"]);
        listed.to_string().contains("stable").then_some(())
    });
    let second = sandbox.write("second.toml", "[service.i]\ncommand = [\"true\"]\n");
    verb(
        &sandbox,
        &[
            "install",
            &second.display().to_string(),
            "--manager",
            "embedded",
        ],
    );
    let mut open = vec![state.clone()];
    let mut locks = Vec::new();
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).expect("ours").flatten() {
            let path = entry.path();
            if entry.file_type().expect("a type").is_dir() {
                open.push(path);
            } else if ["lock", "in-use", "owner-"]
                .iter()
                .any(|part| entry.file_name().to_string_lossy().contains(part))
            {
                let mode = entry.metadata().expect("a mode").permissions().mode();
                assert_eq!(mode & 0o777, 0o600, "{}", path.display());
                locks.push(path);
            }
        }
    }
    assert!(locks.len() >= 4, "{locks:?}");
    let mode = fs::metadata(&state).expect("a mode").permissions().mode();
    assert_eq!(mode & 0o066, 0, "nobody looks into it: {mode:o}");
    stop(supervisor, &sandbox);
}

/// A change to a state directory, and the notice of the supervisor.
type Loss = (&'static str, fn(&Path), &'static str);

const LOSSES: [Loss; 7] = [
    (
        "the lock is deleted",
        |state| fs::remove_file(state.join("lock")).expect("there"),
        "lock was deleted",
    ),
    (
        "the lock is emptied",
        |state| fs::write(state.join("lock"), "").expect("there"),
        "lock was overwritten",
    ),
    (
        "the lock is replaced",
        |state| {
            fs::write(state.join("other"), "").expect("there");
            fs::rename(state.join("other"), state.join("lock")).expect("there");
        },
        "lock was replaced",
    ),
    (
        "the socket is deleted",
        |state| fs::remove_file(state.join("control.sock")).expect("there"),
        "control.sock was deleted",
    ),
    (
        "the ledger is deleted",
        |state| fs::remove_file(state.join("ledger")).expect("there"),
        "ledger was deleted",
    ),
    (
        "the directory is deleted",
        |state| {
            // The supervisor may be adding files to it.
            wait_until("an empty directory", SOON, || {
                fs::remove_dir_all(state).ok()
            });
        },
        "was deleted",
    ),
    (
        "the directory is moved away",
        |state| fs::rename(state, state.with_extension("away")).expect("there"),
        "was moved",
    ),
];

#[test]
fn what_is_taken_from_a_supervisor_is_made_anew_and_nothing_runs_twice() {
    for (what, lose, says) in LOSSES {
        let (sandbox, manifest) = sandbox(TWO);
        let mut supervisor = Supervisor::start(&sandbox, &manifest);
        event(&supervisor, "a", "ready");
        event(&supervisor, "b", "started");
        let before = pids(&sandbox);
        lose(&sandbox.state_dir());
        // The second supervisor is also refused at once.
        refused(&sandbox, supervisor.id(), what);
        notice(&supervisor, says);
        assert_eq!(pids(&sandbox), before, "{what}");
        refused(&sandbox, supervisor.id(), what);
        assert_eq!(notices(&supervisor, says), 1, "{what}: said once");
        // The files for a successor are restored, too, except for the names of pipes.
        supervisor.kill_dash_nine();
        let supervisor = Supervisor::start(&sandbox, &manifest);
        if what.contains("directory") {
            notice(&supervisor, "2 processes were killed");
            event(&supervisor, "a", "ready");
            event(&supervisor, "b", "started");
        } else {
            event(&supervisor, "a", "adopted");
            event(&supervisor, "b", "adopted");
            assert_eq!(pids(&sandbox), before, "{what}");
            assert_eq!(lines(&sandbox, "b-starts"), 1, "{what}");
        }
        assert_eq!(sandbox.processes().len(), 3, "{what}: no second copy");
        stop(supervisor, &sandbox);
    }
}

/// Checks that a second supervisor of the same manifest is refused soon, with the PID of the first
/// one.
#[track_caller]
fn refused(sandbox: &Sandbox, first: u32, what: &str) {
    let mut second = sandbox
        .command(mainstay())
        .args(["run", "mainstay.toml"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mainstay runs");
    let status = wait_until(&format!("{what}: a refusal"), SOON, || {
        second.try_wait().expect("ours")
    });
    let mut complaint = String::new();
    let mut stderr = second.stderr.take().expect("a pipe");
    std::io::Read::read_to_string(&mut stderr, &mut complaint).expect("text");
    assert_eq!(code(status), 75, "{what}: {complaint}");
    assert!(
        complaint.contains(&format!("pid {first}")),
        "{what}: {complaint}"
    );
}

/// Returns the PIDs that `status` currently reports.
fn pids(sandbox: &Sandbox) -> Vec<u64> {
    let report = json(sandbox, &["status", "--json"]);
    assert_eq!(report["supervisor"]["alive"], true, "{report}");
    let services = report["services"].as_array().expect("services").iter();
    services
        .map(|service| service["pid"].as_u64().expect("it runs"))
        .collect()
}

#[test]
fn a_supervisor_that_cannot_mend_its_lock_is_found_all_the_same() {
    for (what, lose, _) in LOSSES {
        let (sandbox, manifest) = sandbox(TWO);
        let supervisor = Supervisor::start(&sandbox, &manifest);
        event(&supervisor, "a", "ready");
        supervisor.signal(rustix::process::Signal::STOP);
        lose(&sandbox.state_dir());
        refused(&sandbox, supervisor.id(), what);
        supervisor.signal(rustix::process::Signal::CONT);
        wait_until("its answer", SOON, || {
            let status = verb(&sandbox, &["status"]);
            status.status.success().then_some(())
        });
        assert_eq!(lines(&sandbox, "b-starts"), 1, "{what}");
        stop(supervisor, &sandbox);
    }
}

#[test]
fn what_a_dead_supervisor_left_is_found_without_its_lock() {
    for (what, lose, adopts) in [
        (
            "the lock is emptied",
            (|state| fs::write(state.join("lock"), "").expect("there")) as fn(&Path),
            true,
        ),
        (
            "the lock is deleted",
            |state| fs::remove_file(state.join("lock")).expect("there"),
            true,
        ),
        (
            "all is deleted",
            |state| fs::remove_dir_all(state).expect("there"),
            false,
        ),
    ] {
        for containment in ["cgroup", "subreaper"] {
            let (sandbox, manifest) = sandbox(TWO);
            let run = || {
                let mut command = sandbox.command(mainstay());
                command
                    .args(["run", "--json"])
                    .arg(&manifest)
                    .env("MAINSTAY_CONTAINMENT", containment);
                Supervisor::spawn(command)
            };
            let mut supervisor = run();
            event(&supervisor, "a", "ready");
            event(&supervisor, "b", "started");
            supervisor.kill_dash_nine();
            lose(&sandbox.state_dir());
            if adopts {
                let status = verb(&sandbox, &["status"]);
                let complaint = String::from_utf8_lossy(&status.stderr);
                assert!(
                    complaint.contains("but its services are"),
                    "{what}: {complaint}"
                );
            }
            let supervisor = run();
            if adopts {
                event(&supervisor, "a", "adopted");
                event(&supervisor, "b", "adopted");
            } else {
                notice(&supervisor, "2 processes were killed");
                event(&supervisor, "a", "ready");
                event(&supervisor, "b", "started");
            }
            assert_eq!(sandbox.processes().len(), 3, "{what}: no second copy");
            stop(supervisor, &sandbox);
        }
    }
}
