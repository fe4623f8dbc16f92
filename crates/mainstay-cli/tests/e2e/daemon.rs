//! `mainstay daemon`: a service manager whose services are installed, changed and removed while it
//! runs, and process 1 of a container.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use mainstay_testkit::procs;
use rustix::process::{Pid, Signal};

use super::*;

/// The arguments of an installation, and of a daemon that prints events.
const INSTALL: [&str; 3] = ["install", "--manager", "embedded"];
const DAEMON: [&str; 2] = ["daemon", "--json"];

pub(super) fn daemon(sandbox: &Sandbox, more: &[&str]) -> Supervisor {
    let mut command = sandbox.command(mainstay());
    command.args(DAEMON).args(more);
    Supervisor::spawn(command)
}

/// Writes a manifest into a directory of its own.
fn manifest(sandbox: &Sandbox, name: &str, services: &str) -> PathBuf {
    let dir = sandbox.path().join(name);
    fs::create_dir_all(&dir).expect("a directory");
    let text = services
        .replace("PUPPET", &puppet().display().to_string())
        .replace("HERE", &sandbox.path().display().to_string());
    let text = format!("environment = \"development\"\n{text}");
    sandbox.write(&format!("{name}/mainstay.toml"), &text)
}

/// Installs a manifest and returns the output.
#[track_caller]
pub(super) fn install(sandbox: &Sandbox, name: &str, services: &str) -> String {
    let path = manifest(sandbox, name, services);
    let (code, text) = said(
        sandbox,
        &[&INSTALL[..], &[&path.display().to_string()]].concat(),
    );
    assert_eq!(code, 0, "{text}");
    text
}

/// Checks that an installation is refused with these words.
#[track_caller]
fn refused(sandbox: &Sandbox, name: &str, services: &str, words: &str) {
    let path = manifest(sandbox, name, services);
    let (code, text) = said(
        sandbox,
        &[&INSTALL[..], &[&path.display().to_string()]].concat(),
    );
    assert!(code != 0 && text.contains(words), "{code}: {text}");
}

#[track_caller]
fn ok(sandbox: &Sandbox, args: &[&str]) -> String {
    let (code, text) = said(sandbox, args);
    assert_eq!(code, 0, "{args:?}: {text}");
    text
}

