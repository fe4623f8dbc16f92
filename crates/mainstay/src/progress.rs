//! What a manager is shown while a service starts, stops, pauses: SERVICE_STATUS, as a pure state machine.
//!
//! A pending state ticks: its checkpoint grows once a [`TICK`], with a wait hint that leaves room for a few lost ticks, so that whoever waits
//! knows that the process is alive. It does so only as long as the state may take; after that the checkpoint stands still, which tells
//! those who wait that it hangs. See "Service State Transitions" and `SetServiceStatus` (Microsoft).

use std::time::{Duration, Instant};

use crate::{Accepts, Control, State};

/// How often a pending state says that it goes on.
pub(crate) const TICK: Duration = Duration::from_secs(1);
/// Within which time the next tick comes.
const WAIT_HINT: Duration = Duration::from_secs(5);

/// How a service ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With this code of its own; 0 is well.
    Code(u32),
    /// It was told to stop and did not in time.
    Overdue,
}

/// What the manager is told: the state and how it gets on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) state: State,
    /// Whether it takes controls now.
    pub(crate) is_settled: bool,
    pub(crate) checkpoint: u32,
    pub(crate) wait_hint: Duration,
    pub(crate) end: Option<End>,
}

/// Where the service is.
#[derive(Debug)]
pub(crate) struct Progress {
    state: State,
    checkpoint: u32,
    /// Until when a pending state may last.
    limit: Option<Instant>,
    next_tick: Option<Instant>,
    graceful: Duration,
    accepts: Accepts,
}

impl Progress {
    /// A service that starts now.
    pub(crate) fn new(
        start_timeout: Duration,
        graceful: Duration,
        accepts: Accepts,
        now: Instant,
    ) -> Self {
        let mut progress = Self {
            state: State::StartPending,
            checkpoint: 0,
            limit: None,
            next_tick: None,
            graceful,
            accepts,
        };
        progress.enter(State::StartPending, start_timeout, now);
        progress
    }

    /// What is to be told now.
    pub(crate) fn report(&self) -> Report {
        Report {
            state: self.state,
            is_settled: matches!(self.state, State::Running | State::Paused),
            checkpoint: self.checkpoint,
            wait_hint: match self.next_tick {
                Some(_) => WAIT_HINT,
                None => Duration::ZERO,
            },
            end: None,
        }
    }

    /// The manager wants something. Whether the service is to be told, and shown in another state.
    pub(crate) fn wanted(&mut self, control: Control, now: Instant) -> bool {
        match (control, self.state) {
            (_, State::StopPending | State::Stopped) => return false,
            (Control::Stop(_), _) => self.enter(State::StopPending, self.graceful, now),
            (Control::Pause, State::Running) if self.accepts.contains(Accepts::PAUSE) => {
                self.enter(State::PausePending, self.graceful, now);
            }
            (Control::Continue, State::Paused) if self.accepts.contains(Accepts::PAUSE) => {
                self.enter(State::ContinuePending, self.graceful, now);
            }
            (Control::Pause | Control::Continue, _) => return false,
            _ => {}
        }
        true
    }

    /// The service has done something; whether that makes another state.
    pub(crate) fn did(&mut self, control: Option<Control>) -> bool {
        let next = match (control, self.state) {
            (None, State::StartPending) => State::Running,
            (Some(Control::Pause), State::PausePending) => State::Paused,
            (Some(Control::Continue), State::ContinuePending) => State::Running,
            _ => return false,
        };
        self.settle(next);
        true
    }

    /// What is under way takes this much longer, from now.
    pub(crate) fn extend(&mut self, by: Duration, now: Instant) {
        if let Some(limit) = self.limit {
            self.limit = now.checked_add(by).map(|longer| longer.max(limit));
            self.next_tick = self.next_tick.or(Some(now));
        }
    }

    /// It is over.
    pub(crate) fn ended(&mut self, end: End) -> Report {
        self.settle(State::Stopped);
        Report {
            end: Some(end),
            ..self.report()
        }
    }

