//! Tests with real pipes and real files.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use mainstay_core::log::redact::RedactionKey;
use mainstay_core::log::{CURRENT, Stamp};
use mainstay_core::spec::ServiceName;

#[cfg(unix)]
use super::Wanted;
use super::file::Limits;
use super::{LogEvent, Logs, Lost, Pipes, Places, Scope, Summary};

const ENDLESS: Limits = Limits::ENDLESS;

/// A separate directory, deleted at the end.
pub(super) struct TempDir(pub(super) PathBuf);

impl TempDir {
    pub(super) fn new(what: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("mainstay-log-{what}-{}", std::process::id()));
        let _leftover = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
        let _gone = fs::remove_dir_all(self.0.with_extension("pipes"));
    }
}

fn name(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

/// Returns the files of a log, oldest first.
pub(super) fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    let mut rotated: Vec<String> = names
        .filter(|name| Stamp::of_file_name(name).is_some())
        .collect();
    rotated.sort();
    rotated.push(CURRENT.to_owned());
    rotated.iter().map(|name| dir.join(name)).collect()
}

/// Returns everything that was logged and not deleted yet.
pub(super) fn all(dir: &Path) -> Vec<u8> {
    files(dir)
        .iter()
        .flat_map(|path| fs::read(path).unwrap())
        .collect()
}

/// Checks that every file but the last ends with a whole line, and that the lines count from 0 to
/// `count` without a gap.
fn check_numbered(dir: &Path, count: u64) {
    let files = files(dir);
    for path in &files[..files.len() - 1] {
        assert_eq!(fs::read(path).unwrap().last(), Some(&b'\n'), "{path:?}");
    }
    let mut expect = 0;
    for path in &files {
        for line in fs::read(path).unwrap().split_inclusive(|b| *b == b'\n') {
            assert_eq!(
                line,
                format!("{expect:09} some output\n").as_bytes(),
                "{path:?}"
            );
            expect += 1;
        }
    }
    assert_eq!(expect, count);
}

fn numbered(range: std::ops::Range<u64>) -> Vec<u8> {
    range
        .flat_map(|n| format!("{n:09} some output\n").into_bytes())
        .collect()
}

fn ignore(_: LogEvent) {}

/// Starts logs with pipes next to `root_dir`, which may be a disk that fills.
fn start(root_dir: PathBuf, events: impl Fn(LogEvent) + Send + Sync + 'static) -> Logs {
    let pipes = Pipes::new(&root_dir.with_extension("pipes")).unwrap();
    let key = RedactionKey::new([7; 32]);
    let places = Places {
        spool_dir: root_dir.with_extension("spool"),
        logs_dir: root_dir,
    };
    let logs = Logs::start(places, pipes, key, events).unwrap();
    logs.begin();
    logs
}

fn close(logs: Logs) -> Summary {
    logs.close(|| {}).expect("a disk that does not hang")
}

#[test]
fn what_is_written_is_in_the_file_when_close_returns() {
    let dir = TempDir::new("close");
    let logs = start(dir.0.clone(), ignore);
    let ends = logs.open_with(&name("a"), ENDLESS).unwrap();
    let odd = b"\xff\xfe no UTF-8\0\r\n\n\nno end";
    ends.stdout().write_all(odd).unwrap();
    assert_eq!(close(logs).lost.bytes, 0);
    assert_eq!(all(&dir.0.join("a")), odd);
}

#[test]
fn a_million_lines_one_write_each_through_many_rotations() {
    let dir = TempDir::new("lines");
    let logs = start(dir.0.clone(), ignore);
    let limits = Limits::of_size(1 << 20, u32::MAX);
    let ends = logs.open_with(&name("a"), limits).unwrap();
    for n in 0..1_000_000 {
        ends.stdout().write_all(&numbered(n..n + 1)).unwrap();
    }
    close(logs);
    check_numbered(&dir.0.join("a"), 1_000_000);
}

