//! Time types of the core. The core never reads a clock; callers pass the time in.
//!
//! Only dates in UTC are needed here. A library for dates would add 200 kB to the program.

mod when;

use std::ops::Add;
use std::time::Duration;

pub use when::{WHEN, when};

/// A point on the host's monotonic clock, counted from the start of the host.
///
/// The clock never goes backwards. It may jump forward by hours after the machine was suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Instant(Duration);

impl Instant {
    /// The start of the host.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// Creates the instant `elapsed` after the start of the host.
    pub const fn at(elapsed: Duration) -> Self {
        Self(elapsed)
    }
    /// Returns the time since the start of the host.
    pub const fn elapsed(self) -> Duration {
        self.0
    }
    /// Returns the time since `earlier`, or zero if `earlier` is later.
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

/// Formats a UTC time as RFC 3339 with milliseconds: `2026-11-22T10:11:12.123Z`. `since_epoch`
/// counts from 1970.
pub fn rfc3339(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let millis = since_epoch.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Parses the timestamp at the start of `text`, in the format of [`rfc3339`] but with any number of
/// decimals. Returns the microseconds since 1970 and the length of the timestamp in bytes.
pub(crate) fn rfc3339_at_start(text: &[u8]) -> Option<(u64, usize)> {
    let (head, rest) = text.split_at_checked(19)?;
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    separators
        .iter()
        .all(|&(at, byte)| head[at] == byte)
        .then_some(())?;
    let number = |from: usize, to: usize| {
        head[from..to].iter().try_fold(0, |number, digit| {
            digit
                .is_ascii_digit()
                .then(|| number * 10 + u64::from(digit - b'0'))
        })
    };
    let day = date(number(0, 4)?, number(5, 7)?, number(8, 10)?)?;
    let second = clock(number(11, 13)?, number(14, 16)?, number(17, 19)?)?;
    let decimals = match rest.strip_prefix(b".") {
        Some(rest) => rest.iter().take_while(|b| b.is_ascii_digit()).count() + 1,
        None => 0,
    };
    let micros = rest[..decimals].iter().skip(1).chain(b"000000").take(6);
    let micros = micros.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    let is_whole = decimals != 1 && rest.get(decimals) == Some(&b'Z');
    is_whole.then_some((
        (day * 86_400 + second) * 1_000_000 + micros,
        head.len() + decimals + 1,
    ))
}

/// Returns the number of days from 1970-01-01 to a date; `None` if the date does not exist.
fn date(year: u64, month: u64, day: u64) -> Option<u64> {
    let count = days(year, month, day)?;
    (civil(count) == (year, month, day)).then_some(count)
}

/// Returns the second of the day. A leap second (60) counts as the next second.
fn clock(hour: u64, minute: u64, second: u64) -> Option<u64> {
    (hour < 24 && minute < 60 && second <= 60).then_some(hour * 3600 + minute * 60 + second)
}

/// Converts days since 1970-01-01 to a proleptic Gregorian date. Eras of 400 years begin on 1
/// March, so that the leap day is the last day of its year (H. Hinnant, "chrono-compatible
/// low-level date algorithms").
pub(crate) fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Computes the inverse of [`civil`]; `None` before 1970. A day beyond the end of its month yields
/// the day count of a later date.
pub(crate) fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = year.checked_sub(u64::from(month <= 2))?;
    let (era, year_of_era) = (year / 400, year % 400);
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted + 2) / 5 + day.checked_sub(1)?;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, expect) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_799, "2000-02-29T23:59:59.000Z"),
            (1_795_428_672, "2026-11-23T10:11:12.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(Duration::from_secs(seconds)), expect);
            let micros = seconds * 1_000_000;
            assert_eq!(rfc3339_at_start(expect.as_bytes()), Some((micros, 24)));
        }
    }

    #[test]
    fn stamps_at_the_start_of_text() {
        for (text, expect) in [
            ("1970-01-01T00:00:01Z x", Some((1_000_000, 20))),
            ("1970-01-01T00:00:00.5Z", Some((500_000, 22))),
            ("1970-01-01T00:00:00.1234567Z", Some((123_456, 28))),
            ("1970-01-01T00:00:00.Z", None),
            ("1970-01-01T00:00:00.123", None),
            ("1970-01-01T00:00:00+01:00", None),
            ("1970-02-30T00:00:00Z", None),
            ("1970-13-01T00:00:00Z", None),
            ("1970-01-01T24:00:00Z", None),
            ("1970-01-01 00:00:00Z", None),
            ("1969-12-31T00:00:00Z", None),
            ("1970-01-01T00:00:0\u{e9}", None),
            ("", None),
        ] {
            assert_eq!(rfc3339_at_start(text.as_bytes()), expect, "{text}");
        }
    }
}
