//! Tests of the thread, and of the files after a kill or a loss of power at any operation.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::rc::Rc;

use mainstay_core::log::{CURRENT, files};
use mainstay_testkit::Sandbox;
use serde_json::Value;

use super::super::disk::Status;
use super::*;

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).expect("a name")
}

fn line(number: usize) -> Vec<u8> {
    format!("{{\"time\":\"2026-01-01T00:00:00Z\",\"service\":\"a\",\"number\":{number}}}\n").into()
}

#[test]
fn events_are_stored_in_their_order_and_the_thread_ends() {
    let sandbox = Sandbox::new();
    let dir = sandbox.path().join("events");
    let log = EventLog::new(dir.clone(), |event| panic!("{event:?}"));
    for number in 0..1000 {
        let service = if number % 2 == 0 { "a" } else { "b" };
        log.append(&name(service), &line(number));
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    log.settle(move || sender.send(()).expect("the test waits"));
    receiver.recv().expect("settled");
    for (service, first) in [("a", 0), ("b", 1)] {
        let expect: Vec<u8> = (first..1000).step_by(2).flat_map(line).collect();
        let stored = fs::read(dir.join(service).join(CURRENT)).expect("stored");
        assert!(stored == expect, "{service}");
    }
    assert!(log.close());
    assert!(!log.shared.queue().is_running);
    log.settle(|| ());
}

#[test]
fn what_waits_for_a_disk_is_bounded_and_the_rest_is_counted() {
    let sandbox = Sandbox::new();
    let log = EventLog::new(sandbox.path().join("events"), |_| {});
    // As if the thread hung on a disk.
    log.shared.queue().is_running = true;
    let much = ROOM / line(0).len() + 7;
    (0..much).for_each(|_| log.append(&name("a"), &line(0)));
    let queue = log.shared.queue();
    assert!(queue.bytes <= ROOM);
    assert_eq!(queue.batch.dropped[&name("a")].lines, 7);
    drop(queue);
    log.shared.run();
    let dir = sandbox.path().join("events/a");
    let stored = fs::read_to_string(dir.join(CURRENT)).expect("stored");
    let last = stored.lines().last().expect("a line");
    assert!(last.contains("(7 lines) were lost"), "{last}");
}

/// The fate of bytes that were not flushed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Loss {
    /// The process was killed: nothing.
    Nothing,
    /// The file is as long as it was, but its end is zeros.
    Zeros,
    Half,
    Everything,
}

/// A disk in memory that loses power.
#[derive(Clone, Default)]
struct PowerDisk(Rc<RefCell<State>>);

#[derive(Clone, Default)]
struct State {
    /// The number of changes until the loss of power.
    left: usize,
    files: Vec<Content>,
    names: BTreeMap<PathBuf, usize>,
    flushed_names: BTreeMap<PathBuf, usize>,
    read: usize,
}

#[derive(Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    flushed: Vec<u8>,
}

impl State {
    fn change(&mut self) -> io::Result<()> {
        self.left = self.left.checked_sub(1).ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(())
    }

    fn file_at(&self, path: &Path) -> io::Result<usize> {
        self.names
            .get(path)
            .copied()
            .ok_or(io::ErrorKind::NotFound.into())
    }

    /// Returns the disk after the power is back.
    fn after(&self, loss: Loss) -> Self {
        let mut after = self.clone();
        after.left = usize::MAX;
        after.read = 0;
        if loss == Loss::Nothing {
            return after;
        }
        after.names.clone_from(&after.flushed_names);
        for file in &mut after.files {
            let flushed = file.flushed.len();
            match loss {
                Loss::Zeros => file.bytes[flushed..].fill(0),
                Loss::Half => file.bytes.truncate(flushed.midpoint(file.bytes.len())),
                Loss::Nothing | Loss::Everything => file.bytes.truncate(flushed),
            }
        }
        after
    }

    /// Returns the lines that a reader accepts.
    fn lines(&self) -> Vec<Vec<u8>> {
        let names: Vec<_> = self
            .names
            .keys()
            .map(|it| it.to_str().expect("UTF-8"))
            .collect();
        let dir = Path::new("/events/a");
        let inside = |name: &&str| Path::new(name).parent() == Some(dir);
        let short = names
            .iter()
            .copied()
            .filter(inside)
            .map(|name| &name["/events/a/".len()..]);
        let mut paths: Vec<_> = files(short)
            .iter()
            .map(|it| dir.join(it.file_name()))
            .collect();
        paths.push(dir.join(CURRENT));
        let contents = paths.iter().filter_map(|path| self.file_at(path).ok());
        let lines =
            contents.flat_map(|file| self.files[file].bytes.split_inclusive(|it| *it == b'\n'));
        let is_whole = |line: &&[u8]| serde_json::from_slice::<Value>(line).is_ok();
        lines.filter(is_whole).map(<[u8]>::to_vec).collect()
    }
}

impl Disk for PowerDisk {
    type File = usize;

