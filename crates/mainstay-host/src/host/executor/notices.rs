//! Notifications from services, on their way to the loop. However many a run sends, at most one
//! message per run waits there.
//!
//! Readiness counts once. Of deadline extensions, the last one counts; of statuses, the last one of
//! each second.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mainstay_core::engine::{Event, Notice, RunId, ServiceId};

use crate::host::Wake;
use crate::host::clock::ToLoop;

/// The shortest interval between two statuses of a run.
const CADENCE: Duration = Duration::from_secs(1);

/// The notifications of one run.
#[derive(Clone, Debug)]
pub(in crate::host) struct Notices {
    service: ServiceId,
    run: RunId,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    ready: Ready,
    /// The time at which readiness was reported.
    ready_at: Option<Instant>,
    extension: Option<(Instant, Duration)>,
    status: Option<(Instant, String)>,
    /// The time at which the last status was passed on.
    status_at: Option<Instant>,
    /// Set while a message to take the notifications is on its way to the loop.
    is_announced: bool,
    /// Set while a timer for the status is running.
    is_timed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Ready {
    #[default]
    No,
    Received,
    Delivered,
}

impl Notices {
    pub(super) fn new(service: ServiceId, run: RunId) -> Self {
        Self {
            service,
            run,
            state: Arc::default(),
        }
    }

    /// Stores a notification, and sends a message to the loop when it is due.
    pub(super) fn push(&self, notice: Notice, to_loop: &ToLoop) {
        let (now, mut state) = (Instant::now(), self.state());
        match notice {
            Notice::Ready if state.ready == Ready::No => {
                (state.ready, state.ready_at) = (Ready::Received, Some(now));
            }
            Notice::Ready => return,
            Notice::ExtendTimeout(by) => state.extension = Some((now, by)),
            Notice::Status(text) => {
                state.status = Some((now, text));
                if let Some(pause) = state.pause() {
                    if !std::mem::replace(&mut state.is_timed, true) {
                        self.announce_after(pause, to_loop);
                    }
                    return;
                }
            }
        }
        self.announce(&mut state, to_loop);
    }

    fn announce(&self, state: &mut State, to_loop: &ToLoop) {
        if !std::mem::replace(&mut state.is_announced, true) {
            to_loop.send(Wake::Notices(self.clone()));
        }
    }

    fn announce_after(&self, pause: Duration, to_loop: &ToLoop) {
        let (notices, to_loop) = (self.clone(), to_loop.clone());
        tokio::task::spawn_local(async move {
            tokio::time::sleep(pause).await;
            let mut state = notices.state();
            state.is_timed = false;
            notices.announce(&mut state, &to_loop);
        });
    }

    /// Returns the notifications that are due, and the times at which they were sent.
    pub(in crate::host) fn take(&self) -> Vec<(Instant, Event)> {
        let mut state = self.state();
        state.is_announced = false;
        let mut notices = Vec::new();
        if state.ready == Ready::Received {
            state.ready = Ready::Delivered;
            let at = state.ready_at.take();
            notices.extend(at.map(|at| (at, Notice::Ready)));
        }
        let extension = state.extension.take();
        notices.extend(extension.map(|(at, by)| (at, Notice::ExtendTimeout(by))));
        if state.pause().is_none()
            && let Some((at, text)) = state.status.take()
        {
            state.status_at = Some(Instant::now());
            notices.push((at, Notice::Status(text)));
        }
        let notices = notices.into_iter();
        let event = |(at, notice)| (at, Event::Notified(self.service, self.run, notice));
        notices.map(event).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns the remaining time until the next status is due, if it is not due yet.
    fn pause(&self) -> Option<Duration> {
        let due = self.status_at? + CADENCE;
        let pause = due.saturating_duration_since(Instant::now());
        (!pause.is_zero()).then_some(pause)
    }
}
