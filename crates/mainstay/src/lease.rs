//! The exclusive use of one connection: session state, LISTEN, COPY, the native client.

use crate::bound::{answer_by, frame};
use crate::connector;
use crate::copying::Turnstile;
use crate::database::Database;
use crate::engine::Engine;
use crate::lanes::PoolLease;
use crate::metrics;
use crate::router::changes_definitions;
use mainstay_core::backend::{Connection, Lane, Reply, Want};
use mainstay_core::{Deadline, Params, Result, Statement};
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The exclusive use of one connection. It comes back when the last clone is dropped, and whatever
/// its user changed (settings, temporary tables, an open transaction) is undone before the next
/// caller gets it.
#[derive(Clone)]
pub struct Lease {
    held: Arc<PoolLease>,
    engine: Arc<Engine>,
    deadline: Option<Deadline>,
    /// Shared by the clones: one COPY at a time has the connection.
    turnstile: Arc<Turnstile>,
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease")
            .field("connection", &**self.held)
            .finish_non_exhaustive()
    }
}

impl Lease {
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    pub(crate) fn connection(&self) -> &Arc<dyn Connection> {
        &self.held
    }

    pub(crate) fn turnstile(&self) -> &Turnstile {
        &self.turnstile
    }

    pub(crate) fn until(&self, timeout: Option<Duration>) -> Deadline {
        let own = Deadline::from_now(timeout.unwrap_or(self.engine.config.timeout));
        self.deadline.map_or(own, |deadline| deadline.earliest(own))
    }

    pub(crate) async fn run(
        &self,
        text: &str,
        params: Params,
        want: Want,
        timeout: Option<Duration>,
    ) -> Result<Reply> {
        let statement = Statement::new(text, params)?;
        self.turnstile.check()?;
        let started = Instant::now();
        let deadline = self.until(timeout);
        let call = frame(Lane::Write, deadline, started);
        let running = self.connection().run(&statement, want, call);
        let result = answer_by(deadline, Lane::Write, running).await;
        let took = started.elapsed();
        self.engine.witness(text, took, result.as_ref().err());
        metrics::operation(&self.engine, &statement, took, result.as_ref().err());
        if changes_definitions(text) {
            self.engine.router.forget_all();
        }
        result
    }

    /// Runs a text of several statements without parameters.
    ///
    /// # Errors
    ///
    /// The first statement's that failed; those before it have happened.
    ///
    /// # Cancel safety
    ///
    /// What has been sent happens.
    pub async fn script(&self, text: &str) -> Result<()> {
        self.turnstile.check()?;
        let deadline = self.until(None);
        let call = frame(Lane::Write, deadline, Instant::now());
        let script = self.connection().script(text, call);
        let result = answer_by(deadline, Lane::Write, script).await;
        self.engine.router.forget_all();
        result
    }

    /// The PostgreSQL session with its native client, if it is one.
    #[cfg(feature = "postgres")]
    #[must_use]
    pub fn as_postgres(&self) -> Option<&mainstay_postgres::PostgresSession> {
        self.connection().as_any().downcast_ref()
    }

    /// The SQLite session, if it is one.
    #[cfg(feature = "sqlite")]
    #[must_use]
    pub fn as_sqlite(&self) -> Option<&mainstay_sqlite::SqliteSession> {
        self.connection().as_any().downcast_ref()
    }
}

impl Database {
    /// Takes one connection for exclusive use.
    ///
    /// # Errors
    ///
    /// Everything that getting a connection can meet.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    #[track_caller]
    pub fn acquire(&self) -> impl Future<Output = Result<Lease>> + Send {
        let site = Location::caller();
        async move {
            let deadline = self.deadline_for(None);
            let mut held = self.lease(Lane::Write, deadline, site).await?;
            held.hand_over();
            if held.lane() != Lane::Write {
                // The native client knows nothing of lanes, and has to be able to write.
                let nothing = Statement::new("select 1", ())?;
                let call = frame(Lane::Write, deadline, Instant::now());
                let moving = held.run(&nothing, Want::Affected, call);
                answer_by(deadline, Lane::Read, moving).await?;
                held.set_tag(connector::tag(Lane::Write));
            }
            Ok(Lease {
                held: Arc::new(held),
                engine: Arc::clone(self.engine()),
                deadline: self.own_deadline(),
                turnstile: Arc::default(),
            })
        }
    }

    /// Runs a closure with one connection for exclusive use. The connection is given back when the
    /// closure's last handle is dropped, and cleaned before the next caller gets it.
    ///
    /// ```no_run
    /// # async fn example(db: &mainstay::Database) -> mainstay::Result<()> {
    /// db.with_connection(async |connection| {
    ///     connection.execute("set work_mem = '256MB'", ()).await?;
    ///     connection.fetch_one::<i64>("select count(distinct user_id) from orders", ()).await
    /// })
    /// .await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The closure's, and everything that getting a connection can meet.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the connection back; what was sent may have happened.
    #[track_caller]
    pub fn with_connection<'a, T, F, Fut>(
        &'a self,
        act: F,
    ) -> impl Future<Output = Result<T>> + use<'a, T, F, Fut>
    where
        F: FnOnce(Lease) -> Fut + 'a,
        Fut: Future<Output = Result<T>>,
    {
        let lease = self.acquire();
        async move { act(lease.await?).await }
    }
}
