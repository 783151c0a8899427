//! What `Database::info` tells: whatever a backend cannot say is `None`, never a guess.

/// What `Database::info` tells.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Info {
    /// The server's or library's version, as it states it.
    pub version: String,
    /// Sessions on this database now, ours and others'; on SQLite the handles of this process.
    pub active_connections: u64,
    /// The server's `max_connections`; `None` where there is no such limit.
    pub max_connections: Option<u64>,
    /// Size of the database in bytes.
    pub size_bytes: u64,
    /// The tables, sorted by name.
    pub tables: Vec<TableInfo>,
    /// Whether the rows are the server's estimates (PostgreSQL) or were counted (SQLite).
    pub rows_are_estimates: bool,
    /// The file, where the database is one (SQLite).
    pub file: Option<FileInfo>,
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
}
