//! Snapshots of state, and restores without an operator.

use std::fs;
use std::path::Path;

use mainstay_testkit::Supervisor;

use super::*;

/// A service whose state is bad if it contains "bad". The service then exits with 201.
const FUSSY: &str = r#"
[service.fussy]
command = ["PUPPET", "exit-if", "HERE/data/state", "bad", "201", "count", "HERE/starts", "hang"]
snapshot = { paths = ["HERE/data"], keep = 9, after = "100ms" }
"#;

/// Starts the service with the state "good 1", and waits until a snapshot of it exists.
fn fussy(manifest: &str) -> (Supervisor, Sandbox) {
    let (sandbox, manifest) = sandbox(manifest);
    fs::create_dir(sandbox.path().join("data")).expect("a directory");
    write(&sandbox, "good 1");
    let supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "fussy", "snapshot-taken");
    (supervisor, sandbox)
}

fn state_path(sandbox: &Sandbox) -> std::path::PathBuf {
    sandbox.path().join("data/state")
}

fn write(sandbox: &Sandbox, state: &str) {
    fs::write(state_path(sandbox), state).expect("written");
}

fn read(sandbox: &Sandbox) -> String {
    fs::read_to_string(state_path(sandbox)).expect("its state")
}

fn snapshots(sandbox: &Sandbox) -> Vec<Value> {
    let list = json(sandbox, &["snapshot", "list", "fussy", "--json"]);
    list["snapshots"].as_array().expect("snapshots").clone()
}

/// Restarts the service, and waits until it runs after this number of restores.
#[track_caller]
fn restart(supervisor: &Supervisor, sandbox: &Sandbox, restores: usize) {
    // The service does not report readiness, so the verb does not wait for the check of its state.
    verb(sandbox, &["restart", "fussy"]);
    let restored = events(supervisor, "fussy", "restored", restores);
    wait_until("it runs after that", SOON, || {
        let all = supervisor.events();
        let last = all
            .iter()
            .rposition(|event| event == &restored[restores - 1])?;
        let is_start = |event: &Value| event["event"] == "started";
        let starts = all[last..].iter().any(is_start);
        (starts && service(sandbox, "fussy")["state"] == "running").then_some(())
    });
}

#[test]
fn a_bad_state_is_replaced_by_the_last_stable_one() {
    let (supervisor, sandbox) = fussy(FUSSY);
    write(&sandbox, "bad");
    restart(&supervisor, &sandbox, 1);
    assert_eq!(read(&sandbox), "good 1");
    let restored = event(&supervisor, "fussy", "restored");
    let kept = snapshots(&sandbox);
    assert_eq!(restored["snapshot"], kept[0]["id"]);
    assert_eq!(
        (&kept[0]["reason"], &kept[0]["stable"]),
        (&"healthy".into(), &true.into())
    );
    // The bad state is kept for inspection.
    let bad = wait_until("the bad state is kept", SOON, || {
        let mut kept = snapshots(&sandbox).into_iter();
        kept.find(|one| one["reason"] == "before-restore")
    });
    let id = bad["id"].as_str().expect("an id");
    let tree = sandbox.state_dir().join("snapshots/fussy").join(id);
    assert_eq!(
        fs::read_to_string(tree.join("tree/0/state")).expect("kept"),
        "bad"
    );
    wait_until("nothing lies beside it", SOON, || {
        let beside = fs::read_dir(sandbox.path()).expect("a directory");
        let mut names = beside.map(|entry| entry.expect("an entry").file_name());
        (!names.any(|name| name.to_string_lossy().starts_with(".mainstay"))).then_some(())
    });
    stop(supervisor, &sandbox);
}

