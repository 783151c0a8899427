//! The SQLite backend of mainstay.
//!
//! SQLite is a library that blocks, with one writer at a time and defaults from 2004. This crate
//! makes of it a database like the other one: reads that run beside each other and beside a write,
//! writes that queue instead of failing, transactions that end when they fail, statements that stop
//! at their deadline, and an answer for every error that says what may be done next.
//!
//! A file is served by several readers, which cannot write whatever they are sent, and one writer.
//! Each connection is a thread that owns a handle; no thread of the async runtime ever waits for
//! the disk. When there are more callers than readers, their reads queue on a reader's thread, which
//! then finds the next one without being woken; one that keeps others waiting for ten milliseconds is
//! stopped and has a reader of its own. `:memory:` is one connection, because a second one would be
//! another database; a temporary database (`file:?temp`) is a file of its own, which goes with its
//! last connection.
//!
//! What is read-only stays untouched: opening a file that is marked read-only, or lies where nothing
//! can be written, is a configuration error, because the write-ahead log needs to be written even
//! by readers.
//!
//! Modules, in reading order:
//!
//! * `connect`: opening a handle, with every setting that must not be forgotten
//! * `ground`: where the file lies, and whether a write-ahead log works there
//! * `identity`: whether a path still leads to the file that was opened
//! * `latch`: what is done after a COMMIT that the disk failed
//! * `log`, `checkpoint`: how much is in the write-ahead log, and who copies it into the database
//! * `readers`: who reads for so long that the log cannot be emptied
//! * `signals`: how a deadline, a dropped future or a close stops what runs in C
//! * `queue`, `worker`: what waits for the thread that owns a handle, and the thread
//! * `session`: one connection, as the facade sees it ([`SqliteSession`])
//! * `keyword`, `guard`: what the first keyword tells, and what SQLite says before it executes
//! * `bind`, `decode`, `execute`: one statement, from parameters to rows
//! * `read_lane`, `write_lane`: where a text belongs, streams; batches and scripts
//! * `transaction`: the state that a transaction is in, kept by us
//! * `group`: writes of strangers that are committed together
//! * `classify`, `counts`: what an error means, what has been done so far
//! * `health`, `optimize`, `migrate`, `backup`: looking after a database

mod backup;
mod bind;
mod checkpoint;
mod classify;
mod connect;
mod counts;
mod decode;
mod execute;
mod ground;
mod group;
mod guard;
mod health;
mod identity;
mod keyword;
mod latch;
mod log;
mod migrate;
mod optimize;
mod queue;
mod read_lane;
mod readers;
mod session;
mod signals;
mod transaction;
mod worker;
mod write_lane;

pub use counts::Commits;
pub use rusqlite;
pub use session::SqliteSession;

use connect::{Access, Opening, Place};
use mainstay_core::backend::{
    Backend, Backup, BoxFuture, Connection, Info, Lane, Layout, LogInfo, MigrationDialect,
    Presumption, Progress, Sharing, System,
};
use mainstay_core::config::{SqlitePath, SqliteTarget, Target};
use mainstay_core::error::Report;
use mainstay_core::{Class, Config, Deadline, Error, Evidence, Kind, Result};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use worker::Limits;

/// More readers than this on a small machine only take memory from each other.
const READERS_MAX: usize = 4;

/// A writer whose oldest caller waits for long has a long write or a slow disk. There is no other
/// writer that those who come could be sent to, so they may as well wait together.
const NEVER_LATE: Duration = Duration::from_secs(24 * 60 * 60);

/// A SQLite database, as the facade drives it.
#[derive(Debug)]
pub struct Sqlite {
    opening: Opening,
    layout: Layout,
    limits: Limits,
    /// The one connection of a database in memory.
    memory: Mutex<Weak<SqliteSession>>,
    /// The task that looks after the writer; there is one writer at a time.
    watch: Mutex<Option<AbortHandle>>,
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.watch(None);
    }
}

