//! Real pipes into real files.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use mainstay_core::log::{CURRENT, Stamp};
use mainstay_core::spec::ServiceName;

use super::file::Limits;
use super::{LogEvent, Logs};

const ENDLESS: Limits = Limits {
    rotate: u64::MAX,
    keep: u32::MAX,
};

/// A directory of its own, deleted in the end.
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
    }
}

fn name(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

/// The files of a log, oldest first.
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

/// Everything that was ever logged and not yet deleted.
pub(super) fn all(dir: &Path) -> Vec<u8> {
    files(dir)
        .iter()
        .flat_map(|path| fs::read(path).unwrap())
        .collect()
}

/// Every file but the last ends with a line, and the lines count from 0 to `count` without a gap.
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

#[test]
fn what_is_written_is_in_the_file_when_close_returns() {
    let dir = TempDir::new("close");
    let logs = Logs::start(dir.0.clone(), ignore).unwrap();
    let ends = logs.open_with(&name("a"), ENDLESS).unwrap();
    let odd = b"\xff\xfe no UTF-8\0\r\n\n\nno end";
    ends.stdout().write_all(odd).unwrap();
    assert_eq!(logs.close().lost.bytes, 0);
    assert_eq!(all(&dir.0.join("a")), odd);
}

#[test]
fn a_million_lines_one_write_each_through_many_rotations() {
    let dir = TempDir::new("lines");
    let logs = Logs::start(dir.0.clone(), ignore).unwrap();
    let limits = Limits {
        rotate: 1 << 20,
        keep: u32::MAX,
    };
    let ends = logs.open_with(&name("a"), limits).unwrap();
    for n in 0..1_000_000 {
        ends.stdout().write_all(&numbered(n..n + 1)).unwrap();
    }
    logs.close();
    check_numbered(&dir.0.join("a"), 1_000_000);
}

#[test]
fn a_million_lines_in_large_writes_through_tiny_files() {
    let dir = TempDir::new("chunks");
    let logs = Logs::start(dir.0.clone(), ignore).unwrap();
    let limits = Limits {
        rotate: 10_000,
        keep: u32::MAX,
    };
    let ends = logs.open_with(&name("a"), limits).unwrap();
    let bytes = numbered(0..1_000_000);
    for chunk in bytes.chunks(64 << 10) {
        ends.stdout().write_all(chunk).unwrap();
    }
    logs.close();
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
    let logs = Logs::start(dir.0.clone(), ignore).unwrap();
    let limits = Limits {
        rotate: 100_000,
        keep: u32::MAX,
    };
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
    logs.close();
    for name in &names {
        check_numbered(&dir.0.join(name.as_str()), 20_000);
    }
}

#[test]
fn a_line_is_matched_once_across_chunks_and_from_now_on() {
    let dir = TempDir::new("match");
    let (sender, events) = mpsc::channel();
    let logs = Logs::start(dir.0.clone(), move |event| sender.send(event).unwrap()).unwrap();
    let ends = logs.open_with(&name("a"), ENDLESS).unwrap();
    ends.stdout().write_all(b"ready 1\n").unwrap();
    logs.settle();
    logs.expect_line(&name("a"), r"^ready \d+$", 7).unwrap();
    for chunk in ["not ready 2\nrea", "dy", " 3", "\nready 4\n"] {
        ends.stdout().write_all(chunk.as_bytes()).unwrap();
        logs.settle();
    }
    assert!(logs.expect_line(&name("a"), "(", 8).is_err());
    logs.close();
    let matches: Vec<LogEvent> = events.iter().collect();
    assert!(
        matches!(&matches[..], [LogEvent::Matched { token: 7, .. }]),
        "{matches:?}"
    );
}
