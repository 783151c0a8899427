//! What was seen lately: a ring of ten buckets, so that the memory is fixed and forgetting costs
//! nothing.

use std::time::Duration;

use tokio::time::Instant;

const BUCKETS: u64 = 10;

/// Evidence of the last `width * BUCKETS`.
#[derive(Clone, Debug)]
pub(super) struct Window {
    width: Duration,
    /// Bucket numbers count from here; fixed by the first evidence.
    start: Option<Instant>,
    ring: [(u64, Tally); BUCKETS as usize],
}

/// Counts over some time. They saturate: a share of four billion is exact enough.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) answered: u32,
    pub(super) failed: u32,
    sources: Sources,
}

/// Who failed. One statement that kills its connection every time is that statement's fault, not an
/// outage.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
enum Sources {
    #[default]
    None,
    One(u64),
    /// Several statements, or a connect, which no statement can be blamed for.
    Several,
}

impl Window {
    pub(super) fn new(length: Duration) -> Self {
        // A millisecond is tokio's timer resolution; a width of zero would divide by zero.
        let width = (length / BUCKETS as u32).max(Duration::from_millis(1));
        Self {
            width,
            start: None,
            ring: Default::default(),
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self {
            width: self.width,
            start: None,
            ring: Default::default(),
        };
    }

    pub(super) fn on_answer(&mut self, now: Instant) {
        self.bucket_mut(now).on_answer();
    }

    pub(super) fn on_failure(&mut self, now: Instant, statement: Option<u64>) {
        self.bucket_mut(now).on_failure(statement);
    }

    /// Everything within the window.
    pub(super) fn total(&self, now: Instant) -> Tally {
        self.last(now, BUCKETS)
    }

    /// The current bucket and the one before it: what is going on right now.
    pub(super) fn recent(&self, now: Instant) -> Tally {
        self.last(now, 2)
    }

    fn last(&self, now: Instant, buckets: u64) -> Tally {
        let current = self.number(now);
        let young = |number: u64| current.saturating_sub(number) < buckets;
        self.ring.iter().filter(|(number, _)| young(*number)).fold(
            Tally::default(),
            |sum, (_, tally)| Tally {
                answered: sum.answered.saturating_add(tally.answered),
                failed: sum.failed.saturating_add(tally.failed),
                sources: sum.sources.with(tally.sources),
            },
        )
    }

    fn number(&self, now: Instant) -> u64 {
        let age = self
            .start
            .map_or(Duration::ZERO, |start| now.saturating_duration_since(start));
        u64::try_from(age.as_nanos() / self.width.as_nanos()).unwrap_or(u64::MAX)
    }

    fn bucket_mut(&mut self, now: Instant) -> &mut Tally {
        self.start.get_or_insert(now);
        let current = self.number(now);
        let slot = usize::try_from(current % BUCKETS).unwrap_or_default(); // below ten, always fits
        let (number, tally) = &mut self.ring[slot];
        if *number != current {
            (*number, *tally) = (current, Tally::default());
        }
        tally
    }
}

impl Tally {
    pub(super) fn on_answer(&mut self) {
        self.answered = self.answered.saturating_add(1);
    }

    pub(super) fn on_failure(&mut self, statement: Option<u64>) {
        self.failed = self.failed.saturating_add(1);
        let source = statement.map_or(Sources::Several, Sources::One);
        self.sources = self.sources.with(source);
    }

    /// Whether failures make up at least `percent` of what was seen. Nothing seen is no failure.
    pub(super) fn is_failing(self, percent: u32) -> bool {
        let (answered, failed) = (u64::from(self.answered), u64::from(self.failed));
        failed > 0 && failed * 100 >= (answered + failed) * u64::from(percent)
    }

    pub(super) fn blames_more_than_one_statement(self) -> bool {
        self.sources == Sources::Several
    }
}

impl Sources {
    fn with(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, some) | (some, Self::None) => some,
            (Self::One(a), Self::One(b)) if a == b => self,
            _ => Self::Several,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn evidence_is_forgotten_after_the_window_and_not_before() {
        let start = Instant::now();
        let mut window = Window::new(10 * SECOND);
        window.on_failure(start, None);
        assert_eq!(window.total(start + SECOND * 99 / 10).failed, 1);
        assert_eq!(window.total(start + 10 * SECOND).failed, 0);
        // The slot is used again without its old content.
        window.on_answer(start + 10 * SECOND);
        let total = window.total(start + 10 * SECOND);
        assert_eq!((total.answered, total.failed), (1, 0));
    }

    #[test]
    fn counts_match_a_plain_list_for_random_evidence() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (start, mut window, mut list) = (Instant::now(), Window::new(10 * SECOND), vec![]);
            let mut millis = 0;
            for _ in 0..300 {
                millis += rng.u64(0..400);
                let (now, failed) = (start + Duration::from_millis(millis), rng.bool());
                if list.is_empty() {
                    millis = 0;
                    window.start = Some(start);
                }
                if failed {
                    window.on_failure(now, None)
                } else {
                    window.on_answer(now)
                }
                list.push((millis / 1000, failed));
                let current = millis / 1000;
                let young = |failed: bool, buckets: u64| {
                    list.iter()
                        .filter(|(at, f)| *f == failed && current - at < buckets)
                        .count()
                };
                let (total, recent) = (window.total(now), window.recent(now));
                assert_eq!(total.failed as usize, young(true, 10), "seed {seed}");
                assert_eq!(total.answered as usize, young(false, 10), "seed {seed}");
                assert_eq!(recent.failed as usize, young(true, 2), "seed {seed}");
            }
        }
    }

    #[test]
    fn one_statement_is_blamed_until_another_one_or_a_connect_fails() {
        let now = Instant::now();
        let mut window = Window::new(10 * SECOND);
        window.on_failure(now, Some(7));
        window.on_failure(now + 3 * SECOND, Some(7));
        assert!(
            !window
                .total(now + 3 * SECOND)
                .blames_more_than_one_statement()
        );
        let mut with_another = window.clone();
        with_another.on_failure(now + 4 * SECOND, Some(8));
        assert!(
            with_another
                .total(now + 4 * SECOND)
                .blames_more_than_one_statement()
        );
        window.on_failure(now + 4 * SECOND, None);
        assert!(
            window
                .total(now + 4 * SECOND)
                .blames_more_than_one_statement()
        );
    }
}