impl Sqlite {
    /// A backend for one target. Nothing is opened yet.
    ///
    /// # Errors
    ///
    /// [`Kind::Config`] when the path cannot be a file's, or when the SQLite library in this program
    /// has the WAL-reset bug, which corrupts files that several handles write and checkpoint.
    pub fn new(config: &Config, target: &SqliteTarget) -> Result<Self> {
        let mut scratch = None;
        let place = match &target.path {
            SqlitePath::Memory => Place::Memory,
            SqlitePath::Temporary => {
                let directory = tempfile::Builder::new().prefix("mainstay-").tempdir();
                let directory = directory.map_err(|error| {
                    Report::new(Kind::Storage, "there is no room for a temporary database")
                        .remedy("look at the directory for temporary files (TMPDIR)")
                        .source(error)
                        .into_error()
                })?;
                let path = directory.path().join("temp.db");
                scratch = Some(Arc::new(directory));
                Place::File(path)
            }
            // Absolute, so that neither a changed directory nor a name such as `:memory:` that
            // SQLite gives a meaning of its own leads elsewhere.
            SqlitePath::File(path) => Place::File(std::path::absolute(path).map_err(|error| {
                Report::new(Kind::Config, "the path of the SQLite file is not usable")
                    .remedy("give the path of a file, such as file:./app.db")
                    .source(error)
                    .into_error()
            })?),
            other => {
                let message = format!("SQLite cannot be opened at {other:?}");
                return Err(Report::new(Kind::Config, message).into());
            }
        };
        let layout = layout(&place, config.connection_limit);
        check_library(layout, rusqlite::version_number())?;
        let opening = Opening {
            place,
            access: Access::Write,
            durability: target.durability,
            busy_timeout: target.busy_timeout,
            statement_cache_size: config.statement_cache_size,
            network_file_system: target.network_file_system,
            scratch,
            shown: Target::Sqlite(target.clone()).to_string().into(),
            handles: Arc::default(),
            opened: Arc::default(),
            counts: Arc::default(),
            latch: Arc::default(),
            log: Arc::default(),
            readers: Arc::default(),
            wal_limit: target.wal_limit,
            copies_beside: has_several_handles(layout),
        };
        let limits = Limits {
            statement: config.statement_timeout,
            idle_by_hand: config.timeout,
        };
        Ok(Self {
            opening,
            layout,
            limits,
            memory: Mutex::default(),
            watch: Mutex::default(),
        })
    }

    /// Ends the task that looked after the last writer, and begins one for this.
    fn watch(&self, writer: Option<&Arc<SqliteSession>>) {
        let task = writer.map(|writer| {
            tokio::spawn(optimize::watch_over(Arc::downgrade(writer))).abort_handle()
        });
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = std::mem::replace(&mut *watch, task) {
            last.abort();
        }
    }

    async fn open(&self, access: Access, deadline: Deadline) -> Result<SqliteSession> {
        SqliteSession::open(self.opening.with(access), self.limits, deadline).await
    }

    /// How one-shot writes were committed so far, over all connections of this backend.
    #[must_use]
    pub fn commits(&self) -> Commits {
        self.opening.counts.commits()
    }

    fn log_info(&self) -> LogInfo {
        let (extent, oldest) = (self.opening.log.extent(), self.opening.readers.oldest());
        let mut info = LogInfo::default();
        info.pages = extent.pages.into();
        info.copied_pages = extent.copied.into();
        info.bytes = self.opening.log.bytes();
        info.is_held = extent.is_held;
        info.error = self.opening.log.failure().map(|error| error.to_string());
        if let Some(oldest) = oldest {
            info.oldest_reader = Some(oldest.since.elapsed());
            info.oldest_reader_site = oldest.site;
        }
        info
    }

    fn handles(&self) -> &AtomicUsize {
        &self.opening.handles
    }
}

fn layout(place: &Place, connection_limit: usize) -> Layout {
    match place {
        Place::File(_) if connection_limit > 1 => {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            Layout::Split {
                readers: (connection_limit - 1).min(cores.max(READERS_MAX)),
                writers: 1,
            }
        }
        _ => Layout::Single,
    }
}

/// Whether more than one handle writes or checkpoints the file.
fn has_several_handles(layout: Layout) -> bool {
    matches!(layout, Layout::Split { .. })
}

/// Refuses a library with which several handles can corrupt a file.
fn check_library(layout: Layout, version: i32) -> Result<()> {
    if !has_several_handles(layout) || connect::resets_wal_safely(version) {
        return Ok(());
    }
    let message = format!(
        "SQLite {}.{}.{} can corrupt a file that several connections use (the WAL-reset bug)",
        version / 1_000_000,
        version / 1_000 % 1_000,
        version % 1_000
    );
    Err(Report::new(Kind::Config, message)
        .remedy("build with SQLite 3.51.3 or newer, or set connection_limit=1")
        .into())
}

/// A connection of this backend, as itself.
fn own(connection: &dyn Connection) -> Result<&SqliteSession> {
    connection.as_any().downcast_ref().ok_or_else(|| {
        Report::new(
            Kind::Other,
            "the connection belongs to another database system",
        )
        .into()
    })
}

impl Backend for Sqlite {
    fn system(&self) -> System {
        System::Sqlite
    }

    fn target(&self) -> &str {
        &self.opening.shown
    }

    fn layout(&self) -> Layout {
        self.layout
    }

    fn sharing(&self, lane: Lane) -> Option<Sharing> {
        let Layout::Split { readers, .. } = self.layout else {
            return None;
        };
        Some(match lane {
            Lane::Read => Sharing {
                active: readers,
                widest: readers,
                depth: read_lane::READS_WAITING,
                late_after: read_lane::READ_MAX,
                brief: None,
            },
            Lane::Write => Sharing {
                active: 1,
                widest: 1,
                depth: queue::WRITERS_MAX,
                late_after: NEVER_LATE,
                brief: None,
            },
        })
    }

