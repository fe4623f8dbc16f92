//! The supervisor is killed: its services survive, are adopted by the next one, and are reported
//! meanwhile.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::path::Path;

use super::*;

/// The two mechanisms that contain a process tree.
const CONTAINMENTS: [&str; 2] = ["cgroup", "subreaper"];

fn run(sandbox: &Sandbox, manifest: &Path, containment: &str) -> Supervisor {
    let mut command = sandbox.command(mainstay());
    command
        .args(["run", "--json"])
        .arg(manifest)
        .env("MAINSTAY_CONTAINMENT", containment);
    Supervisor::spawn(command)
}

/// Returns the state and PID of every service, whichever source reports them.
fn listed(sandbox: &Sandbox) -> BTreeMap<String, (String, Option<u64>)> {
    let output = verb(sandbox, &["list", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("a JSON document");
    let services = report["services"].as_array().expect("services").iter();
    services
        .map(|service| {
            let text = |key: &str| service[key].as_str().unwrap_or_default().to_owned();
            (text("name"), (text("state"), service["pid"].as_u64()))
        })
        .collect()
}

fn pid(sandbox: &Sandbox, name: &str) -> u64 {
    listed(sandbox)[name].1.expect("it runs")
}

fn state(sandbox: &Sandbox, name: &str) -> String {
    listed(sandbox)[name].0.clone()
}

fn lines(sandbox: &Sandbox, name: &str) -> usize {
    let text = std::fs::read_to_string(sandbox.path().join(name));
    text.map_or(0, |text| text.lines().count())
}

fn notice(supervisor: &Supervisor, part: &str) {
    supervisor.wait_event(SOON, |event| {
        event["event"] == "notice"
            && event["message"]
                .as_str()
                .is_some_and(|message| message.contains(part))
    });
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Kills a process that this test did not start itself.
fn kill(pid: u64) {
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it lives");
}

/// Returns whether a process is gone or a zombie.
fn has_ended(pid: u64) -> bool {
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("a pid");
    !mainstay_testkit::procs::alive(pid)
}

const FAMILY: &str = r#"
    [service.db]
    command = ["PUPPET", "count", "HERE/db-starts", "touch", "HERE/db", "hang"]
    start = { ready = { file = "HERE/db" } }
    liveness = { file = "HERE/db", every = "50ms" }
    [service.api]
    command = ["PUPPET", "count", "HERE/api-starts", "touch", "HERE/api", "hang"]
    needs = ["db"]
    start = { ready = { file = "HERE/api" } }
    stop = { graceful = "10s" }
"#;

#[test]
fn ten_services_survive_the_death_of_their_supervisor_ten_times() {
    for containment in CONTAINMENTS {
        let services: String = (0..10)
            .map(|i| {
                format!(
                    "[service.s{i}]\ncommand = [\"PUPPET\", \"crash-until\", \"HERE/s{i}\", \"{}\", \"1\", \"hang\"]\nrecovery = {{ delay = \"10ms\" }}\n",
                    i % 2
                )
            })
            .collect();
        let (sandbox, manifest) = sandbox(&services);
        let mut supervisor = run(&sandbox, &manifest, containment);
        for i in 0..10 {
            events(&supervisor, &format!("s{i}"), "started", 1 + i % 2);
        }
        let before = listed(&sandbox);
        assert!(
            before.values().all(|(state, _)| state == "running"),
            "{before:?}"
        );
        for _ in 0..10 {
            supervisor.kill_dash_nine();
            assert_eq!(sandbox.processes().len(), 10, "they live on");
            supervisor = run(&sandbox, &manifest, containment);
            for i in 0..10 {
                let adopted = event(&supervisor, &format!("s{i}"), "adopted");
                assert_eq!(adopted["restarts"], i % 2);
            }
            assert_eq!(listed(&sandbox), before, "the same processes");
            assert_eq!(order(&supervisor, "started"), [""; 0]);
        }
        for i in 0..10 {
            assert_eq!(
                lines(&sandbox, &format!("s{i}")),
                1 + i % 2,
                "starts of s{i}"
            );
            assert_eq!(service(&sandbox, &format!("s{i}"))["restarts"], i % 2);
        }
        assert_eq!(sandbox.processes().len(), 11);
        stop(supervisor, &sandbox);
        assert!(!sandbox.state_dir().join("ledger").exists());
    }
}

#[test]
fn an_adopted_service_ends_like_any_other() {
    for containment in CONTAINMENTS {
        let (sandbox, manifest) = sandbox(
            r#"
            [service.worker]
            command = ["PUPPET", "count", "HERE/starts", "await", "HERE/go", "exit", "7"]
            recovery = { delay = "10ms" }
            [service.polite]
            command = ["PUPPET", "on-term", "exit", "42", "touch", "HERE/polite", "hang"]
            start = { ready = { file = "HERE/polite" } }
            [service.done]
            command = ["PUPPET", "await", "HERE/done", "exit", "0"]
            "#,
        );
        let mut supervisor = run(&sandbox, &manifest, containment);
        event(&supervisor, "worker", "started");
        event(&supervisor, "polite", "ready");
        event(&supervisor, "done", "started");
        supervisor.kill_dash_nine();
        let supervisor = run(&sandbox, &manifest, containment);
        event(&supervisor, "polite", "adopted");
        std::fs::write(sandbox.path().join("go"), "").expect("written");
        let exited = event(&supervisor, "worker", "exited");
        assert_eq!(exited["exit"]["code"], 7, "{containment}: {exited}");
        std::fs::write(sandbox.path().join("done"), "").expect("written");
        event(&supervisor, "done", "stopped");
        assert_eq!(event(&supervisor, "done", "exited")["exit"]["code"], 0);
        event(&supervisor, "worker", "backing-off");
        std::fs::remove_file(sandbox.path().join("go")).expect("removed");
        event(&supervisor, "worker", "started");
        let answer = json(&sandbox, &["stop", "polite", "--json"]);
        assert_eq!(answer["services"][0]["state"], "stopped");
        assert_eq!(answer["services"][0]["last_exit"]["code"], 42);
        stop(supervisor, &sandbox);
    }
}

#[test]
fn the_whole_family_of_an_adopted_service_goes_with_it() {
    for containment in CONTAINMENTS {
        let (sandbox, manifest) = sandbox(
            r#"
            [service.family]
            command = ["sh", "-c", "exec PUPPET ignore term,int,hup fork fork-setsid touch HERE/all-there hang > HERE/out"]
            start = { ready = { file = "HERE/all-there" } }
            stop = { graceful = "300ms" }
            "#,
        );
        let mut supervisor = run(&sandbox, &manifest, containment);
        event(&supervisor, "family", "ready");
        supervisor.kill_dash_nine();
        assert_eq!(sandbox.processes().len(), 3, "{containment}");
        let mut supervisor = run(&sandbox, &manifest, containment);
        event(&supervisor, "family", "adopted");
        supervisor.ctrl_c();
        assert!(supervisor.wait(SOON).success());
        event(&supervisor, "family", "killing");
        sandbox.assert_no_leftovers();
    }
}

#[test]
fn what_died_alone_is_started_anew_and_its_remains_are_killed() {
    for containment in CONTAINMENTS {
        let (sandbox, manifest) = sandbox(
            r#"
            [service.mortal]
            command = ["sh", "-c", "rm -f HERE/up; exec PUPPET count HERE/starts fork-setsid touch HERE/up hang > HERE/out"]
            start = { ready = { file = "HERE/up" } }
            recovery = { delay = "10ms" }
            [service.survivor]
            command = ["PUPPET", "hang"]
            "#,
        );
        let mut supervisor = run(&sandbox, &manifest, containment);
        event(&supervisor, "mortal", "ready");
        event(&supervisor, "survivor", "started");
        let mortal = pid(&sandbox, "mortal");
        supervisor.kill_dash_nine();
        kill(mortal);
        wait_until("its end", SOON, || has_ended(mortal).then_some(()));
        // Its descendants are alive.
        assert_eq!(state(&sandbox, "mortal"), "unknown");
        let supervisor = run(&sandbox, &manifest, containment);
        event(&supervisor, "survivor", "adopted");
        // The exit status is known only if the right process has reaped it.
        let exit = event(&supervisor, "mortal", "exited")["exit"].clone();
        assert!(exit == "unknown" || exit["signal"] == 9, "{exit}");
        event(&supervisor, "mortal", "killing");
        event(&supervisor, "mortal", "ready");
        wait_until("its second start", SOON, || {
            (lines(&sandbox, "starts") == 2).then_some(())
        });
        assert_eq!(service(&sandbox, "mortal")["restarts"], 1);
        // The supervisor, the two services and a grandchild.
        wait_until("the family", SOON, || {
            (sandbox.processes().len() == 4).then_some(())
        });
        stop(supervisor, &sandbox);
    }
}

#[test]
fn a_pid_that_is_anothers_is_not_touched() {
    for containment in CONTAINMENTS {
        let (sandbox, manifest) = sandbox(FAMILY);
        let mut supervisor = run(&sandbox, &manifest, containment);
        event(&supervisor, "api", "ready");
        supervisor.kill_dash_nine();
        // Simulates an unrelated process with the PID of db: it was born later, by the clock that
        // distinguishes them.
        let ledger = sandbox.state_dir().join("ledger");
        let text = std::fs::read_to_string(&ledger).expect("the ledger");
        let entries = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let birth = entries.filter(|entry| entry["name"] == "db");
        let birth = birth.map(|entry| entry["child"]["birth"]["last"].as_u64());
        let mut birth = birth.flatten();
        let birth = birth.next().expect("its birth");
        let mut bystander = wait_until("one that is younger", SOON, || {
            let mut child = sandbox
                .command(puppet())
                .arg("hang")
                .spawn()
                .expect("it starts");
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id()));
            let stat = stat.expect("it lives");
            let start = stat.split(' ').nth(21).and_then(|ticks| ticks.parse().ok());
            if start > Some(birth) {
                return Some(child);
            }
            child.kill().and_then(|()| child.wait()).expect("ours");
            None
        });
        let db = listed(&sandbox)["db"].1.expect("it runs");
        let (old, new) = (
            format!("\"pid\":{db},"),
            format!("\"pid\":{},", bystander.id()),
        );
        assert!(text.contains(&old), "{text}");
        let pad = " ".repeat(8 + old.len() - new.len());
        let (before, after) = text.split_once(&old).expect("its slot");
        let after = after.replacen("        \n", &format!("{pad}\n"), 1);
        std::fs::write(&ledger, format!("{before}{new}{after}")).expect("written");
        assert_eq!(
            state(&sandbox, "db"),
            "unknown",
            "it is not the one that was started, though something of db lives"
        );
        let supervisor = run(&sandbox, &manifest, containment);
        event(&supervisor, "api", "adopted");
        event(&supervisor, "db", "ready");
        assert!(has_ended(db), "it was killed as what is left of db");
        assert_eq!(
            bystander.try_wait().expect("ours"),
            None,
            "it is not touched"
        );
        bystander.kill().expect("ours");
        bystander.wait().expect("ours");
        stop(supervisor, &sandbox);
    }
}

/// A process that is recorded as another service's main process belongs to that service, even if it
/// bears its neighbour's mark.
#[test]
fn a_sibling_that_bears_a_stolen_mark_lives_on() {
    for has_supervisor in [true, false] {
        let (sandbox, manifest) = sandbox(
            r#"
            [service.victim]
            command = ["PUPPET", "hang"]
            [service.thief]
            command = ["sh", "-c", """
                until mark=$(cat HERE/mark 2> /dev/null); do sleep 0.02; done
                exec env MAINSTAY_INSTANCE=$mark sh -c 'PUPPET hang & exec PUPPET hang'"""]
            "#,
        );
        let mut supervisor = run(&sandbox, &manifest, "subreaper");
        event(&supervisor, "victim", "started");
        event(&supervisor, "thief", "started");
        let (victim, thief) = (pid(&sandbox, "victim"), pid(&sandbox, "thief"));
        let mark = |pid: u64| {
            let environment = std::fs::read_to_string(format!("/proc/{pid}/environ"));
            let environment = environment.unwrap_or_default();
            let mut variables = environment.split('\0');
            variables.find_map(|it| Some(it.strip_prefix("MAINSTAY_INSTANCE=")?.to_owned()))
        };
        let stolen = mark(victim);
        std::fs::write(sandbox.path().join("new"), stolen.as_deref().unwrap_or(""))
            .expect("written");
        let (new, named) = (sandbox.path().join("new"), sandbox.path().join("mark"));
        std::fs::rename(new, named).expect("renamed");
        // The supervisor, the victim, and the thief with its child.
        wait_until("the theft", SOON, || {
            (mark(thief) == stolen && sandbox.processes().len() == 4).then_some(())
        });
        supervisor.kill_dash_nine();
        let successor = has_supervisor.then(|| {
            let successor = run(&sandbox, &manifest, "subreaper");
            event(&successor, "thief", "adopted");
            successor
        });
        assert!(verb(&sandbox, &["stop", "victim"]).status.success());
        assert!(has_ended(victim));
        assert!(!has_ended(thief), "with a supervisor: {has_supervisor}");
        assert_eq!(
            listed(&sandbox)["thief"],
            ("running".to_owned(), Some(thief))
        );
        let successor = successor.unwrap_or_else(|| run(&sandbox, &manifest, "subreaper"));
        event(&successor, "thief", "adopted");
        wait_until("what is left", SOON, || {
            (sandbox.processes().len() == 3).then_some(())
        });
        stop(successor, &sandbox);
    }
}

/// The remark is printed once, however many polls there are.
#[test]
fn a_dead_supervisor_is_said_once_by_a_status_that_waits() {
    let (sandbox, manifest) = sandbox(
        r#"
        [service.slow]
        command = ["PUPPET", "touch", "HERE/begun", "hang"]
        start = { ready = { file = "HERE/never" }, timeout = "1h" }
        "#,
    );
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    wait_until("a start", SOON, || {
        sandbox.path().join("begun").exists().then_some(())
    });
    supervisor.kill_dash_nine();
    let output = verb(&sandbox, &["status", "--wait", "500ms", "slow"]);
    assert_eq!(code(output.status), 3);
    let said = stderr(&output);
    for once in [") is no longer running", "hint: "] {
        assert_eq!(said.matches(once).count(), 1, "{said}");
    }
    assert_eq!(code(verb(&sandbox, &["stop"]).status), 0);
}

#[test]
fn status_and_stop_without_a_supervisor() {
    for containment in CONTAINMENTS {
        let (sandbox, manifest) = sandbox(FAMILY);
        let mut supervisor = run(&sandbox, &manifest, containment);
        event(&supervisor, "api", "ready");
        let before = listed(&sandbox);
        let killed = supervisor.id();
        supervisor.kill_dash_nine();

        let output = verb(&sandbox, &["status"]);
        assert_eq!(code(output.status), 3);
        let gone =
            format!("the supervisor (pid {killed}) is no longer running, but its services are");
        assert!(stderr(&output).contains(&gone), "{}", stderr(&output));
        assert!(stderr(&output).contains("`mainstay stop` ends them"));
        assert_eq!(listed(&sandbox), before);
        let output = verb(&sandbox, &["status", "--json"]);
        let report: Value = serde_json::from_slice(&output.stdout).expect("a JSON document");
        assert_eq!(
            report["supervisor"],
            serde_json::json!({ "pid": killed, "alive": false })
        );

        let refused = verb(&sandbox, &["restart", "api"]);
        assert_eq!(code(refused.status), 3);
        assert!(stderr(&refused).contains(&gone), "{}", stderr(&refused));
        assert_eq!(code(verb(&sandbox, &["stop", "nonsense"]).status), 4);

        // Stops one service by the stop stages of its manifest.
        let answer = json(&sandbox, &["stop", "api", "--json"]);
        assert_eq!(
            answer["services"][0]["state"], "stopped",
            "{containment}: {answer}"
        );
        assert_eq!(answer["services"].as_array().map(Vec::len), Some(1));
        assert_eq!(answer["services"][0]["last_exit"]["signal"], 15);
        assert_eq!(sandbox.processes().len(), 1, "db is not touched");
        assert_eq!(listed(&sandbox)["db"], before["db"]);
        assert_eq!(state(&sandbox, "api"), "stopped");

        // The next supervisor has the desired state.
        let mut supervisor = run(&sandbox, &manifest, containment);
        event(&supervisor, "db", "adopted");
        assert_eq!(state(&sandbox, "api"), "stopped");
        json(&sandbox, &["start", "api", "--json"]);
        assert_eq!(lines(&sandbox, "db-starts"), 1);
        supervisor.kill_dash_nine();

        // Stops all services. Then nothing is left to report.
        let output = verb(&sandbox, &["stop"]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "db: stopped\napi: stopped\n"
        );
        sandbox.assert_no_leftovers();
        let output = verb(&sandbox, &["status"]);
        assert!(stderr(&output).contains("no supervisor is running in"));
        let supervisor = run(&sandbox, &manifest, containment);
        event(&supervisor, "api", "ready");
        assert_eq!(order(&supervisor, "adopted"), [""; 0]);
        stop(supervisor, &sandbox);
    }
}

#[test]
fn stop_without_a_name_stops_all_under_a_supervisor_too() {
    let (supervisor, sandbox) = supervise(FAMILY);
    event(&supervisor, "api", "ready");
    let output = verb(&sandbox, &["stop"]);
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "db: stopped\napi: stopped\n"
    );
    // The client may have the answer before the output of the supervisor arrives.
    event(&supervisor, "db", "stopped");
    assert_eq!(order(&supervisor, "stopped"), ["api", "db"]);
    stop(supervisor, &sandbox);
}

