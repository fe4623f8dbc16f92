//! Rotated files are packed in the background: one thread for all services, at the lowest priority, only while there is something to do.
//!
//! A file is packed under a temporary name, which becomes `STAMP.log.zst` when all of it is on the disk; then the plain file goes. Until
//! that moment the plain file counts (see [`mainstay_core::log::files`]), so an interruption costs nothing but the work: the next round
//! clears up what is left and does it again. A round begins after each rotation, and at a service's first line or start if there is a reason.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flate2::write::GzEncoder;
use mainstay_core::log::{LogName, Stamp, files, leftovers, surplus};
use mainstay_core::spec::{Compress, Retention, ServiceName};

use super::disk::{Disk, RealDisk, is_held};
use super::file::{Lost, Report, Trouble, trouble};
use crate::host::sys;
use crate::host::sys::threads::{self, Stack};

/// As far back as zstd looks for repetitions, as a power of two: with its tables, 2.3 MiB of memory.
const WINDOW_LOG: u32 = 20;
const LEVEL: i32 = 3;
/// Between two looks at whether to stop.
const CHUNK: usize = 64 << 10;

/// A round through the directory of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Work {
    /// Where the files lie.
    pub(super) dir: PathBuf,
    /// What to make of the plain ones.
    pub(super) compress: Compress,
    /// Which of them stay.
    pub(super) keep: Retention,
    /// Files that were rotated later may still be written to.
    pub(super) upto: Stamp,
    /// When it was asked for.
    pub(super) now: Stamp,
}

/// The thread's owner. Dropping it abandons what is being packed, without waiting: a temporary file that outlives this process is deleted
/// in the first round of the next.
pub(super) struct Compressor {
    shared: Arc<Shared>,
}

/// Who is told what happens to whose files.
type Tell = Box<dyn Fn(&ServiceName, Report) + Send + Sync>;

struct Shared {
    state: Mutex<State>,
    stop: AtomicBool,
    report: Tell,
}

#[derive(Default)]
struct State {
    /// Rounds that nobody may begin yet.
    asked_for: Vec<(ServiceName, Work)>,
    /// At most one round for each directory.
    queue: VecDeque<(ServiceName, Work)>,
    /// There is a thread, and it will look at the queue again.
    is_running: bool,
    failing: BTreeSet<ServiceName>,
}

