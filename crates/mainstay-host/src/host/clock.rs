//! The clock of a host.
//!
//! Durations, windows, limits and deadlines are measured by the monotonic clock, which counts the
//! time in which the machine was running. Neither a step of the calendar clock nor a suspension of
//! the machine changes them, as services do not run during a suspension either. The ledger measures
//! in the same way from boot. Timestamps that people read (events, alerts, `since`, log lines) come
//! from the calendar clock as it was at that moment.
//!
//! An event carries the time at which it was observed at its source (the handler of SIGCHLD, the
//! thread or task that sends a [`Wake`]), not the time at which the loop processes it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mainstay_core::time::{Instant, rfc3339};
use tokio::sync::mpsc::UnboundedSender;

use super::Wake;

/// The deviation of the calendar clock that counts as a step: the clock was set, or the machine
/// slept.
const STEP: Duration = Duration::from_millis(100);
/// The number of steps that are remembered.
const MOST_STEPS: usize = 64;

/// Converts between the engine's time, the system's monotonic time and the calendar.
pub(super) struct Clock {
    /// The start of the engine's time.
    began: std::time::Instant,
    steps: RefCell<Steps>,
}

/// The offsets of the calendar to the engine's time, and the moments from which they apply, oldest
/// first.
#[derive(Default)]
struct Steps {
    offsets: VecDeque<(Instant, Duration)>,
    seen: Instant,
}

impl Clock {
    /// Creates a clock whose time began this long ago. With adopted services, that is before the
    /// start of this process.
    pub(super) fn new(age: Duration) -> Self {
        let now = std::time::Instant::now();
        Self {
            began: now.checked_sub(age).unwrap_or(now),
            steps: RefCell::default(),
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.engine(std::time::Instant::now())
    }

    pub(super) fn engine(&self, at: std::time::Instant) -> Instant {
        Instant::at(at.saturating_duration_since(self.began))
    }

    pub(super) fn system(&self, at: Instant) -> std::time::Instant {
        self.began + at.elapsed()
    }

    /// Returns the date and time at `at`, by the calendar clock as it was then.
    pub(super) fn calendar(&self, at: Instant) -> String {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let mut steps = self.steps.borrow_mut();
        rfc3339(steps.at(at, self.now(), since_1970.unwrap_or_default()))
    }
}

impl Steps {
    /// Returns the calendar time at `at`, where `calendar` is the current one.
    fn at(&mut self, at: Instant, now: Instant, calendar: Duration) -> Duration {
        let current = calendar.saturating_sub(now.elapsed());
        let since = std::mem::replace(&mut self.seen, now);
        let last = self.offsets.back().map(|(_, offset)| *offset);
        if last.is_none_or(|last| last.abs_diff(current) >= STEP) {
            self.offsets.push_back((since, current));
            if self.offsets.len() > MOST_STEPS {
                self.offsets.pop_front();
            }
        }
        let mut earlier = self.offsets.iter().rev();
        let known = earlier.find(|(from, _)| *from < at);
        let known = known.or(self.offsets.front());
        match known {
            Some((_, offset)) if at <= since => *offset + at.elapsed(),
            _ => current + at.elapsed(),
        }
    }
}

/// A sender of messages to the loop. Each message carries the time at which it was sent, as the
/// loop may process it late.
#[derive(Clone)]
pub(super) struct ToLoop(pub(super) UnboundedSender<(std::time::Instant, Wake)>);

impl ToLoop {
    /// Sends a message. This fails only if the loop has ended, which can be ignored.
    pub(super) fn send(&self, message: impl Into<Wake>) {
        let _ = self.0.send((std::time::Instant::now(), message.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that only counts on from its start is wrong after the first step.
    #[test]
    fn the_calendar_is_as_it_was_when_the_thing_happened() {
        let seconds = Duration::from_secs;
        let at = |time| Instant::at(seconds(time));
        let mut steps = Steps::default();
        let mut check = |time, now, calendar, expect| {
            let seen = steps.at(at(time), at(now), seconds(calendar));
            assert_eq!(seen, seconds(expect), "{time} at {now}");
        };
        check(0, 0, 1000, 1000);
        check(10, 10, 1010, 1010);
        // The machine slept for an hour; an event was observed just before the loop processed it.
        check(19, 20, 4620, 4619);
        check(10, 21, 4621, 1010);
        check(20, 21, 4621, 4620);
        // The clock is set back.
        check(30, 30, 530, 530);
        check(20, 31, 531, 4620);
        check(10, 32, 532, 1010);
        // A future attempt.
        check(60, 40, 540, 560);
        for step in 0..1000 {
            check(100 + step, 100 + step, 5000 + step * 10, 5000 + step * 10);
        }
        assert!(steps.offsets.len() <= MOST_STEPS);
    }
}