/// Returns the state and PID of every service.
fn listed(sandbox: &Sandbox) -> BTreeMap<String, (String, Option<u64>)> {
    let output = verb(sandbox, &["list", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("a JSON document");
    let services = report["services"].as_array().expect("services").iter();
    let text = |service: &Value, key: &str| service[key].as_str().unwrap_or_default().to_owned();
    services
        .map(|it| (text(it, "name"), (text(it, "state"), it["pid"].as_u64())))
        .collect()
}

fn names(sandbox: &Sandbox) -> Vec<String> {
    listed(sandbox).into_keys().collect()
}

fn notice(supervisor: &Supervisor, part: &str) {
    supervisor.wait_event(SOON, |event| {
        let message = event["message"].as_str().unwrap_or_default();
        event["event"] == "notice" && message.contains(part)
    });
}

/// Waits until the daemon answers.
fn wait_up(sandbox: &Sandbox) {
    wait_until("a daemon that answers", SOON, || {
        verb(sandbox, &["list"]).status.success().then_some(())
    });
}

const SHOP: &str = r#"
    [service.api]
    command = ["PUPPET", "touch", "HERE/api", "hang"]
    needs = ["db"]
    start = { ready = { file = "HERE/api" } }
    [service.db]
    command = ["PUPPET", "print", "db is up", "touch", "HERE/db", "hang"]
    start = { ready = { file = "HERE/db" } }
"#;

#[test]
fn what_is_installed_starts_with_the_daemon_in_the_order_of_needs() {
    let sandbox = Sandbox::new();
    assert_eq!(
        install(&sandbox, "shop", SHOP),
        "api: installed (embedded)\ndb: installed (embedded)\n"
    );
    let other = r#"
        [service.cron]
        command = ["PUPPET", "hang"]
        needs = ["os:api"]
        [service.spare]
        command = ["./here.sh"]
    "#;
    install(&sandbox, "other", other);
    ok(&sandbox, &["disable", "spare"]);
    let own = "#!/bin/sh\necho from $PWD\nexec sleep 1000\n";
    let script = sandbox.write("other/here.sh", own);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&script, mode).expect("it is ours");

    let supervisor = daemon(&sandbox, &[]);
    event(&supervisor, "cron", "started");
    assert_eq!(order(&supervisor, "started"), ["db", "api", "cron"]);
    assert_eq!(listed(&sandbox)["spare"], ("stopped".to_owned(), None));
    // Relative paths start at the original directory of the manifest.
    ok(&sandbox, &["start", "spare"]);
    let log = wait_until("its words", SOON, || {
        Some(ok(&sandbox, &["logs", "spare"])).filter(|log| !log.is_empty())
    });
    assert_eq!(log, format!("from {}/other\n", sandbox.path().display()));
    stop(supervisor, &sandbox);
    assert!(!sandbox.state_dir().join("ledger").exists());
}

#[test]
fn services_come_change_and_go_while_others_run_untouched() {
    let sandbox = Sandbox::new();
    let supervisor = daemon(&sandbox, &[]);
    wait_up(&sandbox);
    assert_eq!(names(&sandbox), [""; 0]);
    install(&sandbox, "shop", SHOP);
    assert_eq!(listed(&sandbox)["api"], ("stopped".to_owned(), None));
    ok(&sandbox, &["start", "api"]);
    let before = listed(&sandbox);
    assert!(before.values().all(|(state, _)| state == "running"));

    // A need of another manifest must be installed.
    let nobody = "[service.late]\ncommand = [\"PUPPET\", \"hang\"]\nneeds = [\"os:nobody\"]\n";
    let words = "late: it needs nobody, which is neither in its manifest nor installed";
    refused(&sandbox, "late", nobody, words);
    // The installation is all or none, and leaves nothing behind.
    let taken = "[service.db]\ncommand = [\"PUPPET\", \"exit\", \"3\"]\nneeds = [\"late\"]\n";
    let circle = nobody.replace("nobody", "api") + taken;
    refused(&sandbox, "late", &circle, "dependency cycle");
    assert!(!sandbox.state_dir().join("installed/late").exists());
    assert_eq!(listed(&sandbox), before);
    let late = "[service.late]\ncommand = [\"PUPPET\", \"print\", \"one\", \"hang\"]\nneeds = [\"os:api\"]\n";
    assert_eq!(
        install(&sandbox, "late", late),
        "late: installed (embedded)\n"
    );
    ok(&sandbox, &["start", "late"]);

    // A running service keeps its definition until its next start.
    assert_eq!(install(&sandbox, "late", late), "late: up to date\n");
    let with_late = listed(&sandbox);
    let changed = late
        .replace("one", "two")
        .replace("needs", "log = { format = \"json\" }\nneeds");
    assert_eq!(install(&sandbox, "late", &changed), "late: updated\n");
    assert_eq!(install(&sandbox, "late", &changed), "late: up to date\n");
    assert_eq!(listed(&sandbox), with_late);
    ok(&sandbox, &["restart", "late"]);
    let log = wait_until("two lines", SOON, || {
        let log = ok(&sandbox, &["logs", "late"]);
        (log.lines().count() == 2).then_some(log)
    });
    let (first, second) = log.split_once('\n').expect("two lines");
    assert_eq!(first, "one");
    assert!(
        second.starts_with('{') && second.contains("\"two\""),
        "{log}"
    );

    // A service that others need stays installed.
    let (code, text) = said(&sandbox, &["uninstall", "db"]);
    assert!(
        code == 1 && text.contains("cannot uninstall db: api needs it"),
        "{text}"
    );
    ok(&sandbox, &["uninstall", "late"]);
    assert_eq!(listed(&sandbox), before, "the others run untouched");
    assert_eq!(sandbox.processes().len(), 3);
    assert!(sandbox.state_dir().join("logs/late").exists());
    let (code, _) = said(&sandbox, &["uninstall", "late"]);
    assert_eq!(code, 4);
    // The service can be installed again, and continues its log.
    install(&sandbox, "late", late);
    ok(&sandbox, &["start", "late"]);
    wait_until("its next words", SOON, || {
        let log = ok(&sandbox, &["logs", "late"]);
        log.ends_with("\none\n").then_some(())
    });
    ok(&sandbox, &["uninstall", "late", "db", "api", "--purge"]);
    for place in ["logs", "data", "pipes", "installed"] {
        let entries = fs::read_dir(sandbox.state_dir().join(place)).expect("a directory");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let names: Vec<_> = names
            .filter(|name| !name.to_string_lossy().starts_with('.'))
            .collect();
        assert!(names.is_empty(), "{place}: {names:?}");
    }
    assert_eq!(sandbox.processes().len(), 1);
    stop(supervisor, &sandbox);
}

/// The log contains the output that a service writes while it is stopped for removal.
#[test]
fn recent_output_of_a_removed_service_is_kept() {
    let sandbox = Sandbox::new();
    let supervisor = daemon(&sandbox, &[]);
    wait_up(&sandbox);
    let services = r#"
        [service.talks]
        command = ["sh", "-c", "trap 'PUPPET flood 5000; exit' TERM; echo up; while :; do sleep 0.01; done"]
        start = { ready = { log = "^up$" } }
        [service.stays]
        command = ["PUPPET", "hang"]
    "#;
    install(&sandbox, "all", services);
    ok(&sandbox, &["start", "talks", "stays"]);
    ok(&sandbox, &["uninstall", "talks"]);
    let log = fs::read_to_string(sandbox.state_dir().join("logs/talks/current.log"));
    let log = log.expect("a log");
    // The shell also prints messages about its children.
    let flood = log.lines().filter(|line| line.starts_with("0000000"));
    let numbers = flood.map(|line| line[..12].parse::<u32>().expect("a number"));
    assert!(numbers.eq(0..5000), "{log}");
    // Without anything to do, nothing wakes up, even after installations and removals.
    let pid = Pid::from_raw(supervisor.id() as i32).expect("a pid");
    assert_asleep([pid, keeper(&sandbox)]);
    stop(supervisor, &sandbox);
}

/// A service that was installed a moment ago is adopted like any other. No line of its output is
/// lost or repeated.
#[test]
fn a_daemon_that_is_killed_is_succeeded() {
    const LINES: usize = 30_000;
    for containment in ["cgroup", "subreaper"] {
        let sandbox = Sandbox::new();
        let start = || {
            let mut command = sandbox.command(mainstay());
            command
                .args(DAEMON)
                .env("MAINSTAY_CONTAINMENT", containment);
            Supervisor::spawn(command)
        };
        install(&sandbox, "shop", SHOP);
        let mut supervisor = start();
        event(&supervisor, "api", "ready");
        // One service is removed, so that another takes its place.
        install(
            &sandbox,
            "gone",
            "[service.gone]\ncommand = [\"PUPPET\", \"hang\"]\n",
        );
        ok(&sandbox, &["start", "gone"]);
        let flood = format!(
            "[service.flood]\ncommand = [\"PUPPET\", \"count\", \"HERE/starts\", \"print\", \"up\", \"await\", \"HERE/go\", \"flood\", \"{LINES}\", \"touch\", \"HERE/said\", \"hang\"]\n\
             start = {{ ready = {{ log = \"^up$\" }} }}\n"
        );
        ok(&sandbox, &["uninstall", "gone"]);
        install(&sandbox, "flood", &flood);
        ok(&sandbox, &["start", "flood"]);
        ok(&sandbox, &["stop", "api"]);
        let before = listed(&sandbox);
        for death in 0..3 {
            supervisor.kill_dash_nine();
            if death == 1 {
                // From here on, the service writes while there is no daemon, and then while there
                // is one that is killed again.
                sandbox.write("go", "");
            }
            let (code, text) = said(&sandbox, &["status"]);
            assert!(
                code == 3 && text.contains("`mainstay daemon` adopts them"),
                "{text}"
            );
            supervisor = start();
            for name in ["db", "flood"] {
                event(&supervisor, name, "adopted");
            }
            assert_eq!(listed(&sandbox), before);
            assert_eq!(order(&supervisor, "started"), [""; 0]);
        }
        wait_until("the end of the flood", SOON, || {
            sandbox.path().join("said").exists().then_some(())
        });
        // The installed definition is also in effect after an adoption.
        let replaced = flood
            .replace("\"up\"", "\"anew\"")
            .replace("^up$", "^anew$");
        install(&sandbox, "flood", &replaced);
        assert_eq!(listed(&sandbox), before);
        stop(supervisor, &sandbox);
        let log = fs::read_to_string(sandbox.state_dir().join("logs/flood/current.log"));
        let log = log.expect("a log");
        let mut lines = log.lines();
        assert_eq!(lines.next(), Some("up"));
        for (i, line) in lines.by_ref().take(LINES).enumerate() {
            assert!(
                line.starts_with(&format!("{i:012} ")),
                "{containment}: {line:?} is line {i}"
            );
        }
        assert_eq!(lines.next(), None);
        let starts = fs::read_to_string(sandbox.path().join("starts")).expect("a count");
        assert_eq!(starts.lines().count(), 1);
    }
}

/// While no daemon runs, verbs work on the files only. Services left by a killed daemon are
/// stopped.
#[test]
fn what_changes_meanwhile_is_known_at_the_next_start() {
    let sandbox = Sandbox::new();
    let three = "[service.a]\ncommand = [\"PUPPET\", \"hang\"]\n\
        [service.b]\ncommand = [\"PUPPET\", \"hang\"]\n\
        [service.c]\ncommand = [\"PUPPET\", \"hang\"]\n";
    install(&sandbox, "three", three);
    let mut supervisor = daemon(&sandbox, &[]);
    for name in ["a", "b", "c"] {
        event(&supervisor, name, "started");
    }
    supervisor.kill_dash_nine();
    ok(&sandbox, &["uninstall", "a"]);
    assert_eq!(sandbox.processes().len(), 2, "a is stopped");
    ok(&sandbox, &["uninstall", "b", "--purge"]);
    assert_eq!(sandbox.processes().len(), 1, "b is stopped");
    let changed = three.replace("\"hang\"", "\"print\", \"new\", \"hang\"");
    let path = manifest(&sandbox, "three", &changed).display().to_string();
    ok(&sandbox, &[&INSTALL[..], &[&path, "c"]].concat());
    let supervisor = daemon(&sandbox, &[]);
    event(&supervisor, "c", "adopted");
    notice(
        &supervisor,
        "c: its definition has changed; restart it to apply the change",
    );
    assert_eq!(names(&sandbox), ["c"]);
    ok(&sandbox, &["restart", "c"]);
    wait_until("new words", SOON, || {
        (ok(&sandbox, &["logs", "c"]) == "new\n").then_some(())
    });
    stop(supervisor, &sandbox);
}

/// A service that cannot be started, or whose definition cannot be read, does not keep the others
/// down.
#[test]
fn one_of_many_that_is_broken_harms_no_other() {
    let sandbox = Sandbox::new();
    let broken = r#"
        [service.missing]
        command = ["/nowhere/at/all"]
        recovery = { policy = "never" }
        [service.torn]
        command = ["PUPPET", "hang"]
        [service.after]
        command = ["PUPPET", "hang"]
        needs = ["torn"]
        [service.good]
        command = ["PUPPET", "hang"]
    "#;
    install(&sandbox, "all", broken);
    let record = sandbox.state_dir().join("installed/torn/embedded.json");
    fs::write(record, "{\"format\":99}").expect("written");
    let mut supervisor = daemon(&sandbox, &[]);
    event(&supervisor, "good", "started");
    event(&supervisor, "missing", "halted");
    notice(
        &supervisor,
        "cannot load the installed service torn: cannot read",
    );
    let torn = service(&sandbox, "torn");
    assert_eq!(torn["state"], "halted");
    assert!(
        torn["detail"].to_string().contains("unsupported format 99"),
        "{torn}"
    );
    let (failed, text) = said(&sandbox, &["start", "after"]);
    assert_eq!(failed, 1, "{text}");
    assert!(text.contains("unsupported format 99"), "{text}");
    // To install it again mends it.
    let path = manifest(&sandbox, "all", broken).display().to_string();
    ok(&sandbox, &[&INSTALL[..], &[&path]].concat());
    ok(&sandbox, &["start", "after"]);
    supervisor.signal(Signal::TERM);
    assert_eq!(code(supervisor.wait(SOON)), 1, "not all was well");
    sandbox.assert_no_leftovers();
}

#[test]
fn a_supervisor_of_one_manifest_takes_no_other_services() {
    let (supervisor, sandbox) = supervise("[service.a]\ncommand = [\"PUPPET\", \"hang\"]\n");
    event(&supervisor, "a", "started");
    let b = "[service.b]\ncommand = [\"PUPPET\", \"hang\"]\n";
    refused(&sandbox, "b", b, "not `mainstay daemon`");
    assert!(!sandbox.state_dir().join("installed/b").exists());
    assert_eq!(names(&sandbox), ["a"]);
    stop(supervisor, &sandbox);
}

#[test]
fn a_hang_up_is_for_those_who_reload() {
    let sandbox = Sandbox::new();
    let services = r#"
        [service.handles]
        command = ["sh", "-c", "trap 'echo reloaded' HUP; echo up; while :; do sleep 0.01; done"]
        start = { ready = { log = "^up$" } }
        [service.command]
        command = ["PUPPET", "hang"]
        reload = { exec = ["touch", "HERE/reloaded"] }
        [service.neither]
        command = ["PUPPET", "hang"]
    "#;
    install(&sandbox, "all", services);
    let supervisor = daemon(&sandbox, &[]);
    event(&supervisor, "handles", "ready");
    for name in ["command", "neither"] {
        event(&supervisor, name, "started");
    }
    let before = listed(&sandbox);
    supervisor.signal(Signal::HUP);
    wait_until("both to reload", SOON, || {
        let has_handled = ok(&sandbox, &["logs", "handles"]).contains("reloaded");
        (has_handled && sandbox.path().join("reloaded").exists()).then_some(())
    });
    assert_eq!(listed(&sandbox), before);
    stop(supervisor, &sandbox);
}

/// The parent of the daemon is notified when all services that start with it have started.
#[test]
fn its_parent_is_told_when_all_have_started() {
    let sandbox = Sandbox::new();
    let services = "[service.slow]\ncommand = [\"PUPPET\", \"await\", \"HERE/go\", \"touch\", \"HERE/up\", \"hang\"]\n\
        start = { ready = { file = \"HERE/up\" } }\n";
    install(&sandbox, "slow", services);
    let address = sandbox.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&address).expect("a socket");
    let mut command = sandbox.command(mainstay());
    command.args(DAEMON).env("NOTIFY_SOCKET", &address);
    let mut supervisor = Supervisor::spawn(command);
    event(&supervisor, "slow", "started");
    socket.set_nonblocking(true).expect("a socket");
    let mut message = [0; 64];
    let nothing = socket.recv(&mut message).expect_err("it is not ready");
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    sandbox.write("go", "");
    socket.set_nonblocking(false).expect("a socket");
    socket.set_read_timeout(Some(SOON)).expect("a socket");
    let mut next = || {
        let length = socket.recv(&mut message).expect("a message");
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    assert_eq!(next(), "READY=1");
    supervisor.signal(Signal::TERM);
    assert_eq!(next(), "STOPPING=1");
    assert_eq!(code(supervisor.wait(SOON)), 0);
}

/// The reaction to each exit code is the same as under `mainstay run`, and the daemon ends with it.
#[test]
fn exit_codes_are_a_contract_under_the_daemon_too() {
    let daemons = CODES.map(|code| {
        let sandbox = Sandbox::new();
        let services = format!(
            "[service.it]\ncommand = [\"PUPPET\", \"count\", \"HERE/starts\", \"exit\", \"{code}\"]\n\
             recovery = {{ delay = \"10ms\", limit = {{ restarts = 5, window = \"1m\", then = \"halt\" }} }}\n"
        );
        install(&sandbox, "it", &services);
        (code, daemon(&sandbox, &["--exit-when-done"]), sandbox)
    });
    for (code, mut supervisor, sandbox) in daemons {
        let status = supervisor.wait(SOON);
        let starts = fs::read_to_string(sandbox.path().join("starts")).expect("a count");
        let (expected, end) = contract(code);
        assert_eq!(starts.lines().count(), expected as usize, "{code}");
        assert_eq!(super::code(status), code);
        let ended = event(&supervisor, "it", "exited");
        assert_eq!(ended["exit"]["code"], code);
        let state = match end {
            "inactive" => "stopped",
            _ => "halted",
        };
        event(&supervisor, "it", state);
        sandbox.assert_no_leftovers();
    }
}

/// Returns the PID, in the host's namespace, of process 1 of the namespace that a command created.
fn process_1(sandbox: &Sandbox) -> Pid {
    wait_until("process 1", SOON, || {
        let mut processes = sandbox.processes().into_iter();
        processes.find(|pid| procs::program(*pid) == "mainstay")
    })
}

/// Starts `mainstay daemon` as process 1.
fn in_container(sandbox: &Sandbox, more: &[&str]) -> Option<(Supervisor, Pid)> {
    const NAMESPACE: [&str; 4] = ["--pid", "--fork", "--mount-proc", "--kill-child"];
    let made = sandbox
        .command("unshare")
        .args(NAMESPACE)
        .arg("true")
        .output();
    match made {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            mainstay_testkit::skip(format!("no namespace of processes: {}", why.trim()));
            return None;
        }
        Err(error) => {
            mainstay_testkit::skip(format!("unshare: {error}"));
            return None;
        }
    }
    let mut command = sandbox.command("unshare");
    command
        .args(NAMESPACE)
        .arg(mainstay())
        .args(DAEMON)
        .args(more);
    let supervisor = Supervisor::spawn(command);
    let init = process_1(sandbox);
    Some((supervisor, init))
}

