//! The life of one statement.
//!
//! Deadline, router, gate, pool, backend, retry, metrics, in this order and in one place.

use crate::attempts::{Attempts, Setback};
use crate::bound::{answer_by, frame};
use crate::call::CallOptions;
use crate::engine::Engine;
use crate::lanes::{Hold, PoolLease};
use crate::metrics;
use crate::router::Route;
use mainstay_core::backend::{Lane, Reply, Want};
use mainstay_core::{Deadline, Params, Result, Statement};
use mainstay_resilience::Work;
use std::sync::Arc;
use tokio::time::Instant;
use tracing::Instrument;

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
    let span = metrics::span(engine, &statement);
    let attempts = async {
        let mut attempts = Attempts::new(&engine.retrier, deadline);
        loop {
            match attempt(engine, &statement, want, options, deadline).await {
                Ok(reply) => {
                    attempts.succeeded();
                    break Ok(reply);
                }
                Err(setback) => attempts.after(setback).await?,
            }
        }
    };
    let result = attempts.instrument(span).await;
    metrics::operation(engine, &statement, started.elapsed(), result.as_ref().err());
    result
}

/// What it means to do a statement of this lane again.
pub(crate) fn work(lane: Lane, options: CallOptions) -> Work {
    match lane {
        Lane::Read => Work::Read,
        Lane::Write if options.idempotent => Work::IdempotentWrite,
        Lane::Write => Work::Write,
    }
}

async fn attempt(
    engine: &Arc<Engine>,
    statement: &Statement,
    want: Want,
    options: CallOptions,
    deadline: Deadline,
) -> Result<Reply, Setback> {
    let (mut hold, lane) = seat(engine, statement, options, deadline).await?;
    match send(engine, &mut hold, statement, want, lane, deadline).await {
        Ok(reply) => Ok(reply),
        Err(error) if error.is_refused_by_read_lane() => {
            drop(hold);
            engine.router.remember(statement.text(), Lane::Write);
            let mut hold = engine.seat(Lane::Write, deadline, options.site).await?;
            send(engine, &mut hold, statement, want, Lane::Write, deadline)
                .await
                .map_err(|error| Setback::Failed(error, work(Lane::Write, options)))
        }
        Err(error) => Err(Setback::Failed(error, work(lane, options))),
    }
}

/// What the statement runs on, on the lane where it belongs as far as is known before it is sent.
async fn seat(
    engine: &Arc<Engine>,
    statement: &Statement,
    options: CallOptions,
    deadline: Deadline,
) -> Result<(Hold, Lane), Setback> {
    match lane(engine, statement, options, deadline).await? {
        (lane, Some(asked)) => Ok((Hold::Lease(asked), lane)),
        (lane, None) => Ok((engine.seat(lane, deadline, options.site).await?, lane)),
    }
}

/// A lease of the lane on which the statement belongs, as far as is known before it is sent.
pub(crate) async fn lend(
    engine: &Arc<Engine>,
    statement: &Statement,
    options: CallOptions,
    deadline: Deadline,
) -> Result<(PoolLease, Lane), Setback> {
    match lane(engine, statement, options, deadline).await? {
        (lane, Some(asked)) => Ok((asked, lane)),
        (lane, None) => Ok((engine.admit(lane, deadline, options.site).await?, lane)),
    }
}

/// The lane of a statement; with the lease on which the database was asked, if it had to be.
async fn lane(
    engine: &Arc<Engine>,
    statement: &Statement,
    options: CallOptions,
    deadline: Deadline,
) -> Result<(Lane, Option<PoolLease>), Setback> {
    let text = statement.text();
    let route = engine
        .router
        .route(&*engine.backend, text)
        .map_err(Setback::NotServed)?;
    match route {
        _ if options.write => Ok((Lane::Write, None)),
        Route::Known(lane) => Ok((lane, None)),
        Route::Ask => {
            let lease = engine.admit(Lane::Read, deadline, options.site).await?;
            let lane = ask(engine, &lease, text, deadline).await?;
            engine.router.remember(text, lane);
            // Given back before another one is waited for, where it cannot be used.
            Ok((lane, Some(lease).filter(|_| lane == Lane::Read)))
        }
    }
}

/// Asks the database where a text belongs.
async fn ask(
    engine: &Engine,
    lease: &PoolLease,
    text: &Arc<str>,
    deadline: Deadline,
) -> Result<Lane, Setback> {
    let started = Instant::now();
    let asked = engine.backend.route(&***lease, text, deadline);
    answer_by(deadline, Lane::Read, asked)
        .await
        .map_err(|error| {
            engine.witness(text, started.elapsed(), Some(&error));
            Setback::Failed(error, Work::Read)
        })
}

async fn send(
    engine: &Arc<Engine>,
    hold: &mut Hold,
    statement: &Statement,
    want: Want,
    lane: Lane,
    deadline: Deadline,
) -> Result<Reply> {
    let started = Instant::now();
    let call = frame(lane, deadline, started);
    let is_moving = hold.lane() != lane;
    let running = if hold.is_shared() {
        hold.run_shared(statement, want, call)
    } else {
        hold.run(statement, want, call)
    };
    let result = answer_by(deadline, lane, running).await;
    if is_moving && result.is_ok() {
        hold.settle(lane);
    }
    engine.witness(statement.text(), started.elapsed(), result.as_ref().err());
    result
}