    fn make_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn open(&self, path: &Path) -> io::Result<usize> {
        let mut state = self.0.borrow_mut();
        if let Ok(file) = state.file_at(path) {
            return Ok(file);
        }
        state.change()?;
        let file = state.files.len();
        state.files.push(Content::default());
        state.names.insert(path.to_owned(), file);
        Ok(file)
    }
    fn open_existing(&self, path: &Path) -> io::Result<usize> {
        self.0.borrow().file_at(path)
    }
    fn create(&self, _: &Path) -> io::Result<usize> {
        unreachable!("nothing is compressed")
    }
    fn status(&self, file: &usize) -> io::Result<Status> {
        let state = self.0.borrow();
        Ok(Status {
            size: state.files[*file].bytes.len() as u64,
            named: state.names.values().any(|named| named == file),
            modified: None,
        })
    }
    fn is_at(&self, file: &usize, path: &Path) -> io::Result<bool> {
        Ok(self.0.borrow().names.get(path) == Some(file))
    }
    fn read_at(&self, file: &usize, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.0.borrow_mut();
        state.read += buffer.len();
        let mut rest = &state.files[*file].bytes[offset as usize..];
        io::Read::read(&mut rest, buffer)
    }
    fn write_at(&self, file: &usize, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.0.borrow_mut();
        let changed = state.change();
        // A write may be cut, too.
        let done = if changed.is_ok() {
            bytes.len()
        } else {
            bytes.len() / 2
        };
        let content = &mut state.files[*file].bytes;
        content.truncate(offset as usize);
        content.extend_from_slice(&bytes[..done]);
        changed.map(|()| done)
    }
    fn truncate(&self, file: &usize, size: u64) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.change()?;
        state.files[*file].bytes.truncate(size as usize);
        Ok(())
    }
    fn sync(&self, file: &usize) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.change()?;
        let content = &mut state.files[*file];
        content.flushed.clone_from(&content.bytes);
        Ok(())
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.change()?;
        let State {
            names,
            flushed_names,
            ..
        } = &mut *state;
        flushed_names.retain(|path, _| path.parent() != Some(dir));
        let inside = names.iter().filter(|(path, _)| path.parent() == Some(dir));
        flushed_names.extend(inside.map(|(path, file)| (path.clone(), *file)));
        Ok(())
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        let file = state.file_at(from)?;
        state.change()?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), file);
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.file_at(path)?;
        state.change()?;
        state.names.remove(path);
        Ok(())
    }
    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.0.borrow();
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        let name = |path: &PathBuf| Some(path.file_name()?.to_str()?.to_owned());
        Ok(inside.filter_map(name).collect())
    }
    fn size(&self, path: &Path) -> io::Result<u64> {
        let state = self.0.borrow();
        Ok(state.files[state.file_at(path)?].bytes.len() as u64)
    }
}

/// Writes batches of lines and flushes every third of them. Returns the number of lines that were
/// flushed before the power was lost, and whether it was.
fn write(disk: &PowerDisk, lines: std::ops::Range<usize>) -> (usize, bool) {
    let mut writer = Writer {
        disk: disk.clone(),
        dir: Path::new("/events"),
        limits: Limits::of_size(400, 3),
        files: BTreeMap::new(),
    };
    let mut flushed = lines.start;
    for number in lines {
        let batch = BTreeMap::from([(name("a"), line(number))]);
        writer.write(batch, BTreeMap::new());
        if number % 3 == 2 {
            writer.sync();
            writer.close();
        }
        if disk.0.borrow().left == 0 {
            return (flushed, true);
        }
        if number % 3 == 2 {
            flushed = number + 1;
        }
    }
    (flushed, false)
}

#[test]
fn what_was_flushed_survives_a_loss_of_power_at_any_change() {
    let all: Vec<_> = (0..60).map(line).collect();
    let mut cuts = 0;
    for left in 1.. {
        let disk = PowerDisk::default();
        disk.0.borrow_mut().left = left;
        let (flushed, was_cut) = write(&disk, 0..30);
        if !was_cut {
            break;
        }
        for loss in [Loss::Nothing, Loss::Zeros, Loss::Half, Loss::Everything] {
            cuts += 1;
            let state = disk.0.borrow().after(loss);
            let disk = PowerDisk(Rc::new(RefCell::new(state)));
            let (next, _) = write(&disk, 30..33);
            assert_eq!(next, 33);
            let state = disk.0.borrow();
            let stored = state.lines();
            let about = format!("{left} changes, {loss:?}");
            // Three files before the current one are kept, of four lines each at least.
            let kept = flushed.saturating_sub(9);
            for number in (kept..flushed).chain(30..33) {
                assert!(stored.contains(&all[number]), "{about}: {number} is lost");
            }
            let numbers: Vec<_> = stored
                .iter()
                .map(|line| all.iter().position(|it| it == line))
                .collect();
            assert!(numbers.iter().all(Option::is_some), "{about}: {stored:?}");
            assert!(numbers.is_sorted(), "{about}: {numbers:?}");
            assert!(state.read < 1024, "{about}: a start reads {}", state.read);
        }
    }
    assert!(cuts > 200, "{cuts}");
}
