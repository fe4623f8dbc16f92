//! Targets of lines in addition to the files: the journal, a syslog daemon or a log host.
//!
//! The log thread copies lines into blocks ([`Sinks::push`]) and puts these into the queue of each
//! target ([`Sinks::flush`]). The queue is bounded, in memory, and never waited for. Each target
//! has its own thread (`worker`), shared by all services that name the target. The thread sends
//! (`transport`), reconnects with growing pauses, and stores lines on disk (`spool`) if the target
//! is on the network. When everything is full, the oldest lines are dropped. They are counted, and
//! reported as a [`SinkEvent`] and, once it accepts lines again, to the target itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mainstay_core::log::Line;
use mainstay_core::spec::{ServiceName, SinkSpec, SinkTarget};
use mainstay_sys::threads::{self, Stack};
use tokio::sync::Notify;

use super::report::Lost;

mod delivery;
#[cfg(target_os = "linux")]
mod journald;
mod record;
mod spool;
mod stream;
#[cfg(unix)]
mod syslog;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
mod transport;
mod udp;
mod worker;

use record::{Block, Source};
use transport::Transport;
pub use transport::this_host;
use worker::Worker;

/// The maximum number of bytes queued in memory for one target. Memory is used only for queued
/// lines.
const QUEUE: usize = 1 << 20;
/// The size at which a block is passed on without waiting for the end of a batch.
const BLOCK: usize = 64 << 10;

/// An event from a sink. The callback runs on a thread of the sink, so it must pass the event on
/// without blocking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkEvent {
    /// The sink accepts no lines, or not fast enough. Sent once until it has recovered.
    Failing {
        /// The target.
        sink: SinkTarget,
        /// The services whose lines go there.
        services: Vec<ServiceName>,
        /// The first cause, as a chain.
        error: String,
    },
    /// The sink accepts lines again.
    Recovered {
        /// The target.
        sink: SinkTarget,
        /// The services whose lines go there.
        services: Vec<ServiceName>,
        /// Lines that never arrived, which were also reported to the sink itself. Usually empty.
        dropped: Vec<(ServiceName, Lost)>,
    },
}

/// The receiver of events.
type Events = Arc<dyn Fn(SinkEvent) + Send + Sync>;

/// The targets of all services, and their threads. Drop ends the threads as [`SinkHub::close`]
/// does, but does not wait.
pub(crate) struct SinkHub {
    /// The directory that contains one directory per network target, once it is needed.
    spool_root: PathBuf,
    events: Events,
    targets: BTreeMap<SinkTarget, Target>,
}

struct Target {
    shared: Arc<Shared>,
    done: Receiver<Leftovers>,
}

/// Output without a place to be kept at the end, by service.
type Leftovers = BTreeMap<ServiceName, Lost>;

/// The sinks of one service, without cost if there are none. Drop flushes lines that were pushed
/// and not flushed.
pub(crate) struct Sinks {
    pending: Vec<u8>,
    targets: Vec<(Arc<Source>, Arc<Shared>)>,
}

/// The state that the log thread and a target's thread share.
struct Shared {
    target: SinkTarget,
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Default)]
struct Queue {
    /// The queued blocks, the oldest first.
    blocks: VecDeque<Block>,
    bytes: usize,
    /// Lines that were dropped to make room, and have not been reported yet.
    dropped: BTreeMap<ServiceName, Lost>,
    /// The services that send to this target.
    services: BTreeSet<ServiceName>,
    /// The time limit for sending, once the target is being closed.
    closing: Option<Instant>,
}

impl SinkHub {
    /// Creates the hub without any thread or file. `events` is called on the sinks' threads.
    pub(crate) fn new(
        spool_root: PathBuf,
        events: impl Fn(SinkEvent) + Send + Sync + 'static,
    ) -> Self {
        Self {
            spool_root,
            events: Arc::new(events),
            targets: BTreeMap::new(),
        }
    }

    /// Opens the sinks of a service. Does not block: the targets' threads make the connections, and
    /// also send lines that an earlier process left for the targets. A sink that this system does
    /// not support is reported as [`SinkEvent::Failing`] and left out. Relative certificate paths
    /// are resolved against `manifest_dir`.
    pub(crate) fn open(
        &mut self,
        service: &ServiceName,
        specs: &[SinkSpec],
        manifest_dir: &Path,
    ) -> Sinks {
        let targets = specs.iter().filter_map(|spec| {
            let source = Arc::new(Source {
                service: service.clone(),
                facility: spec.facility(),
            });
            match self.target(spec, manifest_dir) {
                Ok(shared) => {
                    shared.lock().services.insert(service.clone());
                    Some((source, shared))
                }
                Err(error) => {
                    (self.events)(SinkEvent::Failing {
                        sink: spec.target().clone(),
                        services: vec![service.clone()],
                        error: error.to_string(),
                    });
                    None
                }
            }
        });
        Sinks {
            targets: targets.collect(),
            pending: Vec::new(),
        }
    }

