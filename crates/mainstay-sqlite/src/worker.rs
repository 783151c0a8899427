//! The thread that owns a handle.
//!
//! SQLite blocks: on the disk, on another process's lock, on its own arithmetic. A worker thread of
//! the runtime must do none of that, and `spawn_blocking` would move a handle between hundreds of
//! threads. So every connection is one thread with a name, which takes jobs from a bounded queue
//! and ends when its connection is dropped.

use crate::checkpoint::Checkpointer;
use crate::classify::{Site, classify, ended_for_log, not_begun, spoils_the_handle};
use crate::connect::{Access, Handle, Opening, Place};
use crate::guard::{Guard, Refuse};
use crate::queue::Task;
use crate::signals::{Signals, Ticket};
use crate::transaction::Unit;
use mainstay_core::error::Report;
use mainstay_core::{Class, Deadline, Error, Evidence, Kind, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// How long things may take on a connection, whoever asks for them.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Limits {
    /// How long one statement may run.
    pub(crate) statement: Option<Duration>,
    /// How long a transaction that was begun by hand in exclusive use may be left alone: as long as
    /// any call may take. Whoever has it has the lock of the file, or keeps its log from being reused.
    pub(crate) idle_by_hand: Duration,
}

/// What a thread owns.
#[derive(Debug)]
pub(crate) struct Worker {
    /// `None` only when opening the handle anew has failed; the connection is broken then.
    handle: Option<Handle>,
    pub(crate) opening: Opening,
    limits: Limits,
    pub(crate) unit: Unit,
    pub(crate) signals: Arc<Signals>,
    pub(crate) guard: Arc<Guard>,
}

/// Opens a handle, says how that went, and does what is asked until nobody is left to ask.
pub(crate) fn run(
    opening: Opening,
    limits: Limits,
    signals: &Arc<Signals>,
    mut queue: mpsc::Receiver<Task>,
    opened: oneshot::Sender<Result<()>>,
    // Dropped when the thread ends, after the handle: that is how the end is observed.
    _alive: watch::Sender<()>,
) {
    let _ended = Ended(Arc::clone(signals));
    let guard = Arc::<Guard>::default();
    let handle = match opening.open(signals, &guard) {
        Ok(handle) => handle,
        Err(error) => {
            signals.replace(None);
            drop(opened.send(Err(error))); // the caller has gone and needs no answer
            return;
        }
    };
    signals.replace(None);
    let mut worker = Worker {
        handle: Some(handle),
        opening,
        limits,
        unit: Unit::default(),
        signals: Arc::clone(signals),
        guard,
    };
    if opened.send(Ok(())).is_err() {
        return;
    }
    // Dropped before the handle, which then is the last one to close.
    let checkpointer = worker.start_checkpointer();
    let mut next = None;
    while let Some(task) = next.take().or_else(|| worker.wait(&mut queue)) {
        // What is still queued when the connection closes is dropped, and its callers are told.
        if worker.is_closing() {
            continue;
        }
        // Whoever else waits in the queue has no part in a panic, and must not be lost with it.
        let done = catch_unwind(AssertUnwindSafe(|| worker.act(task, &mut queue)));
        next = done.unwrap_or_else(|_| {
            worker.recover();
            None
        });
    }
    drop(checkpointer);
}

/// The time ended before something came.
struct TooLate;

/// Receives like `blocking_recv`, until a moment.
fn receive_until(
    queue: &mut mpsc::Receiver<Task>,
    until: Instant,
) -> std::result::Result<Option<Task>, TooLate> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(task) = queue.poll_recv(&mut context) {
            return Ok(task);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(TooLate);
        }
        std::thread::park_timeout(left);
    }
}

/// Wakes the thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Marks the connection broken when its thread ends, in whatever way.
struct Ended(Arc<Signals>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.broken.store(true, Ordering::SeqCst);
    }
}

impl Worker {
    /// Waits for something to do. A transaction that was begun by hand is not waited for without end.
    fn wait(&mut self, queue: &mut mpsc::Receiver<Task>) -> Option<Task> {
        if self.is_open_by_hand() {
            let until = Instant::now() + self.limits.idle_by_hand;
            match receive_until(queue, until) {
                Ok(task) => return task,
                Err(TooLate) => self.end_idle(),
            }
        }
        queue.blocking_recv()
    }

    /// Whether somebody with exclusive use has begun a transaction: SQLite has one, and we have not.
    fn is_open_by_hand(&self) -> bool {
        let is_open = self
            .handle
            .as_ref()
            .is_some_and(|handle| !handle.is_autocommit());
        is_open && self.unit.is_idle()
    }

