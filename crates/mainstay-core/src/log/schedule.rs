//! Rotation schedules.

use super::Stamp;
use crate::spec::Every;

/// Returns the first full hour, or midnight, after `now`. `offset` returns the offset of local time
/// from UTC in seconds, for an instant in seconds since 1970.
///
/// A day with a clock change has 23 or 25 hours. An hour that occurs twice counts as two hours. If
/// midnight is skipped, the boundary is the instant of the change.
pub fn next_boundary(now: Stamp, every: Every, offset: impl Fn(i64) -> i32) -> Stamp {
    let length = match every {
        Every::Hourly => 3_600,
        Every::Daily => 86_400,
    };
    let seconds = |stamp: Stamp| i64::try_from(stamp.0 / Stamp::SECOND).unwrap_or(i64::MAX / 4);
    let now = seconds(now);
    let local = |utc: i64| utc + i64::from(offset(utc));
    let boundary = (local(now).div_euclid(length) + 1) * length;
    // The offset changes at most once until the boundary, so the boundary is one of these two.
    let before = boundary - i64::from(offset(now));
    let after = boundary - i64::from(offset(before));
    let is_boundary = |utc: i64| utc > now && (local(utc) >= boundary || local(utc) % length == 0);
    let due = match (is_boundary(before), is_boundary(after)) {
        (true, true) => before.min(after),
        (true, false) => before,
        (false, true) => after,
        // Only possible with offsets that no real clock has.
        (false, false) => now + length,
    };
    Stamp(
        u64::try_from(due)
            .unwrap_or(0)
            .saturating_mul(Stamp::SECOND),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 3600;

    fn utc(text: &str) -> i64 {
        let stamp = Stamp::of_file_name(&format!("{text}.000000Z.log")).unwrap();
        i64::try_from(stamp.unix_micros() / 1_000_000).unwrap()
    }

    fn stamp(seconds: i64) -> Stamp {
        Stamp::from_unix_micros(u64::try_from(seconds).unwrap() * 1_000_000)
    }

    #[test]
    fn boundaries() {
        let check = |every, zone: &dyn Fn(i64) -> i32, now, expect| {
            let next = next_boundary(stamp(utc(now)), every, zone);
            assert_eq!(next, stamp(utc(expect)), "{every:?} {now}");
        };
        let (daily, hourly) = (Every::Daily, Every::Hourly);
        let fixed = |minutes: i32| move |_| minutes * 60;
        check(daily, &fixed(0), "20261122T101112", "20261123T000000");
        check(daily, &fixed(0), "20261231T235959", "20270101T000000");
        check(daily, &fixed(0), "20261123T000000", "20261124T000000");
        check(hourly, &fixed(0), "20261122T101112", "20261122T110000");
        check(hourly, &fixed(330), "20261122T101112", "20261122T103000");
        check(daily, &fixed(330), "20261122T182959", "20261122T183000");
        check(daily, &fixed(-600), "20261122T095959", "20261122T100000");
        // Berlin: +1 until 2026-03-29T01:00Z, +2 until 2026-10-25T01:00Z.
        let (spring, autumn) = (utc("20260329T010000"), utc("20261025T010000"));
        let berlin = |at: i64| {
            if (spring..autumn).contains(&at) {
                7200
            } else {
                3600
            }
        };
        check(daily, &berlin, "20260328T230000", "20260329T220000"); // 23 hours
        check(daily, &berlin, "20261024T220000", "20261025T230000"); // 25 hours
        check(hourly, &berlin, "20260329T003000", "20260329T010000");
        check(hourly, &berlin, "20261025T003000", "20261025T010000"); // 02:30, the first time
        check(hourly, &berlin, "20261025T010000", "20261025T020000"); // 02:00, the second time
        // Beirut: midnight is skipped; the clock goes from 00:00 to 01:00.
        let skipped = utc("20260328T220000");
        let beirut = |at: i64| if at < skipped { 7200 } else { 10_800 };
        check(daily, &beirut, "20260328T213000", "20260328T220000");
        check(daily, &beirut, "20260328T220000", "20260329T210000");
        // Havana: the clock goes from 01:00 back to 00:00; the day begins only once.
        let twice = utc("20261101T050000");
        let havana = |at: i64| if at < twice { -4 * 3600 } else { -5 * 3600 };
        check(daily, &havana, "20261101T033000", "20261101T040000");
        check(daily, &havana, "20261101T040000", "20261102T050000");
        // Asunción: the clock goes from 00:00 back to 23:00 of the previous day.
        let back = utc("20260322T030000");
        let back_at_midnight = |at: i64| if at < back { -3 * 3600 } else { -4 * 3600 };
        check(
            daily,
            &back_at_midnight,
            "20260322T023000",
            "20260322T040000",
        );
    }

    proptest! {
        #[test]
        fn the_next_boundary_is_near_and_later(
            now in 0..4_102_444_800_i64, change in 0..4_102_444_800_i64,
            before in -48..56_i32, after in -48..56_i32,
        ) {
            // Clocks change by an hour or two, and `now` is close to the change.
            let after = before + (after % 3) * 4;
            let change = now + change % (48 * HOUR) - 24 * HOUR;
            let zone = |at| 900 * if at < change { before } else { after };
            for (every, longest) in [(Every::Hourly, 3 * HOUR), (Every::Daily, 26 * HOUR)] {
                let next = next_boundary(stamp(now), every, zone);
                let is_near = next > stamp(now) && next <= stamp(now + longest);
                prop_assert!(is_near, "{every:?} {next:?}");
            }
        }
    }
}
