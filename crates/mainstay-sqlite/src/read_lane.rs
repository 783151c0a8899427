//! Reading: where a text belongs, and rows that are read piece by piece.

use crate::bind::bind;
use crate::execute::{Frame, ReadOnly};
use crate::signals::{Pending, Stop, Ticket};
use crate::worker::Worker;
use mainstay_core::backend::{BoxFuture, Cursor, Lane, Reply, Want};
use mainstay_core::error::Report;
use mainstay_core::{Class, Error, Evidence, Kind, Result, Row, Statement};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// A batch ends at so many rows or at about so many bytes, whichever comes first: enough that the
/// hand-over between threads does not show, little enough that memory stays flat.
const BATCH_ROWS: usize = 256;
const BATCH_BYTES: usize = 64 * 1024;
/// The most reads of strangers that wait for one reader: enough that its thread finds the next one when
/// it is done with one, and need not be woken for each.
pub(crate) const READS_WAITING: usize = 64;
/// How long a read may keep others waiting behind it; it is stopped then, and run again by itself. A
/// thousand times what a row by its key takes.
pub(crate) const READ_MAX: Duration = Duration::from_millis(10);
/// Batches that wait for their reader: one is being read while the next is being made.
pub(crate) const BATCHES_WAITING: usize = 2;

impl Worker {
    /// The frame for statements of a call on a lane.
    pub(crate) fn frame(&self, lane: Lane) -> Result<Frame<'_>> {
        let handle = self.handle()?;
        let read_only = match (self.unit.is_idle(), lane) {
            (true, Lane::Read) => Some(ReadOnly::Lane),
            (false, _) if self.unit.is_read_only() => Some(ReadOnly::Transaction),
            _ => None,
        };
        Ok(Frame {
            connection: handle,
            guard: &self.guard,
            refuse: self.refuse(),
            read_only,
        })
    }

    /// Says where a text belongs: SQLite knows what a statement that it has prepared is going to do.
    pub(crate) fn route(&self, text: &str) -> Result<Lane> {
        let statement = self.frame(Lane::Read)?.prepare(text, self.site())?;
        Ok(if statement.readonly() {
            Lane::Read
        } else {
            Lane::Write
        })
    }

    /// Runs one statement.
    pub(crate) fn run(&mut self, statement: &Statement, want: Want, lane: Lane) -> Result<Reply> {
        self.unit.check_usable()?;
        let frame = self.frame(lane)?;
        let result = frame.run(statement.text(), statement.params(), want, || self.site());
        self.note(result)
    }

    /// Runs one statement and sends its rows in batches. `ready` is told when it is about to run.
    pub(crate) fn stream(
        &mut self,
        statement: &Statement,
        lane: Lane,
        ticket: &Ticket,
        batches: &mpsc::Sender<Vec<Row>>,
        ready: oneshot::Sender<()>,
    ) -> Result<()> {
        self.unit.check_usable()?;
        let mut is_read = false;
        let result = self.stream_rows(statement, lane, ticket, batches, ready, &mut is_read);
        // A reader that went away has not failed: the transaction goes on without it.
        let gone = ticket.objection() == Some(Stop::Abandoned);
        if gone && is_read && !self.handle()?.is_autocommit() {
            return result;
        }
        self.note(result)
    }

    fn stream_rows(
        &self,
        statement: &Statement,
        lane: Lane,
        ticket: &Ticket,
        batches: &mpsc::Sender<Vec<Row>>,
        ready: oneshot::Sender<()>,
        is_read: &mut bool,
    ) -> Result<()> {
        let frame = self.frame(lane)?;
        let mut prepared = frame.prepare(statement.text(), self.site())?;
        *is_read = prepared.readonly();
        frame.admit(&prepared)?;
        bind(&mut prepared, statement.params())?;
        ready.send(()).ok(); // a reader that has gone is noticed by its ticket
        let mut batch = Vec::new();
        let mut filled = 0;
        frame.step(
            &mut prepared,
            true,
            || self.site(),
            |row, bytes| {
                batch.push(row);
                filled += bytes;
                if batch.len() < BATCH_ROWS && filled < BATCH_BYTES {
                    return ControlFlow::Continue(());
                }
                filled = 0;
                hand_out(std::mem::take(&mut batch), ticket, batches)
            },
        )?;
        if let Some(stop) = ticket.objection() {
            return Err(crate::classify::stopped(stop).into());
        }
        if !batch.is_empty() && hand_out(batch, ticket, batches).is_break() {
            let stop = ticket.objection().unwrap_or(Stop::Abandoned);
            return Err(crate::classify::stopped(stop).into());
        }
        Ok(())
    }
}

/// Hands a batch to the reader, and waits for room when it is behind. The deadline bounds the time
/// to the first batch; after that the reader's pace is its own.
fn hand_out(batch: Vec<Row>, ticket: &Ticket, batches: &mpsc::Sender<Vec<Row>>) -> ControlFlow<()> {
    use mpsc::error::TrySendError;
    ticket.lift_deadlines();
    let mut batch = batch;
    loop {
        let seen = ticket.nudges();
        match batches.try_send(batch) {
            Ok(()) => return ControlFlow::Continue(()),
            Err(TrySendError::Closed(_)) => return ControlFlow::Break(()),
            Err(TrySendError::Full(unsent)) => batch = unsent,
        }
        if ticket.objection().is_some() {
            return ControlFlow::Break(());
        }
        ticket.wait(seen, None);
    }
}

/// The reading end of a stream.
pub(crate) struct Batches {
    pub(crate) batches: mpsc::Receiver<Vec<Row>>,
    /// How the statement ended; taken when it has.
    pub(crate) ended: Option<oneshot::Receiver<Result<()>>>,
    pub(crate) ticket: Arc<Ticket>,
}

impl Cursor for Batches {
    fn next_batch(&mut self) -> BoxFuture<'_, Result<Option<Vec<Row>>>> {
        Box::pin(async {
            if let Some(batch) = self.batches.recv().await {
                self.ticket.nudge();
                return Ok(Some(batch));
            }
            match self.ended.take() {
                None => Ok(None),
                Some(ended) => ended.await.unwrap_or_else(|_| Err(lost())).map(|()| None),
            }
        })
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        self.ticket.stop(Stop::Abandoned);
    }
}

/// The thread panicked or ended in the middle of a call.
pub(crate) fn lost() -> Error {
    Report::new(
        Kind::OutcomeUnknown,
        "the thread of the connection failed in the middle of a call",
    )
    .remedy("this is a fault of the program; look whether the change is there")
    .class(Class::OutcomeUnknown)
    .evidence(Evidence::Neither)
    .into()
}

/// What a streaming job carries besides its statement.
pub(crate) struct Streaming {
    pub(crate) statement: Statement,
    pub(crate) lane: Lane,
    pub(crate) ticket: Arc<Ticket>,
    pub(crate) pending: Pending,
    pub(crate) batches: mpsc::Sender<Vec<Row>>,
    pub(crate) ready: oneshot::Sender<()>,
    pub(crate) ended: oneshot::Sender<Result<()>>,
}

impl Streaming {
    /// The job's whole life on the thread.
    pub(crate) fn run(self, worker: &mut Worker) {
        let Self {
            statement,
            lane,
            ticket,
            pending,
            batches,
            ready,
            ended,
        } = self;
        let result = worker.perform(&ticket, |worker| {
            worker.stream(&statement, lane, &ticket, &batches, ready)
        });
        // The connection is free before the reader sees the end.
        drop(pending);
        drop(batches);
        drop(ended.send(result)); // a reader that has gone wants no end
    }
}