fn signal(pid: Pid, signal: Signal) {
    rustix::process::kill_process(pid, signal).expect("it lives");
}

#[test]
fn it_is_process_1_of_a_container() {
    let sandbox = Sandbox::new();
    let services = r#"
        [service.db]
        command = ["PUPPET", "on-term", "exit", "0", "touch", "HERE/db", "hang"]
        start = { ready = { file = "HERE/db" } }
        [service.api]
        command = ["PUPPET", "fork-setsid", "touch", "HERE/api", "hang"]
        start = { ready = { file = "HERE/api" } }
        needs = ["db"]
    "#;
    install(&sandbox, "shop", services);
    let Some((mut supervisor, init)) = in_container(&sandbox, &[]) else {
        return;
    };
    event(&supervisor, "api", "ready");
    let report = json(&sandbox, &["status", "--json"]);
    assert_eq!(report["supervisor"]["pid"], 1);

    // A process from outside leaves an orphan there, which belongs to no service.
    let before = sandbox.processes();
    let namespace = init.as_raw_nonzero().to_string();
    let orphan = format!(
        "{} await {}/end &",
        puppet().display(),
        sandbox.path().display()
    );
    let mut enter = sandbox.command("nsenter");
    enter.args([
        "--target", &namespace, "--pid", "--mount", "sh", "-c", &orphan,
    ]);
    assert!(enter.status().expect("nsenter runs").success());
    let orphan = wait_until("the orphan", SOON, || {
        let mut processes = sandbox.processes().into_iter();
        processes.find(|pid| !before.contains(pid) && procs::program(*pid) == "puppet")
    });
    let parent = || procs::field(orphan, "status", "PPid");
    let init_pid = u64::from(init.as_raw_nonzero().get().unsigned_abs());
    wait_until("its new parent", SOON, || {
        (parent() == Some(init_pid)).then_some(())
    });
    sandbox.write("end", "");
    wait_until("the orphan to be collected", SOON, || {
        (!Path::new(&procs::path(orphan, "")).exists()).then_some(())
    });

    // Services can be installed there as elsewhere.
    install(
        &sandbox,
        "late",
        "[service.late]\ncommand = [\"PUPPET\", \"hang\"]\n",
    );
    ok(&sandbox, &["start", "late"]);
    signal(init, Signal::TERM);
    assert_eq!(code(supervisor.wait(SOON)), 0);
    let stopped = order(&supervisor, "stopped");
    let place = |name| stopped.iter().position(|stopped| stopped == name);
    assert!(
        place("api") < place("db") && stopped.len() == 3,
        "{stopped:?}"
    );
    let ended = event(&supervisor, "db", "exited");
    assert_eq!(ended["exit"]["code"], 0, "it was asked, not killed");
    sandbox.assert_no_leftovers();
}

#[test]
fn a_second_signal_kills_and_is_no_orderly_end() {
    let stubborn = "[service.stubborn]\ncommand = [\"PUPPET\", \"ignore\", \"term,int\", \"touch\", \"HERE/up\", \"hang\"]\n\
        start = { ready = { file = \"HERE/up\" } }\nstop = { graceful = \"60s\" }\n";
    let sandbox = Sandbox::new();
    install(&sandbox, "it", stubborn);
    let Some((mut supervisor, init)) = in_container(&sandbox, &[]) else {
        return;
    };
    event(&supervisor, "stubborn", "ready");
    signal(init, Signal::INT);
    event(&supervisor, "stubborn", "stopping");
    // A second signal counts only after the first one was shown for half a second.
    std::thread::sleep(Duration::from_millis(600));
    signal(init, Signal::TERM);
    assert_eq!(code(supervisor.wait(SOON)), 1);
    sandbox.assert_no_leftovers();

    // The same applies when its stop timeout is over.
    let sandbox = Sandbox::new();
    install(&sandbox, "it", &stubborn.replace("60s", "10ms"));
    let mut supervisor = daemon(&sandbox, &[]);
    event(&supervisor, "stubborn", "ready");
    supervisor.signal(Signal::TERM);
    assert_eq!(code(supervisor.wait(SOON)), 1);
    event(&supervisor, "stubborn", "killing");
    sandbox.assert_no_leftovers();
}