    /// Does what came out of the queue; answers what is to be done next.
    fn act(&mut self, task: Task, queue: &mut mpsc::Receiver<Task>) -> Option<Task> {
        match task {
            Task::Job(job) => job(self),
            // Those who wait on their own account are told; here nobody else would see it.
            Task::Write(write) if self.is_broken() => write.answer(Err(broken())),
            Task::Write(write) => return self.write(write, queue),
        }
        None
    }

    /// After a panic: nothing is kept of a transaction, and a file gets a new connection, because
    /// nobody knows what was left undone on this one. Memory has no other.
    fn recover(&mut self) {
        self.signals.replace(None);
        self.guard.rest();
        let was_open = !self.unit.is_idle() || self.is_open_by_hand();
        let rolled_back = self.roll_back();
        if was_open {
            self.unit = Unit::Ended;
        }
        self.signals.tainted.store(true, Ordering::SeqCst);
        if rolled_back.is_err() || matches!(self.opening.place, Place::File(_)) {
            self.signals.broken.store(true, Ordering::SeqCst);
        }
        self.settle();
        tracing::error!("a call panicked on the thread of a SQLite connection");
    }

    fn end_idle(&mut self) {
        let idle = self.limits.idle_by_hand;
        tracing::warn!(
            ?idle,
            "a transaction begun by hand was left idle and is rolled back"
        );
        match self.roll_back() {
            Ok(()) => self.unit = Unit::LeftIdle { idle },
            // The connection is broken now, and closing it rolls back.
            Err(error) => tracing::warn!(%error, "it could not be rolled back"),
        }
        self.settle();
    }

    fn start_checkpointer(&self) -> Option<Checkpointer> {
        let is_wanted = self.opening.access == Access::Write && self.opening.copies_beside;
        is_wanted
            .then(|| Checkpointer::start(&self.opening))
            .flatten()
    }

    /// Does one call's work under its ticket and settles what is left of it.
    pub(crate) fn perform<T>(
        &mut self,
        ticket: &Arc<Ticket>,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        ticket.begin(self.statement_limit()).map_err(not_begun)?;
        if self.opening.access == Access::Read {
            self.signals.begin_reading();
        }
        self.signals.take_up(ticket);
        let result = work(self).map_err(|error| self.why_over(error));
        self.signals.replace(None);
        self.settle();
        if let Err(error) = &result {
            self.give_up_after(error);
        }
        result
    }

    /// Refuses to write to a file that is no longer the one at its path: SQLite would take it, and it
    /// would be gone with the process. It costs a look at a name, which the system has at hand.
    pub(crate) fn check_file(&self) -> Result<()> {
        match &self.opening.place {
            Place::File(path) => self.opening.opened.check(path, &self.opening.shown),
            Place::Memory => Ok(()),
        }
    }

    /// Until when a statement may run that begins now, by `statement_timeout`.
    pub(crate) fn statement_limit(&self) -> Option<Deadline> {
        self.limits.statement.map(Deadline::from_now)
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.signals.closing.load(Ordering::SeqCst)
    }

    pub(crate) fn is_tainted(&self) -> bool {
        self.signals.tainted.load(Ordering::SeqCst)
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.signals.broken.load(Ordering::SeqCst)
    }

    /// Tells the other side in what condition the connection is.
    fn settle(&mut self) {
        if self.guard.take_made_temporary() {
            self.signals.tainted.store(true, Ordering::SeqCst);
        }
        let autocommit = self
            .handle
            .as_ref()
            .is_none_or(|handle| handle.is_autocommit());
        let open = !self.unit.is_idle() || !autocommit;
        self.signals.in_transaction.store(open, Ordering::SeqCst);
        if self.unit.is_idle() {
            self.signals.ended_for_log.store(false, Ordering::SeqCst);
        }
        if autocommit && self.opening.access == Access::Read {
            self.signals.end_reading();
            self.opening.log.on_reader_gone();
        }
    }

    /// Ends a transaction that has been reading since then and keeps the log. The statement that ran
    /// meanwhile, if there was one, has been stopped by its ticket.
    pub(crate) fn end_reading(&mut self, since: Instant) {
        let is_idle = self.handle().is_ok_and(|handle| handle.is_autocommit());
        let still = self
            .signals
            .reads_since()
            .is_some_and(|(now, _)| now == since);
        if is_idle || !still {
            return;
        }
        let was_ours = !self.unit.is_idle();
        match self.roll_back() {
            Ok(()) if was_ours => {
                self.unit = Unit::Ended;
                self.signals.ended_for_log.store(true, Ordering::SeqCst);
            }
            Ok(()) => {}
            Err(error) => tracing::debug!(%error, "a read could not be ended"),
        }
        self.settle();
    }

