//! The PostgreSQL backend of mainstay, on tokio-postgres and rustls.
//!
//! A backend translates and does not decide: it opens sessions, sends statements, says what an
//! error means and in what condition a session is. This one adds to the driver what a layer above
//! has to know and the driver keeps to itself: how far a lost statement had come, whether the
//! server still keeps a session from writing, and what was left behind by a dropped future.
//!
//! Modules, in reading order:
//!
//! * `connect`, `hosts`, `tls`: one attempt to open one session
//! * `wire`: what passes between driver and server, written down
//! * `session`: an open session and its condition; `clean`: putting it back in order; `question`: whether it is silent
//! * `sql`, `statements`, `stale`, `bind`, `decode`, `types`: texts, prepared statements, values
//! * `flight`, `run`, `cursor`: sending requests and judging what comes back; `timeout`: how long the server may take
//! * `line`, `sharing`: reads of strangers on one session; `pace`: which of them take too long for that
//! * `read_lane`, `write_lane`, `transaction`: the ways a statement reaches the database
//! * `pooled`: what a transaction pooler in between changes
//! * `replicas`: how far standbys have come, for reads that are sent to them
//! * `copying`: bulk data in and out; `listening`: hearing what other sessions announce
//! * `classify`: what an error means for what may be done next
//! * `health`, `migrate`, `backup`: operating it

mod backup;
mod bind;
mod cancelling;
mod classify;
mod clean;
mod connect;
mod copying;
mod cursor;
mod decode;
mod flight;
mod health;
mod hosts;
mod line;
mod listening;
mod migrate;
mod opening;
mod pace;
mod pooled;
mod question;
mod read_lane;
mod replicas;
mod run;
mod session;
mod sharing;
mod sql;
mod stale;
mod statements;
mod timeout;
mod tls;
mod token;
mod transaction;
mod types;
mod wire;
mod write_lane;

pub use classify::{ServerError, meaning};
pub use session::PostgresSession;

use connect::Connector;
use mainstay_core::backend::{
    Backend, Backup, BoxFuture, Connection, Info, Lane, Layout, MigrationDialect, Presumption,
    Progress, Sharing, System, Writes,
};
use mainstay_core::config::{PostgresTarget, SessionAttrs, Target};
use mainstay_core::error::Report;
use mainstay_core::{Class, Config, Deadline, Error, Kind, Result};
use session::{Link, Style};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The schema of those who name none.
const DEFAULT_SCHEMA: &str = "public";

/// A PostgreSQL database behind one URL.
#[derive(Debug)]
pub struct Postgres {
    connector: Arc<Connector>,
    style: Style,
    limit: usize,
    target: String,
    connect_timeout: Duration,
}

impl Postgres {
    /// Reads the files that the configuration names, and connects to nothing.
    ///
    /// # Errors
    ///
    /// [`Kind::Config`] when a certificate or key cannot be used, or TLS settings contradict each
    /// other.
    ///
    /// ```
    /// use mainstay_core::Config;
    /// use mainstay_core::backend::Backend;
    /// use mainstay_core::config::{Host, PostgresTarget, Target};
    /// use mainstay_postgres::Postgres;
    ///
    /// let host = Host::Tcp { host: "db".into(), port: 5432 };
    /// let target = PostgresTarget::new(host, "app", "shop");
    /// let config = Config::new(Target::Postgres(target.clone()));
    /// let postgres = Postgres::new(&config, &target)?;
    /// assert_eq!(postgres.target(), "postgres://db:5432/shop");
    /// # Ok::<(), mainstay_core::Error>(())
    /// ```
    pub fn new(config: &Config, target: &PostgresTarget) -> Result<Self> {
        let style = Style {
            // One connection would change its setting with every other statement.
            lanes: config.connection_limit > 1 && !target.pgbouncer,
            pooled: target.pgbouncer,
            demands: target.wanted() != SessionAttrs::Any,
            statements: if target.pgbouncer {
                0
            } else {
                config.statement_cache_size
            },
        };
        if style.pooled && config.statement_timeout.is_some() {
            tracing::warn!(
                "statement_timeout has no effect behind a pooler, whose sessions are not ours to set; \
                 set it for the role instead: alter role … set statement_timeout = …"
            );
        }
        Ok(Self {
            connector: Arc::new(Connector::new(config, target, style)?),
            style,
            limit: config.connection_limit,
            target: Target::Postgres(target.clone()).to_string(),
            connect_timeout: config.connect_timeout,
        })
    }

    async fn open(&self, lane: Lane, deadline: Deadline) -> Result<PostgresSession> {
        let opened = self.connector.open(lane, deadline).await?;
        let connector = Arc::clone(&self.connector);
        Ok(PostgresSession::new(opened, connector, self.style))
    }

    fn reads_from_replicas(&self) -> bool {
        replicas::reads_from_replicas(self.connector.target())
    }

    async fn dump(&self, to: &Path, progress: Progress<'_>) -> Result<Backup> {
        if self.style.pooled {
            let message =
                "pg_dump needs a session of its own, which a transaction pooler does not give";
            return Err(Report::new(Kind::Config, message)
                .remedy("use the URL of the server itself for backups, without pgbouncer=true")
                .into());
        }
        let deadline = Deadline::from_now(self.connect_timeout);
        let session = self.open(Lane::Write, deadline).await?;
        let link = session.link();
        let info = link.info(deadline).await;
        let host = link.endpoint.host().clone();
        session.close(deadline).await;
        let info = info?;
        let source = backup::Source {
            host,
            major: backup::major_of(&info.version).unwrap_or(0),
            size: info.size_bytes,
            login: self.connector.login(deadline).await?,
        };
        backup::backup(&self.connector, source, to, progress).await
    }
}

