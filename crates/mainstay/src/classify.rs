//! Any other fallible work under the same policy.
//!
//! A payment provider, a queue, another driver: whoever can say what a failure means for what may be
//! done next can have it repeated by the same rules, with backoff, budget and deadline.

use crate::attempts::Attempts;
use mainstay_core::{Class, Deadline, Error, Evidence};
use mainstay_resilience::{Retrier, RetryPolicy as Limits, Work};
use std::future::Future;
use std::time::Duration;

/// An error that says what may be done next.
pub trait Classify {
    /// What this failure allows to be done next.
    fn class(&self) -> Class;

    /// What it says about the health of the other side.
    fn evidence(&self) -> Evidence;
}

impl Classify for Error {
    fn class(&self) -> Class {
        self.class()
    }

    fn evidence(&self) -> Evidence {
        self.evidence()
    }
}

/// How often, how fast and for how long work is repeated. Clones share the budget, so one policy for
/// one other side bounds what all callers together do to it.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    retrier: Retrier,
    attempts: u32,
    base: Duration,
    timeout: Duration,
    idempotent: bool,
}

impl Default for RetryPolicy {
    /// Up to three attempts, 50 ms base, 30 s in all: what the database's own calls do.
    fn default() -> Self {
        Self::new(3, Duration::from_millis(50))
    }
}

impl RetryPolicy {
    /// A policy with so many attempts, the first included, and this first delay.
    #[must_use]
    pub fn new(attempts: u32, base: Duration) -> Self {
        let conflicts = Limits::conflicts().with_attempts(attempts).with_base(base);
        let outages = Limits::outages().with_attempts(attempts).with_base(base);
        Self {
            retrier: Retrier::new(conflicts, outages),
            attempts,
            base,
            timeout: Duration::from_secs(30),
            idempotent: false,
        }
    }

    /// Until when everything must be done, counted from the call.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Says that doing the work twice is the same as doing it once, so it may be repeated after an
    /// unknown outcome.
    #[must_use]
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// How often at most, the first included.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The first delay.
    #[must_use]
    pub fn base(&self) -> Duration {
        self.base
    }
}

/// Runs work until it succeeds, its failure may not be repeated, or the policy's patience ends. The
/// closure is given the number of the attempt, from 1.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> mainstay::Result<()> {
/// use mainstay::{RetryPolicy, retry};
/// let policy = RetryPolicy::default();
/// let answer = retry(&policy, async |attempt| {
///     // … call something that answers mainstay::Error or any other Classify …
///     Ok::<_, mainstay::Error>(attempt)
/// })
/// .await?;
/// assert_eq!(answer, 1);
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// The last failure.
///
/// # Cancel safety
///
/// Dropping the future drops the closure's.
pub async fn retry<T, E, F, Fut>(policy: &RetryPolicy, work: F) -> Result<T, E>
where
    E: Classify,
    F: Fn(u32) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let deadline = Deadline::from_now(policy.timeout);
    let kind = if policy.idempotent {
        Work::IdempotentWrite
    } else {
        Work::Unit
    };
    let mut attempts = Attempts::new(&policy.retrier, deadline);
    loop {
        match work(attempts.number()).await {
            Ok(value) => {
                attempts.succeeded();
                return Ok(value);
            }
            Err(error) if attempts.again(error.class(), error.evidence(), kind).await => {}
            Err(error) => return Err(error),
        }
    }
}
