//! Results that are read piece by piece.

use crate::attempts::{Attempts, Setback};
use crate::bound::{answer_by, frame};
use crate::call::{CallOptions, Strictness};
use crate::database::Database;
use crate::engine::Engine;
use crate::lanes::PoolLease;
use crate::one_shot::{self, OneShot};
use futures_util::stream::{self, BoxStream, StreamExt};
use mainstay_core::backend::{Cursor, Lane, Want};
use mainstay_core::error::Report;
use mainstay_core::row::field_names;
use mainstay_core::{Columns, Deadline, IntoParams, Kind, Params, Result, Row, Statement};
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::panic::Location;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// The most texts whose missing columns were told; beyond that the warnings repeat.
const WARNED_MAX: usize = 1_000;

/// The texts for which a missing optional column has been told already.
#[derive(Debug, Default)]
pub(crate) struct Warned(Mutex<HashSet<(Arc<str>, &'static str)>>);

impl Warned {
    /// Whether this is the first time.
    fn first(&self, text: &str, field: &'static str) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= WARNED_MAX {
            told.clear();
        }
        told.insert((text.into(), field))
    }
}

impl Strictness<'_> {
    /// Compares the fields of a struct with the columns. A required field that is missing is serde's
    /// error later; what is told here is the optional one that would silently be `None`.
    pub(crate) fn check<T: DeserializeOwned>(self, columns: &Columns) -> Result<()> {
        let Some(fields) = field_names::<T>().filter(|_| !columns.is_empty()) else {
            return Ok(());
        };
        let is_there = |field: &str| columns.iter().any(|column| column.name() == field);
        let Some(missing) = fields.iter().find(|field| !is_there(field)) else {
            return Ok(());
        };
        if self.strict {
            let message = format!("there is no column {missing:?} for the field of that name");
            return Err(Report::new(Kind::Decode, message)
                .remedy(format!("the columns are: {columns}"))
                .into());
        }
        if self.warned.first(self.text, missing) {
            tracing::warn!(
                field = missing, columns = %columns, statement = self.text,
                "a field has no column; if it is optional it is always None"
            );
        }
        Ok(())
    }
}

/// Rows as they come, with bounded memory: a [`Stream`](futures_util::Stream).
///
/// The connection is held until the stream ends or is dropped. Losing the connection is repeated
/// before the first row only; after that it is an error, because rows that were handed out cannot be
/// taken back. The configured timeout bounds the wait for every batch of rows; the time that the
/// reader takes between rows is its own.
///
/// Nothing is sent before the first row is asked for; until then `timeout` and `write` may be added.
#[must_use = "a stream does nothing until its rows are asked for"]
pub struct Fetch<T> {
    /// `None` once the rows have been asked for.
    opening: Option<Opening>,
    rows: BoxStream<'static, Result<T>>,
}

impl<T> std::fmt::Debug for Fetch<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetch").finish_non_exhaustive()
    }
}

impl<T: DeserializeOwned + Send + 'static> futures_util::Stream for Fetch<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<T>>> {
        if let Some(opening) = self.opening.take() {
            self.rows = opening.rows();
        }
        self.rows.poll_next_unpin(context)
    }
}

impl<T> Fetch<T> {
    /// Bounds the wait for each batch of rows. A deadline of the handle that ends earlier stays in
    /// force.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        if let Some(opening) = &mut self.opening {
            opening.options.timeout = Some(timeout);
        }
        self
    }

    /// Forces the write lane.
    pub fn write(mut self) -> Self {
        if let Some(opening) = &mut self.opening {
            opening.options.write = true;
        }
        self
    }
}

impl<T: DeserializeOwned + Send + 'static> Fetch<T> {
    /// The next row, for those who want no stream trait.
    ///
    /// # Errors
    ///
    /// As the stream's items; nothing follows an error.
    ///
    /// # Cancel safety
    ///
    /// Safe: a row that was not handed out stays for the next call.
    pub async fn next(&mut self) -> Result<Option<T>> {
        StreamExt::next(self).await.transpose()
    }
}

impl Database {
    /// Runs a statement and answers its rows as a stream with bounded memory.
    ///
    /// ```no_run
    /// # async fn example(db: &mainstay::Database) -> mainstay::Result<()> {
    /// let mut names = db.fetch::<String>("select name from users order by id", ());
    /// while let Some(name) = names.next().await? {
    ///     println!("{name}");
    /// }
    /// # Ok(()) }
    /// ```
    #[track_caller]
    pub fn fetch<T: DeserializeOwned + Send + 'static>(
        &self,
        text: &str,
        params: impl IntoParams,
    ) -> Fetch<T> {
        let site = Location::caller();
        let options = CallOptions {
            timeout: None,
            idempotent: false,
            write: false,
            site,
        };
        let opening = Opening {
            engine: Arc::clone(self.engine()),
            text: text.into(),
            params: params.into_params(),
            options,
            deadline: self.own_deadline(),
        };
        Fetch {
            opening: Some(opening),
            rows: stream::empty().boxed(),
        }
    }
}

