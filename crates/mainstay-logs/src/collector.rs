//! The log thread on Unix: waits for all pipes at once, reads whole batches from them, and passes
//! the batches to [`Capture`].
//!
//! A pipe that repeatedly yields little is left alone for a short rest after each batch, so that
//! one batch collects many small writes. The first line after silence is read at once. The rest is
//! proportional to the size of the pipe: 2 ms for 1 MiB. Pipes grow to that size only once they
//! have been busy, and large buffers exist only while some pipe is, so an idle service costs
//! nothing. [`Handoff`] moves a batch from a pipe to a file.

use std::io::{self, PipeReader, PipeWriter, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use mainstay_core::log::Stream;
use mainstay_core::log::refine::Unfinished;
use mainstay_core::slab::Slab;
use mainstay_core::spec::ServiceName;
use rustix::io::Errno;

use super::capture::{Capture, SourceId};
use super::orders::{Receiver, Worker};
use super::pipes::{OurEnd, Pipes};
use super::{Command, Scope, Summary, Wanted};

#[cfg_attr(target_os = "linux", path = "collector/handoff.rs")]
#[cfg_attr(not(target_os = "linux"), path = "collector/read.rs")]
mod handoff;
#[cfg_attr(
    any(target_os = "linux", target_os = "android"),
    path = "collector/epoll.rs"
)]
mod poll;

use handoff::{Handoff, Taken};
use poll::Poller;

/// The initial capacity of a pipe.
const PIPE: usize = 64 << 10;
/// The capacity of a busy pipe.
const LARGE_PIPE: usize = 1 << 20;
/// The rest of a pipe of that capacity.
const REST: Duration = Duration::from_millis(2);
/// The divisor of a pipe's capacity above which a batch indicates that more is queued, so that
/// there is no rest.
const MUCH: usize = 32;
/// The maximum interval between batches that form a stream.
const STREAM: Duration = Duration::from_millis(4);
/// The number of batches in a stream, or of bytes in one batch, that make a pipe busy.
const BUSY_BATCHES: u32 = 4;
const BUSY_BYTES: usize = 16 << 10;
/// The buffer size for services that write occasional lines.
const SMALL_BUFFER: usize = 16 << 10;
const LARGE_BUFFER: usize = 256 << 10;
/// The silence after which large buffers are released.
const SILENCE: Duration = Duration::from_millis(100);
/// The key of the pipe that announces commands; sources count from 0.
const WAKE: usize = usize::MAX;

/// The supervisor's side, which sends commands to the thread.
pub(super) struct Collector {
    worker: Worker,
    wake: PipeWriter,
}

impl Collector {
    pub(super) fn start(capture: Capture, pipes: &mut Pipes, root_dir: &Path) -> io::Result<Self> {
        let handoff = Handoff::new(pipes, root_dir)?;
        let (wake_reader, wake) = io::pipe()?;
        rustix::io::ioctl_fionbio(&wake_reader, true)?;
        rustix::io::ioctl_fionbio(&wake, true)?;
        let mut poller = Poller::new()?;
        poller.add(&wake_reader, WAKE)?;
        let reader = Reader {
            capture,
            poller,
            handoff,
            sources: Slab::default(),
            again: Vec::new(),
        };
        let worker = Worker::start(move |orders| reader.run(&wake_reader, orders))?;
        Ok(Self { worker, wake })
    }

    pub(super) fn open(
        &self,
        wanted: &Wanted,
        stream: Option<Stream>,
        pipe: Arc<OurEnd>,
    ) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&pipe.reader, true)?;
        self.send(Command::Open {
            wanted: Box::new(wanted.clone()),
            stream,
            pipe,
        });
        Ok(())
    }

    pub(super) fn send(&self, command: Command) {
        self.worker.send(command);
        // A full pipe has already woken the thread.
        let _full = (&self.wake).write(&[0]);
    }

    pub(super) fn is_behind(&self) -> bool {
        self.worker.is_behind()
    }

    /// Ends the thread; see [`Worker::end`].
    pub(super) fn close(self, announce: impl FnMut()) -> Option<Summary> {
        self.send(Command::Close);
        self.worker.end(announce)
    }
}

/// A pipe of a service.
struct Source {
    pipe: Arc<OurEnd>,
    capacity: usize,
    /// Set once a larger capacity was requested.
    grown: bool,
    last_batch: Option<Instant>,
    /// The number of consecutive batches.
    stream: u32,
    rests_until: Option<Instant>,
}

