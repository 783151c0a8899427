//! The pools of the two lanes, and what it means not to get a connection.

use crate::connector::{
    self, CHECK_TIMEOUT, CLEAN_TIMEOUT, CLOSE_TIMEOUT, CONNECT_MARGIN, Connector, Shell,
};
use crate::gate::Gate;
use crate::router::Company;
use mainstay_core::backend::{Backend, Connection, Lane, Layout, Sharing, System};
use mainstay_core::error::Report;
use mainstay_core::{Class, Config, Deadline, Error, Evidence, Kind, Result};
use mainstay_pool::{AcquireError, Cause, Observer, Pool, Request, Shedding};
use mainstay_resilience::Backoff;
use std::future::poll_fn;
use std::ops::Deref;
use std::panic::Location;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;

pub(crate) type PoolLease = mainstay_pool::Lease<Shell>;

/// What a one-shot statement runs on.
pub(crate) enum Hold {
    /// A connection of its own.
    Lease(PoolLease),
    /// A connection beside others.
    Place(mainstay_pool::Place<Shell>),
}

impl Hold {
    /// Whether others may be on the connection.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::Place(_))
    }

    /// Notes whether a statement of this lane has moved the connection to it. The pool is told at once
    /// of one that others wait to share; a leased one tells when it comes back.
    pub(crate) fn settle(&self, before: Lane, lane: Lane) {
        if before == lane || self.lane() != lane {
            return;
        }
        crate::metrics::lane_changed(lane);
        if let Self::Place(place) = self {
            // Refused where others are on the connection: then it has that setting already.
            let _: bool = place.set_tag(connector::tag(lane));
        }
    }
}

impl Deref for Hold {
    type Target = Arc<dyn Connection>;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Lease(lease) => lease,
            Self::Place(place) => place,
        }
    }
}

/// How soon a caller that was refused for want of capacity may usefully come back.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The pools of one database. On PostgreSQL and in memory both lanes are the same pool; a SQLite
/// file has readers and one writer.
pub(crate) struct Lanes {
    read: Pool<Shell>,
    /// `None` when the read pool serves both lanes.
    write: Option<Pool<Shell>>,
    connectors: Vec<Arc<Connector>>,
    /// How one-shot statements share connections, on the read and on the write lane, if they do.
    sharing: [Option<Sharing>; 2],
    pool_timeout: Option<Duration>,
}

impl Lanes {
    pub(crate) fn new(
        config: &Config,
        backend: &Arc<dyn Backend>,
        gate: &Arc<Gate>,
        observer: &Arc<dyn Observer>,
    ) -> Self {
        let (connect_timeout, ride_through) = (config.connect_timeout, config.ride_through);
        let mut connectors = Vec::new();
        let sharing = [Lane::Read, Lane::Write].map(|lane| backend.sharing(lane));
        let mut pool = |name: &str, limit: usize, minimum: usize, lane: Option<Lane>| {
            let connector = Connector::new(Arc::clone(backend), gate, connect_timeout, lane);
            let connector = Arc::new(connector);
            connectors.push(Arc::clone(&connector));
            let mut builder = Pool::builder(Shell(connector))
                .name(name)
                .limit(limit)
                .minimum(minimum.min(limit))
                // The connector ends an attempt itself, so that the gate hears how.
                .connect_timeout(connect_timeout.saturating_add(CONNECT_MARGIN))
                .idle_timeout(config.max_idle_connection_lifetime)
                .max_lifetime(config.max_connection_lifetime)
                .check_timeout(CHECK_TIMEOUT)
                .clean_timeout(CLEAN_TIMEOUT)
                .close_timeout(CLOSE_TIMEOUT)
                .max_waiters(config.max_waiters)
                .shedding(config.shed_after.map(shedding))
                .pacing(move || reconnect_pacing(ride_through))
                .observer(Arc::clone(observer));
            // A handle of an embedded database cannot fall silent, and asking it keeps nothing alive.
            if backend.system() == System::Sqlite {
                builder = builder.keep_alive(None);
            }
            if let Some(limit) = config.long_hold {
                builder = builder.long_hold(limit);
            }
            // A pool of both lanes shares as its read lane does.
            if let Some(sharing) = sharing[usize::from(lane == Some(Lane::Write))] {
                builder = builder
                    .active(sharing.active)
                    .widest(sharing.widest)
                    .depth(sharing.depth)
                    .late_after(sharing.late_after);
            }
            builder
        };
        let (read, write) = match backend.layout() {
            Layout::Shared { limit } => (
                pool("shared", limit, config.min_connections, None).build(),
                None,
            ),
            Layout::Split { readers, writers } => {
                let writing = config.min_connections.div_ceil(2).min(writers);
                let reading = config.min_connections - writing;
                let write = pool("write", writers, writing, Some(Lane::Write)).build();
                let read = pool("read", readers, reading, Some(Lane::Read)).build();
                (read, Some(write))
            }
            // The connection is the database: it is never idle for too long or too old.
            Layout::Single => {
                let builder = pool("single", 1, 0, Some(Lane::Write));
                (builder.idle_timeout(None).max_lifetime(None).build(), None)
            }
        };
        Self {
            read,
            write,
            connectors,
            sharing,
            pool_timeout: config.pool_timeout,
        }
    }

