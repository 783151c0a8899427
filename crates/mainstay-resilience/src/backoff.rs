//! Why wait before trying again, and why for a random time?
//!
//! What failed a millisecond ago fails again a millisecond later, so the wait grows. But when a
//! server drops a thousand callers at once and all of them wait 100 ms, it meets the same thousand
//! at once 100 ms later. Spreading each wait over the *whole* range from zero to the ceiling ("full
//! jitter") did the least work of all variants in the simulations that the AWS architecture blog
//! published, and it is one line.

use std::time::Duration;

use crate::Deadline;

/// Exponential backoff with full jitter: a random time between zero and a ceiling that doubles.
///
/// The ceiling is `min(cap, base * 2^(attempt - 1))`.
///
/// ```
/// use mainstay_resilience::Backoff;
/// use std::time::Duration;
///
/// let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
/// let mut rng = fastrand::Rng::with_seed(7);
/// assert!(backoff.delay(1, &mut rng) <= Duration::from_millis(50));
/// assert!(backoff.delay(4, &mut rng) <= Duration::from_millis(400));
/// assert!(backoff.delay(u32::MAX, &mut rng) <= Duration::from_secs(2));
/// ```
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
}

impl Backoff {
    /// For the pool's own effort to reconnect. The first delays are short because a restart often
    /// takes tens of milliseconds (20 ms is double what sqlx starts with); the cap of two seconds
    /// is how late a server that came back after a long time is noticed at worst.
    pub const RECONNECT: Self = Self::new(Duration::from_millis(20), Duration::from_secs(2));

    /// A backoff whose first delay is at most `base` and whose every delay is at most `cap`.
    #[must_use]
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap }
    }

    /// The longest delay that may follow the failed attempt number `attempt`, which counts from 1.
    #[must_use]
    pub fn ceiling(&self, attempt: u32) -> Duration {
        // 2^31 times anything is beyond the cap in practice; the bound keeps the shift defined.
        let doublings = attempt.saturating_sub(1).min(31);
        self.base.saturating_mul(1 << doublings).min(self.cap)
    }

    /// How long to wait after the failed attempt number `attempt`, which counts from 1.
    #[must_use]
    pub fn delay(&self, attempt: u32, rng: &mut fastrand::Rng) -> Duration {
        // FAR_FUTURE keeps the nanoseconds within 64 bits; `try_from` never takes the second way.
        let ceiling = self.ceiling(attempt).min(Deadline::FAR_FUTURE);
        let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(rng.u64(0..=nanos))
    }

    /// Every delay in turn, without end, the same ones for the same seed.
    pub fn delays(self, seed: u64) -> impl Iterator<Item = Duration> + Send {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut attempt = 0_u32;
        std::iter::repeat_with(move || {
            attempt = attempt.saturating_add(1);
            self.delay(attempt, &mut rng)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn the_ceiling_doubles_up_to_the_cap() {
        let backoff = Backoff::new(5 * MILLI, 500 * MILLI);
        let ceilings: Vec<_> = (1..=9)
            .map(|attempt| backoff.ceiling(attempt).as_millis())
            .collect();
        assert_eq!(ceilings, [5, 10, 20, 40, 80, 160, 320, 500, 500]);
        assert_eq!(backoff.ceiling(0), 5 * MILLI);
        assert_eq!(backoff.ceiling(u32::MAX), 500 * MILLI);
    }

    #[test]
    fn jitter_is_full_it_fills_the_range_and_never_leaves_it() {
        let backoff = Backoff::new(100 * MILLI, 1000 * MILLI);
        for seed in 0..50 {
            let mut rng = fastrand::Rng::with_seed(seed);
            for attempt in 1..=6 {
                let ceiling = backoff.ceiling(attempt);
                let delays: Vec<_> = (0..400).map(|_| backoff.delay(attempt, &mut rng)).collect();
                assert!(delays.iter().all(|delay| *delay <= ceiling), "seed {seed}");
                assert!(
                    delays.iter().any(|delay| *delay < ceiling / 10),
                    "seed {seed}"
                );
                assert!(
                    delays.iter().any(|delay| *delay > ceiling * 9 / 10),
                    "seed {seed}"
                );
                let mean = delays.iter().sum::<Duration>() / 400;
                assert!(
                    mean > ceiling * 2 / 5 && mean < ceiling * 3 / 5,
                    "seed {seed}"
                );
            }
        }
    }

    #[test]
    fn extreme_settings_do_not_overflow() {
        let mut rng = fastrand::Rng::with_seed(1);
        let endless = Backoff::new(Duration::MAX, Duration::MAX);
        assert!(endless.delay(u32::MAX, &mut rng) <= Deadline::FAR_FUTURE);
        let none = Backoff::new(Duration::ZERO, Duration::MAX);
        assert_eq!(none.delay(u32::MAX, &mut rng), Duration::ZERO);
    }

    #[test]
    fn delays_repeat_with_their_seed_and_differ_between_seeds() {
        let first: Vec<_> = Backoff::RECONNECT.delays(3).take(40).collect();
        let again: Vec<_> = Backoff::RECONNECT.delays(3).take(40).collect();
        let other: Vec<_> = Backoff::RECONNECT.delays(4).take(40).collect();
        assert_eq!(first, again);
        assert_ne!(first, other);
        assert!(first[0] <= 20 * MILLI);
        assert!(first.iter().all(|delay| *delay <= Duration::from_secs(2)));
    }
}
