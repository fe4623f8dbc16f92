//! The log thread on Windows. Anonymous pipes cannot be waited for together, so each pipe has a
//! thread that blocks reading it and passes on what it reads. The log thread alone touches the
//! disk: one that hangs delays neither the supervisor nor, until a pipe is full, a service.

use std::io::{self, Read as _};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use mainstay_core::log::Stream;
use mainstay_core::log::refine::Unfinished;
use mainstay_sys::threads::{self, Stack};

use super::capture::{Capture, SourceId};
use super::orders::{Feed, Receiver, Worker};
use super::pipes::{OurEnd, Pipes};
use super::{Command, Summary, Wanted};

/// The maximum size of one read.
const BUFFER: usize = 64 << 10;
/// The size of a read that indicates that more is queued, so that there is no rest.
const MUCH: usize = BUFFER / 32;
/// The rest of a pipe. The system may round it up to 16 ms.
const REST: Duration = Duration::from_millis(2);
/// The maximum interval between reads that form a stream, rests included.
const STREAM: Duration = Duration::from_millis(20);
/// The time limit at the end for writers, which the job object has already ended.
const WRITERS_TIMEOUT: Duration = Duration::from_secs(2);

/// The bytes that the reader of a pipe passes on.
pub(super) struct Batch {
    pipe: Arc<OurEnd>,
    buffer: Vec<u8>,
    /// The number of bytes in the buffer.
    count: usize,
    /// The reader, which reads on with the buffer and the number of bytes that it still contains:
    /// the beginning of a line. `None` at the end of the pipe.
    reader: Option<mpsc::Sender<(Vec<u8>, usize)>>,
}

/// The supervisor's side.
pub(super) struct Collector {
    worker: Worker,
}

impl Collector {
    pub(super) fn start(
        capture: Capture,
        _pipes: &mut Pipes,
        _root_dir: &Path,
    ) -> io::Result<Self> {
        let writer = Writer {
            capture,
            sources: Vec::new(),
        };
        let worker = Worker::start(move |orders| writer.run(orders))?;
        Ok(Self { worker })
    }

    pub(super) fn open(
        &self,
        wanted: &Wanted,
        stream: Option<Stream>,
        pipe: Arc<OurEnd>,
    ) -> io::Result<()> {
        self.send(Command::Open {
            wanted: Box::new(wanted.clone()),
            stream,
            pipe: Arc::clone(&pipe),
        });
        let (feed, of_thread) = (self.worker.feed(), Arc::clone(&pipe));
        let name = format!("log {}", pipe.name);
        let reader = threads::spawn(name, Stack::Small, move || read(&of_thread, &feed));
        if reader.is_err() {
            self.send(Command::Read(Batch::end(pipe, Vec::new(), 0)));
        }
        reader.map(drop)
    }

    pub(super) fn send(&self, command: Command) {
        self.worker.send(command);
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

impl Batch {
    fn end(pipe: Arc<OurEnd>, buffer: Vec<u8>, count: usize) -> Self {
        Self {
            pipe,
            buffer,
            count,
            reader: None,
        }
    }
}

/// Reads a pipe to its end. Reads on only after the log thread has written the last batch.
///
/// A pipe that repeatedly yields little is left alone for a short rest after each batch, so that
/// one batch collects many small writes. The first line after silence is read at once.
fn read(pipe: &Arc<OurEnd>, feed: &Feed) {
    let mut buffer = vec![0; BUFFER];
    // The length of the beginning of a line.
    let mut begun = 0;
    let mut last = None::<Instant>;
    loop {
        match (&pipe.reader).read(&mut buffer[begun..]) {
            Ok(count @ 1..) => {
                let before = last.replace(Instant::now());
                let rests = count < MUCH && before.is_some_and(|before| before.elapsed() < STREAM);
                let (reader, written) = mpsc::channel();
                feed.send(Command::Read(Batch {
                    pipe: Arc::clone(pipe),
                    buffer,
                    count: begun + count,
                    reader: Some(reader),
                }));
                match written.recv() {
                    Ok(rest) => (buffer, begun) = rest,
                    // The log thread has ended.
                    Err(_) => return,
                }
                if rests {
                    thread::sleep(REST);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    feed.send(Command::Read(Batch::end(Arc::clone(pipe), buffer, begun)));
}

/// The log thread's side.
struct Writer {
    capture: Capture,
    sources: Vec<(Arc<OurEnd>, SourceId)>,
}

impl Writer {
    fn run(mut self, orders: &Receiver) -> Summary {
        loop {
            match orders.take() {
                Command::Close => break,
                command => self.perform(command),
            }
        }
        let deadline = Instant::now() + WRITERS_TIMEOUT;
        while !self.sources.is_empty()
            && let Some(command) = orders.take_until(deadline)
        {
            self.perform(command);
        }
        self.capture.finish()
    }

    fn perform(&mut self, command: Command) {
        match command {
            Command::Open {
                wanted,
                stream,
                pipe,
            } => {
                let id = self.capture.open(&wanted, stream, pipe.is_new);
                self.sources.push((pipe, id));
            }
            Command::Read(batch) => self.write(batch),
            command => self.capture.perform(command),
        }
    }

    fn write(&mut self, batch: Batch) {
        let Batch {
            pipe,
            mut buffer,
            count,
            reader,
        } = batch;
        let is_its = |(other, _): &(Arc<OurEnd>, SourceId)| Arc::ptr_eq(other, &pipe);
        let Some(at) = self.sources.iter().position(is_its) else {
            return;
        };
        let id = self.sources[at].1;
        let unfinished = if reader.is_none() || count == buffer.len() {
            Unfinished::Take
        } else {
            Unfinished::Leave
        };
        let taken = self.capture.refine(id, &buffer[..count], unfinished);
        self.capture.put(id, &buffer[..taken]);
        match reader {
            Some(reader) => {
                buffer.copy_within(taken..count, 0);
                // A reader that is gone has nothing to read.
                let _ = reader.send((buffer, count - taken));
            }
            None => {
                self.capture.close(id);
                self.sources.swap_remove(at);
            }
        }
    }
}