/// The container was killed. The next one with the same state starts anew.
#[test]
fn a_container_that_was_killed_begins_anew() {
    let sandbox = Sandbox::new();
    let services = "[service.it]\ncommand = [\"PUPPET\", \"count\", \"HERE/starts\", \"exit\", \"7\"]\nrecovery = { policy = \"never\" }\n\
        [service.other]\ncommand = [\"PUPPET\", \"count\", \"HERE/others\", \"hang\"]\nrecovery = { delay = \"10ms\" }\n";
    install(&sandbox, "it", services);
    let Some((mut supervisor, init)) = in_container(&sandbox, &[]) else {
        return;
    };
    event(&supervisor, "it", "halted");
    event(&supervisor, "other", "started");
    signal(init, Signal::KILL);
    supervisor.wait(SOON);
    sandbox.assert_no_leftovers();
    let Some((mut supervisor, init)) = in_container(&sandbox, &[]) else {
        return;
    };
    event(&supervisor, "other", "started");
    assert_eq!(listed(&sandbox)["it"].0, "halted");
    signal(init, Signal::TERM);
    assert_eq!(code(supervisor.wait(SOON)), 1, "one is halted");
    sandbox.assert_no_leftovers();
}

/// Returns the path of the copy of a service's manifest.
fn copy_of(sandbox: &Sandbox, name: &str) -> PathBuf {
    let place = sandbox.state_dir().join("installed").join(name);
    place.join("mainstay.toml").with_file_name("manifest.toml")
}

/// Returns the output of a verb as a JSON document, whatever its exit code.
fn document(sandbox: &Sandbox, args: &[&str]) -> Value {
    let output = verb(sandbox, &[args, &["--json"]].concat());
    let text = [output.stdout, output.stderr].concat();
    serde_json::from_slice(&text)
        .unwrap_or_else(|_| panic!("{args:?}: {}", String::from_utf8_lossy(&text)))
}

fn entry(sandbox: &Sandbox, name: &str) -> Value {
    document(sandbox, &["status", name])["services"][0].clone()
}

fn history(sandbox: &Sandbox, name: &str) -> Vec<String> {
    let history = document(sandbox, &["history", name]);
    let entries = history["entries"].as_array().expect("entries").iter();
    let shown = |it: &Value| format!("{} {}", it["event"].as_str().expect("text"), it["version"]);
    entries.map(shown).collect()
}

const SECRET: &str = r#"
    [service.shop]
    command = ["HERE/program", "1000"]
    env = { KEY = "hunter2" }
"#;

/// The only finding of `verify` while no daemon runs.
const NO_DAEMON: &str = "`mainstay daemon`, which should run it, is not running";
/// The first sources that `verify` asks about a service of the daemon.
const SOURCES: [&str; 5] = ["registry", "manifest", "program", "supervisor", "ledger"];

/// The same as with system managers (registry.rs).
#[test]
fn a_definition_has_versions_a_history_and_drift_here_too() {
    let sandbox = Sandbox::new();
    let program = sandbox.path().join("program");
    let renew = |from: &str| {
        let new = sandbox.path().join("new");
        fs::copy(from, &new).expect("a program");
        fs::rename(new, &program).expect("it is ours");
    };
    renew("/bin/sleep");
    let one = manifest(&sandbox, "one", SECRET).display().to_string();
    let two = SECRET.replace("hunter2", "hunter3") + "stop = { graceful = \"2s\" }";
    let two = manifest(&sandbox, "one/two", &two).display().to_string();
    let stale = [&INSTALL[..], &[&one, "--if-version"]].concat();
    let at = |file: &str, version: &str| {
        let words = [&INSTALL[..], &[file, "--if-version", version]].concat();
        said(&sandbox, &words)
    };
    let version = || entry(&sandbox, "shop")["version"].clone();
    let no_drift = || assert_eq!(entry(&sandbox, "shop")["drift"], Value::Array(vec![]));
    assert_eq!(said(&sandbox, &[&stale[..], &["1"]].concat()).0, 4);
    assert_eq!(at(&one, "0").0, 0);
    assert_eq!(version(), 1);
    let etag = entry(&sandbox, "shop")["etag"].clone();
    assert_eq!(etag.as_str().map(str::len), Some(64));
    no_drift();
    // An unchanged definition does not create a version.
    ok(&sandbox, &[&INSTALL[..], &[&one]].concat());
    assert_eq!(version(), 1);

    let supervisor = daemon(&sandbox, &[]);
    event(&supervisor, "shop", "started");
    assert_eq!(
        (version(), &entry(&sandbox, "shop")["etag"]),
        (1.into(), &etag)
    );
    assert_eq!(code(verb(&sandbox, &["verify", "shop"]).status), 0);

    // A stale version is refused, and nothing is changed.
    let copy = copy_of(&sandbox, "shop");
    let text = fs::read_to_string(&copy).expect("the copy");
    let (status, words) = at(&two, "2");
    assert_eq!(status, 75, "{words}");
    assert!(words.contains("shop is at version 1, not 2"), "{words}");
    assert_eq!(at(&two, "0").0, 75);
    assert_eq!(
        said(&sandbox, &["uninstall", "shop", "--if-version", "2"]).0,
        75
    );
    assert_eq!(fs::read_to_string(&copy).expect("the copy"), text);

    // The running process has another version until it is restarted.
    assert_eq!(at(&two, "1").0, 0);
    assert_eq!(version(), 2);
    assert_ne!(entry(&sandbox, "shop")["etag"], etag);
    let outdated = "it still runs version 1: restart it (mainstay restart shop)";
    assert_eq!(
        entry(&sandbox, "shop")["drift"],
        serde_json::json!([outdated])
    );
    assert_eq!(code(verb(&sandbox, &["verify", "shop"]).status), 79);
    assert_eq!(
        document(&sandbox, &["verify", "shop"])["causes"],
        serde_json::json!([outdated])
    );
    ok(&sandbox, &["restart", "shop"]);
    no_drift();
    assert_eq!(history(&sandbox, "shop"), ["created 1", "updated 2"]);

    // The same definition in other words is a new version, but needs no restart.
    let text = fs::read_to_string(&two).expect("ours") + "\n# in other words\n";
    fs::write(&two, text).expect("ours");
    assert_eq!(at(&two, "2").1, "shop: up to date\n");
    assert_eq!(version(), 3);
    no_drift();

    let diff = ok(&sandbox, &["diff", "shop", "--from", "1"]);
    assert!(
        diff.contains("+++ shop version 3\n") && diff.contains("+stop ="),
        "{diff}"
    );
    assert!(
        diff.contains("KEY = ***") && !diff.contains("hunter"),
        "{diff}"
    );

    // Drift and its repair.
    let record = copy.with_file_name("embedded.json");
    let spoil = |path: &Path, from: &str, to: &str| {
        let text = fs::read_to_string(path)
            .expect("the file")
            .replace(from, to);
        fs::write(path, text).expect("written");
    };
    let spoiled: [(&dyn Fn(), String); 4] = [
        (
            &|| spoil(&copy, "other words", "my words"),
            format!("{} differs from version 3", copy.display()),
        ),
        (
            &|| fs::remove_file(&copy).expect("it was there"),
            format!(
                "cannot read {}: No such file or directory (os error 2)",
                copy.display()
            ),
        ),
        (
            &|| spoil(&record, "\"version\":3", "\"version\":7"),
            format!("{} differs from version 3", record.display()),
        ),
        (
            &|| renew("/bin/cat"),
            format!(
                "the program {} has changed since the installation",
                program.display()
            ),
        ),
    ];
    for (spoil, cause) in spoiled {
        spoil();
        assert_eq!(
            code(verb(&sandbox, &["verify", "shop"]).status),
            79,
            "{cause}"
        );
        let seen = document(&sandbox, &["verify", "shop"]);
        assert_eq!(seen["causes"], serde_json::json!([cause]));
        assert_eq!(entry(&sandbox, "shop")["drift"], serde_json::json!([cause]));
        ok(&sandbox, &[&INSTALL[..], &[&two]].concat());
        no_drift();
        assert_eq!(version(), 3, "{cause}");
    }
    assert_eq!(history(&sandbox, "shop")[3..], ["refreshed 3"]);

    let seen = document(&sandbox, &["verify", "shop"]);
    let names = |at: usize| seen["witnesses"][at]["name"].as_str();
    assert_eq!((0..5).filter_map(names).collect::<Vec<_>>(), SOURCES);

    ok(&sandbox, &["uninstall", "shop", "--if-version", "3"]);
    assert_eq!(code(verb(&sandbox, &["verify", "shop"]).status), 4);
    assert_eq!(document(&sandbox, &["history", "shop"])["state"], "deleted");
    ok(&sandbox, &[&INSTALL[..], &[&one]].concat());
    assert_eq!(version(), 4, "a version never means two things");
    ok(&sandbox, &["uninstall", "shop"]);
    assert_eq!(said(&sandbox, &["uninstall", "shop"]).0, 4);
    ok(&sandbox, &["uninstall", "shop", "--purge"]);
    assert_eq!(said(&sandbox, &["history", "shop"]).0, 4);
    assert_eq!(said(&sandbox, &["uninstall", "shop", "--purge"]).0, 4);
    for left in ["registry.db", "installed/shop", "logs/shop", "data/shop"] {
        assert!(!sandbox.state_dir().join(left).exists(), "{left}");
    }
    stop(supervisor, &sandbox);
}

