//! What is done after a COMMIT that the disk failed.
//!
//! Its frames may be complete in the log although the sync failed. As long as the file is open they
//! are not counted; after a crash they are found and count again. So nothing may be built on either
//! answer: the write lane stays shut until there is only one. The next writer that is opened writes a
//! commit of its own over the place where those frames begin, and has it synced: what comes behind it
//! in the log is of no use to anybody then. It also copies the log into the database and has that
//! synced, because a system that has once failed to sync a page may take it for clean and never write
//! it again.

use crate::classify::{Site, classify};
use crate::signals::{Signals, Ticket};
use mainstay_core::error::Report;
use mainstay_core::{Class, Error, Evidence, Kind, Result};
use rusqlite::Connection;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The pause between two attempts to copy the log while somebody reads an older state of it.
const PAUSE: Duration = Duration::from_millis(10);

/// Whether a COMMIT has failed in a way that leaves its outcome open.
#[derive(Debug, Default)]
pub(crate) struct Latch(AtomicBool);

impl Latch {
    /// Shuts the write lane until a new writer has settled the matter.
    pub(crate) fn shut(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Settles the matter on a new writer, before anybody gets it.
    pub(crate) fn open(&self, connection: &Connection, signals: &Signals) -> Result<()> {
        if !self.0.load(Ordering::SeqCst) {
            return Ok(());
        }
        settle(connection, signals).map_err(|error| still_shut(&error))?;
        self.0.store(false, Ordering::SeqCst);
        tracing::info!(
            "a COMMIT that the disk had failed is settled; the write lane is open again"
        );
        Ok(())
    }
}

fn settle(connection: &Connection, signals: &Signals) -> Result<()> {
    let failed = |error| classify(error, Site::default());
    let synchronous: i64 = connection
        .query_row("PRAGMA synchronous", [], |row| row.get(0))
        .map_err(failed)?;
    connection
        .execute_batch("PRAGMA synchronous = FULL")
        .map_err(failed)?;
    write_over(connection).map_err(failed)?;
    let ticket = signals.current().unwrap_or_else(|| Ticket::new(None));
    while !copy_log(connection).map_err(failed)? {
        if ticket.objection().is_some() {
            let message = "somebody reads an older state of the file all the time";
            return Err(Report::new(Kind::Storage, message).into());
        }
        ticket.wait(ticket.nudges(), Some(PAUSE));
    }
    connection
        .execute_batch(&format!("PRAGMA synchronous = {synchronous}"))
        .map_err(failed)
}

/// Commits something that changes nothing: the number of the schema's version, which is the
/// application's, stays what it is.
fn write_over(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let version = connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
    let written = version.and_then(|version| {
        connection.execute_batch(&format!("PRAGMA user_version = {version}; COMMIT"))
    });
    if written.is_err() && !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK")?;
    }
    written
}

/// Whether the whole log is in the database now.
fn copy_log(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        let (busy, frames, copied): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(busy == 0 && frames == copied)
    })
}

fn still_shut(error: &Error) -> Error {
    let message = format!(
        "nothing is written until a commit that the disk failed is settled: {}",
        error.message()
    );
    Report::new(Kind::Storage, message)
        .class(Class::NotSent)
        .evidence(Evidence::Exhausted)
        .remedy("check the disk; writing goes on by itself when it takes a sync again")
        .into()
}
