//! Reading a result piece by piece.
//!
//! The driver hands rows on one network buffer at a time and reads no further until they are taken,
//! so the socket, and behind it the server, waits for whoever reads. A batch is what is there, up
//! to a bound: the first row is not held back until the batch is full.

use crate::decode::RowShape;
use crate::flight::{Launched, Leg};
use crate::run::open;
use crate::session::{Flight, Link};
use futures_util::Stream;
use mainstay_core::backend::{BoxFuture, Call, Cursor};
use mainstay_core::{Deadline, Result, Row, Statement};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::RowStream;

/// A batch is at most so many rows, or the first row that makes it so many bytes.
const BATCH_ROWS: usize = 256;
const BATCH_BYTES: usize = 64 * 1_024;

/// An open result.
pub(crate) struct RowCursor {
    link: Arc<Link>,
    /// Until the end of the result is reached; dropped before, it leaves the session dirty.
    flight: Option<Flight>,
    rows: Pin<Box<RowStream>>,
    shape: Option<RowShape>,
    /// The driver's stream must not be asked again after its end.
    is_exhausted: bool,
    /// The end of the transaction that keeps a read from writing, already on its way.
    ending: Option<Launched<'static, Result<(), tokio_postgres::Error>>>,
    leg: Leg,
    /// How long each batch is waited for: as long as the opening was. The time between two batches is
    /// the reader's own.
    patience: Duration,
}

impl Link {
    /// Opens a result.
    pub(crate) async fn cursor(
        self: &Arc<Self>,
        statement: &Statement,
        call: Call,
    ) -> Result<Box<dyn Cursor>> {
        let flight = Flight::start(self);
        let outcome = self.open_cursor(statement, call).await;
        match outcome {
            Ok(mut cursor) => {
                cursor.flight = Some(flight);
                Ok(Box::new(cursor))
            }
            Err(error) => {
                self.settle_refusal(call).await;
                flight.land();
                Err(error)
            }
        }
    }

    async fn open_cursor(self: &Arc<Self>, statement: &Statement, call: Call) -> Result<RowCursor> {
        let patience = call.deadline.remaining(Instant::now());
        let text = statement.text();
        let (first, prepared) = self.ready(statement, call).await?;
        let bound = prepared.bind(statement.params())?;
        self.learn_wanted_types(call.deadline).await?;
        if let Some(shape) = &prepared.shape {
            shape.check()?;
        }
        self.refuse_late(call.deadline)?;
        let request = open(&self.client, &prepared, text, bound);
        let mut guarded = self.send_guarded(call.lane, first.as_ref(), request);
        let leg = guarded.leg;
        let ending = guarded.after.take();
        let rows = self.land_guarded(guarded, call).await;
        let rows = match first {
            Some(first) => first.landed(rows, call).await,
            None => rows,
        };
        let rows = match rows {
            Ok(rows) => rows,
            Err(error) => {
                if let Some(ending) = ending {
                    self.answer(leg, call.deadline, ending.landed()).await?;
                }
                return Err(error);
            }
        };
        Ok(RowCursor {
            link: Arc::clone(self),
            flight: None,
            rows: Box::pin(rows),
            shape: prepared.shape.clone(),
            is_exhausted: false,
            ending,
            leg,
            patience,
        })
    }
}

impl RowCursor {
    async fn next(&mut self) -> Result<Option<Vec<Row>>> {
        if self.is_exhausted {
            return self.end().await.map(|()| None);
        }
        let first = poll_fn(|context| self.rows.as_mut().poll_next(context));
        let first = async { first.await.transpose() };
        let deadline = Deadline::from_now(self.patience);
        let Some(first) = self.link.answer(self.leg, deadline, first).await? else {
            self.is_exhausted = true;
            return self.end().await.map(|()| None);
        };
        let mut bytes = first.raw_size_bytes();
        let mut batch = vec![self.read(&first)?];
        while batch.len() < BATCH_ROWS && bytes < BATCH_BYTES {
            let polled = poll_fn(|context| Poll::Ready(self.rows.as_mut().poll_next(context)));
            match polled.await {
                Poll::Ready(Some(Ok(row))) => {
                    bytes += row.raw_size_bytes();
                    batch.push(self.read(&row)?);
                }
                // The rows before it are dropped: after an error a result is not half good.
                Poll::Ready(Some(Err(error))) => {
                    self.is_exhausted = true;
                    return Err(self.link.judge(self.leg, error));
                }
                Poll::Ready(None) => {
                    self.is_exhausted = true;
                    break;
                }
                Poll::Pending => break,
            }
        }
        Ok(Some(batch))
    }

    fn read(&mut self, row: &tokio_postgres::Row) -> Result<Row> {
        if let Some(shape) = &self.shape {
            return shape.read(row);
        }
        let shape = RowShape::resolved(row.columns(), self.link.connector.types())
            .map_err(|numbers| self.link.unlearned(&numbers, self.leg.phase))?;
        self.shape.insert(shape).read(row)
    }

    /// The result is complete when the transaction that guarded it has ended as well.
    async fn end(&mut self) -> Result<()> {
        if let Some(ending) = self.ending.take() {
            let deadline = Deadline::from_now(self.patience);
            self.link
                .answer(self.leg, deadline, ending.landed())
                .await?;
        }
        if let Some(flight) = self.flight.take() {
            flight.land();
        }
        Ok(())
    }
}

impl Cursor for RowCursor {
    fn next_batch(&mut self) -> BoxFuture<'_, Result<Option<Vec<Row>>>> {
        Box::pin(self.next())
    }
}
