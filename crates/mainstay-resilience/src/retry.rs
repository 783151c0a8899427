//! Why is "try again" one decision in one place?
//!
//! Because it needs everything at once. The class says whether repeating is *safe*, the work says
//! how much of it must be repeated, the budget says whether the server can bear it, the deadline
//! says whether anyone still waits for it. A loop that knows only some of these books twice,
//! multiplies an outage, or answers a caller who has gone. And when two layers retry three times
//! each, the server sees nine attempts.
//!
//! [`Retrier::decide`] is that decision. It sleeps for nobody and runs nothing: it says how long to
//! wait or why to stop.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::{Backoff, Budget, Class, Deadline, Evidence};

/// How often, how soon and at whose expense one kind of failure is retried.
///
/// Two kinds exist because they have nothing in common: after a conflict the server is well and the
/// other transaction has just finished; after an outage it is not, and haste hurts. The facade's
/// configuration reads `DB_RETRY_MAX` and `DB_RETRY_BASE` and hands them over through
/// [`with_attempts`](Self::with_attempts) and [`with_base`](Self::with_base); nothing here reads
/// the environment.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// Attempts in all, the first one included. 1 turns retries off.
    pub attempts: u32,
    /// The longest wait after the first failure; it doubles from there.
    pub base: Duration,
    /// The longest wait at all.
    pub cap: Duration,
    /// Tokens of a full budget. `capacity / cost` retries are the reserve for a sudden loss.
    pub capacity: u32,
    /// Tokens that a retry costs.
    pub cost: u32,
    /// Tokens that a success earns. `refund / cost` is the share of the traffic that may be retries
    /// in the long run.
    pub refund: u32,
}

impl RetryPolicy {
    /// For conflicts (serialization failures, deadlocks, lost snapshots).
    ///
    /// * 5 ms, because conflicting transactions last milliseconds; 500 ms at most, as in
    ///   `MongoDB`'s `withTransaction`.
    /// * 5 attempts, the limit of gRPC: whoever loses five times meets a hot row that waiting will
    ///   not cool.
    /// * One success pays for one rerun: a conflict means that somebody else got through, so the
    ///   load at most doubles. 500 tokens (the AWS bucket) let a burst of a hundred contenders use
    ///   up their attempts.
    #[must_use]
    pub const fn conflicts() -> Self {
        Self {
            attempts: 5,
            base: Duration::from_millis(5),
            cap: Duration::from_millis(500),
            capacity: 500,
            cost: 1,
            refund: 1,
        }
    }

    /// For outages (lost or refused connections, shutdowns, exhausted servers).
    ///
    /// * 50 ms, as in the newest AWS client libraries; 2 s at most, since recovery should be
    ///   noticed by then.
    /// * 3 attempts, the per-request limit of Google's SRE book.
    /// * A retry costs five tokens, a success earns one: at most 20 % more load, the share that
    ///   Finagle and Linkerd allow. 100 tokens are a reserve of 20 retries; see
    ///   [`with_in_flight`](Self::with_in_flight).
    #[must_use]
    pub const fn outages() -> Self {
        Self {
            attempts: 3,
            base: Duration::from_millis(50),
            cap: Duration::from_secs(2),
            capacity: 100,
            cost: 5,
            refund: 1,
        }
    }

    /// The same with another number of attempts, the first one included; at least 1.
    #[must_use]
    pub const fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts = if attempts == 0 { 1 } else { attempts };
        self
    }

    /// The same with another first wait. The cap follows when it would be shorter.
    #[must_use]
    pub fn with_base(mut self, base: Duration) -> Self {
        self.base = base;
        self.cap = self.cap.max(base);
        self
    }

    /// The same with a reserve of at least one retry for each of `calls`, the number that can be in
    /// flight at once.
    ///
    /// One server that restarts takes every call in flight with it, in one instant, before any
    /// success can earn a token. That loss must be affordable, or the restart shows.
    #[must_use]
    pub fn with_in_flight(mut self, calls: u32) -> Self {
        self.capacity = self.capacity.max(calls.saturating_mul(self.cost.max(1)));
        self
    }
}

/// What would be done again.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Work {
    /// One statement where the database forbids writing.
    Read,
    /// One statement that may write and commits by itself.
    Write,
    /// The same, and its caller says that doing it twice is the same as doing it once.
    IdempotentWrite,
    /// A closure that can be rerun as a whole, such as a transaction.
    Unit,
    /// Something that runs at most once, whatever happens.
    Once,
}

