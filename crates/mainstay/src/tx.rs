//! The handle of an open transaction.

use crate::bound::{answer_by, frame};
use crate::engine::Engine;
use crate::lanes::PoolLease;
use crate::metrics;
use crate::router::{changes_definitions, check_inside_transaction};
use mainstay_core::backend::{Begun, Call, Connection, Lane, Reply, Savepoint, Want};
use mainstay_core::error::Report;
use mainstay_core::token::Origin;
use mainstay_core::{Class, Deadline, Error, Evidence, Kind, Params, Result, Statement};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// An open transaction.
///
/// It is an owned handle: two statements may be awaited together and travel together. Once the
/// transaction has ended, every method answers [`Kind::TransactionOver`].
#[derive(Clone, Debug)]
pub struct Tx {
    unit: Arc<Unit>,
    /// How many savepoints are open around this handle; 0 outside all of them.
    depth: u32,
}

/// What a transaction is, for all its handles.
#[derive(Debug)]
struct Unit {
    engine: Arc<Engine>,
    frame: Frame,
    begun_at: Instant,
    state: Mutex<State>,
    /// Whether the database has been asked for anything, be it for BEGIN.
    has_asked: AtomicBool,
    /// Whether functions, views or policies may have been changed: then what is known about other
    /// texts is forgotten with the commit.
    redefines: AtomicBool,
    /// The depth at which statements are welcome: handles of a savepoint that has ended, and of the
    /// unit around one that is open, are not.
    depth: AtomicU32,
}

/// Where a transaction runs, until when, and for which time.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) lane: Lane,
    pub(crate) deadline: Deadline,
    pub(crate) attempt: u32,
}

impl Unit {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, why: Over) -> Option<PoolLease> {
        let mut state = self.state();
        let lease = state.lease.take()?;
        state.why_over = why;
        if !self.has_asked.load(Ordering::Acquire) {
            // Nobody has told the gate what came of the place that it gave.
            self.engine.gate.leave();
        }
        Some(lease)
    }

    fn end_left_open(&self) {
        let now = Instant::now();
        let open = now.saturating_duration_since(self.begun_at);
        let idle = now.saturating_duration_since(self.state().used_at);
        // The connection is cleaned before anybody else gets it, which rolls back.
        if let Some(lease) = self.end(Over::LeftOpen { open, idle }) {
            tracing::warn!(
                ?open,
                ?idle,
                "a transaction was left open until its deadline"
            );
            drop(lease);
        }
    }
}

struct State {
    /// `None` once the transaction is over.
    lease: Option<PoolLease>,
    /// The failures that were seen and not undone by a savepoint, with their depth. At most one per
    /// depth, so the nesting bounds it.
    seen: Vec<(u32, Error)>,
    why_over: Over,
    /// When it was asked for something last.
    used_at: Instant,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("open", &self.lease.is_some())
            .finish_non_exhaustive()
    }
}

/// The deepest nesting of savepoints: more is a recursion that does not end.
const DEPTH_MAX: u32 = 100;

impl Tx {
    pub(crate) fn new(engine: &Arc<Engine>, lease: PoolLease, frame: Frame, begun: Begun) -> Self {
        let begun_at = Instant::now();
        let state = State {
            lease: Some(lease),
            seen: Vec::new(),
            why_over: Over::Because(""),
            used_at: begun_at,
        };
        let unit = Unit {
            engine: Arc::clone(engine),
            frame,
            begun_at,
            state: Mutex::new(state),
            has_asked: AtomicBool::new(begun == Begun::Now),
            redefines: AtomicBool::new(false),
            depth: AtomicU32::new(0),
        };
        Self {
            unit: Arc::new(unit),
            depth: 0,
        }
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.unit.engine
    }

