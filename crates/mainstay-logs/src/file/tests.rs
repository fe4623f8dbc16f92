//! Tests of the writer on a disk that fails on demand.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::ops::Range;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use mainstay_core::log::{CURRENT_INDEX, Head, LogName, Mark};
use proptest::prelude::*;

use super::super::compress::tidy;
use super::super::disk::Status;
use super::super::report::Task;
use super::*;

const FULL: i32 = 28; // ENOSPC on Linux; here only a number

/// A disk in memory. Each operation has a number; those in `faulty` fail.
#[derive(Clone, Default)]
struct FakeDisk(Rc<State>);

#[derive(Default)]
struct State {
    operations: Cell<u64>,
    faulty: RefCell<Range<u64>>,
    /// The names of the operations that fail then; empty means all.
    only: RefCell<Vec<&'static str>>,
    /// The maximum size of one write.
    write_max: Cell<usize>,
    /// The maximum size of all files together; 0 means no limit.
    capacity: Cell<usize>,
    files: RefCell<Vec<Vec<u8>>>,
    /// The time of the last write of each file.
    modified: RefCell<BTreeMap<usize, Stamp>>,
    names: RefCell<BTreeMap<PathBuf, usize>>,
    dirs: RefCell<BTreeSet<PathBuf>>,
}

impl FakeDisk {
    fn operate(&self, operation: &'static str) -> io::Result<()> {
        let number = self.0.operations.get();
        self.0.operations.set(number + 1);
        let only = self.0.only.borrow();
        let concerned = only.is_empty() || only.contains(&operation);
        if concerned && self.0.faulty.borrow().contains(&number) {
            return Err(io::Error::from_raw_os_error(FULL));
        }
        Ok(())
    }

    fn fail(&self, range: Range<u64>, only: &[&'static str]) {
        *self.0.faulty.borrow_mut() = range;
        *self.0.only.borrow_mut() = only.to_vec();
    }

    /// Returns the decompressed content of the files that a reader would open, oldest first.
    fn contents(&self) -> Vec<Vec<u8>> {
        let names = self.names_in("logs");
        let rotated = files(names.iter().map(String::as_str));
        let mut contents: Vec<_> = rotated
            .into_iter()
            .map(|file| unpack(file.compression, &self.content(&file.file_name())))
            .collect();
        if names.iter().any(|name| name == CURRENT) {
            contents.push(self.content(CURRENT));
        }
        contents
    }

    fn names_in(&self, dir: &str) -> Vec<String> {
        let names = self.0.names.borrow();
        let inside = names
            .keys()
            .filter(|path| path.parent() == Some(Path::new(dir)));
        inside
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect()
    }

    fn content(&self, name: &str) -> Vec<u8> {
        let id = self.0.names.borrow()[&Path::new("logs").join(name)];
        self.0.files.borrow()[id].clone()
    }

    /// Writes a file like another program would.
    fn put(&self, name: &str, bytes: &[u8]) {
        self.make_dir(Path::new("logs")).unwrap();
        let id = self.open(&Path::new("logs").join(name)).unwrap();
        self.0.files.borrow_mut()[id] = bytes.to_vec();
        self.0.modified.borrow_mut().insert(id, now());
    }

    fn take(&self, name: &str) {
        self.remove(&Path::new("logs").join(name)).unwrap();
    }

    fn remove_dir(&self) {
        self.0.names.borrow_mut().clear();
        self.0.dirs.borrow_mut().clear();
    }
}

impl Disk for FakeDisk {
    type File = usize;

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        self.operate("make_dir")?;
        self.0.dirs.borrow_mut().insert(dir.to_path_buf());
        Ok(())
    }
    fn open(&self, path: &Path) -> io::Result<usize> {
        self.operate("open")?;
        if !self.0.dirs.borrow().contains(path.parent().unwrap()) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut files = self.0.files.borrow_mut();
        let mut names = self.0.names.borrow_mut();
        Ok(*names.entry(path.to_path_buf()).or_insert_with(|| {
            files.push(Vec::new());
            files.len() - 1
        }))
    }
    fn status(&self, file: &usize) -> io::Result<Status> {
        self.operate("status")?;
        Ok(Status {
            size: self.0.files.borrow()[*file].len() as u64,
            modified: self.0.modified.borrow().get(file).copied(),
            named: self.0.names.borrow().values().any(|id| id == file),
        })
    }
    fn is_at(&self, file: &usize, path: &Path) -> io::Result<bool> {
        Ok(self.0.names.borrow().get(path) == Some(file))
    }
    fn open_existing(&self, path: &Path) -> io::Result<usize> {
        self.operate("open")?;
        let names = self.0.names.borrow();
        Ok(*names.get(path).ok_or(io::ErrorKind::NotFound)?)
    }
    fn create(&self, path: &Path) -> io::Result<usize> {
        let id = self.open(path)?;
        self.0.files.borrow_mut()[id].clear();
        Ok(id)
    }
    fn read_at(&self, file: &usize, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.operate("read")?;
        let files = self.0.files.borrow();
        let rest = files[*file].get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
    fn write_at(&self, file: &usize, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.operate("write")?;
        let mut files = self.0.files.borrow_mut();
        let mut count = bytes.len().min(self.0.write_max.get().max(1));
        if self.0.capacity.get() > 0 {
            let used = files.iter().map(Vec::len).sum::<usize>();
            count = count.min(self.0.capacity.get().saturating_sub(used));
            if count == 0 {
                return Err(io::Error::from_raw_os_error(FULL));
            }
        }
        let (file_bytes, offset) = (&mut files[*file], offset as usize);
        file_bytes.resize(file_bytes.len().max(offset + count), 0);
        file_bytes[offset..offset + count].copy_from_slice(&bytes[..count]);
        self.0.modified.borrow_mut().insert(*file, now());
        Ok(count)
    }
    fn sync(&self, _: &usize) -> io::Result<()> {
        self.operate("sync")
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.operate("sync_dir")
    }
    fn size(&self, path: &Path) -> io::Result<u64> {
        self.operate("size")?;
        let names = self.0.names.borrow();
        let id = names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.0.files.borrow()[*id].len() as u64)
    }
    fn truncate(&self, file: &usize, size: u64) -> io::Result<()> {
        self.operate("truncate")?;
        self.0.files.borrow_mut()[*file].truncate(size as usize);
        Ok(())
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate("rename")?;
        let mut names = self.0.names.borrow_mut();
        let id = names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        assert_eq!(names.insert(to.to_path_buf(), id), None, "overwritten");
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.operate("remove")?;
        let id = self.0.names.borrow_mut().remove(path);
        self.0.files.borrow_mut()[id.ok_or(io::ErrorKind::NotFound)?].clear();
        Ok(())
    }
    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.operate("names")?;
        Ok(self.names_in(dir.to_str().unwrap()))
    }
}

