//! The output of a supervisor, written by a thread of its own: a terminal that is stopped (ctrl-S),
//! a pipe that nobody reads or a log daemon that hangs does not delay services, signals or clients.
//!
//! The queue is bounded. Lines that do not fit are counted, and the count is written as soon as
//! something is accepted again.

use std::io::Write;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mainstay::Logger;
use mainstay_sys::threads::{self, Stack};

use crate::output::{self, Foreign, Safe};

/// The limit in bytes up to which service output may wait for the reader. Events have as much
/// again.
const LINES_ROOM: usize = 1 << 20;
const EVENTS_ROOM: usize = 2 << 20;
/// The time for which the end waits for a reader that accepts nothing, and the longest wait in all.
const STALL_TIMEOUT: Duration = Duration::from_secs(2);
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
    /// Returns a notice about the number of lines that were not shown.
    notice: fn(u64) -> Piece,
}

#[derive(Default)]
struct Queue {
    bytes: usize,
    /// The number of lines that did not fit since the last one that did.
    hidden: u64,
    /// The number of pieces written so far.
    written: u64,
}

/// A unit of output that is written at once.
pub(super) enum Piece {
    Output(Safe),
    Info(Logger, String),
    Warning(Logger, String),
}

/// The kind of a piece's contents.
#[derive(Clone, Copy)]
pub(super) enum Matter {
    /// Service output. If the reader is too slow, this is dropped first.
    Lines,
    Events,
}

impl Piece {
    /// Creates a piece from events, which may contain the text of other programs.
    pub(super) fn output(bytes: &[u8]) -> Self {
        Self::Output(output::safe(Foreign::Text).foreign(bytes).finish())
    }

    /// Returns the memory that the piece takes, in bytes.
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

/// Returns the notice for people.
pub(super) fn hidden_lines(count: u64) -> String {
    format!("{count} lines not shown: standard output did not accept them")
}

impl Screen {
    /// Starts a writer to `out`. If no thread can be started, nothing is shown.
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
                // From here on, nothing can be queued.
                drop(received);
                shared.queue().bytes = 0;
                shared.moved.notify_all();
            }
        };
        // If this fails, the receiver of the queue is dropped.
        drop(threads::spawn("screen", Stack::Small, writer));
        Self { pieces, shared }
    }

    /// Queues a piece, or counts its lines if too much is waiting. Never blocks.
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

    /// Returns a function that queues lines of services as [`Screen::show`] does.
    pub(super) fn for_lines(&self, foreign: Foreign) -> impl Fn(&[u8]) + Send + 'static {
        let screen = self.clone();
        move |lines| {
            let safe = output::safe(foreign).foreign(lines).finish();
            screen.show(Piece::Output(safe), Matter::Lines);
        }
    }

    fn put(&self, queue: &mut Queue, piece: Piece) {
        let size = piece.size();
        // If the writer has ended, the piece is dropped.
        if self.pieces.send(piece).is_ok() {
            queue.bytes += size;
        }
    }

    /// Returns whether everything is written.
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
            let waited = self
                .shared
                .moved
                .wait_timeout_while(queue, STALL_TIMEOUT, wait);
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

    /// Writes pieces until all senders are dropped or the reader is gone.
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

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_reader_that_takes_nothing_holds_up_nobody() {
        struct Stuck(Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                let _until_the_end: Result<(), _> = self.0.recv();
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (_release, stuck) = mpsc::channel();
        let notice = |count| Piece::output(format!("{count} hidden\n").as_bytes());
        let screen = Screen::new(Stuck(stuck), notice);
        let show = screen.for_lines(Foreign::Coloured);
        let lines = b"some output\n".repeat(10_000);
        let most = 10 * LINES_ROOM / lines.len();
        for _ in 0..most {
            show(&lines);
        }
        let queue = screen.shared.queue();
        assert!(queue.bytes <= LINES_ROOM, "{} bytes wait", queue.bytes);
        assert!(
            queue.hidden >= 8 * (LINES_ROOM / 12) as u64,
            "{}",
            queue.hidden
        );
    }
}
