//! Delays of this process: it was suspended (SIGSTOP, a frozen container), or the machine is overloaded.
//!
//! Services run on meanwhile, and what they do waits in pipes and sockets. So a time limit that passes during a delay proves
//! nothing: a question is asked again ([`Unasked::Delayed`](mainstay_core::engine::Unasked)), and the engine is told that its
//! deadline comes late ([`Event::Late`]).

use std::time::{Duration, Instant};

use mainstay_core::engine::Event;

/// A timer that fires later than this was delayed; a shorter time limit tolerates half of itself.
const TOLERANCE: Duration = Duration::from_millis(500);
/// The same for the engine's deadline, where a false alarm costs next to nothing.
const LATE: Duration = Duration::from_millis(100);
/// How often a limit looks whether it was delayed.
const STEP: Duration = Duration::from_secs(1);
/// So many deadlines in a row may be late. If the machine is so slow that all of them are, verdicts are due nevertheless.
const MOST_LATE: u32 = 10;

/// A time limit that notices delays.
pub(super) struct Limit {
    end: Instant,
    tolerance: Duration,
    /// When the timer fires next.
    next: Instant,
    was_delayed: bool,
}

impl Limit {
    /// Begins now.
    pub(super) fn new(limit: Duration) -> Self {
        let now = Instant::now();
        let end = now + limit;
        Self {
            end,
            tolerance: (limit / 2).min(TOLERANCE),
            next: end.min(now + STEP),
            was_delayed: false,
        }
    }

    /// Returns when it is over. Cancel-safe.
    pub(super) async fn over(&mut self) {
        while Instant::now() < self.end {
            tokio::time::sleep_until(self.next.into()).await;
            self.look();
        }
    }

    /// Whether this process did not run for a part of the time until now.
    pub(super) fn was_delayed(&mut self) -> bool {
        self.look();
        self.was_delayed
    }

    fn look(&mut self) {
        let now = Instant::now();
        self.was_delayed |= now > self.next + self.tolerance;
        self.next = self.end.min(now + STEP);
    }
}

/// Sleeps for `limit`, and again if this process was delayed meanwhile: what it waits for may have happened.
pub(super) async fn undelayed(limit: Duration) {
    loop {
        let mut sleep = Limit::new(limit);
        sleep.over().await;
        if !sleep.was_delayed() {
            return;
        }
    }
}

/// Tells the engine's deadlines from those that come late.
#[derive(Default)]
pub(super) struct Deadlines {
    late: u32,
}

impl Deadlines {
    /// The event of a deadline that was due at `at`.
    pub(super) fn event(&mut self, at: Instant) -> Event {
        if at.elapsed() > LATE && self.late < MOST_LATE {
            self.late += 1;
            return Event::Late;
        }
        self.late = 0;
        Event::Tick
    }
}
