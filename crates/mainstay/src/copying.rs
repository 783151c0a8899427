//! COPY through a lease: bulk data in and out as a sink and a stream of bytes.
//!
//! The data are in the database's own format (text, CSV or binary, as the statement says), because
//! that is what files are in and what is fast. What is added here is the frame: each wait is bounded,
//! memory is, one COPY at a time has the connection, and a COPY that is dropped in the middle leaves
//! nothing behind.

use crate::bound::{answer_by, frame};
use crate::lease::Lease;
use bytes::Bytes;
use futures_util::{Sink, Stream};
use mainstay_core::backend::{Condition, CopySink, CopySource, Lane};
use mainstay_core::error::Report;
use mainstay_core::{Class, Error, Evidence, Kind, Result};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use tokio::time::{Instant, Sleep, sleep_until};

const FREE: u8 = 0;
const COPYING: u8 = 1;
const SPOILED: u8 = 2;

/// Who has the connection of a lease: its statements, or one COPY.
#[derive(Debug, Default)]
pub(crate) struct Turnstile(AtomicU8);

impl Turnstile {
    /// Refuses what would wait for the end of a COPY, as a rule in the very task that feeds it.
    pub(crate) fn check(&self) -> Result<()> {
        let (message, remedy) = match self.0.load(Ordering::Acquire) {
            FREE => return Ok(()),
            COPYING => (
                "a COPY is under way on this connection",
                "finish or drop it first, or use another connection",
            ),
            _ => (
                "the connection was given up with a COPY that failed",
                "take another connection",
            ),
        };
        Err(Report::new(Kind::Other, message)
            .class(Class::NotSent)
            .evidence(Evidence::Neither)
            .remedy(remedy)
            .into())
    }
}

/// One COPY's turn. When it ends, the connection is free again, or spoiled.
#[derive(Debug)]
struct Turn(Lease);

impl Turn {
    fn new(lease: &Lease) -> Result<Self> {
        let turnstile = lease.turnstile();
        turnstile.check()?;
        let entered =
            turnstile
                .0
                .compare_exchange(FREE, COPYING, Ordering::AcqRel, Ordering::Acquire);
        match entered {
            Ok(_) => Ok(Self(lease.clone())),
            Err(_) => turnstile.check().and_then(|()| Self::new(lease)),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let after = match self.0.connection().condition() {
            Condition::Broken => SPOILED,
            _ => FREE,
        };
        self.0.turnstile().0.store(after, Ordering::Release);
    }
}

/// The bound of one wait: the lease's deadline, or the configured timeout from the moment on which
/// nothing moved.
#[derive(Debug, Default)]
struct Patience(Option<Pin<Box<Sleep>>>);

impl Patience {
    fn bound<T>(
        &mut self,
        lease: &Lease,
        context: &mut Context<'_>,
        polled: Poll<T>,
    ) -> Poll<Result<T>> {
        if let Poll::Ready(answer) = polled {
            self.0 = None;
            return Poll::Ready(Ok(answer));
        }
        let sleep = self
            .0
            .get_or_insert_with(|| Box::pin(sleep_until(lease.until(None).instant())));
        ready!(sleep.as_mut().poll(context));
        let message = "the deadline ended while a COPY did not move";
        Poll::Ready(Err(Report::new(Kind::Timeout, message)
            .evidence(Evidence::Neither)
            .remedy("give it more time, or look at what the server waits for")
            .timed_out()
            .into()))
    }
}

/// A `COPY … FROM STDIN` under way: a [`Sink`] of bytes in the format that the statement names.
///
/// Memory stays bounded by one piece and the buffers of the connection: whoever sends faster than the
/// server takes waits. Nothing has happened before [`finish`](Self::finish) (or the sink's `close`)
/// has answered; dropped before, the server undoes it and the connection is cleaned before it is lent
/// again. Each wait is bounded by the configured timeout and by the deadline of the handle.
#[must_use = "a COPY that is not finished does not happen"]
#[derive(Debug)]
pub struct CopyIn {
    /// `None` once it has ended. Dropped before the turn, so that the turn sees what it leaves.
    sink: Option<Box<dyn CopySink>>,
    patience: Patience,
    text: Arc<str>,
    started: Instant,
    bytes: u64,
    turn: Turn,
}

impl CopyIn {
    /// Sends a piece, of any size and cut anywhere. Waits while the server has not taken what was sent
    /// before.
    ///
    /// # Errors
    ///
    /// What the server refuses, as soon as it says so: a value that does not fit, a constraint. Then
    /// nothing of it has happened, and nothing more can be sent.
    ///
    /// # Cancel safety
    ///
    /// A piece is sent as a whole or not at all.
    pub async fn send(&mut self, piece: impl Into<Bytes>) -> Result<()> {
        let piece = piece.into();
        poll_fn(|context| self.poll_room(context)).await?;
        self.take(piece)?;
        Ok(())
    }

