//! The layer between a service and its database.
//!
//! One handle, [`Database`], for SQLite in development and PostgreSQL in production: the same
//! statements, the same rows, the same errors. Behind it are a pool that says why it could not
//! serve, two lanes that the database itself enforces, retries that never book twice, a breaker,
//! health that asks the database, and an orderly end.
//!
//! ```no_run
//! use mainstay::Database;
//!
//! #[derive(serde::Deserialize)]
//! struct Order { id: i64, status: String, total_cents: i64 }
//!
//! # async fn example(user: i64, sku: &str) -> mainstay::Result<()> {
//! let db = Database::connect("file:./dev.db").await?;
//!
//! let orders: Vec<Order> = db
//!     .fetch_all("select id, status, total_cents from orders where user_id = $1", (user,))
//!     .await?;
//!
//! let id: i64 = db
//!     .transaction(async |tx| {
//!         tx.execute("update stock set available = available - 1 where sku = $1", (sku,)).await?;
//!         tx.fetch_one("insert into orders (user_id, sku) values ($1, $2) returning id", (user, sku))
//!             .await
//!     })
//!     .await?;
//! # drop((orders, id)); Ok(()) }
//! ```
//!
//! # Words
//!
//! A *connection* is one open session with a database; the *pool* owns them and never opens more
//! than its limit; a *lease* is the exclusive use of one. A *lane* is a way in which statements
//! reach the database: on the *read lane* the database itself refuses to write, so what was lost
//! there may be repeated; everything else takes the *write lane*. A *deadline* bounds everything one
//! call does. A write whose answer was lost has an *unknown outcome*, which is never called
//! transient.
//!
//! # Modules, in reading order
//!
//! `database` is the face; `call` the builders behind `execute` and `fetch_*`; `one_shot` the life
//! of one statement; `router` picks the lane, `gate` holds the breakers, `lookout` draws conclusions from a loss, `lanes` the pools,
//! `attempts` the only place that repeats anything; `unit`, `tx` and `by_hand` are transactions, `tokens` and
//! `fence` find out about a lost COMMIT, `lease` is the exclusive use, `copying` bulk data through it, `listen` a connection that hears; `health`, `status`, `close` watch and end; [`migrate`] brings the schema.

mod attempts;
mod bound;
mod builder;
mod by_hand;
mod call;
mod classify;
mod close;
mod connector;
mod copying;
mod database;
mod engine;
mod fence;
mod gate;
mod health;
mod info;
mod lanes;
mod lease;
mod listen;
mod lookout;
mod metrics;
pub mod migrate;
mod one_shot;
mod options;
mod replicas;
mod router;
mod status;
mod stream;
mod system;
mod tokens;
mod tx;
mod unit;

pub use builder::Builder;
pub use by_hand::Transaction;
pub use call::{Affected, All, Call, Exactly, Optional, Outcome};
pub use classify::{Classify, RetryPolicy, retry, retry_find};
pub use close::CloseReport;
pub use copying::{CopyIn, CopyOut};
pub use database::{Database, IntoStatement, statement};
pub use health::Health;
pub use info::AskInfo;
pub use lease::Lease;
pub use listen::{ListenEvent, Listener};
pub use mainstay_core::backend;
pub use mainstay_core::backend::{
    ApplicationInfo, Backup, FileInfo, Info, Isolation, LogInfo, Notification, SessionCounts,
    System, TableInfo,
};
pub use mainstay_core::config;
pub use mainstay_core::error::Doubt;
pub use mainstay_core::row;
pub use mainstay_core::{
    Class, Column, Columns, Config, Date, DateTime, Deadline, Decimal, Error, Evidence, IntoParams,
    IntoValue, Kind, Params, Result, Row, Statement, TimeOfDay, Timestamp, Uuid, Value, params,
};
pub use options::TransactionOptions;
pub use status::{Breaker, GateStatus, PoolStatus, Status};
pub use stream::Fetch;
pub use tx::Tx;

#[cfg(feature = "postgres")]
pub use mainstay_postgres as postgres;
#[cfg(feature = "sqlite")]
pub use mainstay_sqlite as sqlite;
