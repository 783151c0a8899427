//! Why budgets and not max retries?
//!
//! "Three attempts" is harmless for one call and disastrous for all of them: when everything fails,
//! three attempts each are three times the load, on the server that is least able to bear it.
//! Retries that help are few; retries that are many mean that the server is down and that none will
//! help. So all callers share one bucket of tokens. A retry costs some, a success earns a few back,
//! and when the bucket is empty the first attempt is the last.
//!
//! The arithmetic is the promise. Over `n` calls at most `capacity / cost + n * refund / cost`
//! retries happen: a fixed reserve for a sudden loss, plus a share of the traffic that succeeds. At
//! 100 % failure only the reserve is left.

use std::sync::atomic::{AtomicU32, Ordering};

/// A bucket of tokens that every retry costs and every success earns back.
///
/// ```
/// let budget = mainstay_resilience::Budget::new(10, 5, 1);
/// assert!(budget.try_withdraw() && budget.try_withdraw());
/// assert!(!budget.try_withdraw()); // the reserve of two retries is spent
/// (0..5).for_each(|_| budget.on_success());
/// assert!(budget.try_withdraw()); // five successes earned one retry
/// ```
#[derive(Debug)]
pub struct Budget {
    /// Never above `capacity`. The counter guards nothing but itself, so relaxed ordering is enough
    /// everywhere.
    tokens: AtomicU32,
    capacity: u32,
    cost: u32,
    refund: u32,
}

impl Budget {
    /// A full bucket of `capacity` tokens. A retry costs `cost` (at least 1), a success earns
    /// `refund`.
    ///
    /// A capacity below the cost means that nothing is ever retried.
    #[must_use]
    pub fn new(capacity: u32, cost: u32, refund: u32) -> Self {
        Self {
            tokens: AtomicU32::new(capacity),
            capacity,
            cost: cost.max(1),
            refund,
        }
    }

    /// Pays for one retry. `false` means that the bucket is too empty, and then nothing was taken.
    #[must_use = "a retry that was not paid for must not happen"]
    pub fn try_withdraw(&self) -> bool {
        self.tokens
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| {
                tokens.checked_sub(self.cost)
            })
            .is_ok()
    }

    /// Earns back the refund of one call that ended well, up to the capacity.
    pub fn on_success(&self) {
        // The bucket is full nearly always; a load keeps the cache line shared between the cores.
        if self.tokens() == self.capacity {
            return;
        }
        let refund = |tokens: u32| Some(tokens.saturating_add(self.refund).min(self.capacity));
        let before = self
            .tokens
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, refund)
            .unwrap_or_else(|unchanged| unchanged); // `refund` always says Some
        debug_assert!(before <= self.capacity, "tokens were forged");
    }

    /// The tokens left.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        self.tokens.load(Ordering::Relaxed)
    }

    /// The tokens of a full bucket.
    #[must_use]
    pub const fn capacity(&self) -> u32 {
        self.capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_never_overfills_the_bucket() {
        let budget = Budget::new(10, 5, u32::MAX);
        assert!(budget.try_withdraw());
        budget.on_success();
        budget.on_success();
        assert_eq!(budget.tokens(), 10);
    }

    #[test]
    fn a_refused_withdrawal_takes_nothing() {
        let budget = Budget::new(4, 5, 1);
        assert!(!budget.try_withdraw());
        assert_eq!(budget.tokens(), 4);
    }

    #[test]
    fn a_free_retry_cannot_be_configured() {
        let budget = Budget::new(2, 0, 0);
        assert!(budget.try_withdraw() && budget.try_withdraw());
        assert!(!budget.try_withdraw());
    }

    #[test]
    fn threads_together_spend_exactly_what_is_there() {
        let budget = Budget::new(1000, 5, 1);
        let spent: usize = std::thread::scope(|scope| {
            let spend = || (0..200).filter(|_| budget.try_withdraw()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(spend)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(spent, 200);
        assert_eq!(budget.tokens(), 0);
    }

    #[test]
    fn tokens_are_neither_lost_nor_forged_between_threads() {
        let budget = Budget::new(u32::MAX, 3, 2);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        assert!(budget.try_withdraw());
                        budget.on_success();
                    }
                });
            }
        });
        assert_eq!(budget.tokens(), u32::MAX - 4000);
    }
}
