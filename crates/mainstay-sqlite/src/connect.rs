//! Opening a handle, with every setting that must not be forgotten.
//!
//! SQLite's defaults are those of 2004: no foreign keys, a journal in which readers block writers,
//! misspelt columns that silently become strings. All of this is per handle, so it is set in one
//! place and read back where a failure would be silent.

use crate::classify::{Site, classify};
use crate::counts::Counts;
use crate::ground;
use crate::guard::Guard;
use crate::identity::Opened;
use crate::latch::Latch;
use crate::log::{self, Log};
use crate::readers::Readers;
use crate::signals::{self, Signals};
use mainstay_core::config::Durability;
use mainstay_core::error::Report;
use mainstay_core::{Class, Error, Evidence, Kind, Result};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, ffi};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// The WAL is cut back to this size after a checkpoint that emptied it.
const WAL_KEPT_BYTES: i64 = 64 * 1024 * 1024;
/// Page cache in KiB. One writer touches much, many readers share the system's cache.
const CACHE_KIB_WRITER: i64 = 16_000;
const CACHE_KIB_READER: i64 = 8_000;

/// Where the database is.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// A file, by its absolute path.
    File(PathBuf),
    /// Memory.
    Memory,
}

/// What a handle may do.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read only, twice: by its open flags and by `query_only`.
    Read,
    /// Everything.
    Write,
}

/// How to open a handle; a connection keeps it to open its handle anew.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    pub(crate) place: Place,
    pub(crate) access: Access,
    pub(crate) durability: Durability,
    pub(crate) busy_timeout: Duration,
    pub(crate) statement_cache_size: usize,
    /// Whether the file may lie where a write-ahead log is not safe.
    pub(crate) network_file_system: bool,
    /// The directory of a temporary database; the last to let go of it removes it.
    pub(crate) scratch: Option<Arc<TempDir>>,
    /// The database as people know it, without secrets.
    pub(crate) shown: Arc<str>,
    /// The open handles of this process on this database.
    pub(crate) handles: Arc<AtomicUsize>,
    /// The file that they have open.
    pub(crate) opened: Arc<Opened>,
    pub(crate) counts: Arc<Counts>,
    /// Shut after a COMMIT whose outcome is not known.
    pub(crate) latch: Arc<Latch>,
    /// The write-ahead log.
    pub(crate) log: Arc<Log>,
    /// Whether a thread beside the writer copies the log.
    pub(crate) copies_beside: bool,
    /// Who reads.
    pub(crate) readers: Arc<Readers>,
    /// From how many bytes of the log on a reader that keeps it is ended.
    pub(crate) wal_limit: Option<u64>,
}

/// An open handle, counted.
#[derive(Debug)]
pub(crate) struct Handle {
    connection: Connection,
    handles: Arc<AtomicUsize>,
}