/// A service from before the registry is registered when it is installed again, and can be removed
/// without that.
#[test]
fn what_was_installed_before_there_was_a_registry_goes_on() {
    let sandbox = Sandbox::new();
    let services = "[service.shop]\ncommand = [\"PUPPET\", \"hang\"]\n";
    let forget = || {
        for entry in fs::read_dir(sandbox.state_dir())
            .expect("it is there")
            .flatten()
        {
            if entry
                .file_name()
                .to_string_lossy()
                .starts_with("registry.db")
            {
                fs::remove_file(entry.path()).expect("it is ours");
            }
        }
    };
    install(&sandbox, "shop", services);
    forget();
    let supervisor = daemon(&sandbox, &[]);
    event(&supervisor, "shop", "started");
    let unknown = "it is not in the registry: install it again";
    assert_eq!(
        entry(&sandbox, "shop")["drift"],
        serde_json::json!([unknown])
    );
    assert_eq!(code(verb(&sandbox, &["verify", "shop"]).status), 79);
    assert_eq!(install(&sandbox, "shop", services), "shop: up to date\n");
    assert_eq!(entry(&sandbox, "shop")["drift"], Value::Array(vec![]));
    assert_eq!(history(&sandbox, "shop"), ["created 1"]);
    forget();
    ok(&sandbox, &["uninstall", "shop", "--purge"]);
    assert_eq!(names(&sandbox), [""; 0]);
    stop(supervisor, &sandbox);
}

/// An incomplete change is detected, and repaired by the next one.
#[test]
fn a_change_that_died_is_seen_and_repaired() {
    let services = "[service.shop]\ncommand = [\"PUPPET\", \"hang\"]\n";
    let changed = format!("{services}env = {{ A = \"1\" }}\n");
    for repair in ["install", "uninstall"] {
        for is_new in [true, false] {
            let sandbox = Sandbox::new();
            if !is_new {
                install(&sandbox, "shop", services);
            }
            // A daemon that never answers stands for a death at any moment: everything was written
            // before the request to it.
            let socket = sandbox.state_dir().join("control.sock");
            fs::create_dir_all(sandbox.state_dir()).expect("a directory");
            let daemon = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
            let file = manifest(&sandbox, "shop", &changed).display().to_string();
            let mut command = sandbox.command(mainstay());
            command.args(INSTALL).arg(&file);
            let mut dying = command.spawn().expect("mainstay runs");
            let (asked, _) = daemon.accept().expect("it asks");
            let busy = document(&sandbox, &["history", "shop"]);
            assert!(["pending", "updating"].contains(&busy["state"].as_str().expect("text")));
            dying.kill().expect("it lives");
            dying.wait().expect("our child");
            drop((asked, daemon));
            fs::remove_file(&socket).expect("ours");
            if is_new {
                // The death can also happen earlier, between the two files.
                fs::remove_file(copy_of(&sandbox, "shop").with_file_name("embedded.json"))
                    .expect("it was written");
            }
            let seen = entry(&sandbox, "shop");
            let drift = seen["drift"].to_string();
            let cause = if is_new {
                "the process that installed it died"
            } else {
                "differs from version 1"
            };
            assert!(drift.contains(cause), "{seen}");
            assert_eq!(code(verb(&sandbox, &["verify", "shop"]).status), 79);
            match repair {
                "install" => {
                    install(&sandbox, "shop", services);
                    let seen = entry(&sandbox, "shop");
                    // The definition that failed was another one.
                    assert_eq!(seen["version"], 1 + u64::from(is_new));
                    assert_eq!(seen["drift"], Value::Array(vec![]));
                    let seen = document(&sandbox, &["verify", "shop"]);
                    assert_eq!(seen["causes"], serde_json::json!([NO_DAEMON]));
                }
                _ => ok(&sandbox, &["uninstall", "shop"]).clear(),
            }
            ok(&sandbox, &["uninstall", "shop", "--purge"]);
            assert_eq!(said(&sandbox, &["history", "shop"]).0, 4);
            assert!(!sandbox.state_dir().join("installed/shop").exists());
        }
    }
}

/// The registry still lists the service, so that it can be removed or installed again.
#[test]
fn an_uninstallation_that_died_is_seen_and_repaired() {
    let services = "[service.shop]\ncommand = [\"PUPPET\", \"hang\"]\n";
    for repair in ["install", "uninstall"] {
        let sandbox = Sandbox::new();
        install(&sandbox, "shop", services);
        let place = sandbox.state_dir().join("installed/shop");
        fs::remove_file(place.join("embedded.json")).expect("it is what goes first");
        let supervisor = daemon(&sandbox, &[]);
        wait_up(&sandbox);
        let seen = entry(&sandbox, "shop");
        assert_eq!(
            (&seen["state"], &seen["version"]),
            (&"stopped".into(), &1.into())
        );
        let detail = seen["detail"].as_str().expect("text");
        assert!(detail.contains("its files are missing"), "{detail}");
        assert_eq!(code(verb(&sandbox, &["verify", "shop"]).status), 79);
        if repair == "install" {
            assert_eq!(
                install(&sandbox, "shop", services),
                "shop: installed (embedded)\n"
            );
            ok(&sandbox, &["start", "shop"]);
            assert_eq!(code(verb(&sandbox, &["verify", "shop"]).status), 0);
        }
        ok(&sandbox, &["uninstall", "shop"]);
        assert!(!place.exists());
        assert_eq!(names(&sandbox), [""; 0]);
        stop(supervisor, &sandbox);
    }
}

/// If several processes change the same version, exactly one succeeds.
#[test]
fn a_version_has_one_author() {
    const AUTHORS: usize = 4;
    const TRIES: usize = 10;
    let sandbox = Sandbox::new();
    let services = "[service.shop]\ncommand = [\"PUPPET\", \"hang\"]\n";
    install(&sandbox, "shop", services);
    let supervisor = daemon(&sandbox, &[]);
    event(&supervisor, "shop", "started");
    let author = |author: usize| {
        let mut won = 0;
        for turn in 0..TRIES {
            let seen = entry(&sandbox, "shop")["version"].to_string();
            let services = format!("{services}env = {{ A = \"{author} {turn}\" }}\n");
            let file = manifest(&sandbox, &format!("{author}-{turn}"), &services);
            let words = [
                &INSTALL[..],
                &[file.to_str().expect("text"), "--if-version", &seen],
            ];
            match said(&sandbox, &words.concat()) {
                (0, _) => won += 1,
                (75, words) => assert!(words.contains("is at version"), "{words}"),
                other => panic!("{other:?}"),
            }
        }
        won
    };
    let won: usize = std::thread::scope(|scope| {
        let author = &author;
        let authors: Vec<_> = (0..AUTHORS)
            .map(|it| scope.spawn(move || author(it)))
            .collect();
        authors
            .into_iter()
            .map(|it| it.join().expect("no panic"))
            .sum()
    });
    let versions: Vec<String> = (1..=won)
        .map(|version| format!("updated {}", version + 1))
        .collect();
    assert_eq!(history(&sandbox, "shop")[1..], versions);
    assert!(won >= TRIES, "{won}: somebody wins each time");
    assert_eq!(entry(&sandbox, "shop")["version"], won + 1);
    ok(&sandbox, &["restart", "shop"]);
    assert_eq!(code(verb(&sandbox, &["verify", "shop"]).status), 0);
    stop(supervisor, &sandbox);
}

