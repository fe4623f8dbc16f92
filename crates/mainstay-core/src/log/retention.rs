//! Retention of rotated files.

use super::Stamp;
use crate::spec::Retention;

/// Returns the number of files to delete, starting with the oldest. Each of `files` has its stamp
/// and its size on disk in bytes, and the oldest comes first. The newest file is never deleted
/// because of its size.
pub fn surplus(files: &[(Stamp, u64)], keep: &Retention, now: Stamp) -> usize {
    let by_count = keep.files.map_or(0, |count| {
        files
            .len()
            .saturating_sub(count.try_into().unwrap_or(usize::MAX))
    });
    let by_age = keep.age.map_or(0, |age| {
        let age = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
        let is_old = |(stamp, _): &(Stamp, u64)| now.0.saturating_sub(stamp.0) > age;
        files.iter().take_while(|file| is_old(file)).count()
    });
    let by_size = keep.size.map_or(0, |size| {
        let mut total = 0_u64;
        let fits = |(_, bytes): &&(Stamp, u64)| {
            total = total.saturating_add(*bytes);
            total <= size
        };
        let fit = files.iter().rev().take_while(fits).count();
        files.len() - fit.max(1).min(files.len())
    });
    by_count.max(by_age).max(by_size)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_strictest_rule_counts() {
        let files: Vec<_> = [(10, 5), (20, 6), (30, 7), (40, 8)]
            .map(|(stamp, bytes)| (Stamp(stamp), bytes))
            .into();
        let check = |count, size, age: Option<u64>, expect| {
            let keep = Retention {
                files: count,
                size,
                age: age.map(Duration::from_micros),
            };
            assert_eq!(surplus(&files, &keep, Stamp(50)), expect, "{keep:?}");
        };
        check(None, None, None, 0);
        check(Some(4), None, None, 0);
        check(Some(3), None, None, 1);
        check(Some(0), None, None, 4);
        check(None, Some(26), None, 0);
        check(None, Some(25), None, 1);
        check(None, Some(14), None, 3);
        check(None, Some(1), None, 3);
        check(None, None, Some(40), 0);
        check(None, None, Some(39), 1);
        check(None, None, Some(5), 4);
        check(Some(3), Some(15), Some(39), 2);
        check(Some(1), Some(99), Some(99), 3);
    }

    #[test]
    fn a_clock_that_went_back_makes_nothing_old() {
        let keep = Retention {
            age: Some(Duration::from_micros(1)),
            ..Retention::default()
        };
        assert_eq!(surplus(&[(Stamp(10), 1)], &keep, Stamp(5)), 0);
    }
}
