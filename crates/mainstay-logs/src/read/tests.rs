//! Tests of reading: logs written by real writers, and files in unusual states.

use std::fs::{self, File};
#[cfg(target_os = "linux")]
use std::io::Read as _;
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use mainstay_core::log::{CURRENT, Head, Stamp};

use super::super::disk::RealDisk;
use super::super::file::{Limits, LogFile};
use super::super::tests::TempDir;
use super::*;

fn log_in(dir: &Path, rotate: u64, keep: u32) -> LogFile<RealDisk> {
    let mut log = LogFile::new(
        RealDisk,
        dir.to_path_buf(),
        Limits::of_size(rotate, keep),
        |_| {},
    );
    log.prepare();
    log
}

/// Returns the output of the query, as bytes and line by line, which is the same except for a
/// missing terminator of the last line.
#[track_caller]
fn shown(dir: &Path, query: Query, keep: Option<&Keep<'_>>) -> String {
    let log = Log::open(dir).unwrap();
    let range = log.select(&query, keep).unwrap();
    let (mut lines, mut line) = (log.lines(range), Vec::new());
    let (mut by_line, mut count) = (Vec::new(), 0);
    while lines.next(&mut line).unwrap().is_some() {
        if keep.is_some_and(|keep| !keep(without_end(&line))) {
            continue;
        }
        count += 1;
        by_line.extend_from_slice(without_end(&line));
        by_line.push(b'\n');
    }
    if query.lines.is_some() {
        assert_eq!(range.counted, count);
    }
    let by_line = String::from_utf8(by_line).unwrap();
    if keep.is_none() {
        let mut bytes = Vec::new();
        let copied = log.copy(range, &mut |block| bytes.write_all(block));
        copied.unwrap();
        let bytes = String::from_utf8(bytes).unwrap();
        assert_eq!(by_line.trim_end_matches('\n'), bytes.trim_end_matches('\n'));
        return bytes;
    }
    by_line
}

fn last(lines: u64) -> Query {
    Query {
        lines: Some(lines),
        ..Query::default()
    }
}

fn tail_text(dir: &Path, lines: u64) -> String {
    shown(dir, last(lines), None)
}

#[test]
fn the_end_of_a_log_reaches_back_across_files() {
    let dir = TempDir::new("tail");
    let mut log = log_in(&dir.0, 10, 99);
    log.write(b"1\n\n3\n4444444444444\n5\n6\nseven");
    let check = |lines, expect: &str| assert_eq!(tail_text(&dir.0, lines), expect, "{lines}");
    check(0, "");
    check(1, "seven");
    check(2, "6\nseven");
    check(4, "4444444444444\n5\n6\nseven");
    check(6, "\n3\n4444444444444\n5\n6\nseven");
    check(7, "1\n\n3\n4444444444444\n5\n6\nseven");
    check(99, "1\n\n3\n4444444444444\n5\n6\nseven");
    log.write(b"\n");
    check(1, "seven\n");
    log.rotate().unwrap();
    check(2, "6\nseven\n");
}

#[test]
fn long_lines_and_long_files_are_not_scanned_from_the_beginning() {
    let dir = TempDir::new("long");
    let mut log = log_in(&dir.0, u64::MAX, 1);
    let long = "x".repeat(BLOCK * 2 + 1);
    log.write(format!("first\n{long}\nlast\n").as_bytes());
    assert_eq!(tail_text(&dir.0, 2), format!("{long}\nlast\n"));
    // A hole of 1 TiB before the last line: reading it would take minutes.
    let file = File::options()
        .append(true)
        .open(dir.0.join(CURRENT))
        .unwrap();
    file.set_len(1 << 40).unwrap();
    (&file).write_all(b"\nend\n").unwrap();
    assert_eq!(tail_text(&dir.0, 1), "end\n");
}

#[test]
fn a_log_that_was_never_written_is_not_found() {
    let dir = TempDir::new("none");
    let result = Log::open(&dir.0.join("none"));
    assert!(result.is_err_and(|error| error.kind() == io::ErrorKind::NotFound));
    assert_eq!(tail_text(&dir.0, 1), "");
}

/// A sink that sends whole lines; an error ends the follower.
struct Taken(Vec<u8>, mpsc::Sender<String>);

