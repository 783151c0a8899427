//! The only place that repeats anything.
//!
//! A retry loop in every method is how a layer ends up booking twice: each loop knows a little, and
//! none knows everything. Here the class of the failure, the work at hand, the deadline and the
//! budget meet, once.

use mainstay_core::{Class, Deadline, Error, Evidence};
use mainstay_resilience::{Backoff, Decision, Retrier, Work};
use tokio::time::Instant;

/// Why one attempt did not succeed.
pub(crate) enum Setback {
    /// There was no connection to try it on. The pool has waited for one and tried to open one, again
    /// and again, for as long as it may: that is the caller's answer.
    NotServed(Error),
    /// It was tried, on this kind of work.
    Failed(Error, Work),
}

impl Setback {
    pub(crate) fn into_error(self) -> Error {
        let (Self::NotServed(error) | Self::Failed(error, _)) = self;
        error
    }
}

/// The attempts of one call.
pub(crate) struct Attempts<'e> {
    retrier: &'e Retrier,
    deadline: Deadline,
    number: u32,
}

impl<'e> Attempts<'e> {
    pub(crate) fn new(retrier: &'e Retrier, deadline: Deadline) -> Self {
        Self {
            retrier,
            deadline,
            number: 1,
        }
    }

    /// The number of the present attempt, the first is 1.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Takes note of a success: it earns tokens for later.
    pub(crate) fn succeeded(&self) {
        self.retrier.on_success();
    }

    /// Decides about a setback: waits and answers `Ok` when the work is to be done again, or answers
    /// the error.
    ///
    /// # Cancel safety
    ///
    /// As [`again`](Self::again).
    pub(crate) async fn after(&mut self, setback: Setback) -> Result<(), Error> {
        let error = match setback {
            Setback::NotServed(error) => error,
            // Its time is over; what is left of it is the margin for this answer.
            Setback::Failed(error, _) if error.is_timeout() => error,
            Setback::Failed(error, work) => {
                if self.again(error.class(), error.evidence(), work).await {
                    return Ok(());
                }
                error
            }
        };
        let attempts = self.number;
        Err(error.into_report().attempts(attempts).into())
    }

    /// Waits before an attempt that no failure asks for; false when the deadline leaves no time for it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the call.
    pub(crate) async fn pause(&mut self, pauses: &Backoff) -> bool {
        let pause = pauses.delay(self.number, &mut fastrand::Rng::new());
        if pause >= self.deadline.remaining(Instant::now()) {
            return false;
        }
        self.number += 1;
        tokio::time::sleep(pause).await;
        true
    }

    /// Decides about a failure: waits and answers true when the work is to be done again.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the call; a token that was paid stays paid.
    pub(crate) async fn again(&mut self, class: Class, evidence: Evidence, work: Work) -> bool {
        let decision = self.retrier.decide(
            Instant::now(),
            self.number,
            class,
            evidence,
            work,
            self.deadline,
            &mut fastrand::Rng::new(),
        );
        match decision {
            Decision::Again { after } => {
                let (attempt, class) = (self.number, class.as_str());
                tracing::debug!(attempt, class, delay = ?after, "trying again");
                crate::metrics::retried(class);
                self.number += 1;
                tokio::time::sleep(after).await;
                true
            }
            Decision::Stop(reason) => {
                tracing::trace!(reason = reason.as_str(), "not trying again");
                false
            }
        }
    }
}
