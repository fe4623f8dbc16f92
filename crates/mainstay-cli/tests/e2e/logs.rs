//! Output is stored, whatever the disk does, and can be read again.

use std::fs;
use std::io;

use super::sandbox as of_services;
use super::*;

/// Returns the names of the files in a log directory, in order.
fn names(dir: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("its logs");
    let name = |entry: io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    let names = entries.map(|entry| name(entry).into_string().expect("a name"));
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

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
    let mut names = names(&dir);
    names.retain(|name| name.ends_with(".log"));
    // `current.log` sorts after every time stamp.
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
    let rotated = fs::read_dir(dir).expect("its logs").filter(|entry| {
        let name = entry.as_ref().expect("an entry").file_name();
        name.into_string().is_ok_and(|name| name.ends_with("Z.log"))
    });
    assert_eq!(rotated.count(), 1);
    let shown = verb(&sandbox, &["logs", "a"]);
    assert_eq!(String::from_utf8_lossy(&shown.stdout), "one\n");
    assert_eq!(code(verb(&sandbox, &["logs", "nobody"]).status), 4);
    stop(supervisor, &sandbox);
}

/// Returns the current log file of a service, once it contains `text`.
#[track_caller]
fn current_log(sandbox: &Sandbox, name: &str, text: &str) -> String {
    let path = sandbox.state_dir().join("logs").join(name);
    let path = path.join("current.log");
    wait_until(&format!("{text:?} in the log"), SOON, || {
        let log = fs::read_to_string(&path).ok()?;
        log.contains(text).then_some(log)
    })
}

