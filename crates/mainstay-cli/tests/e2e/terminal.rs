//! The output of other programs as it reaches a terminal.

use std::fs;

use mainstay_testkit::Terminal;

use super::*;

/// The output of the service: a window title, a cleared screen, CSI as C1, an overwritten line,
/// reversed text, and a colour that is not reset.
const SCRIPT: &str = r"
printf '\033]0;owned\007title\n\033[2Jscreen\n\302\2332Jc1\nhidden\rshown\n\342\200\256gpj.exe\n\033[31mred\nplain\n'
";
/// The output on a terminal, with colours.
const SHOWN: &str = "\\x1b]0;owned\\x07title\n\\x1b[2Jscreen\n\\u009b2Jc1\nhidden\\rshown\n\
                     \\u202egpj.exe\n\x1b[31mred\x1b[0m\nplain\n";
/// The output in the file.
const WRITTEN: &[u8] = b"\x1b]0;owned\x07title\n\x1b[2Jscreen\n\xc2\x9b2Jc1\nhidden\rshown\n\xe2\x80\xaegpj.exe\n\x1b[31mred\nplain\n";

/// Runs a verb on a terminal.
fn on_terminal(sandbox: &Sandbox, args: &[&str]) -> String {
    let mut command = sandbox.command(mainstay());
    command.args(args).env("PAGER", "cat");
    command.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE");
    Terminal::run(command).1
}

/// Checks that the text contains no sequence that a terminal could obey, except for our own
/// colours.
#[track_caller]
fn assert_harmless(what: &str, shown: &str) {
    let mut rest = shown;
    while let Some(at) = rest.find(|c: char| {
        c.is_control() && !matches!(c, '\n' | '\t') || matches!(c, '\u{202a}'..='\u{202e}')
    }) {
        let sequence = &rest[at..];
        let end = sequence.find('m').unwrap_or(0);
        let is_colour = sequence.starts_with("\x1b[")
            && sequence[2..end.max(2)]
                .chars()
                .all(|c| c.is_ascii_digit() || c == ';');
        assert!(is_colour, "{what}: {shown:?}");
        rest = &sequence[end..];
    }
}

#[test]
fn control_sequences_of_others_do_not_reach_a_terminal() {
    let (supervisor, sandbox) = supervise(&format!(
        r#"
        [service.a]
        command = ["/bin/sh", "-c", '''{SCRIPT}
            exec PUPPET notify "STATUS=$(printf '\033[2Jfine\033]0;x\007\302\233')" notify READY=1 hang''']
        start.ready = {{ notify = true }}
        snapshot.paths = ["HERE/data"]
        "#
    ));
    event(&supervisor, "a", "ready");
    let data = sandbox.path().join("data");
    fs::create_dir_all(&data).expect("a directory");
    fs::write(data.join("\x1b[2Jfile\nforged\u{202e}"), "").expect("a file");

    assert_eq!(on_terminal(&sandbox, &["logs", "a", "--no-times"]), SHOWN);
    let raw = verb(&sandbox, &["logs", "a"]).stdout;
    assert_eq!(raw, WRITTEN, "a pipe gets the bytes");
    assert_eq!(
        on_terminal(&sandbox, &["logs", "a", "--raw"]).as_bytes(),
        WRITTEN
    );
    let marked = on_terminal(&sandbox, &["logs", "a", "--no-times", "--grep", "screen"]);
    assert_eq!(marked, "\\x1b[2J\x1b[1;31mscreen\x1b[22;39m\n");
    let json = on_terminal(&sandbox, &["logs", "a", "--json"]);
    assert_harmless("logs --json", &json);
    let c1 = json
        .lines()
        .find(|line| line.contains("c1"))
        .expect("a line");
    let line: Value = serde_json::from_str(c1).expect("still JSON");
    assert_eq!(line["message"], "\u{9b}2Jc1");

    let status = on_terminal(&sandbox, &["status", "a"]);
    assert!(
        status.contains(r"\x1b[2Jfine\x1b]0;x\x07\u009b"),
        "{status:?}"
    );
    let status = verb(&sandbox, &["status", "a"]).stdout;
    let status = String::from_utf8(status).expect("text");
    assert!(status.contains("\x1b[2Jfine"), "{status:?}");

    let taken = verb(&sandbox, &["snapshot", "create", "a"]);
    assert!(taken.status.success(), "{taken:?}");
    let file = on_terminal(&sandbox, &["snapshot", "show", "a"]);
    assert!(file.contains(r"\x1b[2Jfile\nforged\u202e"), "{file:?}");

    for args in [
        ["check", "\x1b[2J\u{9b}.toml"],
        ["check", "\x1b]0;x\x07\u{202e}"],
        ["status", "\x1b[2J"],
        ["start", "\x1b[2J\r"],
        ["logs", "\x1b[2J"],
        ["--\x1b[2J", "x"],
        ["list", "--json"],
        ["history", "\x1b[2J"],
    ] {
        assert_harmless(&args.join(" "), &on_terminal(&sandbox, &args));
    }
    let text =
        "# \x1b[2J \u{9b} \u{202e}\n[service.a]\ncommand = \"\u{9b}2J\u{202e}\"\nkey\u{9b} = 1\n";
    sandbox.write("wrong.toml", text);
    assert_harmless("check", &on_terminal(&sandbox, &["check", "wrong.toml"]));
    stop(supervisor, &sandbox);
}