/// Returns the content of a rotated file.
fn unpack(compression: Compress, bytes: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    let count = match compression {
        Compress::None => (&*bytes).read_to_end(&mut content),
        Compress::Zstd => zstd::Decoder::new(bytes).unwrap().read_to_end(&mut content),
        Compress::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut content),
    };
    count.unwrap();
    content
}

thread_local! {
    /// The current time in microseconds.
    static NOW: Cell<u64> = const { Cell::new(1) };
}

const SECOND: u64 = 1_000_000;
const DAY: u64 = 86_400 * SECOND;

fn now() -> Stamp {
    Stamp::from_unix_micros(NOW.get())
}

fn log_with(disk: &FakeDisk, limits: Limits) -> LogFile<FakeDisk> {
    tidied_log(disk, limits).0
}

/// Creates a log, and a list of the rounds that it requests.
fn tidied_log(disk: &FakeDisk, limits: Limits) -> (LogFile<FakeDisk>, Arc<Mutex<Vec<Work>>>) {
    let rounds = Arc::new(Mutex::new(Vec::new()));
    let to_rounds = Arc::clone(&rounds);
    let compressor = Box::new(move |work| to_rounds.lock().unwrap().push(work));
    let clock = Clock {
        now,
        utc_offset: |_| 3600,
    };
    let mut log = LogFile::with_clock(disk.clone(), "logs".into(), limits, compressor, clock);
    log.prepare();
    (log, rounds)
}

fn log_on(disk: &FakeDisk, rotate: u64, keep: u32) -> LogFile<FakeDisk> {
    log_with(disk, Limits::of_size(rotate, keep))
}

/// Performs the requested rounds, and returns whether the disk allowed it.
fn perform(disk: &FakeDisk, rounds: &Mutex<Vec<Work>>) -> bool {
    let results: Vec<_> = rounds
        .lock()
        .unwrap()
        .drain(..)
        .map(|work| tidy(disk, &work, &AtomicBool::new(false)).is_ok())
        .collect();
    results.into_iter().all(|is_ok| is_ok)
}

fn disk(write_max: usize) -> FakeDisk {
    let disk = FakeDisk::default();
    disk.0.write_max.set(write_max);
    disk
}

/// Returns numbered lines of these lengths, the last without a terminator if `open`.
fn lines(lengths: &[usize], open: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, length) in lengths.iter().enumerate() {
        bytes.extend(format!("{number:06}:").bytes());
        bytes.resize(bytes.len() + length, b'x');
        bytes.push(b'\n');
    }
    if open {
        bytes.pop();
    }
    bytes
}

