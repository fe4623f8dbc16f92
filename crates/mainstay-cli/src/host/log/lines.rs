//! Lines out of chunks, for those who look at the output while it passes: a readiness pattern, a terminal.

use std::io::Write;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

use mainstay_core::spec::ServiceName;

/// Of a longer line only this many bytes are looked at.
const LINE_MAX: usize = 64 << 10;
/// Chunks that may wait for a slow terminal.
const QUEUE: usize = 8;
/// How long the end waits for a terminal that takes nothing any more.
const PATIENCE: Duration = Duration::from_secs(1);

/// The unfinished line of one service.
#[derive(Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Calls `each` with every line that ends in `bytes`, without its end.
    pub(super) fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            let line = &bytes[start..end];
            if self.partial.is_empty() {
                each(&line[..line.len().min(LINE_MAX)]);
            } else {
                self.keep(line);
                each(&self.partial);
                self.partial = Vec::new();
            }
            start = end + 1;
        }
        self.keep(&bytes[start..]);
    }

    /// Ends the unfinished line.
    pub(super) fn finish(&mut self, mut each: impl FnMut(&[u8])) {
        let line = std::mem::take(&mut self.partial);
        if !line.is_empty() {
            each(&line);
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LINE_MAX - self.partial.len();
        self.partial
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// Shows lines somewhere, in a thread of its own: whoever is too slow misses lines, and is told how many, but holds up no service.
pub(super) struct Terminal {
    queue: SyncSender<Vec<u8>>,
    done: Receiver<()>,
    /// Of the longest name so far.
    width: usize,
    skipped: u64,
}

impl Terminal {
    pub(super) fn new(mut out: Box<dyn Write + Send>) -> std::io::Result<Self> {
        let (queue, chunks) = mpsc::sync_channel::<Vec<u8>>(QUEUE);
        let (finished, done) = mpsc::channel();
        thread::Builder::new()
            .name("follow".into())
            .stack_size(super::STACK)
            .spawn(move || {
                let _until_gone: Result<(), std::io::Error> = chunks.iter().try_for_each(|chunk| {
                    out.write_all(&chunk)?;
                    out.flush()
                });
                drop(finished);
            })?;
        Ok(Self {
            queue,
            done,
            width: 0,
            skipped: 0,
        })
    }

    /// Makes room for `name` in front of each line.
    pub(super) fn announce(&mut self, name: &ServiceName) {
        self.width = self.width.max(name.as_str().len());
    }

    /// Appends a line to `chunk` as it will be shown.
    pub(super) fn render(&self, name: &ServiceName, line: &[u8], chunk: &mut Vec<u8>) {
        let width = self.width;
        chunk.extend_from_slice(format!("{name:width$} | ").as_bytes());
        chunk.extend_from_slice(line);
        chunk.push(b'\n');
    }

    /// Shows rendered lines, or counts them where too many wait.
    pub(super) fn show(&mut self, mut chunk: Vec<u8>) {
        if chunk.is_empty() {
            return;
        }
        let lines = memchr::memchr_iter(b'\n', &chunk).count() as u64;
        if self.skipped > 0 {
            let skipped = self.skipped;
            let message = format!(
                "mainstay: {skipped} lines were too fast for this terminal; the log has them\n"
            );
            chunk.splice(0..0, message.into_bytes());
        }
        match self.queue.try_send(chunk) {
            Ok(()) => self.skipped = 0,
            Err(TrySendError::Full(_)) => self.skipped += lines,
            Err(TrySendError::Disconnected(_)) => {}
        }
    }

    /// Shows the line that was begun and will not be ended.
    pub(super) fn show_rest(&mut self, lines: &mut Lines, name: &ServiceName) {
        let mut shown = Vec::new();
        lines.finish(|line| self.render(name, line, &mut shown));
        self.show(shown);
    }

    /// Waits until all is shown, or the terminal has taken nothing for a second.
    pub(super) fn finish(self) {
        drop(self.queue);
        let _either_way: Result<(), RecvTimeoutError> = self.done.recv_timeout(PATIENCE);
    }
}