/// The expectation for the next batch.
enum Next {
    /// At once: more is queued.
    Soon,
    /// When data arrives.
    Whenever,
    /// Not before this time.
    At(Instant),
}

/// The thread's side.
struct Reader {
    capture: Capture,
    poller: Poller,
    handoff: Handoff,
    /// The sources by [`SourceId`].
    sources: Slab<Source>,
    /// Sources to read without a notification, because each arrival is notified only once.
    again: Vec<SourceId>,
}

impl Reader {
    fn run(mut self, wake: &PipeReader, orders: &Receiver) -> Summary {
        // The handoff pipe is not free until the content that a killed supervisor left in it has
        // been written to its file, which requires the service's pipe to be open.
        let mut later = Vec::new();
        let ends = loop {
            match orders.take() {
                Command::Begin => break false,
                Command::Close => break true,
                command @ (Command::Open { .. }
                | Command::Expect {
                    scope: Scope::Unread,
                    ..
                }) => self.perform(command),
                command => later.push(command),
            }
        };
        for (id, source) in self.sources.iter() {
            self.handoff
                .resume(&mut self.capture, id, &source.pipe.name);
        }
        self.handoff.forget();
        later.into_iter().for_each(|command| self.perform(command));
        if ends {
            return self.finish(orders);
        }
        let mut ready = Vec::new();
        loop {
            ready.clear();
            let timeout = match (self.again.is_empty(), self.handoff.is_large()) {
                (false, _) => Some(Duration::ZERO),
                (true, true) => Some(SILENCE),
                (true, false) => None,
            };
            match self.poller.wait(timeout, &mut ready) {
                Ok(()) if ready.is_empty() && self.again.is_empty() => {
                    self.handoff.rest();
                    self.capture.rest();
                }
                Ok(()) => {}
                Err(Errno::INTR) => continue,
                // Not observed in practice. Polling every pipe still loses nothing.
                Err(_) => {
                    thread::sleep(REST);
                    ready.extend(self.sources.iter().map(|(id, _)| id));
                    ready.push(WAKE);
                }
            }
            ready.append(&mut self.again);
            if ready.contains(&WAKE) {
                while let Ok(64) = rustix::io::read(wake, &mut [0; 64]) {}
            }
            // Before the pipes, so that a command about later output takes effect before that
            // output is read.
            while let Some(command) = orders.try_take() {
                match command {
                    Command::Close => return self.finish(orders),
                    command => self.perform(command),
                }
            }
            self.round(&ready);
        }
    }

    fn finish(mut self, orders: &Receiver) -> Summary {
        for id in 0..self.sources.bound() {
            self.drain_for_good(id);
            orders.moves();
        }
        self.capture.finish()
    }

    fn perform(&mut self, command: Command) {
        match command {
            Command::Open {
                wanted,
                stream,
                pipe,
            } => self.open(&wanted, stream, pipe),
            // Output left by the last run does not belong to the next one.
            Command::Expect {
                service,
                regex,
                token,
                scope,
            } => {
                if scope == Scope::NextRun {
                    self.drain_service(&service);
                }
                self.capture.expect(&service, &regex, token);
            }
            Command::Starting { service } => {
                self.drain_service(&service);
                self.capture.perform(Command::Starting { service });
            }
            Command::Began {
                service,
                pid,
                restart,
            } => {
                for id in self.capture.sources(&service) {
                    self.capture.began(id, pid, restart);
                    self.sources[id].pipe.begin_run();
                    self.again.push(id);
                }
            }
            Command::Remember { service } => {
                self.drain_service(&service);
                self.capture.perform(Command::Remember { service });
            }
            Command::Recall { service, done } => {
                self.drain_service(&service);
                self.capture.perform(Command::Recall { service, done });
            }
            Command::Drain { service, done } => {
                self.drain_service(&service);
                self.capture.perform(Command::Drain { service, done });
            }
            Command::Forget {
                service,
                name_paths,
                done,
            } => {
                for id in self.capture.sources(&service) {
                    self.forget(id);
                }
                for path in name_paths {
                    // If the name stays, the next supervisor removes it.
                    let _ = std::fs::remove_file(path);
                }
                done();
            }
            #[cfg(test)]
            Command::Settle(_answered_by_drop) => {
                (0..self.sources.bound()).for_each(|id| self.drain(id));
            }
            command => self.capture.perform(command),
        }
    }