    /// Returns the target, whose thread is started with the first service that names it.
    fn target(&mut self, spec: &SinkSpec, manifest_dir: &Path) -> io::Result<Arc<Shared>> {
        if let Some(target) = self.targets.get(spec.target()) {
            return Ok(target.shared.clone());
        }
        let transport = Transport::new(spec, manifest_dir)?;
        let shared = Arc::new(Shared {
            target: spec.target().clone(),
            queue: Mutex::default(),
            wake: Notify::new(),
        });
        let spool = spec
            .target()
            .is_remote()
            .then(|| (self.spool_root.join(dir_name(spec.target())), spec.spool()));
        let (finished, done) = mpsc::channel();
        let (worker_shared, events) = (shared.clone(), self.events.clone());
        threads::spawn("sink", Stack::Large, move || {
            let leftovers = Worker::run(worker_shared, transport, spool, events);
            let _nobody_may_wait: Result<(), mpsc::SendError<_>> = finished.send(leftovers);
        })?;
        let target = Target {
            shared: shared.clone(),
            done,
        };
        self.targets.insert(spec.target().clone(), target);
        Ok(shared)
    }

    /// Blocks until all flushed lines have been sent, at most `limit`, or a little longer if a disk
    /// is slow. Remaining lines for network targets stay on disk for the next start. Remaining
    /// lines for local targets, which have no spool, are lost and returned.
    pub(crate) fn close(mut self, limit: Duration) -> Vec<(SinkTarget, ServiceName, Lost)> {
        /// The additional time for storing unsent lines on disk.
        const LEAVE: Duration = Duration::from_secs(1);
        let deadline = Instant::now() + limit;
        self.end(deadline);
        let mut lost = Vec::new();
        for (name, target) in std::mem::take(&mut self.targets) {
            let left = (deadline + LEAVE).saturating_duration_since(Instant::now());
            let leftovers = target.done.recv_timeout(left).unwrap_or_default();
            let leftovers = leftovers.into_iter();
            lost.extend(leftovers.map(|(service, lost)| (name.clone(), service, lost)));
        }
        lost
    }

    fn end(&self, deadline: Instant) {
        for target in self.targets.values() {
            target.shared.lock().closing = Some(deadline);
            target.shared.wake.notify_one();
        }
    }
}

impl Drop for SinkHub {
    fn drop(&mut self) {
        self.end(Instant::now());
    }
}

impl Sinks {
    /// Returns whether there are no targets.
    pub(crate) fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// Copies a line, which has been redacted, for all sinks. Never blocks. Lines are not passed on
    /// before [`Sinks::flush`], unless many are pending.
    pub(crate) fn push(&mut self, line: &Line<'_>) {
        if self.targets.is_empty() {
            return;
        }
        record::put(line, &mut self.pending);
        if self.pending.len() >= BLOCK {
            self.flush();
        }
    }

    /// Passes on the pushed lines at the end of a batch. Never blocks.
    pub(crate) fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let data = Arc::new(std::mem::take(&mut self.pending));
        for (source, shared) in &self.targets {
            shared.offer(Block::new(source.clone(), data.clone()));
        }
    }
}

impl Drop for Sinks {
    fn drop(&mut self) {
        self.flush();
        for (source, shared) in &self.targets {
            shared.lock().services.remove(&source.service);
        }
    }
}

impl Shared {
    /// Locks the queue. The lock is never held during a wait.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offer(&self, block: Block) {
        let mut queue = self.lock();
        queue.push_back(block);
        drop(queue);
        self.wake.notify_one();
    }
}

impl Queue {
    /// Appends a block, and makes room by dropping the oldest.
    fn push_back(&mut self, block: Block) {
        self.bytes += block.rest().len();
        self.blocks.push_back(block);
        while self.bytes > QUEUE && self.blocks.len() > 1 {
            if let Some(oldest) = self.pop_front() {
                self.count(&oldest);
            }
        }
    }

    fn push_front(&mut self, block: Block) {
        self.bytes += block.rest().len();
        self.blocks.push_front(block);
    }

    fn pop_front(&mut self) -> Option<Block> {
        let block = self.blocks.pop_front()?;
        self.bytes -= block.rest().len();
        Some(block)
    }

    fn count(&mut self, lost: &Block) {
        *self.dropped.entry(lost.source.service.clone()).or_default() += lost.lost();
    }
}

/// Returns a directory name that identifies the target and is unique.
fn dir_name(target: &SinkTarget) -> String {
    use std::fmt::Write as _;
    let mut name = String::new();
    for byte in target.to_string().bytes() {
        if byte.is_ascii_alphanumeric() || b".-_+".contains(&byte) {
            name.push(char::from(byte));
        } else {
            let _a_string_takes_all: std::fmt::Result = write!(name, "%{byte:02X}");
        }
    }
    name
}
