//! Which reads take the server so long that sharing a session is worth nothing to them.
//!
//! Sharing saves what it costs to wake somebody and to pass a message, some twenty microseconds a read,
//! and a shared session does one thing after the other. A read that keeps the server busy for longer
//! than that had better run beside others, on a session of its own: the server may have many cores, or
//! wait for its disk. How long it works on a read can be told from the answers of a session that has more
//! to do: the time between two of them. One answer says little, because whoever looks at the clock may
//! have been put aside; what most of them say counts.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// A read that takes longer had better not share: ten times what sharing saves, and twenty times what
/// finding a row by its key takes.
const LONG: Duration = Duration::from_micros(250);

/// By how many answers the slow ones have to be ahead.
const MAJORITY: u8 = 24;

/// When the answers of one session came.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    last: Option<Instant>,
    /// The shortest time that any answer took: at least the way there and back.
    least: Option<Duration>,
}

impl Pace {
    /// An answer has come to what was sent at that instant. Says how long the server worked on it, if
    /// that can be told: it had it before it was done with the one before.
    pub(crate) fn on_answer(&mut self, sent: Instant, now: Instant) -> Option<Duration> {
        let waited = now.saturating_duration_since(sent);
        let least = self.least.map_or(waited, |least| least.min(waited));
        self.least = Some(least);
        let last = self.last.replace(now)?;
        (sent + least <= last).then(|| now.saturating_duration_since(last))
    }
}

/// What the answers to one text say of it.
#[derive(Debug, Default)]
pub(crate) struct Votes(AtomicU8);

impl Votes {
    /// One more answer, on which the server worked for that long. Whether most of them were slow; then the
    /// count begins anew. Two that vote at once may count as one.
    pub(crate) fn cast(&self, took: Duration) -> bool {
        let ahead = self.0.load(Ordering::Relaxed);
        let now = if took < LONG {
            ahead.saturating_sub(1)
        } else {
            ahead + 1
        };
        let is_decided = now >= MAJORITY;
        let now = if is_decided { 0 } else { now };
        if now != ahead {
            self.0.store(now, Ordering::Relaxed);
        }
        is_decided
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn micros(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    #[test]
    fn time_between_answers_tells_how_long_the_server_worked_if_it_had_more_to_do() {
        let (mut pace, begin) = (Pace::default(), Instant::now());
        let at = |n| begin + micros(n);
        // The way takes 100 µs, the work 20; three are sent together.
        assert_eq!(
            pace.on_answer(at(0), at(120)),
            None,
            "nothing to compare with"
        );
        assert_eq!(pace.on_answer(at(0), at(140)), Some(micros(20)));
        assert_eq!(pace.on_answer(at(0), at(5_140)), Some(micros(5_000)));
        // Sent while the answer before it was on its way: it tells nothing but the way.
        assert_eq!(pace.on_answer(at(5_100), at(5_220)), None);
        assert_eq!(pace.on_answer(at(9_000), at(9_120)), None);
    }

    #[test]
    fn most_answers_decide_and_not_the_longest() {
        let votes = Votes::default();
        for _ in 0..10_000 {
            // Four in ten were put aside for long.
            for slow in [true, false, false, true, false] {
                let took = if slow { micros(4_000) } else { micros(13) };
                assert!(!votes.cast(took));
            }
        }
        let slow = (1..=100).find(|_| votes.cast(micros(5_000)));
        assert!(slow.is_some_and(|n| n <= usize::from(MAJORITY)), "{slow:?}");
        assert!(!votes.cast(micros(5_000)), "it counts anew");
    }
}
