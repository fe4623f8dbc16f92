//! Status reports to the manager while a service starts, stops or pauses: SERVICE_STATUS as a pure
//! state machine.
//!
//! In a pending state, the checkpoint is incremented once per [`TICK`]. The wait hint allows for a
//! few lost ticks, so waiting clients can tell that the process makes progress. Every pending state
//! has a limit. A service that exceeds it is stopped: the process ends. A stop is accepted in every
//! state except STOP_PENDING and STOPPED. See "Service State Transitions" and `SetServiceStatus`
//! (Microsoft).

use std::time::{Duration, Instant};

use crate::{Accepts, Control, State};

/// The interval between checkpoints of a pending state.
pub(crate) const TICK: Duration = Duration::from_secs(1);
/// The time within which the next checkpoint is reported.
const WAIT_HINT: Duration = Duration::from_secs(5);

/// The end of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The service ended with this code. 0 is success, as is any requested stop.
    Code(u32),
    /// The service exceeded the limit of a pending state.
    Overdue,
}

/// The controls that are accepted in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Controls {
    /// None: the service is stopping or has stopped.
    None,
    /// Stop, shutdown, and preshutdown if the service requests it.
    Stops,
    /// The same, and the controls that the service accepts.
    All,
}

/// A report to the manager: the state and its progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) state: State,
    pub(crate) controls: Controls,
    pub(crate) checkpoint: u32,
    pub(crate) wait_hint: Duration,
    pub(crate) end: Option<End>,
}

/// The result of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tick {
    /// No tick is due yet.
    TooSoon,
    /// The pending state continues.
    Goes(Report),
    /// The limit of this pending state is exceeded: the service counts as stopped, and its process
    /// must end.
    Overdue(State, Report),
}

/// The current state of a service and its time limit.
#[derive(Debug)]
pub(crate) struct Progress {
    state: State,
    checkpoint: u32,
    /// The deadline of a pending state.
    limit: Option<Instant>,
    next_tick: Option<Instant>,
    graceful: Duration,
    accepts: Accepts,
}

impl Progress {
    /// Creates the progress of a service that starts now.
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

    /// Returns the current report.
    pub(crate) fn report(&self) -> Report {
        Report {
            state: self.state,
            controls: match self.state {
                State::Running | State::Paused => Controls::All,
                State::StopPending | State::Stopped => Controls::None,
                State::StartPending | State::PausePending | State::ContinuePending => {
                    Controls::Stops
                }
            },
            checkpoint: self.checkpoint,
            wait_hint: match self.next_tick {
                Some(_) => WAIT_HINT,
                None => Duration::ZERO,
            },
            end: None,
        }
    }

    /// Processes a control from the manager. Returns whether the service must be notified and a new
    /// state reported.
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

    /// Processes a completed control, or readiness. Returns whether the state changed.
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

    /// Extends the limit of the pending state by this much, counted from now.
    pub(crate) fn extend(&mut self, by: Duration, now: Instant) {
        if let Some(limit) = self.limit {
            self.limit = now.checked_add(by).map(|longer| longer.max(limit));
            self.next_tick = self.next_tick.or(Some(now));
        }
    }

    /// Ends the service. After a requested stop, the result is success whatever the exit: recovery
    /// actions must not restart a service that an operator has stopped.
    pub(crate) fn ended(&mut self, end: End) -> Report {
        let end = match self.state {
            State::StopPending => End::Code(0),
            _ => end,
        };
        self.settle(State::Stopped);
        Report {
            end: Some(end),
            ..self.report()
        }
    }

