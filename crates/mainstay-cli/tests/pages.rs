//! Texts about the command itself: manual pages, explanations, the version.
#![cfg(unix)]

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn mainstay(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    command.args(args).output().expect("mainstay runs")
}

#[track_caller]
fn succeeds(args: &[&str]) -> String {
    let output = mainstay(args);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {complaint}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Returns the verbs, as completion knows them.
fn verbs(before: &[&str]) -> Vec<String> {
    let args = [&["complete", "bash", "--"], before, &[""]].concat();
    let text = succeeds(&args);
    let verbs = text.lines().skip(1).filter(|it| *it != "help");
    verbs.map(str::to_owned).collect()
}

/// Every page is one that man(1) shows without a warning.
#[test]
fn manual_pages_are_correct() {
    let mut pages = vec![Vec::new()];
    pages.extend(verbs(&[]).into_iter().map(|verb| vec![verb]));
    let snapshot = verbs(&["snapshot"]).into_iter();
    pages.extend(snapshot.map(|verb| vec!["snapshot".to_owned(), verb]));
    assert!(pages.len() > 30);
    for verbs in pages {
        let args: Vec<&str> = std::iter::once("man")
            .chain(verbs.iter().map(String::as_str))
            .collect();
        let page = succeeds(&args);
        for heading in [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "OPTIONS",
            "EXIT STATUS",
            "FILES",
            "ENVIRONMENT",
            "SEE ALSO",
        ] {
            assert!(
                page.contains(&format!("\n.SH {heading}\n")),
                "{verbs:?}: {heading}"
            );
        }
        let name = [&["mainstay".to_owned()], &verbs[..]].concat().join("\\-");
        assert!(page.contains(&format!(".SH NAME\n{name} \\- ")), "{page}");
        let mut lint = Command::new("mandoc");
        lint.args(["-T", "lint", "-W", "warning"]);
        lint.stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let Ok(mut lint) = lint.spawn() else {
            return mainstay_testkit::skip("mandoc is not installed");
        };
        let mut pipe = lint.stdin.take().expect("a pipe");
        pipe.write_all(page.as_bytes()).expect("mandoc reads");
        drop(pipe);
        let output = lint.wait_with_output().expect("mandoc ends");
        let found = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && found.is_empty(),
            "{verbs:?}: {found}\n{page}"
        );
    }
    let output = mainstay(&["man", "snapshot", "lst"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "error: there is no verb lst\nhint: did you mean `list`?\n"
    );
}

#[test]
fn codes_are_explained() {
    let text = succeeds(&["explain", "unknown-key"]);
    assert!(
        text.starts_with("unknown-key\n\nThe key does not exist here.\n\nCause: "),
        "{text}"
    );
    let text = succeeds(&["explain", "75"]);
    assert!(
        text.starts_with("75 (failure), exit code of a service\n"),
        "{text}"
    );
    assert!(
        text.contains("\n75 (busy), exit code of mainstay\n"),
        "{text}"
    );
    let text = succeeds(&["explain", "exit", "code", "300"]);
    assert!(
        text.starts_with("300 (0x12C), exit code of a service\n"),
        "{text}"
    );
    let text = succeeds(&["explain", "backing-off"]);
    assert!(
        text.starts_with("backing-off, state of a service\n"),
        "{text}"
    );
    let document: Value = serde_json::from_str(&succeeds(&["explain", "202", "--json"])).unwrap();
    let [it] = &document.as_array().unwrap()[..] else {
        panic!("{document}");
    };
    assert_eq!(
        (&it["kind"], &it["number"]),
        (&"service".into(), &202.into())
    );
    for key in ["name", "meaning", "cause", "action", "example"] {
        assert!(it[key].is_string(), "{it}");
    }
    let output = mainstay(&["explain", "unknown-kay"]);
    assert_eq!(output.status.code(), Some(4));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        message,
        "error: cannot explain unknown-kay: not a known code or state\nhint: did you mean `unknown-key`?\n"
    );
}