    /// Which run of the closure this is; the first is 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.unit.frame.attempt
    }

    /// Until when the transaction must have ended.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.unit.frame.deadline.instant()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.unit.state()
    }

    /// The connection, if the transaction is open for this handle.
    fn connection(&self) -> Result<Arc<dyn Connection>> {
        let mut state = self.state();
        if state.lease.is_some() {
            state.used_at = Instant::now();
        }
        let Some(lease) = &state.lease else {
            return Err(state.why_over.error());
        };
        if self.unit.depth.load(Ordering::Acquire) != self.depth {
            return Err(over("another savepoint is open, or this one has ended"));
        }
        Ok(Arc::clone(lease))
    }

    /// Remembers a failure: it decides whether the closure is run again.
    fn note(&self, error: &Error) {
        let mut state = self.state();
        if state.seen.iter().all(|(depth, _)| *depth != self.depth) {
            state.seen.push((self.depth, error.clone()));
        }
    }

    /// What the transaction saw and did not undo: the failure that decides.
    pub(crate) fn seen(&self) -> Option<Error> {
        self.state().seen.first().map(|(_, error)| error.clone())
    }

    fn until(&self, timeout: Option<Duration>) -> Deadline {
        timeout.map_or(self.unit.frame.deadline, |timeout| {
            self.unit
                .frame
                .deadline
                .earliest(Deadline::from_now(timeout))
        })
    }

    fn has_asked(&self) -> bool {
        self.unit.has_asked.load(Ordering::Acquire)
    }

    /// Runs one statement of the transaction.
    pub(crate) async fn run(
        &self,
        text: &str,
        params: Params,
        want: Want,
        timeout: Option<Duration>,
    ) -> Result<Reply> {
        let connection = self.connection()?;
        check_inside_transaction(&*self.unit.engine.backend, text)?;
        let statement = Statement::new(text, params)?;
        let started = Instant::now();
        let deadline = self.until(timeout);
        let call = frame(self.unit.frame.lane, deadline, started);
        let mut unfinished = Unfinished::new(self, STATEMENT_DROPPED);
        let running = connection.run(&statement, want, call);
        let result = timeout_at(deadline.instant(), running).await;
        let result = result.unwrap_or_else(|_| Err(self.too_late()));
        unfinished.finished = true;
        let took = started.elapsed();
        self.unit
            .engine
            .witness(statement.text(), took, result.as_ref().err());
        metrics::operation(&self.unit.engine, &statement, took, result.as_ref().err());
        if changes_definitions(text) {
            self.unit.redefines.store(true, Ordering::Release);
        }
        result.inspect_err(|error| self.note(error))
    }

    /// Runs a text of several statements without parameters, such as a seed, as a part of the
    /// transaction.
    ///
    /// # Errors
    ///
    /// The first statement's that failed; the transaction is then rolled back as a whole.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future in the middle ends the whole transaction, which is rolled back.
    pub async fn script(&self, text: &str) -> Result<()> {
        let connection = self.connection()?;
        let started = Instant::now();
        let deadline = self.unit.frame.deadline;
        let call = frame(self.unit.frame.lane, deadline, started);
        let mut unfinished = Unfinished::new(self, STATEMENT_DROPPED);
        let result = timeout_at(deadline.instant(), connection.script(text, call)).await;
        let result = result.unwrap_or_else(|_| Err(self.too_late()));
        unfinished.finished = true;
        self.unit.engine.router.forget_all();
        self.unit
            .engine
            .witness("script", started.elapsed(), result.as_ref().err());
        result.inspect_err(|error| self.note(error))
    }

    /// A statement that outlives its deadline takes the transaction with it: nobody knows whether it
    /// still runs. The connection is cleaned before anybody else gets it, which rolls back.
    fn too_late(&self) -> Error {
        drop(self.end("a statement outlived its deadline, so the transaction was rolled back"));
        Report::new(
            Kind::Timeout,
            "the deadline ended before a statement of the transaction did",
        )
        .class(Class::Permanent)
        .evidence(Evidence::Neither)
        .timed_out()
        .remedy("the transaction was rolled back; give it more time")
        .into()
    }

    /// Ends the transaction for all handles and answers its lease, if it was still open.
    pub(crate) fn end(&self, why: &'static str) -> Option<PoolLease> {
        self.unit.end(Over::Because(why))
    }

    /// What ends the transaction at its deadline, for a transaction that nobody else watches. It
    /// keeps nothing open.
    pub(crate) fn ends_at_deadline(&self) -> impl Future<Output = ()> + use<> {
        let (deadline, unit) = (self.deadline(), Arc::downgrade(&self.unit));
        async move {
            tokio::time::sleep_until(deadline).await;
            if let Some(unit) = unit.upgrade() {
                unit.end_left_open();
            }
        }
    }

    /// Runs a part of the transaction that can be undone by itself: rolled back to where it began
    /// when the closure answers an error, part of the transaction when it succeeds.
    ///
    /// ```no_run
    /// # async fn example(db: &mainstay::Database) -> mainstay::Result<()> {
    /// db.transaction(async |tx| {
    ///     let inserted = tx
    ///         .savepoint(async |tx| tx.execute("insert into tags (name) values ($1)", ("new",)).await)
    ///         .await;
    ///     match inserted {
    ///         Err(error) if error.is_unique_violation() => Ok(()), // it was there already
    ///         other => other.map(drop),
    ///     }
    /// })
    /// .await
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The closure's, after its part was undone. While the closure runs, only the handle it was
    /// given may be used.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future in the middle ends the whole transaction, which is rolled back: a part
    /// that is neither done nor undone must not be committed.
    pub async fn savepoint<T, F, Fut>(&self, part: F) -> Result<T>
    where
        F: FnOnce(Self) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let depth = self.depth + 1;
        if depth > DEPTH_MAX {
            let message = format!("savepoints are nested more than {DEPTH_MAX} deep");
            return Err(Report::new(Kind::Statement, message).into());
        }
        let connection = self.connection()?;
        let mut unfinished = Unfinished::new(self, SAVEPOINT_DROPPED);
        self.step(&connection, Savepoint::Set(depth))
            .await
            .inspect_err(|_| {
                unfinished.finished = true;
            })?;
        self.unit.depth.store(depth, Ordering::Release);
        let inside = Self {
            unit: Arc::clone(&self.unit),
            depth,
        };
        let result = part(inside).await;
        let failed = self.state().seen.iter().any(|(seen, _)| *seen >= depth);
        let step = match (&result, failed) {
            (Ok(_), false) => Savepoint::Release(depth),
            _ => Savepoint::RollBack(depth),
        };
        let stepped = self.step(&connection, step).await;
        self.unit.depth.store(self.depth, Ordering::Release);
        unfinished.finished = true;
        if stepped.is_ok() && matches!(step, Savepoint::RollBack(_)) {
            return Err(self.forgive(depth, result));
        }
        stepped.and(result)
    }

    /// After a part was undone, its failures count no longer, except those that a part cannot cure:
    /// a conflict or a lost connection is the whole unit's.
    fn forgive<T>(&self, depth: u32, result: Result<T>) -> Error {
        let mut state = self.state();
        let inside = state
            .seen
            .iter()
            .find(|(seen, _)| *seen >= depth)
            .map(|(_, e)| e.clone());
        state
            .seen
            .retain(|(seen, error)| *seen < depth || error.class() != Class::Permanent);
        match (result, inside) {
            (Err(error), _) => error,
            // The closure swallowed the failure of a statement and said all was well.
            (Ok(_), Some(error)) => error,
            (Ok(_), None) => over("the savepoint was undone"),
        }
    }

    async fn step(&self, connection: &Arc<dyn Connection>, step: Savepoint) -> Result<()> {
        let deadline = self.unit.frame.deadline;
        let call = frame(self.unit.frame.lane, deadline, Instant::now());
        let stepping = connection.savepoint(step, call);
        let result = timeout_at(deadline.instant(), stepping).await;
        let result = result.unwrap_or_else(|_| Err(self.too_late()));
        result.inspect_err(|error| self.note(error))
    }

    /// The server's session, if it is known and the transaction open.
    pub(crate) fn origin(&self) -> Option<Origin> {
        self.state().lease.as_ref().and_then(|lease| lease.origin())
    }

    /// Commits, and gives the connection back.
    pub(crate) async fn commit(&self) -> Result<()> {
        self.commit_by(self.unit.frame.deadline).await
    }

    /// As [`commit`](Self::commit), with less patience.
    pub(crate) async fn commit_by(&self, deadline: Deadline) -> Result<()> {
        let Some(lease) = self.end("it was committed") else {
            return Err(self.state().why_over.error());
        };
        let started = Instant::now();
        let call = frame(self.unit.frame.lane, deadline, started);
        let result = answer_by(deadline, self.unit.frame.lane, lease.commit(call)).await;
        if self.has_asked() {
            self.unit
                .engine
                .witness("commit", started.elapsed(), result.as_ref().err());
        }
        if self.unit.redefines.load(Ordering::Acquire) {
            self.unit.engine.router.forget_all();
        }
        result
    }

    /// Rolls back and gives the connection back. A rollback that fails costs the connection, not the
    /// caller: the server rolls back whatever it does not hear the end of.
    pub(crate) async fn roll_back(&self, why: &'static str) -> Result<()> {
        let Some(lease) = self.end(why) else {
            return Ok(());
        };
        let deadline = Deadline::from_now(crate::connector::CLEAN_TIMEOUT);
        let call = Call {
            lane: self.unit.frame.lane,
            deadline,
        };
        answer_by(deadline, Lane::Read, lease.roll_back(call)).await
    }
}

