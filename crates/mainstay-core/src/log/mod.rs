//! Log files and lines.
//!
//! The rules for files cover their names, the point at which one ends, rotation schedules,
//! retention and time indexes. The rules for lines cover the level (`level`), redaction
//! ([`redact`]) and the format in the file ([`refine`]).

mod index;
mod json;
mod level;
mod name;
pub mod redact;
mod retention;
mod schedule;

pub use index::{Head, Mark};
pub use name::{CURRENT_INDEX, LogName, files, leftovers};
pub use retention::surplus;
pub use schedule::next_boundary;

pub mod encoding;
pub mod refine;

pub mod stored;

pub mod journald;
mod line;
pub mod syslog;

pub use line::{Line, Stream};

use crate::time::{civil, days};

/// The name of the file being written. It counts as newer than every rotated file.
pub const CURRENT: &str = "current.log";

/// The time at which a file was rotated: microseconds since 1970, UTC. Up to the year 9999, the
/// text form sorts in the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(u64);

impl Stamp {
    const SECOND: u64 = 1_000_000;
    const DAY: u64 = 86_400 * Self::SECOND;

    /// Creates the stamp `micros` microseconds after 1970-01-01T00:00:00Z.
    pub const fn from_unix_micros(micros: u64) -> Self {
        Self(micros)
    }
    /// Returns the microseconds since 1970-01-01T00:00:00Z.
    pub const fn unix_micros(self) -> u64 {
        self.0
    }
    /// Returns this stamp. If the clock stood still or went back, returns the first stamp after
    /// `previous`.
    #[must_use]
    pub fn after(self, previous: Option<Self>) -> Self {
        previous.map_or(self, |previous| {
            self.max(Self(previous.0.saturating_add(1)))
        })
    }

    /// Returns the file name, such as `20261122T101112.123456Z.log`.
    pub fn file_name(self) -> String {
        let (year, month, day) = civil(self.0 / Self::DAY);
        let second = self.0 % Self::DAY / Self::SECOND;
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let micros = self.0 % Self::SECOND;
        format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}.{micros:06}Z.log")
    }

    /// Parses the name of a rotated file, compressed or not. Returns `None` unless the name is
    /// exactly of the form of [`Stamp::file_name`].
    pub fn of_file_name(name: &str) -> Option<Self> {
        let plain = name
            .strip_suffix(".zst")
            .or_else(|| name.strip_suffix(".gz"))
            .unwrap_or(name);
        let number = |from: usize, to: usize| -> Option<u64> {
            let digits = plain.get(from..to)?;
            digits.bytes().all(|b| b.is_ascii_digit()).then_some(())?;
            digits.parse().ok()
        };
        let days = days(number(0, 4)?, number(4, 6)?, number(6, 8)?)?;
        let second = number(9, 11)? * 3600 + number(11, 13)? * 60 + number(13, 15)?;
        let stamp = Self(days * Self::DAY + second * Self::SECOND + number(16, 22)?);
        (stamp.file_name() == plain).then_some(stamp)
    }
}

/// The size of a file, and the state of its last line, as far as rotation depends on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Extent {
    /// The size of the file in bytes.
    pub size: u64,
    /// Set if the last byte is not the end of a line.
    pub mid_line: bool,
}

/// The number of bytes by which one line may extend a file beyond its limit. It bounds the disk
/// usage of a service that never ends its line. Readers split longer lines into pieces of this
/// length.
pub const LINE_MAX: u64 = 1 << 20;

