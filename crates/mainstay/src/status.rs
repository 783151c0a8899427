//! What is known without asking the database.

use crate::database::Database;
use mainstay_core::backend::{Lane, LogInfo, System};
use std::time::Duration;

/// One pool at one instant; `open` is always the sum of the states below it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStatus {
    /// `shared`, or `read` and `write`.
    pub lane: &'static str,
    /// The most connections that may exist at once.
    pub limit: usize,
    /// Connections that exist, in whatever state.
    pub open: usize,
    /// Ready to be lent.
    pub idle: usize,
    /// Lent to a caller.
    pub leased: usize,
    /// Being opened.
    pub connecting: usize,
    /// Being checked, cleaned or closed.
    pub in_upkeep: usize,
    /// Callers that wait for a connection.
    pub waiting: usize,
    /// Connections of older generations are not lent again.
    pub generation: u64,
    /// Connections opened so far.
    pub opened: u64,
    /// Connections closed so far.
    pub closed: u64,
    /// Leases given so far.
    pub acquired: u64,
    /// Callers whose deadline ended while they waited, so far.
    pub timeouts: u64,
}

/// The breaker at one instant, as callers meet it, and its gates one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Breaker {
    /// `closed`, `open` or `half_open`, in the electrical sense: calls pass while it is closed. A gate
    /// for new connections refuses nobody while connections are there that still answer, so this may be
    /// `closed` while [`connect`](Self::connect) or [`credentials`](Self::credentials) is not.
    pub state: &'static str,
    /// How often it has opened, because of statements or of connects.
    pub times_opened: u64,
    /// What callers are told while it is open.
    pub cause: Option<String>,
    /// When asking again can be of use, while it is open.
    pub retry_after: Option<Duration>,
    /// What statements say; decides about every call.
    pub execute: GateStatus,
    /// What attempts to connect say; decides about calls that would need a new connection.
    pub connect: GateStatus,
    /// Whether the server refuses to log us in; the same, and slower.
    pub credentials: GateStatus,
}

/// One gate of the breaker at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GateStatus {
    /// `closed`, `open` or `half_open`.
    pub state: &'static str,
    /// How often it has opened by itself.
    pub times_opened: u64,
    /// The last failure, while it is not closed.
    pub cause: Option<String>,
    /// When the database is asked again, while it is open.
    pub retry_after: Option<Duration>,
}

impl Breaker {
    /// An embedded database has none, which is one that never opens.
    pub(crate) fn closed() -> Self {
        let gate = GateStatus {
            state: "closed",
            times_opened: 0,
            cause: None,
            retry_after: None,
        };
        Self {
            state: "closed",
            times_opened: 0,
            cause: None,
            retry_after: None,
            execute: gate.clone(),
            connect: gate.clone(),
            credentials: gate,
        }
    }

    /// The gates with their names.
    pub fn gates(&self) -> [(&'static str, &GateStatus); 3] {
        [
            ("execute", &self.execute),
            ("connect", &self.connect),
            ("credentials", &self.credentials),
        ]
    }
}

/// The database handle at one instant, told without I/O.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Which database system.
    pub system: System,
    /// Where it is, without user and password.
    pub target: String,
    /// One pool, or one per lane.
    pub pools: Vec<PoolStatus>,
    /// The breaker.
    pub breaker: Breaker,
    /// The write-ahead log of a SQLite file; `None` elsewhere.
    pub log: Option<LogInfo>,
    /// Whether the handle has been closed.
    pub closed: bool,
    /// How long the handle has existed.
    pub uptime: Duration,
}

impl Status {
    /// Connections that exist, over all pools.
    #[must_use]
    pub fn open(&self) -> usize {
        self.pools.iter().map(|pool| pool.open).sum()
    }

    /// Connections that are lent, over all pools.
    #[must_use]
    pub fn leased(&self) -> usize {
        self.pools.iter().map(|pool| pool.leased).sum()
    }

    /// Connections that are ready to be lent, over all pools.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.pools.iter().map(|pool| pool.idle).sum()
    }

    /// Callers that wait, over all pools.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pools.iter().map(|pool| pool.waiting).sum()
    }

    /// The most connections that may exist at once, over all pools.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.pools.iter().map(|pool| pool.limit).sum()
    }
}

impl Database {
    /// What is known without asking the database. Each pool's numbers are taken at one instant, so
    /// they always add up.
    #[must_use]
    pub fn status(&self) -> Status {
        let engine = self.engine();
        let pools = engine
            .lanes
            .pools()
            .map(|(lane, pool)| one(lane, &pool.status()))
            .collect();
        Status {
            system: self.system(),
            target: self.target().to_owned(),
            pools,
            breaker: engine.gate.status(),
            log: engine.backend.log(),
            closed: engine.lanes.pool(Lane::Read).is_closed(),
            uptime: self.uptime(),
        }
    }
}

fn one(lane: &'static str, status: &mainstay_pool::Status) -> PoolStatus {
    PoolStatus {
        lane,
        limit: status.limit,
        open: status.in_use(),
        idle: status.idle,
        leased: status.lent,
        connecting: status.connecting,
        in_upkeep: status.checking + status.cleaning + status.closing,
        waiting: status.waiting,
        generation: status.generation,
        opened: status.totals.opened,
        closed: status.totals.closed,
        acquired: status.totals.acquired,
        timeouts: status.totals.timeouts,
    }
}
