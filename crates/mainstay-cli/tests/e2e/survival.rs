//! The supervisor is killed repeatedly during a flood of output: every line is in the logs exactly
//! once.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

/// The number of times the supervisor is killed.
const DEATHS: u64 = 20;
const LINES: u64 = 60_000;

/// A log, and the function that finds the message in a line of it.
struct Flood {
    name: &'static str,
    dir: &'static str,
    message: fn(&str) -> String,
}

const FLOODS: [Flood; 6] = [
    Flood {
        name: "lines",
        dir: "lines",
        message: str::to_owned,
    },
    Flood {
        name: "blocks",
        dir: "blocks",
        message: str::to_owned,
    },
    Flood {
        name: "split",
        dir: "split",
        message: str::to_owned,
    },
    Flood {
        name: "redacted",
        dir: "redacted",
        message: |line| line.replace("[email]", "a@example.org"),
    },
    Flood {
        name: "stamped",
        dir: "stamped",
        message: |line| line.split_once(' ').expect("a stamp").1.to_owned(),
    },
    Flood {
        name: "structured",
        dir: "structured",
        message: |line| {
            let line: Value = serde_json::from_str(line).expect("JSON");
            line["message"].as_str().expect("a message").to_owned()
        },
    },
];

#[test]
fn every_line_comes_once_however_often_the_supervisor_is_killed() {
    let (sandbox, manifest) = sandbox(&format!(
        r#"
        [service.lines]
        command = ["PUPPET", "flood", "{LINES}", "touch", "HERE/lines", "hang"]
        log = {{ rotate = "300KB", keep = 1000, compress = "none" }}
        [service.blocks]
        command = ["PUPPET", "flood", "{LINES}", "--block", "touch", "HERE/blocks", "hang"]
        log = {{ rotate = "300KB", keep = 1000, compress = "none" }}
        [service.split]
        command = ["PUPPET", "flood", "{LINES}", "touch", "HERE/split", "hang"]
        log = {{ rotate = "300KB", keep = 1000, compress = "none", streams = "split" }}
        [service.redacted]
        command = ["PUPPET", "flood", "{LINES}", "--block", "touch", "HERE/redacted", "hang"]
        log = {{ rotate = "300KB", keep = 1000, compress = "none", redact = ["email"] }}
        [service.stamped]
        command = ["PUPPET", "flood", "{LINES}", "--block", "touch", "HERE/stamped", "hang"]
        log = {{ rotate = "300KB", keep = 1000, compress = "none", format = "text" }}
        [service.structured]
        command = ["PUPPET", "flood", "{LINES}", "touch", "HERE/structured", "hang"]
        log = {{ rotate = "300KB", keep = 1000, compress = "none", format = "json" }}
        "#
    ));
    let logs_dir = sandbox.state_dir().join("logs");
    // A writer blocks when its pipe is full, so each kill happens during the flood.
    let least = FLOODS.len() as u64 * LINES * 80;
    for death in 0..DEATHS {
        let mut supervisor = Supervisor::start(&sandbox, &manifest);
        if death == 0 {
            for flood in &FLOODS {
                event(&supervisor, flood.name, "started");
            }
        }
        wait_until("a part of the flood", SOON, || {
            (size(&logs_dir) > least * death / DEATHS).then_some(())
        });
        supervisor.kill_dash_nine();
    }
    let supervisor = Supervisor::start(&sandbox, &manifest);
    for flood in &FLOODS {
        wait_until("the end of the flood", SOON, || {
            sandbox.path().join(flood.name).exists().then_some(())
        });
    }
    stop(supervisor, &sandbox);
    for flood in &FLOODS {
        check(flood, &logs_dir.join(flood.dir));
    }
}

/// Output that a service writes without a supervisor is available to the next one, even if the
/// service is gone by then.
#[test]
fn recent_output_waits_for_the_next_supervisor() {
    let (sandbox, manifest) = sandbox(
        r#"
        [service.a]
        command = ["PUPPET", "print", "first", "await", "HERE/go", "flood", "500", "touch", "HERE/said", "exit", "3"]
        start = { ready = { log = "first" } }
        recovery = { policy = "never" }
        "#,
    );
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    event(&supervisor, "a", "ready");
    supervisor.kill_dash_nine();
    sandbox.write("go", "");
    wait_until("the last words", SOON, || {
        (sandbox.path().join("said").exists() && sandbox.processes().is_empty()).then_some(())
    });
    let mut supervisor = Supervisor::start(&sandbox, &manifest);
    // The supervisor has no service left.
    let status = supervisor.wait(SOON);
    assert_eq!(code(status), 1, "it ended with 3");
    sandbox.assert_no_leftovers();
    let text = fs::read_to_string(sandbox.state_dir().join("logs/a/current.log")).expect("a log");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 501, "{text}");
    assert_eq!(lines[0], "first");
    assert!(lines[500].starts_with("000000000499 "), "{}", lines[500]);
}

/// A line that a crash has cut off is not joined with the first line of the next run.
#[test]
fn each_run_begins_with_a_line_of_its_own() {
    let (supervisor, sandbox) = supervise(
        r#"
        [service.a]
        command = ["sh", "-c", "printf 'run %s' $$; test -e HERE/again && exec PUPPET hang; touch HERE/again; exit 1"]
        recovery = { delay = "1ms" }
        "#,
    );
    let runs = |count| {
        wait_until(&format!("the beginnings of {count} lines"), SOON, || {
            let text = fs::read_to_string(sandbox.state_dir().join("logs/a/current.log")).ok()?;
            (text.matches("run ").count() == count).then_some(text)
        })
    };
    // Stopped earlier, it might not have written anything.
    runs(2);
    stop(supervisor, &sandbox);
    let supervisor = Supervisor::start(&sandbox, &sandbox.path().join("mainstay.toml"));
    let text = runs(3);
    stop(supervisor, &sandbox);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    for line in lines {
        let pid = line.strip_prefix("run ").map(str::parse::<u32>);
        assert!(matches!(pid, Some(Ok(_))), "{text}");
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    // `current.log` sorts after every time stamp.
    let mut logs: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    logs.sort();
    logs
}

fn size(logs_dir: &Path) -> u64 {
    let of_file = |path: PathBuf| fs::metadata(path).map_or(0, |found| found.len());
    let of_flood = |flood: &Flood| -> u64 {
        files(&logs_dir.join(flood.dir))
            .into_iter()
            .map(of_file)
            .sum()
    };
    FLOODS.iter().map(of_flood).sum()
}

#[track_caller]
fn check(flood: &Flood, dir: &Path) {
    let mut next = 0;
    for path in files(dir) {
        let text = fs::read_to_string(&path).expect("a log");
        assert!(
            text.ends_with('\n'),
            "{} ends within a line",
            path.display()
        );
        for line in text.lines() {
            let message = (flood.message)(line);
            let whole = message.len() == 79;
            let number = message.split(' ').next().and_then(|word| word.parse().ok());
            assert!(
                whole && number == Some(next),
                "{}: line {next} is: {line}",
                path.display()
            );
            next += 1;
        }
    }
    assert_eq!(next, LINES, "{}", flood.name);
}
