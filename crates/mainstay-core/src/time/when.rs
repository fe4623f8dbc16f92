//! Parsing of points in time as people type them: `10:11`, `yesterday`, `15m` ago.

use super::{clock, date};

/// The forms that [`when`] accepts, for error messages.
pub const WHEN: &str = "2026-11-22T10:11:12Z (or +01:00), 2026-11-22, 2026-11-22 10:11[:12], 10:11[:12] (today), \
     today, yesterday, 15m (ago; also s, h, d, w; 1h30m), @SECONDS since 1970";

const SECOND: i128 = 1_000_000;
const DAY: i128 = 86_400 * SECOND;

/// Parses `text` as a point in time and returns the microseconds since 1970, UTC. `now` has the
/// same unit. `utc_offset` is the local offset from UTC in seconds, for forms without an offset of
/// their own. Returns `None` if `text` is not one of [`WHEN`], or the time is before 1970.
pub fn when(text: &str, now: u64, utc_offset: i32) -> Option<u64> {
    let ahead = i128::from(utc_offset) * SECOND;
    let now = i128::from(now);
    let midnight = (now + ahead).div_euclid(DAY) * DAY - ahead;
    let text = text.trim_ascii();
    let time = match text {
        "now" => now,
        "today" => midnight,
        "yesterday" => midnight - DAY,
        _ => match text.strip_prefix('@') {
            Some(seconds) => {
                let (seconds, decimals) = number_and_decimals(seconds)?;
                i128::from(seconds) * SECOND + decimals
            }
            None => ago(text.strip_prefix('-').unwrap_or(text))
                .map(|span| now - span)
                .or_else(|| time_of_day(text).map(|time| midnight + time))
                .or_else(|| dated(text, ahead))?,
        },
    };
    u64::try_from(time).ok()
}

/// Parses a duration such as `1h30m`.
fn ago(mut text: &str) -> Option<i128> {
    let mut sum = 0;
    while !text.is_empty() {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = text.split_at(digits);
        let mut rest = rest.chars();
        let unit = match rest.next()? {
            's' => SECOND,
            'm' => 60 * SECOND,
            'h' => 3600 * SECOND,
            'd' => DAY,
            'w' => 7 * DAY,
            _ => return None,
        };
        sum += i128::from(number.parse::<u32>().ok()?) * unit;
        text = rest.as_str();
    }
    (sum > 0).then_some(sum)
}

