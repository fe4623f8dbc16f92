//! The stored events of services, for `mainstay events` and `mainstay history --stats`.
//!
//! Each service has a log of its own, so that a service that restarts all the time does not
//! displace the events of others. The lines are JSON objects like those of a log with `format =
//! "json"`, so [`super::read`] finds them by time. A line that a loss of power has torn is no JSON
//! object, and is skipped by readers.
//!
//! The thread that writes exists only while there are events. A line is in its file within
//! [`WRITE_INTERVAL`], where it survives the supervisor, and on the disk within [`SYNC_INTERVAL`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mainstay_core::spec::{Compress, Retention, ServiceName};
use mainstay_sys::threads::{self, Stack};

use super::LogEvent;
use super::capture::event;
use super::disk::{Disk, RealDisk};
use super::file::{Limits, LogFile, Unreported};
use super::report::Lost;

/// The minimum time between two writes. Events that occur meanwhile are written together.
const WRITE_INTERVAL: Duration = Duration::from_millis(20);
/// The maximum time for which a written event may be in memory only, and the time for which an idle
/// thread waits for more.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// The time for which [`EventLog::close`] waits for a disk.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The number of bytes that may wait for a disk.
const ROOM: usize = 1 << 20;

/// At most 8 MB for each service, and 400 days, so that a year can be compared with the last one.
const LIMITS: Limits = Limits {
    rotate: 2_000_000,
    every: None,
    at_start: false,
    keep: Retention {
        files: Some(3),
        size: None,
        age: Some(Duration::from_secs(400 * 24 * 3600)),
    },
    compress: Compress::None,
    index: false,
};

/// The event logs of all services, in one directory for each. Clones share the logs.
#[derive(Clone)]
pub struct EventLog {
    shared: Arc<Shared>,
}

struct Shared {
    dir: PathBuf,
    queue: Mutex<Queue>,
    changed: Condvar,
    /// Notified when the thread is not to wait for [`WRITE_INTERVAL`].
    closing: Condvar,
    report: Box<dyn Fn(LogEvent) + Send + Sync>,
}

#[derive(Default)]
struct Queue {
    batch: Batch,
    /// The size of the batch's lines.
    bytes: usize,
    /// The logs that cannot be written yet.
    failing: BTreeMap<ServiceName, LogFile<RealDisk>>,
    /// Set while there is a thread that will look at the queue again.
    is_running: bool,
    is_closing: bool,
}

/// The content of the queue, which is written at once.
#[derive(Default)]
struct Batch {
    lines: BTreeMap<ServiceName, Vec<u8>>,
    /// The lines that did not fit.
    dropped: BTreeMap<ServiceName, Lost>,
    /// Called when all of this is on the disk, and the files are closed.
    settling: Vec<Box<dyn FnOnce() + Send>>,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.dropped.is_empty() && self.settling.is_empty()
    }
}