/// A connection of ours.
fn link_of(connection: &dyn Connection) -> Result<&Arc<Link>> {
    connection
        .as_any()
        .downcast_ref::<PostgresSession>()
        .map(PostgresSession::link)
        .ok_or_else(|| {
            Report::new(
                Kind::Other,
                "a connection of another database was handed to PostgreSQL",
            )
            .into()
        })
}

/// One for each core keeps all of them busy, and fewer connections mean more requests in one system
/// call: on two cores, 50 callers read 76,000 to 82,000 rows a second with two and 59,000 to 76,000 with
/// three. At least two, so that one bridges the moment in which the other drains. One is left for those
/// who want one alone.
fn active(limit: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.max(2).min(limit.saturating_sub(1)).max(1)
}

/// Twice as many as one for each core, so that the next request is on its way while the client works on an
/// answer. More servers than the client can keep busy only compete with each other and with it: on two
/// cores, 5,000 callers read 146,000 rows a second with four sessions and 141,000 with all ten, with a p99 of 40 ms and
/// of 73. And the other connections are there for those who want one alone.
fn widest(limit: usize) -> usize {
    2 * active(limit)
}

/// Deep enough that hundreds of callers share a few connections: 500 callers read 116,000 rows a second with
/// this depth on two cores, which makes four busy sessions, and 100,000 with half of it. With twice as many, those
/// behind 5,000 others wait longer on a session than for a lease (p99 156 ms and 95).
const DEPTH: usize = 128;

/// A read that is answered within this time, all those before it on the session included, gains nothing
/// from a session that is emptier: a server's scheduler gives each process two to four milliseconds at a
/// time where processors are scarce, and whoever is behind one that is put aside waits for as long. On two
/// cores 10 and 50 callers on one session had a p99 of 0.3 and 1.2 ms, on two sessions 1.9 and 4.6 ms, at the
/// same rate. From further away than this, nothing is brief.
const BRIEF: Duration = Duration::from_millis(2);

impl Backend for Postgres {
    fn system(&self) -> System {
        System::Postgres
    }

    fn target(&self) -> &str {
        &self.target
    }

    fn layout(&self) -> Layout {
        if self.reads_from_replicas() {
            let (readers, writers) = replicas::divide(self.limit);
            return Layout::Split { readers, writers };
        }
        Layout::Shared { limit: self.limit }
    }

    fn sharing(&self, lane: Lane) -> Option<Sharing> {
        // Without preparing, the rows of a custom type need a question of their own.
        let shares = lane == Lane::Read && self.style.lanes && self.style.statements > 0;
        let readers = match self.layout() {
            Layout::Split { readers, .. } => readers,
            _ => self.limit,
        };
        shares.then(|| Sharing {
            active: active(readers),
            widest: widest(readers),
            depth: DEPTH,
            late_after: 2 * line::LOOK_EVERY,
            brief: Some(BRIEF),
        })
    }

    fn connect(
        &self,
        lane: Lane, // which setting it has is said with the first statement
        deadline: Deadline,
    ) -> BoxFuture<'_, Result<Arc<dyn Connection>>> {
        Box::pin(async move {
            let session = self.open(lane, deadline).await?;
            Ok(Arc::new(session) as Arc<dyn Connection>)
        })
    }

    fn max_replica_lag(&self) -> Option<Duration> {
        let target = self.connector.target();
        self.reads_from_replicas().then_some(target.max_replica_lag)
    }

    fn writes(&self) -> Writes {
        let count = self.connector.writes();
        count.map_or_else(Writes::default, |count| count.so_far())
    }

    fn listens(&self) -> Result<()> {
        if self.style.pooled {
            return Err(listening::refused_by_pooler());
        }
        Ok(())
    }

    fn presume(&self, text: &str) -> Presumption {
        write_lane::presume(text)
    }

    fn route<'a>(
        &'a self,
        connection: &'a dyn Connection,
        text: &'a Arc<str>,
        deadline: Deadline,
    ) -> BoxFuture<'a, Result<Lane>> {
        Box::pin(async move { link_of(connection)?.route(text, deadline).await })
    }

    fn still_serves<'a>(
        &'a self,
        connection: &'a dyn Connection,
        deadline: Deadline,
    ) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move { link_of(connection)?.look_again(deadline).await })
    }

    fn is_permanent(&self, error: &Error) -> bool {
        error.class() == Class::Permanent
    }

    fn info<'a>(
        &'a self,
        connection: &'a dyn Connection,
        deadline: Deadline,
    ) -> BoxFuture<'a, Result<Info>> {
        Box::pin(async move { link_of(connection)?.info(deadline).await })
    }

    fn migrations(&self) -> &'static MigrationDialect {
        &migrate::DIALECT
    }

    fn create(&self, deadline: Deadline) -> BoxFuture<'_, Result<bool>> {
        Box::pin(migrate::create(&self.connector, deadline))
    }

    fn erase<'a>(
        &'a self,
        connection: &'a dyn Connection,
        deadline: Deadline,
    ) -> BoxFuture<'a, Result<()>> {
        let schema = self
            .connector
            .target()
            .schema
            .as_deref()
            .unwrap_or(DEFAULT_SCHEMA);
        Box::pin(async move { link_of(connection)?.erase(schema, deadline).await })
    }

    fn backup<'a>(&'a self, to: &'a Path, progress: Progress<'a>) -> BoxFuture<'a, Result<Backup>> {
        Box::pin(self.dump(to, progress))
    }
}