    /// Says that this was all, and answers the number of rows. Outside of a transaction they are
    /// committed then.
    ///
    /// # Errors
    ///
    /// What the server refuses; [`Kind::OutcomeUnknown`] when the connection is lost before it has
    /// answered.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may have finished it or not, as a dropped COMMIT.
    pub async fn finish(mut self) -> Result<u64> {
        poll_fn(|context| self.poll_end(context)).await
    }

    /// The bytes that were sent so far, for showing progress.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let sink = self.sink.as_mut().ok_or_else(over)?;
        let polled = sink.poll_ready(context);
        let room = ready!(self.patience.bound(&self.turn.0, context, polled));
        Poll::Ready(self.judge(room.flatten()))
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Result<u64>> {
        let Some(sink) = self.sink.as_mut() else {
            return Poll::Ready(Err(over()));
        };
        let polled = sink.poll_finish(context);
        let ended = match ready!(self.patience.bound(&self.turn.0, context, polled)) {
            Ok(ended) => ended,
            Err(_) => Err(unknown()),
        };
        let rows = self.judge(ended)?;
        self.sink = None;
        self.tell(None);
        Poll::Ready(Ok(rows))
    }

    fn take(&mut self, piece: Bytes) -> Result<()> {
        let sink = self.sink.as_mut().ok_or_else(over)?;
        self.bytes = self.bytes.saturating_add(piece.len() as u64);
        sink.start_send(piece);
        Ok(())
    }

    /// An error ends it.
    fn judge<T>(&mut self, outcome: Result<T>) -> Result<T> {
        if let Err(error) = &outcome {
            self.sink = None;
            self.tell(Some(error));
        }
        outcome
    }

    fn tell(&self, failure: Option<&Error>) {
        let engine = self.turn.0.engine();
        engine.witness(&self.text, self.started.elapsed(), failure);
    }
}

/// Finishing is the sink's `close`.
impl Sink<Bytes> for CopyIn {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_room(context)
    }

    fn start_send(mut self: Pin<&mut Self>, piece: Bytes) -> Result<()> {
        self.take(piece)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_room(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_end(context).map_ok(|_| ())
    }
}

/// A `COPY … TO STDOUT` under way: a [`Stream`] of bytes in the format that the statement names.
///
/// Pieces come as the server sends them, at most one waits: whoever reads slowly holds the server up
/// and not its own memory. All has come when the stream ends without an error. Dropped before, the
/// server is stopped and the connection cleaned before it is lent again. Each wait is bounded by the
/// configured timeout and by the deadline of the handle; the time that the reader takes is its own.
#[must_use = "a COPY gives nothing until it is read"]
#[derive(Debug)]
pub struct CopyOut {
    /// `None` once it has ended. Dropped before the turn, so that the turn sees what it leaves.
    source: Option<Box<dyn CopySource>>,
    patience: Patience,
    text: Arc<str>,
    started: Instant,
    bytes: u64,
    turn: Turn,
}

impl CopyOut {
    /// The next piece, for those who want no stream trait; `None` when all has come.
    ///
    /// # Errors
    ///
    /// What the server answers; nothing follows an error.
    ///
    /// # Cancel safety
    ///
    /// Safe: a piece that was not handed out stays for the next call.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        poll_fn(|context| self.poll_piece(context))
            .await
            .transpose()
    }

    /// The bytes that have come so far, for showing progress.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        let Some(source) = self.source.as_mut() else {
            return Poll::Ready(None);
        };
        let polled = source.poll_next(context);
        let next = match ready!(self.patience.bound(&self.turn.0, context, polled)) {
            Ok(next) => next,
            Err(error) => Some(Err(error)),
        };
        match &next {
            Some(Ok(piece)) => self.bytes = self.bytes.saturating_add(piece.len() as u64),
            Some(Err(error)) => self.end(Some(error)),
            None => self.end(None),
        }
        Poll::Ready(next)
    }

    fn end(&mut self, failure: Option<&Error>) {
        self.source = None;
        let engine = self.turn.0.engine();
        engine.witness(&self.text, self.started.elapsed(), failure);
    }
}

