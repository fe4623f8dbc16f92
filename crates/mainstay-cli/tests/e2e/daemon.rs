//! `mainstay daemon`: a manager of its own, whose services come, change and go while it runs, and process 1 of a container.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use mainstay_testkit::procs;
use rustix::process::{Pid, Signal};

use super::*;

/// The arguments of a daemon that tells events.
const INSTALL: [&str; 3] = ["install", "--manager", "embedded"];
const DAEMON: [&str; 2] = ["daemon", "--json"];

fn daemon(sandbox: &Sandbox, more: &[&str]) -> Supervisor {
    let mut command = sandbox.command(mainstay());
    command.args(DAEMON).args(more);
    Supervisor::spawn(command)
}

/// Writes a manifest of its own, in a directory of its own.
fn manifest(sandbox: &Sandbox, name: &str, services: &str) -> PathBuf {
    let dir = sandbox.path().join(name);
    fs::create_dir_all(&dir).expect("a directory");
    let text = services
        .replace("PUPPET", &puppet().display().to_string())
        .replace("HERE", &sandbox.path().display().to_string());
    let text = format!("environment = \"development\"\n{text}");
    sandbox.write(&format!("{name}/mainstay.toml"), &text)
}

/// What a verb says, and its exit code.
fn said(sandbox: &Sandbox, args: &[&str]) -> (i32, String) {
    let output = verb(sandbox, args);
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (code(output.status), text)
}

/// Installs what a manifest says now; what was said.
#[track_caller]
fn install(sandbox: &Sandbox, name: &str, services: &str) -> String {
    let path = manifest(sandbox, name, services);
    let (code, text) = said(
        sandbox,
        &[&INSTALL[..], &[&path.display().to_string()]].concat(),
    );
    assert_eq!(code, 0, "{text}");
    text
}

/// An install that must be refused, with these words.
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

/// Of every service, its state and pid.
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

/// It answers.
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
        "api: installed\ndb: installed\n"
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
    // Its paths begin where its own manifest was.
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

    // Needs of another manifest are what is installed.
    let nobody = "[service.late]\ncommand = [\"PUPPET\", \"hang\"]\nneeds = [\"os:nobody\"]\n";
    let words = "late: it needs nobody, which is neither in its manifest nor installed";
    refused(&sandbox, "late", nobody, words);
    // All or none, and nothing is left of it.
    let taken = "[service.db]\ncommand = [\"PUPPET\", \"exit\", \"3\"]\nneeds = [\"late\"]\n";
    let circle = nobody.replace("nobody", "api") + taken;
    refused(&sandbox, "late", &circle, "in a circle");
    assert!(!sandbox.state_dir().join("installed/late").exists());
    assert_eq!(listed(&sandbox), before);
    let late = "[service.late]\ncommand = [\"PUPPET\", \"print\", \"one\", \"hang\"]\nneeds = [\"os:api\"]\n";
    assert_eq!(install(&sandbox, "late", late), "late: installed\n");
    ok(&sandbox, &["start", "late"]);

    // What runs goes on as it was until its next start.
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

    // Whom others need stays.
    let (code, text) = said(&sandbox, &["uninstall", "db"]);
    assert!(
        code == 1 && text.contains("uninstall db: api needs it"),
        "{text}"
    );
    ok(&sandbox, &["uninstall", "late"]);
    assert_eq!(listed(&sandbox), before, "the others run untouched");
    assert_eq!(sandbox.processes().len(), 3);
    assert!(sandbox.state_dir().join("logs/late").exists());
    let (code, _) = said(&sandbox, &["uninstall", "late"]);
    assert_eq!(code, 4);
    // It may come again, and goes on with its log.
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

/// What a service says when it is stopped to be removed is in its log.
#[test]
fn last_words_of_a_removed_service_are_kept() {
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
    // The shell has its say about its own children, too.
    let flood = log.lines().filter(|line| line.starts_with("0000000"));
    let numbers = flood.map(|line| line[..12].parse::<u32>().expect("a number"));
    assert!(numbers.eq(0..5000), "{log}");
    // With nothing to do nothing wakes up, whoever has come and gone.
    let pid = Pid::from_raw(supervisor.id() as i32).expect("a pid");
    wait_until("two looks between which nothing woke", SOON, || {
        let before = procs::cost(pid).switches;
        std::thread::sleep(Duration::from_millis(500));
        (procs::cost(pid).switches == before).then_some(())
    });
    stop(supervisor, &sandbox);
}

/// A service that was installed a moment ago is adopted like any other, and no line of it is lost or told twice.
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
        // One goes, so that another comes in its place.
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
                // From here on it talks to nobody, and to one who dies again.
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
        // What is installed counts after an adoption, too.
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

/// While no daemon runs files are all there is, and what a killed one left is stopped.
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
        "c: its definition has changed; restart it to apply that",
    );
    assert_eq!(names(&sandbox), ["c"]);
    ok(&sandbox, &["restart", "c"]);
    wait_until("new words", SOON, || {
        (ok(&sandbox, &["logs", "c"]) == "new\n").then_some(())
    });
    stop(supervisor, &sandbox);
}

/// One that cannot be started, or not even read, is no reason to keep the others down.
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
    notice(&supervisor, "the installed service torn: read");
    notice(
        &supervisor,
        "after needs torn, which is not among the services; so that is not started",
    );
    assert_eq!(names(&sandbox), ["good", "missing"]);
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

/// Whoever started it hears when all that starts with it has.
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

/// What follows each code is the same as under `mainstay run`, and the daemon ends with it.
#[test]
fn exit_codes_are_a_contract_under_the_daemon_too() {
    let daemons = CODES.map(|code| {
        let sandbox = Sandbox::new();
        let services = format!(
            "[service.it]\ncommand = [\"PUPPET\", \"count\", \"HERE/starts\", \"exit\", \"{code}\"]\n\
             recovery = {{ delay = \"10ms\", limit = {{ restarts = 5, window = \"1m\" }} }}\n"
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

/// The host's name for process 1 of the namespace that a command has made.
fn process_1(sandbox: &Sandbox) -> Pid {
    wait_until("process 1", SOON, || {
        let mut processes = sandbox.processes().into_iter();
        processes.find(|pid| procs::program(*pid) == "mainstay")
    })
}

/// `mainstay daemon` as process 1.
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

    // Somebody from outside leaves an orphan there, which is nobody's.
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

    // Services come there as elsewhere.
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
    signal(init, Signal::TERM);
    assert_eq!(code(supervisor.wait(SOON)), 1);
    sandbox.assert_no_leftovers();

    // Where its time is over, too.
    let sandbox = Sandbox::new();
    install(&sandbox, "it", &stubborn.replace("60s", "10ms"));
    let mut supervisor = daemon(&sandbox, &[]);
    event(&supervisor, "stubborn", "ready");
    supervisor.signal(Signal::TERM);
    assert_eq!(code(supervisor.wait(SOON)), 1);
    event(&supervisor, "stubborn", "killing");
    sandbox.assert_no_leftovers();
}

/// The container is gone without a word; the next one of the same state begins anew.
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
