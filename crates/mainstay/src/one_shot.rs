//! The life of one statement.
//!
//! Deadline, router, gate, pool, backend, retry, metrics, in this order and in one place.

use crate::attempts::{Attempts, Setback};
use crate::bound::{answer_by, frame};
use crate::call::CallOptions;
use crate::engine::Engine;
use crate::lanes::{Hold, PoolLease};
use crate::metrics;
use crate::router::{Company, Route};
use mainstay_core::backend::{Burden, Lane, Reply, Want};
use mainstay_core::{Deadline, Error, Params, Result, Statement};
use mainstay_resilience::Work;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tracing::Instrument;

/// A statement that takes longer than this on a connection of its own would keep those waiting with
/// whom it shares one.
const SLOW: Duration = Duration::from_millis(50);

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
    let seat = seat(engine, statement, options, deadline).await?;
    let lane = seat.lane;
    let outcome = send(engine, &seat, statement, want, deadline).await;
    drop(seat);
    match outcome {
        Ok(reply) => {
            if let Some(burden) = reply.burden {
                engine.router.remember_alone(statement.text(), burden);
            }
            Ok(reply)
        }
        // Rare, and what a caller keeps while it waits is as large as its largest branch.
        Err(error) => {
            Box::pin(elsewhere(
                engine, statement, want, options, deadline, lane, error,
            ))
            .await
        }
    }
}

/// Runs a statement again that turned out to belong on another lane, or on a connection of its own; any
/// other error is the attempt's.
async fn elsewhere(
    engine: &Arc<Engine>,
    statement: &Statement,
    want: Want,
    options: CallOptions,
    deadline: Deadline,
    lane: Lane,
    error: Error,
) -> Result<Reply, Setback> {
    let failed = |lane| move |error| Setback::Failed(error, work(lane, options));
    if error.is_refused_by_read_lane() {
        engine.router.remember(statement.text(), Lane::Write);
        let seat = sit(engine, Lane::Write, Company::Mixed, options, deadline).await?;
        send(engine, &seat, statement, want, deadline)
            .await
            .map_err(failed(Lane::Write))
    } else if let Some(burden) = error.burden() {
        let seat = Seat::alone(engine.admit(lane, deadline, options.site).await?, lane);
        let started = Instant::now();
        let outcome = send(engine, &seat, statement, want, deadline).await;
        // What is quick alone was not to blame: the server was slow with everything.
        if burden == Burden::Large || started.elapsed() >= SLOW {
            engine.router.remember_alone(statement.text(), burden);
        }
        outcome.map_err(failed(lane))
    } else {
        Err(failed(lane)(error))
    }
}

/// What a statement runs on.
struct Seat {
    hold: Hold,
    lane: Lane,
    company: Company,
}

impl Seat {
    fn alone(lease: PoolLease, lane: Lane) -> Self {
        Self {
            hold: Hold::Lease(lease),
            lane,
            company: Company::Alone,
        }
    }
}

/// What the statement runs on, on the lane where it belongs as far as is known before it is sent.
async fn seat(
    engine: &Arc<Engine>,
    statement: &Statement,
    options: CallOptions,
    deadline: Deadline,
) -> Result<Seat, Setback> {
    match target(engine, statement, options)? {
        Target::Place(lane, company) => sit(engine, lane, company, options, deadline).await,
        Target::Lease(_) | Target::Ask => {
            let lending = Box::pin(lend(engine, statement, options, deadline));
            let (lease, lane) = lending.await?;
            Ok(Seat::alone(lease, lane))
        }
    }
}

async fn sit(
    engine: &Arc<Engine>,
    lane: Lane,
    company: Company,
    options: CallOptions,
    deadline: Deadline,
) -> Result<Seat, Setback> {
    let hold = engine.seat(lane, company, deadline, options.site).await?;
    Ok(Seat {
        hold,
        lane,
        company,
    })
}

/// A lease of the lane on which the statement belongs, as far as is known before it is sent.
pub(crate) async fn lend(
    engine: &Arc<Engine>,
    statement: &Statement,
    options: CallOptions,
    deadline: Deadline,
) -> Result<(PoolLease, Lane), Setback> {
    match target(engine, statement, options)? {
        Target::Place(lane, _) | Target::Lease(lane) => {
            Ok((engine.admit(lane, deadline, options.site).await?, lane))
        }
        Target::Ask => {
            let lease = engine.admit(Lane::Read, deadline, options.site).await?;
            let text = statement.text();
            // A crowd that comes with a new text waits for leases; by now somebody else has asked.
            let lane = match target(engine, statement, options)? {
                Target::Place(lane, _) | Target::Lease(lane) => lane,
                Target::Ask => {
                    let lane = ask(engine, &lease, text, deadline).await?;
                    engine.router.remember(text, lane);
                    lane
                }
            };
            if lane == Lane::Read {
                return Ok((lease, lane));
            }
            // Given back before another one is waited for.
            drop(lease);
            Ok((engine.admit(lane, deadline, options.site).await?, lane))
        }
    }
}

/// What a statement is to be run on.
enum Target {
    /// A place, where the lane has such.
    Place(Lane, Company),
    /// A connection of its own.
    Lease(Lane),
    /// One of its own, on which the database is asked about the lane first.
    Ask,
}

fn target(engine: &Engine, statement: &Statement, options: CallOptions) -> Result<Target, Setback> {
    let route = engine
        .router
        .route(&*engine.backend, statement.text())
        .map_err(Setback::NotServed)?;
    Ok(match route {
        _ if options.write => Target::Place(Lane::Write, Company::Mixed),
        Route::Known(lane, Company::Alone) => Target::Lease(lane),
        Route::Known(lane, company) => Target::Place(lane, company),
        Route::Ask => Target::Ask,
    })
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
    seat: &Seat,
    statement: &Statement,
    want: Want,
    deadline: Deadline,
) -> Result<Reply> {
    let (hold, lane) = (&seat.hold, seat.lane);
    let started = Instant::now();
    let call = frame(lane, deadline, started);
    let before = hold.lane();
    let running = if hold.is_shared() {
        hold.run_shared(statement, want, call)
    } else {
        hold.run(statement, want, call)
    };
    let result = answer_by(deadline, lane, running).await;
    hold.settle(before, lane);
    let took = started.elapsed();
    engine.witness(statement.text(), took, result.as_ref().err());
    if let Some(limit) = engine.lanes.brief(lane)
        && hold.is_shared()
        && result.is_ok()
    {
        let was_brief = took < limit;
        // Nothing new, as a rule.
        if !was_brief || seat.company != (Company::Brief { sure: true }) {
            engine.router.note(statement.text(), was_brief);
        }
    }
    result
}