/// Cuts `bytes` into pieces of these sizes, over and over.
fn chunks<'a>(mut bytes: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    sizes.iter().cycle().map_while(move |size| {
        let (chunk, rest) = bytes.split_at((*size).min(bytes.len()));
        bytes = rest;
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// Checks that all of `input` is on the disk, in order, except for losses reported in the log. Only
/// whole lines may be lost, unless a torn one could not be cut off.
fn check_accounts(disk: &FakeDisk, log: &LogFile<FakeDisk>, input: &[u8]) {
    let mut missing = input;
    let (mut lost_bytes, mut messages) = (0, 0);
    let all = disk.contents().concat();
    let mut said = Lost::default();
    for line in all.split_inclusive(|b| *b == b'\n') {
        if let Some(message) = line.strip_prefix(b"mainstay: ") {
            let message = String::from_utf8(message.to_vec()).unwrap();
            let numbers: Vec<u64> = message
                .split(|c: char| !c.is_ascii_digit())
                .filter_map(|word| word.parse().ok())
                .collect();
            messages += 1;
            said += Lost {
                bytes: numbers[0],
                lines: numbers[1],
            };
            continue;
        }
        let starts =
            || std::iter::once(0).chain(memchr::memchr_iter(b'\n', missing).map(|n| n + 1));
        let find = |line: &[u8]| starts().find(|start| missing[*start..].starts_with(line));
        let torn = line.strip_suffix(b"\n").unwrap_or(line);
        let (start, kept) = match (find(line), find(torn)) {
            (Some(start), _) => (start, line.len()),
            (None, Some(start)) => (start, torn.len()),
            (None, None) => panic!("not of the input, or not in order: {}", line.escape_ascii()),
        };
        lost_bytes += start;
        missing = &missing[start + kept..];
    }
    lost_bytes += missing.len();
    // If only the end of a torn line was lost, ending the line before the message has repaired it.
    let healed = log.lost().bytes.checked_sub(lost_bytes as u64);
    assert!(
        healed.is_some_and(|healed| healed <= messages),
        "{}",
        all.escape_ascii()
    );
    let unsaid = log.losing.as_ref().map_or(Lost::default(), |l| l.lost);
    assert_eq!(said.bytes + unsaid.bytes, log.lost().bytes);
    assert_eq!(said.lines + unsaid.lines, log.lost().lines);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_chunking_yields_the_input(
        lengths in prop::collection::vec(prop_oneof![4 => 0..20_usize, 1 => 0..300_usize], 0..60),
        sizes in prop::collection::vec(1..200_usize, 1..20),
        open: bool,
        rotate in 0..400_u64,
        write_max in 1..300_usize,
    ) {
        let disk = disk(write_max);
        let input = lines(&lengths, open);
        let mut log = log_on(&disk, rotate, u32::MAX);
        for chunk in chunks(&input, &sizes) {
            log.write(chunk);
        }
        log.finish();
        let files = disk.contents();
        prop_assert_eq!(files.concat(), input);
        for (index, file) in files.iter().enumerate() {
            if index + 1 < files.len() {
                prop_assert_eq!(file.last(), Some(&b'\n'));
            }
            let last_line = file[..file.len().saturating_sub(1)].iter().rposition(|b| *b == b'\n');
            prop_assert!(last_line.map_or(0, |end| end as u64 + 1) <= rotate);
        }
        prop_assert_eq!(log.reports().len(), 0);
    }

    #[test]
    fn any_fault_is_counted_and_overcome(
        lengths in prop::collection::vec(0..60_usize, 1..60),
        sizes in prop::collection::vec(1..200_usize, 1..20),
        rotate in 20..400_u64,
        write_max in 1..300_usize,
        start in 0..200_u64,
        count in 0..100_u64,
        kind in 0..5_usize,
    ) {
        let disk = disk(write_max);
        let kinds: [&[&str]; 5] = [&[], &["write"], &["write", "truncate"], &["rename", "remove"], &["open", "make_dir"]];
        disk.fail(start..start + count, kinds[kind]);
        let input = lines(&lengths, false);
        let mut log = log_on(&disk, rotate, u32::MAX);
        for chunk in chunks(&input, &sizes) {
            log.write(chunk);
        }
        log.finish();
        check_accounts(&disk, &log, &input);
        disk.fail(0..0, &[]);
        log.write(b"999999:\n");
        log.finish();
        check_accounts(&disk, &log, &[&input[..], b"999999:\n"].concat());
        prop_assert!(log.losing.is_none());
        let reports: Vec<Report> = log.reports();
        let failures = reports.iter().filter(|r| matches!(r, Report::Failing(..))).count();
        let ends = reports.len() - failures;
        // The recovery of a failed rotation is only detected at the next one.
        prop_assert!(failures == ends || failures == ends + 1, "{:?}", reports);
    }

    #[test]
    fn a_disk_that_fills_and_is_freed_tears_no_line(
        lengths in prop::collection::vec(0..60_usize, 1..120),
        sizes in prop::collection::vec(1..200_usize, 1..20),
        capacity in 1..3000_usize,
        freed_after in 0..100_usize,
    ) {
        let disk = disk(usize::MAX);
        disk.0.capacity.set(capacity);
        let input = lines(&lengths, false);
        let mut log = log_on(&disk, 300, u32::MAX);
        for (index, chunk) in chunks(&input, &sizes).enumerate() {
            if index == freed_after {
                disk.0.capacity.set(0);
            }
            log.write(chunk);
        }
        log.finish();
        check_accounts(&disk, &log, &input);
        let all = disk.contents().concat();
        let whole: BTreeSet<&[u8]> = input.split_inclusive(|b| *b == b'\n').collect();
        for line in all.split_inclusive(|b| *b == b'\n') {
            prop_assert!(whole.contains(line) || line.starts_with(b"mainstay: "), "{}", line.escape_ascii());
        }
    }
}

#[test]
fn every_single_operation_may_fail() {
    let input = lines(&[30; 40], false);
    for number in 0..400 {
        for length in 1..4 {
            let disk = disk(64);
            disk.fail(number..number + length, &[]);
            let mut log = log_on(&disk, 200, u32::MAX);
            for chunk in input.chunks(77) {
                log.write(chunk);
            }
            disk.fail(0..0, &[]);
            log.finish();
            check_accounts(&disk, &log, &input);
            assert!(log.losing.is_none(), "operation {number}");
        }
    }
}

#[test]
fn a_full_disk_is_said_once_and_the_loss_in_the_log() {
    let disk = disk(usize::MAX);
    let mut log = log_on(&disk, u64::MAX, 1);
    log.write(b"0:kept\n1:be");
    disk.fail(0..u64::MAX, &["write"]);
    log.write(b"gun\n2:lost\n3:al");
    log.write(b"so lost\n");
    disk.fail(0..0, &[]);
    log.write(b"4:kept\n5:kept");
    let text = format!(
        "0:kept\nmainstay: 27 bytes (3 lines) were lost: {}\n4:kept\n5:kept",
        io::Error::from_raw_os_error(FULL)
    );
    assert_eq!(
        disk.contents().concat().escape_ascii().to_string(),
        text.as_bytes().escape_ascii().to_string()
    );
    let reports: Vec<Report> = log.reports();
    let lost = Lost {
        bytes: 27,
        lines: 3,
    };
    assert!(
        matches!(&reports[..], [Report::Failing(_, file_error), Report::Recovered(_, said)]
            if file_error.to_string() == format!("write {}", Path::new("logs").join(CURRENT).display()) && *said == lost),
        "{reports:?}"
    );
}

