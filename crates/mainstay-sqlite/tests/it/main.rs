//! The seam, driven directly against real files and real memory.
#![allow(missing_docs, clippy::unwrap_used)]

mod abandoned;
mod crowd;
mod deadline;
mod disk_full;
mod exclusive;
mod failed_sync;
mod failing_disk;
mod failure_table;
mod group;
mod health;
mod killed;
mod killers;
mod log;
mod memory;
mod opening;
mod optimize;
mod panics;
mod placeholders;
mod processes;
mod refusals;
mod result_codes;
mod routing;
mod sharing;
mod stream;
mod temporary;
mod transactions;
mod upkeep;
mod values;

use mainstay_core::backend::{Backend, Begin, Call, Connection, Lane, Reply, Want};
use mainstay_core::config::{SqlitePath, SqliteTarget, Target};
use mainstay_core::{Config, Deadline, IntoParams, Result, Statement, Value};
use mainstay_sqlite::{Sqlite, SqliteSession};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Far more than anything here takes.
const SOON: Duration = Duration::from_secs(60);

pub fn soon() -> Deadline {
    Deadline::from_now(SOON)
}

pub fn on(lane: Lane) -> Call {
    Call {
        lane,
        deadline: soon(),
    }
}

pub const READ: Lane = Lane::Read;
pub const WRITE: Lane = Lane::Write;
pub const PLAIN: Begin = Begin {
    isolation: None,
    read_only: false,
};

pub fn backend_with(
    path: SqlitePath,
    change: impl FnOnce(&mut Config, &mut SqliteTarget),
) -> Sqlite {
    let mut target = SqliteTarget::new(path);
    let mut config = Config::new(Target::Sqlite(target.clone()));
    config.connection_limit = 5;
    change(&mut config, &mut target);
    Sqlite::new(&config, &target).unwrap()
}

pub fn backend(path: &Path) -> Sqlite {
    backend_with(SqlitePath::File(path.to_owned()), |_, _| {})
}

/// A database in a directory of its own.
#[derive(Debug)]
pub struct Bench {
    pub directory: tempfile::TempDir,
    pub sqlite: Sqlite,
    pub writer: Arc<dyn Connection>,
    pub reader: Arc<dyn Connection>,
}

impl Bench {
    pub async fn new() -> Self {
        Self::with(|_, _| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config, &mut SqliteTarget)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = SqlitePath::File(directory.path().join("app.db"));
        let sqlite = backend_with(path, change);
        let writer = sqlite.connect(WRITE, soon()).await.unwrap();
        let reader = sqlite.connect(READ, soon()).await.unwrap();
        Self {
            directory,
            sqlite,
            writer,
            reader,
        }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("app.db")
    }

    /// A table `t (id, a)` with a unique `a`.
    pub async fn with_table() -> Self {
        let bench = Self::new().await;
        execute(
            &*bench.writer,
            "create table t (id integer primary key, a text unique)",
        )
        .await
        .unwrap();
        bench
    }

    pub async fn count(&self, table: &str) -> i64 {
        scalar(&*self.reader, &format!("select count(*) from {table}")).await
    }
}

pub async fn run(
    connection: &dyn Connection,
    text: &str,
    params: impl IntoParams,
    lane: Lane,
) -> Result<Reply> {
    let statement = Statement::new(text, params)?;
    connection
        .run(&statement, Want::Rows(usize::MAX), on(lane))
        .await
}

pub async fn execute(connection: &dyn Connection, text: &str) -> Result<u64> {
    let statement = Statement::new(text, ())?;
    connection
        .run(&statement, Want::Affected, on(WRITE))
        .await
        .map(|reply| reply.affected)
}

/// What is done with the native handle of a connection.
pub async fn natively<T: Send + 'static>(
    connection: &dyn Connection,
    act: impl FnOnce(&mut rusqlite::Connection) -> T + Send + 'static,
) -> T {
    let session: &SqliteSession = connection.as_any().downcast_ref().unwrap();
    session.call(act).await.unwrap()
}

/// The only value of the only row, read on the read lane.
pub async fn value(connection: &dyn Connection, text: &str) -> Value {
    let reply = run(connection, text, (), READ).await.unwrap();
    reply.rows[0].values()[0].clone()
}

pub async fn scalar(connection: &dyn Connection, text: &str) -> i64 {
    match value(connection, text).await {
        Value::Int(number) => number,
        other => panic!("{text}: {other:?}"),
    }
}
