//! Everything behind a [`Database`](crate::Database): one per database, shared by its clones.

use crate::attempts::Setback;
use crate::gate::Gate;
use crate::health::Probe;
use crate::lanes::{Hold, Lanes, PoolLease};
use crate::listen::Listeners;
use crate::lookout::Lookout;
use crate::metrics::{EachTime, PoolObserver};
use crate::replicas::Replicas;
use crate::router::{Company, Router};
use crate::stream::Warned;
use crate::tokens::Tokens;
use mainstay_core::backend::{Backend, Lane, System};
use mainstay_core::config::Target;
use mainstay_core::{Config, Deadline, Error, Evidence, Result};
use mainstay_pool::{Observer, Request};
use mainstay_resilience::{BreakerConfig, Retrier, RetryPolicy};
use std::hash::{BuildHasher, RandomState};
use std::panic::Location;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) struct Engine {
    pub(crate) config: Config,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) each_time: Arc<EachTime>,
    pub(crate) lanes: Lanes,
    pub(crate) router: Router,
    pub(crate) gate: Arc<Gate>,
    pub(crate) retrier: Retrier,
    pub(crate) probe: Probe,
    pub(crate) lookout: Lookout,
    pub(crate) warned: Warned,
    pub(crate) tokens: Tokens,
    pub(crate) listeners: Listeners,
    /// Where reads are sent to replicas.
    pub(crate) replicas: Option<Replicas>,
    /// Turns true when the database is closed, so that what lives long lets go at once.
    pub(crate) closing: watch::Sender<bool>,
    pub(crate) opened_at: Instant,
    hasher: RandomState,
    me: Weak<Self>,
}

impl Engine {
    pub(crate) fn new(config: Config, backend: Arc<dyn Backend>) -> Arc<Self> {
        Arc::new_cyclic(|me: &Weak<Self>| {
            let each_time = Arc::new(EachTime::new(&*backend));
            let observer = PoolObserver::new(me.clone(), Arc::clone(&each_time), &*backend);
            let observer: Arc<dyn Observer> = Arc::new(observer);
            let breaker = (backend.system() != System::Sqlite).then(|| breaker_config(&config));
            let gate = Arc::new(Gate::new(me.clone(), breaker));
            Self {
                each_time,
                lanes: Lanes::new(&config, &backend, &gate, &observer),
                router: Router::default(),
                gate,
                retrier: retrier(&config, &*backend),
                probe: Probe::default(),
                lookout: Lookout::default(),
                warned: Warned::default(),
                tokens: Tokens::default(),
                listeners: Listeners::default(),
                replicas: backend.max_replica_lag().map(Replicas::new),
                closing: watch::Sender::new(false),
                opened_at: Instant::now(),
                hasher: RandomState::new(),
                me: me.clone(),
                config,
                backend,
            }
        })
    }

    pub(crate) fn me(&self) -> &Weak<Self> {
        &self.me
    }