/// Services that operators stopped, or that halted, stay down, however the daemon and its container
/// end.
#[test]
fn a_stop_by_name_and_a_halt_hold_over_every_end_of_the_daemon() {
    let sandbox = Sandbox::new();
    let services = r#"
        [service.base]
        command = ["PUPPET", "count", "HERE/base", "hang"]
        [service.down]
        command = ["PUPPET", "count", "HERE/down", "hang"]
        needs = ["base"]
        [service.left]
        command = ["PUPPET", "count", "HERE/left", "hang"]
        needs = ["down"]
        [service.bad]
        command = ["PUPPET", "count", "HERE/bad", "exit", "3"]
        recovery = { policy = "strict" }
        [service.spare]
        command = ["PUPPET", "count", "HERE/spare", "hang"]
        [service.other]
        command = ["PUPPET", "count", "HERE/other", "hang"]
        needs = ["spare"]
    "#;
    install(&sandbox, "it", services);
    ok(&sandbox, &["disable", "spare"]);
    let starts = |name: &str| {
        let text = fs::read_to_string(sandbox.path().join(name));
        text.map_or(0, |text| text.lines().count())
    };
    let mut supervisor = daemon(&sandbox, &[]);
    event(&supervisor, "bad", "halted");
    event(&supervisor, "left", "started");
    // The service is disabled. It starts together with its dependent.
    event(&supervisor, "other", "started");
    ok(&sandbox, &["stop", "down"]);
    let path = sandbox.state_dir().join("installed/down/desired.json");
    for end in ["orderly", "kill", "orderly"] {
        match end {
            "kill" => supervisor.kill_dash_nine(),
            _ => {
                supervisor.signal(Signal::TERM);
                supervisor.wait(SOON);
            }
        }
        supervisor = daemon(&sandbox, &[]);
        event(&supervisor, "bad", "halted");
        let kind = if end == "kill" { "adopted" } else { "started" };
        event(&supervisor, "other", kind);
        let now = listed(&sandbox);
        assert_eq!(now["down"].0, "stopped", "{end}");
        assert_eq!(now["bad"].0, "halted", "{end}");
        let detail = service(&sandbox, "bad")["detail"].to_string();
        assert!(detail.contains("exit code 3"), "{end}: {detail}");
        assert_eq!((starts("down"), starts("bad")), (1, 1), "{end}");
    }
    // The dependent waits until an operator starts the service.
    assert_eq!(listed(&sandbox)["left"].0, "waiting");
    use std::os::unix::fs::PermissionsExt as _;
    let found = fs::metadata(&path).expect("it was written");
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    // The stop holds until the service is started.
    ok(&sandbox, &["start", "down"]);
    assert!(!path.exists());
    verb(&sandbox, &["restart", "bad"]);
    wait_until("another halt", SOON, || {
        (starts("bad") == 2 && listed(&sandbox)["bad"].0 == "halted").then_some(())
    });
    supervisor.kill_dash_nine();
    // The same applies to a service that is stopped while there is no daemon.
    ok(&sandbox, &["stop", "other"]);
    supervisor = daemon(&sandbox, &[]);
    event(&supervisor, "down", "adopted");
    assert_eq!(listed(&sandbox)["other"].0, "stopped");
    supervisor.signal(Signal::TERM);
    supervisor.wait(SOON);
    supervisor = daemon(&sandbox, &[]);
    event(&supervisor, "down", "started");
    assert_eq!(listed(&sandbox)["other"].0, "stopped");
    let before = starts("other");
    ok(&sandbox, &["uninstall", "other"]);
    install(&sandbox, "it", services);
    ok(&sandbox, &["stop"]);
    supervisor.signal(Signal::TERM);
    supervisor.wait(SOON);
    supervisor = daemon(&sandbox, &[]);
    wait_up(&sandbox);
    let now = listed(&sandbox);
    assert!(
        now.iter()
            .all(|(name, (state, _))| name == "other" || state != "running"),
        "{now:?}"
    );
    assert_eq!(starts("other"), before, "its need is stopped");
    supervisor.signal(Signal::TERM);
    supervisor.wait(SOON);
    sandbox.assert_no_leftovers();
}

const PAIR: &str = r#"
    [service.chat]
    command = ["PUPPET", "hang"]
    [service.nb]
    command = ["PUPPET", "hang"]
"#;

/// Starts a daemon of [`PAIR`] and waits until its services run.
fn daemon_of_pair(sandbox: &Sandbox) -> Supervisor {
    install(sandbox, "pair", PAIR);
    let supervisor = daemon(sandbox, &[]);
    event(&supervisor, "chat", "started");
    event(&supervisor, "nb", "started");
    supervisor
}

fn running(pid: u64) -> (String, Option<u64>) {
    ("running".to_owned(), Some(pid))
}

/// The file system of the state has no free block and no free inode. Any service with data on it
/// can cause that.
#[test]
fn a_full_state_file_system_leaves_operators_able_and_costs_no_ledger() {
    if !rustix::process::geteuid().is_root() {
        return mainstay_testkit::skip("a full file system needs a mount, and a mount needs root");
    }
    let sandbox = Sandbox::new();
    let state = sandbox.state_dir();
    fs::create_dir(&state).expect("a directory");
    let mount = |args: &[&str]| {
        let mut command = std::process::Command::new(args[0]);
        command.args(&args[1..]).arg(&state);
        command.status().is_ok_and(|status| status.success())
    };
    let options = "size=2m,nr_inodes=300,mode=700";
    if !mount(&["mount", "-t", "tmpfs", "-o", options, "tmpfs"]) {
        return mainstay_testkit::skip("this root may not mount a tmpfs");
    }
    let mut supervisor = daemon_of_pair(&sandbox);
    let filling = state.join("data/nb/filling");
    fs::create_dir(&filling).expect("a directory");
    let mut file = fs::File::create(filling.join("blocks")).expect("a file");
    while std::io::Write::write(&mut file, &[b'x'; 4096]).is_ok() {}
    let mut number = 0..;
    drop(file);
    while fs::File::create(filling.join(number.next().unwrap_or(0).to_string())).is_ok() {}

    let nb = |sandbox: &Sandbox| listed(sandbox)["nb"].1.expect("it runs");
    let before = nb(&sandbox);
    let text = ok(&sandbox, &["restart", "nb"]);
    assert!(text.contains("warning: cannot open the registry"), "{text}");
    let pid = nb(&sandbox);
    assert_ne!(pid, before);
    for _ in 0..2 {
        let text = ok(&sandbox, &["stop", "chat"]);
        let unwritten = "warning: chat: cannot write its desired state: No space left";
        assert!(text.contains(unwritten), "{text}");
        assert!(text.contains("the next daemon will start it"), "{text}");
        ok(&sandbox, &["start", "chat"]);
    }
    ok(&sandbox, &["stop", "chat"]);
    let problem = &service(&sandbox, "chat")["state_problem"];
    assert!(problem.to_string().contains("No space left"), "{problem}");
    for _ in 0..3 {
        supervisor.kill_dash_nine();
        let without = listed(&sandbox);
        assert_eq!(without["nb"], running(pid));
        assert_eq!(without["chat"].0, "stopped");
        supervisor = daemon(&sandbox, &[]);
        event(&supervisor, "nb", "adopted");
        wait_up(&sandbox);
        assert_eq!(listed(&sandbox), without);
        assert_eq!(order(&supervisor, "started"), [""; 0]);
    }
    // Whoever comes after the daemon that was told knows it, and writes it once there is room.
    let problem = &service(&sandbox, "chat")["state_problem"];
    assert!(problem.to_string().contains("No space left"), "{problem}");
    fs::remove_dir_all(&filling).expect("removed");
    notice(&supervisor, "chat: its desired state was written");
    assert!(service(&sandbox, "chat")["state_problem"].is_null());
    stop(supervisor, &sandbox);
    let supervisor = daemon(&sandbox, &[]);
    event(&supervisor, "nb", "started");
    assert_eq!(listed(&sandbox)["chat"].0, "stopped");
    stop(supervisor, &sandbox);
    assert!(mount(&["umount"]));
}

/// Files that were cut off or filled with something else, as by a power cut, cost no process that
/// runs, and their service stays known.
#[test]
fn a_damaged_installation_ends_and_forgets_nothing() {
    let sandbox = Sandbox::new();
    let mut supervisor = daemon_of_pair(&sandbox);
    let before = listed(&sandbox);
    let place = sandbox.state_dir().join("installed/nb");
    let succeed = |mut old: Supervisor| {
        old.kill_dash_nine();
        let new = daemon(&sandbox, &[]);
        event(&new, "nb", "adopted");
        event(&new, "chat", "adopted");
        assert_eq!(listed(&sandbox), before);
        new
    };
    for damage in ["", "{\"format\":1,\"state\":\"weird\"}", "{{{{"] {
        fs::write(place.join("desired.json"), damage).expect("written");
        supervisor = succeed(supervisor);
        notice(&supervisor, "nb: cannot read ");
        // What runs is not stopped, so the file is not needed.
        assert!(!place.join("desired.json").exists());
    }
    // Without a process it stays down until somebody says what is meant.
    let end = |mut supervisor: Supervisor| {
        supervisor.signal(Signal::TERM);
        assert_eq!(code(supervisor.wait(SOON)), 1, "not all was well");
    };
    end(supervisor);
    fs::write(place.join("desired.json"), "").expect("written");
    supervisor = daemon(&sandbox, &[]);
    event(&supervisor, "chat", "started");
    let nb = service(&sandbox, "nb");
    assert_eq!(nb["state"], "halted");
    assert!(nb["detail"].to_string().contains("desired.json"), "{nb}");
    ok(&sandbox, &["start", "nb"]);
    let before = listed(&sandbox);

    fs::write(place.join("manifest.toml"), "").expect("written");
    supervisor.kill_dash_nine();
    supervisor = daemon(&sandbox, &[]);
    event(&supervisor, "nb", "adopted");
    notice(&supervisor, "cannot load the installed service nb: ");
    assert_eq!(listed(&sandbox), before);
    ok(&sandbox, &["stop", "nb"]);
    let (failed, text) = said(&sandbox, &["start", "nb"]);
    assert_eq!(failed, 1, "{text}");
    assert!(
        text.contains("cannot load the installed service nb: "),
        "{text}"
    );
    install(&sandbox, "pair", PAIR);
    ok(&sandbox, &["start", "nb"]);
    end(supervisor);
    sandbox.assert_no_leftovers();
}

