//! The time as the core knows it: it is given, never asked for.

use std::ops::Add;
use std::time::Duration;

/// A point on the host's monotonic clock, counted from when the host started.
///
/// It never goes back; it may jump forward by hours when a machine was suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Instant(Duration);

impl Instant {
    /// When the host started.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// `elapsed` after the host started.
    pub const fn at(elapsed: Duration) -> Self {
        Self(elapsed)
    }
    /// How long after the host started.
    pub const fn elapsed(self) -> Duration {
        self.0
    }
    /// How long after `earlier`; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}
