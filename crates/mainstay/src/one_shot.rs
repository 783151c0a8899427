//! The life of one statement.
//!
//! Deadline, router, gate, pool, backend, retry, metrics, in this order and in one place.

use crate::attempts::Attempts;
use crate::call::CallOptions;
use crate::engine::Engine;
use crate::lanes::PoolLease;
use crate::metrics;
use crate::router::Route;
use mainstay_core::backend::{Call, Lane, Reply, Want};
use mainstay_core::error::Report;
use mainstay_core::{Class, Deadline, Error, Evidence, Kind, Params, Result, Statement};
use mainstay_resilience::Work;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// The part of the remaining time that the backend leaves to the facade, so that its own definite
/// answer (a statement stopped, a write undone) arrives before the caller's patience ends.
const MARGIN_MAX: Duration = Duration::from_millis(50);

/// Runs one statement to its end: repeats it where that is allowed, never past the deadline.
///
/// # Cancel safety
///
/// As [`Call`](crate::Call).
pub(crate) async fn run(
    engine: &Arc<Engine>,
    text: &str,
    params: Params,
    want: Want,
    options: CallOptions,
    deadline: Deadline,
) -> Result<Reply> {
    let started = Instant::now();
    let statement = Statement::new(text, params)?;
    let mut attempts = Attempts::new(&engine.retrier, deadline);
    let result = loop {
        let (result, lane) = attempt(engine, &statement, want, options, deadline).await;
        match result {
            Ok(reply) => {
                attempts.succeeded();
                break Ok(reply);
            }
            Err(error) => {
                if let Err(error) = attempts.after(error, work(lane, options)).await {
                    break Err(error);
                }
            }
        }
    };
    metrics::operation(engine, &statement, started.elapsed(), result.as_ref().err());
    result
}

pub(crate) fn work(lane: Lane, options: CallOptions) -> Work {
    match lane {
        Lane::Read => Work::Read,
        Lane::Write if options.idempotent => Work::IdempotentWrite,
        Lane::Write => Work::Write,
    }
}

/// One attempt, and the lane on which it ended.
async fn attempt(
    engine: &Arc<Engine>,
    statement: &Statement,
    want: Want,
    options: CallOptions,
    deadline: Deadline,
) -> (Result<Reply>, Lane) {
    let (lease, lane) = match lend(engine, statement, options, deadline).await {
        Ok(lent) => lent,
        Err(error) => return (Err(error), Lane::Write),
    };
    let result = send(engine, &lease, statement, want, lane, deadline).await;
    match result {
        Err(error) if error.is_refused_by_read_lane() => {
            drop(lease);
            engine.router.remember(statement.text(), Lane::Write);
            let lease = match engine.admit(Lane::Write, deadline, options.site).await {
                Ok(lease) => lease,
                Err(error) => return (Err(error), Lane::Write),
            };
            let result = send(engine, &lease, statement, want, Lane::Write, deadline).await;
            (result, Lane::Write)
        }
        result => (result, lane),
    }
}

/// A lease of the lane on which the statement belongs, as far as is known before it is sent.
pub(crate) async fn lend(
    engine: &Arc<Engine>,
    statement: &Statement,
    options: CallOptions,
    deadline: Deadline,
) -> Result<(PoolLease, Lane)> {
    let text = statement.text();
    let route = engine.router.route(&*engine.backend, text)?;
    match route {
        _ if options.write => Ok((
            engine.admit(Lane::Write, deadline, options.site).await?,
            Lane::Write,
        )),
        Route::Known(lane) => Ok((engine.admit(lane, deadline, options.site).await?, lane)),
        Route::Ask => {
            let lease = engine.admit(Lane::Read, deadline, options.site).await?;
            let asked = engine.backend.route(&**lease, text, deadline);
            let lane = match timeout_at(deadline.instant(), asked).await {
                Ok(lane) => lane.inspect_err(|error| {
                    engine.witness(text, Duration::ZERO, Some(error));
                })?,
                Err(_) => return Err(too_late(Lane::Read)),
            };
            engine.router.remember(text, lane);
            match lane {
                Lane::Read => Ok((lease, lane)),
                Lane::Write => {
                    drop(lease);
                    Ok((engine.admit(lane, deadline, options.site).await?, lane))
                }
            }
        }
    }
}

async fn send(
    engine: &Arc<Engine>,
    lease: &PoolLease,
    statement: &Statement,
    want: Want,
    lane: Lane,
    deadline: Deadline,
) -> Result<Reply> {
    let started = Instant::now();
    let call = Call {
        lane,
        deadline: with_margin(deadline, started),
    };
    let running = lease.run(statement, want, call);
    let result = timeout_at(deadline.instant(), running)
        .await
        .unwrap_or_else(|_| Err(too_late(lane)));
    engine.witness(statement.text(), started.elapsed(), result.as_ref().err());
    result
}

/// The backend's deadline: a tenth of the remaining time earlier, at most 50 ms.
pub(crate) fn with_margin(deadline: Deadline, now: Instant) -> Deadline {
    let remaining = deadline.remaining(now);
    Deadline::at(deadline.instant() - (remaining / 10).min(MARGIN_MAX))
}

/// What is known when the deadline ends while a statement runs: a read has done nothing, a write may
/// have.
pub(crate) fn too_late(lane: Lane) -> Error {
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
