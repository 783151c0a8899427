//! What the breaker says to those who ask.

use std::time::Duration;

use tokio::time::Instant;

/// The state of a [`Breaker`](crate::Breaker).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Calls pass.
    Closed,
    /// Calls are refused.
    Open {
        /// When it is asked again whether the database is back.
        until: Instant,
        /// When the outage began: the first loss, or the operator's order.
        since: Instant,
    },
    /// A probe succeeded and the next one decides. Calls are still refused.
    HalfOpen,
}

/// Whether one call may go on.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Admission {
    /// Go on, and report what came of it through
    /// [`Breaker::on_evidence`](crate::Breaker::on_evidence).
    Pass,
    /// Fail now.
    Refuse {
        /// The earliest moment at which asking again can be of use.
        retry_after: Duration,
        /// When the outage began.
        since: Instant,
    },
}