impl Sink for Taken {
    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.extend(bytes);
        while let Some(end) = self.0.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.0.drain(..=end).collect();
            let sent = self.1.send(String::from_utf8(line).unwrap());
            sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        }
        Ok(())
    }
    fn end_of_file(&mut self) -> io::Result<()> {
        assert!(self.0.is_empty(), "a line is torn");
        Ok(())
    }
    fn damaged(&mut self, damage: &Damage) {
        panic!("{damage:?}");
    }
}

/// Follows the log in `dir` from its end.
fn follower(dir: &Path) -> (thread::JoinHandle<io::Error>, mpsc::Receiver<String>) {
    let (sender, lines) = mpsc::channel();
    let mut followed = Followed {
        dir: dir.to_path_buf(),
        position: Log::open(dir).unwrap().end(),
        sink: Taken(Vec::new(), sender),
        is_optional: false,
    };
    let follow = move || follow(std::slice::from_mut(&mut followed), &mut || Ok(()));
    (thread::spawn(follow), lines)
}

#[test]
fn following_misses_nothing_through_rotations() {
    let dir = TempDir::new("follow");
    let mut log = log_in(&dir.0, 200, u32::MAX);
    log.write(b"before\n");
    let (thread, lines) = follower(&dir.0);
    for number in 0..20_000 {
        log.write(format!("{number:07}\n").as_bytes());
        if number % 100 == 0 {
            // The writer waits for the reader now and then, and runs ahead in between.
            while lines.recv().unwrap() != format!("{number:07}\n") {}
        }
    }
    log.write(b"last\n");
    let rest: Vec<String> = lines.iter().take(100).collect();
    let expect = (19_901..20_000).map(|number| format!("{number:07}\n"));
    assert_eq!(
        rest,
        expect.chain(["last\n".to_owned()]).collect::<Vec<_>>()
    );
    drop(lines);
    log.write(b"wakes it up\n");
    assert_eq!(thread.join().unwrap().kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn following_goes_on_in_a_new_directory() {
    let dir = TempDir::new("again");
    let sub_dir = dir.0.join("a");
    let mut log = log_in(&sub_dir, u64::MAX, 1);
    let (thread, lines) = follower(&sub_dir);
    log.write(b"one\n");
    assert_eq!(lines.recv().unwrap(), "one\n");
    fs::remove_dir_all(&sub_dir).unwrap();
    log.write(b"two\n");
    assert_eq!(lines.recv().unwrap(), "two\n");
    drop(lines);
    log.write(b"wakes it up\n");
    assert_eq!(thread.join().unwrap().kind(), io::ErrorKind::BrokenPipe);
}

/// Returns 2020-01-01T00:00:00Z plus this many seconds, which is before any file was created.
const fn at(seconds: u64) -> u64 {
    (1_577_836_800 + seconds) * 1_000_000
}

fn stamp(seconds: u64) -> Stamp {
    Stamp::from_unix_micros(at(seconds))
}

/// Compresses a rotated file like the compressor, but keeps the plain one.
fn compressed(dir: &Path, stamp: Stamp, suffix: &str) {
    let plain = fs::read(dir.join(stamp.file_name())).unwrap();
    let path = dir.join(stamp.file_name() + suffix);
    let temp = dir.join(stamp.file_name() + suffix + ".tmp");
    let mut file = File::create(&temp).unwrap();
    match suffix {
        ".zst" => zstd::stream::copy_encode(&plain[..], &mut file, 3).unwrap(),
        _ => {
            let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            encoder.write_all(&plain).unwrap();
            encoder.finish().unwrap();
        }
    }
    fs::rename(temp, path).unwrap();
}

fn compress(dir: &Path, stamp: Stamp, suffix: &str) {
    compressed(dir, stamp, suffix);
    fs::remove_file(dir.join(stamp.file_name())).unwrap();
}

/// Writes the index of a file that begins with `first`.
fn index(path: &Path, first: &[u8], marks: &[(usize, u64)]) {
    let marks = marks
        .iter()
        .flat_map(|&(offset, time)| [offset as u64, time])
        .flat_map(u64::to_le_bytes);
    let bytes: Vec<u8> = Head::of(first)
        .to_bytes()
        .into_iter()
        .chain(marks)
        .collect();
    fs::write(path, bytes).unwrap();
}

fn since(seconds: u64) -> Query {
    Query {
        since: Some(at(seconds)),
        ..Query::default()
    }
}

fn until(seconds: u64) -> Query {
    Query {
        until: Some(at(seconds)),
        ..Query::default()
    }
}

#[test]
fn a_log_of_all_kinds_of_files_is_one() {
    let dir = TempDir::new("kinds");
    let write = |name: String, text: &str| fs::write(dir.0.join(name), text).unwrap();
    write(stamp(10).file_name(), "a 1\na 2\n");
    compress(&dir.0, stamp(10), ".gz");
    write(stamp(20).file_name(), "b 1\nb 2\n");
    compress(&dir.0, stamp(20), ".zst");
    // The compressor was interrupted, or is about to delete the plain file.
    write(stamp(30).file_name(), "c 1\n");
    write(stamp(30).file_name() + ".zst", "unfinished");
    write(stamp(40).file_name() + ".zst.tmp", "unfinished");
    write(CURRENT.to_owned(), "d 1\nd 2");
    let all = "a 1\na 2\nb 1\nb 2\nc 1\nd 1\nd 2";
    assert_eq!(shown(&dir.0, Query::default(), None), all);
    for lines in 0..9 {
        let expect: Vec<&str> = all.split_inclusive('\n').collect();
        let from = 7_usize.saturating_sub(lines as usize);
        assert_eq!(tail_text(&dir.0, lines), expect[from..].concat(), "{lines}");
    }
    let ones: &Keep<'_> = &|line| line.ends_with(b"1");
    assert_eq!(
        shown(&dir.0, Query::default(), Some(ones)),
        "a 1\nb 1\nc 1\nd 1\n"
    );
    assert_eq!(shown(&dir.0, last(3), Some(ones)), "b 1\nc 1\nd 1\n");
    assert_eq!(shown(&dir.0, last(9), Some(ones)), "a 1\nb 1\nc 1\nd 1\n");
    // By the names alone: each file as a whole.
    assert_eq!(shown(&dir.0, since(15), None), &all[8..]);
    assert_eq!(shown(&dir.0, until(15), None), &all[..16]);
}

#[test]
fn a_damaged_file_yields_what_can_be_read_and_is_named() {
    let dir = TempDir::new("damage");
    let text: String = (0..200_000).map(|number| format!("{number}\n")).collect();
    for (seconds, suffix) in [(10, ".zst"), (20, ".gz")] {
        let path = dir.0.join(stamp(seconds).file_name());
        fs::write(&path, &text).unwrap();
        compress(&dir.0, stamp(seconds), suffix);
        let path = dir.0.join(stamp(seconds).file_name() + suffix);
        let packed = fs::read(&path).unwrap();
        fs::write(&path, &packed[..packed.len() / 2]).unwrap();
    }
    fs::write(dir.0.join(CURRENT), "end\n").unwrap();
    let log = Log::open(&dir.0).unwrap();
    let mut bytes = Vec::new();
    let range = log.select(&Query::default(), None).unwrap();
    log.copy(range, &mut |block| bytes.write_all(block))
        .unwrap();
    let lines = bytes.iter().filter(|b| **b == b'\n').count();
    assert!((50_000..350_000).contains(&lines), "{lines}");
    assert!(bytes.ends_with(b"\nend\n"));
    let damaged: Vec<_> = log.damage().into_iter().map(|damage| damage.path).collect();
    let expect = [(10, ".zst"), (20, ".gz")];
    let expect = expect.map(|(seconds, suffix)| dir.0.join(stamp(seconds).file_name() + suffix));
    assert_eq!(damaged, expect);
}

/// Returns lines with stamps, one per second.
fn stamped(seconds: std::ops::Range<u64>, text: &str) -> String {
    let time = |second| mainstay_core::time::rfc3339(std::time::Duration::from_micros(at(second)));
    seconds
        .map(|second| format!("{} {second} {text}\n", time(second)))
        .collect()
}

#[test]
fn a_time_is_found_by_the_lines_own_stamps() {
    let dir = TempDir::new("stamps");
    for (range, suffix) in [(0..3000, ".zst"), (3000..6000, ""), (6000..9000, ".gz")] {
        let end = stamp(range.end);
        fs::write(
            dir.0.join(end.file_name()),
            stamped(range, &"x".repeat(100)),
        )
        .unwrap();
        if !suffix.is_empty() {
            compress(&dir.0, end, suffix);
        }
    }
    let current = stamped(9000..12_000, "y") + "raw without a stamp\n";
    fs::write(dir.0.join(CURRENT), current).unwrap();
    let numbers = |query| -> Vec<u64> {
        let text = shown(&dir.0, query, None);
        let words = text.lines().filter(|line| !line.starts_with("raw"));
        words
            .map(|line| line.split(' ').nth(1).unwrap().parse().unwrap())
            .collect()
    };
    for second in [
        0, 1, 1234, 2999, 3000, 3001, 4711, 5999, 6000, 6001, 7777, 8999, 9000, 9001, 10_815,
        11_999,
    ] {
        assert!(
            numbers(since(second)).into_iter().eq(second..12_000),
            "{second}"
        );
        assert!(
            numbers(until(second)).into_iter().eq(0..=second),
            "{second}"
        );
        let both = Query {
            since: Some(at(second)),
            until: Some(at(second + 5)),
            lines: Some(3),
        };
        let end = (second + 6).min(12_000);
        let found = numbers(both);
        assert_eq!(found.last(), Some(&(end - 1)).filter(|_| end > second));
        assert!(found.len() <= 3);
    }
    // The time of the last line is unknown, so it is shown.
    assert_eq!(shown(&dir.0, since(11_999), None).lines().count(), 2);
}

#[test]
fn a_time_is_found_by_the_index() {
    let dir = TempDir::new("index");
    let text: String = (0..100).map(|number| format!("{number:03}\n")).collect();
    let marks = |start: u64| -> Vec<(usize, u64)> {
        (1..10)
            .map(|ten| (ten as usize * 40, at(start + ten * 10)))
            .collect()
    };
    fs::write(dir.0.join(stamp(100).file_name()), &text).unwrap();
    compress(&dir.0, stamp(100), ".zst");
    let name = stamp(100).file_name().replace(".log", ".idx");
    index(&dir.0.join(&name), text.as_bytes(), &marks(0));
    fs::write(dir.0.join(CURRENT), &text).unwrap();
    index(&dir.0.join("current.idx"), text.as_bytes(), &marks(100));
    let mut torn = File::options()
        .append(true)
        .open(dir.0.join("current.idx"))
        .unwrap();
    torn.write_all(&[7; 9]).unwrap();
    let from = |seconds| -> String { shown(&dir.0, since(seconds), None) };
    let both = text.repeat(2);
    for (seconds, line) in [
        (0, 0),
        (9, 0),
        (10, 10),
        (55, 50),
        (99, 90),
        (100, 90),
        (105, 100),
        (110, 110),
        (199, 190),
    ] {
        assert_eq!(from(seconds), both[line * 4..], "{seconds}");
    }
    for (seconds, line) in [
        (9, 10),
        (10, 20),
        (95, 100),
        (105, 110),
        (155, 160),
        (200, 200),
    ] {
        assert_eq!(
            shown(&dir.0, until(seconds), None),
            both[..line * 4],
            "{seconds}"
        );
    }
    // The times of lines, as far as the index determines them.
    let log = Log::open(&dir.0).unwrap();
    let range = log.select(&since(100), None).unwrap();
    let (mut lines, mut line) = (log.lines(range), Vec::new());
    let mut times = Vec::new();
    while let Some(time) = lines.next(&mut line).unwrap() {
        assert!(!time.exact);
        times.push((time.micros - at(0)) / 1_000_000);
    }
    let expect = (90..200).map(|line| line / 10 * 10);
    assert!(times.into_iter().eq(expect));
}

/// An index that was copied from another file, or is left of one that was replaced, is not
/// believed.
#[test]
fn an_index_of_another_file_narrows_nothing() {
    let dir = TempDir::new("foreign");
    let text = "a\nb\nc\n";
    // Says that all but the last line are old.
    let marks = [(0, at(110)), (4, at(190))];
    let lines = || shown(&dir.0, since(190), None);
    fs::write(dir.0.join(stamp(100).file_name()), "older\n").unwrap();
    fs::write(dir.0.join(CURRENT), text).unwrap();
    index(&dir.0.join("current.idx"), text.as_bytes(), &marks);
    assert_eq!(lines(), "c\n");
    for other in ["x\nb\nc\n", "a\nb\nc\nd\n"] {
        index(&dir.0.join("current.idx"), other.as_bytes(), &marks);
        assert_eq!(lines(), text, "{other}");
    }
    // A rotated file that begins alike was written at another time.
    fs::rename(dir.0.join(CURRENT), dir.0.join(stamp(200).file_name())).unwrap();
    fs::remove_file(dir.0.join("current.idx")).unwrap();
    fs::write(dir.0.join(stamp(300).file_name()), text).unwrap();
    let of_last = [(0, at(210)), (4, at(290))];
    index(
        &dir.0.join(stamp(200).index_name()),
        text.as_bytes(),
        &of_last,
    );
    assert_eq!(shown(&dir.0, since(150), None), text.repeat(2));
    assert_eq!(
        shown(&dir.0, until(205), None),
        format!("older\n{text}{text}")
    );
}

#[test]
fn the_oldest_file_has_the_times_of_its_index_when_it_is_compressed() {
    let text = "a\nb\nc\n";
    for (suffix, marks, first) in [
        (".zst", &[(0, at(10)), (2, at(20)), (4, at(30))][..], 10),
        (".gz", &[(0, at(10)), (2, at(20)), (4, at(30))], 10),
        // An older version wrote no entry for the first line, which is not younger than the next.
        (".zst", &[(2, at(20)), (4, at(30))], 20),
    ] {
        let dir = TempDir::new("oldest");
        fs::write(dir.0.join(stamp(100).file_name()), text).unwrap();
        compress(&dir.0, stamp(100), suffix);
        index(&dir.0.join(stamp(100).index_name()), text.as_bytes(), marks);
        let log = Log::open(&dir.0).unwrap();
        let range = log.select(&Query::default(), None).unwrap();
        let (mut lines, mut line) = (log.lines(range), Vec::new());
        for seconds in [first, 20, 30] {
            let time = lines.next(&mut line).unwrap().unwrap();
            assert_eq!((time.micros, time.exact), (at(seconds), false));
        }
        if first == 10 {
            assert_eq!(shown(&dir.0, until(9), None), "");
            assert_eq!(shown(&dir.0, until(0), None), "");
        }
        assert_eq!(shown(&dir.0, until(25), None), "a\nb\n");
        assert_eq!(shown(&dir.0, since(30), None), "c\n");
    }
}

#[test]
fn stamps_that_a_service_writes_itself_do_not_mislead() {
    let dir = TempDir::new("replay");
    let old = "2001-01-01T00:00:00Z replayed\n".repeat(5000);
    fs::write(dir.0.join(stamp(100).file_name()), &old).unwrap();
    fs::write(dir.0.join(stamp(200).file_name()), &old).unwrap();
    assert_eq!(shown(&dir.0, since(150), None), old);
    assert_eq!(shown(&dir.0, until(50), None), old);
}

/// Returns the bytes that this thread has read so far, and the number of calls (proc(5)).
#[cfg(target_os = "linux")]
fn read_so_far() -> (u64, u64) {
    let mut text = String::new();
    let mut file = File::open("/proc/thread-self/io").unwrap();
    file.read_to_string(&mut text).unwrap();
    let number = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len() + 2..].parse().unwrap()
    };
    (number("rchar"), number("syscr"))
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_of_ten_gigabytes_is_not_read() {
    let check = |dir: &TempDir, query: Query, keep: Option<&Keep<'_>>, lines: u64| {
        let (bytes, calls) = read_so_far();
        let log = Log::open(&dir.0).unwrap();
        let range = log.select(&query, keep).unwrap();
        let (bytes, calls) = (read_so_far().0 - bytes, read_so_far().1 - calls);
        assert!(
            bytes < 4 << 20 && calls < 200,
            "{query:?}: {bytes} bytes in {calls} calls"
        );
        assert_eq!(range.counted, lines, "{query:?}");
    };
    // The end, after a hole that uses no space.
    const SIZE: u64 = 10 << 30;
    let dir = TempDir::new("ten-gb");
    let file = File::create(dir.0.join(CURRENT)).unwrap();
    let end = format!("\n{}", stamped(0..10_000, "late"));
    std::os::unix::fs::FileExt::write_all_at(&file, end.as_bytes(), SIZE).unwrap();
    check(&dir, last(10), None, 10);
    check(&dir, last(10), Some(&|line| line.ends_with(b"7 late")), 10);
    check(&dir, since(0), None, 0);
    check(&dir, until(0), None, 0);
    // Stamps: 64 MB, because the search must find one at every position.
    let dir = TempDir::new("stamps-big");
    let text = stamped(0..500_000, &"x".repeat(110));
    assert!(text.len() > 64 << 20);
    fs::write(dir.0.join(CURRENT), text).unwrap();
    let query = Query {
        since: Some(at(123_456)),
        until: Some(at(123_556)),
        lines: Some(1000),
    };
    check(&dir, query, None, 101);
    // An index has the same effect for lines without stamps.
    let raw = TempDir::new("ten-gb-raw");
    let file = File::create(raw.0.join(CURRENT)).unwrap();
    file.set_len(SIZE).unwrap();
    let marks: Vec<_> = (1..100_000).map(|n| (n * 100_000, at(n as u64))).collect();
    index(&raw.0.join("current.idx"), &[0; Head::MOST], &marks);
    let (bytes, _) = read_so_far();
    let log = Log::open(&raw.0).unwrap();
    let query = Query {
        since: Some(at(77_777)),
        until: Some(at(77_779)),
        lines: None,
    };
    let range = log.select(&query, None).unwrap();
    let mut copied = 0;
    log.copy(range, &mut |block| {
        copied += block.len();
        Ok(())
    })
    .unwrap();
    assert_eq!(copied, 300_000);
    assert!(read_so_far().0 - bytes < 4 << 20);
}

