//! Completions in real shells, from the scripts that `mainstay completions` prints.

use std::process::Command;

use mainstay_testkit::Terminal;

use super::*;

/// Returns a command that runs a shell in which `mainstay` is the program under test; `None` if the
/// shell is not installed.
fn shell(sandbox: &Sandbox, program: &str) -> Option<Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    if !dirs.iter().any(|dir| dir.join(program).is_file()) {
        mainstay_testkit::skip(format!("{program} is not installed"));
        return None;
    }
    let program_path = mainstay();
    dirs.insert(0, program_path.parent().expect("a directory").to_owned());
    let mut command = sandbox.command(program);
    command.env("PATH", std::env::join_paths(dirs).expect("a path"));
    command.env("HOME", sandbox.path()).env("TERM", "dumb");
    Some(command)
}

/// Returns a sandbox whose state directory has services, one of them with snapshots. Names that no
/// service can have are directories of others.
fn with_names() -> Sandbox {
    let sandbox = Sandbox::new();
    let state = sandbox.state_dir();
    for path in [
        "events/alpha",
        "logs/alpha",
        "logs/also-this",
        "logs/Alien$(touch pwned)",
        "logs/al\x1b[2J",
        "snapshots/alpha/20261122T101112.123456Z",
        "snapshots/alpha/staging",
    ] {
        std::fs::create_dir_all(state.join(path)).expect("a directory");
    }
    let manifest = "[service.alone]\ncommand = ['a']\n[service.other]\ncommand = ['a']\n";
    sandbox.write("m.toml", manifest);
    sandbox
}

/// Asks a shell for the completions of each line with this script, in which `LINE` stands for the
/// line, and compares the words that it prints.
fn check(program: &str, args: &[&str], script: &str) {
    let sandbox = with_names();
    for (line, expect) in [
        ("mainstay sta", &["start", "status"][..]),
        ("mainstay start al", &["alpha", "also-this"]),
        (
            "mainstay snapshot show alpha 2",
            &["20261122T101112.123456Z"],
        ),
        ("mainstay run m.toml al", &["alone"]),
        ("mainstay logs --stream ", &["stderr", "stdout"]),
        ("mainstay check m", &["m.toml"]),
    ] {
        let Some(mut command) = shell(&sandbox, program) else {
            return;
        };
        command.args(args).arg(script.replace("LINE", line));
        let output = command.output().expect("the shell runs");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(complaint, "", "{program}: {line}");
        let words = String::from_utf8_lossy(&output.stdout);
        let mut words: Vec<&str> = words
            .lines()
            .map(|line| line.split('\t').next().unwrap_or_default().trim())
            .collect();
        words.sort_unstable();
        assert_eq!(words, expect, "{program}: {line}");
        assert!(!sandbox.path().join("pwned").exists());
    }
}

#[test]
fn bash_completes_names() {
    // What readline does; `compopt` needs a completion that is under way.
    let script = r#"
source <(mainstay completions bash)
compopt() { COMPREPLY=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")); }
line='LINE'
read -ra COMP_WORDS <<< "$line"
[[ $line == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
_mainstay
printf '%s\n' "${COMPREPLY[@]}"
"#;
    check("bash", &["--norc", "--noprofile", "-c"], script);
}

#[test]
fn fish_completes_names() {
    let script = "mainstay completions fish | source; complete --do-complete 'LINE'";
    check("fish", &["--no-config", "-c"], script);
}

/// Zsh completes in its line editor only, so this types on a terminal.
#[test]
fn zsh_completes_names() {
    let sandbox = with_names();
    let Some(mut command) = shell(&sandbox, "zsh") else {
        return;
    };
    command.args(["-f", "-i"]);
    let mut terminal = Terminal::start(command);
    terminal.type_keys(
        "autoload -Uz compinit && compinit -D -u; source <(mainstay completions zsh); print rea''dy\r",
    );
    let shows = |terminal: &Terminal, text: &str| {
        wait_until(text, SOON, || terminal.shown().contains(text).then_some(()));
    };
    shows(&terminal, "\nready");
    // A tab completes the only candidate.
    terminal.type_keys("mainstay run m.toml al\t");
    shows(&terminal, "alone");
    terminal.type_keys("\x15");
    terminal.type_keys("mainstay start al\t\t");
    shows(&terminal, "also-this");
    assert!(!terminal.shown().contains("lien"), "{}", terminal.shown());
    terminal.type_keys("\x15");
    terminal.type_keys("exit\r");
    drop(terminal);
    assert!(!sandbox.path().join("pwned").exists());
}

/// PowerShell has no terminal here, but an interface for completions.
#[test]
fn powershell_completes_names() {
    let script = "mainstay completions powershell | Out-String | Invoke-Expression; \
                  (TabExpansion2 'LINE' 'LINE'.Length).CompletionMatches | \
                  ForEach-Object { $_.CompletionText -replace '^\\./', '' }";
    check("pwsh", &["-NoProfile", "-Command"], script);
}

/// The shell waits for the answer, so it comes at once, and without a word about what is wrong.
#[test]
fn an_answer_never_fails() {
    let sandbox = Sandbox::new();
    sandbox.write("state", "not a directory");
    sandbox.write("broken.toml", "[service.a");
    for words in [
        &["start", ""][..],
        &["--state-dir", "/nowhere/\u{1}", "rollback", "a", "--to", ""],
        &["run", "broken.toml", ""],
        &["run", "/dev/zero", ""],
        &["snapshot", "show", "../../etc", ""],
        &["no-such-verb", "--x", ""],
        &[],
    ] {
        let output = verb(&sandbox, &[&["complete", "fish", "--"], words].concat());
        assert_eq!(code(output.status), 0, "{words:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{words:?}");
        assert!(output.stdout.starts_with(b"words\n"), "{words:?}");
    }
}