impl Stream for CopyOut {
    type Item = Result<Bytes>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes>>> {
        self.poll_piece(context)
    }
}

fn over() -> Error {
    Report::new(Kind::Other, "this COPY has ended")
        .class(Class::NotSent)
        .evidence(Evidence::Neither)
        .into()
}

fn unknown() -> Error {
    Report::new(
        Kind::OutcomeUnknown,
        "the deadline ended before the end of a COPY was answered; it may have happened",
    )
    .class(Class::OutcomeUnknown)
    .evidence(Evidence::Neither)
    .remedy("look whether the rows are there before sending them again")
    .timed_out()
    .into()
}

impl Lease {
    /// Begins a `COPY … FROM STDIN` (PostgreSQL). Until it has ended, the connection takes no other
    /// statement; inside a transaction that was begun on this connection it belongs to it.
    ///
    /// ```no_run
    /// # async fn example(db: &mainstay::Database) -> mainstay::Result<()> {
    /// let lease = db.acquire().await?;
    /// let mut copy = lease.copy_in("copy items (sku, name) from stdin (format csv)").await?;
    /// copy.send("a-1,Anchor\na-2,Buoy\n").await?;
    /// copy.send(std::fs::read("more.csv").unwrap_or_default()).await?;
    /// println!("{} bytes sent", copy.bytes());
    /// let rows: u64 = copy.finish().await?;
    /// # drop(rows); Ok(()) }
    /// ```
    ///
    /// A stream of pieces is forwarded into it as into every sink:
    ///
    /// ```no_run
    /// # async fn example(db: &mainstay::Database) -> mainstay::Result<()> {
    /// use futures_util::StreamExt;
    ///
    /// // From one database into another, with the memory of one piece.
    /// let (from, to) = (db.acquire().await?, db.acquire().await?);
    /// let out = from.copy_out("copy items to stdout (format binary)").await?;
    /// out.forward(to.copy_in("copy archive from stdin (format binary)").await?).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Kind::Statement`] for anything but such a COPY, [`Kind::Config`] on SQLite and behind a
    /// transaction pooler, and what the server answers. A COPY that the server refuses before it has
    /// begun costs the connection, unless its syntax was wrong.
    ///
    /// # Cancel safety
    ///
    /// Nothing has happened when the future is dropped; the connection is closed instead of being lent
    /// again.
    pub async fn copy_in(&self, text: &str) -> Result<CopyIn> {
        let turn = Turn::new(self)?;
        let text: Arc<str> = text.into();
        let started = Instant::now();
        let deadline = self.until(None);
        let call = frame(Lane::Write, deadline, started);
        // Before the data have ended nothing can have happened, so its loss is never unknown.
        let begun = answer_by(deadline, Lane::Read, self.connection().copy_in(&text, call)).await;
        if let Err(error) = &begun {
            self.engine().witness(&text, started.elapsed(), Some(error));
        }
        Ok(CopyIn {
            sink: Some(begun?),
            patience: Patience::default(),
            text,
            started,
            bytes: 0,
            turn,
        })
    }

    /// Begins a `COPY … TO STDOUT` (PostgreSQL). Until it has ended, the connection takes no other
    /// statement.
    ///
    /// ```no_run
    /// # async fn example(db: &mainstay::Database) -> mainstay::Result<()> {
    /// let lease = db.acquire().await?;
    /// let mut copy = lease.copy_out("copy items to stdout (format csv, header)").await?;
    /// while let Some(piece) = copy.next().await? {
    ///     println!("{} bytes, {} so far", piece.len(), copy.bytes());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`copy_in`](Self::copy_in).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves a connection that is cleaned before it is lent again.
    pub async fn copy_out(&self, text: &str) -> Result<CopyOut> {
        let turn = Turn::new(self)?;
        let text: Arc<str> = text.into();
        let started = Instant::now();
        let deadline = self.until(None);
        let call = frame(Lane::Write, deadline, started);
        let begun = answer_by(
            deadline,
            Lane::Read,
            self.connection().copy_out(&text, call),
        )
        .await;
        if let Err(error) = &begun {
            self.engine().witness(&text, started.elapsed(), Some(error));
        }
        Ok(CopyOut {
            source: Some(begun?),
            patience: Patience::default(),
            text,
            started,
            bytes: 0,
            turn,
        })
    }
}