#[test]
fn only_the_oldest_of_our_own_files_are_deleted() {
    let disk = disk(usize::MAX);
    let mut log = log_on(&disk, 10, 2);
    let foreign = Path::new("logs/20200101T000000.log");
    disk.open(foreign).unwrap();
    (0..9).for_each(|n| log.write(format!("{n}:xxxxxx\n").as_bytes()));
    assert_eq!(disk.contents().concat(), b"6:xxxxxx\n7:xxxxxx\n8:xxxxxx\n");
    assert!(disk.0.names.borrow().contains_key(foreign));
}

#[test]
fn a_removed_directory_is_made_again_and_a_restart_appends() {
    let disk = disk(usize::MAX);
    let mut log = log_on(&disk, 30, u32::MAX);
    log.write(b"0:gone\n");
    disk.remove_dir();
    log.write(b"1:kept\n2:be");
    drop(log);
    let mut log = log_on(&disk, 30, u32::MAX);
    log.write(b"gun before\n3:after the restart\n");
    assert_eq!(
        disk.contents(),
        [
            b"1:kept\n2:begun before\n".to_vec(),
            b"3:after the restart\n".to_vec()
        ]
        .into_iter()
        .collect::<Vec<_>>()
    );
    assert_eq!(log.lost(), Lost::default());
}

/// Returns whether the report says that the log is written again.
fn is_written_again(report: &Report) -> bool {
    matches!(report, Report::Recovered(Task::Writing, _))
}

#[test]
fn a_rotation_that_works_again_is_no_log_that_is_written_again() {
    let disk = disk(usize::MAX);
    let mut log = log_on(&disk, u64::MAX, 9);
    log.write(b"kept\n");
    disk.fail(0..u64::MAX, &["rename", "write"]);
    assert!(log.rotate().is_err());
    log.write(b"lost\n");
    disk.fail(0..u64::MAX, &["write"]);
    log.rotate().unwrap();
    let reports = log.reports();
    assert!(!reports.iter().any(is_written_again), "{reports:?}");
    disk.fail(0..0, &[]);
    log.rotate().unwrap();
    let reports = log.reports();
    assert!(reports.iter().any(is_written_again), "{reports:?}");
    let text = String::from_utf8(disk.contents().concat()).unwrap();
    // The system has its own words for the cause.
    assert!(text.contains("5 bytes (1 lines) were lost: "), "{text}");
}

#[test]
fn a_line_that_was_cut_off_is_ended_as_soon_as_the_disk_allows() {
    let disk = disk(usize::MAX);
    disk.put(CURRENT, b"whole\ncut o");
    let clock = Clock {
        now,
        utc_offset: |_| 0,
    };
    let limits = Limits::of_size(1000, 1);
    let compressor = Box::new(|_| {});
    let mut log = LogFile::with_clock(disk.clone(), "logs".into(), limits, compressor, clock);
    log.is_of_new_writers();
    disk.fail(0..u64::MAX, &["write"]);
    log.prepare();
    disk.fail(0..0, &[]);
    log.write(b"next\n");
    assert_eq!(text(&disk), "whole\ncut o\nnext\n");
    assert_eq!(log.lost(), Lost::default());
}

#[test]
fn a_rotation_on_demand_waits_for_the_end_of_the_line() {
    let disk = disk(usize::MAX);
    let mut log = log_on(&disk, u64::MAX, 9);
    log.rotate().unwrap();
    log.write(b"0:be");
    log.rotate().unwrap();
    log.write(b"gun\n1:next\n");
    log.rotate().unwrap();
    log.rotate().unwrap();
    assert_eq!(disk.contents(), [&b"0:begun\n"[..], b"1:next\n", b""]);
}

fn limits(keys: &str) -> Limits {
    let text = format!("[service.a]\ncommand = ['a']\nlog = {{ {keys} }}");
    let specs = mainstay_core::manifest::parse(&text, mainstay_core::manifest::Format::Toml);
    specs.unwrap()[0].log().into()
}

/// Returns the texts of all files, separated by `|`.
fn text(disk: &FakeDisk) -> String {
    String::from_utf8(disk.contents().join(&b'|')).unwrap()
}

#[test]
fn a_file_ends_with_the_day() {
    let disk = disk(usize::MAX);
    let daily = limits("rotate = { every = 'daily' }, compress = 'none'");
    NOW.set(20_000 * DAY + 5);
    let mut log = log_with(&disk, daily);
    log.write(b"0\n1\n2");
    NOW.set(20_001 * DAY - 1);
    log.write(b"-\n3\n4");
    NOW.set(20_001 * DAY);
    log.write(b"-\n5\n");
    NOW.set(20_001 * DAY + 9);
    log.write(b"6\n");
    assert_eq!(text(&disk), "0\n1\n2-\n3\n4-\n|5\n6\n");
    // Days of silence end in one rotation.
    NOW.set(20_005 * DAY);
    log.write(b"7\n");
    assert_eq!(text(&disk), "0\n1\n2-\n3\n4-\n|5\n6\n|7\n");
    let newest = Stamp::from_unix_micros(20_005 * DAY).file_name();
    assert!(disk.names_in("logs").contains(&newest));
    // Lines that an earlier run wrote the day before do not belong to today.
    drop(log);
    NOW.set(20_006 * DAY + 1);
    let mut log = log_with(&disk, daily);
    log.write(b"8\n");
    assert!(text(&disk).ends_with("|7\n|8\n"));
    // An empty file belongs to any day.
    log.rotate().unwrap();
    NOW.set(20_009 * DAY);
    log.write(b"9\n");
    drop(log);
    let mut log = log_with(&disk, daily);
    log.write(b"same day\n");
    assert!(text(&disk).ends_with("|8\n|9\nsame day\n"));
    // A clock that was years ahead does not prevent rotation for years.
    NOW.set(30_000 * DAY);
    log.write(b"a\n");
    NOW.set(20_010 * DAY);
    log.write(b"b\n");
    NOW.set(20_011 * DAY);
    log.write(b"c\n");
    assert!(text(&disk).ends_with("|a\nb\n|c\n"), "{}", text(&disk));
}

