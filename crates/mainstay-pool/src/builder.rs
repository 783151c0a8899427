//! Why a builder: a pool has many bounds, every one has a default with a reason (`settings.rs`), and
//! a caller states only those it knows better.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::connector::Connector;
use crate::lender::Lender;
use crate::observer::Observer;
use crate::pool::Pool;
use crate::settings::{Settings, Shedding};

/// The bounds of a pool that is about to be built.
#[must_use]
pub struct Builder<K> {
    connector: K,
    settings: Settings,
    observer: Option<Arc<dyn Observer>>,
    random: fastrand::Rng,
}

impl<K: Connector> Builder<K> {
    pub(crate) fn new(connector: K) -> Self {
        let random = fastrand::Rng::new();
        Self {
            connector,
            settings: Settings::default(),
            observer: None,
            random,
        }
    }

    /// The pool's name in logs (default "pool").
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.settings.name = name.into();
        self
    }

    /// The most connections that may exist at once, in whatever state (default 10, at least 1).
    pub fn limit(mut self, limit: usize) -> Self {
        self.settings.limit = limit;
        self
    }

    /// Connections kept open even when nobody needs them (default 0), from the first acquire or
    /// [`Pool::warm`] on.
    pub fn minimum(mut self, minimum: usize) -> Self {
        self.settings.minimum = minimum;
        self
    }

    /// Bounds one attempt to connect (default 5 s).
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = timeout;
        self
    }

    /// Closes what nobody has needed for this long, down to the minimum (default 10 min).
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.idle_timeout = timeout.into();
        self
    }

    /// Replaces connections at this age, give or take a quarter (default 30 min, at least 1 s).
    pub fn max_lifetime(mut self, lifetime: impl Into<Option<Duration>>) -> Self {
        self.settings.max_lifetime = lifetime.into();
        self
    }

    /// Checks a connection before lending it if it was idle for at least this long (default 1 s;
    /// zero checks always).
    pub fn check_after_idle(mut self, idle: Duration) -> Self {
        self.settings.check_after_idle = idle;
        self
    }

    /// Bounds one check (default 1 s); then the next connection is tried.
    pub fn check_timeout(mut self, timeout: Duration) -> Self {
        self.settings.check_timeout = timeout;
        self
    }

    /// Checks a connection in the background when it has been silent for this long (default 2 min, at
    /// least 1 s). It goes on being idle: the idle timeout still closes it. Off with `None`, for
    /// servers that fall asleep when nobody asks them anything.
    pub fn keep_alive(mut self, every: impl Into<Option<Duration>>) -> Self {
        self.settings.keep_alive = every.into();
        self
    }

    /// The most places on one shared connection (default 64, at least 1).
    pub fn depth(mut self, places: usize) -> Self {
        self.settings.depth = places;
        self
    }

    /// The connections that are shared before any is filled to its depth (default: one more than
    /// there are cores).
    pub fn active(mut self, connections: usize) -> Self {
        self.settings.active = connections;
        self
    }

    /// The most connections that are shared at once, those that drain not counted (default: all, at least
    /// 1). Who finds them full waits for a place, and the other connections are for leases.
    pub fn widest(mut self, connections: usize) -> Self {
        self.settings.widest = connections;
        self
    }

    /// A shared connection whose oldest place is older than this takes nobody more until everybody
    /// has left (default 100 ms).
    pub fn late_after(mut self, age: Duration) -> Self {
        self.settings.late_after = age;
        self
    }

    /// Bounds the cleaning of a dirty connection (default 5 s); then it is closed.
    pub fn clean_timeout(mut self, timeout: Duration) -> Self {
        self.settings.clean_timeout = timeout;
        self
    }

    /// Bounds the closing of a connection (default 5 s); then it is dropped.
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.settings.close_timeout = timeout;
        self
    }

    /// The most callers that may wait (default 10,000); further ones are refused at once.
    pub fn max_waiters(mut self, waiters: usize) -> Self {
        self.settings.max_waiters = waiters;
        self
    }

    /// The most attempts to connect at once (default 10, at least 1; one while connecting fails).
    pub fn max_connecting(mut self, attempts: usize) -> Self {
        self.settings.max_connecting = attempts;
        self
    }

    /// The delays between attempts while connecting fails: a new iterator for every outage, told to
    /// start by the first failure (default: full jitter up to 50 ms, doubling to 1 s). Called under
    /// the pool's lock: it must be quick and must not call the pool. Once it ends, attempts go on
    /// a second apart; delays below a millisecond count as one.
    pub fn pacing<F>(mut self, pacing: F) -> Self
    where
        F: Fn() -> Box<dyn Iterator<Item = Duration> + Send> + Send + Sync + 'static,
    {
        self.settings.pacing = Arc::new(pacing);
        self
    }

    /// Who is told what happens (default nobody).
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Warns about a lease that is out for longer than this (default 60 s).
    pub fn long_hold(mut self, held: impl Into<Option<Duration>>) -> Self {
        self.settings.long_hold = held.into();
        self
    }

    /// Refuses waiters that could not be served in time (default off: everybody waits until their
    /// own deadline).
    pub fn shedding(mut self, shedding: impl Into<Option<Shedding>>) -> Self {
        self.settings.shedding = shedding.into();
        self
    }

    /// Makes the jitter of lifetimes repeatable, for tests.
    pub fn seed(mut self, seed: u64) -> Self {
        self.random = fastrand::Rng::with_seed(seed);
        self
    }

    /// Builds the pool. Nothing is opened yet. Built outside a tokio runtime, the pool uses the one
    /// in which it is first acquired from.
    #[must_use]
    pub fn build(self) -> Pool<K> {
        let Self {
            connector,
            settings,
            observer,
            random,
        } = self;
        Pool::new(Lender::new(connector, settings.sane(), observer, random))
    }
}

impl<K> fmt::Debug for Builder<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("name", &self.settings.name)
            .field("limit", &self.settings.limit)
            .field("minimum", &self.settings.minimum)
            .finish_non_exhaustive()
    }
}