    pub(crate) fn pool(&self, lane: Lane) -> &Pool<Shell> {
        match (lane, &self.write) {
            (Lane::Write, Some(write)) => write,
            _ => &self.read,
        }
    }

    fn sharing(&self, lane: Lane) -> Option<Sharing> {
        self.sharing[usize::from(lane == Lane::Write)]
    }

    /// The time within which a text is answered that is brief, where such are told apart.
    pub(crate) fn brief(&self, lane: Lane) -> Option<Duration> {
        self.sharing(lane)?.brief
    }

    /// The pools with the names of their lanes, one or two.
    pub(crate) fn pools(&self) -> impl Iterator<Item = (&'static str, &Pool<Shell>)> {
        let read = if self.write.is_some() {
            "read"
        } else {
            "shared"
        };
        let write = self.write.iter().map(|pool| ("write", pool));
        std::iter::once((read, &self.read)).chain(write)
    }

    /// Every connection that is open now.
    pub(crate) fn live(&self) -> Vec<Arc<dyn Connection>> {
        self.connectors
            .iter()
            .flat_map(|connector| connector.live())
            .collect()
    }

    /// Lets every idle connection be checked before it is lent again.
    pub(crate) fn check_all(&self) {
        for (_, pool) in self.pools() {
            pool.check_all();
        }
    }

    /// From now on no connection opened before is lent again.
    pub(crate) fn begin_generation(&self) {
        for (_, pool) in self.pools() {
            pool.bump_generation();
        }
    }

    /// Whether a connection is open that is not known to be of no use.
    pub(crate) fn has_live(&self) -> bool {
        self.connectors.iter().any(|connector| connector.has_live())
    }

    /// Refuses all who wait for a connection.
    pub(crate) fn refuse_waiters(&self, refusal: &Error) {
        for (_, pool) in self.pools() {
            pool.refuse_waiters(refusal);
        }
    }

    /// What stood in the way of connecting is gone.
    pub(crate) fn forget_failure(&self) {
        for (_, pool) in self.pools() {
            pool.forget_failure();
        }
    }

    /// Opens the minimum, at least one connection a pool, and answers the first failure as it is.
    ///
    /// # Cancel safety
    ///
    /// Connections that were opened stay in the pool.
    pub(crate) async fn warm(&self, deadline: Deadline) -> Result<()> {
        // The writer first: it creates the file that readers open.
        for (_, pool) in self.pools().collect::<Vec<_>>().into_iter().rev() {
            pool.warm(deadline.instant())
                .await
                .map_err(|error| first_failure(&error))?;
        }
        Ok(())
    }

    /// A lease of the lane, by the earlier of the deadline and the pool's own timeout; refused when
    /// the gate opens meanwhile.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the place in the queue back, and the connection if one was being
    /// handed over.
    pub(crate) async fn acquire(
        &self,
        lane: Lane,
        deadline: Deadline,
        gate: &Gate,
        site: &'static Location<'static>,
    ) -> Result<PoolLease> {
        self.acquire_from(lane, lane, deadline, gate, site).await
    }

    /// The same from the pool of another lane.
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire).
    pub(crate) async fn acquire_from(
        &self,
        pool: Lane,
        lane: Lane,
        deadline: Deadline,
        gate: &Gate,
        site: &'static Location<'static>,
    ) -> Result<PoolLease> {
        let request = self.request(lane, deadline, site);
        let lease = unless_shut(gate, self.pool(pool).acquire_with(request)).await?;
        lease.on_lent(site);
        Ok(lease)
    }

    /// A place for a one-shot statement of the lane, if it has such and one can be had at once.
    pub(crate) fn hold_at_once(
        &self,
        now: Instant,
        lane: Lane,
        company: Company,
        deadline: Deadline,
        site: &'static Location<'static>,
    ) -> Option<Hold> {
        self.sharing(lane)?;
        let request = Request::until(deadline.instant())
            .prefer(connector::tag(lane))
            .site(site)
            .brief(company.is_brief());
        let place = self.pool(lane).try_acquire_place(now, &request)?;
        place.on_lent(site);
        Some(Hold::Place(place))
    }

    /// What a one-shot statement of the lane runs on: a place where the lane shares connections, else
    /// a lease; by the same rules as [`acquire`](Self::acquire).
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire).
    pub(crate) async fn hold(
        &self,
        lane: Lane,
        company: Company,
        deadline: Deadline,
        gate: &Gate,
        site: &'static Location<'static>,
    ) -> Result<Hold> {
        if self.sharing(lane).is_none() {
            // Boxed: those who wait for a place are the many.
            let lease = Box::pin(self.acquire(lane, deadline, gate, site)).await?;
            return Ok(Hold::Lease(lease));
        }
        let request = self.request(lane, deadline, site);
        let waiting = self
            .pool(lane)
            .acquire_place(request.brief(company.is_brief()));
        let place = unless_shut(gate, waiting).await?;
        place.on_lent(site);
        Ok(Hold::Place(place))
    }

    /// A request that waits until the earlier of the deadline and the pool's own timeout.
    fn request(&self, lane: Lane, deadline: Deadline, site: &'static Location<'static>) -> Request {
        let until = self.pool_timeout.map_or(deadline, |limit| {
            deadline.earliest(Deadline::after(Instant::now(), limit))
        });
        Request::until(until.instant())
            .prefer(connector::tag(lane))
            .site(site)
    }
}

