//! Reports of updates and rollbacks: the versions in effect, rejected and restored.
#![cfg(target_os = "linux")]

use super::updates::{daemon, manifest, said};
use super::*;

#[test]
fn an_update_of_a_stopped_service_is_not_said_to_be_tried() {
    let sandbox = Sandbox::new();
    let numbered = |number: u32| {
        let services =
            format!("[service.shop]\ncommand = [\"PUPPET\", \"print\", \"{number}\", \"hang\"]\n");
        manifest(&sandbox, &format!("{number}.toml"), &services)
    };
    let daemon = daemon(&sandbox, &numbered(1));
    event(&daemon, "shop", "started");
    json(&sandbox, &["stop", "shop", "--json"]);
    let updated = verb(&sandbox, &["update", &numbered(2)]);
    let told = String::from_utf8_lossy(&updated.stdout).into_owned();
    let expected = "shop: updated from version 1 to version 2; not tried: the service is stopped\n";
    assert_eq!((code(updated.status), &*told), (0, expected));
    let updated = said(&sandbox, 0, &["update", &numbered(3)]);
    assert_eq!(
        (&updated["outcome"], &updated["style"], &updated["untried"]),
        (
            &"updated".into(),
            &Value::Null,
            &"the service is stopped".into()
        )
    );
    let events = verb(&sandbox, &["events", "shop"]);
    let events = String::from_utf8_lossy(&events.stdout).into_owned();
    for part in [
        "shop: stopped by SIGTERM after ",
        "shop: updating from version 2 to version 3: the service is stopped, so the new definition is not tried\n",
        "shop: updated from version 2 to version 3, not tried: the service is stopped\n",
    ] {
        assert!(events.contains(part), "no {part:?} in {events}");
    }
    assert!(
        !events.contains("healthy") && !events.contains("killed"),
        "{events}"
    );
    let history = json(&sandbox, &["history", "shop", "--json"]);
    let details = history["entries"].as_array().expect("entries").iter();
    let details: Vec<_> = details.map(|entry| entry["detail"].as_str()).collect();
    let untried = Some("not tried: the service is stopped");
    assert_eq!(details, [None, untried, untried]);

    // Nothing ran since the recorded end of the last run.
    json(&sandbox, &["stop", "shop", "--json"]);
    stop(daemon, &sandbox);
    let shop = service(&sandbox, "shop");
    let message = shop["last_event"]["message"].as_str();
    assert_eq!(message, Some("stopped by SIGTERM"), "{shop}");
    assert!(shop["last_event"]["unseen"].is_null(), "{shop}");
    let updated = said(&sandbox, 0, &["update", &numbered(4)]);
    assert_eq!(updated["untried"], "`mainstay daemon` is not running");
}

/// Returns the standard output of a command that succeeds.
#[track_caller]
fn told(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let output = verb(sandbox, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_rejected_version_is_kept_and_rollbacks_go_further_back() {
    let sandbox = Sandbox::new();
    let program = |name: &str, steps: &str| {
        let services = format!("[service.shop]\ncommand = [\"PUPPET\", {steps}]\n");
        manifest(&sandbox, &format!("{name}.toml"), &services)
    };
    let numbered = |name: &str| program(name, &format!("\"print\", \"{name}\", \"hang\""));
    let daemon = daemon(&sandbox, &numbered("one"));
    event(&daemon, "shop", "started");
    for name in ["two", "three"] {
        told(&sandbox, &["update", &numbered(name), "--canary", "0s"]);
    }
    let broken = program("broken", "\"exit\", \"3\"");
    let refused = said(&sandbox, 1, &["update", &broken, "--canary", "20s"]);
    assert_eq!(
        (&refused["version"], &refused["rejected"]),
        (&3.into(), &4.into())
    );

    // The definition that was tried can be seen.
    let diff = told(&sandbox, &["diff", "shop"]);
    for part in [
        "--- shop version 3\n+++ shop version 4 (rolled back)\n",
        "\"three\", \"hang\"]\n+command",
        "\"exit\", \"3\"]\n",
    ] {
        assert!(diff.contains(part), "no {part:?} in {diff}");
    }
    let rollback = || told(&sandbox, &["rollback", "shop", "--canary", "0s"]);
    let expected = "shop: version 5 (the definition of version 2) replaces version 3\n";
    assert_eq!(rollback(), expected);
    let expected = "shop: version 6 (the definition of version 1) replaces version 5\n";
    assert_eq!(rollback(), expected);
    let first = verb(&sandbox, &["rollback", "shop"]);
    let error = String::from_utf8_lossy(&first.stderr).into_owned();
    let expected = "error: cannot roll back shop: no version was in effect before version 6\n";
    assert!(error.starts_with(expected), "{error}");
    let forward = told(
        &sandbox,
        &["rollback", "shop", "--to", "3", "--canary", "0s"],
    );
    let expected = "shop: version 7 (the definition of version 3) replaces version 6\n";
    assert_eq!(forward, expected);

    let history = told(&sandbox, &["history", "shop"]);
    let columns = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let [version, event, _who] = [(); 3].map(|()| words.next().expect("a column"));
        let why: Vec<&str> = words.collect();
        format!("{version} {event}: {}", why.join(" "))
    };
    let history: Vec<String> = history.lines().skip(1).map(columns).collect();
    assert_eq!(
        history,
        [
            "1 created: ",
            "2 updated: from version 1 to version 2",
            "3 updated: from version 2 to version 3",
            "4 rolled-back: version 3 remains in effect; the update was rolled back: exit code 3",
            "5 updated: from version 3 to the definition of version 2",
            "6 updated: from version 5 to the definition of version 1",
            "7 updated: from version 6 to the definition of version 3",
        ]
    );
    stop(daemon, &sandbox);
}

#[test]
fn a_rollback_says_what_it_is_and_how_far_it_came() {
    let sandbox = Sandbox::new();
    let good = sandbox.write("good", "");
    let one = r#"
        [service.shop]
        command = ["sh", "-c", "test -e HERE/good || { echo broken; exit 7; }; exec PUPPET hang"]
        "#;
    let one = manifest(&sandbox, "one.toml", one);
    let two = "[service.shop]\ncommand = [\"PUPPET\", \"hang\"]\n";
    let two = manifest(&sandbox, "two.toml", two);
    let daemon = daemon(&sandbox, &one);
    event(&daemon, "shop", "started");
    said(&sandbox, 0, &["update", &two, "--canary", "0s"]);
    std::fs::remove_file(&good).expect("a file");
    let refused = verb(&sandbox, &["rollback", "shop", "--canary", "20s"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(code(refused.status), 1, "{told}");
    for part in [
        "error: cannot roll back shop: the update was rolled back: ",
        "shop | broken\n",
        "note: version 3 was rolled back in its canary, after it had become ready; version 2 remains in effect\n",
        "hint: compare it with version 2: mainstay diff shop --to 3\n",
    ] {
        assert!(told.contains(part), "no {part:?} in {told}");
    }
    let refused = said(&sandbox, 1, &["rollback", "shop", "--canary", "20s"]);
    assert_eq!(refused["style"], "restart", "{refused}");
    sandbox.write("good", "");
    said(&sandbox, 0, &["rollback", "shop", "--canary", "0s"]);
    let history = json(&sandbox, &["history", "shop", "--json"]);
    let entries = history["entries"].as_array().expect("entries");
    let last = entries.last().expect("an entry");
    assert_eq!(
        (&last["event"], &last["version"], &last["restored"]),
        (&"updated".into(), &5.into(), &1.into())
    );
    stop(daemon, &sandbox);
}
