//! Parsing and formatting of durations (`"1m30s"`) and sizes (`"10MB"`).

use std::fmt;
use std::time::Duration;

/// The maximum duration. A longer one is a typing error.
const LONGEST: Duration = Duration::from_secs(3650 * 24 * 60 * 60);

/// The units from largest to smallest, in which order they must be combined.
const UNITS: [(&str, Duration); 6] = [
    ("d", Duration::from_secs(24 * 60 * 60)),
    ("h", Duration::from_secs(60 * 60)),
    ("m", Duration::from_secs(60)),
    ("s", Duration::from_secs(1)),
    ("ms", Duration::from_millis(1)),
    ("us", Duration::from_micros(1)),
];

/// The reason why a text is not a duration. `Display` states the correct form.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DurationError {
    /// The number, or the whole text, is missing.
    NoNumber,
    /// The unit after these digits is missing.
    NoUnit(String),
    /// The number has a fraction.
    Fraction,
    /// A unit is repeated, or follows a smaller one.
    Order,
    /// The unit is unknown.
    UnknownUnit,
    /// The duration is too long.
    TooLong,
}

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoNumber => "write a number and a unit: \"30s\"",
            Self::NoUnit(digits) => {
                return write!(f, "the unit is missing: write \"{digits}s\" for seconds");
            }
            Self::Fraction => "write whole numbers: \"1500ms\", \"1m30s\"",
            Self::Order => "write each unit once, the largest first: \"1m30s\"",
            Self::UnknownUnit => "the units are d, h, m, s, ms and us",
            Self::TooLong => "the longest duration is 3650d",
        })
    }
}

impl std::error::Error for DurationError {}

/// Parses a duration as written in manifests: `"100ms"`, `"30s"`, `"1m30s"`, `"7d"`.
///
/// # Errors
/// If `text` is not a duration.
pub fn duration(text: &str) -> Result<Duration, DurationError> {
    if text.is_empty() {
        return Err(DurationError::NoNumber);
    }
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (digits, after) = split(rest, |c| c.is_ascii_digit());
        let (unit, after) = split(after, |c| !c.is_ascii_digit());
        rest = after;
        if digits.is_empty() {
            return Err(DurationError::NoNumber);
        }
        if unit.is_empty() {
            return Err(DurationError::NoUnit(digits.to_owned()));
        }
        if unit.starts_with('.') {
            return Err(DurationError::Fraction);
        }
        let Some((_, one)) = units.find(|(name, _)| *name == unit) else {
            return Err(if UNITS.iter().any(|(name, _)| *name == unit) {
                DurationError::Order
            } else {
                DurationError::UnknownUnit
            });
        };
        let part = digits.parse::<u128>().ok();
        total = part
            .and_then(|count| one.as_nanos().checked_mul(count))
            .and_then(|nanos| nanos.checked_add(total.as_nanos()))
            .filter(|nanos| *nanos <= LONGEST.as_nanos())
            .and_then(|nanos| u64::try_from(nanos).ok())
            .map(Duration::from_nanos)
            .ok_or(DurationError::TooLong)?;
    }
    Ok(total)
}

/// A formatter for durations in the form that [`duration`] parses. Parts below a microsecond are
/// dropped.
pub(super) struct ShowDuration(pub(super) Duration);

impl fmt::Display for ShowDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_micros();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (name, one) in UNITS {
            let count = rest / one.as_micros();
            rest %= one.as_micros();
            if count > 0 {
                write!(f, "{count}{name}")?;
            }
        }
        Ok(())
    }
}

/// The reason why a text is not a size. `Display` states the correct form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SizeError {
    NoNumber,
    /// The unit after these digits is missing.
    NoUnit(String),
    UnknownUnit,
    TooLarge,
}

impl fmt::Display for SizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoNumber => "write a number and a unit: \"10MB\"",
            Self::NoUnit(digits) => {
                return write!(f, "the unit is missing: write \"{digits}B\" for bytes");
            }
            Self::UnknownUnit => "the units are B, kB, MB, GB, TB and KiB, MiB, GiB, TiB",
            Self::TooLarge => "the size does not fit in 64 bits",
        })
    }
}

