//! Completion of the command line of this program, with names that do not exist.

use clap::CommandFactory as _;

use super::*;
use crate::cli::Cli;

/// Returns the answer for these words, of which the last one is being typed.
fn answer(words: &str) -> (Answer, Option<Live>) {
    let mut command = Cli::command();
    command.build();
    let (before, current) = words.rsplit_once(' ').unwrap_or(("", words));
    let line = Line::read(&command, before.split(' ').filter(|word| !word.is_empty()));
    let asked = std::cell::RefCell::new(None);
    let answer = Answer::of(&line, current, |set| {
        *asked.borrow_mut() = Some(set);
        ["alpha", "beta", "two words", "x;rm", "$(x)", "a\x1bb"]
            .map(str::to_owned)
            .into()
    });
    (answer, asked.into_inner())
}

#[track_caller]
fn words(words: &str) -> Vec<String> {
    match answer(words).0 {
        Answer::Words(all) => all.into_iter().map(|(word, _)| word).collect(),
        other => panic!("{words}: {other:?}"),
    }
}

#[test]
fn verbs_and_options_are_completed() {
    assert_eq!(words("sta"), ["status", "start"]);
    assert!(words("").contains(&"install".to_owned()));
    assert_eq!(
        words("complet"),
        ["completions"],
        "the hidden one is not shown"
    );
    assert_eq!(words("snapshot pr"), ["prune"]);
    assert_eq!(words("snapshot list --js"), ["--json"]);
    assert_eq!(
        words("status --st"),
        ["--state-dir"],
        "hidden options are not shown"
    );
    assert_eq!(words("logs --stream std"), ["stdout", "stderr"]);
    assert_eq!(
        words("logs --stream=std"),
        ["--stream=stdout", "--stream=stderr"]
    );
    assert_eq!(words("completions z"), ["zsh"]);
    assert_eq!(words("man snapshot pr"), ["prune"]);
    assert_eq!(words("explain unknown-k"), ["unknown-key"]);
    assert!(words("no-such-verb ").is_empty());
    assert!(words("status --no-such-option=").is_empty());
    assert!(words("check a.toml ").is_empty(), "one file only");
}

#[test]
fn names_are_completed_where_they_are_expected() {
    let asks = |words: &str, expect: Live| assert_eq!(answer(words).1, Some(expect), "{words}");
    let name = || "alpha".to_owned();
    asks("start ", Live::Services);
    asks("start alpha --json ", Live::Services);
    asks("--state-dir /x stop ", Live::Services);
    asks("logs -n 5 ", Live::Services);
    asks("logs -n5 ", Live::Services);
    asks("logs rotate ", Live::Services);
    asks("status --wait=1s ", Live::Services);
    asks("uninstall -- ", Live::Installed);
    asks("rollback alpha --to ", Live::Versions(name()));
    asks("rollback alpha --to = ", Live::Versions(name()));
    asks("diff alpha --from=", Live::Versions(name()));
    asks("snapshot restore alpha ", Live::Snapshots(name()));
    asks("run m.toml ", Live::OfManifest("m.toml".to_owned()));
    asks(
        "install m.toml alpha ",
        Live::OfManifest("m.toml".to_owned()),
    );
    assert_eq!(answer("history alpha ").1, None, "one name only");
    assert_eq!(answer("start --json").1, None);
}

/// A name with a character that a shell interprets is not a candidate.
#[test]
fn candidates_are_plain_words() {
    assert_eq!(words("start "), ["alpha", "beta"]);
    assert_eq!(words("start b"), ["beta"]);
    assert_eq!(words("rollback alpha --to=a"), ["--to=alpha"]);
    let (answer, _) = answer("st");
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Powershell] {
        let lines = answer.lines(shell);
        let mut lines = lines.lines();
        assert_eq!(lines.next(), Some("words"));
        for line in lines {
            let separators = line.matches(['\t', ':']).count();
            assert_eq!(separators, usize::from(shell != Shell::Bash), "{line}");
        }
    }
}

#[test]
fn files_are_left_to_the_shell() {
    for line in [
        "check ",
        "run m",
        "status --state-dir ",
        "init ",
        "init -o ",
    ] {
        assert_eq!(answer(line).0, Answer::Files, "{line}");
    }
}

/// Each argument has candidates, or is listed here as free text.
#[test]
fn every_argument_is_considered() {
    const FREE: [&str; 17] = [
        "password_env",
        "lines",
        "since",
        "until",
        "grep",
        "wait",
        "keep",
        "canary",
        "sha256",
        "artifact",
        "manager",
        "words",
        "code",
        "verbs",
        "subcommand",
        "color",
        "viewers",
    ];
    fn visit(command: &Command, free: &[&str]) {
        let line = Line {
            program: command,
            command,
            positionals: vec!["a", "b"],
            option: None,
            has_ended: false,
            state_dir: None,
        };
        for arg in command.get_arguments().filter(|arg| takes_value(arg)) {
            let is_path = matches!(
                arg.get_value_hint(),
                ValueHint::AnyPath | ValueHint::FilePath | ValueHint::DirPath
            );
            let is_known = is_path
                || !arg.get_possible_values().is_empty()
                || line.live(arg).is_some()
                || free.contains(&arg.get_id().as_str());
            assert!(is_known, "{} {}", command.get_name(), arg.get_id());
        }
        command.get_subcommands().for_each(|it| visit(it, free));
    }
    let mut command = Cli::command();
    command.build();
    visit(&command, &FREE);
}