    /// Returns the time of the next call of [`Progress::tick`].
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        match (self.next_tick, self.limit) {
            (Some(tick), Some(limit)) => Some(tick.min(limit)),
            (tick, limit) => tick.or(limit),
        }
    }

    /// Processes the passing of time.
    pub(crate) fn tick(&mut self, now: Instant) -> Tick {
        if self.limit.is_some_and(|limit| now >= limit) {
            let state = self.state;
            return Tick::Overdue(state, self.ended(End::Overdue));
        }
        let Some(due) = self.next_tick.filter(|at| now >= *at) else {
            return Tick::TooSoon;
        };
        self.checkpoint += 1;
        self.next_tick = Some(due.max(now - TICK) + TICK);
        Tick::Goes(self.report())
    }

    fn enter(&mut self, state: State, limit: Duration, now: Instant) {
        self.state = state;
        self.checkpoint = 1;
        // A limit beyond the range of the clock means no limit.
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

    fn states(progress: &Progress) -> (State, u32, Controls) {
        let report = progress.report();
        (report.state, report.checkpoint, report.controls)
    }

    #[track_caller]
    fn goes(tick: Tick) -> Report {
        match tick {
            Tick::Goes(report) => report,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_life_goes_through_all_states() {
        let now = Instant::now();
        let mut progress = progress(now);
        assert_eq!(states(&progress), (State::StartPending, 1, Controls::Stops));
        assert!(!progress.wanted(Control::Pause, now), "not yet");
        assert!(progress.did(None));
        assert_eq!(states(&progress), (State::Running, 0, Controls::All));
        assert!(!progress.did(None), "once");
        assert!(!progress.wanted(Control::Continue, now));
        assert!(progress.wanted(Control::Pause, now));
        assert_eq!(states(&progress), (State::PausePending, 1, Controls::Stops));
        assert!(progress.did(Some(Control::Pause)));
        assert_eq!(states(&progress), (State::Paused, 0, Controls::All));
        assert!(progress.wanted(Control::Custom(200), now));
        assert_eq!(states(&progress), (State::Paused, 0, Controls::All));
        assert!(progress.wanted(Control::Continue, now));
        assert!(progress.did(Some(Control::Continue)));
        assert!(progress.wanted(STOP, now));
        assert_eq!(states(&progress), (State::StopPending, 1, Controls::None));
        assert!(!progress.wanted(STOP, now), "it has heard");
        assert!(!progress.did(Some(Control::Pause)));
        let report = progress.ended(End::Code(75));
        assert_eq!(
            (report.state, report.end),
            (State::Stopped, Some(End::Code(0))),
            "a requested stop is a success"
        );
        assert_eq!(progress.wake_at(), None);
    }

    #[test]
    fn an_end_that_nobody_requested_keeps_its_code() {
        let now = Instant::now();
        let mut progress = progress(now);
        progress.did(None);
        assert_eq!(progress.ended(End::Code(75)).end, Some(End::Code(75)));
    }

    #[test]
    fn a_pending_state_ticks_as_long_as_it_may_last() {
        let now = Instant::now();
        let mut progress = progress(now);
        assert_eq!(progress.tick(now), Tick::TooSoon);
        assert_eq!(progress.wake_at(), Some(now + SECOND));
        assert_eq!(goes(progress.tick(now + SECOND)).checkpoint, 2);
        progress.extend(5 * SECOND, now + SECOND);
        for second in 2..6 {
            assert_eq!(
                goes(progress.tick(now + second * SECOND)).checkpoint,
                second + 1
            );
        }
        assert!(progress.did(None), "late is better than never");
        assert_eq!(progress.report().wait_hint, Duration::ZERO);
        assert_eq!(progress.wake_at(), None);
    }

    /// Each pending state ends at its limit without being queried: the limit is a wake-up time.
    #[test]
    fn every_pending_state_has_an_end() {
        let check = |enter: fn(&mut Progress, Instant), state: State, end: End| {
            let now = Instant::now();
            let mut progress = progress(now);
            enter(&mut progress, now);
            assert_eq!(progress.report().state, state);
            let at = loop {
                let at = progress.wake_at().expect("a pending state has an end");
                assert!(at <= now + 3 * SECOND, "{state}: it goes on for ever");
                if let Tick::Overdue(overdue, report) = progress.tick(at) {
                    assert_eq!((overdue, at), (state, now + 3 * SECOND));
                    assert_eq!((report.state, report.end), (State::Stopped, Some(end)));
                    break at;
                }
            };
            assert_eq!(progress.tick(at + 9 * SECOND), Tick::TooSoon);
            assert_eq!(progress.wake_at(), None);
        };
        check(|_, _| {}, State::StartPending, End::Overdue);
        check(
            |progress, now| {
                progress.did(None);
                progress.wanted(Control::Pause, now);
            },
            State::PausePending,
            End::Overdue,
        );
        check(
            |progress, now| {
                progress.did(None);
                progress.wanted(Control::Pause, now);
                progress.did(Some(Control::Pause));
                progress.wanted(Control::Continue, now);
            },
            State::ContinuePending,
            End::Overdue,
        );
        check(
            |progress, now| {
                progress.wanted(STOP, now);
            },
            State::StopPending,
            End::Code(0),
        );
    }

    #[test]
    fn what_may_last_for_ever_ticks_for_ever() {
        let now = Instant::now();
        let mut progress = Progress::new(Duration::MAX, Duration::MAX, Accepts::default(), now);
        for second in 1..1000 {
            let report = goes(progress.tick(now + second * SECOND));
            assert_eq!(report.checkpoint, second + 1);
        }
    }
}
