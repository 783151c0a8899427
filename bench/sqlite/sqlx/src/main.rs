//! Turns of sqlx, with ten connections and with one; see `../../src/turn.rs`.

#[path = "../../src/turn.rs"]
mod turn;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use std::time::Duration;
use turn::{BUSY, COUNT, CREATE, Failure, INSERT, PRAGMAS, Peer, READ, Task};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let task = Task::from_arguments();
    let connections = match task.peer.as_str() {
        "sqlx, pool of 10" => 10,
        "sqlx, pool of 1" => 1,
        unknown => panic!("there is no peer {unknown} in this program"),
    };
    let version = version();
    turn::run(&task, &version, open(&task, connections));
}

struct Sqlx(SqlitePool);

async fn open(task: &Task, connections: u32) -> Result<Sqlx, Failure> {
    let synchronous = if task.synchronous == "FULL" {
        SqliteSynchronous::Full
    } else {
        SqliteSynchronous::Normal
    };
    let mut options = SqliteConnectOptions::new()
        .filename(&task.file)
        .create_if_missing(true)
        .busy_timeout(BUSY)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous);
    for (name, value) in PRAGMAS {
        options = options.pragma(name, value);
    }
    let pool = SqlitePoolOptions::new()
        .max_connections(connections)
        .min_connections(connections)
        .acquire_timeout(Duration::from_secs(30))
        .connect_with(options)
        .await?;
    sqlx::query(CREATE).execute(&pool).await?;
    Ok(Sqlx(pool))
}

/// What its SQLite says of itself.
fn version() -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asked = runtime.expect("a thread is there").block_on(async {
        let pool = SqlitePool::connect("sqlite::memory:").await?;
        sqlx::query_scalar("select sqlite_version()").fetch_one(&pool).await
    });
    asked.unwrap_or_else(|error: sqlx::Error| panic!("sqlx has no SQLite: {error}"))
}

impl Peer for Sqlx {
    async fn insert(&self, owner: i64, body: String) -> Result<(), Failure> {
        sqlx::query(INSERT).bind(owner).bind(body).execute(&self.0).await?;
        Ok(())
    }

    async fn read(&self, id: i64) -> Result<String, Failure> {
        Ok(sqlx::query_scalar(READ).bind(id).fetch_one(&self.0).await?)
    }

    async fn count(&self) -> Result<i64, Failure> {
        Ok(sqlx::query_scalar(COUNT).fetch_one(&self.0).await?)
    }
}