#[test]
fn following_misses_and_repeats_nothing_through_compression() {
    let dir = TempDir::new("follow-packed");
    fs::write(dir.0.join(CURRENT), "before\n").unwrap();
    let (thread, lines) = follower(&dir.0);
    let mut expect = 0;
    for round in 0..300_u64 {
        let mut file = File::options()
            .append(true)
            .create(true)
            .open(dir.0.join(CURRENT))
            .unwrap();
        for number in 0..10 {
            writeln!(file, "{:06}", round * 10 + number).unwrap();
        }
        drop(file);
        let name = stamp(round + 1);
        fs::rename(dir.0.join(CURRENT), dir.0.join(name.file_name())).unwrap();
        if round % 3 != 2 {
            compress(&dir.0, name, [".zst", ".gz"][round as usize % 2]);
        }
        fs::write(dir.0.join(CURRENT), "").unwrap();
        // The writer waits for the reader now and then, and runs far ahead in between.
        if round % 7 == 0 {
            while expect < (round + 1) * 10 {
                assert_eq!(lines.recv().unwrap(), format!("{expect:06}\n"));
                expect += 1;
            }
        }
    }
    while expect < 3000 {
        assert_eq!(lines.recv().unwrap(), format!("{expect:06}\n"));
        expect += 1;
    }
    drop(lines);
    fs::write(dir.0.join(CURRENT), "wakes it up\n").unwrap();
    assert_eq!(thread.join().unwrap().kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_line_that_is_not_finished_is_left_for_later() {
    let dir = TempDir::new("unfinished");
    for (text, len) in [("", 0), ("a", 0), ("a\n", 2), ("a\nbc", 2), ("\n\n", 2)] {
        fs::write(dir.0.join(CURRENT), text).unwrap();
        let mut log = Log::open(&dir.0).unwrap();
        log.leave_unfinished_line().unwrap();
        assert_eq!(log.live.unwrap().len, len, "{text:?}");
    }
}

#[test]
fn the_tail_is_what_is_whole_at_the_end() {
    let dir = TempDir::new("tail");
    let current = dir.0.join(CURRENT);
    let tail = |most| {
        let tail = Log::open(&dir.0).unwrap().tail(most).unwrap();
        String::from_utf8(tail).unwrap()
    };
    fs::write(&current, "one\ntwo\nthree\nunfin").unwrap();
    assert_eq!(tail(100), "one\ntwo\nthree\n");
    assert_eq!(tail(15), "three\n", "the first line may begin before");
    assert_eq!(tail(3), "");
    assert_eq!(tail(0), "");
    let rotated = dir.0.join(Stamp::from_unix_micros(1).file_name());
    fs::rename(&current, &rotated).unwrap();
    fs::write(&current, "four\n").unwrap();
    assert_eq!(tail(100), "one\ntwo\nthree\nfour\n");
    assert_eq!(tail(18), "three\nfour\n");
    assert_eq!(tail(5), "four\n");
    // However large the log is, only its end is read: the rest is a hole.
    let file = File::options().write(true).open(&current).unwrap();
    file.set_len(1 << 40).unwrap();
    assert_eq!(tail(1 << 16), "");
    fs::remove_file(&current).unwrap();
    mainstay_testkit::make_pipe(&current);
    assert!(Log::open(&dir.0).is_err(), "a pipe is not waited for");
}