/// What to do after a failure.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// Do it again, after this wait. The budget is already paid.
    Again {
        /// How long to wait first. The next attempt begins before the deadline.
        after: Duration,
    },
    /// Return the error.
    Stop(StopReason),
}

/// Why a failure is not retried.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopReason {
    /// The class does not allow this work to be repeated, or repeating would not help.
    NotAllowed,
    /// All attempts are used.
    Attempts,
    /// Too many retries happen already; one more would add to an outage.
    Budget,
    /// The next attempt would begin at the deadline or later.
    Deadline,
}

impl StopReason {
    /// The name used in logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotAllowed => "not_allowed",
            Self::Attempts => "attempts",
            Self::Budget => "budget",
            Self::Deadline => "deadline",
        }
    }
}

/// The two policies with their budgets. Clones share the budgets, so one retrier serves all calls
/// of one database.
#[derive(Clone, Debug)]
pub struct Retrier {
    conflict: Arc<Track>,
    outage: Arc<Track>,
}

/// One policy and the budget that it spends.
#[derive(Debug)]
struct Track {
    policy: RetryPolicy,
    budget: Budget,
}

impl Track {
    fn new(policy: RetryPolicy) -> Self {
        let budget = Budget::new(policy.capacity, policy.cost, policy.refund);
        Self { policy, budget }
    }
}

impl Default for Retrier {
    fn default() -> Self {
        Self::new(RetryPolicy::conflicts(), RetryPolicy::outages())
    }
}

impl Retrier {
    /// A retrier with full budgets.
    #[must_use]
    pub fn new(conflict: RetryPolicy, outage: RetryPolicy) -> Self {
        Self {
            conflict: Arc::new(Track::new(conflict)),
            outage: Arc::new(Track::new(outage)),
        }
    }

    /// Decides what follows the failed attempt number `attempt`, which counts all attempts of the
    /// call from 1.
    ///
    /// An answer [`Decision::Again`] has been paid for from the budget, so ask once per failure and
    /// act on the answer.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is one fact that the decision needs"
    )]
    pub fn decide(
        &self,
        now: Instant,
        attempt: u32,
        class: Class,
        evidence: Evidence,
        work: Work,
        deadline: Deadline,
        rng: &mut fastrand::Rng,
    ) -> Decision {
        let track = match permission(class, evidence, work) {
            Permission::No => return Decision::Stop(StopReason::NotAllowed),
            Permission::AsConflict => &self.conflict,
            Permission::AsOutage => &self.outage,
        };
        if attempt >= track.policy.attempts {
            return Decision::Stop(StopReason::Attempts);
        }
        let after = Backoff::new(track.policy.base, track.policy.cap).delay(attempt, rng);
        if after >= deadline.remaining(now) {
            return Decision::Stop(StopReason::Deadline);
        }
        // Last, so that nothing is paid for a retry that does not happen.
        if !track.budget.try_withdraw() {
            return Decision::Stop(StopReason::Budget);
        }
        Decision::Again { after }
    }

    /// Earns tokens back. Call it once for every call that ended with a success, whichever attempt
    /// brought it.
    pub fn on_success(&self) {
        self.conflict.budget.on_success();
        self.outage.budget.on_success();
    }

    /// The budget that reruns after conflicts spend.
    #[must_use]
    pub fn conflict_budget(&self) -> &Budget {
        &self.conflict.budget
    }

    /// The budget that retries after outages spend.
    #[must_use]
    pub fn outage_budget(&self) -> &Budget {
        &self.outage.budget
    }
}

/// Whether work may be repeated, and as which kind of failure.
enum Permission {
    No,
    AsConflict,
    AsOutage,
}

/// The table of the module: safety first (class and work), then which policy (evidence).
fn permission(class: Class, evidence: Evidence, work: Work) -> Permission {
    // A caller who left wants nothing more, and what was shed would only be shed again, later.
    if work == Work::Once || evidence == Evidence::Neither {
        return Permission::No;
    }
    let allowed = match class {
        Class::NotSent => true,
        // A lone write whose connection went silent: the class says that it left no trace, but only
        // an answer of the server proves it, and booking twice is worse than an error. Its caller
        // may call it idempotent.
        Class::RolledBack => work != Work::Write || evidence != Evidence::Silent,
        Class::ReadLost => work != Work::Write,
        Class::OutcomeUnknown => work == Work::IdempotentWrite,
        Class::Permanent => false,
    };
    match (allowed, class, evidence) {
        (false, ..) => Permission::No,
        (true, Class::RolledBack, Evidence::Answered) => Permission::AsConflict,
        (true, ..) => Permission::AsOutage,
    }
}

#[cfg(test)]
mod tests;
