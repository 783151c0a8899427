//! Why a deadline and not a timeout?
//!
//! A timeout begins anew at every step: ten seconds for the pool, five for the connection, thirty
//! for the statement, all of it three times because of retries, and a caller who allowed ten
//! seconds waits for more than two minutes. A [`Deadline`] is an instant. It is fixed once, when
//! the call begins, and handed down; every step asks how much is left, so the sum cannot be wrong.

use std::time::Duration;

use tokio::time::Instant;

/// The instant that bounds everything one call does: waiting, connecting, executing, retrying.
///
/// ```
/// use mainstay_resilience::Deadline;
/// use std::time::Duration;
/// use tokio::time::Instant;
///
/// let now = Instant::now();
/// let call = Deadline::after(now, Duration::from_secs(30));
/// let waiting = call.earliest(Deadline::after(now, Duration::from_secs(10)));
/// assert_eq!(waiting.remaining(now), Duration::from_secs(10));
/// assert!(!waiting.is_past(now));
/// ```
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(Instant);

impl Deadline {
    /// No deadline is made further away than this. "Wait as long as it takes" is written as a very
    /// long duration, and adding that to an instant would overflow; thirty days is beyond every
    /// call and within every clock.
    pub const FAR_FUTURE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

    /// The deadline that lies `timeout` after `now`, at most [`FAR_FUTURE`](Self::FAR_FUTURE).
    #[must_use]
    pub fn after(now: Instant, timeout: Duration) -> Self {
        // A clock within thirty days of its end cannot be met in practice; such a call is over at
        // once, without panic.
        Self(
            now.checked_add(timeout.min(Self::FAR_FUTURE))
                .unwrap_or(now),
        )
    }

    /// The deadline at exactly this instant.
    #[must_use]
    pub const fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// The deadline that lies `timeout` after the present, on tokio's clock.
    #[must_use]
    pub fn from_now(timeout: Duration) -> Self {
        Self::after(Instant::now(), timeout)
    }

    /// The deadline of a call that nobody bounded: [`FAR_FUTURE`](Self::FAR_FUTURE) after `now`.
    #[must_use]
    pub fn far_future(now: Instant) -> Self {
        Self::after(now, Self::FAR_FUTURE)
    }

    /// The instant itself, for timers.
    #[must_use]
    pub const fn instant(self) -> Instant {
        self.0
    }

    /// How much time is left at `now`; zero when the deadline has passed.
    #[must_use]
    pub fn remaining(self, now: Instant) -> Duration {
        self.0.saturating_duration_since(now)
    }

    /// Whether no time is left at `now`. The deadline itself is already too late.
    #[must_use]
    pub fn is_past(self, now: Instant) -> bool {
        now >= self.0
    }

    /// The sooner of two deadlines.
    #[must_use]
    pub fn earliest(self, other: Self) -> Self {
        self.min(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_timeout_does_not_overflow() {
        let now = Instant::now();
        let deadline = Deadline::after(now, Duration::MAX);
        assert_eq!(deadline, Deadline::far_future(now));
        assert_eq!(deadline.remaining(now), Deadline::FAR_FUTURE);
        // Deadlines of deadlines stay additions that cannot panic.
        let later = Deadline::after(deadline.instant(), Duration::MAX);
        assert!(later >= deadline);
    }

    #[test]
    fn the_deadline_itself_is_too_late() {
        let now = Instant::now();
        let deadline = Deadline::after(now, Duration::from_millis(1));
        assert!(!deadline.is_past(now));
        assert!(deadline.is_past(deadline.instant()));
        assert_eq!(deadline.remaining(deadline.instant()), Duration::ZERO);
        assert_eq!(
            deadline.remaining(deadline.instant() + Duration::from_secs(9)),
            Duration::ZERO
        );
    }

    #[test]
    fn earliest_is_the_sooner_from_either_side() {
        let now = Instant::now();
        let (soon, late) = (
            Deadline::at(now),
            Deadline::after(now, Duration::from_secs(1)),
        );
        assert_eq!(soon.earliest(late), soon);
        assert_eq!(late.earliest(soon), soon);
    }

    #[tokio::test(start_paused = true)]
    async fn from_now_follows_virtual_time() {
        let deadline = Deadline::from_now(Duration::from_secs(5));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(deadline.remaining(Instant::now()), Duration::from_secs(2));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(deadline.is_past(Instant::now()));
    }
}