#[test]
fn what_run_shows_cannot_be_forged() {
    let (sandbox, manifest) = sandbox(&format!(
        r#"
        [service.a]
        command = ["/bin/sh", "-c", '''{SCRIPT}
            printf '\033[2Jlast\033]0;x\007 words\n' >&2
            exec PUPPET notify "STATUS=$(printf '\033[2Jfine\302\233')" notify READY=1 exit 3''']
        start.ready = {{ notify = true }}
        recovery = {{ policy = "strict" }}
        "#
    ));
    let run = |args: &[&str]| {
        let mut command = sandbox.command(mainstay());
        command.arg("run").arg(&manifest).args(args);
        Terminal::run(command).1
    };
    let table = run(&[]);
    assert!(!table.contains("\x1b[2J"), "{table:?}");
    assert!(!table.contains('\u{9b}'), "{table:?}");
    assert!(table.contains("\x1b[1;31mhalted"), "the table: {table:?}");

    let lines = run(&["--follow"]);
    assert_harmless("run --follow", &lines);
    assert!(lines.contains("a | \x1b[31mred\x1b[0m\n"), "{lines:?}");
    let raw = run(&["--follow", "--raw"]);
    assert!(raw.contains("a | \x1b[2Jscreen\n"), "{raw:?}");
    assert_harmless("run --json", &run(&["--json"]));
}

#[test]
fn colours_and_drawings_are_for_terminals_that_can_show_them() {
    let (supervisor, sandbox) = supervise("[service.a]\ncommand = [\"PUPPET\", \"hang\"]\n");
    event(&supervisor, "a", "started");
    let status = |variable: Option<(&str, &str)>| {
        let mut command = sandbox.command(mainstay());
        command.args(["status", "a"]).env_remove("CLICOLOR_FORCE");
        command.env_remove("NO_COLOR").env("TERM", "xterm");
        command.envs(variable);
        Terminal::run(command).1
    };
    assert!(status(None).contains("\x1b[32mrunning"));
    for plain in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let shown = status(Some(plain));
        assert!(
            shown.contains("running") && !shown.contains('\x1b'),
            "{shown:?}"
        );
    }
    let piped = verb(&sandbox, &["status", "a"]).stdout;
    assert!(!piped.contains(&0x1b));
    stop(supervisor, &sandbox);

    let (sandbox, manifest) =
        self::sandbox("[service.a]\ncommand = [\"PUPPET\", \"exit\", \"0\"]\n");
    let mut command = sandbox.command(mainstay());
    command.arg("run").arg(&manifest).env("TERM", "dumb");
    let (_, lines) = Terminal::run(command);
    assert!(lines.contains("stopped: it exited cleanly\n"), "{lines:?}");
    assert!(
        !lines.contains('\x1b') && !lines.contains("SERVICE"),
        "{lines:?}"
    );
}

