//! Where lines go beside the files: the journal, a syslog daemon, a log host.
//!
//! The log thread copies lines into blocks ([`Sinks::push`]) and puts these into the queue of each target ([`Sinks::flush`]): bounded,
//! in memory, never waited for. Each target has a thread of its own (`worker`), shared by all services that name it, which sends
//! (`transport`), connects again with growing pauses, and has a place on disk (`spool`) where the target is on the network. Where all is full
//! the oldest lines go; they are counted, told to [`SinkEvent`] and, once it takes something again, to the target itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mainstay_core::log::Line;
use mainstay_core::spec::{ServiceName, SinkSpec, SinkTarget};
use tokio::sync::Notify;

use super::file::Lost;
use crate::host::sys::threads::{self, Stack};

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
pub(crate) use transport::this_host;
use worker::Worker;

/// Bytes that may wait in memory for one target. Only what waits takes memory.
const QUEUE: usize = 1 << 20;
/// A block is handed over at this size, without waiting for the end of a batch.
const BLOCK: usize = 64 << 10;

/// What a sink has to say. It comes on a thread of the sink's: take it elsewhere, without blocking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SinkEvent {
    /// It takes no lines, or not fast enough. Comes once until it has recovered.
    Failing {
        /// Where to.
        sink: SinkTarget,
        /// Whose lines go there.
        services: Vec<ServiceName>,
        /// The first cause, as a chain.
        error: String,
    },
    /// It takes lines again.
    Recovered {
        /// Where to.
        sink: SinkTarget,
        /// Whose lines go there.
        services: Vec<ServiceName>,
        /// What never came there, which the sink itself has been told. Mostly nothing.
        dropped: Vec<(ServiceName, Lost)>,
    },
}

/// Where events go.
type Events = Arc<dyn Fn(SinkEvent) + Send + Sync>;

/// The targets of all services, and their threads. Dropping it ends these as [`SinkHub::close`] does, but does not wait.
pub(crate) struct SinkHub {
    /// Holds one directory for each target on the network, once it is needed.
    spool_root: PathBuf,
    events: Events,
    targets: BTreeMap<SinkTarget, Target>,
}

struct Target {
    shared: Arc<Shared>,
    done: Receiver<Leftovers>,
}

/// What had no place to stay at the end, by service.
type Leftovers = BTreeMap<ServiceName, Lost>;

/// The sinks of one service; costs nothing where there are none. What was pushed and not flushed is flushed when it is dropped.
pub(crate) struct Sinks {
    pending: Vec<u8>,
    targets: Vec<(Arc<Source>, Arc<Shared>)>,
}

/// What the log thread and a target's thread share.
struct Shared {
    target: SinkTarget,
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Default)]
struct Queue {
    /// The oldest first.
    blocks: VecDeque<Block>,
    bytes: usize,
    /// What went to make room, and has not been told yet.
    dropped: BTreeMap<ServiceName, Lost>,
    /// Who sends here.
    services: BTreeSet<ServiceName>,
    /// Until when it may go on, once it has to end.
    closing: Option<Instant>,
}

impl SinkHub {
    /// Touches nothing. `events` is called on the sinks' threads.
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

    /// The sinks of a service. Does not block: connections are made by the targets' threads, which also send what an earlier process
    /// left for them. What this system has not is a [`SinkEvent::Failing`] and left out.
    /// Relative paths of certificates begin at `manifest_dir`.
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

    /// The thread of a target, which is started with the first service that names it.
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

    /// Blocks at most `limit`, or a little longer where a disk does, until all that was flushed is sent. What is left for targets on the network stays on disk for the next start; what is
    /// left for local ones, which have no such place, is lost and returned.
    pub(crate) fn close(mut self, limit: Duration) -> Vec<(SinkTarget, ServiceName, Lost)> {
        /// For putting on disk what could not be sent.
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
    /// Whether lines would go nowhere.
    pub(crate) fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// Copies a line, which has been redacted, for all sinks. Never blocks; nothing moves before [`Sinks::flush`], unless much waits for it.
    pub(crate) fn push(&mut self, line: &Line<'_>) {
        if self.targets.is_empty() {
            return;
        }
        record::put(line, &mut self.pending);
        if self.pending.len() >= BLOCK {
            self.flush();
        }
    }

    /// The end of a batch: hands over what was pushed. Never blocks.
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
    /// The lock is never held while anything is waited for.
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
    /// Makes room by dropping the oldest.
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

/// A name of a directory that says which target, and is no other's.
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