#[test]
fn a_million_lines_in_large_writes_through_tiny_files() {
    let dir = TempDir::new("chunks");
    let logs = start(dir.0.clone(), ignore);
    let limits = Limits::of_size(10_000, u32::MAX);
    let ends = logs.open_with(&name("a"), limits).unwrap();
    let bytes = numbered(0..1_000_000);
    for chunk in bytes.chunks(64 << 10) {
        ends.stdout().write_all(chunk).unwrap();
    }
    close(logs);
    check_numbered(&dir.0.join("a"), 1_000_000);
    let sizes = files(&dir.0.join("a"))
        .into_iter()
        .map(|path| fs::metadata(path).unwrap().len());
    assert!(
        sizes.max().unwrap() <= 10_000 + 22,
        "a straddling line ends where it began"
    );
}

#[test]
fn services_do_not_disturb_each_other() {
    let dir = TempDir::new("many");
    let logs = start(dir.0.clone(), ignore);
    let limits = Limits::of_size(100_000, u32::MAX);
    let names: Vec<ServiceName> = (0..64).map(|n| name(&format!("s{n}"))).collect();
    let ends: Vec<_> = names
        .iter()
        .map(|name| logs.open_with(name, limits).unwrap())
        .collect();
    thread::scope(|scope| {
        for (index, ends) in ends.iter().enumerate() {
            scope.spawn(move || {
                let size = if index % 2 == 0 { 22 } else { 50_000 };
                for chunk in numbered(0..20_000).chunks(size) {
                    ends.stdout().write_all(chunk).unwrap();
                }
            });
        }
    });
    close(logs);
    for name in &names {
        check_numbered(&dir.0.join(name.as_str()), 20_000);
    }
}

/// Returns the log of a service that writes `chunks` one by one, with `log` in its manifest.
#[cfg(unix)]
fn logged(what: &str, log: &str, chunks: &[&[u8]]) -> String {
    let dir = TempDir::new(what);
    let logs = start(dir.0.clone(), ignore);
    let wanted = Wanted::new(name("a"), policy(log), Path::new(""));
    let ends = logs.open_wanted(&wanted).unwrap();
    for chunk in chunks {
        ends.stdout().write_all(chunk).unwrap();
    }
    drop(ends);
    close(logs);
    String::from_utf8(all(&dir.0.join("a"))).unwrap()
}

/// Returns the log of a service whose pipes are closed before the logs are.
#[cfg(unix)]
fn log_of_closed_pipes(what: &str, log: &str, bytes: &[u8]) -> String {
    let dir = TempDir::new(what);
    let logs = start(dir.0.clone(), ignore);
    let wanted = Wanted::new(name("a"), policy(log), Path::new(""));
    let ends = logs.open_wanted(&wanted).unwrap();
    ends.stdout().write_all(bytes).unwrap();
    logs.close_pipes(&name("a"));
    close(logs);
    String::from_utf8(all(&dir.0.join("a"))).unwrap()
}

#[cfg(unix)]
fn policy(log: &str) -> mainstay_core::spec::LogPolicy {
    let text = format!("[service.a]\ncommand = ['a']\nlog = {{ {log} }}");
    let specs = mainstay_core::manifest::parse(&text, mainstay_core::manifest::Format::Toml);
    specs.unwrap()[0].log().clone()
}

/// Returns the lines of a text log without their times.
#[cfg(unix)]
fn without_times(log: &str) -> Vec<&str> {
    let lines = log.lines().map(|line| line.split_once(' ').unwrap().1);
    lines.collect()
}

#[cfg(unix)]
#[test]
fn utf16_becomes_whole_lines_wherever_reads_end() {
    let text = "\u{feff}größer\r\nkurz\r\n\r\n😀 ਊ ਍\r\nno end";
    let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let expect = ["größer", "kurz", "", "😀 ਊ ਍", "no end"];
    for size in [1, 3, 7, bytes.len()] {
        let chunks: Vec<&[u8]> = bytes.chunks(size).collect();
        let log = "format = 'text', encoding = 'utf-16le'";
        assert_eq!(without_times(&logged("utf16", log, &chunks)), expect);
    }
    let long = "ä".repeat(50_000) + "\nend\n";
    let bytes: Vec<u8> = long.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let chunks: Vec<&[u8]> = bytes.chunks(10_001).collect();
    let log = logged(
        "utf16-long",
        "format = 'text', encoding = 'utf-16le'",
        &chunks,
    );
    let lines = without_times(&log);
    assert_eq!(lines.last(), Some(&"end"));
    assert_eq!(lines[..lines.len() - 1].concat() + "\nend\n", long);
}

