//! The default of every setting, with its reason.

use super::{Config, Target};
use std::time::Duration;

impl Config {
    /// The defaults for a target.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self {
            target,
            connection_limit: default_connection_limit(),
            // Opening on demand keeps a fleet of idle services from filling the server.
            min_connections: 0,
            // Prisma's; long enough for a burst, short enough that a browser is still there.
            pool_timeout: Some(Duration::from_secs(10)),
            // Prisma's; three SYNs fit, and a dead host is noticed before the caller gives up.
            connect_timeout: Duration::from_secs(5),
            // The usual patience of load balancers and browsers.
            timeout: Duration::from_secs(30),
            // The call's own deadline cancels; a server-side limit is the operator's choice.
            statement_timeout: None,
            // HikariCP's: below the usual idle limits of firewalls and proxies, and memory that a
            // backend hoards is given back; jitter keeps a pool from reconnecting all at once.
            max_connection_lifetime: Some(Duration::from_secs(30 * 60)),
            // Prisma's.
            max_idle_connection_lifetime: Some(Duration::from_secs(300)),
            // Prisma's; an application rarely has more distinct texts in its hot paths.
            statement_cache_size: 100,
            isolation: None,
            strict_rows: false,
            // Three repetitions ride out a failover's first seconds; the budget bounds the sum.
            retry_max: 3,
            // Longer than a round trip, shorter than anybody notices.
            retry_base: Duration::from_millis(50),
            // A `pg_ctl restart` of a small server and most failovers of a proxy are done by then.
            ride_through: Duration::from_secs(2),
            // Bounds memory; with 10 connections and 10 ms each it is ten seconds of work.
            max_waiters: 10_000,
            shed_after: None,
            slow_statement: Some(Duration::from_secs(1)),
            // Longer than any request should hold a connection.
            long_hold: Some(Duration::from_secs(30)),
            // Kubernetes gives a process 30 s; a third is left for everything else it has to end.
            close_grace: Duration::from_secs(20),
        }
    }
}

/// `available_parallelism * 2 + 1`, the formula Prisma's users know: two statements in flight a
/// core keep it busy while others wait for the disk.
#[must_use]
pub fn default_connection_limit() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from) * 2 + 1
}