/// Errors in the command line name what was expected, and no option that was not typed.
#[test]
fn usage_errors() {
    let sandbox = mainstay_testkit::Sandbox::new();
    for (args, expect) in [
        (
            &["logs", "a", "-n", "x"][..],
            "error: invalid value 'x' for '--lines <N>': expected a whole number\n",
        ),
        (
            &["events", "-n", "-1"],
            "error: invalid value '-1' for '--lines <N>': expected a whole number\n",
        ),
        (
            &["diff", "a", "--from", "x"],
            "error: invalid value 'x' for '--from <VERSION>': expected a whole number\n",
        ),
        (
            &["rollback", "a", "--to", "one"],
            "error: invalid value 'one' for '--to <N>': expected a whole number\n",
        ),
        (
            &["update", "a.toml", "--if-version", ""],
            "error: invalid value '' for '--if-version <N>': expected a whole number\n",
        ),
        (
            &["install", "a.toml", "--if-version", "x"],
            "error: invalid value 'x' for '--if-version <N>': expected a whole number\n",
        ),
        (
            &["uninstall", "a", "--if-version", "x"],
            "error: invalid value 'x' for '--if-version <N>': expected a whole number\n",
        ),
        (
            &["snapshot", "prune", "a", "--keep", "0"],
            "error: invalid value '0' for '--keep <N>': expected a whole number, at least 1\n",
        ),
        (&["start"], "\nUsage: mainstay start <NAMES>...\n"),
        (
            &["status", "--wait", "3s"],
            "\nUsage: mainstay status --wait <DURATION> <NAMES>...\n",
        ),
        (
            &["diff", "a", "1"],
            "\nhint: name versions with options: `mainstay diff NAME --from N --to M`; `mainstay history NAME` lists them\n",
        ),
    ] {
        // This command gets its state directory by a variable.
        let mut command = sandbox.command(env!("CARGO_BIN_EXE_mainstay"));
        let output = command.args(args).output().expect("mainstay runs");
        let error = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        assert!(error.contains(expect), "{args:?}: {error}");
    }
}

#[test]
fn quiet_and_verbose_output() {
    let sandbox = mainstay_testkit::Sandbox::new();
    let run = |args: &[&str]| {
        let mut command = sandbox.command(env!("CARGO_BIN_EXE_mainstay"));
        let output = command.args(args).output().expect("mainstay runs");
        let text = [output.stdout, output.stderr].map(|it| String::from_utf8(it).expect("UTF-8"));
        (output.status.code(), text)
    };
    let nothing = [String::new(), String::new()];
    sandbox.write("app.py", "print('hello')\n");
    assert_eq!(run(&["-q", "init"]), (Some(0), nothing.clone()));
    assert_eq!(
        run(&["check", "--quiet", "mainstay.toml"]),
        (Some(0), nothing)
    );
    // The output that was asked for.
    let (_, [schema, _]) = run(&["-q", "schema"]);
    assert!(schema.starts_with('{'), "{schema}");
    let (_, [manifest, _]) = run(&["-q", "init", "--output", "-"]);
    assert!(manifest.contains("[service."), "{manifest}");

    let (code, [shown, error]) = run(&["start", "app", "-q"]);
    assert_eq!((code, shown.as_str()), (Some(3), ""));
    let path = sandbox.state_dir();
    let message = format!(
        "error: no supervisor is running in {}\nhint: ",
        path.display()
    );
    assert!(error.starts_with(&message), "{error}");
    assert_eq!(error.lines().count(), 2, "{error}");
    let (_, [_, verbose]) = run(&["start", "app", "-v"]);
    let details = verbose.strip_prefix(&error).expect("the same error");
    let expect = "cause: No such file or directory (os error 2)\n\
                  exit code: 3 (not-running); see `mainstay explain not-running`\n";
    assert_eq!(details, expect);
    assert_eq!(run(&["-q", "-v", "list"]).0, Some(2));

    // Of events, alerts are the errors.
    let manifest = "environment = 'development'\n\
                    [service.bad]\ncommand = ['sh', '-c', 'exit 7']\nrecovery.policy = 'never'\n\
                    [service.good]\ncommand = ['true']\n";
    sandbox.write("two.toml", manifest);
    let (code, [shown, _]) = run(&["run", "-q", "two.toml"]);
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("halted: exit code 7"), "{shown}");
    // In a file or a pipe, with the date and the time zone.
    let alert = shown.lines().find(|line| line.contains(" ! bad "));
    let (time, _) = alert.and_then(|line| line.split_once(' ')).expect("a time");
    assert!(
        time.len() == 24 && &time[10..11] == "T" && time.ends_with('Z'),
        "{time}"
    );
    for line in shown.lines() {
        let is_alert = line.contains(" ! bad ") || line.starts_with("bad: halted");
        assert!(is_alert, "{shown}");
    }
}

#[test]
fn the_version_is_also_a_document() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(succeeds(&["version"]), format!("mainstay {version}\n"));
    let document: Value = serde_json::from_str(&succeeds(&["version", "--json"])).unwrap();
    assert_eq!(document["version"], version);
    assert_eq!(document["manifest"], 1);
    assert_eq!(document["control"][0], "v1");
    let target = document["target"].as_str().unwrap();
    assert!(target.ends_with(std::env::consts::OS), "{target}");
}
