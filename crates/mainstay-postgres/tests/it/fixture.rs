//! What every test needs: a database of its own and connections to it.

use mainstay_core::backend::{Backend, Begin, Call, Connection, Lane, Reply, Want};
use mainstay_core::config::{Host, PostgresTarget, Secret, Target};
use mainstay_core::{Config, Deadline, Error, IntoParams, Row, Statement, Value};
use mainstay_postgres::{Postgres, PostgresSession};
use mainstay_testkit::{Cluster, TestDatabase};
use std::sync::Arc;
use std::time::Duration;

/// Nothing that succeeds comes near it; a broken test ends with it.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn deadline() -> Deadline {
    Deadline::from_now(LIMIT)
}

pub(crate) fn call(lane: Lane) -> Call {
    Call {
        lane,
        deadline: deadline(),
    }
}

pub(crate) fn read() -> Call {
    call(Lane::Read)
}

pub(crate) fn write() -> Call {
    call(Lane::Write)
}

pub(crate) fn begin() -> Begin {
    Begin::default()
}

pub(crate) fn statement(text: &str, params: impl IntoParams) -> Statement {
    Statement::new(text, params).unwrap()
}

/// A target on a cluster, with its superuser.
pub(crate) fn target(cluster: &Cluster, database: &str) -> PostgresTarget {
    let (user, password) = cluster.credentials();
    let host = tcp("127.0.0.1", cluster.port());
    let mut target = PostgresTarget::new(host, user, database);
    target.password = Some(Secret::new(password));
    target
}

/// `Host` can be extended, so it cannot be written down outside of its crate in full.
pub(crate) fn tcp(host: &str, port: u16) -> Host {
    Host::Tcp {
        host: host.into(),
        port,
    }
}

pub(crate) fn backend_with(target: &PostgresTarget, change: impl FnOnce(&mut Config)) -> Postgres {
    let mut config = Config::new(Target::Postgres(target.clone()));
    config.connection_limit = 10;
    config.connect_timeout = LIMIT;
    change(&mut config);
    Postgres::new(&config, target).unwrap()
}

/// A database of its own and a backend for it.
pub(crate) struct Home {
    pub(crate) database: TestDatabase,
    pub(crate) target: PostgresTarget,
    pub(crate) backend: Postgres,
}

pub(crate) type Conn = Arc<dyn Connection>;

impl Home {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let database = mainstay_testkit::database().await.unwrap();
        let target = target(database.cluster(), database.name());
        let backend = backend_with(&target, change);
        Self {
            database,
            target,
            backend,
        }
    }

    pub(crate) async fn connect(&self, lane: Lane) -> Conn {
        self.backend.connect(lane, deadline()).await.unwrap()
    }

    /// A connection that is on the read lane, where its first read has brought it.
    pub(crate) async fn reader(&self) -> Conn {
        let conn = self.connect(Lane::Read).await;
        conn.script("select 1", read()).await.unwrap();
        conn
    }

    pub(crate) async fn writer(&self) -> Conn {
        self.connect(Lane::Write).await
    }

    /// Sets things up, independently of what is being tested.
    pub(crate) async fn sql(&self, text: &str) -> String {
        let (cluster, name) = (
            self.database.cluster().clone(),
            self.database.name().to_owned(),
        );
        let text = text.to_owned();
        cluster
            .run(move |cluster| cluster.psql_in(&name, &text))
            .await
            .unwrap()
    }
}

/// The server's process behind a connection.
pub(crate) async fn pid(conn: &Conn) -> i64 {
    match value(conn, "select pg_backend_pid()", (), call(conn.lane()))
        .await
        .unwrap()
    {
        Value::Int(pid) => pid,
        other => panic!("{other:?} is no process"),
    }
}

pub(crate) fn session(conn: &Conn) -> &PostgresSession {
    conn.as_any().downcast_ref().unwrap()
}

pub(crate) async fn execute(conn: &Conn, text: &str, call: Call) -> Result<u64, Error> {
    conn.run(&statement(text, ()), Want::Affected, call)
        .await
        .map(|reply| reply.affected)
}

pub(crate) async fn fetch(
    conn: &Conn,
    text: &str,
    params: impl IntoParams,
    call: Call,
) -> Result<Vec<Row>, Error> {
    let reply: Reply = conn
        .run(&statement(text, params), Want::Rows(usize::MAX), call)
        .await?;
    Ok(reply.rows)
}

/// The one value of a result of one row and one column.
pub(crate) async fn value(
    conn: &Conn,
    text: &str,
    params: impl IntoParams,
    call: Call,
) -> Result<Value, Error> {
    let mut rows = fetch(conn, text, params, call).await?;
    assert_eq!(rows.len(), 1, "{text}");
    let mut values = rows.remove(0).into_values();
    assert_eq!(values.len(), 1, "{text}");
    Ok(values.remove(0))
}

/// A server of its own, for tests that stop it or configure it.
pub(crate) async fn start(builder: mainstay_testkit::cluster::Builder) -> Cluster {
    tokio::task::spawn_blocking(|| builder.start())
        .await
        .unwrap()
        .unwrap()
}