    /// When [`Progress::tick`] has to be called next.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        match self.state {
            State::StopPending => self.next_tick.or(self.limit),
            _ => self.next_tick,
        }
    }

    /// Time has passed. `None` where nothing is to be told.
    pub(crate) fn tick(&mut self, now: Instant) -> Option<Report> {
        if self.limit.is_some_and(|limit| now >= limit) {
            self.next_tick = None;
            return (self.state == State::StopPending).then(|| self.ended(End::Overdue));
        }
        let due = self.next_tick.filter(|at| now >= *at)?;
        self.checkpoint += 1;
        self.next_tick = Some(due.max(now - TICK) + TICK);
        Some(self.report())
    }

    fn enter(&mut self, state: State, limit: Duration, now: Instant) {
        self.state = state;
        self.checkpoint = 1;
        // Beyond all clocks is for ever.
        self.limit = now.checked_add(limit);
        self.next_tick = Some(now + TICK);
    }

    fn settle(&mut self, state: State) {
        self.state = state;
        self.checkpoint = 0;
        self.limit = None;
        self.next_tick = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Stop;

    const STOP: Control = Control::Stop(Stop::Requested);
    const SECOND: Duration = Duration::from_secs(1);

    fn progress(now: Instant) -> Progress {
        Progress::new(3 * SECOND, 3 * SECOND, Accepts::PAUSE, now)
    }

    fn states(progress: &Progress) -> (State, u32, bool) {
        let report = progress.report();
        (report.state, report.checkpoint, report.is_settled)
    }

    #[test]
    fn a_life_goes_through_all_states() {
        let now = Instant::now();
        let mut progress = progress(now);
        assert_eq!(states(&progress), (State::StartPending, 1, false));
        assert!(!progress.wanted(Control::Pause, now), "not yet");
        assert!(progress.did(None));
        assert_eq!(states(&progress), (State::Running, 0, true));
        assert!(!progress.did(None), "once");
        assert!(!progress.wanted(Control::Continue, now));
        assert!(progress.wanted(Control::Pause, now));
        assert_eq!(states(&progress), (State::PausePending, 1, false));
        assert!(progress.did(Some(Control::Pause)));
        assert_eq!(states(&progress), (State::Paused, 0, true));
        assert!(progress.wanted(Control::Custom(200), now));
        assert_eq!(states(&progress), (State::Paused, 0, true));
        assert!(progress.wanted(Control::Continue, now));
        assert!(progress.did(Some(Control::Continue)));
        assert!(progress.wanted(STOP, now));
        assert_eq!(states(&progress), (State::StopPending, 1, false));
        assert!(!progress.wanted(STOP, now), "it has heard");
        assert!(!progress.did(Some(Control::Pause)));
        let report = progress.ended(End::Code(75));
        assert_eq!(
            (report.state, report.end),
            (State::Stopped, Some(End::Code(75)))
        );
        assert_eq!(progress.wake_at(), None);
    }

    #[test]
    fn a_pending_state_ticks_as_long_as_it_may_last() {
        let now = Instant::now();
        let mut progress = progress(now);
        assert_eq!(progress.tick(now), None, "too soon");
        assert_eq!(progress.wake_at(), Some(now + SECOND));
        assert_eq!(progress.tick(now + SECOND).unwrap().checkpoint, 2);
        assert_eq!(progress.tick(now + 2 * SECOND).unwrap().checkpoint, 3);
        assert_eq!(progress.tick(now + 3 * SECOND), None, "it hangs");
        assert_eq!(progress.wake_at(), None);
        progress.extend(5 * SECOND, now + 4 * SECOND);
        assert_eq!(progress.tick(now + 4 * SECOND).unwrap().checkpoint, 4);
        assert!(progress.did(None), "late is better than never");
        assert_eq!(progress.report().wait_hint, Duration::ZERO);
    }

    #[test]
    fn a_stop_that_hangs_is_over() {
        let now = Instant::now();
        let mut progress = progress(now);
        assert!(progress.wanted(STOP, now));
        assert_eq!(progress.tick(now + SECOND).unwrap().end, None);
        assert_eq!(progress.tick(now + 2 * SECOND).unwrap().end, None);
        let report = progress.tick(now + 3 * SECOND).unwrap();
        assert_eq!(
            (report.state, report.end),
            (State::Stopped, Some(End::Overdue))
        );
        assert_eq!(progress.tick(now + 9 * SECOND), None);
    }

    #[test]
    fn what_may_last_for_ever_ticks_for_ever() {
        let now = Instant::now();
        let mut progress = Progress::new(Duration::MAX, Duration::MAX, Accepts::default(), now);
        for second in 1..1000 {
            let report = progress.tick(now + second * SECOND).unwrap();
            assert_eq!(report.checkpoint, second + 1);
        }
    }
}