impl Compressor {
    /// Starts nothing yet. `report` is called on the thread, once when a service's files cannot be packed and once when they can again.
    pub(super) fn new(report: impl Fn(&ServiceName, Report) + Send + Sync + 'static) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                stop: AtomicBool::new(false),
                report: Box::new(report),
            }),
        }
    }

    /// What [`super::file::LogFile::new`] asks for. A round waits for [`Compressor::begin`].
    pub(super) fn of(&self, service: &ServiceName) -> impl FnMut(Work) + Send + 'static {
        let (shared, service) = (Arc::clone(&self.shared), service.clone());
        move |work| shared.lock().asked_for.push((service.clone(), work))
    }

    /// Has the rounds begun that were asked for. Never blocks on a disk.
    pub(super) fn begin(&self) {
        let mut state = self.shared.lock();
        if state.asked_for.is_empty() || self.shared.stop.load(Ordering::Relaxed) {
            return;
        }
        for (service, work) in std::mem::take(&mut state.asked_for) {
            match state
                .queue
                .iter_mut()
                .find(|(_, queued)| queued.dir == work.dir)
            {
                Some((_, queued)) => *queued = work,
                None => state.queue.push_back((service, work)),
            }
        }
        if !std::mem::replace(&mut state.is_running, true) {
            drop(state);
            self.shared.start();
        }
    }

    /// Abandons everything, for good.
    pub(super) fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Drop for Compressor {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn start(self: &Arc<Self>) {
        let for_thread = Arc::clone(self);
        let thread = threads::spawn("compress", Stack::Large, move || for_thread.run());
        let Err(error) = thread else { return };
        let mut state = self.lock();
        state.is_running = false;
        let service = state.queue.front().map(|(service, _)| service.clone());
        drop(state);
        if let Some(service) = service {
            let this = Path::new("a thread that compresses");
            self.tell(&service, Err(trouble("start", this, error)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        sys::yield_to_others();
        sys::give_memory_back();
        while let Some((service, work)) = self.next() {
            let result = or_panic(&work.dir, || tidy(&RealDisk, &work, &self.stop));
            self.tell(&service, result);
        }
    }

    /// `None` ends the thread.
    fn next(&self) -> Option<(ServiceName, Work)> {
        let mut state = self.lock();
        if self.stop.load(Ordering::Relaxed) {
            state.queue.clear();
        }
        let next = state.queue.pop_front();
        state.is_running = next.is_some();
        next
    }

    fn tell(&self, service: &ServiceName, result: Result<(), Trouble>) {
        let mut state = self.lock();
        let report = match result {
            Err(trouble) => state
                .failing
                .insert(service.clone())
                .then_some(Report::Failing(trouble)),
            Ok(()) => state
                .failing
                .remove(service)
                .then_some(Report::Recovered(Lost::default())),
        };
        drop(state);
        if let Some(report) = report {
            (self.report)(service, report);
        }
    }
}

/// Does `round` through `dir`. A panic is a failure like others: the thread lives, and the plain file counts.
fn or_panic(dir: &Path, round: impl FnOnce() -> Result<(), Trouble>) -> Result<(), Trouble> {
    panic::catch_unwind(AssertUnwindSafe(round)).unwrap_or_else(|_| {
        let error = io::Error::other("the compressor panicked");
        Err(trouble("compress files in", dir, error))
    })
}

/// One round: deletes what an interrupted one has left, packs every plain file, oldest first, and deletes what may not stay.
///
/// What fails is left as it was: every line is still there once.
pub(super) fn tidy<D: Disk>(disk: &D, work: &Work, stop: &AtomicBool) -> Result<(), Trouble> {
    let dir = &*work.dir;
    let names = match disk.names(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        names => names.map_err(|error| trouble("read", dir, error))?,
    };
    let names = || names.iter().map(String::as_str);
    let cleared = leftovers(names(), work.upto)
        .into_iter()
        .try_for_each(|name| remove(disk, &dir.join(name)));
    let packed = cleared.and_then(|()| match work.compress {
        Compress::None => Ok(()),
        compression => files(names())
            .into_iter()
            .filter(|file| file.compression == Compress::None && file.stamp <= work.upto)
            .try_for_each(|plain| pack_file(disk, dir, plain, compression, stop)),
    });
    if stop.load(Ordering::Relaxed) {
        return packed;
    }
    // Most of all where it failed: the disk may be full.
    let retained = retain(disk, dir, &work.keep, work.now);
    packed.and(retained.map(drop))
}

/// Whether a round would find anything to do among `names`.
pub(super) fn is_untidy(names: &[String], compress: Compress, upto: Stamp) -> bool {
    let names = || names.iter().map(String::as_str);
    let packs = compress != Compress::None;
    let is_plain = |file: LogName| file.compression == Compress::None && file.stamp <= upto;
    !leftovers(names(), upto).is_empty() || packs && files(names()).into_iter().any(is_plain)
}

/// Deletes rotated files that `keep` does not let stay, each with all that belongs to it, and returns how many are left.
pub(super) fn retain<D: Disk>(
    disk: &D,
    dir: &Path,
    keep: &Retention,
    now: Stamp,
) -> Result<u64, Trouble> {
    let names = disk.names(dir);
    let names = names.map_err(|error| trouble("read", dir, error))?;
    let files = files(names.iter().map(String::as_str));
    let size = |file: &LogName| match keep.size {
        // Where it cannot be told, a later round will.
        Some(_) => disk.size(&dir.join(file.file_name())).unwrap_or(0),
        None => 0,
    };
    let sized: Vec<_> = files.iter().map(|file| (file.stamp, size(file))).collect();
    let surplus = surplus(&sized, keep, now);
    let Some((newest, _)) = sized[..surplus].last() else {
        return Ok(files.len() as u64);
    };
    let stamped = |name: String| Some((Stamp::of_any_name(&name)?, name));
    let mut doomed: Vec<_> = names.into_iter().filter_map(stamped).collect();
    doomed.retain(|(stamp, _)| stamp <= newest);
    // An index goes before its file, and an older file before a newer one.
    doomed.sort_unstable();
    for (_, name) in doomed {
        remove(disk, &dir.join(name))?;
    }
    Ok((files.len() - surplus) as u64)
}

/// Deletes a file that may be gone already, or held by somebody, who delays it.
fn remove<D: Disk>(disk: &D, path: &Path) -> Result<(), Trouble> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound && !is_held(&error) => {
            Err(trouble("delete", path, error))
        }
        _ => Ok(()),
    }
}

/// Replaces a plain file by a packed one. Somebody may delete the plain one meanwhile: then the packed one goes too.
fn pack_file<D: Disk>(
    disk: &D,
    dir: &Path,
    plain: LogName,
    compression: Compress,
    stop: &AtomicBool,
) -> Result<(), Trouble> {
    let packed = LogName {
        compression,
        ..plain
    };
    let plain_path = dir.join(plain.file_name());
    let [packed_path, temp_path] = [packed.file_name(), packed.temp_name()].map(|n| dir.join(n));
    if stop.load(Ordering::Relaxed) {
        return Ok(());
    }
    let replace = || -> io::Result<bool> {
        let source = disk.open_existing(&plain_path)?;
        let target = disk.create(&temp_path)?;
        if !pack(disk, &source, &target, compression, stop)? {
            return Ok(false);
        }
        disk.sync(&target)?;
        drop((source, target)); // Windows deletes no open file
        disk.rename(&temp_path, &packed_path)?;
        Ok(true)
    };
    let result = match replace() {
        Ok(true) => disk.sync_dir(dir).and_then(|()| disk.remove(&plain_path)),
        Ok(false) => {
            let _next_time = disk.remove(&temp_path);
            Ok(())
        }
        Err(error) => {
            let _next_time = disk.remove(&temp_path);
            return ignore_others(&plain_path, Err(error));
        }
    };
    if result
        .as_ref()
        .is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    {
        remove(disk, &packed_path)?;
    }
    ignore_others(&plain_path, result)
}

/// That others have deleted a file, or hold it, is no failure of ours.
fn ignore_others(path: &Path, result: io::Result<()>) -> Result<(), Trouble> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound && !is_held(&error) => {
            Err(trouble("compress", path, error))
        }
        _ => Ok(()),
    }
}

