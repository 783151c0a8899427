//! One connection, as the facade sees it.
//!
//! Nothing here blocks: every method puts a job into the queue of the connection's thread and waits
//! for the answer. The queue is fair, so statements that are awaited together run in the order in
//! which they were first polled. A future that is dropped leaves its word on the ticket: a job that
//! has not begun is skipped, one that runs is stopped.

use crate::classify::not_begun;
use crate::connect::{Access, Opening};
use crate::optimize;
use crate::queue::{self, Answer, Job, Task, Work, Write};
use crate::read_lane::{BATCHES_WAITING, Batches, READ_MAX, Streaming, lost};
use crate::signals::{Pending, Signals, Stop, Ticket};
use crate::worker::{self, Limits, Worker, broken};
use mainstay_core::backend::{
    Begin, BoxFuture, Call, Condition, Connection, Cursor, Lane, Reply, Savepoint, Want,
};
use mainstay_core::error::Report;
use mainstay_core::token::Token;
use mainstay_core::{Class, Deadline, Error, Evidence, Kind, Result, Statement};
use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

/// An open connection to a SQLite database: a thread, and the way to it.
///
/// Applications meet it as `lease.as_sqlite()`, for what only the native handle can do:
///
/// ```no_run
/// # async fn example(session: &mainstay_sqlite::SqliteSession) -> mainstay_core::Result<()> {
/// let changes = session.call(|connection| connection.total_changes()).await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct SqliteSession {
    /// `None` once it is being closed.
    queue: Mutex<Option<mpsc::Sender<Task>>>,
    signals: Arc<Signals>,
    lane: Lane,
    /// Its other end is dropped when the thread has let go of the handle.
    alive: watch::Receiver<()>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Stops a call whose future is dropped.
struct Abandon(Arc<Ticket>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.stop(Stop::Abandoned);
    }
}