#[test]
fn the_hosts_midnight_is_another_than_greenwichs() {
    for (zone, expect) in [("utc", "0\n1\n|2\n"), ("local", "0\n|1\n2\n")] {
        let disk = disk(usize::MAX);
        NOW.set(20_000 * DAY);
        let keys = format!("rotate = {{ every = 'daily', zone = '{zone}' }}, compress = 'none'");
        let mut log = log_with(&disk, limits(&keys));
        log.write(b"0\n");
        NOW.set(20_001 * DAY - 1);
        log.write(b"1\n");
        NOW.set(20_001 * DAY);
        log.write(b"2\n");
        assert_eq!(text(&disk), expect);
    }
}

#[test]
fn a_day_that_cannot_end_ends_later() {
    let disk = disk(usize::MAX);
    NOW.set(20_000 * DAY);
    let mut log = log_with(
        &disk,
        limits("rotate = { every = 'daily' }, compress = 'none'"),
    );
    log.write(b"0\n");
    NOW.set(20_001 * DAY);
    disk.fail(0..u64::MAX, &["rename"]);
    log.write(b"1\n");
    log.write(b"2\n");
    assert_eq!(text(&disk), "0\n1\n2\n");
    disk.fail(0..0, &[]);
    log.write(&[&[b'x'; 70_000][..], b"\n"].concat());
    log.write(b"3\n");
    assert!(text(&disk).starts_with("0\n1\n2\n|xxx"));
    assert_eq!(log.reports().len(), 2);
}

#[test]
fn a_start_may_begin_a_file() {
    let disk = disk(usize::MAX);
    let at_start = limits("rotate = { at_start = true }, compress = 'none'");
    for start in 0..3 {
        let mut log = log_with(&disk, at_start);
        log.write(format!("{start}\n").as_bytes());
        disk.take(CURRENT);
        disk.put(CURRENT, format!("{start}\n").as_bytes());
        log.write(b"more\n");
    }
    assert_eq!(text(&disk), "0\nmore\n|1\nmore\n|2\nmore\n");
    log_with(&disk, at_start).write(b"");
    assert_eq!(text(&disk), "0\nmore\n|1\nmore\n|2\nmore\n");
}

#[test]
fn what_may_stay_is_judged_by_count_size_and_age() {
    let check = |keep: &str, compress: &str, expect: &str| {
        let disk = disk(usize::MAX);
        let keys = format!("rotate = '10B', keep = {{ {keep} }}, compress = '{compress}'");
        NOW.set(20_000 * DAY);
        disk.put("20010101T000000.000000Z.idx.bak", b"");
        let (mut log, rounds) = tidied_log(&disk, limits(&keys));
        for n in 0..6 {
            NOW.set(NOW.get() + DAY);
            log.write(format!("{n}:xxxxxx\n").as_bytes());
            assert!(perform(&disk, &rounds));
        }
        let names = disk.names_in("logs");
        let firsts: String = text(&disk).split('|').map(|file| &file[..1]).collect();
        assert_eq!(firsts, expect, "{keep} {compress} {names:?}");
        let indexes = names.iter().filter(|name| name.ends_with(".idx"));
        assert!(indexes.count() <= expect.len(), "{names:?}");
        assert!(names.iter().any(|name| name.ends_with(".bak")));
    };
    for compress in ["none", "zstd", "gzip"] {
        check("files = 2", compress, "345");
        check("age = '1d'", compress, "345");
        check("age = '36h', files = 1", compress, "45");
        check("size = '1kB'", compress, "012345");
        check("size = '1B'", compress, "45");
    }
    check("size = '27B'", "none", "2345");
    check("size = '26B'", "none", "345");
}

#[test]
fn a_start_deletes_what_has_grown_old_and_packs_what_an_earlier_run_left() {
    let disk = disk(usize::MAX);
    let name = |day: u64| Stamp::from_unix_micros(day * DAY).file_name();
    NOW.set(20_000 * DAY);
    for (day, content) in [(19_000, "old"), (19_998, "a\n"), (19_999, "b\n")] {
        disk.put(&name(day), content.as_bytes());
    }
    disk.put(&format!("{}.zst", name(19_999)), b"torn");
    disk.put(&format!("{}.zst.tmp", name(19_998)), b"torn");
    disk.put(&Stamp::from_unix_micros(18_000 * DAY).index_name(), b"");
    let (_log, rounds) = tidied_log(&disk, limits("keep = { age = '30d' }"));
    assert_eq!(text(&disk), "old|a\n|b\n|");
    assert!(perform(&disk, &rounds));
    assert_eq!(text(&disk), "a\n|b\n|");
    let packed = [19_998, 19_999].map(|day| format!("{}.zst", name(day)));
    assert_eq!(disk.names_in("logs")[..2], packed);
    assert_eq!(disk.names_in("logs").len(), 3);
    // Once everything is in order, a start requests nothing.
    let (_log, rounds) = tidied_log(&disk, limits("keep = { age = '30d' }"));
    assert_eq!(*rounds.lock().unwrap(), []);
}

#[test]
fn a_file_that_is_still_written_under_its_new_name_is_not_packed() {
    let disk = disk(usize::MAX);
    let (mut log, rounds) = tidied_log(&disk, limits("rotate = '4B'"));
    log.write(b"0:x\n");
    let opens = disk.0.operations.get();
    disk.fail(opens..u64::MAX, &["open"]);
    log.write(b"1:x\n");
    assert!(!disk.names_in("logs").contains(&CURRENT.to_owned()));
    assert_eq!(*rounds.lock().unwrap(), []);
    disk.fail(0..0, &[]);
    log.write(&[&[b'y'; 70_000][..], b"\n"].concat());
    log.write(b"2:x\n");
    assert!(perform(&disk, &rounds));
    assert!(text(&disk).starts_with("0:x\n1:x\n|yyy"));
    assert!(text(&disk).ends_with("y\n|2:x\n"));
}