    /// Passes the gate and takes a lease.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    pub(crate) async fn admit(
        &self,
        lane: Lane,
        deadline: Deadline,
        site: &'static Location<'static>,
    ) -> Result<PoolLease, Setback> {
        if let (Lane::Read, Some(replicas)) = (lane, &self.replicas) {
            return Box::pin(self.admit_to_replica(replicas, deadline, site)).await;
        }
        self.gate
            .admit(Instant::now())
            .map_err(Setback::NotServed)?;
        let lease = self.lanes.acquire(lane, deadline, &self.gate, site).await;
        self.served(lease)
    }

    /// Passes the gate and takes what a one-shot statement runs on: a place on a shared connection
    /// where the lane has such, else a lease. Says since when it is the caller's.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    pub(crate) async fn seat(
        &self,
        now: Instant,
        lane: Lane,
        company: Company,
        deadline: Deadline,
        site: &'static Location<'static>,
    ) -> Result<(Hold, Instant), Setback> {
        // Boxed, so that those who need not wait do not carry what waits.
        let hold = if let (Lane::Read, Some(replicas)) = (lane, &self.replicas) {
            Box::pin(self.seat_at_replica(replicas, company, deadline, site)).await?
        } else {
            self.gate.admit(now).map_err(Setback::NotServed)?;
            if let Some(hold) = self.lanes.hold_at_once(now, lane, company, deadline, site) {
                return Ok((hold, now));
            }
            let waiting = self.lanes.hold(lane, company, deadline, &self.gate, site);
            self.served(Box::pin(waiting).await)?
        };
        Ok((hold, Instant::now()))
    }

    pub(crate) fn served<T>(&self, answer: Result<T>) -> Result<T, Setback> {
        if answer.is_err() {
            // The place that the gate gave is given back; why there was no connection, the pool has
            // already told it.
            self.gate.leave();
        }
        answer.map_err(Setback::NotServed)
    }

    /// Tells gate and health what a statement's result says about the database.
    pub(crate) fn witness(&self, text: &str, took: Duration, failure: Option<&Error>) {
        self.witness_at(Instant::now(), text, took, failure);
    }

    /// The same for a caller that has just read the clock.
    pub(crate) fn witness_at(
        &self,
        now: Instant,
        text: &str,
        took: Duration,
        failure: Option<&Error>,
    ) {
        let evidence = failure.map_or(Evidence::Answered, Error::evidence);
        // Only failures are told apart by their texts.
        let statement = failure.map_or(0, |_| self.hasher.hash_one(text));
        self.gate.on_evidence(now, evidence, failure, statement);
        self.probe.witness(took, failure);
        if let Some(failure) = failure {
            self.look_out(failure);
        }
    }

    /// Asks the database whether it answers, on a connection of the read lane (where reads go to
    /// replicas, on one of the primary), and, where that was
    /// asked for, whether it would take a write; past the gate.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the connections back.
    pub(crate) async fn ask(&self, deadline: Deadline) -> Result<()> {
        let lease = self.borrow_past_gate(self.home(), deadline).await?;
        lease.check(deadline).await?;
        if !self.probes_writing() {
            return Ok(());
        }
        // Given back before another is asked for: there may be only one.
        drop(lease);
        let lease = self.borrow_past_gate(Lane::Write, deadline).await?;
        lease.check_writing(deadline).await
    }

    fn probes_writing(&self) -> bool {
        matches!(&self.config.target, Target::Sqlite(target) if target.write_probe)
    }

    pub(crate) async fn borrow_past_gate(
        &self,
        lane: Lane,
        deadline: Deadline,
    ) -> Result<PoolLease> {
        let pool = self.lanes.pool(lane);
        let lease = pool.acquire_with(Request::until(deadline.instant()));
        lease.await.map_err(|error| crate::lanes::explain(&error))
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("backend", &self.backend)
            .finish_non_exhaustive()
    }
}

fn breaker_config(config: &Config) -> BreakerConfig {
    let mut breaker = BreakerConfig::default();
    breaker.ride_through = config.ride_through;
    breaker
}

/// The reserve of the budgets covers the loss of every call in flight at once, whatever its next attempts
/// meet: one restart takes them all, before any success can earn a token.
fn retrier(config: &Config, backend: &dyn Backend) -> Retrier {
    let in_flight = u32::try_from(in_flight(config, backend)).unwrap_or(u32::MAX);
    let in_flight = in_flight.saturating_mul(config.retry_max);
    let attempts = config.retry_max.saturating_add(1);
    let mut conflicts = RetryPolicy::conflicts().with_in_flight(in_flight);
    if config.retry_max == 0 {
        conflicts = conflicts.with_attempts(1);
    }
    let outages = RetryPolicy::outages()
        .with_in_flight(in_flight)
        .with_attempts(attempts)
        .with_base(config.retry_base);
    Retrier::new(conflicts, outages)
}

/// The most calls that can be in flight at once: one on each connection, more where a lane shares them.
fn in_flight(config: &Config, backend: &dyn Backend) -> usize {
    let limit = config.connection_limit;
    let shared = [Lane::Read, Lane::Write].map(|lane| {
        backend.sharing(lane).map_or(0, |sharing| {
            sharing.active.min(limit).saturating_mul(sharing.depth)
        })
    });
    shared.into_iter().fold(limit, usize::saturating_add)
}