/// The check includes the keeper of the services' pipes, which ends when it detects that they are
/// gone.
#[track_caller]
fn nothing_is_left(sandbox: &Sandbox) {
    wait_until("the end of all processes", SOON, || {
        sandbox.processes().is_empty().then_some(())
    });
}

#[test]
fn what_cannot_be_asked_to_stop_can_be_killed() {
    let (sandbox, manifest) = sandbox(FAMILY);
    let mut supervisor = run(&sandbox, &manifest, "cgroup");
    event(&supervisor, "api", "ready");
    supervisor.kill_dash_nine();
    std::fs::write(sandbox.state_dir().join("manifest.toml"), "not a manifest").expect("written");
    let refused = verb(&sandbox, &["stop", "api"]);
    assert_eq!(code(refused.status), 1, "{}", stderr(&refused));
    assert_eq!(sandbox.processes().len(), 2);
    let output = verb(&sandbox, &["stop"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("their 2 processes were killed"),
        "{}",
        stderr(&output)
    );
    nothing_is_left(&sandbox);
    assert_eq!(code(verb(&sandbox, &["stop"]).status), 3);

    // Without a ledger, nothing is adopted and nothing runs twice.
    for (verb_or_run, damage) in [
        ("stop", "not a ledger"),
        ("run", "not a ledger"),
        ("run", "another start of the system"),
    ] {
        let mut supervisor = run(&sandbox, &manifest, "subreaper");
        event(&supervisor, "api", "ready");
        supervisor.kill_dash_nine();
        let ledger = sandbox.state_dir().join("ledger");
        let text = std::fs::read_to_string(&ledger).expect("the ledger");
        let boot = text.split('"').nth(5).expect("the start of the system");
        let text = match damage {
            "not a ledger" => damage.to_owned(),
            _ => text.replacen(boot, &"0".repeat(boot.len()), 1),
        };
        std::fs::write(&ledger, text).expect("written");
        if verb_or_run == "stop" {
            let output = verb(&sandbox, &["stop"]);
            assert!(output.status.success(), "{}", stderr(&output));
            nothing_is_left(&sandbox);
            continue;
        }
        let supervisor = run(&sandbox, &manifest, "subreaper");
        notice(&supervisor, "their 2 processes were killed");
        event(&supervisor, "api", "ready");
        // A new keeper has the process name of its supervisor for a moment.
        wait_until("three processes, and no more", SOON, || {
            (sandbox.processes().len() == 3).then_some(())
        });
        stop(supervisor, &sandbox);
    }
}

/// The names of services are known even if the ledger is lost. Cgroups show which process is the
/// main process.
#[test]
fn services_whose_ledger_is_lost_are_stopped_by_name() {
    for containment in CONTAINMENTS {
        for damage in ["", "not a ledger"] {
            let (sandbox, manifest) = sandbox(
                r#"
                [service.a]
                command = ["PUPPET", "on-term", "exit", "0", "hang"]
                [service.b]
                command = ["sh", "-c", "trap 'echo asked > HERE/asked; exit 0' TERM; touch HERE/b; while :; do sleep 0.01; done"]
                start = { ready = { file = "HERE/b" } }
                "#,
            );
            let mut supervisor = run(&sandbox, &manifest, containment);
            event(&supervisor, "b", "ready");
            event(&supervisor, "a", "started");
            let [a, b] = ["a", "b"].map(|name| pid(&sandbox, name));
            supervisor.kill_dash_nine();
            for name in ["ledger", "ledger.spare"] {
                let path = sandbox.state_dir().join(name);
                // The second file only reserves space.
                let _ = match damage {
                    "" => std::fs::remove_file(path),
                    damage => std::fs::write(path, damage),
                };
            }
            let output = verb(&sandbox, &["stop", "nosuch"]);
            assert_eq!(code(output.status), 4, "{}", stderr(&output));
            let said = stderr(&output);
            assert!(said.contains("hint: services: a, b"), "{said}");
            assert!(!has_ended(a) && !has_ended(b));

            let output = verb(&sandbox, &["stop", "b"]);
            assert_eq!(code(output.status), 0, "{containment}: {}", stderr(&output));
            assert!(has_ended(b) && !has_ended(a), "{containment}");
            let was_asked = sandbox.path().join("asked").exists();
            assert_eq!(was_asked, containment == "cgroup");
            assert_eq!(state(&sandbox, "a"), "unknown", "{containment}");

            let output = verb(&sandbox, &["stop"]);
            assert!(output.status.success(), "{}", stderr(&output));
            assert!(has_ended(a), "{containment}");
            nothing_is_left(&sandbox);
            assert_eq!(code(verb(&sandbox, &["stop"]).status), 3);
        }
    }
}

#[test]
fn what_operators_wanted_is_remembered() {
    for containment in CONTAINMENTS {
        let (sandbox, manifest) = sandbox(
            r#"
            [service.frozen]
            command = ["sh", "-c", "while :; do echo tick >> HERE/ticks; sleep 0.01; done"]
            [service.down]
            command = ["PUPPET", "count", "HERE/down", "hang"]
            [service.strict]
            command = ["PUPPET", "count", "HERE/strict", "exit", "3"]
            recovery = { policy = "strict" }
            [service.once]
            command = ["PUPPET", "count", "HERE/once", "exit", "0"]
            "#,
        );
        let mut supervisor = run(&sandbox, &manifest, containment);
        event(&supervisor, "strict", "halted");
        event(&supervisor, "once", "stopped");
        wait_until("ticks", SOON, || {
            (lines(&sandbox, "ticks") > 3).then_some(())
        });
        json(&sandbox, &["pause", "frozen", "--json"]);
        json(&sandbox, &["stop", "down", "--json"]);
        let before = listed(&sandbox);
        supervisor.kill_dash_nine();
        assert_eq!(listed(&sandbox), before, "without a supervisor");
        let supervisor = run(&sandbox, &manifest, containment);
        event(&supervisor, "frozen", "adopted");
        assert_eq!(listed(&sandbox), before, "under the next one");
        let detail = service(&sandbox, "strict")["detail"].clone();
        assert!(
            detail
                .as_str()
                .is_some_and(|why| why.contains("exit code 3")),
            "{detail}"
        );
        for name in ["down", "strict", "once"] {
            assert_eq!(lines(&sandbox, name), 1, "{name}");
        }
        let frozen = lines(&sandbox, "ticks");
        json(&sandbox, &["continue", "frozen", "--json"]);
        wait_until("more ticks", SOON, || {
            (lines(&sandbox, "ticks") > frozen).then_some(())
        });
        supervisor.ctrl_c();
        let mut supervisor = supervisor;
        assert_eq!(code(supervisor.wait(SOON)), 0);
        sandbox.assert_no_leftovers();
    }
}

#[test]
fn a_changed_manifest_is_said_and_what_it_has_no_more_is_ended() {
    for containment in CONTAINMENTS {
        let (sandbox, manifest) = sandbox(
            r#"
            [service.same]
            command = ["PUPPET", "hang"]
            [service.changed]
            command = ["PUPPET", "hang"]
            [service.vanished]
            command = ["PUPPET", "hang"]
            "#,
        );
        let mut supervisor = run(&sandbox, &manifest, containment);
        for name in ["same", "changed", "vanished"] {
            event(&supervisor, name, "started");
        }
        let before = listed(&sandbox);
        let digest = || service(&sandbox, "changed")["definition_digest"].clone();
        let old_digest = digest();
        assert!(old_digest.is_string());
        supervisor.kill_dash_nine();
        let text = std::fs::read_to_string(&manifest).expect("the manifest");
        let (rest, _) = text.split_once("[service.vanished]").expect("the last one");
        let (head, tail) = rest.split_once("[service.changed]").expect("the second");
        let text = format!("{head}[service.changed]\nenv = {{ A = \"1\" }}{tail}");
        std::fs::write(&manifest, text).expect("written");
        for _ in 0..2 {
            supervisor = run(&sandbox, &manifest, containment);
            notice(
                &supervisor,
                "changed: its definition has changed; restart it to apply the change",
            );
            event(&supervisor, "same", "adopted");
            event(&supervisor, "changed", "adopted");
            let said = supervisor.events();
            assert!(!said.iter().any(|event| {
                event["message"]
                    .as_str()
                    .is_some_and(|m| m.contains("same: its"))
            }));
            wait_until("the rest is ended", SOON, || {
                (sandbox.processes().len() == 3).then_some(())
            });
            for name in ["same", "changed"] {
                assert_eq!(listed(&sandbox)[name], before[name]);
            }
            assert_eq!(digest(), old_digest, "of what runs");
            supervisor.kill_dash_nine();
        }
        supervisor = run(&sandbox, &manifest, containment);
        event(&supervisor, "changed", "adopted");
        json(&sandbox, &["restart", "changed", "--json"]);
        supervisor.kill_dash_nine();
        supervisor = run(&sandbox, &manifest, containment);
        event(&supervisor, "changed", "adopted");
        assert_ne!(digest(), old_digest);
        let said = supervisor.events();
        assert!(!said.iter().any(|event| {
            event["message"]
                .as_str()
                .is_some_and(|m| m.contains("has changed"))
        }));
        stop(supervisor, &sandbox);
    }
}

#[test]
fn readiness_that_comes_later_comes_to_the_next_supervisor() {
    for containment in CONTAINMENTS {
        let (sandbox, manifest) = sandbox(
            r#"
            [service.notifier]
            command = ["PUPPET", "touch", "HERE/up", "await", "HERE/go", "notify", "STATUS=here I am", "notify", "READY=1", "hang"]
            start = { ready = { notify = true }, timeout = "1m" }
            [service.prober]
            command = ["PUPPET", "hang"]
            start = { ready = { file = "HERE/go" }, timeout = "1m" }
            [service.needs-both]
            command = ["PUPPET", "count", "HERE/starts", "hang"]
            needs = ["notifier", "prober"]
            "#,
        );
        let mut supervisor = run(&sandbox, &manifest, containment);
        event(&supervisor, "prober", "started");
        wait_until("it runs", SOON, || {
            sandbox.path().join("up").exists().then_some(())
        });
        let before = listed(&sandbox);
        supervisor.kill_dash_nine();
        let supervisor = run(&sandbox, &manifest, containment);
        event(&supervisor, "needs-both", "waiting");
        assert_eq!(listed(&sandbox), before);
        std::fs::write(sandbox.path().join("go"), "").expect("written");
        event(&supervisor, "notifier", "ready");
        event(&supervisor, "needs-both", "started");
        wait_until("its start", SOON, || {
            (lines(&sandbox, "starts") == 1).then_some(())
        });
        stop(supervisor, &sandbox);
    }
}

#[test]
fn a_successor_may_hold_trees_together_in_another_way() {
    let (sandbox, manifest) = sandbox(FAMILY);
    let mut supervisor = run(&sandbox, &manifest, "cgroup");
    event(&supervisor, "api", "ready");
    let before = listed(&sandbox);
    for containment in ["subreaper", "cgroup", "subreaper"] {
        supervisor.kill_dash_nine();
        supervisor = run(&sandbox, &manifest, containment);
        event(&supervisor, "api", "adopted");
        assert_eq!(listed(&sandbox), before);
    }
    // From here on, there is one tree of each kind.
    json(&sandbox, &["restart", "api", "--json"]);
    supervisor.kill_dash_nine();
    let supervisor = run(&sandbox, &manifest, "cgroup");
    event(&supervisor, "api", "adopted");
    event(&supervisor, "db", "adopted");
    stop(supervisor, &sandbox);
}

#[test]
fn a_stop_that_was_cut_short_goes_on() {
    for containment in CONTAINMENTS {
        let (sandbox, manifest) = sandbox(
            r#"
            [service.slow]
            command = ["PUPPET", "ignore", "term,int", "touch", "HERE/up", "hang"]
            start = { ready = { file = "HERE/up" } }
            stop = { graceful = "1s" }
            [service.anchor]
            command = ["PUPPET", "hang"]
            "#,
        );
        let mut supervisor = run(&sandbox, &manifest, containment);
        event(&supervisor, "slow", "ready");
        let mut asking = sandbox.command(mainstay());
        let mut asking = asking
            .args(["stop", "slow"])
            .spawn()
            .expect("mainstay runs");
        event(&supervisor, "slow", "stopping");
        supervisor.kill_dash_nine();
        assert!(!asking.wait().expect("ours").success());
        assert_eq!(state(&sandbox, "slow"), "stop-pending");
        let supervisor = run(&sandbox, &manifest, containment);
        event(&supervisor, "slow", "stopping");
        event(&supervisor, "slow", "stopped");
        assert_eq!(order(&supervisor, "started"), [""; 0]);
        stop(supervisor, &sandbox);
    }
}

/// A failure is reported once, although the supervisor is killed while the failed run stops.
#[test]
fn a_failure_whose_stop_was_cut_short_keeps_its_reason() {
    for containment in CONTAINMENTS {
        let (sandbox, manifest) = sandbox(
            r#"
            [service.slow]
            command = ["PUPPET", "ignore", "term,int", "hang"]
            start = { timeout = "100ms", ready = { file = "HERE/never" } }
            stop = { graceful = "1s" }
            recovery = { delay = "1h", max_delay = "1h" }
            [service.anchor]
            command = ["PUPPET", "hang"]
            "#,
        );
        let mut supervisor = run(&sandbox, &manifest, containment);
        event(&supervisor, "slow", "stopping");
        supervisor.kill_dash_nine();
        let supervisor = run(&sandbox, &manifest, containment);
        event(&supervisor, "slow", "backing-off");
        assert_eq!(order(&supervisor, "failed"), [""; 0]);
        let why = service(&sandbox, "slow")["detail"].clone();
        let is_known = |why: &str| why.starts_with("not ready after ");
        assert!(why.as_str().is_some_and(is_known), "{why}");
        stop(supervisor, &sandbox);
    }
}

#[test]
fn a_kill_in_the_middle_of_a_launch_leaves_nothing_twice() {
    let ups = |supervisor: &Supervisor| {
        let is_up = |event: &Value| event["event"] == "started" || event["event"] == "adopted";
        supervisor.events().into_iter().filter(is_up).count()
    };
    for containment in CONTAINMENTS {
        let services: String = (0..8)
            .map(|i| format!("[service.s{i}]\ncommand = [\"PUPPET\", \"hang\"]\n"))
            .collect();
        let (sandbox, manifest) = sandbox(&services);
        for count in 1..8 {
            let mut supervisor = run(&sandbox, &manifest, containment);
            wait_until("some of them", SOON, || {
                (ups(&supervisor) >= count).then_some(())
            });
            supervisor.kill_dash_nine();
        }
        let supervisor = run(&sandbox, &manifest, containment);
        wait_until("all of them", SOON, || {
            (ups(&supervisor) == 8).then_some(())
        });
        let all = listed(&sandbox);
        assert!(all.values().all(|(state, _)| state == "running"), "{all:?}");
        assert_eq!(sandbox.processes().len(), 9);
        stop(supervisor, &sandbox);
    }
}

/// A readiness message sent while there is no supervisor still counts.
#[test]
fn a_service_that_got_ready_without_a_supervisor_is_ready() {
    let (sandbox, manifest) = sandbox(
        r#"
        [service.a]
        command = ["PUPPET", "await", "HERE/go", "print", "Ready", "touch", "HERE/said", "hang"]
        start = { ready = { log = "^Ready$" } }
        "#,
    );
    let mut supervisor = run(&sandbox, &manifest, "subreaper");
    event(&supervisor, "a", "started");
    supervisor.kill_dash_nine();
    sandbox.write("go", "");
    let said = sandbox.path().join("said");
    wait_until("its word", SOON, || said.exists().then_some(()));
    supervisor = run(&sandbox, &manifest, "subreaper");
    event(&supervisor, "a", "ready");
    stop(supervisor, &sandbox);
}

/// A resource that a service names may be gone, or belong to another account, when a successor
/// starts.
#[test]
fn a_service_that_cannot_be_started_keeps_no_other_from_being_adopted() {
    let (sandbox, manifest) = sandbox(
        "[service.a]\ncommand = [\"PUPPET\", \"hang\"]\n\
         [service.b]\ncommand = [\"PUPPET\", \"exit\", \"1\"]\nenv_file = \"HERE/env\"\n\
         recovery = { delay = \"1h\", max_delay = \"1h\" }\n",
    );
    let env_path = sandbox.write("env", "A=1\n");
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "a", "started");
    event(&supervisor, "b", "backing-off");
    let before = pid(&sandbox, "a");
    supervisor.kill_dash_nine();
    std::fs::remove_file(env_path).expect("the sandbox is writable");
    let successor = Supervisor::start(&sandbox, &manifest);
    event(&successor, "a", "adopted");
    assert_eq!(pid(&sandbox, "a"), before);
    stop(successor, &sandbox);
}