/// The supervisor is killed at any operation, and its successor continues. Then the same with a
/// disk that fails once.
#[test]
fn a_kill_at_any_operation_leaves_every_line_once() {
    let line = |n: usize| format!("{n:03}:{}\n", "x".repeat(n % 7 * 5));
    for keys in [
        "compress = 'zstd', keep = { size = '1GB' }",
        "compress = 'gzip', keep = 3",
        "compress = 'none', keep = { size = '150B' }",
        "compress = 'zstd', keep = { size = '150B' }",
    ] {
        let limits = limits(&format!("rotate = '60B', {keys}"));
        let keeps_all = limits.keep.size == Some(1_000_000_000);
        for is_kill in [true, false] {
            for number in 0.. {
                let disk = disk(usize::MAX);
                NOW.set(20_000 * DAY);
                let end = if is_kill { u64::MAX } else { number + 1 };
                disk.fail(number..end, &[]);
                let (mut log, rounds) = tidied_log(&disk, limits);
                let mut written = 0;
                for n in 0..20 {
                    NOW.set(NOW.get() + 2 * SECOND);
                    log.write(line(n).as_bytes());
                    perform(&disk, &rounds);
                    if is_kill && disk.0.operations.get() > number {
                        break;
                    }
                    written = n + 1;
                }
                let is_last = disk.0.operations.get() <= number;
                disk.fail(0..0, &[]);
                if !is_kill {
                    log.finish();
                }
                drop(log);
                let (mut log, rounds) = tidied_log(&disk, limits);
                log.write(b"end\n");
                assert!(perform(&disk, &rounds));
                log.rotate().unwrap();
                assert!(perform(&disk, &rounds));
                let all = text(&disk).replace('|', "");
                let context = format!("{keys} kill {is_kill} operation {number}: {all}");
                let numbers: Vec<usize> = all
                    .lines()
                    .filter_map(|line| line.get(..3)?.parse().ok())
                    .collect();
                // A single failure may lose a line, which is then reported.
                let said = all.matches("mainstay: ").count();
                let steps = numbers.windows(2).filter(|w| w[0] + 1 != w[1]).count();
                assert!(numbers.is_sorted_by(|a, b| a < b), "{context}");
                assert!(steps <= said, "{context}");
                assert!(all.ends_with("end\n"), "{context}");
                let newest = numbers.last().map_or(0, |n| n + 1);
                // A rotation that failed once leaves one large file, which may be too large to be
                // kept.
                let may_be_gone = said > 0 || !is_kill && !keeps_all;
                assert!(newest >= written || may_be_gone, "{context}");
                if keeps_all && said == 0 {
                    assert_eq!(numbers.len(), newest, "{context}");
                }
                let names = disk.names_in("logs");
                let rotated = files(names.iter().map(String::as_str));
                let expected_names = |file: &LogName| [file.file_name(), file.stamp.index_name()];
                let known: BTreeSet<String> = rotated.iter().flat_map(expected_names).collect();
                for name in names {
                    let current = [CURRENT, CURRENT_INDEX].contains(&&*name);
                    assert!(current || known.contains(&name), "{name} left: {context}");
                }
                assert!(
                    rotated
                        .iter()
                        .all(|file| file.compression == limits.compress),
                    "{context}"
                );
                if is_last {
                    assert!(number > 100, "{number}");
                    break;
                }
            }
        }
    }
}

/// Returns the entries of an index: offset, and seconds after the start.
/// Returns the content of an index after its head.
fn entries(disk: &FakeDisk, name: &str) -> Vec<u8> {
    let bytes = disk.content(name);
    assert!(bytes.is_empty() || head(disk, name).is_some());
    bytes.get(Head::SIZE..).unwrap_or_default().to_vec()
}

fn head(disk: &FakeDisk, name: &str) -> Option<Head> {
    Head::from_bytes(*disk.content(name).first_chunk()?)
}

fn index(disk: &FakeDisk, name: &str) -> Vec<(u64, u64)> {
    let bytes = entries(disk, name);
    let (entries, rest) = bytes.as_chunks::<{ Mark::SIZE }>();
    assert!(rest.is_empty());
    let marks = entries.iter().copied().map(Mark::from_bytes);
    marks
        .map(|mark| {
            (
                mark.offset,
                (mark.time.unix_micros() - 20_000 * DAY) / SECOND,
            )
        })
        .collect()
}

fn wait(seconds: u64) {
    NOW.set(NOW.get() + seconds * SECOND);
}