struct Opening {
    engine: Arc<Engine>,
    text: Arc<str>,
    params: Result<Params>,
    options: CallOptions,
    deadline: Option<Deadline>,
}

/// A cursor that has answered its first batch.
struct Reading {
    engine: Arc<Engine>,
    cursor: Box<dyn Cursor>,
    /// Held so that the connection comes back when the reading ends.
    lease: PoolLease,
    timeout: Option<Duration>,
    deadline: Option<Deadline>,
    batch: std::vec::IntoIter<Row>,
    lane: Lane,
    ended: bool,
}

/// Until when one batch is waited for.
fn until(engine: &Engine, timeout: Option<Duration>, deadline: Option<Deadline>) -> Deadline {
    let patience = Deadline::from_now(timeout.unwrap_or(engine.config.timeout));
    deadline.map_or(patience, |deadline| deadline.earliest(patience))
}

impl Opening {
    fn rows<T: DeserializeOwned + Send + 'static>(self) -> BoxStream<'static, Result<T>> {
        let opened = stream::once(self.open::<T>());
        let rows = opened.flat_map(|opened| match opened {
            Ok(reading) => reading.rows::<T>().boxed(),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        });
        rows.boxed()
    }

    async fn open<T: DeserializeOwned>(self) -> Result<Reading> {
        let Self {
            engine,
            text,
            params,
            options,
            deadline,
        } = self;
        let statement = Statement::new(text, params?)?;
        let patience = until(&engine, options.timeout, deadline);
        let shot = OneShot {
            engine: &engine,
            statement,
            want: Want::Rows(usize::MAX),
            options,
            deadline: patience,
            started: Instant::now(),
        };
        let mut attempts = Attempts::new(&engine.retrier, patience);
        let (lease, cursor, batch, lane) = loop {
            match first_batch(&shot).await {
                Ok(opened) => break opened,
                Err(Setback::Failed(error, _)) if error.is_refused_by_read_lane() => {
                    engine.router.remember(shot.statement.text(), Lane::Write);
                }
                Err(setback) => attempts.after(setback).await?,
            }
        };
        attempts.succeeded();
        let ended = batch.is_none();
        let batch = batch.unwrap_or_default();
        if let Some(row) = batch.first() {
            let strict = engine.config.strict_rows;
            let strictness = Strictness {
                text: shot.statement.text(),
                strict,
                warned: &engine.warned,
            };
            strictness.check::<T>(row.columns())?;
        }
        let batch = batch.into_iter();
        Ok(Reading {
            engine,
            cursor,
            lease,
            timeout: options.timeout,
            deadline,
            batch,
            lane,
            ended,
        })
    }
}

type FirstBatch = (PoolLease, Box<dyn Cursor>, Option<Vec<Row>>, Lane);

async fn first_batch(shot: &OneShot<'_>) -> Result<FirstBatch, Setback> {
    let (lease, lane) = shot.lend().await?;
    let started = Instant::now();
    let call = frame(lane, shot.deadline, started);
    let opened = answer_by(shot.deadline, lane, async {
        let mut cursor = lease.cursor(&shot.statement, call).await?;
        let batch = cursor.next_batch().await?;
        Ok((cursor, batch))
    })
    .await;
    let (text, took) = (shot.statement.text(), started.elapsed());
    shot.engine.witness(text, took, opened.as_ref().err());
    let failed = |error| Setback::Failed(error, one_shot::work(lane, shot.options));
    let (cursor, batch) = opened.map_err(failed)?;
    Ok((lease, cursor, batch, lane))
}

impl Reading {
    fn rows<T: DeserializeOwned + Send + 'static>(
        self,
    ) -> impl futures_util::Stream<Item = Result<T>> + Send {
        stream::unfold(Some(self), async |reading| {
            let mut reading = reading?;
            match reading.next_row().await {
                Ok(Some(row)) => {
                    let row = row.decode();
                    // Nothing follows an error; the connection goes back.
                    let rest = row.is_ok().then_some(reading);
                    Some((row, rest))
                }
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    async fn next_row(&mut self) -> Result<Option<Row>> {
        loop {
            if let Some(row) = self.batch.next() {
                return Ok(Some(row));
            }
            if self.ended {
                return Ok(None);
            }
            let deadline = until(&self.engine, self.timeout, self.deadline);
            let next = answer_by(deadline, self.lane, self.cursor.next_batch());
            match next.await? {
                Some(batch) => self.batch = batch.into_iter(),
                None => self.ended = true,
            }
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if !self.ended {
            tracing::debug!(held = ?self.lease.held(), "a stream was dropped before its end");
        }
    }
}
