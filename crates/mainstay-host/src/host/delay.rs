//! Detection of delays of this process: it was suspended (SIGSTOP, a frozen container), or the
//! machine is overloaded.
//!
//! Services keep running meanwhile, and their output and notifications wait in pipes and sockets. A
//! time limit that passes during a delay therefore proves nothing: the probe is repeated
//! ([`Unasked::Delayed`](mainstay_core::engine::Unasked)), and the engine is informed that its
//! deadline is late ([`Event::Late`]).

use std::time::{Duration, Instant};

use mainstay_core::engine::Event;

/// The lateness of a timer that counts as a delay. A shorter time limit tolerates half of its
/// length.
const TOLERANCE: Duration = Duration::from_millis(500);
/// The same for the engine's deadline, where a false alarm costs almost nothing.
const LATE: Duration = Duration::from_millis(100);
/// The interval at which a limit checks for delays.
const STEP: Duration = Duration::from_secs(1);
/// The limit of consecutive late deadlines. If the machine is so slow that all of them are late,
/// decisions are due nevertheless.
const MOST_LATE: u32 = 10;

/// A time limit that detects delays.
pub(super) struct Limit {
    end: Instant,
    tolerance: Duration,
    /// The time at which the timer fires next.
    next: Instant,
    was_delayed: bool,
}

impl Limit {
    /// Creates a limit that starts now.
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

    /// Returns when the limit has passed. Cancel-safe.
    pub(super) async fn over(&mut self) {
        while Instant::now() < self.end {
            tokio::time::sleep_until(self.next.into()).await;
            self.look();
        }
    }

    /// Returns whether this process was suspended or delayed for a part of the time until now.
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

/// Sleeps for `limit`, and again if this process was delayed meanwhile, as the awaited event may
/// have occurred.
pub(super) async fn undelayed(limit: Duration) {
    loop {
        let mut sleep = Limit::new(limit);
        sleep.over().await;
        if !sleep.was_delayed() {
            return;
        }
    }
}

/// Distinguishes late deadlines of the engine from timely ones.
#[derive(Default)]
pub(super) struct Deadlines {
    late: u32,
}

impl Deadlines {
    /// Returns the event for a deadline that is processed this late.
    pub(super) fn event(&mut self, by: Duration) -> Event {
        if by > LATE && self.late < MOST_LATE {
            self.late += 1;
            return Event::Late;
        }
        self.late = 0;
        Event::Tick
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_deadlines_count_only_if_all_of_them_are_late() {
        let mut deadlines = Deadlines::default();
        let (timely, late) = (LATE, LATE + Duration::from_millis(1));
        assert_eq!(deadlines.event(timely), Event::Tick);
        for round in 0..2 {
            for _ in 0..MOST_LATE {
                assert_eq!(deadlines.event(late), Event::Late, "{round}");
            }
            assert_eq!(deadlines.event(late), Event::Tick, "{round}");
        }
        // A timely one shows that the machine is fast enough.
        assert_eq!(deadlines.event(late), Event::Late);
        assert_eq!(deadlines.event(timely), Event::Tick);
        for _ in 0..MOST_LATE {
            assert_eq!(deadlines.event(late), Event::Late);
        }
    }
}