/// The message is the same for a running service and for a stopped one.
#[test]
fn a_service_without_snapshots_says_what_its_manifest_lacks() {
    let (supervisor, sandbox) = supervise("[service.app]\ncommand = [\"PUPPET\", \"hang\"]\n");
    event(&supervisor, "app", "started");
    let lacks = || {
        for (expected, action) in [(4, "list"), (78, "create")] {
            let output = verb(&sandbox, &["snapshot", action, "app"]);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(code(output.status), expected, "{said}");
            assert!(said.contains("set snapshot = {"), "{said}");
            assert!(!said.contains("snapshot create"), "{said}");
        }
    };
    lacks();
    assert_eq!(code(verb(&sandbox, &["stop", "app"]).status), 0);
    lacks();
    stop(supervisor, &sandbox);
}

#[test]
fn the_two_newest_are_as_bad() {
    let (supervisor, sandbox) = fussy(FUSSY);
    for state in ["bad 1", "bad 2"] {
        write(&sandbox, state);
        let taken = json(&sandbox, &["snapshot", "create", "fussy", "--json"]);
        assert_eq!(taken["snapshot"]["stable"], true, "{taken}");
        assert_eq!(taken["snapshot"]["reason"], "manual");
    }
    restart(&supervisor, &sandbox, 3);
    assert_eq!(read(&sandbox), "good 1");
    let restored = events(&supervisor, "fussy", "restored", 3);
    let order: Vec<&Value> = restored.iter().map(|event| &event["snapshot"]).collect();
    let kept = snapshots(&sandbox);
    assert_eq!(order, [&kept[2]["id"], &kept[1]["id"], &kept[0]["id"]]);
    stop(supervisor, &sandbox);
}

#[test]
fn without_an_older_one_a_human_is_called() {
    let (supervisor, sandbox) = fussy(FUSSY);
    write(&sandbox, "bad 1");
    json(&sandbox, &["snapshot", "create", "fussy", "--json"]);
    let ids = snapshots(&sandbox);
    let first = ids[0]["id"].as_str().expect("an id");
    json(&sandbox, &["snapshot", "prune", "fussy", first, "--json"]);
    verb(&sandbox, &["restart", "fussy"]);
    let halted = event(&supervisor, "fussy", "halted");
    let why = halted["message"].as_str().expect("a message");
    assert!(why.contains("no stable snapshot before"), "{why}");
    assert!(why.contains("mainstay snapshot list fussy"), "{why}");
    let mut supervisor = supervisor;
    supervisor.ctrl_c();
    supervisor.wait(SOON);
    sandbox.assert_no_leftovers();
}

/// A list of no snapshots helps nobody.
#[test]
fn a_restore_without_any_snapshot_has_no_hint_to_list_them() {
    let (sandbox, manifest) = sandbox(&FUSSY.replace("100ms", "1h"));
    fs::create_dir(sandbox.path().join("data")).expect("a directory");
    write(&sandbox, "bad");
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    let halted = event(&supervisor, "fussy", "halted");
    let why = halted["message"].as_str().expect("a message");
    assert!(why.ends_with("fussy has no stable snapshot"), "{why}");
    supervisor.ctrl_c();
    supervisor.wait(SOON);
    sandbox.assert_no_leftovers();
}

#[test]
fn a_damaged_one_is_passed_over() {
    let (supervisor, sandbox) = fussy(FUSSY);
    write(&sandbox, "good 2");
    let taken = json(&sandbox, &["snapshot", "create", "fussy", "--json"]);
    let id = taken["snapshot"]["id"].as_str().expect("an id");
    let dir = sandbox.state_dir().join("snapshots/fussy").join(id);
    fs::write(dir.join("tree/0/state"), "good 3").expect("harmed");
    let verified = verb(&sandbox, &["snapshot", "verify", "fussy", "--json"]);
    assert_eq!(code(verified.status), 1);
    write(&sandbox, "bad");
    restart(&supervisor, &sandbox, 1);
    assert_eq!(read(&sandbox), "good 1");
    supervisor.wait_event(SOON, |event| {
        let message = event["message"].as_str().unwrap_or_default();
        message.contains(id) && message.contains("is damaged: the content of state")
    });
    stop(supervisor, &sandbox);
}