#[test]
fn an_index_tells_when_lines_were_written() {
    let disk = disk(usize::MAX);
    NOW.set(20_000 * DAY);
    let raw = limits("rotate = '40B', compress = 'none'");
    let mut log = log_with(&disk, raw);
    log.write(b"0123\n");
    log.write(b"5678\n");
    assert_eq!(index(&disk, CURRENT_INDEX), [(0, 0)], "one a second");
    wait(1);
    log.write(b"1\n");
    log.write(b"2\n");
    wait(5);
    log.write(b"3");
    wait(1);
    log.write(b"no end");
    log.write(b" but here\nand");
    wait(1);
    log.write(b"\n");
    assert_eq!(
        index(&disk, CURRENT_INDEX),
        [(0, 0), (10, 1), (14, 6), (31, 7)]
    );
    // The index is rotated with its file; the next file gets its own, later.
    log.write(b"next file\n");
    assert_eq!(index(&disk, CURRENT_INDEX), [(0, 8)]);
    let rotated = now();
    assert_eq!(
        index(&disk, &rotated.index_name()),
        [(0, 0), (10, 1), (14, 6), (31, 7)]
    );
    let contents = [&rotated.file_name(), CURRENT].map(|name| disk.content(name));
    for (index, name) in [&rotated.index_name(), CURRENT_INDEX].iter().enumerate() {
        let head = head(&disk, name).expect("a head");
        assert_eq!(
            contents.each_ref().map(|log| head.is_of(log)),
            [index == 0, index == 1]
        );
    }
    wait(2);
    log.write(b"4\n");
    assert_eq!(index(&disk, CURRENT_INDEX), [(0, 8), (10, 10)]);
    // A restart continues the index; a torn entry is overwritten.
    drop(log);
    let torn = [&disk.content(CURRENT_INDEX)[..], b"torn"].concat();
    disk.put(CURRENT_INDEX, &torn);
    let mut log = log_with(&disk, raw);
    log.write(b"5\n");
    assert_eq!(disk.content(CURRENT_INDEX), torn, "not a second later");
    wait(1);
    log.write(b"6\n");
    assert_eq!(index(&disk, CURRENT_INDEX), [(0, 8), (10, 10), (14, 11)]);
}

#[test]
fn a_line_is_marked_once_when_it_is_there() {
    let disk = disk(usize::MAX);
    NOW.set(20_000 * DAY);
    let mut log = log_with(&disk, limits("compress = 'none'"));
    log.write(b"a");
    wait(1);
    log.write(b"b\n");
    wait(5);
    splice(&mut log, &disk, b"c");
    wait(1);
    splice(&mut log, &disk, b"d\n");
    wait(5);
    splice(&mut log, &disk, b"e\n");
    assert_eq!(index(&disk, CURRENT_INDEX), [(0, 0), (3, 6), (6, 12)]);
}

#[test]
fn an_index_of_another_file_is_deleted() {
    let disk = disk(usize::MAX);
    NOW.set(20_000 * DAY);
    let mark = |offset| {
        let time = now();
        Mark { offset, time }.to_bytes()
    };
    disk.put(CURRENT_INDEX, &mark(77));
    let mut log = log_with(&disk, limits("compress = 'none'"));
    assert_eq!(disk.names_in("logs"), [CURRENT]);
    log.write(b"0\n");
    wait(1);
    log.write(b"1\n");
    // Another program truncates the file.
    disk.put(CURRENT, b"");
    log.write(b"2\n");
    assert_eq!(index(&disk, CURRENT_INDEX), [(0, 1)]);
    drop(log);
    // The machine lost power, and with it the end of the file.
    disk.put(CURRENT_INDEX, &mark(77));
    wait(1);
    let mut log = log_with(&disk, limits("compress = 'none'"));
    log.write(b"3\n");
    assert_eq!(index(&disk, CURRENT_INDEX), [(2, 2)]);
    // An index that cannot be deleted is at least not continued.
    disk.fail(0..u64::MAX, &["remove"]);
    disk.put(CURRENT, b"");
    (0..3).for_each(|_| {
        wait(1);
        log.write(b"4\n");
    });
    assert_eq!(index(&disk, CURRENT_INDEX), [(2, 2)]);
    disk.fail(0..0, &[]);
    wait(1);
    log.write(b"5\n");
    assert_eq!(index(&disk, CURRENT_INDEX), [(6, 6)]);
    // While nobody wrote it, a longer file took the place of this one.
    drop(log);
    disk.put(CURRENT, b"another file\n");
    wait(1);
    let mut log = log_with(&disk, limits("compress = 'none'"));
    log.write(b"6\n");
    assert_eq!(index(&disk, CURRENT_INDEX), [(13, 7)]);
    let head = head(&disk, CURRENT_INDEX).expect("a head");
    assert!(head.is_of(&disk.content(CURRENT)));
}

#[test]
fn lines_that_carry_their_time_need_no_index() {
    let disk = disk(usize::MAX);
    let mut log = log_with(&disk, limits("format = 'json', compress = 'none'"));
    for _ in 0..3 {
        log.write(b"{}\n");
        wait(2);
    }
    assert_eq!(disk.names_in("logs"), [CURRENT]);
}