/// Packs all of `source`; `false` is "told to stop".
fn pack<D: Disk>(
    disk: &D,
    source: &D::File,
    target: &D::File,
    compression: Compress,
    stop: &AtomicBool,
) -> io::Result<bool> {
    let size = disk.status(source)?.size;
    let target = Appender {
        disk,
        file: target,
        offset: 0,
    };
    match compression {
        Compress::Gzip => {
            let mut encoder = GzEncoder::new(target, flate2::Compression::default());
            let whole = copy(disk, source, size, &mut encoder, stop)?;
            encoder.finish()?;
            Ok(whole)
        }
        Compress::Zstd | Compress::None => {
            let mut encoder = zstd::Encoder::new(target, LEVEL)?;
            encoder.window_log(WINDOW_LOG)?;
            encoder.include_checksum(true)?;
            encoder.set_pledged_src_size(Some(size))?;
            let whole = copy(disk, source, size, &mut encoder, stop)?;
            if whole {
                encoder.finish()?;
            }
            Ok(whole)
        }
    }
}

/// The first `size` bytes of `source`; `false` is "told to stop".
fn copy<D: Disk>(
    disk: &D,
    source: &D::File,
    size: u64,
    out: &mut impl Write,
    stop: &AtomicBool,
) -> io::Result<bool> {
    let mut buffer = vec![0; CHUNK];
    let mut offset = 0;
    while offset < size {
        if stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let wanted = usize::try_from(size - offset).map_or(CHUNK, |rest| rest.min(CHUNK));
        match disk.read_at(source, &mut buffer[..wanted], offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                out.write_all(&buffer[..count])?;
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// A file that is written from its beginning.
struct Appender<'a, D: Disk> {
    disk: &'a D,
    file: &'a D::File,
    offset: u64,
}

impl<D: Disk> Write for Appender<'_, D> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.disk.write_at(self.file, bytes, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests;
