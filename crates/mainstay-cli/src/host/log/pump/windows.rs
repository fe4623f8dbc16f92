//! The log threads on Windows: anonymous pipes cannot be waited for together, so each has a thread that blocks in reading it.

use std::io::{self, PipeReader, Read as _};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use mainstay_core::spec::ServiceName;

use super::capture::{Capture, SourceId};
use super::file::Limits;
use super::{Command, Summary};

/// What one read takes at most.
const BUFFER: usize = 64 << 10;
/// How long the end waits for writers that should be gone: the job object has ended them.
const PATIENCE: Duration = Duration::from_secs(2);

type Shared = Arc<Mutex<Option<Capture>>>;

/// The supervisor's side.
pub(super) struct Pump {
    capture: Shared,
    next_id: Mutex<SourceId>,
    /// Disconnected when the last reader has ended.
    ended: Receiver<()>,
    alive: Sender<()>,
}

impl Pump {
    pub(super) fn start(capture: Capture) -> io::Result<Self> {
        let (alive, ended) = mpsc::channel();
        Ok(Self {
            capture: Arc::new(Mutex::new(Some(capture))),
            next_id: Mutex::new(0),
            ended,
            alive,
        })
    }

    pub(super) fn open(
        &self,
        service: ServiceName,
        limits: Limits,
        mut pipe: PipeReader,
    ) -> io::Result<()> {
        let id = {
            let mut next = self.next_id.lock().unwrap_or_else(PoisonError::into_inner);
            *next += 1;
            *next
        };
        if let Some(capture) = &mut *lock(&self.capture) {
            capture.open(&service, limits, id);
        }
        let (capture, alive) = (Arc::clone(&self.capture), self.alive.clone());
        thread::Builder::new()
            .name(format!("log {service}"))
            .stack_size(super::STACK)
            .spawn(move || {
                let mut buffer = vec![0; BUFFER];
                loop {
                    match pipe.read(&mut buffer) {
                        Ok(count @ 1..) => {
                            if let Some(capture) = &mut *lock(&capture) {
                                capture.accept(&service, id, &buffer[..count]);
                            }
                        }
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        _ => break,
                    }
                }
                if let Some(capture) = &mut *lock(&capture) {
                    capture.shut(&service);
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

    pub(super) fn close(self) -> Summary {
        drop(self.alive);
        let _either_way: Result<(), mpsc::RecvTimeoutError> = self.ended.recv_timeout(PATIENCE);
        let capture = lock(&self.capture).take();
        capture.map(Capture::finish).unwrap_or_default()
    }
}

fn lock(capture: &Shared) -> MutexGuard<'_, Option<Capture>> {
    capture.lock().unwrap_or_else(PoisonError::into_inner)
}