    fn connect(
        &self,
        lane: Lane,
        deadline: Deadline,
    ) -> BoxFuture<'_, Result<Arc<dyn Connection>>> {
        let access = match (lane, self.layout) {
            (Lane::Read, Layout::Split { .. }) => Access::Read,
            _ => Access::Write,
        };
        Box::pin(async move {
            let session = Arc::new(self.open(access, deadline).await?);
            match access {
                Access::Write => self.watch(Some(&session)),
                Access::Read => self.opening.readers.join(&session, true),
            }
            if matches!(self.opening.place, Place::Memory) {
                *self.memory.lock().unwrap_or_else(PoisonError::into_inner) =
                    Arc::downgrade(&session);
            }
            Ok(session as Arc<dyn Connection>)
        })
    }

    fn presume(&self, text: &str) -> Presumption {
        keyword::presume(text)
    }

    fn route<'a>(
        &'a self,
        connection: &'a dyn Connection,
        text: &'a Arc<str>,
        deadline: Deadline,
    ) -> BoxFuture<'a, Result<Lane>> {
        let text = Arc::clone(text);
        Box::pin(async move {
            own(connection)?
                .submit(Some(deadline), move |worker, _| worker.route(&text))
                .await
        })
    }

    fn is_permanent(&self, error: &Error) -> bool {
        // A disk may be emptied and memory be given back; a file does not mend itself.
        let is_broken_file = error.kind() == Kind::Storage
            && error.class() == Class::Permanent
            && error.evidence() == Evidence::Silent;
        matches!(error.kind(), Kind::Config | Kind::ReadOnly) || is_broken_file
    }

    fn info<'a>(
        &'a self,
        connection: &'a dyn Connection,
        deadline: Deadline,
    ) -> BoxFuture<'a, Result<Info>> {
        let handles = self.handles().load(Ordering::Relaxed);
        Box::pin(async move {
            let mut info = own(connection)?
                .submit(Some(deadline), move |worker, _| worker.info(handles))
                .await?;
            if let Some(file) = &mut info.file {
                file.log = self.log();
            }
            Ok(info)
        })
    }

    fn log(&self) -> Option<LogInfo> {
        matches!(self.opening.place, Place::File(_)).then(|| self.log_info())
    }

    fn migrations(&self) -> &'static MigrationDialect {
        &migrate::DIALECT
    }

    fn create(&self, deadline: Deadline) -> BoxFuture<'_, Result<bool>> {
        let opening = self.opening.clone();
        Box::pin(async move {
            let created = tokio::task::spawn_blocking(move || migrate::create(&opening, deadline));
            created.await.unwrap_or_else(|error| {
                Err(Report::new(Kind::Other, "the file was not created")
                    .source(error)
                    .into())
            })
        })
    }

    fn erase<'a>(
        &'a self,
        connection: &'a dyn Connection,
        deadline: Deadline,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            own(connection)?
                .submit(Some(deadline), |worker, ticket| worker.erase(ticket))
                .await
        })
    }

    fn backup<'a>(&'a self, to: &'a Path, progress: Progress<'a>) -> BoxFuture<'a, Result<Backup>> {
        Box::pin(async move {
            backup::check_target(to)?;
            let in_memory = matches!(self.opening.place, Place::Memory);
            let session = if in_memory {
                self.memory
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .upgrade()
            } else {
                // A handle of its own, for as long as it takes: readers of the pool stay readers.
                let deadline = Deadline::from_now(self.opening.busy_timeout.max(OPENING_MIN));
                let session = Arc::new(self.open(Access::Read, deadline).await?);
                self.opening.readers.join(&session, false);
                Some(session)
            };
            let session = session.ok_or_else(|| {
                Error::from(Report::new(
                    Kind::Config,
                    "there is no open database in memory",
                ))
            })?;
            let (steps, watched) = watch::channel((0, 0));
            let target = to.to_owned();
            let work = session.submit(None, move |worker, _| worker.back_up(&target, &steps));
            let done = backup::watching(work, watched, progress).await;
            if !in_memory {
                session.close(Deadline::from_now(OPENING_MIN)).await;
            }
            done
        })
    }
}

/// How long a backup's own handle may take to open and to close.
const OPENING_MIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_with_the_wal_reset_bug_never_gets_a_second_handle() {
        let file = || Place::File("app.db".into());
        let several = layout(&file(), 5);
        let error = check_library(several, 3_051_002).unwrap_err();
        assert!(error.message().contains("3.51.2"), "{error}");
        check_library(several, 3_051_003).unwrap();
        // What may have the bug has one handle, and so nobody who copies the log beside it.
        for single in [layout(&file(), 1), layout(&Place::Memory, 5)] {
            check_library(single, 3_051_002).unwrap();
            assert!(!has_several_handles(single));
        }
    }
}
