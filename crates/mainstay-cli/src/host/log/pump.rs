//! The log thread on Unix: waits for all pipes at once, reads whole batches, hands them to [`Capture`].
//!
//! A pipe that yields little, again and again, is left alone for a moment after each read, so that one read takes many small writes; a first
//! line after silence is read at once. The rest is as long as the pipe is large in proportion: 2 ms for 1 MiB. Pipes grow
//! to that size only once they have shown to be busy, and the one large buffer exists only while something is: an idle service costs nothing.

use std::io::{self, PipeReader, PipeWriter, Write as _};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mainstay_core::spec::ServiceName;
use rustix::io::Errno;

use super::capture::{Capture, SourceId};
use super::file::Limits;
use super::{Command, Summary};

#[cfg_attr(
    any(target_os = "linux", target_os = "android"),
    path = "pump/epoll.rs"
)]
mod poll;

use poll::Poller;

/// What a pipe holds at first.
const PIPE: usize = 64 << 10;
/// What a busy one holds.
const LARGE_PIPE: usize = 1 << 20;
/// How long a pipe of that size is left alone.
const REST: Duration = Duration::from_millis(2);
/// A read of this part of a pipe is a sign that more waits: no rest.
const MUCH: usize = 32;
/// Reads that follow each other so closely are a stream.
const STREAM: Duration = Duration::from_millis(4);
/// A stream of so many reads, or one read of so many bytes, is busy.
const BUSY_READS: u32 = 4;
const BUSY_BYTES: usize = 16 << 10;
/// Enough for services that say a line now and then.
const SMALL_BUFFER: usize = 16 << 10;
const LARGE_BUFFER: usize = 256 << 10;
/// Silence after which the large buffer is given back.
const SILENCE: Duration = Duration::from_millis(100);
/// The key of the pipe that announces commands; sources count from 0.
const WAKE: usize = usize::MAX;

/// The supervisor's side: orders to the thread.
pub(super) struct Pump {
    commands: Sender<Command>,
    wake: PipeWriter,
    thread: JoinHandle<Summary>,
}

impl Pump {
    pub(super) fn start(capture: Capture) -> io::Result<Self> {
        let (wake_reader, wake) = io::pipe()?;
        rustix::io::ioctl_fionbio(&wake_reader, true)?;
        rustix::io::ioctl_fionbio(&wake, true)?;
        let mut poller = Poller::new()?;
        poller.add(&wake_reader, WAKE)?;
        let (commands, receiver) = mpsc::channel();
        let reader = Reader {
            capture,
            poller,
            sources: Vec::new(),
            buffer: Vec::new(),
        };
        let thread = thread::Builder::new()
            .name("log".into())
            .stack_size(super::STACK)
            .spawn(move || reader.run(&wake_reader, &receiver))?;
        Ok(Self {
            commands,
            wake,
            thread,
        })
    }

    pub(super) fn open(
        &self,
        service: ServiceName,
        limits: Limits,
        pipe: PipeReader,
    ) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        self.send(Command::Open {
            service,
            limits,
            pipe,
        });
        Ok(())
    }

    pub(super) fn send(&self, command: Command) {
        // A thread that is gone has nothing left to do.
        let _gone = self.commands.send(command);
        // A full pipe has woken it already.
        let _full = (&self.wake).write(&[0]);
    }

    pub(super) fn close(self) -> Summary {
        self.send(Command::Close);
        self.thread.join().unwrap_or_default()
    }
}

/// A pipe of a service.
struct Source {
    service: ServiceName,
    pipe: PipeReader,
    capacity: usize,
    /// It was asked to grow.
    grown: bool,
    last_read: Option<Instant>,
    /// Reads in a row.
    stream: u32,
    rests_until: Option<Instant>,
}

/// What a read says about the next one.
enum Next {
    /// Soon: more waits.
    Soon,
    /// When something comes.
    Whenever,
    /// Not before this.
    At(Instant),
}

/// The thread's side.
struct Reader {
    capture: Capture,
    poller: Poller,
    /// Indexed by [`SourceId`].
    sources: Vec<Option<Source>>,
    buffer: Vec<u8>,
}

