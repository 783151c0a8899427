//! How long the facade waits for a backend, and what is known when the wait ends.
//!
//! Every call of a backend is framed the same way: the backend's own deadline is a little earlier
//! than the caller's, and when the caller's ends all the same, the lane says what may have happened.

use futures_util::FutureExt;
use mainstay_core::backend::{Call, Lane};
use mainstay_core::error::Report;
use mainstay_core::{Class, Deadline, Error, Evidence, Kind, Result};
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// The part of the remaining time that the backend leaves to the facade, so that its own definite
/// answer (a statement stopped, a write undone) arrives before the caller's patience ends.
const MARGIN_MAX: Duration = Duration::from_millis(50);

/// The frame of a call that begins now: the backend's deadline is a tenth of the remaining time
/// earlier, at most 50 ms.
pub(crate) fn frame(lane: Lane, deadline: Deadline, now: Instant) -> Call {
    let margin = (deadline.remaining(now) / 10).min(MARGIN_MAX);
    Call {
        lane,
        deadline: Deadline::at(deadline.instant() - margin),
    }
}

/// Waits for a backend's answer until the deadline; after that, what the lane allows to be said.
///
/// # Cancel safety
///
/// As the future that is waited for.
pub(crate) fn answer_by<T>(
    deadline: Deadline,
    lane: Lane,
    answer: impl Future<Output = Result<T>>,
) -> impl Future<Output = Result<T>> {
    let answer = timeout_at(deadline.instant(), answer);
    answer.map(move |answer| answer.unwrap_or_else(|_| Err(too_late(lane))))
}

/// What is known when the deadline ends while a statement runs: a read has done nothing, a write may
/// have.
fn too_late(lane: Lane) -> Error {
    match lane {
        Lane::Read => Report::new(Kind::Timeout, "the deadline ended before the statement did")
            .class(Class::Permanent)
            .evidence(Evidence::Neither)
            .remedy("give it more time, or look at why it is slow"),
        Lane::Write => Report::new(
            Kind::OutcomeUnknown,
            "the deadline ended while a write was running; it may have happened",
        )
        .class(Class::OutcomeUnknown)
        .evidence(Evidence::Neither)
        .remedy("look whether it happened before doing it again"),
    }
    .timed_out()
    .into()
}