/// The record of an installation may be lost altogether, and with it a need of other services.
#[test]
fn a_lost_installation_ends_and_forgets_nothing() {
    let sandbox = Sandbox::new();
    let three = r#"
        [service.db]
        command = ["PUPPET", "hang"]
        [service.api]
        command = ["PUPPET", "hang"]
        needs = ["db"]
        [service.web]
        command = ["PUPPET", "hang"]
        needs = ["api"]
    "#;
    install(&sandbox, "three", three);
    let mut supervisor = daemon(&sandbox, &[]);
    event(&supervisor, "web", "started");
    let before = listed(&sandbox);
    let all = sandbox.state_dir().join("installed");
    let api = all.join("api");
    let lose: [&dyn Fn(); 4] = [
        &|| fs::remove_file(api.join("embedded.json")).expect("removed"),
        &|| fs::create_dir(api.join("embedded.json")).expect("made"),
        &|| fs::remove_dir_all(&api).expect("removed"),
        &|| fs::remove_dir_all(&all).expect("removed"),
    ];
    for lose in lose {
        lose();
        assert_eq!(listed(&sandbox), before);
        supervisor.kill_dash_nine();
        supervisor = daemon(&sandbox, &[]);
        for name in ["db", "api", "web"] {
            event(&supervisor, name, "adopted");
        }
        assert_eq!(listed(&sandbox), before);
        let report = json(&sandbox, &["list", "--json"]);
        let entries = report["services"].as_array().expect("services").len();
        assert_eq!(entries, 3, "{report}");
        let problem = service(&sandbox, "api")["state_problem"].to_string();
        assert!(problem.contains("embedded.json"), "{problem}");
    }
    ok(&sandbox, &["stop", "api"]);
    assert_eq!(service(&sandbox, "api")["state"], "stopped");
    install(&sandbox, "three", three);
    ok(&sandbox, &["start", "web"]);
    supervisor.signal(Signal::TERM);
    supervisor.wait(SOON);
    sandbox.assert_no_leftovers();
}

/// A service that no ledger accounts for is unknown, which is not the same as down.
#[test]
fn services_whose_ledger_is_lost_are_unknown_and_adopted() {
    let sandbox = Sandbox::new();
    let mut supervisor = daemon_of_pair(&sandbox);
    let before = listed(&sandbox);
    let lose = |damage: &str| {
        for name in ["ledger", "ledger.spare"] {
            let path = sandbox.state_dir().join(name);
            // The second file only reserves space.
            let _ = match damage {
                "" => fs::remove_file(path),
                damage => fs::write(path, damage),
            };
        }
    };
    if !has_cgroups(supervisor.id()) {
        stop(supervisor, &sandbox);
        return mainstay_testkit::skip("there are no cgroups here");
    }
    for damage in ["", "not a ledger"] {
        supervisor.kill_dash_nine();
        lose(damage);
        let (code, text) = said(&sandbox, &["status"]);
        assert_eq!(code, 3, "{text}");
        for (_, pid) in before.values() {
            let pid = pid.expect("it runs");
            assert!(text.contains(&format!("(pid {pid})")), "{text}");
        }
        assert!(text.contains("but its services are"), "{text}");
        let states = listed(&sandbox).into_values().map(|(state, _)| state);
        assert!(states.eq(["unknown", "unknown"]), "{text}");
        supervisor = daemon(&sandbox, &[]);
        event(&supervisor, "chat", "adopted");
        event(&supervisor, "nb", "adopted");
        notice(&supervisor, "were found by their cgroups");
        assert_eq!(listed(&sandbox), before);
    }
    // One service is stopped, and the other is not affected.
    supervisor.kill_dash_nine();
    lose("");
    ok(&sandbox, &["stop", "chat"]);
    let left = listed(&sandbox);
    assert_eq!((&*left["chat"].0, &*left["nb"].0), ("stopped", "unknown"));
    supervisor = daemon(&sandbox, &[]);
    event(&supervisor, "nb", "adopted");
    assert_eq!(listed(&sandbox)["nb"], before["nb"]);
    assert_eq!(order(&supervisor, "started"), [""; 0]);
    assert_eq!(listed(&sandbox)["chat"].0, "stopped");
    stop(supervisor, &sandbox);
}

/// Returns whether the services of a supervisor have cgroups.
fn has_cgroups(pid: u32) -> bool {
    let procs = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = procs.unwrap_or_default();
    children.split_whitespace().any(|child| {
        let cgroup = fs::read_to_string(format!("/proc/{child}/cgroup")).unwrap_or_default();
        cgroup.contains(&format!("mainstay-{pid}-"))
    })
}

/// First neither of the two ledger files can be changed or replaced (`chattr +i`), then only one of
/// them.
#[test]
fn a_ledger_that_cannot_be_written_is_said_and_kept_elsewhere() {
    let sandbox = Sandbox::new();
    let mut supervisor = daemon_of_pair(&sandbox);
    let paths = ["ledger", "ledger.spare"].map(|name| sandbox.state_dir().join(name));
    let chattr = |flag: &str, path: &Path| {
        let mut chattr = std::process::Command::new("chattr");
        chattr
            .arg(flag)
            .arg(path)
            .stderr(std::process::Stdio::null());
        chattr.status().is_ok_and(|status| status.success())
    };
    if !chattr("+i", &paths[0]) {
        stop(supervisor, &sandbox);
        return mainstay_testkit::skip("files cannot be made immutable here");
    }
    ok(&sandbox, &["restart", "nb"]);
    let before = listed(&sandbox);
    supervisor.kill_dash_nine();
    assert_eq!(listed(&sandbox), before);
    supervisor = daemon(&sandbox, &[]);
    event(&supervisor, "nb", "adopted");
    event(&supervisor, "chat", "adopted");
    wait_up(&sandbox);
    assert!(chattr("+i", &paths[1]));
    ok(&sandbox, &["restart", "nb"]);
    notice(&supervisor, "may be killed instead of adopted");
    let report = json(&sandbox, &["list", "--json"]);
    let problem = report["supervisor"]["problem"].as_str().expect("a problem");
    assert!(problem.contains("Operation not permitted"), "{problem}");
    ok(&sandbox, &["restart", "nb"]);
    let said = supervisor.events().into_iter();
    let said = said.filter(|it| it.to_string().contains("may be killed instead of adopted"));
    assert_eq!(said.count(), 1);
    let before = listed(&sandbox);
    supervisor.kill_dash_nine();
    for path in &paths {
        assert!(chattr("-i", path));
    }
    let after = listed(&sandbox);
    assert_eq!(after["chat"], before["chat"]);
    assert_eq!(after["nb"].0, "unknown");
    ok(&sandbox, &["stop"]);
    sandbox.assert_no_leftovers();
}

/// A verb for services of a daemon that does not run, or is another user's, names that daemon.
#[test]
fn services_without_a_daemon_to_ask_are_known_all_the_same() {
    const SERVICE: &str = "[service.web]\ncommand = [\"PUPPET\", \"hang\"]\n";
    let sandbox = Sandbox::new();
    install(&sandbox, "web", SERVICE);
    let expect = |expected, args: &[&str], parts: &[&str]| {
        let (code, text) = said(&sandbox, args);
        assert_eq!(code, expected, "{args:?}: {text}");
        let missing = parts.iter().find(|part| !text.contains(**part));
        assert_eq!(missing, None, "{args:?}: {text}");
    };
    let absent = "`mainstay daemon` is not running";
    expect(0, &["list"], &["web      stopped", absent]);
    expect(3, &["status", "web"], &[absent]);
    for verb in [
        &["stop"][..],
        &["events"],
        &["stop", "web"],
        &["start", "web"],
        &["restart", "web"],
        &["pause", "web"],
        &["reload", "web"],
        &["events", "web"],
        &["logs", "rotate", "web"],
    ] {
        expect(
            3,
            verb,
            &[absent, "hint: start `mainstay daemon`: it manages web"],
        );
    }
    for verb in [
        "status", "stop", "start", "restart", "pause", "reload", "events", "logs", "enable",
        "verify", "history",
    ] {
        expect(
            4,
            &[verb, "nosuch"],
            &["no service named nosuch", "web (embedded)"],
        );
    }

    if !rustix::process::geteuid().is_root() {
        return;
    }
    let supervisor = daemon(&sandbox, &[]);
    event(&supervisor, "web", "started");
    let chmod = |mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(sandbox.path(), mode).expect("ours");
    };
    chmod(0o711);
    for (verb, more) in [
        ("status", ""),
        ("list", ""),
        ("stop", ""),
        ("stop", "web"),
        ("events", ""),
        ("logs", "web"),
        ("verify", "web"),
        ("enable", "web"),
    ] {
        let mut command = sandbox.command(mainstay());
        std::os::unix::process::CommandExt::uid(&mut command, 65_534);
        command.arg(verb).args(more.split_whitespace());
        let output = command.output().expect("mainstay runs");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(code(output.status), 77, "{verb}: {text}");
        let state = sandbox.state_dir();
        for part in [
            &*format!("{} belongs to root", state.display()),
            "hint: run it as root: sudo mainstay ",
        ] {
            assert!(text.contains(part), "{verb}: {text}");
        }
    }
    chmod(0o700);
    stop(supervisor, &sandbox);
}

