//! The log threads on Windows. Anonymous pipes cannot be waited for together, so each pipe has a
//! thread that blocks reading it.

use std::io::{self, Read as _};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mainstay_core::log::refine::Stream;
use mainstay_sys::threads::{self, Stack};

use super::capture::{Capture, SourceId};
use super::pipes::{OurEnd, Pipes};
use super::{Command, Summary, Wanted};

/// The maximum size of one read.
const BUFFER: usize = 64 << 10;
/// The time limit at the end for writers, which the job object has already ended.
const PATIENCE: Duration = Duration::from_secs(2);

type Shared = Arc<Mutex<Option<Capture>>>;

/// The supervisor's side.
pub(super) struct Pump {
    capture: Shared,
    /// Disconnected when the last reader has ended.
    ended: Receiver<()>,
    alive: Sender<()>,
}

impl Pump {
    #[expect(clippy::unnecessary_wraps, reason = "the same shape on every system")]
    pub(super) fn start(
        capture: Capture,
        _pipes: &mut Pipes,
        _root_dir: &Path,
    ) -> io::Result<Self> {
        let (alive, ended) = mpsc::channel();
        Ok(Self {
            capture: Arc::new(Mutex::new(Some(capture))),
            ended,
            alive,
        })
    }

    pub(super) fn open(
        &self,
        wanted: &Wanted,
        stream: Option<Stream>,
        pipe: Arc<OurEnd>,
    ) -> io::Result<()> {
        let Some(id) = (*lock(&self.capture))
            .as_mut()
            .map(|capture| capture.open(wanted, stream, pipe.is_new))
        else {
            return Ok(());
        };
        let (capture, alive) = (Arc::clone(&self.capture), self.alive.clone());
        threads::spawn(format!("log {}", pipe.name), Stack::Small, move || {
            let mut buffer = vec![0; BUFFER];
            // The length of the beginning of a line.
            let mut begun = 0;
            loop {
                match (&pipe.reader).read(&mut buffer[begun..]) {
                    Ok(0) => break,
                    Ok(count) => begun = pass(&capture, id, &mut buffer, begun + count),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
            if let Some(capture) = &mut *lock(&capture) {
                let taken = capture.refine(id, &buffer[..begun], true);
                capture.put(id, &buffer[..taken]);
                capture.close(id);
            }
            drop(alive);
        })?;
        Ok(())
    }

    pub(super) fn send(&self, command: Command) {
        if let Some(capture) = &mut *lock(&self.capture) {
            capture.perform(command);
        }
    }

    /// Returns `false`: commands are performed at once.
    #[expect(clippy::unused_self, reason = "the same shape on every system")]
    pub(super) fn is_behind(&self) -> bool {
        false
    }

    pub(super) fn close(self) -> Summary {
        drop(self.alive);
        let _either_way: Result<(), mpsc::RecvTimeoutError> = self.ended.recv_timeout(PATIENCE);
        let capture = lock(&self.capture).take();
        capture.map(Capture::finish).unwrap_or_default()
    }
}

/// Passes on the first `count` bytes, and returns how many of them, the beginning of a line, must
/// be passed again with the next ones.
fn pass(capture: &Shared, id: SourceId, buffer: &mut [u8], count: usize) -> usize {
    let Some(capture) = &mut *lock(capture) else {
        return 0;
    };
    let taken = capture.refine(id, &buffer[..count], count == buffer.len());
    capture.put(id, &buffer[..taken]);
    buffer.copy_within(taken..count, 0);
    count - taken
}

fn lock(capture: &Shared) -> MutexGuard<'_, Option<Capture>> {
    capture.lock().unwrap_or_else(PoisonError::into_inner)
}
