//! Reading back what real writers wrote.

use std::sync::mpsc;
use std::thread;

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

fn tail_text(dir: &Path, lines: u64) -> String {
    let mut out = Vec::new();
    tail(dir, lines, &mut out).unwrap();
    String::from_utf8(out).unwrap()
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
    // 1 TiB of nothing before the last line: reading it would take minutes.
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
    let result = tail(&dir.0.join("none"), 1, &mut Vec::new());
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(tail_text(&dir.0, 1), "");
}

/// Passes on whole lines; an error ends the one who writes to it.
struct Lines(Vec<u8>, mpsc::Sender<String>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend(bytes);
        while let Some(end) = self.0.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.0.drain(..=end).collect();
            let sent = self.1.send(String::from_utf8(line).unwrap());
            sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Follows the log in `dir` from its end.
fn follower(dir: &Path) -> (thread::JoinHandle<io::Error>, mpsc::Receiver<String>) {
    let (sender, lines) = mpsc::channel();
    let position = tail(dir, 0, &mut io::sink()).unwrap();
    let dir = dir.to_path_buf();
    let thread = thread::spawn(move || follow(&dir, position, &mut Lines(Vec::new(), sender)));
    (thread, lines)
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
            // In step with the reader now and then, ahead of it in between.
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