/// A run that ends within a line leaves the next run a line of its own, whoever ended it and
/// whether or not a supervisor saw it.
#[test]
fn the_first_line_of_a_run_does_not_continue_the_last_run() {
    let services = r#"
        [service.a]
        command = ["sh", "-c", "echo run of $$; printf 'cut off'; exec sleep 1000"]
        "#;
    let (supervisor, sandbox) = supervise(services);
    current_log(&sandbox, "a", "cut off");
    for verb_name in ["stop", "start"] {
        assert_eq!(code(verb(&sandbox, &[verb_name, "a"]).status), 0);
    }
    let is_second = |log: &str| log.matches("run of").count() == 2;
    let log = wait_until("the second run", SOON, || {
        Some(current_log(&sandbox, "a", "run of")).filter(|log| is_second(log))
    });
    assert!(log.contains("cut off\nrun of"), "{log}");
    stop(supervisor, &sandbox);

    if cfg!(target_os = "linux") {
        let (sandbox, manifest) = of_services(services);
        let mut supervisor = Supervisor::start(&sandbox, &manifest);
        current_log(&sandbox, "a", "cut off");
        let pid = service(&sandbox, "a")["pid"].as_i64().expect("it runs");
        supervisor.kill_dash_nine();
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid"));
        let kill = rustix::process::Signal::KILL;
        rustix::process::kill_process(pid.expect("a pid"), kill).expect("it runs");
        let supervisor = Supervisor::start(&sandbox, &manifest);
        let log = wait_until("the second run", SOON, || {
            Some(current_log(&sandbox, "a", "run of")).filter(|log| is_second(log))
        });
        assert!(log.contains("cut off\nrun of"), "{log}");
        stop(supervisor, &sandbox);
    }
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

/// Runs `logs` and returns what it prints; it must succeed.
#[track_caller]
fn logs(sandbox: &Sandbox, args: &[&str]) -> String {
    let output = verb(sandbox, &[&["logs"], args].concat());
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn lines_are_picked_by_time_pattern_and_number() {
    let (supervisor, sandbox) = supervise(
        r#"
        [service.a]
        command = ["PUPPET", "flood", "30", "--bytes", "20", "print", "Ready", "hang"]
        start = { ready = { log = "^Ready$" } }
        [service.b]
        command = ["PUPPET", "print", "b is here", "hang"]
        start = { ready = { log = "here" } }
        needs = ["a"]
        "#,
    );
    event(&supervisor, "b", "ready");
    let count = |args: &[&str]| logs(&sandbox, args).lines().count();
    assert_eq!(count(&["a"]), 31);
    assert_eq!(count(&["a", "--since", "-1h"]), 31);
    assert_eq!(count(&["a", "--since", "today", "-n", "7"]), 7);
    assert_eq!(count(&["a", "--since", "@0", "--until", "@1"]), 0);
    assert_eq!(count(&["a", "--until", "2h"]), 0);
    assert_eq!(logs(&sandbox, &["a", "--grep", "^R.*y$"]), "Ready\n");
    assert_eq!(count(&["a", "--grep", "ready"]), 0);
    assert_eq!(count(&["a", "-i", "--grep", "ready"]), 1);
    assert_eq!(count(&["a", "--grep", r"^\d", "-n", "4"]), 4);
    // Several services: each line has a prefix, and all lines are ordered by time.
    let both = logs(&sandbox, &["b", "a", "-n", "2"]);
    let lines: Vec<&str> = both.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(
        lines
            .iter()
            .all(|line| line.starts_with("a | ") || line.starts_with("b | "))
    );
    for line in logs(&sandbox, &["a", "b", "--json"]).lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert!(line["service"] == "a" || line["service"] == "b");
        assert!(line["message"].is_string() && line["time"].is_string());
        assert_eq!(line["approximate"], true);
    }
    // Pipes get no colours unless they are requested.
    let mut forced = sandbox.command(mainstay());
    forced
        .args(["logs", "a", "--grep", "ea"])
        .env("CLICOLOR_FORCE", "1");
    let forced = forced.output().expect("mainstay runs").stdout;
    assert_eq!(forced, b"R\x1b[1;31mea\x1b[22;39mdy\n");
    for (args, hint) in [
        (
            &["a", "--since", "noon"][..],
            "hint: expected 2026-11-22T10:11:12Z",
        ),
        (&["a", "--grep", "("], "unclosed group"),
        (&["a", "--stream", "stderr"], "streams = \"split\""),
        (&["a", "-f", "--until", "1h"], "cannot be used with"),
    ] {
        let output = verb(&sandbox, &[&["logs"], args].concat());
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(code(output.status), 2, "{args:?}: {complaint}");
        assert!(complaint.contains(hint), "{complaint}");
    }
    stop(supervisor, &sandbox);
}

/// The logs of a service that splits its streams, and of one that names them in its lines.
#[test]
fn streams_are_told_apart() {
    let sandbox = Sandbox::new();
    let write = |path: &str, bytes: &[u8]| {
        let path = sandbox.state_dir().join("logs").join(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, bytes).expect("a log");
    };
    write("raw/current.log", b"out\n");
    write("raw/stderr/current.log", b"bad \xff\n");
    write(
        "text/current.log",
        b"2020-01-01T00:00:01.500Z stdout one\n2020-01-01T00:00:02.500Z stderr two\n2020-01-01T00:00:03.500Z stdout three\n",
    );
    let json = r#"{"time":"2020-01-01T00:00:02.700Z","stream":"stderr","service":"json","pid":7,"restart":0,"level":"error","fields":{"a":1}}"#;
    write("json/current.log", format!("{json}\n").as_bytes());
    assert_eq!(logs(&sandbox, &["raw", "--stream", "stdout"]), "out\n");
    let bad = logs(&sandbox, &["raw", "--stream", "stderr", "--json"]);
    let bad: serde_json::Value = serde_json::from_str(&bad).expect("JSON");
    assert_eq!(bad["message"], "bad \u{fffd}");
    assert_eq!(
        (&bad["stream"], &bad["lossy"]),
        (&"stderr".into(), &true.into())
    );
    let mut both: Vec<String> = logs(&sandbox, &["raw", "--json"])
        .lines()
        .map(str::to_owned)
        .collect();
    both.sort();
    assert!(
        both.len() == 2
            && both
                .iter()
                .any(|line| line.contains(r#""stream":"stdout","message":"out""#))
    );
    assert_eq!(
        logs(
            &sandbox,
            &["raw", "--grep", "out|bad", "-n", "1", "--stream", "stdout"]
        ),
        "out\n"
    );
    let err = "2020-01-01T00:00:02.500Z stderr two\n";
    assert_eq!(logs(&sandbox, &["text", "--stream", "stderr"]), err);
    // Lines are ordered by time across logs. Lines that are already JSON stay unchanged.
    let shown = logs(
        &sandbox,
        &["json", "text", "--json", "--since", "2020-01-01 00:00:02"],
    );
    let expect = [
        r#"{"time":"2020-01-01T00:00:02.500Z","service":"text","stream":"stderr","message":"two"}"#,
        json,
        r#"{"time":"2020-01-01T00:00:03.500Z","service":"text","stream":"stdout","message":"three"}"#,
    ];
    assert_eq!(shown.lines().collect::<Vec<_>>(), expect);
}

#[test]
fn a_damaged_file_is_named_after_what_could_be_read() {
    let sandbox = Sandbox::new();
    let dir = sandbox.state_dir().join("logs/a");
    fs::create_dir_all(&dir).expect("a directory");
    fs::write(dir.join("20200101T000000.000000Z.log.zst"), "no frame").expect("a file");
    fs::write(dir.join("current.log"), "whole\n").expect("a file");
    let output = verb(&sandbox, &["logs", "a"]);
    assert_eq!(code(output.status), 1);
    assert_eq!(output.stdout, b"whole\n");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        complaint.contains("20200101T000000.000000Z.log.zst: "),
        "{complaint}"
    );
}

#[test]
fn following_several_shows_whole_lines_through_rotation() {
    let (supervisor, sandbox) = supervise(
        r#"
        [service.a]
        command = ["PUPPET", "flood", "50000", "--bytes", "50", "hang"]
        log = { rotate = "100KB", keep = 100 }
        [service.b]
        command = ["PUPPET", "flood", "50000", "--bytes", "50", "hang"]
        log = { rotate = "100KB", keep = 100 }
        "#,
    );
    event(&supervisor, "b", "started");
    wait_until("both logs", SOON, || {
        let is_there = |name| sandbox.state_dir().join("logs").join(name).exists();
        (is_there("a") && is_there("b")).then_some(())
    });
    let mut follow = sandbox
        .command(mainstay())
        .args(["logs", "-f", "--since", "@0", "a", "b"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("mainstay runs");
    let out = follow.stdout.take().expect("its output");
    let mut next = std::collections::HashMap::new();
    for line in std::io::BufRead::lines(std::io::BufReader::new(out)).take(100_000) {
        let line = line.expect("a line");
        let (name, rest) = line.split_once(" | ").expect("a prefix");
        assert_eq!(rest.len(), 49, "{line}");
        let number = rest.split(' ').next().and_then(|word| word.parse().ok());
        let next = next.entry(name.to_owned()).or_insert(0_u64);
        assert_eq!(number, Some(*next), "{line}");
        *next += 1;
    }
    assert_eq!(next.values().copied().collect::<Vec<_>>(), [50_000, 50_000]);
    follow.kill().expect("it still follows");
    follow.wait().expect("it ends");
    stop(supervisor, &sandbox);
}

/// A full disk must never block a child. Its state directory is on a tmpfs that is far too small.
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

/// A log host that is down is reported in the status, and gets all lines when it is up again.
#[test]
fn a_sink_that_takes_nothing_is_said_and_gets_it_later() {
    let port = mainstay_testkit::free_port();
    let (supervisor, sandbox) = supervise(&format!(
        r#"
        [service.a]
        command = ["PUPPET", "print", "one", "await", "HERE/go", "print", "two", "hang"]
        start = {{ ready = {{ log = "one" }} }}
        log = {{ sinks = ["syslog+tcp://127.0.0.1:{port}"] }}
        "#
    ));
    event(&supervisor, "a", "ready");
    let problem = || {
        service(&sandbox, "a")["log_problem"]
            .as_str()
            .map(str::to_owned)
    };
    let said = wait_until("a problem", SOON, problem);
    assert!(said.contains(&format!("127.0.0.1:{port}")), "{said}");
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    sandbox.write("go", "");
    let (mut stream, _) = listener.accept().expect("it comes back");
    let mut text = String::new();
    wait_until("both lines", SOON, || {
        let mut part = [0; 1000];
        let count = std::io::Read::read(&mut stream, &mut part).ok()?;
        text.push_str(&String::from_utf8_lossy(&part[..count]));
        (text.contains("] one") && text.contains("] two")).then_some(())
    });
    wait_until("no problem", SOON, || problem().is_none().then_some(()));
    stop(supervisor, &sandbox);
}

/// Returns the numbers of the lines `line N`, all of which must be complete.
#[track_caller]
fn numbers(text: &str) -> Vec<u64> {
    assert!(
        text.is_empty() || text.ends_with('\n'),
        "a torn end: {text:?}"
    );
    let number = |line: &str| line.strip_prefix("line ").and_then(|it| it.parse().ok());
    let numbers = text.lines().map(|line| number(line).expect(line));
    numbers.collect()
}

#[test]
fn files_that_others_rotate_lose_no_line() {
    let (supervisor, sandbox) = supervise(
        r#"
        [service.a]
        command = ["/bin/sh", "-c", "i=0; while :; do i=$((i + 1)); echo line $i; sleep 0.005; done"]
        log = { compress = "none" }
        "#,
    );
    let dir = sandbox.state_dir().join("logs/a");
    let current = dir.join("current.log");
    let grows = |path: &std::path::Path| {
        wait_until("lines in the current file", SOON, || {
            fs::metadata(path)
                .is_ok_and(|it| it.len() > 40)
                .then_some(())
        });
    };
    grows(&current);
    fs::rename(&current, dir.join("current.log.1")).expect("a rename");
    grows(&current);
    // All lines are shown, before the file is compressed and afterwards.
    let all = numbers(&logs(&sandbox, &["a", "-n", "1000000"]));
    assert_eq!(all.first(), Some(&1));
    assert!(all.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{all:?}");
    let packed = sandbox
        .command("gzip")
        .arg(dir.join("current.log.1"))
        .status();
    assert!(packed.expect("gzip").success());
    fs::rename(&current, dir.join("current.log-20261129")).expect("a rename");
    grows(&current);
    // The last lines are still in the pipe.
    assert_eq!(code(verb(&sandbox, &["pause", "a"]).status), 0);
    // The log is copied and truncated, and then deleted.
    let (mut size, mut looks) = (0, 0);
    wait_until("silence", SOON, || {
        let before = std::mem::replace(&mut size, fs::metadata(&current).ok()?.len());
        looks = if before == size { looks + 1 } else { 0 };
        (looks > 40).then_some(())
    });
    fs::copy(&current, dir.join("current.log-20261130")).expect("a copy");
    fs::write(&current, "").expect("a cut");
    assert_eq!(code(verb(&sandbox, &["continue", "a"]).status), 0);
    grows(&current);
    let all = numbers(&logs(&sandbox, &["a", "-n", "1000000"]));
    assert_eq!(all.first(), Some(&1));
    assert!(all.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{all:?}");
    fs::remove_file(&current).expect("a removal");
    grows(&current);
    stop(supervisor, &sandbox);
    let all = numbers(&logs(&sandbox, &["a", "-n", "1000000"]));
    let gaps = all.windows(2).filter(|pair| pair[0] + 1 != pair[1]).count();
    assert_eq!(gaps, 1, "only the deleted file's are missing: {all:?}");
}

#[test]
fn a_moved_log_of_a_silent_service_is_shown() {
    let (supervisor, sandbox) = supervise(
        "[service.a]\ncommand = [\"PUPPET\", \"print\", \"one\", \"hang\"]\nstart = { ready = { log = \"one\" } }\n",
    );
    event(&supervisor, "a", "ready");
    let dir = sandbox.state_dir().join("logs/a");
    fs::rename(dir.join("current.log"), dir.join("current.log.1")).expect("a rename");
    assert_eq!(logs(&sandbox, &["a"]), "one\n");
    stop(supervisor, &sandbox);
}

#[test]
fn a_line_that_never_ends_is_cut_by_rotation_and_loses_nothing() {
    const BYTES: u64 = 9_000_000;
    let (supervisor, sandbox) = supervise(&format!(
        r#"
        [service.endless]
        command = ["/bin/sh", "-c", "head -c {BYTES} /dev/zero | tr '\\0' A; exec sleep 1000"]
        log = {{ rotate = "1MB", keep = 100, compress = "none" }}
        stop = {{ graceful = "0s" }}
        "#
    ));
    let dir = sandbox.state_dir().join("logs/endless");
    let files = || {
        let names = fs::read_dir(&dir).into_iter().flatten().flatten();
        let mut paths: Vec<_> = names.map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|it| it == "log"));
        // `current.log` sorts after every time stamp.
        paths.sort();
        paths
    };
    let size = |path: &std::path::PathBuf| fs::metadata(path).map_or(0, |it| it.len());
    wait_until("all of it", SOON, || {
        (files().iter().map(size).sum::<u64>() >= BYTES).then_some(())
    });
    stop(supervisor, &sandbox);
    let sizes: Vec<u64> = files().iter().map(size).collect();
    let most = 1_000_000 + (1 << 20);
    assert!(sizes.iter().all(|size| *size <= most), "{sizes:?}");
    let all: Vec<u8> = files()
        .iter()
        .flat_map(|path| fs::read(path).expect("it is there"))
        .collect();
    assert_eq!(all.len() as u64, BYTES);
    assert!(all.iter().all(|byte| *byte == b'A'));
}

/// A file from before the line limit, or of a service without rotation.
#[test]
fn an_endless_line_is_read_in_pieces() {
    let sandbox = Sandbox::new();
    let dir = sandbox.state_dir().join("logs/endless");
    fs::create_dir_all(&dir).expect("a directory");
    let file = fs::File::create(dir.join("current.log")).expect("a file");
    let last = (40 << 20) - 3;
    file.set_len(last).expect("a sparse file");
    std::os::unix::fs::FileExt::write_all_at(&file, b"needle", last).expect("written");
    // Less memory than the line needs, and more than everything else needs.
    let read = |args: &str| {
        let mainstay = mainstay().display().to_string();
        let mut shell = sandbox.command("sh");
        shell.args([
            "-c",
            &format!("ulimit -v 70000; exec {mainstay} logs endless {args}"),
        ]);
        let output = shell.output().expect("sh runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(code(output.status), 0, "{args}: {said}");
        output.stdout
    };
    let shown = read("-n 1");
    assert_eq!(shown, b"dle", "the last piece");
    let shown = String::from_utf8(read("-n 1 --json")).expect("text");
    let line: Value = serde_json::from_str(&shown).expect("one line of JSON");
    assert_eq!(line["message"], "dle");
    let found = read("--grep ^$ -n 1");
    assert!(found.is_empty(), "{}", found.len());
}

/// One thread compresses for all services, in every compression format.
#[test]
fn rotated_files_are_compressed_as_asked_and_hold_every_line() {
    let (sandbox, manifest) = sandbox(
        r#"
        [service.gzip]
        command = ["PUPPET", "flood", "20000", "--bytes", "100", "touch", "HERE/gzip", "hang"]
        start = { ready = { file = "HERE/gzip" } }
        log = { rotate = "100KB", keep = 100, compress = "gzip" }
        [service.zstd]
        command = ["PUPPET", "flood", "20000", "--bytes", "100", "touch", "HERE/zstd", "hang"]
        start = { ready = { file = "HERE/zstd" } }
        log = { rotate = "100KB", keep = 100, compress = "zstd" }
        "#,
    );
    // The remains of an interrupted compression.
    let plain = "20200101T000000.000000Z.log";
    for (name, suffix) in [("gzip", ".gz"), ("zstd", ".zst")] {
        let dir = sandbox.state_dir().join("logs").join(name);
        fs::create_dir_all(&dir).expect("a directory");
        fs::write(dir.join(plain), "from before\n").expect("a file");
        fs::write(dir.join(format!("{plain}{suffix}.tmp")), "").expect("a file");
    }
    let supervisor = Supervisor::start(&sandbox, &manifest);
    for name in ["gzip", "zstd"] {
        event(&supervisor, name, "ready");
        let dir = sandbox.state_dir().join("logs").join(name);
        let suffix = match name {
            "gzip" => "log.gz",
            _ => "log.zst",
        };
        let names = wait_until("all to be compressed", SOON, || {
            let mut names = names(&dir);
            names.retain(|name| name != "current.log" && !name.ends_with(".idx"));
            let is_packed = |name: &String| name.ends_with(suffix);
            (names.len() > 15 && names.iter().all(is_packed)).then_some(names)
        });
        let mut text = Vec::new();
        for file_name in &names {
            let file = fs::File::open(dir.join(file_name)).expect("a compressed file");
            let mut unpacked: Box<dyn io::Read> = match suffix {
                "log.gz" => Box::new(flate2::read::GzDecoder::new(file)),
                _ => Box::new(zstd::Decoder::new(file).expect("a decoder")),
            };
            unpacked.read_to_end(&mut text).expect("a whole file");
        }
        text.extend(fs::read(dir.join("current.log")).expect("the current file"));
        let text = String::from_utf8(text).expect("text");
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("from before"));
        let mut count = 0_u64;
        for line in lines {
            let number = line.split(' ').next().and_then(|word| word.parse().ok());
            assert_eq!((number, line.len()), (Some(count), 99), "{line}");
            count += 1;
        }
        assert_eq!(count, 20_000);
    }
    stop(supervisor, &sandbox);
}

/// An index belongs to its file, however the file is compressed.
#[test]
fn lines_of_compressed_files_keep_their_times() {
    let (supervisor, sandbox) = supervise(
        r#"
        [service.a]
        command = ["PUPPET", "print", "a1", "sleep", "3s", "print", "a2", "touch", "HERE/a", "hang"]
        start = { ready = { file = "HERE/a" } }
        [service.b]
        command = ["PUPPET", "sleep", "1500ms", "print", "b1", "touch", "HERE/b", "hang"]
        start = { ready = { file = "HERE/b" } }
        "#,
    );
    for name in ["a", "b"] {
        event(&supervisor, name, "ready");
        assert!(verb(&sandbox, &["logs", "rotate", name]).status.success());
        let dir = sandbox.state_dir().join("logs").join(name);
        wait_until("the rotated file to be compressed", SOON, || {
            let names = names(&dir);
            let ends = |end: &str| names.iter().any(|name| name.ends_with(end));
            (ends("Z.log.zst") && !ends("Z.log")).then_some(())
        });
    }
    assert_eq!(
        logs(&sandbox, &["a", "b"]),
        "a | a1\nb | b1\na | a2\n",
        "in the order of time"
    );
    for long_before in ["1h", "2020-01-01"] {
        assert_eq!(logs(&sandbox, &["a", "--until", long_before]), "");
    }
    let shown = logs(&sandbox, &["a", "b", "--json"]);
    let times = shown.lines().map(|line| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        line["time"].as_str().expect("a time").to_owned()
    });
    let times: Vec<String> = times.collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(logs(&sandbox, &["a", "--until", &times[1]]), "a1\n");
    stop(supervisor, &sandbox);
}

/// Log directories may belong to other accounts. A file there that is no index counts as a missing
/// one.
#[cfg(unix)]
#[test]
fn what_is_no_index_is_none() {
    let (supervisor, sandbox) = supervise(
        r#"
        [service.a]
        command = ["PUPPET", "print", "up", "touch", "HERE/up", "hang"]
        start = { ready = { file = "HERE/up" } }
        log = { compress = "none" }
        "#,
    );
    event(&supervisor, "a", "ready");
    assert!(verb(&sandbox, &["logs", "rotate", "a"]).status.success());
    let dir = sandbox.state_dir().join("logs/a");
    let index = wait_until("a rotated file", SOON, || {
        let mut paths = fs::read_dir(&dir).ok()?.flatten().map(|entry| entry.path());
        let rotated = paths.find(|path| path.to_string_lossy().ends_with("Z.log"))?;
        Some(rotated.with_extension("idx"))
    });
    for (kind, maker) in [("a FIFO", "mkfifo"), ("a directory", "mkdir")] {
        let _ = fs::remove_file(&index);
        let made = std::process::Command::new(maker).arg(&index).status();
        assert!(made.expect("it runs").success());
        for more in [&["--json"][..], &["--since", "1h"], &["-n", "1"]] {
            let mut logs = sandbox.command("timeout");
            let logs = logs.arg("10").arg(mainstay()).args(["logs", "a"]);
            let output = logs.args(more).output().expect("it runs");
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(code(output.status), 0, "{kind}, {more:?}: {said}");
            let shown = String::from_utf8_lossy(&output.stdout);
            assert!(shown.contains("up"), "{kind}, {more:?}: {shown}");
        }
    }
    stop(supervisor, &sandbox);
}
