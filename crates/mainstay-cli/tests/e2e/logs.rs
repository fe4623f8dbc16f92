//! Output arrives, whatever the disk does; and can be read again.

use std::fs;

use super::*;

#[test]
fn every_line_arrives_and_logs_shows_the_last() {
    let (supervisor, sandbox) = supervise(
        r#"
        [service.flood]
        command = ["PUPPET", "flood", "200000", "--bytes", "100", "print", "done", "hang"]
        start = { ready = { log = "^done$" } }
        log = { rotate = "1MB", keep = 100, compress = "none" }
        "#,
    );
    event(&supervisor, "flood", "ready");
    let shown = verb(&sandbox, &["logs", "flood", "-n", "2"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.ends_with("done\n") && shown.lines().count() == 2,
        "{shown}"
    );
    stop(supervisor, &sandbox);
    let dir = sandbox.state_dir().join("logs/flood");
    let mut names: Vec<String> = fs::read_dir(&dir)
        .expect("its logs")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("a name")
        })
        .collect();
    names.sort();
    // `current.log` sorts behind every time stamp.
    assert_eq!(names.last().map(String::as_str), Some("current.log"));
    assert!(names.len() > 15, "{names:?}");
    let mut next = 0_u64;
    for name in &names {
        let text = fs::read_to_string(dir.join(name)).expect("a log");
        assert!(text.ends_with('\n'), "{name} ends within a line");
        for line in text.lines().filter(|line| *line != "done") {
            assert_eq!(line.len(), 99, "{line}");
            let number = line
                .split_whitespace()
                .next()
                .and_then(|word| word.parse::<u64>().ok());
            assert_eq!(number, Some(next), "{name}: {line}");
            next += 1;
        }
    }
    assert_eq!(next, 200_000);
}

#[test]
fn rotation_on_demand() {
    let (supervisor, sandbox) = supervise(
        "[service.a]\ncommand = [\"PUPPET\", \"print\", \"one\", \"hang\"]\nstart = { ready = { log = \"one\" } }\nlog.compress = \"none\"\n",
    );
    event(&supervisor, "a", "ready");
    assert_eq!(code(verb(&sandbox, &["logs", "rotate", "a"]).status), 0);
    assert_eq!(code(verb(&sandbox, &["logs", "rotate", "b"]).status), 4);
    let dir = sandbox.state_dir().join("logs/a");
    assert_eq!(
        fs::read_to_string(dir.join("current.log")).expect("a new file"),
        ""
    );
    assert_eq!(fs::read_dir(dir).expect("its logs").count(), 2);
    let shown = verb(&sandbox, &["logs", "a"]);
    assert_eq!(String::from_utf8_lossy(&shown.stdout), "one\n");
    assert_eq!(code(verb(&sandbox, &["logs", "nobody"]).status), 4);
    stop(supervisor, &sandbox);
}

#[test]
fn follow_shows_lines_with_their_service() {
    let (sandbox, manifest) = sandbox(
        r#"
        [service.one]
        command = ["PUPPET", "print", "first", "exit", "0"]
        [service.two]
        command = ["PUPPET", "print", "second", "exit", "0"]
        "#,
    );
    let output = verb(
        &sandbox,
        &["run", "--follow", &manifest.display().to_string()],
    );
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success());
    for line in ["one | first", "two | second"] {
        assert!(text.lines().any(|shown| shown == line), "{text}");
    }
}

/// A full disk must never block a child: its state directory lies on a tmpfs that is far too small.
#[test]
fn a_full_disk_blocks_nobody_and_is_said() {
    if !rustix::process::geteuid().is_root() {
        return mainstay_testkit::skip("a full disk needs a mount, and a mount needs root");
    }
    let (sandbox, manifest) = sandbox(
        r#"
        [service.flood]
        command = ["PUPPET", "flood", "100000", "--bytes", "100", "touch", "HERE/written", "hang"]
        start = { ready = { file = "HERE/written" } }
        "#,
    );
    fs::create_dir(sandbox.state_dir()).expect("a directory");
    let mount = |args: &[&str]| {
        let mut command = std::process::Command::new(args[0]);
        command.args(&args[1..]).arg(sandbox.state_dir());
        command.status().is_ok_and(|status| status.success())
    };
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs"]) {
        return mainstay_testkit::skip("this root may not mount a tmpfs");
    }
    let supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "flood", "ready");
    supervisor.wait_event(SOON, |event| {
        event["message"]
            .as_str()
            .is_some_and(|text| text.contains("No space left on device"))
    });
    let service = service(&sandbox, "flood");
    assert_eq!(service["state"], "running");
    assert!(
        service["log_problem"]
            .as_str()
            .is_some_and(|text| text.contains("No space left"))
    );
    stop(supervisor, &sandbox);
    assert!(mount(&["umount"]));
}
