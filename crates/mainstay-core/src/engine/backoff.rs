//! Growing pauses with jitter, up to a limit.

use std::time::Duration;

use crate::spec::Backoff;

/// The fraction by which jitter may shorten or lengthen a pause, so that services that failed
/// together do not restart together.
const JITTER: f64 = 0.1;

/// Returns the `n`-th pause in a row (0 is the first): `base × factorⁿ`, at most `max`, ± 10 %, and
/// still at most `max`.
pub(crate) fn pause(backoff: Backoff, n: u32, random: &mut Random) -> Duration {
    if backoff.base().is_zero() {
        return Duration::ZERO;
    }
    let max = backoff.max().as_secs_f64();
    let exact = backoff.base().as_secs_f64() * backoff.factor().powi(n.min(1_000).cast_signed());
    // A large power is infinite and exceeds any limit. Pauses at the limit get jitter, too.
    let jittered = exact.min(max) * (1.0 - JITTER + 2.0 * JITTER * random.unit());
    Duration::try_from_secs_f64(jittered).map_or(backoff.max(), |pause| pause.min(backoff.max()))
}

impl Backoff {
    /// Returns the `n`-th pause in a row (0 is the first), with the jitter that makes it shortest.
    pub(crate) fn shortest(self, n: u32) -> Duration {
        let exact = self.base.as_secs_f64() * self.factor.powi(n.min(1_000).cast_signed());
        let shortest = exact.min(self.max.as_secs_f64()) * (1.0 - JITTER);
        Duration::try_from_secs_f64(shortest).unwrap_or(self.max)
    }
}

/// SplitMix64: sufficient for jitter, and the same on every machine for the same seed.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a number in the range `0.0..1.0`.
    pub(crate) fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
        let unit = (z >> 11) as f64 / (1_u64 << 53) as f64;
        unit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff(base: u64, factor: f64, max: u64) -> Backoff {
        Backoff {
            base: Duration::from_millis(base),
            factor,
            max: Duration::from_millis(max),
        }
    }

    #[test]
    fn grows_by_the_factor_within_the_jitter() {
        let mut random = Random::new(7);
        for n in 0..8 {
            let exact = 100.0 * 2_f64.powi(n);
            let millis = pause(backoff(100, 2.0, 60_000), n.cast_unsigned(), &mut random)
                .as_secs_f64()
                * 1e3;
            assert!(
                (exact * 0.9..=exact * 1.1).contains(&millis),
                "{n}: {millis}"
            );
        }
    }

    #[test]
    fn spreads_below_its_bound() {
        let mut random = Random::new(7);
        let mut pauses: Vec<_> = [9, 10, 100, 1_000, u32::MAX]
            .map(|n| pause(backoff(100, 2.0, 30_000), n, &mut random))
            .into();
        assert!(
            pauses
                .iter()
                .all(|pause| (27.0..=30.0).contains(&pause.as_secs_f64()))
        );
        pauses.dedup();
        assert!(pauses.len() > 1);
    }

    #[test]
    fn zero_stays_zero() {
        for n in [0, 1, 50] {
            assert_eq!(
                pause(backoff(0, 2.0, 30_000), n, &mut Random::new(1)),
                Duration::ZERO
            );
        }
    }
}