/// Returns the number of `bytes` to append to a file of this extent before it is rotated at `limit`
/// bytes; 0 means to rotate it first.
///
/// The file ends with the last line that fits completely. A line that began in the file, or that
/// alone exceeds the limit, stays in one piece up to [`LINE_MAX`] bytes beyond the limit. The rest
/// of a longer line continues in the next file.
pub fn fitting(file: Extent, limit: u64, bytes: &[u8]) -> usize {
    let room = usize::try_from(limit.saturating_sub(file.size)).unwrap_or(usize::MAX);
    if bytes.len() <= room {
        return bytes.len();
    }
    let is_end = |b: &u8| *b == b'\n';
    match bytes[..room].iter().rposition(is_end) {
        Some(end) => end + 1,
        None if file.size > 0 && !file.mid_line => 0,
        None => {
            let most = limit.saturating_add(LINE_MAX).saturating_sub(file.size);
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            let bytes = &bytes[..bytes.len().min(most)];
            bytes
                .iter()
                .position(is_end)
                .map_or(bytes.len(), |end| end + 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_the_time_and_are_read_back() {
        let check = |micros, name: &str| {
            let stamp = Stamp::from_unix_micros(micros);
            assert_eq!(stamp.file_name(), name);
            assert_eq!(Stamp::of_file_name(name), Some(stamp));
        };
        check(0, "19700101T000000.000000Z.log");
        check(951_782_400_000_001, "20000229T000000.000001Z.log");
        check(1_795_342_272_123_456, "20261122T101112.123456Z.log");
        check(253_402_300_799_999_999, "99991231T235959.999999Z.log");
    }

    #[test]
    fn names_sort_by_age() {
        let mut previous = Stamp::from_unix_micros(0);
        for step in (1..200_000_000_000_000_000).step_by(999_983_000_000_007) {
            let stamp = Stamp::from_unix_micros(step);
            assert!(previous.file_name() < stamp.file_name(), "{stamp:?}");
            assert_eq!(Stamp::of_file_name(&stamp.file_name()), Some(stamp));
            previous = stamp;
        }
    }

    #[test]
    fn a_clock_that_stands_or_steps_back_still_yields_later_names() {
        let (early, late) = (Stamp::from_unix_micros(5), Stamp::from_unix_micros(9));
        assert_eq!(late.after(Some(early)), late);
        assert_eq!(late.after(Some(late)), Stamp::from_unix_micros(10));
        assert_eq!(early.after(Some(late)), Stamp::from_unix_micros(10));
        assert_eq!(early.after(None), early);
    }

    #[test]
    fn only_our_own_names_are_recognised() {
        let ours = |name| Stamp::of_file_name(name).is_some();
        assert!(ours("20261122T101112.123456Z.log.zst"));
        assert!(ours("20261122T101112.123456Z.log.gz"));
        for name in [
            "current.log",
            "20261122T101112.123456Z.log.bak",
            "20261122T101112.123456Z",
            "20261122T101112.12345Z.log",
            "20261122t101112.123456Z.log",
            "20261322T101112.123456Z.log",
            "20260230T101112.123456Z.log",
            "20261122T101160.123456Z.log",
            "+0261122T101112.123456Z.log",
            "x20261122T101112.123456Z.log",
            "2026112\u{e9}T101112.12345Z.log",
            "",
        ] {
            assert!(!ours(name), "{name}");
        }
    }

    #[test]
    fn a_file_ends_with_the_last_line_that_fits() {
        let check = |size, mid_line, limit, bytes: &str, expect| {
            let file = Extent { size, mid_line };
            let taken = fitting(file, limit, bytes.as_bytes());
            assert_eq!(taken, expect, "{file:?} limit {limit} {bytes:?}");
        };
        check(0, false, 10, "ab\ncd\n", 6);
        check(0, false, 5, "ab\ncd\n", 3);
        check(3, false, 5, "cd\nef\n", 0); // the next line does not fit: rotate
        check(3, true, 5, "cd\nef\n", 3); // the line was begun here: it ends here
        check(0, false, 2, "abcd\ne\n", 5); // longer than the limit
        check(0, false, 2, "abcd", 4);
        check(9, true, 5, "abcd", 4); // no end in sight
        check(9, false, 5, "\n", 0);
        check(0, false, 0, "ab\ncd\n", 3); // a limit of nothing: a file a line
        // An overlong line is split.
        check(4 + LINE_MAX, true, 5, "abcd", 1);
        check(4 + LINE_MAX, true, 5, "\nabcd", 1);
        check(5 + LINE_MAX, true, 5, "abcd\n", 0);
        check(9 + LINE_MAX, true, 5, "abcd\n", 0);
        check(9 + LINE_MAX, true, u64::MAX, "abcd\n", 5);
    }
}
