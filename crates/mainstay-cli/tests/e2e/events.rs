//! Events are stored, and can be read again.

use std::fs;
use std::process::Stdio;

use super::daemon::{daemon, install};
use super::sandbox as of_services;
use super::*;

/// Returns the stored events of a service, or of all.
fn stored(sandbox: &Sandbox, args: &[&str]) -> Vec<Value> {
    let all = ["events", "--json", "-n", "100000"];
    let output = verb(sandbox, &[&all[..], args].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code(output.status), 0, "{args:?}: {error}");
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("JSON: {line}"));
    text.lines().map(parse).collect()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    let kinds = events.iter().map(|event| event["event"].as_str());
    kinds.map(Option::unwrap_or_default).collect()
}

#[test]
fn what_happened_is_known_after_the_supervisor_is_gone() {
    let (mut supervisor, sandbox) = supervise(
        r#"
        [service.once]
        command = ["PUPPET", "exit", "7"]
        recovery = { policy = "strict" }
        [service.talks]
        command = ["PUPPET", "notify", "STATUS=busy", "notify", "READY=1", "hang"]
        start = { ready = { notify = true } }
        "#,
    );
    event(&supervisor, "once", "halted");
    event(&supervisor, "talks", "status");
    event(&supervisor, "talks", "ready");
    supervisor.ctrl_c();
    supervisor.wait(SOON);
    let is_stored =
        |event: &Value| !["notice", "status"].contains(&event["event"].as_str().unwrap());
    let told = supervisor.events().into_iter().filter(is_stored);
    let told: Vec<Value> = told.collect();
    for name in ["once", "talks"] {
        let of_name = told.iter().filter(|event| event["service"] == name);
        let expect: Vec<Value> = of_name.cloned().collect();
        assert_eq!(stored(&sandbox, &[name]), expect, "{name}");
    }
    assert_eq!(stored(&sandbox, &[]).len(), told.len());
    let once = "once: halted: exit code 7";
    for (args, contained, lines) in [
        (&["events", "once", "-n", "1"][..], "once: stopped", 1),
        (&["events", "once"], once, 5),
        (&["events", "--grep", "^halted.*7"], once, 1),
        (&["events", "-g", "HALTED", "-i"], once, 1),
        (&["events", "--alerts"], once, 2),
        (&["events", "talks", "--alerts"], "", 0),
        (&["events", "--since", "1h", "once"], once, 5),
        (&["events", "--until", "1h", "once"], "", 0),
        (&["events", "--grep", "no such text"], "", 0),
    ] {
        let (code, text) = said(&sandbox, args);
        assert_eq!(code, 0, "{args:?}: {text}");
        assert!(text.contains(contained), "{args:?}: {text}");
        assert_eq!(text.lines().count(), lines, "{args:?}: {text}");
    }
    for args in [&["events", "nosuch"][..], &["events", "../once"]] {
        let (code, text) = said(&sandbox, args);
        assert!([3, 4].contains(&code), "{args:?}: {text}");
    }
    let (code, text) = said(&sandbox, &["events", "once", "--follow"]);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains(once) && text.contains("error: "), "{text}");
    sandbox.assert_no_leftovers();
}

/// Facts of one step have the same time.
#[test]
fn events_of_the_same_time_are_in_the_order_in_which_they_occurred() {
    let (mut supervisor, sandbox) = supervise(
        "[service.z]\ncommand = [\"PUPPET\", \"hang\"]\n\
         [service.a]\ncommand = [\"PUPPET\", \"hang\"]\n",
    );
    event(&supervisor, "z", "started");
    event(&supervisor, "a", "started");
    supervisor.ctrl_c();
    supervisor.wait(SOON);
    let mut told = supervisor.events();
    told.retain(|event| event["event"] != "notice");
    let time = |event: &Value| event["time"].as_str().expect("a time").to_owned();
    // An exit may be told late.
    told.sort_by_key(time);
    let stops: Vec<&Value> = told.iter().filter(|it| it["event"] == "stopping").collect();
    assert_eq!(time(stops[0]), time(stops[1]), "{told:?}");
    assert_eq!([&stops[0]["service"], &stops[1]["service"]], ["z", "a"]);
    assert_eq!(stored(&sandbox, &[]), told);
}

