//! Which reads take the server so long that sharing a session is worth nothing to them.
//!
//! Sharing saves what it costs to wake somebody and to pass a message, some twenty microseconds a read,
//! and a shared session does one thing after the other. A read that keeps the server busy for longer
//! than that had better run beside others, on a session of its own: the server may have many cores, or
//! wait for its disk. How long it works on a read can be told from the answers of a session that has more
//! to do: the time between two of them. One answer says little, because server and client may have been
//! put aside. But a server that is only short of a processor answers many at once when it has it again; a
//! text that is slow by itself has hardly ever an answer that is quick.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// A read that takes longer had better not share: five times what sharing saves, and ten times what
/// finding a row by its key takes.
const LONG: Duration = Duration::from_micros(100);

/// How many microseconds of slow answers one quick answer outweighs. A server that is put aside for five
/// milliseconds answers three at once afterwards if it is quick; where answers are barely slow, all but one
/// in 23 have to be.
const QUICK_WEIGHS: u32 = 2_250;

/// The most microseconds for which one answer counts.
const SLOW_WEIGHS: u32 = 5_000;

/// For how many microseconds the slow ones have to be ahead. Longer than a server is busy with letting a
/// pool's sessions in, which puts every answer off.
const ENOUGH: u32 = 500_000;

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

/// What the answers to one text say of it: by how many microseconds the slow ones are ahead.
#[derive(Debug, Default)]
pub(crate) struct Votes(AtomicU32);

impl Votes {
    /// One more answer, on which the server worked for that long. Whether hardly any was quick for long
    /// enough; then the count begins anew. Two that vote at once may count as one.
    pub(crate) fn cast(&self, took: Duration) -> bool {
        let ahead = self.0.load(Ordering::Relaxed);
        let now = if took < LONG {
            ahead.saturating_sub(QUICK_WEIGHS)
        } else {
            let weight = u32::try_from(took.as_micros()).unwrap_or(SLOW_WEIGHS);
            ahead + weight.min(SLOW_WEIGHS)
        };
        let is_decided = now >= ENOUGH;
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
    fn a_server_that_is_put_aside_is_not_slow_and_one_that_is_hardly_ever_quick_is() {
        let votes = Votes::default();
        for number in 0..100_000 {
            // Half of them were put aside for a while.
            let took = if number % 2 == 0 { 1_500 } else { 13 };
            assert!(!votes.cast(micros(took)));
        }
        for _ in 0..400 {
            assert!(!votes.cast(micros(1_000)), "a moment is not enough");
        }
        for _ in 0..1_000 {
            votes.cast(micros(13));
        }
        for text in [300, 5_000] {
            let decided = (1..=4_000).find(|number| {
                let took = if number % 20 == 0 { 13 } else { text };
                votes.cast(micros(took))
            });
            assert!(decided.is_some(), "{text}: one in twenty was quick");
        }
        assert!(!votes.cast(micros(5_000)), "it counts anew");
    }
}
