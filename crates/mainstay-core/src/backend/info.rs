//! What `Database::info` tells: whatever a backend cannot say is `None`, never a guess.

use std::panic::Location;
use std::time::Duration;

/// What `Database::info` tells.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Info {
    /// The server's or library's version, as it states it.
    pub version: String,
    /// Whether the server is recovering, as a standby is: it takes no writes. `None` where there is no
    /// such thing.
    pub in_recovery: Option<bool>,
    /// Sessions on this database now, ours and others'; on SQLite the handles of this process.
    pub active_connections: u64,
    /// Sessions of all databases of the server, which is what its limit counts; `None` where there is no
    /// such limit.
    pub server_connections: Option<u64>,
    /// The server's `max_connections`; `None` where there is no such limit.
    pub max_connections: Option<u64>,
    /// What the sessions on this database do.
    pub sessions: Option<SessionCounts>,
    /// What those of them do that have our `application_name`; `None` if we have none.
    pub application: Option<ApplicationInfo>,
    /// Size of the database in bytes.
    pub size_bytes: u64,
    /// The tables, sorted by name.
    pub tables: Vec<TableInfo>,
    /// Whether the rows are the server's estimates (PostgreSQL, unless asked to count) or were counted.
    pub rows_are_estimates: bool,
    /// The file, where the database is one (SQLite).
    pub file: Option<FileInfo>,
}

/// Sessions by what they do now.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionCounts {
    /// All of them.
    pub total: u64,
    /// They run a statement.
    pub active: u64,
    /// They wait for their client outside of a transaction.
    pub idle: u64,
    /// They wait for their client inside of one, and hold its locks.
    pub idle_in_transaction: u64,
    /// Somebody else's, and the role may not see what they do (`pg_read_all_stats` may).
    pub hidden: u64,
}

impl SessionCounts {
    /// Counts; the total is their sum.
    #[must_use]
    pub const fn new(active: u64, idle: u64, idle_in_transaction: u64, hidden: u64) -> Self {
        Self {
            total: active + idle + idle_in_transaction + hidden,
            active,
            idle,
            idle_in_transaction,
            hidden,
        }
    }
}

/// The sessions of one application.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ApplicationInfo {
    /// Its `application_name`.
    pub name: String,
    /// What its sessions do, those of all its processes.
    pub sessions: SessionCounts,
}

impl ApplicationInfo {
    /// The sessions of an application.
    #[must_use]
    pub fn new(name: impl Into<String>, sessions: SessionCounts) -> Self {
        Self {
            name: name.into(),
            sessions,
        }
    }
}

/// One table.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct TableInfo {
    /// Its name.
    pub name: String,
    /// Its rows; `None` where they could not be counted, or not before the deadline.
    pub rows: Option<u64>,
    /// What it takes in the database with its indexes, in bytes; `None` where the backend does not
    /// tell, or not before the deadline.
    pub size_bytes: Option<u64>,
    /// Its name as a statement has to write it, where rows are counted only on request.
    pub sql_name: Option<String>,
}

impl TableInfo {
    /// A table of which nothing but the name is known yet.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// The same with its number of rows.
    #[must_use]
    pub fn with_rows(self, rows: u64) -> Self {
        Self {
            rows: Some(rows),
            ..self
        }
    }
}

/// What is to be known of a database's file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileInfo {
    /// `wal` for a file, `memory` for a database in memory.
    pub journal_mode: String,
    /// Bytes a page.
    pub page_size: u64,
    /// Pages of the database, the free ones included.
    pub pages: u64,
    /// Pages that nothing uses: the file does not shrink by itself, but new rows go there first.
    pub free_pages: u64,
    /// Size of the write-ahead log's file in bytes. The file is used again from its beginning, so
    /// it says how much the log has held, not how much it holds.
    pub wal_bytes: u64,
    /// The write-ahead log, as far as this process knows it; `None` where there is none.
    pub log: Option<LogInfo>,
}

/// What is known of a write-ahead log without asking for it.
///
/// A log that is held grows with every commit. Writing goes on as before, reading becomes slower, and
/// the disk fills.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogInfo {
    /// Pages that are in it, as the last commit of this process left it; 0 before that.
    pub pages: u64,
    /// Those of them that the last checkpoint of this process has found or put in the database.
    pub copied_pages: u64,
    /// The bytes that its pages take.
    pub bytes: u64,
    /// Whether somebody who reads an older state of the database keeps the rest from being copied.
    pub is_held: bool,
    /// How long the oldest reader of this process has been reading.
    pub oldest_reader: Option<Duration>,
    /// Where in the application it got its connection.
    pub oldest_reader_site: Option<&'static Location<'static>>,
    /// Why the last checkpoint failed, if it did.
    pub error: Option<String>,
}