/// At three in the morning, the first question is who stopped it.
#[cfg(unix)]
#[test]
fn events_tell_who_requested_a_change() {
    let (sandbox, manifest) = of_services("[service.a]\ncommand = [\"PUPPET\", \"hang\"]\n");
    let supervisor = Supervisor::start(&sandbox, &manifest);
    supervisor.wait_event(SOON, |event| event["event"] == "started");
    let client = sandbox.command(mainstay()).args(["stop", "a"]).spawn();
    let mut client = client.expect("mainstay runs");
    let pid = client.id();
    assert!(client.wait().expect("our child").success());
    let events = stored(&sandbox, &["a"]);
    let asked = events.iter().position(|it| it["event"] == "requested");
    let asked = asked.expect("the request");
    assert_eq!(events[asked + 1]["event"], "stopping", "{events:?}");
    let request = &events[asked];
    assert_eq!(request["operation"], "stop");
    assert_eq!(request["principal"]["pid"], pid);
    let user = request["principal"]["user"].as_str().expect("a name");
    let message = request["message"].as_str().expect("a message");
    assert_eq!(message, format!("stop requested by {user} (pid {pid})"));
    stop(supervisor, &sandbox);
}

#[test]
fn a_kill_of_the_supervisor_tears_no_event() {
    let (sandbox, manifest) = of_services("[service.a]\ncommand = [\"PUPPET\", \"hang\"]\n");
    let mut count = 0;
    for _ in 0..5 {
        let mut supervisor = Supervisor::start(&sandbox, &manifest);
        let up = |event: &Value| ["started", "adopted"].contains(&event["event"].as_str().unwrap());
        let first = supervisor.wait_event(SOON, up);
        let first = first["event"].as_str().expect("a kind");
        let restart = sandbox
            .command(mainstay())
            .args(["restart", "a"])
            .stderr(Stdio::null())
            .spawn();
        let mut restart = restart.expect("mainstay runs");
        supervisor.wait_event(SOON, |event| event["event"] == "stopping");
        supervisor.kill_dash_nine();
        restart.wait().expect("our child");
        let events = stored(&sandbox, &["a"]);
        assert!(events.len() > count, "{events:?}");
        count = events.len();
        assert!(kinds(&events).contains(&first), "{events:?}");
    }
    let supervisor = Supervisor::start(&sandbox, &manifest);
    supervisor.wait_event(SOON, |event| event["service"] == "a");
    stop(supervisor, &sandbox);
    let events = stored(&sandbox, &["a"]);
    assert_eq!(kinds(&events).last(), Some(&"stopped"));
    let path = sandbox.state_dir().join("events/a/current.log");
    let lines = fs::read_to_string(path).expect("the events");
    assert_eq!(lines.lines().count(), events.len(), "{lines}");
}

#[test]
fn each_event_is_followed_once() {
    let (supervisor, sandbox) = supervise("[service.a]\ncommand = [\"PUPPET\", \"hang\"]\n");
    event(&supervisor, "a", "started");
    let mut followers = Vec::new();
    for _ in 0..8 {
        json(&sandbox, &["restart", "a", "--json"]);
        let mut follower = sandbox.command(mainstay());
        follower.args(["events", "a", "-f", "--json", "-n", "100000"]);
        let mut follower = follower.stdout(Stdio::piped()).spawn().expect("it runs");
        let stdout = follower.stdout.take().expect("piped");
        let reader = std::thread::spawn(move || std::io::read_to_string(stdout));
        followers.push((follower, reader));
    }
    json(&sandbox, &["restart", "a", "--json"]);
    // Connected ones have shown what is stored. Each sees the end.
    let socket = sandbox.state_dir().join("control.sock");
    wait_until("all are connected", SOON, || {
        let peers = fs::read_to_string("/proc/net/unix").expect("sockets");
        let all = peers
            .lines()
            .filter(|it| it.ends_with(&*socket.to_string_lossy()));
        (all.count() == 1 + followers.len()).then_some(())
    });
    stop(supervisor, &sandbox);
    let path = sandbox.state_dir().join("events/a/current.log");
    let lines = fs::read_to_string(path).expect("the events");
    for (mut follower, reader) in followers {
        assert!(follower.wait().expect("our child").success());
        let shown = reader.join().expect("a reader").expect("text");
        assert_eq!(shown, lines);
    }
}