    /// Reads once from each pipe that is ready and not resting, then sleeps if all of them rest.
    fn round(&mut self, ready: &[usize]) {
        let now = Instant::now();
        let (mut soon, mut rest) = (false, None::<Instant>);
        for &id in ready {
            let Some(source) = self.sources.get(id) else {
                continue;
            };
            let next = match source.rests_until.filter(|until| *until > now) {
                Some(until) => {
                    self.again.push(id);
                    Next::At(until)
                }
                None => self.batch(id, now),
            };
            match next {
                Next::Soon => {
                    soon = true;
                    self.again.push(id);
                }
                Next::Whenever => {}
                Next::At(until) => rest = Some(rest.map_or(until, |rest| rest.min(until))),
            }
        }
        if let (false, Some(until)) = (soon, rest) {
            thread::sleep(until.saturating_duration_since(Instant::now()));
        }
    }

    fn open(&mut self, wanted: &Wanted, stream: Option<Stream>, pipe: Arc<OurEnd>) {
        let id = self.capture.open(wanted, stream, pipe.is_new);
        // Fails only for lack of memory or watches. Closing the pipe would then kill its writers.
        let _looked_at_by_errors = self.poller.add(&pipe.reader, id);
        let source = Source {
            pipe,
            capacity: PIPE,
            grown: false,
            last_batch: None,
            stream: 0,
            rests_until: None,
        };
        self.sources.put(id, source);
    }

    fn forget(&mut self, id: SourceId) {
        self.drain_for_good(id);
        if let Some(source) = self.sources.take(id) {
            // The keeper has it open too, so closing it here does not end the notifications.
            self.poller.remove(&source.pipe.reader, id);
        }
        self.handoff.released(id);
        self.capture.close(id);
    }

    fn batch(&mut self, id: SourceId, now: Instant) -> Next {
        let Reader {
            capture,
            handoff,
            sources,
            ..
        } = self;
        let source = &mut sources[id];
        match handoff.take(capture, id, &source.pipe, Unfinished::Leave) {
            Taken::Nothing => Next::Whenever,
            Taken::All(count) => source.after_batch(count, now),
            Taken::Some(count) => {
                source.after_batch(count, now);
                source.rests_until = None;
                Next::Soon
            }
        }
    }

    fn drain_service(&mut self, service: &ServiceName) {
        for id in self.capture.sources(service) {
            self.drain(id);
        }
    }

    /// Also reads output that was not attributed to any run.
    fn drain_for_good(&mut self, id: SourceId) {
        self.drain(id);
        if let Some(source) = self.sources.get(id) {
            source.pipe.begin_run();
        }
        self.drain(id);
    }

    /// Reads everything that a pipe contains now. Concurrent writes cannot keep it from ending.
    fn drain(&mut self, id: SourceId) {
        let Reader {
            capture,
            handoff,
            sources,
            ..
        } = self;
        let Some(source) = sources.get(id) else {
            return;
        };
        let mut left = source.pipe.held();
        while left > 0 {
            match handoff.take(capture, id, &source.pipe, Unfinished::Take) {
                Taken::Nothing => break,
                Taken::All(count) | Taken::Some(count) => {
                    left = left.saturating_sub(count as u64);
                }
            }
        }
    }
}

impl Source {
    fn after_batch(&mut self, count: usize, now: Instant) -> Next {
        let before = self.last_batch.replace(now);
        self.rests_until = None;
        if before.is_none_or(|before| now - before > STREAM) {
            self.stream = 0;
        } else {
            self.stream = self.stream.saturating_add(1);
        }
        if !self.grown && (count >= BUSY_BYTES || self.stream >= BUSY_BATCHES) {
            self.grown = true;
            self.grow();
        }
        if count >= self.capacity / MUCH {
            return Next::Soon;
        }
        if self.stream == 0 {
            return Next::Whenever;
        }
        let until = now + REST * u32::try_from(self.capacity).unwrap_or(0) / LARGE_PIPE as u32;
        self.rests_until = Some(until);
        Next::At(until)
    }

    /// An unprivileged user may have only a few large pipes; a small one rests less.
    fn grow(&mut self) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Ok(capacity) = rustix::pipe::fcntl_setpipe_size(&self.pipe.reader, LARGE_PIPE) {
            self.capacity = capacity;
        }
    }
}
