//! Tests a program that captures its output in files: nothing is lost, torn or mixed, on every
//! system.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// The output of `heartbeat run 0 0 chatter`: lines of several threads at once, with a panic at the
/// end.
const THREADS: usize = 8;
const LINES: usize = 3_000;

/// Returns the lines of a stream in order, across rotated files, each of which ends with a complete
/// line.
fn lines(dir: &Path, stream: &str) -> Vec<String> {
    let rotated = (1..=8).rev().map(|number| format!("{stream}.log.{number}"));
    let names = rotated.chain([format!("{stream}.log")]);
    let texts = names.filter_map(|name| fs::read_to_string(dir.join(name)).ok());
    texts
        .flat_map(|text| {
            assert!(text.is_empty() || text.ends_with('\n'), "a line is split");
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

/// Checks that every line of every thread is present once, complete and in order, and that the
/// panic is logged.
#[track_caller]
pub(crate) fn check(dir: &Path) {
    let sizes: Vec<_> = fs::read_dir(dir)
        .expect("the directory")
        .flatten()
        .map(|entry| (entry.file_name(), entry.metadata().map_or(0, |it| it.len())))
        .collect();
    assert!(
        dir.join("stdout.log.1").exists(),
        "it is rotated: {sizes:?}"
    );
    let mut next = [0; THREADS];
    for line in lines(dir, "stdout") {
        let mut words = line.split(' ');
        let mut number = || words.next().and_then(|word| word.parse::<usize>().ok());
        let (Some(thread), Some(number)) = (number(), number()) else {
            panic!("torn: {line}");
        };
        assert_eq!(words.next().map(str::len), Some(500), "torn: {line}");
        assert_eq!(number, next[thread], "thread {thread}: {line}");
        next[thread] += 1;
    }
    assert_eq!(next, [LINES; THREADS]);
    let said = lines(dir, "stderr").join("\n");
    assert!(said.contains("enough said"), "{said}");
}

#[test]
fn eight_threads_print_and_nothing_is_torn() {
    let dir = std::env::temp_dir().join(format!("heartbeat-logs-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).expect("a directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_heartbeat"));
    command.args(["run", "0", "0", "chatter"]);
    // A relative path is one of the directory in which the program was started.
    command.current_dir(&dir).env("HEARTBEAT_LOG_DIR", "logs");
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("it starts");
    assert_eq!(status.code(), Some(101));
    assert!(stdout.is_empty() && stderr.is_empty());
    check(&dir.join("logs"));
    fs::remove_dir_all(&dir).expect("its directory");
}