/// Parses `"10MB"` (× 1000), `"10MiB"` (× 1024), `"512B"`. Case does not matter, and `k` means
/// `kB`.
pub(super) fn size(text: &str) -> Result<u64, SizeError> {
    let (digits, unit) = split(text, |c| c.is_ascii_digit());
    if digits.is_empty() {
        return Err(SizeError::NoNumber);
    }
    let unit = unit.trim_start_matches(' ').to_ascii_lowercase();
    if unit.is_empty() {
        return Err(SizeError::NoUnit(digits.to_owned()));
    }
    let (letter, base) = match unit.strip_suffix('b').unwrap_or(&unit) {
        binary if binary.ends_with('i') && binary.len() == 2 => (&binary[..1], 1024_u64),
        decimal => (decimal, 1000),
    };
    let power = match letter {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return Err(SizeError::UnknownUnit),
    };
    let bytes = digits.parse::<u64>().ok();
    bytes
        .and_then(|bytes| bytes.checked_mul(base.pow(power)))
        .ok_or(SizeError::TooLarge)
}

/// A formatter for sizes as written in manifests, in the largest unit that divides the size.
pub struct ShowSize(pub u64);

impl fmt::Display for ShowSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 8] = [
            ("TB", 1000_u64.pow(4)),
            ("TiB", 1024_u64.pow(4)),
            ("GB", 1000_u64.pow(3)),
            ("GiB", 1024_u64.pow(3)),
            ("MB", 1000_u64.pow(2)),
            ("MiB", 1024_u64.pow(2)),
            ("kB", 1000),
            ("KiB", 1024),
        ];
        let fits = |(_, one): &&(&str, u64)| self.0 != 0 && self.0.is_multiple_of(*one);
        match UNITS.iter().find(fits) {
            Some((name, one)) => write!(f, "{}{name}", self.0 / one),
            None => write!(f, "{}B", self.0),
        }
    }
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read() {
        let check = |text, expect| assert_eq!(duration(text).ok(), expect, "{text:?}");
        check("100ms", Some(Duration::from_millis(100)));
        check("1m30s", Some(Duration::from_secs(90)));
        check("7d", Some(Duration::from_secs(604_800)));
        check("0s", Some(Duration::ZERO));
        check("250us", Some(Duration::from_micros(250)));
        check("3650d", Some(LONGEST));
        for bad in [
            "",
            "30",
            "s",
            "1.5s",
            "30s1m",
            "1s1s",
            "30 s",
            "-1s",
            "1w",
            "3651d",
            "1m30",
            "٣s",
            "99999999999999999999999999999999999999999d",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn sizes_are_read() {
        let check = |text, expect| assert_eq!(size(text).ok(), expect, "{text:?}");
        check("10MB", Some(10_000_000));
        check("10MiB", Some(10 << 20));
        check("10000000B", Some(10_000_000));
        check("64k", Some(64_000));
        check("64K", Some(64_000));
        check("64KiB", Some(65_536));
        check("64Ki", Some(65_536));
        check("1 GB", Some(1_000_000_000));
        for bad in [
            "",
            "10",
            "MB",
            "1.5MB",
            "10XB",
            "-1B",
            "18446744073709551616B",
            "20000000TB",
            "1ı",
        ] {
            check(bad, None);
        }
    }

    proptest! {
        #[test]
        fn durations_come_back(micros in 0..=315_360_000_000_000_u64) {
            let shown = ShowDuration(Duration::from_micros(micros)).to_string();
            prop_assert_eq!(duration(&shown), Ok(Duration::from_micros(micros)), "{}", shown);
        }

        #[test]
        fn sizes_come_back(bytes: u64, zeros in 0..40_u32) {
            let bytes = bytes >> zeros << zeros;
            let shown = ShowSize(bytes).to_string();
            prop_assert_eq!(size(&shown), Ok(bytes), "{}", shown);
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = (duration(&text), size(&text));
        }
    }
}