impl SqliteSession {
    /// Starts the thread and waits until its handle is open.
    pub(crate) async fn open(opening: Opening, limits: Limits, deadline: Deadline) -> Result<Self> {
        let (lane, name) = match opening.access {
            Access::Read => (Lane::Read, "sqlite-reader"),
            Access::Write => (Lane::Write, "sqlite-writer"),
        };
        let signals = Arc::<Signals>::default();
        let ticket = Ticket::new(Some(deadline));
        signals.replace(Some(Arc::clone(&ticket)));
        let abandon = Abandon(ticket);
        let (queue, tasks) = queue::queue();
        let (opened, answer) = oneshot::channel();
        let (alive_there, alive) = watch::channel(());
        let theirs = Arc::clone(&signals);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                worker::run(opening, limits, &theirs, tasks, opened, alive_there);
            });
        let thread = thread.map_err(|error| {
            Report::new(
                Kind::Unreachable,
                "the system refused a thread for the connection",
            )
            .class(Class::NotSent)
            .evidence(Evidence::Exhausted)
            .source(error)
            .into_error()
        })?;
        answer.await.unwrap_or_else(|_| Err(ended()))?;
        drop(abandon);
        Ok(Self {
            queue: Mutex::new(Some(queue)),
            signals,
            lane,
            alive,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Runs a closure with the native handle, on the connection's own thread.
    ///
    /// The session counts as changed from then on: before the connection is lent to somebody else,
    /// a transaction that was left open is rolled back and every setting is restored.
    ///
    /// # Errors
    ///
    /// [`Kind::Closed`] when the connection is closed; [`Kind::Other`] when the closure panicked.
    ///
    /// # Cancel safety
    ///
    /// A closure that has begun runs to its end; the statement it is in is interrupted.
    pub async fn call<T, F>(&self, act: F) -> Result<T>
    where
        F: FnOnce(&mut rusqlite::Connection) -> T + Send + 'static,
        T: Send + 'static,
    {
        self.signals.handed_over.store(true, Ordering::SeqCst);
        self.submit(None, move |worker, _| {
            worker.unit.check_usable()?;
            let handle = worker.handle_mut()?;
            // A panic must not end the thread: its queue has other callers.
            let outcome = catch_unwind(AssertUnwindSafe(|| act(&mut *handle)));
            outcome.map_err(|_| Report::new(Kind::Other, "the closure panicked").into())
        })
        .await
    }

    /// Whether a call's statement runs, or waits for a lock, at this moment.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.signals.current().is_some()
    }

    /// Since when the connection has been reading one state of the file, and who has it.
    pub(crate) fn reads_since(&self) -> Option<(Instant, Option<&'static Location<'static>>)> {
        self.signals.reads_since()
    }

    /// Ends the reading that began then, if it still goes on: the statement is stopped, or the
    /// transaction rolled back between two statements. Waits for nothing.
    pub(crate) fn end_reading(&self, since: Instant) {
        let still = self.reads_since().is_some_and(|(now, _)| now == since);
        if !still {
            return;
        }
        self.signals.stop_current(Stop::LogLimit);
        let queue = self
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let job: Job = Box::new(move |worker| worker.end_reading(since));
        // A full queue is asked again at the next checkpoint.
        drop(queue.map(|queue| queue.try_send(Task::Job(job))));
    }

    /// Puts a job into the queue and waits for its answer.
    pub(crate) async fn submit<T, F>(&self, deadline: Option<Deadline>, work: F) -> Result<T>
    where
        F: FnOnce(&mut Worker, &Arc<Ticket>) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        self.submit_with(Ticket::new(deadline), work).await
    }

    /// Reads among reads of strangers, and not for long while they wait.
    fn read_beside_others(
        &self,
        statement: Statement,
        want: Want,
        call: Call,
    ) -> impl Future<Output = Result<Reply>> + Send {
        let site = self.signals.site();
        let ticket = Ticket::with_patience(Some(call.deadline), Some(READ_MAX));
        self.submit_with(ticket, move |worker, _| {
            worker.signals.set_site(site);
            worker.run(&statement, want, call.lane)
        })
    }

    async fn submit_with<T, F>(&self, ticket: Arc<Ticket>, work: F) -> Result<T>
    where
        F: FnOnce(&mut Worker, &Arc<Ticket>) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let abandon = Abandon(Arc::clone(&ticket));
        let pending = Pending::new(&self.signals);
        let (answer, answered) = oneshot::channel();
        let job = move |worker: &mut Worker| {
            let result = worker.perform(&ticket, |worker| work(worker, &ticket));
            // The connection is free before the caller knows the answer.
            drop(pending);
            drop(answer.send(result)); // the caller has gone and needs no answer
        };
        self.enqueue_job(Box::new(job)).await?;
        let result = answered.await;
        let result = result.unwrap_or_else(|_| Err(self.unanswered(&abandon.0)));
        drop(abandon);
        result
    }

    async fn enqueue_job(&self, job: Job) -> Result<()> {
        self.enqueue(Task::Job(job)).await
    }

    async fn enqueue(&self, task: Task) -> Result<()> {
        let queue = self
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let queue = queue.ok_or_else(ended)?;
        queue.send(task).await.map_err(|_| ended())
    }

    /// Puts a write into the queue, to be committed together with others, and waits for its answer.
    async fn commit_in_group(&self, work: Work, deadline: Deadline) -> Result<Answer> {
        let ticket = Ticket::new(Some(deadline));
        let abandon = Abandon(Arc::clone(&ticket));
        let (answer, answered) = oneshot::channel();
        let write = Write {
            work,
            deadline,
            ticket,
            pending: Pending::new(&self.signals),
            answer,
        };
        let mut waiting = pin!(async {
            self.enqueue(Task::Write(write)).await?;
            let answer = answered.await;
            answer.unwrap_or_else(|_| Err(self.unanswered(&abandon.0)))
        });
        let result = poll_fn(|context| {
            let answer = waiting.as_mut().poll(context);
            // The thread cannot say that it is too late while it waits for the disk. Whoever waits
            // for the answer asks once more when his time is over.
            if answer.is_pending() && deadline.is_past(Instant::now()) && abandon.0.withdraw() {
                return Poll::Ready(Err(not_begun(Stop::Deadline)));
            }
            answer
        });
        result.await
    }

    /// Why a job that was accepted has no answer.
    fn unanswered(&self, ticket: &Ticket) -> Error {
        // A closing connection drops what waits in its queue; nothing of that has begun.
        if self.signals.closing.load(Ordering::SeqCst) {
            ended()
        } else if ticket.withdraw() {
            broken()
        } else {
            lost()
        }
    }

    /// Refuses further jobs and stops the one that runs.
    fn shut(&self) {
        self.signals.closing.store(true, Ordering::SeqCst);
        drop(
            self.queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        self.signals.stop_current(Stop::Closed);
    }

    async fn wait_for_end(&self) {
        let mut alive = self.alive.clone();
        // Nothing is ever sent; the error is the end.
        while alive.changed().await.is_ok() {}
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // The thread has done its last work, so this does not wait.
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of a SQLite connection panicked");
        }
    }
}

