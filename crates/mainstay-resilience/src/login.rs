//! Why a gate of its own for refused credentials?
//!
//! A wrong password is not an outage: the server answers, and quickly. But the answer will be the same
//! until a person changes something, and each question costs: the server a hash that is slow on
//! purpose, its log a line, the account perhaps one of the few attempts before it is locked. The
//! breaker's prober, which asks twice a second, would be the attack that it looks like. So after a
//! refusal one attempt is made in a long interval, and everybody else is told at once what the
//! server said, and how long ago.

use std::time::Duration;

use tokio::time::Instant;

use crate::{Admission, Deadline};

/// How long to wait between attempts by default: `PgBouncer`'s `server_login_retry`. Short enough
/// that nobody waits long for a repaired password, long enough that no account is locked by it.
pub const LOGIN_INTERVAL: Duration = Duration::from_secs(15);

/// The gate of an endpoint that refuses to log anybody in: credentials, certificates, a database that
/// does not exist.
///
/// ```
/// use mainstay_resilience::{Admission, LOGIN_INTERVAL, LoginGate};
/// use tokio::time::Instant;
///
/// let (mut gate, start) = (LoginGate::default(), Instant::now());
/// assert_eq!(gate.admit(start), Admission::Pass);
/// gate.on_refused(start);
/// assert!(matches!(gate.admit(start), Admission::Refuse { .. }));
/// let later = start + LOGIN_INTERVAL * 2;
/// assert_eq!(gate.admit(later), Admission::Pass);
/// assert!(matches!(gate.admit(later), Admission::Refuse { .. })); // one attempt is enough
/// ```
#[derive(Clone, Debug)]
pub struct LoginGate {
    interval: Duration,
    refused: Option<Refused>,
    times_shut: u64,
    rng: fastrand::Rng,
}

#[derive(Copy, Clone, Debug)]
struct Refused {
    /// The refusal, and the first one of an unbroken row.
    at: Instant,
    since: Instant,
    next: Instant,
}

impl Default for LoginGate {
    fn default() -> Self {
        Self::new(LOGIN_INTERVAL)
    }
}

impl LoginGate {
    /// An open way in, and this interval once somebody is refused.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            refused: None,
            times_shut: 0,
            rng: fastrand::Rng::new(),
        }
    }

    /// The same with fixed jitter.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.rng = fastrand::Rng::with_seed(seed);
        self
    }

    /// Whether an attempt to log in may be made now. One that passes after a refusal is the attempt of
    /// its interval: until it is answered, and if it never is, the others are refused as before.
    pub fn admit(&mut self, now: Instant) -> Admission {
        match self.refusing(now) {
            None => {
                let next = self.draw_next(now);
                if let Some(refused) = &mut self.refused {
                    refused.next = next;
                }
                Admission::Pass
            }
            Some(refusal) => refusal,
        }
    }

    /// The refusal that an attempt would meet now, without counting as one.
    #[must_use]
    pub fn refusing(&self, now: Instant) -> Option<Admission> {
        let refused = self.refused.filter(|refused| now < refused.next)?;
        Some(Admission::Refuse {
            retry_after: refused.next.saturating_duration_since(now),
            since: refused.since,
        })
    }

    /// The server refused to log us in. Answers how long the next attempt has to wait.
    pub fn on_refused(&mut self, now: Instant) -> Duration {
        let next = self.draw_next(now);
        let since = self.refused.map_or(now, |earlier| earlier.since);
        if self.refused.is_none() {
            self.times_shut = self.times_shut.saturating_add(1);
        }
        self.refused = Some(Refused {
            at: now,
            since,
            next,
        });
        next.saturating_duration_since(now)
    }

    /// An attempt ended in any other way: it succeeded, or the server is not there, which is the
    /// breaker's business.
    pub fn forget(&mut self) {
        self.refused = None;
    }

    /// When the server refused last, if that still stands.
    #[must_use]
    pub fn refused_at(&self) -> Option<Instant> {
        self.refused.map(|refused| refused.at)
    }

    /// How often it was shut, for metrics.
    #[must_use]
    pub const fn times_shut(&self) -> u64 {
        self.times_shut
    }

    /// The interval with a fifth more or less, so that the processes of a fleet do not ask together.
    fn draw_next(&mut self, now: Instant) -> Instant {
        let interval = self.interval.min(Deadline::FAR_FUTURE);
        let factor = 0.8 + 0.4 * self.rng.f64();
        Deadline::after(now, interval.mul_f64(factor)).instant()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn refuses(gate: &mut LoginGate, now: Instant) -> bool {
        gate.admit(now) != Admission::Pass
    }

    #[test]
    fn one_attempt_is_made_in_each_interval_however_many_want_to() {
        for seed in 0..100 {
            let (mut gate, start) = (LoginGate::default().with_seed(seed), Instant::now());
            gate.on_refused(start);
            let mut attempts = vec![];
            for tick in 1..10_000_u32 {
                let now = start + tick * SECOND / 10;
                for _ in 0..3 {
                    if !refuses(&mut gate, now) {
                        attempts.push(now);
                        gate.on_refused(now);
                    }
                }
            }
            let (least, most) = (LOGIN_INTERVAL * 4 / 5, LOGIN_INTERVAL * 6 / 5 + SECOND / 10);
            let fits = |pair: &[Instant]| (least..=most).contains(&(pair[1] - pair[0]));
            assert!(attempts.len() > 50, "seed {seed}");
            assert!(attempts.windows(2).all(fits), "seed {seed}: {attempts:?}");
        }
    }

    #[test]
    fn an_attempt_that_is_never_answered_shuts_nothing_for_ever() {
        let (mut gate, start) = (LoginGate::default(), Instant::now());
        gate.on_refused(start);
        assert!(!refuses(&mut gate, start + 18 * SECOND));
        assert!(refuses(&mut gate, start + 18 * SECOND));
        assert!(!refuses(&mut gate, start + 36 * SECOND));
    }

    #[test]
    fn any_other_end_of_an_attempt_opens_it() {
        let (mut gate, start) = (LoginGate::default(), Instant::now());
        gate.on_refused(start);
        assert!(refuses(&mut gate, start + SECOND));
        gate.forget();
        assert!(!refuses(&mut gate, start + SECOND));
        assert_eq!(gate.refused_at(), None);
    }

    #[test]
    fn the_refusal_says_since_when_and_until_when() {
        let (mut gate, start) = (LoginGate::default(), Instant::now());
        gate.on_refused(start);
        let wait = gate.on_refused(start + 20 * SECOND);
        let now = start + 21 * SECOND;
        let expected = Admission::Refuse {
            retry_after: wait - SECOND,
            since: start,
        };
        assert_eq!(gate.refusing(now), Some(expected));
        assert_eq!(gate.admit(now), expected);
        assert_eq!(gate.refused_at(), Some(start + 20 * SECOND));
        assert_eq!(gate.times_shut(), 1);
    }

    #[test]
    fn extreme_intervals_neither_panic_nor_shut_for_ever() {
        for interval in [Duration::ZERO, Duration::MAX] {
            let (mut gate, now) = (LoginGate::new(interval), Instant::now());
            let wait = gate.on_refused(now);
            assert!(!refuses(&mut gate, now + wait));
        }
    }
}