/// Writes like splice(2) would: as much as there is room for, the rest through the log.
fn splice(log: &mut LogFile<FakeDisk>, disk: &FakeDisk, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let Ok(room) = log.room() else {
            return log.write(bytes);
        };
        let count = bytes.len().min(room.bytes as usize);
        if count == 0 {
            return log.write(bytes);
        }
        match disk.write_at(room.file, &bytes[..count], room.offset) {
            Ok(count) => {
                log.wrote(count as u64);
                bytes = &bytes[count..];
            }
            Err(_) => return log.write(bytes),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn who_writes_by_himself_loses_nothing(
        lengths in prop::collection::vec(prop_oneof![4 => 0..20_usize, 1 => 0..300_usize], 0..60),
        sizes in prop::collection::vec((1..200_usize, any::<bool>()), 1..20),
        rotate in 1..400_u64,
        write_max in 1..300_usize,
        start in 0..200_u64,
        count in 0..60_u64,
        kind in 0..4_usize,
    ) {
        let disk = disk(write_max);
        let kinds: [&[&str]; 4] = [&["none"], &["write"], &["rename", "remove"], &["open", "make_dir", "read"]];
        let input = lines(&lengths, false);
        let index = kind == 0;
        let mut log = log_with(&disk, Limits { index, ..Limits::of_size(rotate, u32::MAX) });
        disk.fail(start..start + count, kinds[kind]);
        let only_sizes: Vec<usize> = sizes.iter().map(|(size, _)| *size).collect();
        for (chunk, (_, by_himself)) in chunks(&input, &only_sizes).zip(sizes.iter().cycle()) {
            NOW.set(NOW.get() + SECOND / 3);
            if *by_himself { splice(&mut log, &disk, chunk) } else { log.write(chunk) }
        }
        disk.fail(0..0, &[]);
        log.finish();
        check_accounts(&disk, &log, &input);
        if kind == 0 {
            let contents = disk.contents();
            prop_assert_eq!(contents.concat(), input);
            for file in &contents[..contents.len().max(1) - 1] {
                prop_assert_eq!(file.last(), Some(&b'\n'));
            }
            for name in disk.names_in("logs") {
                if name.ends_with(".idx") {
                    let log = disk.content(&name.replace(".idx", ".log"));
                    let bytes = entries(&disk, &name);
                    let (entries, []) = bytes.as_chunks::<{ Mark::SIZE }>() else { panic!("torn") };
                    let marks: Vec<Mark> = entries.iter().copied().map(Mark::from_bytes).collect();
                    for mark in &marks {
                        let offset = mark.offset as usize;
                        prop_assert!(offset == 0 || log[..offset].ends_with(b"\n"), "{offset}");
                    }
                    let ascend = |a: &Mark, b: &Mark| a.offset < b.offset && a.time < b.time;
                    prop_assert!(marks.is_sorted_by(ascend));
                }
            }
        }
    }
}

#[test]
fn a_line_begun_by_who_writes_by_himself_is_cut_off_whole() {
    let disk = disk(usize::MAX);
    let mut log = log_on(&disk, u64::MAX, 1);
    splice(&mut log, &disk, b"0:kept\n1:be");
    disk.fail(0..u64::MAX, &["write"]);
    splice(&mut log, &disk, b"gun\n2:lost\n");
    assert_eq!(log.room().map(|room| room.bytes).ok(), Some(0));
    disk.fail(0..0, &[]);
    splice(&mut log, &disk, b"3:kept\n");
    let error = io::Error::from_raw_os_error(FULL);
    let said = format!("0:kept\nmainstay: 15 bytes (2 lines) were lost: {error}\n3:kept\n");
    assert_eq!(text(&disk), said);
}

#[test]
fn what_others_do_to_the_file_is_noticed() {
    let disk = disk(usize::MAX);
    let mut log = log_on(&disk, 30, 9);
    log.write(b"0:cut\n1:cu");
    disk.put(CURRENT, b"");
    log.write(b"t\n2:kept\n");
    assert_eq!(text(&disk), "t\n2:kept\n");
    disk.put(CURRENT, b"t\n2:kept\nby others\n3:be");
    assert!(
        log.room()
            .is_ok_and(|room| (room.offset, room.bytes) == (23, 7))
    );
    log.write(b"gun\n4:next\n");
    assert_eq!(text(&disk), "t\n2:kept\nby others\n3:begun\n|4:next\n");
    disk.take(CURRENT);
    assert!(
        log.room()
            .is_ok_and(|room| (room.offset, room.bytes) == (0, 30))
    );
    log.write(b"5:in a new file\n");
    assert!(text(&disk).ends_with("3:begun\n|5:in a new file\n"));
}

#[test]
fn a_file_that_another_program_moved_away_is_left_at_the_end_of_a_line() {
    let away = |disk: &FakeDisk, name: &str| {
        let path = |name| Path::new("logs").join(name);
        disk.rename(&path(CURRENT), &path(name)).unwrap();
    };
    let content = |disk: &FakeDisk, name| String::from_utf8(disk.content(name)).unwrap();
    let disk = FakeDisk::default();
    let mut log = log_on(&disk, u64::MAX, 8);
    log.write(b"one\ntw");
    away(&disk, "current.log.1");
    NOW.set(NOW.get() + SECOND);
    log.write(b"o\nthree\n");
    assert_eq!(content(&disk, "current.log.1"), "one\ntwo\n");
    assert_eq!(content(&disk, CURRENT), "three\n");
    // The name was just checked, so it is not checked again before a second has passed.
    NOW.set(NOW.get() + SECOND);
    log.write(b"four\n");
    away(&disk, "current.log.2");
    log.write(b"five\n");
    NOW.set(NOW.get() + SECOND);
    log.write(b"six\n");
    assert_eq!(content(&disk, "current.log.2"), "three\nfour\nfive\n");
    assert_eq!(content(&disk, CURRENT), "six\n");
    // Writers that write to the file themselves.
    NOW.set(NOW.get() + SECOND);
    splice(&mut log, &disk, b"seven\nei");
    away(&disk, "current.log.3");
    NOW.set(NOW.get() + SECOND);
    splice(&mut log, &disk, b"ght\nnine\n");
    assert_eq!(content(&disk, "current.log.3"), "six\nseven\neight\n");
    assert_eq!(content(&disk, CURRENT), "nine\n");
    // A requested rotation checks at once, and replaces an empty file with a new one.
    away(&disk, "current.log.4");
    log.rotate().unwrap();
    assert_eq!(content(&disk, CURRENT), "");
    log.write(b"ten\n");
    assert_eq!(content(&disk, CURRENT), "ten\n");
    assert_eq!(content(&disk, "current.log.4"), "nine\n");
    // Another file has replaced it.
    away(&disk, "current.log.5");
    disk.put(CURRENT, b"");
    NOW.set(NOW.get() + SECOND);
    log.write(b"eleven\n");
    assert_eq!(content(&disk, "current.log.5"), "ten\n");
    assert_eq!(content(&disk, CURRENT), "eleven\n");
    assert_eq!(log.lost(), Lost::default());
}
