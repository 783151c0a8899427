//! The history table of migrations, and the beginning and the end of a database.

use crate::classify::classify;
use crate::connect::{Opening, Place};
use crate::guard::Guard;
use crate::signals::{Signals, Ticket};
use crate::worker::{Worker, quoted};
use mainstay_core::backend::{Begin, Lane, MigrationDialect};
use mainstay_core::error::Report;
use mainstay_core::{Deadline, Kind, Result};
use std::sync::Arc;

/// `begin` takes the write lock, so concurrent runners wait there and need no lock of their own.
pub(crate) const DIALECT: MigrationDialect = MigrationDialect {
    create_history: "create table if not exists _mainstay_migrations (
        version integer primary key,
        name text not null,
        checksum text not null,
        dialect text not null,
        started_at text not null,
        finished_at text,
        took_ms integer,
        error text
    )",
    history_exists: "select count(*) > 0 from sqlite_schema
        where type = 'table' and name = '_mainstay_migrations'",
    lock: None,
};

/// Creates the file if it is not there. Blocks.
pub(crate) fn create(opening: &Opening, deadline: Deadline) -> Result<bool> {
    let Place::File(path) = &opening.place else {
        return Ok(false);
    };
    if opening.check_path(path)? {
        return Ok(false);
    }
    // Whoever creates the empty file has created the database; two at once cannot both.
    match std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
    {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => {
            return Err(
                Report::new(Kind::Config, format!("{} cannot be created", opening.shown))
                    .remedy("check the permissions of the directory")
                    .source(error)
                    .into(),
            );
        }
    }
    let signals = Arc::<Signals>::default();
    signals.replace(Some(Ticket::new(Some(deadline))));
    opening
        .open(&signals, &Arc::<Guard>::default())
        .map(|_| true)
}

impl Worker {
    /// Drops every table, view and trigger.
    pub(crate) fn erase(&mut self, ticket: &Arc<Ticket>) -> Result<()> {
        // Tables that refer to each other can be dropped in any order only while nobody looks, and
        // the setting cannot be changed inside a transaction.
        self.pragma("PRAGMA foreign_keys = OFF")?;
        let erased = self.erase_everything(ticket);
        let watched = self.undisturbed(|worker| worker.pragma("PRAGMA foreign_keys = ON"));
        erased.and(watched)
    }

    fn erase_everything(&mut self, ticket: &Arc<Ticket>) -> Result<()> {
        self.begin(Begin::default(), Lane::Write)?;
        let dropped = self.drop_objects();
        match dropped.map_err(|error| classify(error, self.site())) {
            Ok(()) => self.commit(ticket),
            Err(error) => {
                self.roll_back()?;
                Err(error)
            }
        }
    }

    fn drop_objects(&self) -> rusqlite::Result<()> {
        let Ok(handle) = self.handle() else {
            return Err(rusqlite::Error::InvalidQuery);
        };
        // Virtual tables before the tables behind them, which go with them and cannot go alone.
        let mut statement = handle.prepare(
            "SELECT type, name FROM main.sqlite_schema
             WHERE type IN ('table', 'view', 'trigger') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
             ORDER BY type = 'trigger' DESC, type = 'view' DESC, sql LIKE 'create virtual%' DESC",
        )?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let objects = rows.collect::<rusqlite::Result<Vec<(String, String)>>>()?;
        drop(statement);
        for (kind, name) in objects {
            handle.execute_batch(&format!("DROP {kind} IF EXISTS main.{}", quoted(&name)))?;
        }
        Ok(())
    }

    pub(crate) fn pragma(&self, text: &str) -> Result<()> {
        self.handle()?
            .execute_batch(text)
            .map_err(|error| classify(error, self.site()))
    }
}