/// Waits for a connection unless the gate is shut. Whoever shuts it says so first and refuses those who wait
/// then; so it is asked once, by those who have joined the queue.
async fn unless_shut<T>(
    gate: &Gate,
    waiting: impl Future<Output = Result<T, AcquireError<Error>>>,
) -> Result<T> {
    let (mut waiting, mut has_joined) = (pin!(waiting), false);
    poll_fn(|context| {
        if let Poll::Ready(answer) = waiting.as_mut().poll(context) {
            return Poll::Ready(answer.map_err(|error| explain(&error)));
        }
        let refusal = if std::mem::replace(&mut has_joined, true) {
            None
        } else {
            gate.refusal_if_shut()
        };
        refusal.map_or(Poll::Pending, |refusal| Poll::Ready(Err(refusal)))
    })
    .await
}

/// The pool's own rule with another target.
fn shedding(target: Duration) -> Shedding {
    Shedding::new(target, Shedding::default().interval)
}

/// The longest delay between attempts to connect while callers wait an outage out: most outages are
/// restarts, and whoever waits for one shall not wait a third of a second longer than it takes. Ten
/// attempts a second burden no server, and one pool makes one at a time.
const QUICK_PACE: Duration = Duration::from_millis(100);
/// The longest delay after that, when nobody waits any more but the pool's own minimum.
const SLOW_PACE: Duration = Duration::from_millis(500);

/// The delays between attempts to connect while the database is away, each drawn anew so that many
/// pools do not come in step.
pub(crate) fn reconnect_pacing(
    ride_through: Duration,
) -> Box<dyn Iterator<Item = Duration> + Send> {
    let seed = fastrand::u64(..);
    let mut spent = Duration::ZERO;
    let quick = Backoff::new(Duration::from_millis(20), QUICK_PACE).delays(seed);
    let quick = quick.take_while(move |delay| {
        spent += *delay;
        spent < ride_through
    });
    Box::new(quick.chain(Backoff::new(SLOW_PACE, SLOW_PACE).delays(seed)))
}

/// When a database is opened, its own first word is worth more than the pool's.
fn first_failure(error: &AcquireError<Error>) -> Error {
    match (&error.cause, &error.last_connect_error) {
        (Cause::Unreachable(cause) | Cause::Refused(cause), _) => cause.clone(),
        (Cause::Silent | Cause::Exhausted, Some((cause, _))) => cause.clone(),
        _ => explain(error),
    }
}

/// Says why there was no connection, in the kinds of the facade.
pub(crate) fn explain(error: &AcquireError<Error>) -> Error {
    let report = match &error.cause {
        // The first word is the database's own; what the pool adds is how long it tried.
        Cause::Refused(cause) | Cause::Unreachable(cause) => {
            let message = format!(
                "{} (waited {:.1?}; {})",
                cause.message(),
                error.waited,
                error.status
            );
            cause
                .clone()
                .into_report()
                .message(message)
                .class(Class::NotSent)
        }
        // Said as it would have been before the wait.
        Cause::TurnedAway(refusal) => return refusal.clone(),
        cause => {
            let kind = match cause {
                Cause::Silent => Kind::Unreachable,
                Cause::Closed => Kind::Closed,
                Cause::Paused => Kind::Paused,
                Cause::Shed(_) | Cause::Overflow => Kind::Shed,
                Cause::NoRuntime => Kind::Config,
                _ => Kind::Exhausted,
            };
            let mut report = Report::new(kind, error.to_string()).class(Class::NotSent);
            if matches!(kind, Kind::Shed | Kind::Exhausted) {
                report = report.retry_after(RETRY_AFTER).evidence(Evidence::Neither);
            }
            if kind == Kind::Exhausted {
                report = report.timed_out();
            }
            match &error.last_connect_error {
                Some((cause, _)) => report.source(cause.clone()),
                None => report,
            }
        }
    };
    report.waited(error.waited).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reconnecting_is_quick_while_callers_wait_and_slower_afterwards() {
        let ride_through = Duration::from_secs(2);
        let mut spent = Duration::ZERO;
        for delay in reconnect_pacing(ride_through).take(1000) {
            assert!(delay <= SLOW_PACE);
            if spent + delay < ride_through {
                assert!(delay <= QUICK_PACE, "{delay:?} after {spent:?}");
            }
            spent += delay;
        }
        assert!(spent > ride_through * 10, "no storm afterwards: {spent:?}");
    }
}