#[test]
fn a_hung_disk_of_events_holds_up_nobody() {
    let (sandbox, manifest) = of_services("[service.a]\ncommand = [\"PUPPET\", \"hang\"]\n");
    let dir = sandbox.state_dir().join("events");
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "a", "started");
    wait_until("it is stored", SOON, || {
        dir.join("a/current.log").exists().then_some(())
    });
    let Some(mount) = mainstay_testkit::HungMount::cover(&dir) else {
        return mainstay_testkit::skip("this user may not mount a FUSE file system");
    };
    json(&sandbox, &["restart", "a", "--json"]);
    mount.wait_until_asked(SOON);
    for _ in 0..5 {
        json(&sandbox, &["restart", "a", "--json"]);
    }
    assert_eq!(service(&sandbox, "a")["state"], "running");
    supervisor.ctrl_c();
    supervisor.wait_event(SOON, |event| {
        let message = event["message"].as_str().unwrap_or_default();
        message.contains("events were not stored")
    });
    mount.release();
    supervisor.wait(SOON);
}

#[test]
fn what_is_in_the_place_of_events_harms_nobody() {
    let (sandbox, manifest) = of_services("[service.a]\ncommand = [\"PUPPET\", \"hang\"]\n");
    let dir = sandbox.state_dir().join("events/a");
    fs::create_dir_all(&dir).expect("the sandbox is writable");
    let path = dir.join("current.log");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)
        .expect("a FIFO");
    let supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "a", "started");
    let problem = wait_until("the problem", SOON, || {
        let problems = service(&sandbox, "a").to_string();
        problems
            .contains("events/a/current.log")
            .then_some(problems)
    });
    let (code, text) = said(&sandbox, &["events", "a"]);
    assert_eq!(code, 1, "{text} {problem}");
    fs::remove_file(&path).expect("it is there");
    json(&sandbox, &["restart", "a", "--json"]);
    wait_until("it to be stored", SOON, || {
        let (_, text) = said(&sandbox, &["events", "a"]);
        text.contains("lost").then_some(())
    });
    stop(supervisor, &sandbox);
}

#[test]
fn figures_follow_from_events() {
    let (supervisor, sandbox) = supervise(
        r#"
        [service.flaps]
        command = ["PUPPET", "await", "HERE/go", "exit", "1"]
        recovery = { delay = "10ms", limit = "none" }
        "#,
    );
    event(&supervisor, "flaps", "started");
    let figures = json(&sandbox, &["history", "flaps", "--stats", "--json"]);
    assert_eq!(figures["outages"], 0, "{figures}");
    assert_eq!(figures["deployments"], 0, "{figures}");
    sandbox.write("go", "");
    event(&supervisor, "flaps", "failed");
    fs::remove_file(sandbox.path().join("go")).expect("it is there");
    wait_until("it is ready again", SOON, || {
        let figures = json(&sandbox, &["history", "flaps", "--stats", "--json"]);
        (figures["outages"].as_u64() > Some(0) && figures["is_down"] == false).then_some(())
    });
    let figures = json(&sandbox, &["history", "flaps", "--stats", "--json"]);
    assert!(
        figures["restored_median_s"].as_f64() > Some(0.0),
        "{figures}"
    );
    let availability = figures["availability"].as_f64().expect("a number");
    assert!(0.0 < availability && availability < 1.0, "{figures}");
    stop(supervisor, &sandbox);
    let (code, text) = said(&sandbox, &["history", "flaps", "--stats", "--since", "1h"]);
    assert_eq!(code, 0, "{text}");
    for part in [
        "availability",
        "outages",
        "time to restore",
        "deployments      0",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (code, text) = said(&sandbox, &["history", "nosuch", "--stats"]);
    assert_eq!(code, 4, "{text}");
}

#[test]
fn one_that_cannot_be_read_hides_no_other() {
    let (supervisor, sandbox) = supervise("[service.a]\ncommand = [\"PUPPET\", \"hang\"]\n");
    event(&supervisor, "a", "started");
    let bad = sandbox.state_dir().join("events/bad/current.log");
    fs::create_dir_all(&bad).expect("the sandbox is writable");
    wait_until("the others are shown", SOON, || {
        let (code, text) = said(&sandbox, &["events"]);
        assert_eq!(code, 1, "{text}");
        (text.contains("a: started") && text.contains("the events of bad")).then_some(())
    });
    stop(supervisor, &sandbox);
}

#[test]
fn an_end_that_no_supervisor_saw_is_a_gap() {
    let (sandbox, manifest) = of_services("[service.a]\ncommand = [\"PUPPET\", \"hang\"]\n");
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    let started = event(&supervisor, "a", "started");
    wait_until("the event is stored", SOON, || {
        let (_, text) = said(&sandbox, &["events", "a"]);
        text.contains("started").then_some(())
    });
    supervisor.kill_dash_nine();
    let pid = started["pid"]
        .as_i64()
        .and_then(|pid| i32::try_from(pid).ok());
    let pid = pid
        .and_then(rustix::process::Pid::from_raw)
        .expect("a process ID");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("ours");
    // It was inherited by this process, as by process 1.
    let reaped = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
    reaped.expect("our child now");
    let supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "a", "started");
    let figures = wait_until("the gap", SOON, || {
        let figures = json(&sandbox, &["history", "a", "--stats", "--json"]);
        (figures["gaps"] == 1 && figures["is_down"] == false).then_some(figures)
    });
    assert!(figures["up_s"].as_f64() < Some(20.0), "{figures}");
    let (_, text) = said(&sandbox, &["events", "a", "--json", "--grep", "exited"]);
    let exited: Value = serde_json::from_str(&text).expect("one event");
    assert_eq!(exited["unseen"], true, "{exited}");
    stop(supervisor, &sandbox);
}

