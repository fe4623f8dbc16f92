//! Background compression of rotated files: one thread for all services, at the lowest priority,
//! which runs only while there is work.
//!
//! A file is compressed under a temporary name, which becomes `STAMP.log.zst` (or `.gz`) when all
//! of it is on the disk. Then the plain file is deleted. Until then the plain file is authoritative
//! (see [`mainstay_core::log::files`]), so an interruption loses only the work: the next round
//! cleans up and repeats it. A round begins after each rotation, and at a service's first line or
//! start if necessary.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flate2::write::GzEncoder;
use mainstay_core::log::{LogName, Stamp, files, leftovers, surplus};
use mainstay_core::spec::{Compress, Retention, ServiceName};
use mainstay_sys as sys;
use mainstay_sys::threads::{self, Stack};

use super::disk::{Disk, RealDisk, is_held};
use super::report::{FileError, Lost, Report, Task, file_error};

/// The distance in which zstd searches for repetitions, as a power of two. With its tables it uses
/// 2.3 MiB of memory.
const WINDOW_LOG: u32 = 20;
const LEVEL: i32 = 3;
/// The number of bytes between two checks of the stop flag.
const CHUNK: usize = 64 << 10;

/// A round through the directory of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Work {
    /// The directory of the files.
    pub(super) dir: PathBuf,
    /// The compression to apply to plain files.
    pub(super) compress: Compress,
    /// The retention of the files.
    pub(super) keep: Retention,
    /// The latest rotation time to process. Files that were rotated later may still be written to.
    pub(super) upto: Stamp,
    /// The time of the request.
    pub(super) now: Stamp,
}

/// The owner of the compression thread. Drop abandons the current file without waiting. A temporary
/// file that outlives this process is deleted in the first round of the next one.
pub(super) struct Compressor {
    shared: Arc<Shared>,
}

/// The receiver of reports about the files of a service in a directory.
type ReportTo = Box<dyn Fn(&ServiceName, &Path, Report) + Send + Sync>;

struct Shared {
    state: Mutex<State>,
    stop: AtomicBool,
    report: ReportTo,
}

#[derive(Default)]
struct State {
    /// Rounds that were requested but not released yet.
    asked_for: Vec<(ServiceName, Work)>,
    /// The queued rounds, at most one per directory.
    queue: VecDeque<(ServiceName, Work)>,
    /// Set if there is a thread that will check the queue again.
    is_running: bool,
    /// The directories whose files cannot be compressed.
    failing: BTreeSet<PathBuf>,
}

impl Compressor {
    /// Creates the compressor without starting a thread. `report` is called on the thread, once
    /// when the files in a directory cannot be compressed and once when they can again.
    pub(super) fn new(
        report: impl Fn(&ServiceName, &Path, Report) + Send + Sync + 'static,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                stop: AtomicBool::new(false),
                report: Box::new(report),
            }),
        }
    }

    /// Returns the callback that [`super::file::LogFile::new`] takes. A round waits for
    /// [`Compressor::begin`].
    pub(super) fn of(&self, service: &ServiceName) -> impl FnMut(Work) + Send + 'static {
        let (shared, service) = (Arc::clone(&self.shared), service.clone());
        move |work| shared.lock().asked_for.push((service.clone(), work))
    }

    /// Starts the requested rounds. Never blocks on a disk.
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

    /// Stops permanently and abandons all work.
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
        let next = state.queue.front().cloned();
        drop(state);
        if let Some((service, work)) = next {
            let this = Path::new("a thread that compresses");
            self.report_result(&service, &work.dir, Err(file_error("start", this, error)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        sys::yield_to_others();
        sys::give_memory_back();
        while let Some((service, work)) = self.next() {
            let result = tidy(&RealDisk, &work, &self.stop);
            self.report_result(&service, &work.dir, result);
        }
    }

    /// Returns the next round; `None` ends the thread.
    fn next(&self) -> Option<(ServiceName, Work)> {
        let mut state = self.lock();
        if self.stop.load(Ordering::Relaxed) {
            state.queue.clear();
        }
        let next = state.queue.pop_front();
        state.is_running = next.is_some();
        next
    }

    fn report_result(&self, service: &ServiceName, dir: &Path, result: Result<(), FileError>) {
        const TASK: Task = Task::Compression;
        let mut state = self.lock();
        let report = match result {
            Err(file_error) => state
                .failing
                .insert(dir.to_owned())
                .then_some(Report::Failing(TASK, file_error)),
            Ok(()) => state
                .failing
                .remove(dir)
                .then_some(Report::Recovered(TASK, Lost::default())),
        };
        drop(state);
        if let Some(report) = report {
            (self.report)(service, dir, report);
        }
    }
}

/// Runs one round: deletes the remains of an interrupted round, compresses every plain file, oldest
/// first, and deletes files that exceed the retention limits.
///
/// A failure leaves the file as it was: every line still exists exactly once.
pub(super) fn tidy<D: Disk>(disk: &D, work: &Work, stop: &AtomicBool) -> Result<(), FileError> {
    let dir = &*work.dir;
    let names = match disk.names(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        names => names.map_err(|error| file_error("read", dir, error))?,
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
    // Also after a failure, because the disk may be full.
    let retained = retain(disk, dir, &work.keep, work.now);
    packed.and(retained.map(drop))
}

/// Returns whether a round would have work to do for `names`.
pub(super) fn is_untidy(names: &[String], compress: Compress, upto: Stamp) -> bool {
    let names = || names.iter().map(String::as_str);
    let packs = compress != Compress::None;
    let is_plain = |file: LogName| file.compression == Compress::None && file.stamp <= upto;
    !leftovers(names(), upto).is_empty() || packs && files(names()).into_iter().any(is_plain)
}

/// Deletes rotated files that exceed `keep`, each with the files that belong to it, and returns the
/// number of files left.
pub(super) fn retain<D: Disk>(
    disk: &D,
    dir: &Path,
    keep: &Retention,
    now: Stamp,
) -> Result<u64, FileError> {
    let names = disk.names(dir);
    let names = names.map_err(|error| file_error("read", dir, error))?;
    let files = files(names.iter().map(String::as_str));
    let size = |file: &LogName| match keep.size {
        // If the size is unavailable, a later round will count it.
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
    // An index is deleted before its file, and an older file before a newer one.
    doomed.sort_unstable();
    for (_, name) in doomed {
        remove(disk, &dir.join(name))?;
    }
    Ok((files.len() - surplus) as u64)
}

/// Deletes a file. It is not an error if the file no longer exists, or if another program holds it,
/// which delays its deletion.
fn remove<D: Disk>(disk: &D, path: &Path) -> Result<(), FileError> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound && !is_held(&error) => {
            Err(file_error("delete", path, error))
        }
        _ => Ok(()),
    }
}

/// Replaces a plain file with a compressed one. If the plain file is deleted meanwhile, the
/// compressed one is deleted too.
fn pack_file<D: Disk>(
    disk: &D,
    dir: &Path,
    plain: LogName,
    compression: Compress,
    stop: &AtomicBool,
) -> Result<(), FileError> {
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

/// Ignores errors caused by others that have deleted the file or hold it.
fn ignore_others(path: &Path, result: io::Result<()>) -> Result<(), FileError> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound && !is_held(&error) => {
            Err(file_error("compress", path, error))
        }
        _ => Ok(()),
    }
}

/// Compresses all of `source`. Returns `false` if stopped.
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

/// Copies the first `size` bytes of `source`. Returns `false` if stopped.
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

/// A writer that fills a file from its beginning.
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