#[test]
fn what_went_to_the_background_is_seen_by_the_next_supervisor() {
    for containment in CONTAINMENTS {
        let (sandbox, manifest) =
            sandbox("[service.bg]\ncommand = [\"sh\", \"-c\", \"PUPPET hang & exit 0\"]\n");
        let mut supervisor = run(&sandbox, &manifest, containment);
        event(&supervisor, "bg", "exited");
        supervisor.kill_dash_nine();
        assert_eq!(state(&sandbox, "bg"), "unknown");
        let said = stderr(&verb(&sandbox, &["status"]));
        assert!(
            said.contains("is no longer running, but its services are"),
            "{said}"
        );
        let mut supervisor = run(&sandbox, &manifest, containment);
        let halted = event(&supervisor, "bg", "halted");
        let message = halted["message"].as_str().expect("a message");
        assert!(message.contains("went into the background"), "{message}");
        assert_eq!(code(supervisor.wait(SOON)), 1);
        sandbox.assert_no_leftovers();
    }
}

#[test]
fn a_line_that_was_written_before_an_end_without_a_supervisor_counts() {
    for containment in CONTAINMENTS {
        let (sandbox, manifest) = sandbox(
            r#"
            [service.job]
            command = ["sh", "-c", "until [ -e HERE/go ]; do sleep 0.01; done; echo migrated"]
            start = { ready = { log = "migrated" } }
            recovery = { policy = "never" }
            [service.dep]
            command = ["PUPPET", "hang"]
            needs = ["job"]
            "#,
        );
        let mut supervisor = run(&sandbox, &manifest, containment);
        event(&supervisor, "job", "started");
        let job = pid(&sandbox, "job");
        supervisor.kill_dash_nine();
        sandbox.write("go", "");
        wait_until("the job's end", SOON, || has_ended(job).then_some(()));
        let supervisor = run(&sandbox, &manifest, containment);
        event(&supervisor, "job", "ready");
        event(&supervisor, "job", "exited");
        stop(supervisor, &sandbox);
    }
}

#[test]
fn a_halt_keeps_its_time_when_its_supervisor_is_killed() {
    let (sandbox, manifest) = sandbox(
        r#"
        [service.bad]
        command = ["PUPPET", "exit", "3"]
        recovery = { policy = "strict" }
        [service.ok]
        command = ["PUPPET", "hang"]
        "#,
    );
    let mut supervisor = run(&sandbox, &manifest, "subreaper");
    event(&supervisor, "bad", "halted");
    // Waits, so that a time that starts anew is a different one.
    wait_until("the next second", SOON, || {
        let shown = service(&sandbox, "bad")["since_seconds"].as_u64();
        (shown > Some(1)).then_some(())
    });
    supervisor.kill_dash_nine();
    let supervisor = run(&sandbox, &manifest, "subreaper");
    event(&supervisor, "ok", "adopted");
    let shown = service(&sandbox, "bad")["since_seconds"].as_u64();
    assert!(shown > Some(1), "{shown:?}");
    stop(supervisor, &sandbox);
}