/// Something that is not a file in the place of a file is refused by name, before anything changes.
/// Once it is gone, the operation completes.
#[test]
fn what_is_in_the_place_of_a_file_is_named_before_anything_changes() {
    let sandbox = Sandbox::new();
    let one = "[service.one]\ncommand = [\"PUPPET\", \"hang\"]\n";
    let path = manifest(&sandbox, "one", one).display().to_string();
    let place = sandbox.state_dir().join("installed/one");
    let kinds = [("a directory", "mkdir"), ("a named pipe", "mkfifo")];
    let make = |program, path: &Path| {
        let made = std::process::Command::new(program).arg(path).status();
        assert!(made.is_ok_and(|status| status.success()));
    };
    let remove = |path: &Path| fs::remove_dir(path).or_else(|_| fs::remove_file(path));
    let files = [
        "manifest.toml",
        "manifest.yaml",
        "embedded.json",
        "desired.json",
    ];
    fs::create_dir_all(&place).expect("a directory");
    for file in files {
        for (kind, program) in kinds {
            let file = place.join(file);
            make(program, &file);
            let (code, text) = said(&sandbox, &[&INSTALL[..], &[&path]].concat());
            let why = format!("install one: {}: it is {kind}", file.display());
            assert!(code == 73 && text.contains(&why), "{code}: {text}");
            assert!(
                text.contains("hint: nothing was changed: move it away"),
                "{text}"
            );
            assert_eq!(fs::read_dir(&place).expect("it is there").count(), 1);
            assert!(!said(&sandbox, &["history", "one"]).1.contains("one  "));
            remove(&file).expect("it is there");
        }
    }
    let supervisor = daemon(&sandbox, &[]);
    wait_up(&sandbox);
    install(&sandbox, "one", one);
    ok(&sandbox, &["start", "one"]);
    let before = listed(&sandbox);
    for file in ["manifest.yaml", "desired.json"] {
        for (kind, program) in kinds {
            let file = place.join(file);
            make(program, &file);
            let (code, text) = said(&sandbox, &["uninstall", "one"]);
            let why = format!("uninstall one: {}: it is {kind}", file.display());
            assert!(code == 73 && text.contains(&why), "{code}: {text}");
            assert_eq!(listed(&sandbox), before);
            remove(&file).expect("it is there");
        }
    }
    ok(&sandbox, &["uninstall", "one"]);
    assert_eq!(names(&sandbox), [""; 0]);
    stop(supervisor, &sandbox);
}

/// A part of the system that is missing has the same exit code in every verb that starts a service.
#[test]
fn a_missing_env_file_is_a_missing_part_in_every_verb() {
    let sandbox = Sandbox::new();
    let services = |command: &str| {
        format!("[service.a]\ncommand = [\"PUPPET\", {command}]\nenv_file = \"missing\"\n")
    };
    install(&sandbox, "one", &services("\"hang\""));
    let supervisor = daemon(&sandbox, &[]);
    wait_up(&sandbox);
    let path = manifest(&sandbox, "two", &services("\"hang\", \"hang\""));
    let path = path.display().to_string();
    for args in [
        &["start", "a"][..],
        &["restart", "a"],
        &["update", &path, "a"],
    ] {
        let (code, text) = said(&sandbox, args);
        assert_eq!(code, 69, "{args:?}: {text}");
        assert!(text.contains("read env_file "), "{args:?}: {text}");
    }
    stop(supervisor, &sandbox);
    assert_eq!(said(&sandbox, &["run", &path]).0, 69);
}

#[test]
fn a_paused_service_among_several_is_told_how_to_continue() {
    let sandbox = Sandbox::new();
    install(
        &sandbox,
        "pair",
        "[service.a]\ncommand = [\"PUPPET\", \"hang\"]\n[service.b]\ncommand = [\"PUPPET\", \"hang\"]\n",
    );
    let supervisor = daemon(&sandbox, &[]);
    wait_up(&sandbox);
    ok(&sandbox, &["start", "a", "b"]);
    ok(&sandbox, &["pause", "b"]);
    for args in [&["start", "b"][..], &["start", "a", "b"]] {
        let (code, text) = said(&sandbox, args);
        let hint = "hint: resume it: mainstay continue b";
        assert!(code == 1 && text.contains(hint), "{args:?}: {text}");
    }
    stop(supervisor, &sandbox);
}

/// A dry run into the embedded manager shows what an installation writes, and writes nothing.
#[test]
fn a_dry_run_shows_the_files_of_the_embedded_manager() {
    let sandbox = Sandbox::new();
    let path = manifest(&sandbox, "shop", SHOP).display().to_string();
    let args = [&INSTALL[..], &[&path]].concat();
    let plan = ok(&sandbox, &[&args[..], &["--dry-run"]].concat());
    assert!(!sandbox.state_dir().exists());
    ok(&sandbox, &args);
    let state = sandbox.state_dir();
    for name in ["api", "db"] {
        for entry in fs::read_dir(state.join("installed").join(name)).expect("it is installed") {
            let written = format!("write {}", entry.expect("an entry").path().display());
            assert!(plan.contains(&written), "{written}: {plan}");
        }
    }
    let missing = manifest(
        &sandbox,
        "odd",
        "[service.odd]\ncommand = [\"PUPPET\", \"hang\"]\nneeds = [\"nobody\"]\n",
    );
    let missing = missing.display().to_string();
    assert_ne!(
        said(&sandbox, &[&INSTALL[..], &["--dry-run", &missing]].concat()).0,
        0
    );
}

/// A disk on which nothing can be written is named as the cause, and what can be seen is shown.
#[test]
fn a_full_or_read_only_disk_is_named() {
    if !rustix::process::geteuid().is_root() {
        return mainstay_testkit::skip("a full file system needs a mount, and a mount needs root");
    }
    let sandbox = Sandbox::new();
    let state = sandbox.state_dir();
    fs::create_dir(&state).expect("a directory");
    let mount = |args: &[&str]| {
        let mut command = std::process::Command::new(args[0]);
        command.args(&args[1..]).arg(&state);
        command.status().is_ok_and(|status| status.success())
    };
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=3m,mode=700", "tmpfs"]) {
        return mainstay_testkit::skip("this root may not mount a tmpfs");
    }
    install(
        &sandbox,
        "one",
        "[service.one]\ncommand = [\"PUPPET\", \"hang\"]\n",
    );
    let mut supervisor = daemon(&sandbox, &[]);
    event(&supervisor, "one", "started");
    let filling = state.join("filling");
    let mut file = fs::File::create(&filling).expect("a file");
    while std::io::Write::write(&mut file, &[b'x'; 4096]).is_ok() {}
    drop(file);
    let shown = ok(&sandbox, &["status"]);
    assert!(
        shown.contains("its registration cannot be read") && shown.contains("the disk is full"),
        "{shown}"
    );
    assert!(!shown.contains("differs from its registered"), "{shown}");
    let one = service(&sandbox, "one");
    assert_eq!(
        (&one["state"], &one["version"]),
        (&"running".into(), &1.into()),
        "{one}"
    );
    fs::remove_file(filling).expect("it is there");
    supervisor.kill_dash_nine();
    assert!(mount(&["mount", "-o", "remount,ro"]));
    let (stopped, text) = said(&sandbox, &["stop", "one"]);
    assert_eq!(stopped, 73, "{text}");
    assert!(
        text.contains("mounted read-only: mount it for writing"),
        "{text}"
    );
    let (_, shown) = said(&sandbox, &["status"]);
    assert!(shown.contains("running"), "{shown}");
    assert!(mount(&["mount", "-o", "remount,rw"]));
    ok(&sandbox, &["stop", "one"]);
    sandbox.assert_no_leftovers();
    assert!(mount(&["umount"]));
}

/// Root reads the files of an installation at each start of the daemon.
#[test]
fn files_of_an_installation_that_become_pipes_block_nobody() {
    for file in ["manifest.toml", "embedded.json", "desired.json"] {
        let sandbox = Sandbox::new();
        install(
            &sandbox,
            "it",
            "[service.app]\ncommand = [\"PUPPET\", \"hang\"]\n[service.nb]\ncommand = [\"PUPPET\", \"hang\"]\n",
        );
        let path = sandbox.state_dir().join("installed/app").join(file);
        let _ = fs::remove_file(&path);
        rustix::fs::mkfifoat(
            rustix::fs::CWD,
            &path,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        )
        .expect("made");
        let mut supervisor = daemon(&sandbox, &[]);
        event(&supervisor, "nb", "started");
        assert_eq!(listed(&sandbox)["nb"].0, "running", "{file}");
        supervisor.ctrl_c();
        supervisor.wait(SOON);
        sandbox.assert_no_leftovers();
    }
}
