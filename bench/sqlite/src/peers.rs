//! The peers that can be in one program with mainstay: rusqlite itself, and async-sqlite.

use crate::turn::{BUSY, COUNT, CREATE, Failure, INSERT, PRAGMAS, Peer, READ, Task};
use async_sqlite::{JournalMode, Pool, PoolBuilder};
use mainstay::Database;
use mainstay::sqlite::rusqlite::{Connection, Result};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// As every peer's pool that has several connections.
const LIMIT: usize = 10;

pub struct Mainstay(Database);

pub async fn mainstay(task: &Task) -> std::result::Result<Mainstay, Failure> {
    let durability = if task.synchronous == "FULL" { "full" } else { "relaxed" };
    let url = format!("file:{}?durability={durability}", task.file);
    let db = Database::builder(&url)
        .connection_limit(LIMIT)
        // As the others have: nobody is refused while the turn lasts.
        .pool_timeout(Duration::from_secs(30))
        .open()
        .await?;
    db.execute(CREATE, ()).await?;
    Ok(Mainstay(db))
}

impl Peer for Mainstay {
    async fn insert(&self, owner: i64, body: String) -> std::result::Result<(), Failure> {
        self.0.execute(INSERT, (owner, body)).await?;
        Ok(())
    }

    async fn read(&self, id: i64) -> std::result::Result<String, Failure> {
        Ok(self.0.fetch_one(READ, (id,)).await?)
    }

    async fn count(&self) -> std::result::Result<i64, Failure> {
        Ok(self.0.fetch_one(COUNT, ()).await?)
    }
}

fn settle(connection: &Connection, synchronous: &str) -> Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", synchronous)?;
    for (name, value) in PRAGMAS {
        connection.pragma_update(None, name, value)?;
    }
    connection.set_prepared_statement_cache_capacity(100);
    Ok(())
}

fn insert(connection: &Connection, owner: i64, body: &str) -> Result<()> {
    connection.prepare_cached(INSERT)?.execute((owner, body))?;
    Ok(())
}

fn read(connection: &Connection, id: i64) -> Result<String> {
    connection.prepare_cached(READ)?.query_row((id,), |row| row.get(0))
}

fn count(connection: &Connection) -> Result<i64> {
    connection.prepare_cached(COUNT)?.query_row((), |row| row.get(0))
}

/// What one writes in ten lines: one connection behind a lock, on a thread that may block.
pub struct Locked(Arc<Mutex<Connection>>);

pub async fn locked(task: &Task) -> std::result::Result<Locked, Failure> {
    let connection = Connection::open(&task.file)?;
    settle(&connection, &task.synchronous)?;
    connection.execute_batch(CREATE)?;
    Ok(Locked(Arc::new(Mutex::new(connection))))
}

impl Locked {
    async fn with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> std::result::Result<T, Failure> {
        let connection = Arc::clone(&self.0);
        let acted = tokio::task::spawn_blocking(move || {
            act(&connection.lock().unwrap_or_else(PoisonError::into_inner))
        });
        Ok(acted.await??)
    }
}

impl Peer for Locked {
    async fn insert(&self, owner: i64, body: String) -> std::result::Result<(), Failure> {
        self.with(move |connection| insert(connection, owner, &body)).await
    }

    async fn read(&self, id: i64) -> std::result::Result<String, Failure> {
        self.with(move |connection| read(connection, id)).await
    }

    async fn count(&self) -> std::result::Result<i64, Failure> {
        self.with(count).await
    }
}

pub struct AsyncSqlite(Pool);

pub async fn async_sqlite(task: &Task) -> std::result::Result<AsyncSqlite, Failure> {
    // One by one: switching a file to the log with several handles at once is refused.
    drop(locked(task).await?);
    let pool = PoolBuilder::new()
        .path(Path::new(&task.file))
        .journal_mode(JournalMode::Wal)
        .num_conns(LIMIT)
        .open()
        .await?;
    let synchronous = task.synchronous.clone();
    for settled in pool.conn_for_each(move |connection| Ok(settle(connection, &synchronous)?)).await {
        settled?;
    }
    Ok(AsyncSqlite(pool))
}

impl Peer for AsyncSqlite {
    async fn insert(&self, owner: i64, body: String) -> std::result::Result<(), Failure> {
        Ok(self.0.conn(move |connection| insert(connection, owner, &body)).await?)
    }

    async fn read(&self, id: i64) -> std::result::Result<String, Failure> {
        Ok(self.0.conn(move |connection| read(connection, id)).await?)
    }

    async fn count(&self) -> std::result::Result<i64, Failure> {
        Ok(self.0.conn(count).await?)
    }
}