const STATEMENT_DROPPED: &str = "a statement was dropped in the middle, so it was rolled back";
const SAVEPOINT_DROPPED: &str = "a savepoint was dropped in the middle, so it was rolled back";

/// A statement or savepoint whose future was dropped ends the transaction: nobody knows what of it
/// has happened, so nothing of it may be committed.
struct Unfinished<'t> {
    tx: &'t Tx,
    why: &'static str,
    finished: bool,
}

impl<'t> Unfinished<'t> {
    fn new(tx: &'t Tx, why: &'static str) -> Self {
        tx.unit.has_asked.store(true, Ordering::Release);
        Self {
            tx,
            why,
            finished: false,
        }
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.finished {
            drop(self.tx.end(self.why));
        }
    }
}

/// Why a transaction is over.
#[derive(Copy, Clone, Debug)]
enum Over {
    Because(&'static str),
    /// Nobody ended it before its deadline.
    LeftOpen {
        open: Duration,
        idle: Duration,
    },
}

impl Over {
    fn error(self) -> Error {
        let report = |message| Report::new(Kind::TransactionOver, message);
        match self {
            Self::Because(why) => report(format!("the transaction is over: {why}")).into(),
            Self::LeftOpen { open, idle } => {
                let (open, idle) = (open.as_secs_f64(), idle.as_secs_f64());
                report(format!(
                    "the transaction is over: at its deadline it had been open for {open:.1} s and \
                     idle for {idle:.1} s, so it was rolled back"
                ))
                .timed_out()
                .remedy("commit sooner, or give it more time by with_deadline(…).begin()")
                .into()
            }
        }
    }
}

fn over(why: &'static str) -> Error {
    Over::Because(why).error()
}