impl EventLog {
    /// Creates the logs, in `dir/NAME`. Touches no disk. `report` is called on the thread that
    /// writes, when a log cannot be written and when it can again.
    pub fn new(dir: PathBuf, report: impl Fn(LogEvent) + Send + Sync + 'static) -> Self {
        let shared = Shared {
            dir,
            queue: Mutex::default(),
            changed: Condvar::new(),
            closing: Condvar::new(),
            report: Box::new(report),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Adds `line`, which ends in a newline. Never blocks on a disk. If a disk hangs for so long
    /// that there is no room left, the line is dropped, counted, and reported in the log later.
    pub fn append(&self, service: &ServiceName, line: &[u8]) {
        let mut queue = self.shared.queue();
        if queue.bytes + line.len() > ROOM {
            let dropped = queue.batch.dropped.entry(service.clone());
            dropped.or_default().count(line);
        } else {
            queue.bytes += line.len();
            match queue.batch.lines.get_mut(service) {
                Some(lines) => lines.extend_from_slice(line),
                None => drop(queue.batch.lines.insert(service.clone(), line.to_vec())),
            }
        }
        self.shared.wake(queue);
    }

    /// Calls `done` when everything that was added before is on the disk and the files are closed:
    /// on the thread that writes, or at once if there is nothing to write.
    pub fn settle(&self, done: impl FnOnce() + Send + 'static) {
        let mut queue = self.shared.queue();
        if queue.is_running {
            queue.batch.settling.push(Box::new(done));
            self.shared.wake(queue);
        } else {
            drop(queue);
            done();
        }
    }

    /// Waits until all events are on the disk, but not long for a disk that hangs. Returns whether
    /// they are. Events that are added later may be lost.
    pub fn close(&self) -> bool {
        let mut queue = self.shared.queue();
        queue.is_closing = true;
        self.shared.changed.notify_all();
        self.shared.closing.notify_all();
        let wait = |queue: &mut Queue| queue.is_running;
        let waited = self
            .shared
            .changed
            .wait_timeout_while(queue, CLOSE_TIMEOUT, wait);
        let (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !queue.is_running && queue.failing.is_empty() && queue.batch.is_empty()
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the thread, or starts one.
    fn wake(self: &Arc<Self>, mut queue: MutexGuard<'_, Queue>) {
        if std::mem::replace(&mut queue.is_running, true) {
            return self.changed.notify_all();
        }
        drop(queue);
        let for_thread = Arc::clone(self);
        let thread = threads::spawn("events", Stack::Small, move || for_thread.run());
        if thread.is_err() {
            // The next event is another attempt.
            self.queue().is_running = false;
        }
    }

    fn run(&self) {
        let failing = std::mem::take(&mut self.queue().failing);
        let mut writer = Writer {
            disk: RealDisk,
            dir: &self.dir,
            limits: LIMITS,
            files: failing,
        };
        let mut sync_at = None;
        loop {
            let batch = self.next(sync_at.unwrap_or_else(|| Instant::now() + SYNC_INTERVAL));
            let (is_last, settles) = (batch.is_empty(), !batch.settling.is_empty());
            writer.write(batch.lines, batch.dropped);
            let due = *sync_at.get_or_insert_with(|| Instant::now() + SYNC_INTERVAL);
            if is_last || settles || due <= Instant::now() {
                writer.sync();
                sync_at = None;
            }
            writer.reports().for_each(&self.report);
            if is_last || settles {
                writer.close();
            }
            let ends = (is_last || settles) && self.ends(&mut writer);
            batch.settling.into_iter().for_each(|done| done());
            if ends {
                return;
            }
            let pause = |queue: &mut Queue| !queue.is_closing;
            drop(
                self.closing
                    .wait_timeout_while(self.queue(), WRITE_INTERVAL, pause),
            );
        }
    }

    /// Waits until `end` for something to do, and returns it.
    fn next(&self, end: Instant) -> Batch {
        let wait = |queue: &mut Queue| queue.batch.is_empty() && !queue.is_closing;
        let time = end.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(self.queue(), time, wait);
        let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        queue.bytes = 0;
        std::mem::take(&mut queue.batch)
    }

    /// Ends the thread, unless there is more to do.
    fn ends(&self, writer: &mut Writer<'_, RealDisk>) -> bool {
        let mut queue = self.queue();
        queue.is_running = !queue.batch.is_empty();
        if !queue.is_running {
            queue.failing = std::mem::take(&mut writer.files);
            self.changed.notify_all();
        }
        !queue.is_running
    }
}

/// The files that are being written.
struct Writer<'a, D: Disk> {
    disk: D,
    dir: &'a Path,
    limits: Limits,
    files: BTreeMap<ServiceName, LogFile<D>>,
}

impl<D: Disk + Clone> Writer<'_, D> {
    fn write(
        &mut self,
        lines: BTreeMap<ServiceName, Vec<u8>>,
        dropped: BTreeMap<ServiceName, Lost>,
    ) {
        for (service, lines) in lines {
            self.file(service).write(&lines);
        }
        for (service, mut lost) in dropped {
            let file = self.file(service);
            if let Some(earlier) = file.unreported() {
                lost += earlier.lost;
            }
            file.inherit(Unreported {
                lost,
                mid_line: false,
                error: None,
            });
        }
    }

    fn file(&mut self, service: ServiceName) -> &mut LogFile<D> {
        let dir = self.dir.join(service.as_str());
        let (disk, limits) = (&self.disk, self.limits);
        self.files.entry(service).or_insert_with(|| {
            let mut file = LogFile::new(disk.clone(), dir, limits, |_| {}).durable();
            // A loss of power may have torn the last line.
            file.is_of_new_writers();
            file
        })
    }

    fn sync(&mut self) {
        for file in self.files.values_mut() {
            file.finish();
            file.sync();
        }
    }

    fn reports(&mut self) -> impl Iterator<Item = LogEvent> {
        self.files.iter_mut().flat_map(|(service, file)| {
            let reports = file.reports().into_iter();
            reports.map(|report| event(service, file.dir(), report))
        })
    }

    /// Closes the files, apart from those whose recovery is still to be reported.
    fn close(&mut self) {
        self.files.retain(|_, file| file.fails());
    }
}

#[cfg(test)]
mod tests;