#[cfg(unix)]
#[test]
fn a_code_page_becomes_utf8_and_is_redacted() {
    let bytes: &[u8] = b"{\"k\":\"gr\xfc\xdfe\"}\n\x80 mail a@example.com\n";
    let log = "format = 'json', encoding = 'cp1252', redact = ['email']";
    let log = logged("cp1252", log, &[bytes]);
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines[0].contains(r#""fields":{"k":"grüße"}"#), "{log}");
    assert!(lines[1].contains(r#""message":"€ mail [email]""#), "{log}");
    assert!(!log.contains("lossy"), "{log}");
}

/// The raw format keeps the bytes, and everything else sees the text.
#[cfg(unix)]
#[test]
fn raw_stays_raw_whatever_the_encoding() {
    let bytes = b"r\0e\0a\0d\0y\0\n\0x\0";
    let log = logged("raw-utf16", "encoding = 'utf-16le'", &[bytes]);
    assert_eq!(log.as_bytes(), bytes);
    let log = log_of_closed_pipes("raw-utf16-closed", "encoding = 'utf-16le'", bytes);
    assert_eq!(
        log.as_bytes(),
        bytes,
        "no byte shifts what a later run writes"
    );
}

/// However far the log thread is behind, each run's output is attributed to that run.
#[cfg(unix)]
#[test]
fn runs_are_told_apart_by_what_the_pipe_held_when_they_started() {
    let dir = TempDir::new("runs");
    let (sender, events) = mpsc::channel();
    let logs = start(dir.0.clone(), move |event| sender.send(event).unwrap());
    let ends = logs.open_with(&name("a"), ENDLESS).unwrap();
    let (resume, paused) = mpsc::channel::<()>();
    logs.rotate(&name("a"), move |_| {
        let _gone: Result<(), mpsc::RecvError> = paused.recv();
    });
    ends.stdout().write_all(b"ready, but not yet\nold").unwrap();
    logs.expect_line(&name("a"), "^(ready|old|new)", 7, Scope::NextRun)
        .unwrap();
    for (pid, text) in [(1, "new\nunfinished"), (2, "newer\n")] {
        logs.starting(&name("a"), &ends);
        ends.stdout().write_all(text.as_bytes()).unwrap();
        logs.began(&name("a"), pid, 0);
    }
    drop(resume);
    close(logs);
    let expected = "ready, but not yet\nold\nnew\nunfinished\nnewer\n";
    assert_eq!(String::from_utf8_lossy(&all(&dir.0.join("a"))), expected);
    let matches: Vec<LogEvent> = events.iter().collect();
    assert!(
        matches!(&matches[..], [LogEvent::Matched { token: 7, .. }]),
        "{matches:?}"
    );
}

#[test]
fn a_line_is_matched_once_across_chunks_and_from_now_on() {
    let dir = TempDir::new("match");
    let (sender, events) = mpsc::channel();
    let logs = start(dir.0.clone(), move |event| sender.send(event).unwrap());
    let ends = logs.open_with(&name("a"), ENDLESS).unwrap();
    ends.stdout().write_all(b"ready 1\n").unwrap();
    logs.settle();
    logs.expect_line(&name("a"), r"^ready \d+$", 7, Scope::NextRun)
        .unwrap();
    for chunk in ["not ready 2\nrea", "dy", " 3", "\nready 4\n"] {
        ends.stdout().write_all(chunk.as_bytes()).unwrap();
        logs.settle();
    }
    assert!(
        logs.expect_line(&name("a"), "(", 8, Scope::NextRun)
            .is_err()
    );
    close(logs);
    let matches: Vec<LogEvent> = events.iter().collect();
    assert!(
        matches!(&matches[..], [LogEvent::Matched { token: 7, .. }]),
        "{matches:?}"
    );
}

#[test]
fn a_line_of_a_hundred_megabytes_is_cut_and_loses_nothing() {
    let dir = TempDir::new("huge");
    let logs = start(dir.0.clone(), ignore);
    let limits = Limits::of_size(1 << 20, u32::MAX);
    let ends = logs.open_with(&name("a"), limits).unwrap();
    let block = [b'x'; 1 << 20];
    (0..100).for_each(|_| ends.stdout().write_all(&block).unwrap());
    ends.stdout().write_all(b"\nnext\n").unwrap();
    close(logs);
    let sizes = files(&dir.0.join("a"))
        .into_iter()
        .map(|path| fs::metadata(path).unwrap().len());
    let sizes: Vec<u64> = sizes.collect();
    assert!(sizes.iter().all(|size| *size <= 2 << 20), "{sizes:?}");
    let all = all(&dir.0.join("a"));
    assert_eq!(all.len(), (100 << 20) + 6);
    assert!(all.ends_with(b"xx\nnext\n") && all[..100 << 20].iter().all(|it| *it == b'x'));
}

#[test]
fn whoever_still_holds_the_pipe_does_not_delay_the_end() {
    let dir = TempDir::new("held");
    let logs = start(dir.0.clone(), ignore);
    let ends = logs.open_with(&name("a"), ENDLESS).unwrap();
    let held = ends.stdout().try_clone().unwrap();
    drop(ends);
    (&held)
        .write_all(b"after the service is forgotten\n")
        .unwrap();
    close(logs);
    assert_eq!(all(&dir.0.join("a")), b"after the service is forgotten\n");
    assert!((&held).write_all(b"too late").is_err());
}

#[test]
fn close_ends_while_somebody_writes_on_and_on() {
    let dir = TempDir::new("endless");
    let logs = start(dir.0.clone(), ignore);
    let ends = logs.open_with(&name("a"), ENDLESS).unwrap();
    let writer = thread::spawn(move || while ends.stdout().write_all(&[b'x'; 1 << 16]).is_ok() {});
    logs.settle();
    close(logs);
    writer.join().unwrap();
}

#[test]
fn a_log_that_was_removed_goes_on_in_a_new_one() {
    let dir = TempDir::new("removed");
    let logs = start(dir.0.clone(), ignore);
    let ends = logs.open_with(&name("a"), ENDLESS).unwrap();
    ends.stdout().write_all(b"gone\n").unwrap();
    logs.settle();
    fs::remove_dir_all(&dir.0).unwrap();
    ends.stdout().write_all(b"kept\n").unwrap();
    assert_eq!(close(logs), Summary::default());
    assert_eq!(all(&dir.0.join("a")), b"kept\n");
}

#[test]
fn logs_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = TempDir::new("mode");
    let logs = start(dir.0.join("logs"), ignore);
    let _ends = logs.open_with(&name("a"), ENDLESS).unwrap();
    logs.prepare();
    logs.settle();
    let mode = |path: &str| fs::metadata(dir.0.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(
        (mode("logs"), mode("logs/a"), mode("logs/a/current.log")),
        (0o700, 0o700, 0o600)
    );
    close(logs);
}

#[test]
fn a_directory_that_cannot_be_made_is_reported_once_and_tried_again() {
    let dir = TempDir::new("refused");
    let (sender, events) = mpsc::channel();
    let logs = start(dir.0.clone(), move |event| sender.send(event).unwrap());
    fs::write(dir.0.join("a"), "in the way").unwrap();
    let ends = logs.open_with(&name("a"), ENDLESS).unwrap();
    for _ in 0..3 {
        ends.stdout().write_all(b"lost\n").unwrap();
        logs.settle();
    }
    fs::remove_file(dir.0.join("a")).unwrap();
    ends.stdout().write_all(b"kept\n").unwrap();
    let lost = Lost {
        bytes: 15,
        lines: 3,
    };
    assert_eq!(
        close(logs),
        Summary {
            lost,
            ..Summary::default()
        }
    );
    let events: Vec<LogEvent> = events.iter().collect();
    assert!(
        matches!(&events[..], [LogEvent::Failing { file_error, .. }, LogEvent::Recovered { lost: said, .. }]
            if file_error.operation == "create" && *said == lost),
        "{events:?}"
    );
    let log = String::from_utf8(all(&dir.0.join("a"))).unwrap();
    assert!(
        log.starts_with("mainstay: 15 bytes (3 lines) were lost: ") && log.ends_with("\nkept\n")
    );
}

#[test]
fn following_shows_whole_lines_with_the_name_of_their_service() {
    let dir = TempDir::new("shown");
    let (sender, shown) = mpsc::channel();
    let logs = start(dir.0.clone(), ignore);
    let first = logs.open_with(&name("db"), ENDLESS).unwrap();
    logs.follow(move |lines| sender.send(lines.to_vec()).unwrap());
    let second = logs.open_with(&name("orders"), ENDLESS).unwrap();
    for (ends, text) in [
        (&first, "one\ntw"),
        (&second, "three\n\n"),
        (&first, "o\n"),
        (&second, "end"),
    ] {
        ends.stdout().write_all(text.as_bytes()).unwrap();
        logs.settle();
    }
    close(logs);
    let shown = String::from_utf8(shown.iter().flatten().collect()).unwrap();
    let lines = [
        "db     | one",
        "orders | three",
        "orders | ",
        "db     | two",
        "orders | end",
        "",
    ];
    assert_eq!(shown, lines.join("\n"));
}

/// A file system that is full after 256 KiB, unmounted at the end. Requires root.
#[cfg(target_os = "linux")]
struct SmallDisk(PathBuf);

#[cfg(target_os = "linux")]
impl SmallDisk {
    fn mount(dir: &Path) -> Option<Self> {
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
            .arg(dir)
            .output()
            .ok()?;
        mount.status.success().then(|| Self(dir.to_path_buf()))
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _unmounted = std::process::Command::new("umount").arg(&self.0).status();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_blocks_nobody_and_tears_no_line() {
    let dir = TempDir::new("full");
    let Some(_disk) = SmallDisk::mount(&dir.0) else {
        eprintln!("skipped: mounting a small tmpfs needs root");
        return;
    };
    let (sender, events) = mpsc::channel();
    let logs = start(dir.0.clone(), move |event| sender.send(event).unwrap());
    let ends = logs
        .open_with(&name("a"), Limits::of_size(50_000, 2))
        .unwrap();
    let (written, hog_path) = (100_000, dir.0.join("hog"));
    for (index, chunk) in numbered(0..written).chunks(10_007).enumerate() {
        match index % 60 {
            10 => assert!(fs::write(&hog_path, [0; 300_000]).is_err()),
            50 => fs::remove_file(&hog_path).unwrap(),
            _ => {}
        }
        ends.stdout().write_all(chunk).unwrap();
        logs.settle();
    }
    fs::remove_file(&hog_path).unwrap();
    ends.stdout()
        .write_all(&numbered(written..written + 1))
        .unwrap();
    let lost = close(logs).lost;
    assert!(
        lost.bytes > 0 && lost.bytes == lost.lines * 22,
        "whole lines only: {lost:?}"
    );
    let events: Vec<LogEvent> = events.iter().collect();
    let said = events.iter().filter_map(|event| match event {
        LogEvent::Recovered { lost, .. } => Some(lost.bytes),
        _ => None,
    });
    assert_eq!(said.sum::<u64>(), lost.bytes);
    let mut expect = 0;
    for line in all(&dir.0.join("a")).split_inclusive(|b| *b == b'\n') {
        let line = std::str::from_utf8(line).unwrap();
        if !line.starts_with("mainstay: ") {
            let number: u64 = line[..9].parse().unwrap();
            assert_eq!(line, format!("{number:09} some output\n"));
            assert!(number >= expect);
            expect = number + 1;
        }
    }
    assert_eq!(expect, written + 1);
}