/// Parses a time of day: `10:11`, `10:11:12`, `10:11:12.5`.
fn time_of_day(text: &str) -> Option<i128> {
    let mut parts = text.split(':');
    let (hour, minute) = (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let (second, decimals) = match parts.next() {
        Some(second) => {
            let whole = second.split('.').next()?;
            (digits(whole, 2)?, number_and_decimals(second)?.1)
        }
        None => (0, 0),
    };
    let time = clock(hour, minute, second)?;
    parts
        .next()
        .is_none()
        .then_some(i128::from(time) * SECOND + decimals)
}

/// Parses a date with an optional time of day, which may have an offset.
fn dated(text: &str, ahead: i128) -> Option<i128> {
    let (day, rest) = text.split_at_checked(10)?;
    let mut parts = day.split('-');
    let mut part = |width| digits(parts.next()?, width);
    let (year, month, day_of_month) = (part(4)?, part(2)?, part(2)?);
    let midnight = i128::from(date(year, month, day_of_month)?) * DAY;
    if rest.is_empty() {
        return Some(midnight - ahead);
    }
    let time = rest.strip_prefix(['T', 't', ' '])?;
    if let Some(time) = time.strip_suffix(['Z', 'z']) {
        return Some(midnight + time_of_day(time)?);
    }
    let Some(sign) = time.rfind(['+', '-']) else {
        return Some(midnight + time_of_day(time)? - ahead);
    };
    let (time, offset) = time.split_at(sign);
    let (sign, offset) = offset.split_at(1);
    let (hours, minutes) = offset.split_once(':')?;
    let offset = clock(digits(hours, 2)?, digits(minutes, 2)?, 0)?;
    let ahead = i128::from(offset) * SECOND * if sign == "-" { -1 } else { 1 };
    Some(midnight + time_of_day(time)? - ahead)
}

/// Parses exactly `width` digits.
fn digits(text: &str, width: usize) -> Option<u64> {
    let is_one = text.len() == width && text.bytes().all(|b| b.is_ascii_digit());
    is_one.then(|| text.parse().ok())?
}

/// Parses `12.5` into 12 and 500 000 millionths.
fn number_and_decimals(text: &str) -> Option<(u64, i128)> {
    let (number, decimals) = match text.split_once('.') {
        Some((_, "")) => return None,
        Some((number, decimals)) => (number, decimals),
        None => (text, ""),
    };
    let are_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    (are_digits(number) && are_digits(decimals)).then_some(())?;
    let millionths = decimals.bytes().chain(*b"000000").take(6);
    let millionths = millionths.fold(0, |sum, digit| sum * 10 + i128::from(digit - b'0'));
    Some((number.parse().ok()?, millionths))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::rfc3339_at_start;

    #[test]
    fn what_people_type() {
        // 02:30 in UTC is still the day before in New York.
        let now = rfc3339_at_start(b"2026-11-22T02:30:00.250Z").unwrap().0;
        const NEW_YORK: i32 = -5 * 3600;
        const DELHI: i32 = 5 * 3600 + 1800;
        for (text, utc_offset, expect) in [
            ("2026-11-22T10:11:12Z", NEW_YORK, "2026-11-22T10:11:12Z"),
            (
                "2026-11-22t10:11:12.1234567z",
                0,
                "2026-11-22T10:11:12.123456Z",
            ),
            ("2026-11-22T10:11:12+01:00", 0, "2026-11-22T09:11:12Z"),
            ("2026-11-22 10:11:12-05:30", DELHI, "2026-11-22T15:41:12Z"),
            ("2026-11-22T23:59:60Z", 0, "2026-11-23T00:00:00Z"),
            ("2026-11-22T10:11", 0, "2026-11-22T10:11:00Z"),
            ("2026-11-22 10:11:12", 0, "2026-11-22T10:11:12Z"),
            ("2026-11-22 10:11", DELHI, "2026-11-22T04:41:00Z"),
            ("2026-11-22", NEW_YORK, "2026-11-22T05:00:00Z"),
            (" 2026-11-22 ", 0, "2026-11-22T00:00:00Z"),
            ("10:11", 0, "2026-11-22T10:11:00Z"),
            ("10:11:12.5", 0, "2026-11-22T10:11:12.5Z"),
            ("10:11", NEW_YORK, "2026-11-21T15:11:00Z"),
            ("now", 0, "2026-11-22T02:30:00.250Z"),
            ("today", 0, "2026-11-22T00:00:00Z"),
            ("today", NEW_YORK, "2026-11-21T05:00:00Z"),
            ("today", DELHI, "2026-11-21T18:30:00Z"),
            ("yesterday", 0, "2026-11-21T00:00:00Z"),
            ("-15m", NEW_YORK, "2026-11-22T02:15:00.250Z"),
            ("15m", 0, "2026-11-22T02:15:00.250Z"),
            ("90s", 0, "2026-11-22T02:28:30.250Z"),
            ("2h", 0, "2026-11-22T00:30:00.250Z"),
            ("1h30m", 0, "2026-11-22T01:00:00.250Z"),
            ("3d", 0, "2026-11-19T02:30:00.250Z"),
            ("1w", 0, "2026-11-15T02:30:00.250Z"),
            ("@0", 0, "1970-01-01T00:00:00Z"),
            ("@1795342272.5", DELHI, "2026-11-22T10:11:12.5Z"),
        ] {
            let expect = rfc3339_at_start(expect.as_bytes()).map(|(micros, _)| micros);
            assert!(expect.is_some());
            assert_eq!(
                when(text, now, utc_offset),
                expect,
                "{text} at {utc_offset}"
            );
        }
    }

    #[test]
    fn what_means_nothing() {
        for text in [
            "",
            "-",
            "@",
            "@-1",
            "@1.",
            "x",
            "15",
            "15x",
            "m",
            "0m",
            "1h-30m",
            "--15m",
            "tomorrow",
            "24:00",
            "10:60",
            "1:11",
            "10:11:",
            "10:11:12:13",
            "10:11:61",
            "10:11:12.",
            "2026-11",
            "2026-11-31",
            "2026-13-01",
            "1969-12-31",
            "2026-11-22T",
            "2026-11-22Z",
            "2026-11-22T10",
            "2026-11-22T10:11:12+1",
            "2026-11-22T10:11+25:00",
            "2026-11-22x10:11",
            "20261122T101112Z",
            "60000d",
            "99999999999999999999s",
            "@99999999999999999999",
            "2026-11-2\u{e9}",
        ] {
            assert_eq!(when(text, 1_795_342_272_000_000, 0), None, "{text}");
        }
    }
}
