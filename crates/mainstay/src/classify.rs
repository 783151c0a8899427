//! Any other fallible work under the same policy.
//!
//! A payment provider, a queue, another driver: whoever can say what a failure means for what may be
//! done next can have it repeated by the same rules, with backoff, budget and deadline. mainstay's
//! own errors can, and with the features `sqlx` and `diesel` those of these two drivers.

#[cfg(feature = "diesel")]
mod diesel;
#[cfg(feature = "sqlx")]
mod sqlx;

use crate::attempts::Attempts;
use mainstay_core::{Class, Deadline, Error, Evidence};
use mainstay_resilience::{Backoff, Retrier, RetryPolicy as Limits, Work};
use std::future::Future;
use std::time::Duration;

/// An error that says what may be done next.
///
/// The careful answer is the right one where the error does not say: [`Class::Permanent`] if it would
/// come again, [`Class::OutcomeUnknown`] if the work may have been done.
///
/// ```
/// use mainstay::{Class, Classify, Evidence};
///
/// /// What a payment provider answers.
/// enum Payment { Busy, Declined, NoAnswer }
///
/// impl Classify for Payment {
///     fn class(&self) -> Class {
///         match self {
///             Self::Busy => Class::RolledBack,         // it has done nothing
///             Self::Declined => Class::Permanent,
///             Self::NoAnswer => Class::OutcomeUnknown, // it may have booked
///         }
///     }
///
///     fn evidence(&self) -> Evidence {
///         match self {
///             Self::Busy => Evidence::Exhausted,
///             Self::Declined => Evidence::Answered,
///             Self::NoAnswer => Evidence::Silent,
///         }
///     }
/// }
/// ```
pub trait Classify {
    /// What this failure allows to be done next.
    fn class(&self) -> Class;

    /// What it says about the health of the other side. [`Evidence::Neither`] is never repeated: who
    /// was cancelled wants nothing more, and who was shed would only be shed again.
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
    until_found: bool,
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
            until_found: false,
        }
    }

    /// How long after the call the last attempt may begin. An attempt that runs is not interrupted; bound
    /// it by itself where it may hang.
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

    fn work(&self) -> Work {
        if self.idempotent {
            Work::IdempotentWrite
        } else {
            Work::Unit
        }
    }

    /// Makes [`retry_find`] look again for what is not there yet, as often as the policy allows.
    #[must_use]
    pub fn until_found(mut self) -> Self {
        self.until_found = true;
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
    let kind = policy.work();
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

/// Looks something up, and looks again after every failure that may pass: a lookup changes nothing, so
/// it may also be repeated when nobody knows whether it was done. What is not there is answered as
/// `None`; with [`RetryPolicy::until_found`] it is looked for again first, because another process,
/// or a replica that lags behind, may still bring it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> mainstay::Result<()> {
/// use mainstay::{Database, RetryPolicy, retry_find};
/// # let dir = std::env::temp_dir().join(format!("mainstay-find-{}", std::process::id()));
/// # let db = Database::connect(&format!("file:{}", dir.display())).await?;
/// # db.execute("create table if not exists jobs (id integer, state text)", ()).await?;
/// # db.execute("insert into jobs values (7, 'done')", ()).await?;
/// let policy = RetryPolicy::default().until_found();
/// let state: Option<String> = retry_find(&policy, async |_attempt| {
///     db.fetch_optional("select state from jobs where id = $1", (7,)).await
/// })
/// .await?;
/// assert_eq!(state.as_deref(), Some("done"));
/// # db.close().await; drop(std::fs::remove_file(dir)); Ok(()) }
/// ```
///
/// # Errors
///
/// The last failure.
///
/// # Cancel safety
///
/// Dropping the future drops the closure's.
pub async fn retry_find<T, E, F, Fut>(policy: &RetryPolicy, look: F) -> Result<Option<T>, E>
where
    E: Classify,
    F: Fn(u32) -> Fut,
    Fut: Future<Output = Result<Option<T>, E>>,
{
    let deadline = Deadline::from_now(policy.timeout);
    let mut attempts = Attempts::new(&policy.retrier, deadline);
    // Absence is an answer, so looking again costs no token; the number of attempts bounds it.
    let pauses = Backoff::new(policy.base, policy.base.max(PAUSE_MAX));
    loop {
        match look(attempts.number()).await {
            Ok(None) if policy.until_found && attempts.number() < policy.attempts => {
                if !attempts.pause(&pauses).await {
                    return Ok(None);
                }
            }
            Ok(found) => {
                attempts.succeeded();
                return Ok(found);
            }
            Err(error) => {
                let (class, evidence) = (error.class(), error.evidence());
                if !attempts.again(class, evidence, Work::IdempotentWrite).await {
                    return Err(error);
                }
            }
        }
    }
}

/// The longest pause before looking again for what is not there; the cap of retries after outages.
const PAUSE_MAX: Duration = Duration::from_secs(2);