impl Handle {
    fn new(connection: Connection, handles: &Arc<AtomicUsize>) -> Self {
        handles.fetch_add(1, Ordering::Relaxed);
        Self {
            connection,
            handles: Arc::clone(handles),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.handles.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Deref for Handle {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Handle {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

impl Opening {
    /// The same database with another access.
    pub(crate) fn with(&self, access: Access) -> Self {
        Self {
            access,
            ..self.clone()
        }
    }

    /// Opens and configures a handle. Blocks; to be called on the thread that will own the handle.
    pub(crate) fn open(&self, signals: &Arc<Signals>, guard: &Arc<Guard>) -> Result<Handle> {
        let Place::File(path) = &self.place else {
            let connection =
                Connection::open_in_memory().map_err(|error| self.failed(error, signals))?;
            let mut handle = Handle::new(connection, &self.handles);
            self.configure(&mut handle, signals, guard)?;
            return Ok(handle);
        };
        let exists = self.check_path(path)?;
        if !self.opened.is_noted() {
            ground::check(path, exists, self.network_file_system, &self.shown)?;
        }
        // Once nobody has the old file open, another one in its place is welcome.
        if !exists || self.handles.load(Ordering::Relaxed) > 0 {
            self.opened.check(path, &self.shown)?;
        }
        let handle = self.open_existing_or_new(path, exists, signals, guard)?;
        self.opened.note(path);
        Ok(handle)
    }

    fn open_existing_or_new(
        &self,
        path: &Path,
        exists: bool,
        signals: &Arc<Signals>,
        guard: &Arc<Guard>,
    ) -> Result<Handle> {
        if self.access == Access::Write {
            let writer = self.open_file(path, signals, guard)?;
            self.latch.open(&writer, signals)?;
            return Ok(writer);
        }
        // A reader can neither create the file nor switch it to WAL. The handle that does is kept
        // until the reader stands, because the last one to close removes the WAL again.
        let writer = match exists {
            true if self.is_wal(path, signals)? => None,
            _ => Some(self.with(Access::Write).open_file(path, signals, guard)?),
        };
        let reader = self.open_file(path, signals, guard);
        drop(writer);
        reader
    }

    fn open_file(&self, path: &Path, signals: &Arc<Signals>, guard: &Arc<Guard>) -> Result<Handle> {
        // No URI flag: a file may be called `a?mode=memory`.
        let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX
            | match self.access {
                Access::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
                Access::Write => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
            };
        let failed = |error| self.failed(error, signals);
        let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        let mut handle = Handle::new(connection, &self.handles);
        // SQLite opens a file that it may not write for reading, without a word.
        if self.access == Access::Write && handle.is_readonly("main").map_err(failed)? {
            return Err(self.read_only());
        }
        self.configure(&mut handle, signals, guard)?;
        Ok(handle)
    }

    /// A handle beside the writer's, which copies the log and does nothing else. It waits for no lock
    /// and writes nothing of its own.
    pub(crate) fn open_beside(&self) -> Result<Handle> {
        let Place::File(path) = &self.place else {
            return Err(Report::new(Kind::Config, "a database in memory has no log").into());
        };
        self.opened.check(path, &self.shown)?;
        let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_READ_WRITE;
        let failed = |error| classify(error, Site::default());
        let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        let handle = Handle::new(connection, &self.handles);
        let settled = handle.busy_timeout(Duration::ZERO).and_then(|()| {
            handle.execute_batch(&format!(
                "{} PRAGMA mmap_size = 0; PRAGMA query_only = ON;",
                self.syncing()
            ))
        });
        settled.map_err(failed)?;
        Ok(handle)
    }

    /// What is synced, and how.
    fn syncing(&self) -> String {
        // Only macOS tells a sync that reaches the disk's own cache from one that reaches the disk.
        let (synchronous, full_fsync) = match self.durability {
            // Nobody looks for it after a power cut.
            _ if self.scratch.is_some() => ("OFF", "OFF"),
            Durability::Full => ("FULL", "ON"),
            Durability::Relaxed => ("NORMAL", "OFF"),
        };
        format!(
            "PRAGMA synchronous = {synchronous};
             PRAGMA fullfsync = {full_fsync};
             PRAGMA checkpoint_fullfsync = {full_fsync};"
        )
    }

    fn is_wal(&self, path: &Path, signals: &Arc<Signals>) -> Result<bool> {
        let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_READ_ONLY;
        let mode = Connection::open_with_flags(path, flags).and_then(|mut connection| {
            signals::install(&mut connection, signals, self.busy_timeout)?;
            connection.query_row("PRAGMA journal_mode", [], |row| row.get::<_, String>(0))
        });
        match mode {
            Ok(mode) => Ok(mode == "wal"),
            // A crash may have left a WAL that only a handle with write access can recover.
            Err(error) if primary(&error) == Some(ffi::SQLITE_READONLY) => Ok(false),
            Err(error) if primary(&error) == Some(ffi::SQLITE_CANTOPEN) => Ok(false),
            Err(error) => Err(self.failed(error, signals)),
        }
    }

    /// Puts every setting in place. Also the way back to them on a handle that cannot be reopened.
    pub(crate) fn configure(
        &self,
        connection: &mut Connection,
        signals: &Arc<Signals>,
        guard: &Arc<Guard>,
    ) -> Result<()> {
        // The wait for locks first: switching to WAL needs an exclusive one.
        let settled = signals::install(connection, signals, self.busy_timeout)
            .and_then(|()| guard.install(connection))
            .and_then(|()| self.settle(connection));
        let journal_mode = settled.map_err(|error| self.failed(error, signals))?;
        let wanted = if matches!(self.place, Place::File(_)) {
            "wal"
        } else {
            "memory"
        };
        if journal_mode != wanted {
            let message = format!(
                "{} cannot use a write-ahead log, only {journal_mode}",
                self.shown
            );
            let remedy = "put the file on a local disk; network file systems have no shared memory";
            return Err(Report::new(Kind::Config, message).remedy(remedy).into());
        }
        let foreign_keys =
            connection.query_row("PRAGMA foreign_keys", [], |row| row.get::<_, bool>(0));
        if !foreign_keys.map_err(|error| self.failed(error, signals))? {
            let message = format!(
                "{}: this SQLite library cannot enforce foreign keys",
                self.shown
            );
            return Err(Report::new(Kind::Config, message).into());
        }
        Ok(())
    }

    /// Answers the journal mode, which a failure to switch shows in no other way.
    fn settle(&self, connection: &Connection) -> rusqlite::Result<String> {
        for (setting, value) in [
            (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
            (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
            (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
            (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
            (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true),
            (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, true),
        ] {
            connection.set_db_config(setting, value)?;
        }
        let is_file = matches!(self.place, Place::File(_));
        let switch = match self.access {
            Access::Write if is_file => "PRAGMA journal_mode = WAL",
            _ => "PRAGMA journal_mode",
        };
        let mode = connection.query_row(switch, [], |row| row.get::<_, String>(0))?;
        let (cache, query_only) = match self.access {
            Access::Write => (CACHE_KIB_WRITER, "OFF"),
            Access::Read => (CACHE_KIB_READER, "ON"),
        };
        connection.execute_batch(&format!(
            "{}
             PRAGMA foreign_keys = ON;
             PRAGMA cache_size = -{cache};
             PRAGMA temp_store = MEMORY;
             PRAGMA mmap_size = 0;
             PRAGMA journal_size_limit = {WAL_KEPT_BYTES};
             PRAGMA query_only = {query_only};",
            self.syncing()
        ))?;
        connection.set_prepared_statement_cache_capacity(self.statement_cache_size);
        if self.access == Access::Write && is_file {
            log::install(connection, &self.log)?;
        }
        Ok(mode)
    }

    /// Reads the file as somebody who opens it now would. A handle that has been open for long
    /// answers from its own pages as long as nobody writes, whatever has become of the file.
    ///
    /// It has to be SQLite that opens it: when any other descriptor of the file is closed, the
    /// system drops all locks that this process has on it.
    pub(crate) fn look_anew(&self, path: &Path, signals: &Arc<Signals>) -> rusqlite::Result<()> {
        let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_READ_ONLY;
        let mut connection = Connection::open_with_flags(path, flags)?;
        signals::install(&mut connection, signals, self.busy_timeout)?;
        connection.query_row("PRAGMA schema_version", [], |row| {
            row.get::<_, i64>(0).map(|_| ())
        })
    }

    /// Whether the file exists; what SQLite would say about a wrong path is "unable to open database
    /// file" and no more.
    pub(crate) fn check_path(&self, path: &Path) -> Result<bool> {
        let shown = &self.shown;
        match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => Err(config(
                format!("{shown} is a directory"),
                "give the path of a file, such as file:./app.db",
            )),
            Ok(found) if !found.is_file() => Err(config(
                format!("{shown} is not a regular file"),
                "give the path of a file",
            )),
            // The superuser could write it all the same; a mark is there to be respected.
            Ok(found) if found.permissions().readonly() && self.access == Access::Write => {
                Err(self.read_only())
            }
            Ok(_) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let directory = path.parent().unwrap_or(path);
                if directory.is_dir() {
                    return Ok(false);
                }
                let message = format!(
                    "the directory of {shown} does not exist ({})",
                    directory.display()
                );
                Err(config(message, "create it, or correct the path"))
            }
            Err(error) => Err(
                Report::new(Kind::Config, format!("{shown} cannot be looked at"))
                    .remedy("check the path and its permissions")
                    .source(error)
                    .into(),
            ),
        }
    }

    fn read_only(&self) -> Error {
        config(
            format!("{} is read-only", self.shown),
            "make the file and its directory writable for this user",
        )
    }

    /// Says what a failure to open means.
    pub(crate) fn failed(&self, error: rusqlite::Error, signals: &Signals) -> Error {
        let shown = &self.shown;
        let stop = signals.objection();
        match primary(&error) {
            Some(ffi::SQLITE_NOTADB) => config(
                format!("{shown} is not a SQLite database"),
                "check the path; an encrypted file cannot be opened either",
            ),
            Some(ffi::SQLITE_READONLY | ffi::SQLITE_PERM) => self.read_only(),
            Some(ffi::SQLITE_BUSY | ffi::SQLITE_INTERRUPT) if stop.is_some() => Report::new(
                Kind::Unreachable,
                format!("{shown} could not be opened in time"),
            )
            .class(Class::NotSent)
            .evidence(Evidence::Silent)
            .remedy("look which process holds a lock on it")
            .into(),
            Some(ffi::SQLITE_BUSY) => Report::new(
                Kind::Unreachable,
                format!("{shown} is locked by another process"),
            )
            .class(Class::NotSent)
            .evidence(Evidence::Answered)
            .remedy("look which process holds the lock")
            .into(),
            _ => {
                let cause = classify(error, Site::default());
                let class = match cause.class() {
                    Class::Permanent => Class::Permanent,
                    _ => Class::NotSent,
                };
                let message = format!("{shown} cannot be opened: {}", cause.message());
                cause.into_report().message(message).class(class).into()
            }
        }
    }
}

fn config(message: String, remedy: &'static str) -> Error {
    Report::new(Kind::Config, message).remedy(remedy).into()
}

fn primary(error: &rusqlite::Error) -> Option<i32> {
    match error {
        rusqlite::Error::SqliteFailure(code, _) => Some(code.extended_code & 0xff),
        rusqlite::Error::SqlInputError { error, .. } => Some(error.extended_code & 0xff),
        _ => None,
    }
}

/// Whether a library of this version is free of the WAL-reset bug: two handles that write and
/// checkpoint one file at the same moment could corrupt it from 3.7.0 on, until 3.51.3 and the
/// back-ports to 3.50.7 and 3.44.6.
pub(crate) const fn resets_wal_safely(version: i32) -> bool {
    matches!(version, 3_044_006..=3_044_999 | 3_050_007..=3_050_999 | 3_051_003..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_with_the_wal_reset_bug_are_known() {
        for safe in [3_044_006, 3_050_007, 3_051_003, 3_053_004, 4_000_000] {
            assert!(resets_wal_safely(safe), "{safe}");
        }
        for unsafe_version in [3_040_001, 3_044_005, 3_045_000, 3_050_006, 3_051_002] {
            assert!(!resets_wal_safely(unsafe_version), "{unsafe_version}");
        }
        assert!(resets_wal_safely(rusqlite::version_number()));
    }
}