#[test]
fn the_table_of_run_follows_the_size_of_the_terminal() {
    let (sandbox, manifest) =
        self::sandbox("[service.with-a-rather-long-name]\ncommand = [\"PUPPET\", \"hang\"]\n");
    let mut command = sandbox.command(mainstay());
    command.arg("run").arg(&manifest).env("TERM", "xterm");
    let terminal = Terminal::start(command);
    let shown = |what: &str, part: &str| {
        wait_until(what, SOON, || {
            let all = terminal.shown();
            let last = all.rfind("SERVICE").map(|at| all[at..].to_owned())?;
            last.contains(part).then_some(all)
        })
    };
    let wide = shown("a table", "running");
    assert!(
        wide.contains("MEMORY") && !wide.contains("\x1b[H"),
        "{wide:?}"
    );
    terminal.resize(20, 44);
    let narrow = wait_until("another one", SOON, || {
        let all = terminal.shown();
        let cleared = all.find("\x1b[H\x1b[J")?;
        let picture = all[cleared..].to_owned();
        picture.contains("running").then_some(picture)
    });
    assert!(
        !narrow.contains("MEMORY") && narrow.contains("SINCE"),
        "{narrow:?}"
    );
    terminal.interrupt();
    let (status, _) = terminal.finish();
    assert!(status.success(), "{status:?}");
    sandbox.assert_no_leftovers();
}

/// A person sees the end of a log; a program gets all of it.
#[test]
fn a_pipe_gets_every_line() {
    let sandbox = Sandbox::new();
    let dir = sandbox.state_dir().join("logs/a");
    fs::create_dir_all(&dir).expect("a directory");
    let lines: Vec<String> = (1..=25).map(|number| format!("{number}\n")).collect();
    fs::write(dir.join("current.log"), lines.concat()).expect("a file");
    let said = |args: &[&str]| String::from_utf8_lossy(&verb(&sandbox, args).stdout).into_owned();
    assert_eq!(said(&["logs", "a"]), lines.concat());
    assert_eq!(said(&["logs", "a", "-n", "2"]), lines[23..].concat());
    assert_eq!(
        on_terminal(&sandbox, &["logs", "a", "--no-times"]),
        lines[15..].concat()
    );
}

/// A person sees when a line was written, once; a program gets the lines as they are.
#[test]
fn a_terminal_shows_the_times_of_lines() {
    let sandbox = Sandbox::new();
    let write = |service: &str, file: &str, text: &str| {
        let dir = sandbox.state_dir().join("logs").join(service);
        fs::create_dir_all(&dir).expect("a directory");
        fs::write(dir.join(file), text).expect("a file");
    };
    // Without an index, the lines of a file are from the time after the previous rotation.
    let (before, rotated) = ("20011122T101112.500000Z.log", "20011123T101112.500000Z.log");
    write("raw", before, "before\n");
    write("raw", rotated, "03.02. one\ntwo\n");
    let stamped = "2001-11-22T20:11:12.345Z one\n{\"time\":\"2001-11-22T20:11:13.345Z\",\"service\":\"b\",\"message\":\"two\"}\n";
    write("stamped", rotated, stamped);
    let piped = |args: &[&str]| String::from_utf8_lossy(&verb(&sandbox, args).stdout).into_owned();
    let plain = "03.02. one\ntwo\n";
    let timed = "2001-11-22T10:11:12Z 03.02. one\n2001-11-22T10:11:12Z two\n";
    let dimmed = timed.replace(
        "2001-11-22T10:11:12Z",
        "\x1b[2m2001-11-22T10:11:12Z\x1b[22m",
    );
    for (options, on_pipe, shown) in [
        (&[][..], plain, &*dimmed),
        (&["--times"], timed, &dimmed),
        (&["-t", "--color", "never"], timed, timed),
        (&["-t", "--no-times"], plain, plain),
        (&["--no-times", "-t"], timed, &dimmed),
        (&["--raw"], plain, plain),
        (&["--raw", "-t"], timed, &dimmed),
    ] {
        let args = [&["logs", "raw", "-n", "2"], options].concat();
        assert_eq!(piped(&args), on_pipe, "{options:?}");
        assert_eq!(on_terminal(&sandbox, &args), shown, "{options:?}");
    }
    assert_eq!(piped(&["logs", "stamped", "-t"]), stamped);
    let both = piped(&["logs", "raw", "stamped", "-t", "-n", "1"]);
    let (raw, _) = both.split_once('\n').expect("two lines");
    assert_eq!(raw, "raw | 2001-11-22T10:11:12Z two");
    assert_eq!(
        verb(&sandbox, &["logs", "raw", "-t", "--json"])
            .status
            .code(),
        Some(2)
    );
}

