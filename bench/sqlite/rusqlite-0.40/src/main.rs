//! Turns of deadpool-sqlite and tokio-rusqlite; see `../../src/turn.rs`.

#[path = "../../src/turn.rs"]
mod turn;

use deadpool_sqlite::{Config, Pool, PoolConfig, Runtime};
use rusqlite::{Connection, Result};
use turn::{BUSY, COUNT, CREATE, Failure, INSERT, PRAGMAS, Peer, READ, Task};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As every peer's pool that has several connections.
const LIMIT: usize = 10;

fn main() {
    let task = Task::from_arguments();
    match task.peer.as_str() {
        "deadpool-sqlite" => turn::run(&task, rusqlite::version(), deadpool(&task)),
        "tokio-rusqlite" => turn::run(&task, rusqlite::version(), tokio_rusqlite(&task)),
        unknown => panic!("there is no peer {unknown} in this program"),
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
    connection.execute_batch(CREATE)
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

struct Deadpool(Pool);

async fn deadpool(task: &Task) -> Result<Deadpool, Failure> {
    let mut config = Config::new(&task.file);
    config.pool = Some(PoolConfig::new(LIMIT));
    let pool = config.create_pool(Runtime::Tokio1)?;
    let mut lent = Vec::new();
    for _ in 0..LIMIT {
        let connection = pool.get().await?;
        let synchronous = task.synchronous.clone();
        let settled = connection.interact(move |connection| settle(connection, &synchronous));
        settled.await.map_err(|error| error.to_string())??;
        lent.push(connection);
    }
    drop(lent);
    Ok(Deadpool(pool))
}

impl Deadpool {
    async fn with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let connection = self.0.get().await?;
        let acted = connection.interact(move |connection| act(connection)).await;
        Ok(acted.map_err(|error| error.to_string())??)
    }
}

impl Peer for Deadpool {
    async fn insert(&self, owner: i64, body: String) -> Result<(), Failure> {
        self.with(move |connection| insert(connection, owner, &body)).await
    }

    async fn read(&self, id: i64) -> Result<String, Failure> {
        self.with(move |connection| read(connection, id)).await
    }

    async fn count(&self) -> Result<i64, Failure> {
        self.with(count).await
    }
}

struct TokioRusqlite(tokio_rusqlite::Connection);

async fn tokio_rusqlite(task: &Task) -> Result<TokioRusqlite, Failure> {
    let connection = tokio_rusqlite::Connection::open(&task.file).await?;
    let synchronous = task.synchronous.clone();
    connection.call(move |connection| settle(connection, &synchronous)).await?;
    Ok(TokioRusqlite(connection))
}

impl Peer for TokioRusqlite {
    async fn insert(&self, owner: i64, body: String) -> Result<(), Failure> {
        Ok(self.0.call(move |connection| insert(connection, owner, &body)).await?)
    }

    async fn read(&self, id: i64) -> Result<String, Failure> {
        Ok(self.0.call(move |connection| read(connection, id)).await?)
    }

    async fn count(&self) -> Result<i64, Failure> {
        Ok(self.0.call(|connection| count(connection)).await?)
    }
}