    /// Says why a transaction is over whose user could not know.
    fn why_over(&self, error: Error) -> Error {
        let is_ours = self.signals.ended_for_log.load(Ordering::SeqCst);
        if is_ours && error.kind() == Kind::TransactionOver {
            return ended_for_log();
        }
        error
    }

    /// Whoever comes next gets a new handle. Memory has no second one.
    pub(crate) fn give_up_after(&self, error: &Error) {
        let is_lost = error.sqlite_code().is_some_and(spoils_the_handle);
        if is_lost && matches!(self.opening.place, Place::File(_)) {
            self.signals.broken.store(true, Ordering::SeqCst);
        }
        if is_lost && error.is_outcome_unknown() {
            self.opening.latch.shut();
        }
    }

    /// Does something that must not be stopped half-way: a rollback, the way back to the settings.
    pub(crate) fn undisturbed<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let ticket = self.signals.replace(None);
        let done = work(self);
        self.signals.replace(ticket);
        done
    }

    pub(crate) fn handle(&self) -> Result<&Handle> {
        self.handle.as_ref().ok_or_else(broken)
    }

    pub(crate) fn handle_mut(&mut self) -> Result<&mut Handle> {
        self.handle.as_mut().ok_or_else(broken)
    }

    /// What may not be prepared now.
    pub(crate) fn refuse(&self) -> Refuse {
        match (
            self.signals.handed_over.load(Ordering::SeqCst),
            self.unit.is_idle(),
        ) {
            (false, _) => Refuse::SessionChanges,
            (true, false) => Refuse::TransactionControl,
            (true, true) => Refuse::Nothing,
        }
    }

    /// The current place of an error.
    pub(crate) fn site(&self) -> Site {
        Site {
            stop: self.signals.objection(),
            ..Site::default()
        }
    }

    /// Makes the handle as it was when it was opened.
    pub(crate) fn restore(&mut self) -> Result<()> {
        self.undisturbed(Self::roll_back_whatever_is_open)?;
        let changed = self.signals.handed_over.swap(false, Ordering::SeqCst);
        if !(self.signals.tainted.swap(false, Ordering::SeqCst) || changed) {
            return Ok(());
        }
        let restored = match self.opening.place {
            // Nothing is as certainly restored as what is new.
            Place::File(_) => self.reopen(),
            // The handle is the database.
            Place::Memory => self.undisturbed(Self::restore_in_place),
        };
        if restored.is_err() {
            self.signals.broken.store(true, Ordering::SeqCst);
        }
        restored
    }

    fn reopen(&mut self) -> Result<()> {
        self.handle = None;
        self.guard = Arc::default();
        self.handle = Some(self.opening.open(&self.signals, &self.guard)?);
        Ok(())
    }

    fn restore_in_place(&mut self) -> Result<()> {
        let (opening, signals, guard) = (
            self.opening.clone(),
            Arc::clone(&self.signals),
            Arc::clone(&self.guard),
        );
        let site = self.site();
        let handle = self.handle_mut()?;
        handle.flush_prepared_statement_cache();
        detach_all(handle).map_err(|error| classify(error, site))?;
        handle
            .execute_batch(DEFAULT_PRAGMAS)
            .map_err(|error| classify(error, site))?;
        opening.configure(handle, &signals, &guard)
    }
}

/// What a session may have changed besides the settings that every handle is opened with.
const DEFAULT_PRAGMAS: &str = "
    PRAGMA analysis_limit = 0;
    PRAGMA automatic_index = ON;
    PRAGMA case_sensitive_like = OFF;
    PRAGMA cell_size_check = OFF;
    PRAGMA defer_foreign_keys = OFF;
    PRAGMA full_column_names = OFF;
    PRAGMA short_column_names = ON;
    PRAGMA ignore_check_constraints = OFF;
    PRAGMA legacy_alter_table = OFF;
    PRAGMA read_uncommitted = OFF;
    PRAGMA recursive_triggers = OFF;
    PRAGMA reverse_unordered_selects = OFF;
    PRAGMA soft_heap_limit = 0;
    PRAGMA writable_schema = RESET;
";

/// Detaches what was attached and drops what is temporary.
fn detach_all(connection: &rusqlite::Connection) -> rusqlite::Result<()> {
    let names = |text: &str| -> rusqlite::Result<Vec<(String, String)>> {
        let mut statement = connection.prepare(text)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect()
    };
    let attached =
        names("SELECT name, '' FROM pragma_database_list WHERE name NOT IN ('main', 'temp')")?;
    for (name, _) in attached {
        connection.execute_batch(&format!("DETACH {}", quoted(&name)))?;
    }
    let temporary = names(
        "SELECT type, name FROM temp.sqlite_schema WHERE type IN ('table', 'view', 'trigger')
         AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
    )?;
    for (kind, name) in temporary {
        connection.execute_batch(&format!("DROP {kind} IF EXISTS temp.{}", quoted(&name)))?;
    }
    Ok(())
}

