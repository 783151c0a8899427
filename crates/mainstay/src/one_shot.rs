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
use mainstay_core::{Deadline, Error, Result, Statement};
use mainstay_resilience::Work;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tracing::Instrument;

/// A statement that takes longer than this on a connection of its own would keep those waiting with
/// whom it shares one.
const SLOW: Duration = Duration::from_millis(50);

/// One statement, and what its caller asks of it. All that is done about it borrows from here: what a
/// future is given by value it keeps twice.
pub(crate) struct OneShot<'a> {
    pub(crate) engine: &'a Arc<Engine>,
    pub(crate) statement: Statement,
    pub(crate) want: Want,
    pub(crate) options: CallOptions,
    pub(crate) deadline: Deadline,
    pub(crate) started: Instant,
}

impl<'a> OneShot<'a> {
    /// Runs the statement to its end: repeats it where that is allowed, never past the deadline.
    ///
    /// # Cancel safety
    ///
    /// As [`Call`](crate::Call).
    #[expect(
        clippy::manual_async_fn,
        reason = "a block keeps what it is given once"
    )]
    pub(crate) fn run(self) -> impl Future<Output = Result<Reply>> + Send + use<'a> {
        async move {
            let span = metrics::span(self.engine, &self.statement);
            let attempts = async {
                let mut attempts = Attempts::new(&self.engine.retrier, self.deadline);
                let mut now = self.started;
                loop {
                    match self.attempt(now).await {
                        Ok(reply) => {
                            attempts.succeeded();
                            break Ok(reply);
                        }
                        Err(setback) => attempts.after(setback).await?,
                    }
                    now = Instant::now();
                }
            };
            let result = attempts.instrument(span).await;
            let took = self.started.elapsed();
            metrics::operation(self.engine, &self.statement, took, result.as_ref().err());
            result
        }
    }

    async fn attempt(&self, now: Instant) -> Result<Reply, Setback> {
        let seat = self.seat(now).await?;
        let lane = seat.lane;
        let outcome = self.send(&seat).await;
        drop(seat);
        match outcome {
            Ok(reply) => {
                if let Some(burden) = reply.burden {
                    let text = self.statement.text();
                    self.engine.router.remember_alone(text, burden);
                }
                Ok(reply)
            }
            // Rare, and what a caller keeps while it waits is as large as its largest branch.
            Err(error) => Box::pin(self.elsewhere(lane, error)).await,
        }
    }

    /// Runs a statement again that turned out to belong on another lane, or on a connection of its own;
    /// any other error is the attempt's.
    async fn elsewhere(&self, lane: Lane, error: Error) -> Result<Reply, Setback> {
        let failed = |lane| move |error| Setback::Failed(error, work(lane, self.options));
        let (router, text) = (&self.engine.router, self.statement.text());
        if error.is_refused_by_read_lane() {
            router.remember(text, Lane::Write);
            let seat = self.sit(Instant::now(), Lane::Write, Company::Mixed);
            let seat = seat.await?;
            self.send(&seat).await.map_err(failed(Lane::Write))
        } else if let Some(burden) = error.burden() {
            let admitted = self.engine.admit(lane, self.deadline, self.options.site);
            let seat = Seat::alone(admitted.await?, lane);
            let outcome = self.send(&seat).await;
            // What is quick alone was not to blame: the server was slow with everything.
            if burden == Burden::Large || seat.since.elapsed() >= SLOW {
                router.remember_alone(text, burden);
            }
            outcome.map_err(failed(lane))
        } else {
            Err(failed(lane)(error))
        }
    }

    /// What the statement runs on, on the lane where it belongs as far as is known before it is sent.
    async fn seat(&self, now: Instant) -> Result<Seat, Setback> {
        match self.target(now)? {
            Target::Place(lane, company) => self.sit(now, lane, company).await,
            Target::Lease(_) | Target::Ask => {
                let (lease, lane) = Box::pin(self.lend()).await?;
                Ok(Seat::alone(lease, lane))
            }
        }
    }

    async fn sit(&self, now: Instant, lane: Lane, company: Company) -> Result<Seat, Setback> {
        let (deadline, site) = (self.deadline, self.options.site);
        let seated = self.engine.seat(now, lane, company, deadline, site);
        let (hold, since) = seated.await?;
        Ok(Seat {
            hold,
            since,
            lane,
            company,
        })
    }

    /// A lease of the lane on which the statement belongs, as far as is known before it is sent.
    pub(crate) async fn lend(&self) -> Result<(PoolLease, Lane), Setback> {
        let admit = |lane| self.engine.admit(lane, self.deadline, self.options.site);
        match self.target(Instant::now())? {
            Target::Place(lane, _) | Target::Lease(lane) => Ok((admit(lane).await?, lane)),
            Target::Ask => {
                let lease = admit(Lane::Read).await?;
                // A crowd that comes with a new text waits for leases; by now somebody else has asked.
                let lane = match self.target(Instant::now())? {
                    Target::Place(lane, _) | Target::Lease(lane) => lane,
                    Target::Ask => {
                        let lane = self.ask(&lease).await?;
                        self.engine.router.remember(self.statement.text(), lane);
                        lane
                    }
                };
                if lane == Lane::Read {
                    return Ok((lease, lane));
                }
                // Given back before another one is waited for.
                drop(lease);
                Ok((admit(lane).await?, lane))
            }
        }
    }

    fn target(&self, now: Instant) -> Result<Target, Setback> {
        let route = self
            .engine
            .router
            .route(now, &*self.engine.backend, self.statement.text())
            .map_err(Setback::NotServed)?;
        Ok(match route {
            _ if self.options.write => Target::Place(Lane::Write, Company::Mixed),
            Route::Known(lane, Company::Alone) => Target::Lease(lane),
            Route::Known(lane, company) => Target::Place(lane, company),
            Route::Ask => Target::Ask,
        })
    }

    /// Asks the database where a text belongs.
    async fn ask(&self, lease: &PoolLease) -> Result<Lane, Setback> {
        let (started, text) = (Instant::now(), self.statement.text());
        let asked = self.engine.backend.route(&***lease, text, self.deadline);
        answer_by(self.deadline, Lane::Read, asked)
            .await
            .map_err(|error| {
                let took = started.elapsed();
                self.engine.witness(text, took, Some(&error));
                Setback::Failed(error, Work::Read)
            })
    }

    async fn send(&self, seat: &Seat) -> Result<Reply> {
        let (hold, lane) = (&seat.hold, seat.lane);
        let call = frame(lane, self.deadline, seat.since);
        let before = hold.lane();
        let running = if hold.is_shared() {
            hold.run_shared(&self.statement, self.want, call)
        } else {
            hold.run(&self.statement, self.want, call)
        };
        let result = answer_by(self.deadline, lane, running).await;
        hold.settle(before, lane);
        let now = Instant::now();
        let took = now.saturating_duration_since(seat.since);
        let (engine, text) = (self.engine, self.statement.text());
        engine.witness_at(now, text, took, result.as_ref().err());
        if let Some(limit) = engine.lanes.brief(lane)
            && hold.is_shared()
            && result.is_ok()
        {
            let was_brief = took < limit;
            // Nothing new, as a rule.
            if !was_brief || seat.company != (Company::Brief { sure: true }) {
                engine.router.note(text, was_brief);
            }
        }
        result
    }
}

/// What it means to do a statement of this lane again.
pub(crate) fn work(lane: Lane, options: CallOptions) -> Work {
    match lane {
        Lane::Read => Work::Read,
        Lane::Write if options.idempotent => Work::IdempotentWrite,
        Lane::Write => Work::Write,
    }
}

/// What a statement runs on.
struct Seat {
    hold: Hold,
    /// Since when the caller has it, which is when the statement is sent.
    since: Instant,
    lane: Lane,
    company: Company,
}

impl Seat {
    fn alone(lease: PoolLease, lane: Lane) -> Self {
        Self {
            hold: Hold::Lease(lease),
            since: Instant::now(),
            lane,
            company: Company::Alone,
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