#[test]
fn an_operator_restores_what_is_not_in_use() {
    let (supervisor, sandbox) = fussy(FUSSY);
    let id = snapshots(&sandbox)[0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    write(&sandbox, "good 2");
    let restore = ["snapshot", "restore", "fussy", &id];
    let refused = verb(&sandbox, &restore);
    assert_eq!(code(refused.status), 1);
    let complaint = String::from_utf8_lossy(&refused.stderr);
    assert!(complaint.contains("hint: stop it first"), "{complaint}");
    assert_eq!(read(&sandbox), "good 2");
    let done = json(&sandbox, &[&restore[..], &["--stop", "--json"]].concat());
    assert_eq!(done["restored"], id.as_str());
    assert_eq!(read(&sandbox), "good 1");
    assert_eq!(service(&sandbox, "fussy")["state"], "running");
    assert!(verb(&sandbox, &["stop", "fussy"]).status.success());
    let back = done["kept_as"].as_str().expect("what was replaced");
    json(
        &sandbox,
        &["snapshot", "restore", "fussy", back, "--discard", "--json"],
    );
    assert_eq!(read(&sandbox), "good 2");
    for (args, expect) in [
        (&["snapshot", "list", "nobody"][..], 4),
        (&["snapshot", "show", "fussy", "20200101T000000.000000Z"], 4),
        (&["snapshot", "show", "fussy", "yesterday"], 2),
    ] {
        assert_eq!(code(verb(&sandbox, args).status), expect, "{args:?}");
    }
    stop(supervisor, &sandbox);
}

/// The probe keeps the service from being ready before it has checked its state.
#[test]
fn a_start_tells_that_the_state_was_replaced() {
    let ready =
        r#"start = { ready = { exec = ["PUPPET", "exit-if", "HERE/data/state", "bad", "1"] } }"#;
    let (supervisor, sandbox) = fussy(&format!("{FUSSY}{ready}\n"));
    let id = snapshots(&sandbox)[0]["id"].clone();
    let restart = |args: &[&str]| {
        write(&sandbox, "bad");
        let output = verb(&sandbox, &[&["restart", "fussy"], args].concat());
        let texts = [output.stdout, output.stderr];
        texts.map(|text| String::from_utf8_lossy(&text).into_owned())
    };
    let warning = format!(
        "warning: fussy: its state failed to load (exit code 201), so snapshot {} was restored\n\
         hint: see its snapshots, and the replaced state: mainstay snapshot list fussy\n",
        id.as_str().expect("an ID")
    );
    assert_eq!(
        restart(&[]),
        ["fussy: running\n".to_owned(), warning.clone()]
    );
    assert_eq!(read(&sandbox), "good 1");
    let [document, remark] = restart(&["--json"]);
    let document: Value = serde_json::from_str(&document).expect("a document");
    assert_eq!(
        (&document["services"][0]["restored"], remark),
        (&id, warning)
    );
    // It belongs to the start before this one.
    assert_eq!(said(&sandbox, &["restart", "fussy"]).1, "fussy: running\n");
    assert_eq!(service(&sandbox, "fussy").get("restored"), None);
    stop(supervisor, &sandbox);
}

#[test]
fn it_is_kept_still_meanwhile() {
    let commands = r#", quiesce = ["PUPPET", "touch", "HERE/quiet"], thaw = ["PUPPET", "touch", "HERE/loud"] }"#;
    let (supervisor, sandbox) = fussy(&FUSSY.replace(" }", commands));
    for name in ["quiet", "loud"] {
        wait_until(name, SOON, || {
            sandbox.path().join(name).exists().then_some(())
        });
    }
    stop(supervisor, &sandbox);
    // A service that never writes the same content twice can be copied only while it is suspended.
    // It continues afterwards.
    let restless = r#"
        [service.fussy]
        command = ["/bin/sh", "-c", "i=0; while :; do i=$((i+1)); echo $i > HERE/data/state; done"]
        snapshot = { paths = ["HERE/data"], after = "100ms", pause = true }
        "#;
    let (supervisor, sandbox) = fussy(restless);
    let kept = snapshots(&sandbox);
    let copy = Path::new("snapshots/fussy").join(kept[0]["id"].as_str().expect("an id"));
    let copy = sandbox.state_dir().join(copy).join("tree/0/state");
    let number = |path: &Path| -> u64 {
        wait_until("a number", SOON, || {
            fs::read_to_string(path).ok()?.trim().parse().ok()
        })
    };
    let then = fs::read_to_string(copy)
        .expect("kept")
        .trim()
        .parse()
        .unwrap_or(0);
    wait_until("it goes on", SOON, || {
        (number(&state_path(&sandbox)) > then).then_some(())
    });
    stop(supervisor, &sandbox);
}

#[test]
fn a_restore_that_was_killed_is_completed_before_the_next_start() {
    let (supervisor, sandbox) = fussy(FUSSY);
    write(&sandbox, "good 2");
    let id = snapshots(&sandbox)[0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    stop(supervisor, &sandbox);
    // Simulates the state after the commit: everything is prepared, and nothing is exchanged.
    fs::create_dir(sandbox.path().join(".new")).expect("a directory");
    fs::write(sandbox.path().join(".new/state"), "good 1").expect("prepared");
    let inode = std::os::unix::fs::MetadataExt::ino(
        &fs::metadata(sandbox.path().join(".new")).expect("it is there"),
    );
    let one = serde_json::json!({
        "parent": sandbox.path(), "target": "data", "new": ".new", "old": ".old", "inode": inode,
    });
    let journal = serde_json::json!({
        "version": 1, "snapshot": id, "committed": true, "keep": null, "moves": [one],
    });
    let place = sandbox
        .state_dir()
        .join("snapshots/fussy/restore-20300101T000000.000000Z.json");
    fs::write(place, journal.to_string()).expect("written");
    let manifest = sandbox.path().join("mainstay.toml");
    let supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "fussy", "started");
    assert_eq!(read(&sandbox), "good 1");
    stop(supervisor, &sandbox);
}

#[test]
fn two_at_once_take_turns() {
    let (sandbox, _) = sandbox(FUSSY);
    fs::create_dir(sandbox.path().join("data")).expect("a directory");
    write(&sandbox, &"good ".repeat(1_000_000));
    let create = || {
        let mut command = sandbox.command(mainstay());
        command.args(["snapshot", "create", "fussy", "--manifest", "mainstay.toml"]);
        command.spawn().expect("mainstay runs")
    };
    let running: Vec<_> = (0..4).map(|_| create()).collect();
    let codes: Vec<i32> = running
        .into_iter()
        .map(|mut child| code(child.wait().expect("it ends")))
        .collect();
    assert!(codes.iter().all(|code| [0, 75].contains(code)), "{codes:?}");
    let done = codes.iter().filter(|code| **code == 0).count();
    assert!(done > 0);
    assert_eq!(snapshots(&sandbox).len(), done);
    let verified = verb(&sandbox, &["snapshot", "verify", "fussy"]);
    assert!(verified.status.success());
}

#[test]
fn a_restore_that_waits_is_called_off_by_a_stop() {
    let (supervisor, sandbox) = fussy(FUSSY);
    let lock = sandbox.state_dir().join("snapshots/fussy/lock");
    let lock = fs::File::open(lock).expect("the lock of its snapshots");
    lock.lock().expect("nobody has it for long");
    write(&sandbox, "bad");
    verb(&sandbox, &["restart", "fussy"]);
    event(&supervisor, "fussy", "restoring");
    let stopped = verb(&sandbox, &["stop", "fussy"]);
    assert!(stopped.status.success(), "{stopped:?}");
    assert_eq!(service(&sandbox, "fussy")["state"], "stopped");
    assert_eq!(order(&supervisor, "halted"), [""; 0]);
    assert_eq!(read(&sandbox), "bad");
    lock.unlock().expect("it is ours");
    // Nothing of the state is left: the next start restores it.
    verb(&sandbox, &["start", "fussy"]);
    event(&supervisor, "fussy", "restored");
    assert_eq!(read(&sandbox), "good 1");
    stop(supervisor, &sandbox);
}
