//! Brings the schema and the first data, while the service already listens.
//!
//! A service that waits for its database before it listens looks dead to whoever started it, and one
//! that gives up is restarted in a loop. So it listens, says that it is not ready, and asks again
//! until the database is there. What asking again cannot cure ends the process with one clear line.

use crate::seed;
use mainstay::{Class, Database, Error, Evidence, Kind, Result};
use mainstay_axum::Readiness;
use std::time::Duration;

/// Between two attempts. The first are quick, for a database that starts together with the shop.
const REST_FIRST: Duration = Duration::from_millis(100);
const REST_MAX: Duration = Duration::from_secs(2);

/// The code of a database that does not exist.
const NO_DATABASE: &str = "P1003";

/// What clients read until the shop is ready.
pub(crate) const WAITING: &str = "the shop is starting and waits for its database";

/// Migrates and seeds, as often as it takes, then says that the shop is ready.
pub(crate) async fn prepare(db: &Database, readiness: &Readiness) -> Result<()> {
    let migrations = mainstay::embed_migrations!("$CARGO_MANIFEST_DIR/migrations")?;
    let mut rest = REST_FIRST;
    let mut created = false;
    loop {
        match attempt(db, &migrations).await {
            Ok(()) => {
                readiness.ready();
                tracing::info!(target = db.target(), "the shop is ready");
                return Ok(());
            }
            // The server is there and the database is not: a first start.
            Err(error) if error.code() == Some(NO_DATABASE) && !created => {
                created = db.create().await?;
                tracing::info!(target = db.target(), "the shop created its database");
            }
            Err(error) if is_lasting(&error) => return Err(error),
            Err(error) => {
                let wait = error.retry_after().unwrap_or(rest).min(REST_MAX);
                tracing::warn!(%error, ?wait, "the database is not there yet");
                tokio::time::sleep(wait).await;
                rest = (rest * 2).min(REST_MAX);
            }
        }
    }
}

async fn attempt(db: &Database, migrations: &mainstay::migrate::Migrations) -> Result<()> {
    let deployment = db.migrate(migrations).await?;
    for migration in &deployment.applied {
        tracing::info!(migration = migration.title, took = ?migration.took, "migrated");
    }
    if seed::plant(db).await? {
        tracing::info!("the empty shop was given its first data");
    }
    Ok(())
}

/// Whether asking again cannot help: a wrong password, a broken file, a migration that fails.
fn is_lasting(error: &Error) -> bool {
    match error.kind() {
        Kind::Unreachable
        | Kind::BreakerOpen
        | Kind::Exhausted
        | Kind::Shed
        | Kind::Paused
        | Kind::Timeout
        | Kind::Cancelled
        | Kind::Conflict
        | Kind::TransactionOver => false,
        // Both steps look first what has been done, so they may be done again; and a shop that
        // started at the same time may have been faster.
        Kind::OutcomeUnknown | Kind::Unique => false,
        Kind::Migration => {
            error.class() == Class::Permanent && error.evidence() != Evidence::Silent
        }
        _ => true,
    }
}
