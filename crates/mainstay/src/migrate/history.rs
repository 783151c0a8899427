//! What was applied: the history table and what it says beside the files.

use super::{Migration, Migrations};
use crate::database::Database;
use crate::lease::Lease;
use mainstay_core::backend::System;
use mainstay_core::error::Report;
use mainstay_core::{Error, Kind, Result};
use std::collections::BTreeMap;

/// One row of the history.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[non_exhaustive]
pub struct Applied {
    /// The migration's number.
    pub version: i64,
    /// Its name.
    pub name: String,
    /// The checksum of the text that was applied.
    pub checksum: String,
    /// The system whose text it was: `any` for the common one.
    pub dialect: String,
    /// When it was begun, RFC 3339.
    pub started_at: String,
    /// When it was done; `None` for one that failed.
    pub finished_at: Option<String>,
    /// How long it took, in milliseconds.
    pub took_ms: Option<i64>,
    /// Why it failed.
    pub error: Option<String>,
}

/// The files beside the history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MigrationStatus {
    /// Applied, in order.
    pub applied: Vec<Applied>,
    /// Titles of migrations that are not applied yet, in order.
    pub pending: Vec<String>,
    /// Migrations that failed and left nothing behind; the next deploy tries them again.
    pub failed: Vec<Applied>,
    /// Titles of migrations whose file was changed after it was applied.
    pub modified: Vec<String>,
    /// Titles of migrations that were applied and whose file is not there.
    pub missing: Vec<String>,
}

impl MigrationStatus {
    /// Whether everything is applied and nothing was changed.
    #[must_use]
    pub fn is_up_to_date(&self) -> bool {
        self.pending.is_empty() && self.modified.is_empty() && self.failed.is_empty()
    }
}

const SELECT: &str = "select version, name, checksum, dialect, started_at, finished_at, took_ms, \
                      error from _mainstay_migrations order by version";

impl Database {
    /// Compares the files with the history in the database.
    ///
    /// # Errors
    ///
    /// Everything a statement can meet.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    pub async fn migration_status(&self, migrations: &Migrations) -> Result<MigrationStatus> {
        let exists = self.engine().backend.migrations().history_exists;
        let rows: Vec<Applied> = if self.fetch_one::<bool>(exists, ()).write().await? {
            self.fetch_all(SELECT, ()).write().await?
        } else {
            Vec::new()
        };
        compare(migrations, rows, self.system())
    }
}

/// The history as a connection sees it now.
pub(super) async fn read(lease: &Lease) -> Result<Vec<Applied>> {
    lease.fetch_all(SELECT, ()).await
}

pub(super) fn compare(
    migrations: &Migrations,
    history: Vec<Applied>,
    system: System,
) -> Result<MigrationStatus> {
    let mut status = MigrationStatus::default();
    let mut by_version: BTreeMap<i64, Applied> =
        history.into_iter().map(|row| (row.version, row)).collect();
    for migration in migrations.iter() {
        match by_version.remove(&migration.version) {
            Some(row) if row.finished_at.is_none() => {
                status.failed.push(row);
                status.pending.push(migration.title());
            }
            Some(row) => {
                if row.checksum != migration.checksum(system)? {
                    status.modified.push(migration.title());
                }
                status.applied.push(row);
            }
            None => status.pending.push(migration.title()),
        }
    }
    for row in by_version
        .into_values()
        .filter(|row| row.finished_at.is_some())
    {
        status
            .missing
            .push(format!("{:04}_{}", row.version, row.name));
        status.applied.push(row);
    }
    status.applied.sort_by_key(|row| row.version);
    Ok(status)
}

/// Why nothing may be applied on top of this history.
pub(super) fn objection(status: &MigrationStatus) -> Option<Error> {
    let title = status.modified.first()?;
    Some(
        Report::new(
            Kind::Migration,
            format!("the migration {title} was changed after it was applied"),
        )
        .remedy("restore the file and put the change into a new migration")
        .into(),
    )
}

pub(super) fn dialect(migration: &Migration, system: System) -> &'static str {
    if migration.has_own(system) {
        system.file_infix()
    } else {
        "any"
    }
}