/// A name as SQL writes it.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(crate) fn broken() -> Error {
    Report::new(Kind::Unreachable, "the connection has lost its handle")
        .class(Class::NotSent)
        .evidence(Evidence::Neither)
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Sqlite, SqliteSession};
    use mainstay_core::backend::{Backend, Begin, Call, Condition, Connection, Lane, Want};
    use mainstay_core::config::{SqlitePath, SqliteTarget, Target};
    use mainstay_core::{Config, Statement};

    fn soon() -> Call {
        Call {
            lane: Lane::Write,
            deadline: Deadline::from_now(Duration::from_secs(60)),
        }
    }

    fn sqlite(path: SqlitePath) -> Sqlite {
        let target = SqliteTarget::new(path);
        Sqlite::new(&Config::new(Target::Sqlite(target.clone())), &target).unwrap()
    }

    async fn execute(connection: &dyn Connection, text: &str) -> Result<u64> {
        let statement = Statement::new(text, ())?;
        let reply = connection.run(&statement, Want::Affected, soon()).await;
        reply.map(|reply| reply.affected)
    }

    /// A connection with a table on which a transaction is open.
    async fn in_a_transaction(sqlite: &Sqlite) -> Arc<dyn Connection> {
        let writer = sqlite.connect(Lane::Write, soon().deadline).await.unwrap();
        execute(&*writer, "create table t (a)").await.unwrap();
        writer.begin(Begin::default(), soon()).await.unwrap();
        execute(&*writer, "insert into t values (1)").await.unwrap();
        writer
    }

    async fn panic_on(connection: &dyn Connection) -> Error {
        let session: &SqliteSession = connection.as_any().downcast_ref().unwrap();
        let panicked = session.submit::<(), _>(None, |_, _| panic!("on purpose"));
        panicked.await.unwrap_err()
    }

    #[tokio::test]
    async fn a_panic_costs_its_connection_and_nobody_else_who_waits() {
        let directory = tempfile::tempdir().unwrap();
        let sqlite = sqlite(SqlitePath::File(directory.path().join("app.db")));
        let writer = in_a_transaction(&sqlite).await;
        let statement = Statement::new("insert into t values (2)", ()).unwrap();
        let behind = writer.run_shared(&statement, Want::Affected, soon());
        // Queued in this order: a future is begun by its first poll.
        let (told, behind) = tokio::join!(panic_on(&*writer), behind);
        assert!(told.is_outcome_unknown(), "{told}");
        // It never began, so it may be done elsewhere.
        let behind = behind.unwrap_err();
        assert_eq!(behind.class(), Class::NotSent, "{behind}");
        assert_eq!(writer.condition(), Condition::Broken);
        let late = execute(&*writer, "insert into t values (3)").await;
        assert_eq!(late.unwrap_err().class(), Class::RolledBack);
        // The lock of the file was given back with the transaction.
        let next = sqlite.connect(Lane::Write, soon().deadline).await.unwrap();
        execute(&*next, "insert into t values (4)").await.unwrap();
        let count = Statement::new("select group_concat(a) from t", ()).unwrap();
        let count = next.run(&count, Want::Rows(1), soon()).await.unwrap();
        assert_eq!(count.rows[0].at::<String>(0).unwrap(), "4");
        writer.close(soon().deadline).await;
    }

    #[tokio::test]
    async fn a_panic_does_not_lose_a_database_in_memory() {
        let sqlite = sqlite(SqlitePath::Memory);
        let only = in_a_transaction(&sqlite).await;
        let told = panic_on(&*only).await;
        assert!(told.is_outcome_unknown(), "{told}");
        // What was meant for the transaction must not commit by itself.
        let late = execute(&*only, "insert into t values (3)").await;
        assert_eq!(late.unwrap_err().kind(), Kind::TransactionOver);
        assert_eq!(only.condition(), Condition::Dirty);
        only.clean(soon().deadline).await.unwrap();
        assert_eq!(only.condition(), Condition::Clean);
        execute(&*only, "insert into t values (4)").await.unwrap();
        let sum = Statement::new("select sum(a) from t", ()).unwrap();
        let sum = only.run(&sum, Want::Rows(1), soon()).await.unwrap();
        assert_eq!(sum.rows[0].at::<i64>(0).unwrap(), 4);
    }
}
