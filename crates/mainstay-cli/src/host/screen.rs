//! What a supervisor shows, written by a thread of its own: a terminal that is stopped (ctrl-S), a pipe that nobody reads or a log
//! daemon that hangs delays no service, signal or client.
//!
//! The queue is bounded. What does not fit is counted, and the count is shown as soon as something is accepted again.

use std::io::Write;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mainstay::Logger;

use super::sys::threads::{self, Stack};
use crate::output::{self, Foreign, Safe};

/// What services write may wait for the reader up to this size, in bytes; events have as much again.
const LINES_ROOM: usize = 1 << 20;
const EVENTS_ROOM: usize = 2 << 20;
/// The end waits for a reader that accepts something now and then, but no longer than this in all.
const PATIENCE: Duration = Duration::from_secs(2);
const LONGEST_END: Duration = Duration::from_secs(10);

/// A queue for the writer. The writer ends when all clones are dropped and everything is written.
#[derive(Clone)]
pub(super) struct Screen {
    pieces: Sender<Piece>,
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    moved: Condvar,
    /// Says how many lines were not shown.
    notice: fn(u64) -> Piece,
}

#[derive(Default)]
struct Queue {
    bytes: usize,
    /// Lines that did not fit since the last one that did.
    hidden: u64,
    /// Pieces written so far.
    written: u64,
}

/// What is written at once.
pub(super) enum Piece {
    Output(Safe),
    Info(Logger, String),
    Warning(Logger, String),
}

/// What a piece tells of.
#[derive(Clone, Copy)]
pub(super) enum Matter {
    /// What services write; a reader that is too slow misses these first.
    Lines,
    Events,
}

impl Piece {
    /// Events, with the texts of other programs in them.
    pub(super) fn output(bytes: &[u8]) -> Self {
        Self::Output(output::safe(Foreign::Text).foreign(bytes).finish())
    }

    /// What it costs to keep, in bytes.
    fn size(&self) -> usize {
        let text = match self {
            Self::Output(safe) => safe.bytes().len(),
            Self::Info(_, text) | Self::Warning(_, text) => text.capacity(),
        };
        text + size_of::<Self>()
    }

    fn lines(&self) -> u64 {
        match self {
            Self::Output(safe) => memchr::memchr_iter(b'\n', safe.bytes()).count() as u64,
            Self::Info(..) | Self::Warning(..) => 1,
        }
    }

    fn write(self, out: &mut dyn Write) -> std::io::Result<()> {
        match self {
            Self::Output(safe) => out.write_all(safe.bytes()).and_then(|()| out.flush())?,
            Self::Info(logger, text) => logger.info(text),
            Self::Warning(logger, text) => logger.warn(text),
        }
        Ok(())
    }
}

/// For people.
pub(super) fn hidden_lines(count: u64) -> String {
    format!("{count} lines not shown: standard output did not accept them")
}

impl Screen {
    /// Starts a writer to `out`. Without a thread nothing is shown.
    pub(super) fn new(out: impl Write + Send + 'static, notice: fn(u64) -> Piece) -> Self {
        let (pieces, received) = mpsc::channel();
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            moved: Condvar::new(),
            notice,
        });
        let writer = {
            let shared = Arc::clone(&shared);
            move || {
                shared.write(&received, out);
                // Now nothing can be queued any more.
                drop(received);
                shared.queue().bytes = 0;
                shared.moved.notify_all();
            }
        };
        // Where this fails, the other end of the queue is gone.
        drop(threads::spawn("screen", Stack::Small, writer));
        Self { pieces, shared }
    }

    /// Shows a piece, or counts its lines where too much waits. Never blocks.
    pub(super) fn show(&self, piece: Piece, matter: Matter) {
        let room = match matter {
            Matter::Lines => LINES_ROOM,
            Matter::Events => EVENTS_ROOM,
        };
        let mut queue = self.shared.queue();
        if queue.bytes > 0 && queue.bytes + piece.size() > room {
            queue.hidden += piece.lines();
            return;
        }
        if queue.hidden > 0 {
            let notice = (self.shared.notice)(std::mem::take(&mut queue.hidden));
            self.put(&mut queue, notice);
        }
        self.put(&mut queue, piece);
    }

    fn put(&self, queue: &mut Queue, piece: Piece) {
        let size = piece.size();
        // A reader that is gone gets nothing.
        if self.pieces.send(piece).is_ok() {
            queue.bytes += size;
        }
    }

    /// Whether everything is written.
    pub(super) fn is_idle(&self) -> bool {
        self.shared.queue().bytes == 0
    }

    /// Waits until everything is written, or the reader accepts nothing.
    pub(super) fn drain(&self) {
        let end = Instant::now() + LONGEST_END;
        let mut queue = self.shared.queue();
        while queue.bytes > 0 && Instant::now() < end {
            let written = queue.written;
            let wait = |queue: &mut Queue| queue.bytes > 0 && queue.written == written;
            let waited = self.shared.moved.wait_timeout_while(queue, PATIENCE, wait);
            let (now, result) = waited.unwrap_or_else(PoisonError::into_inner);
            if result.timed_out() {
                return;
            }
            queue = now;
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what comes, until nothing can come any more or the reader is gone.
    fn write(&self, pieces: &Receiver<Piece>, mut out: impl Write) {
        for piece in pieces {
            let mut next = Some(piece);
            while let Some(piece) = next.take() {
                let size = piece.size();
                if piece.write(&mut out).is_err() {
                    return;
                }
                let mut queue = self.queue();
                queue.written += 1;
                queue.bytes -= size;
                if queue.bytes == 0 && queue.hidden > 0 {
                    let notice = (self.notice)(std::mem::take(&mut queue.hidden));
                    queue.bytes += notice.size();
                    next = Some(notice);
                }
                drop(queue);
                self.moved.notify_all();
            }
        }
    }
}