impl Reader {
    fn run(mut self, wake: &PipeReader, commands: &Receiver<Command>) -> Summary {
        let mut ready = Vec::new();
        loop {
            let large = self.buffer.len() > SMALL_BUFFER;
            ready.clear();
            match self.poller.wait(large.then_some(SILENCE), &mut ready) {
                Ok(()) if ready.is_empty() => self.buffer = Vec::new(),
                Ok(()) => {}
                Err(Errno::INTR) => continue,
                // Never seen. Reading without waiting still loses nothing.
                Err(_) => {
                    thread::sleep(REST);
                    ready.extend(0..self.sources.len());
                    ready.push(WAKE);
                }
            }
            if ready.contains(&WAKE) {
                let _emptied = rustix::io::read(wake, &mut [0; 64]);
            }
            // Before the pipes, so that what a command says about later output reaches it.
            loop {
                match commands.try_recv() {
                    Ok(Command::Open {
                        service,
                        limits,
                        pipe,
                    }) => self.open(service, limits, pipe),
                    #[cfg(test)]
                    Ok(Command::Settle(_answered_by_drop)) => self.drain(),
                    Ok(Command::Close) | Err(TryRecvError::Disconnected) => {
                        self.drain();
                        return self.capture.finish();
                    }
                    Ok(command) => self.capture.perform(command),
                    Err(TryRecvError::Empty) => break,
                }
            }
            self.round(&ready);
        }
    }

    /// Reads each of the pipes that are ready and do not rest, once; then rests if all of them do.
    fn round(&mut self, ready: &[usize]) {
        let now = Instant::now();
        let (mut soon, mut rest) = (false, None::<Instant>);
        for &id in ready {
            let resting = |source: &Source| source.rests_until.filter(|until| *until > now);
            let next = match self.sources.get(id) {
                Some(Some(source)) => match resting(source) {
                    Some(until) => Next::At(until),
                    None => self.read(id, now),
                },
                _ => continue,
            };
            match next {
                Next::Soon => soon = true,
                Next::Whenever => {}
                Next::At(until) => rest = Some(rest.map_or(until, |rest| rest.min(until))),
            }
        }
        if let (false, Some(until)) = (soon, rest) {
            thread::sleep(until.saturating_duration_since(Instant::now()));
        }
    }

    fn open(&mut self, service: ServiceName, limits: Limits, pipe: PipeReader) {
        let id = match self.sources.iter().position(Option::is_none) {
            Some(id) => id,
            None => {
                self.sources.push(None);
                self.sources.len() - 1
            }
        };
        self.capture.open(&service, limits, id);
        // Fails only for want of memory or of watches; closing the pipe then would kill its writers.
        let _polled_by_errors = self.poller.add(&pipe, id);
        self.sources[id] = Some(Source {
            service,
            pipe,
            capacity: PIPE,
            grown: false,
            last_read: None,
            stream: 0,
            rests_until: None,
        });
    }

    fn read(&mut self, id: SourceId, now: Instant) -> Next {
        if self.buffer.is_empty() {
            self.buffer = vec![0; SMALL_BUFFER];
        }
        let Some(Some(source)) = self.sources.get_mut(id) else {
            return Next::Whenever;
        };
        let count = match rustix::io::read(&source.pipe, &mut *self.buffer) {
            Ok(0) => return self.shut(id),
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => return Next::Whenever,
            Err(_) => return self.shut(id),
        };
        let next = source.after_read(count, now);
        self.capture
            .accept(&source.service, id, &self.buffer[..count]);
        if count == self.buffer.len() && count < LARGE_BUFFER {
            self.buffer = vec![0; LARGE_BUFFER];
            return Next::Soon;
        }
        next
    }

    fn shut(&mut self, id: SourceId) -> Next {
        if let Some(source) = self.sources.get_mut(id).and_then(Option::take) {
            self.poller.remove(&source.pipe, id);
            self.capture.shut(&source.service);
        }
        Next::Whenever
    }

    /// Reads all that the pipes hold now; what others write meanwhile cannot keep it from ending.
    fn drain(&mut self) {
        if self.buffer.len() < LARGE_BUFFER {
            self.buffer = vec![0; LARGE_BUFFER];
        }
        for id in 0..self.sources.len() {
            let Some(Some(source)) = self.sources.get(id) else {
                continue;
            };
            let mut waiting = rustix::io::ioctl_fionread(&source.pipe).unwrap_or(0);
            while waiting > 0 {
                match rustix::io::read(&source.pipe, &mut *self.buffer) {
                    Ok(count @ 1..) => {
                        self.capture
                            .accept(&source.service, id, &self.buffer[..count]);
                        waiting = waiting.saturating_sub(count as u64);
                    }
                    Err(Errno::INTR) => {}
                    _ => break,
                }
            }
        }
    }
}

impl Source {
    fn after_read(&mut self, count: usize, now: Instant) -> Next {
        let before = self.last_read.replace(now);
        self.rests_until = None;
        if before.is_none_or(|before| now - before > STREAM) {
            self.stream = 0;
        } else {
            self.stream = self.stream.saturating_add(1);
        }
        if !self.grown && (count >= BUSY_BYTES || self.stream >= BUSY_READS) {
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

    /// An ordinary user may have no more than a few large pipes; a small one rests less.
    fn grow(&mut self) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Ok(capacity) = rustix::pipe::fcntl_setpipe_size(&self.pipe, LARGE_PIPE) {
            self.capacity = capacity;
        }
    }
}