#[test]
fn colors_are_a_choice() {
    let (sandbox, manifest) = sandbox("[service.a]\ncomand = [\"a\"]\n");
    let manifest = manifest.display().to_string();
    let has_colours = |text: &str| text.contains("\x1b[");
    let piped = |choice| {
        let output = verb(&sandbox, &["check", &manifest, "--color", choice]);
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(has_colours(&piped("always")));
    assert!(!has_colours(&piped("auto")));
    let shown = |choice| on_terminal(&sandbox, &["--color", choice, "check", &manifest]);
    assert!(has_colours(&shown("auto")));
    assert!(!has_colours(&shown("never")));
    let help = on_terminal(&sandbox, &["--help"]);
    assert!(
        help.lines().all(|line| line.chars().count() <= 160),
        "{help}"
    );
}

/// The progress is shown on a terminal only, and only meanwhile.
#[test]
fn a_long_start_shows_its_progress_and_leaves_nothing_of_it() {
    let (supervisor, sandbox) = supervise(
        r#"
        [service.a]
        command = ["PUPPET", "hang"]
        start.ready = { exec = ["/bin/sh", "-c", "test -e HERE/fine || { echo not yet; exit 1; }"] }
        stop.graceful = "0s"
        "#,
    );
    event(&supervisor, "a", "started");
    let fine = sandbox.path().join("fine");
    let restart = |options: &[&str], variable: (&str, &str)| {
        drop(fs::remove_file(&fine));
        let mut command = sandbox.command(mainstay());
        command.args(["restart", "a"]).args(options);
        command.env("TERM", "xterm").env(variable.0, variable.1);
        Terminal::start(command)
    };
    let shown = restart(&[], ("NO_COLOR", "1"));
    wait_until("progress", SOON, || {
        let line = "\ra: starting: the probe command /bin/sh failed";
        shown.shown().contains(line).then_some(())
    });
    fs::write(&fine, "").expect("a file");
    let (status, text) = shown.finish();
    assert!(status.success() && !text.contains('\x1b'), "{text:?}");
    let mut drawn = text.rsplit('\r');
    assert_eq!(drawn.next(), Some("a: running\n"));
    let (blank, before) = (drawn.next().expect("blanks"), drawn.next().expect("a line"));
    assert_eq!(blank, " ".repeat(before.chars().count()));

    for (options, variable, expected) in [
        (&["-q"][..], ("TERM", "xterm"), ""),
        (&["--json"], ("TERM", "xterm"), "{"),
        (&[], ("TERM", "dumb"), "a: running\n"),
    ] {
        let running = restart(options, variable);
        wait_until("a long start", SOON, || {
            let a = service(&sandbox, "a");
            let lasts = a["since_seconds"].as_u64() >= Some(2);
            (lasts && a["state"] == "start-pending").then_some(())
        });
        fs::write(&fine, "").expect("a file");
        let (_, text) = running.finish();
        assert!(
            !text.contains('\r') && text.starts_with(expected),
            "{text:?}"
        );
    }
    stop(supervisor, &sandbox);
}