#[test]
fn verbs_say_why_services_do_not_run() {
    let (mut supervisor, sandbox) = supervise(
        r#"
        [service.bad]
        command = ["PUPPET", "exit", "3"]
        recovery = { policy = "strict" }
        [service.good]
        command = ["PUPPET", "hang"]
        "#,
    );
    event(&supervisor, "bad", "halted");
    event(&supervisor, "good", "started");
    supervisor.ctrl_c();
    supervisor.wait(SOON);
    let why = "halted: exit code 3; its recovery policy does not restart it";
    for verb in ["status", "start", "stop", "restart", "pause"] {
        let (code, text) = said(&sandbox, &[verb, "bad"]);
        assert_eq!(code, 3, "{verb}: {text}");
        let note = text
            .lines()
            .find(|line| line.starts_with("note: last event of bad, 2"));
        assert!(
            note.is_some_and(|note| note.ends_with(why)),
            "{verb}: {text}"
        );
    }
    let (_, text) = said(&sandbox, &["start", "good", "bad"]);
    let notes = text.lines().filter(|line| line.starts_with("note: "));
    assert_eq!(notes.count(), 2, "{text}");

    // What is in the place of the events neither holds up a verb nor misleads it.
    let dir = sandbox.state_dir().join("events/bad");
    let path = dir.join("current.log");
    fs::remove_file(&path).expect("it is there");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)
        .expect("a FIFO");
    let has_note = || {
        let (code, text) = said(&sandbox, &["status", "bad"]);
        assert_eq!(code, 3, "{text}");
        text.contains("note: ")
    };
    assert!(!has_note(), "a FIFO");
    fs::remove_dir_all(&dir).expect("it is there");
    std::os::unix::fs::symlink("good", &dir).expect("a link");
    assert!(!has_note(), "the events of another service");
    sandbox.assert_no_leftovers();
}

#[test]
fn a_service_without_its_daemon_shows_its_last_event() {
    let sandbox = Sandbox::new();
    install(
        &sandbox,
        "web",
        "[service.web]\ncommand = [\"PUPPET\", \"hang\"]\n",
    );
    let mut supervisor = daemon(&sandbox, &[]);
    event(&supervisor, "web", "started");
    let running = service(&sandbox, "web");
    assert_eq!(running["last_event"], Value::Null, "{running}");
    supervisor.ctrl_c();
    supervisor.wait(SOON);
    let web = service(&sandbox, "web");
    assert_eq!(web["last_event"]["event"], "stopped", "{web}");
    assert_eq!(web["since"], web["last_event"]["time"], "{web}");
    assert!(web["since_seconds"].as_u64() < Some(60), "{web}");
    let (_, table) = said(&sandbox, &["status", "web"]);
    let why = "`mainstay daemon` is not running; stopped";
    assert!(table.contains(why), "{table}");
    sandbox.assert_no_leftovers();
}