impl Drop for SqliteSession {
    fn drop(&mut self) {
        self.shut();
    }
}

fn ended() -> Error {
    Report::new(Kind::Closed, "the connection is closed")
        .class(Class::NotSent)
        .evidence(Evidence::Neither)
        .into()
}

impl Connection for SqliteSession {
    fn run<'a>(
        &'a self,
        statement: &'a Statement,
        want: Want,
        call: Call,
    ) -> BoxFuture<'a, Result<Reply>> {
        let statement = statement.clone();
        Box::pin(self.submit(Some(call.deadline), move |worker, _| {
            worker.run(&statement, want, call.lane)
        }))
    }

    fn run_shared<'a>(
        &'a self,
        statement: &'a Statement,
        want: Want,
        call: Call,
    ) -> BoxFuture<'a, Result<Reply>> {
        if self.lane == Lane::Read {
            return Box::pin(self.read_beside_others(statement.clone(), want, call));
        }
        let work = Work::One(statement.clone(), want);
        Box::pin(async move {
            match self.commit_in_group(work, call.deadline).await? {
                Answer::Reply(reply) => Ok(reply),
                Answer::Affected(_) => Err(lost()),
            }
        })
    }

    fn cursor<'a>(
        &'a self,
        statement: &'a Statement,
        call: Call,
    ) -> BoxFuture<'a, Result<Box<dyn Cursor>>> {
        Box::pin(async move {
            let ticket = Ticket::new(Some(call.deadline));
            let (send_batches, batches) = mpsc::channel(BATCHES_WAITING);
            let (ready, is_ready) = oneshot::channel();
            let (send_end, ended) = oneshot::channel();
            // Owns the ticket from here on: dropped at any point, it stops the statement.
            let mut cursor = Batches {
                batches,
                ended: None,
                ticket: Arc::clone(&ticket),
            };
            let streaming = Streaming {
                statement: statement.clone(),
                lane: call.lane,
                ticket,
                pending: Pending::new(&self.signals),
                batches: send_batches,
                ready,
                ended: send_end,
            };
            self.enqueue_job(Box::new(move |worker| streaming.run(worker)))
                .await?;
            if is_ready.await.is_err() {
                // It failed before it ran; its end says why.
                let end = ended.await;
                end.unwrap_or_else(|_| Err(self.unanswered(&cursor.ticket)))?;
                return Err(lost());
            }
            cursor.ended = Some(ended);
            Ok(Box::new(cursor) as Box<dyn Cursor>)
        })
    }

    fn batch<'a>(
        &'a self,
        statements: &'a [Statement],
        begin: Begin,
        call: Call,
    ) -> BoxFuture<'a, Result<Vec<u64>>> {
        let statements = statements.to_vec();
        Box::pin(self.submit(Some(call.deadline), move |worker, ticket| {
            worker.batch(&statements, begin, call.lane, ticket)
        }))
    }

    fn batch_shared<'a>(
        &'a self,
        statements: &'a [Statement],
        begin: Begin,
        call: Call,
    ) -> BoxFuture<'a, Result<Vec<u64>>> {
        if self.lane == Lane::Read || begin.read_only {
            return self.batch(statements, begin, call);
        }
        let work = Work::Batch(statements.to_vec());
        Box::pin(async move {
            match self.commit_in_group(work, call.deadline).await? {
                Answer::Affected(affected) => Ok(affected),
                Answer::Reply(_) => Err(lost()),
            }
        })
    }

    fn script<'a>(&'a self, text: &'a str, call: Call) -> BoxFuture<'a, Result<()>> {
        let text = text.to_owned();
        Box::pin(self.submit(Some(call.deadline), move |worker, _| {
            worker.script(&text, call.lane)
        }))
    }

    fn begin(&self, begin: Begin, call: Call) -> BoxFuture<'_, Result<()>> {
        let lane = if self.lane == Lane::Read {
            Lane::Read
        } else {
            call.lane
        };
        Box::pin(self.submit(Some(call.deadline), move |worker, _| {
            worker.begin(begin, lane)
        }))
    }

    fn begin_with_token<'a>(
        &'a self,
        begin: Begin,
        token: &'a Token,
        call: Call,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let row = token.insert()?;
            self.submit(Some(call.deadline), move |worker, _| {
                worker.begin_with_token(begin, call.lane, &row)
            })
            .await
        })
    }

    fn commit(&self, call: Call) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.submit(Some(call.deadline), |worker, ticket| worker.commit(ticket)))
    }

    fn roll_back(&self, call: Call) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.submit(Some(call.deadline), |worker, _| worker.roll_back()))
    }

    fn savepoint(&self, step: Savepoint, call: Call) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.submit(Some(call.deadline), move |worker, _| worker.savepoint(step)))
    }

    fn condition(&self) -> Condition {
        let signals = &self.signals;
        let is_set = |flag: &std::sync::atomic::AtomicBool| flag.load(Ordering::SeqCst);
        if is_set(&signals.broken) || is_set(&signals.closing) {
            Condition::Broken
        } else if signals.pending.load(Ordering::SeqCst) > 0
            || is_set(&signals.in_transaction)
            || is_set(&signals.handed_over)
            || is_set(&signals.tainted)
        {
            Condition::Dirty
        } else {
            Condition::Clean
        }
    }

    fn lane(&self) -> Lane {
        self.lane
    }

    fn on_lent(&self, site: &'static Location<'static>) {
        self.signals.set_site(Some(site));
    }

    fn hand_over(&self) {
        self.signals.handed_over.store(true, Ordering::SeqCst);
    }

    fn check(&self, deadline: Deadline) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.submit(Some(deadline), |worker, _| worker.check()))
    }

    fn check_writing(&self, deadline: Deadline) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.submit(Some(deadline), |worker, _| worker.check_writing()))
    }

    fn clean(&self, deadline: Deadline) -> BoxFuture<'_, Result<()>> {
        // Nobody uses the connection any more, so what still runs is left over.
        self.signals.stop_current(Stop::Abandoned);
        Box::pin(self.submit(Some(deadline), |worker, _| worker.restore()))
    }

    fn cancel(&self, _deadline: Deadline) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            self.signals.stop_current(Stop::Cancelled);
            Ok(())
        })
    }

    fn close(&self, deadline: Deadline) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if self.lane == Lane::Write {
                optimize::before_closing(self, deadline).await;
            }
            self.shut();
            if timeout_at(deadline.instant(), self.wait_for_end())
                .await
                .is_err()
            {
                tracing::warn!("a SQLite connection was not closed in time; its thread goes on");
            }
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
