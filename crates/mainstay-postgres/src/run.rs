//! Running one statement: finding its plan, binding, sending it under the guard of its lane.

use crate::bind::{Bound, unspecified};
use crate::classify::Phase;
use crate::decode::RowShape;
use crate::flight::{Launched, Leg, is_stale_plan, launch};
use crate::opening::First;
use crate::read_lane::Guard;
use crate::session::{Flight, Link};
use crate::statements::Prepared;
use crate::timeout::Limited;
use futures_util::TryStreamExt;
use mainstay_core::backend::{Call, Lane, Reply, Want};
use mainstay_core::{Class, Columns, Error, Result, Row, Statement};
use std::pin::pin;
use std::sync::Arc;
use tokio_postgres::{Client, RowStream};

/// How often a statement is prepared anew because its ground has moved. Each time takes another
/// change of a definition between the preparation and the run, a round trip apart.
const STALE_MAX: u32 = 5;

pub(crate) type DriverResult<T> = Result<T, tokio_postgres::Error>;

/// What came back of a statement, before anything is decided about it.
pub(crate) struct Fetched {
    columns: Option<Arc<Columns>>,
    rows: Vec<Row>,
    affected: u64,
    /// Rows whose types are not known yet, where the statement was not prepared.
    raw: Vec<tokio_postgres::Row>,
    /// The first row that could not be read. The statement ran nevertheless.
    unreadable: Option<Error>,
    /// It became too large and was not read to its end.
    outgrown: bool,
}

impl Fetched {
    pub(crate) fn affected(&self) -> u64 {
        self.affected
    }

    pub(crate) fn has_outgrown(&self) -> bool {
        self.outgrown
    }

    pub(crate) fn into_reply(self) -> Result<Reply> {
        match self.unreadable {
            Some(error) => Err(error),
            None => Ok(Reply {
                columns: self.columns.unwrap_or_default(),
                rows: self.rows,
                affected: self.affected,
                burden: None,
            }),
        }
    }
}

impl Link {
    /// Runs one statement.
    pub(crate) async fn run(
        self: &Arc<Self>,
        statement: &Statement,
        want: Want,
        call: Call,
    ) -> Result<Reply> {
        let flight = Flight::start(self);
        let mut outcome = self.run_once(statement, want, call).await;
        for _ in 0..STALE_MAX {
            let Some(refused) = outcome.as_ref().err().filter(|error| is_stale_plan(error)) else {
                break;
            };
            self.forget_plan(statement.text(), refused);
            // Refused before it ran; inside a transaction only the whole can be run again.
            if self.is_in_transaction() {
                break;
            }
            outcome = self.run_once(statement, want, call).await;
        }
        if outcome.is_err() {
            self.settle_refusal(call).await;
        }
        flight.land();
        outcome
    }

    async fn run_once(&self, statement: &Statement, want: Want, call: Call) -> Result<Reply> {
        let (first, prepared) = self.ready(statement, call).await?;
        let bound = prepared.bind(statement.params())?;
        if let (Want::Rows(_), Some(shape)) = (want, &prepared.shape) {
            shape.check()?;
        }
        self.refuse_late(call.deadline)?;
        let text = statement.text();
        // Large, so it stays here, and what flies is a pointer to it.
        let request = fetch(&self.client, &prepared, text, bound, want, usize::MAX);
        let request = pin!(request);
        let limited = self.limit_write(call).await?;
        let mut guarded = self.send_guarded(call.lane, first.as_ref(), request);
        guarded.leg.index += u64::from(limited.is_some());
        let lifting = limited.map(Limited::lift);
        let fetched = self.land_guarded(guarded, call).await;
        if let Some(lifting) = lifting {
            lifting.landed(call).await;
        }
        let mut fetched = match first {
            Some(first) => first.landed(fetched, call).await?,
            None => fetched?,
        };
        if !fetched.raw.is_empty() {
            self.read_raw(&mut fetched, call).await?;
        }
        fetched.into_reply()
    }

    /// Everything that is needed before a statement is sent; the first of a transaction takes BEGIN with
    /// it, unless it has to be prepared first, which takes BEGIN along.
    pub(crate) async fn ready(
        &self,
        statement: &Statement,
        call: Call,
    ) -> Result<(Option<First<'_>>, Arc<Prepared>)> {
        let (text, values) = (statement.text(), statement.params());
        let first = self.first(call.deadline).await?;
        if let Some(known) = self.known(text, values)? {
            if first.is_none() {
                self.turn(call).await;
            }
            return Ok((first, known));
        }
        let preparing = self.prepared(text, values, call.deadline);
        let prepared = match first {
            Some(first) => first.send_before(call, preparing).await?,
            None => self.turn_while(call, preparing).await?,
        };
        Ok((None, prepared))
    }

    /// Reads the rows of a statement that was not prepared. It has run whatever comes of this.
    async fn read_raw(&self, fetched: &mut Fetched, call: Call) -> Result<()> {
        let rows = std::mem::take(&mut fetched.raw);
        let columns = rows.first().map_or(&[][..], tokio_postgres::Row::columns);
        let types = self.connector.types();
        let shape = match RowShape::resolved(columns, types) {
            Ok(shape) => shape,
            Err(_) => {
                self.learn_types(columns, call.deadline).await?;
                RowShape::resolved(columns, types).unwrap_or_else(|_| RowShape::of(columns))
            }
        };
        fetched.rows = rows
            .iter()
            .map(|row| shape.read(row))
            .collect::<Result<_>>()?;
        fetched.columns = Some(Arc::clone(shape.columns()));
        Ok(())
    }

    /// Sends a request together with what keeps its lane, in one flight; behind BEGIN, if it is the first
    /// of its transaction.
    pub(crate) fn send_guarded<'a, T>(
        &'a self,
        lane: Lane,
        first: Option<&First<'_>>,
        request: impl Future<Output = DriverResult<T>> + Send + 'a,
    ) -> Guarded<'a, T> {
        // One caller at a time, so that nothing comes between the guard and what it guards.
        let mut usage = self.usage();
        let in_transaction =
            usage.transaction.is_some() || self.log.state() != crate::wire::TransactionState::Idle;
        let guard = Guard::choose(lane, usage.is_on(lane), in_transaction, self.style.lanes);
        let mark = self.log.mark();
        let before = guard
            .before()
            .map(|text| launch(self.client.batch_execute(text)));
        if let Guard::Setting(lane) = guard {
            usage.lane = lane;
        }
        if lane == Lane::Read && self.style.lanes && !self.reports_its_lane() {
            usage.unverified = true;
        }
        let phase = match lane {
            _ if in_transaction => Phase::Transaction,
            Lane::Read => Phase::Read,
            Lane::Write => Phase::Write,
        };
        let mut leg = Leg {
            phase,
            mark,
            index: u64::from(before.is_some()),
            completes: 1,
        };
        if let Some(first) = first {
            first.precede(&mut usage, &mut leg);
        }
        let request = launch(request);
        if let (Some(first), Launched::Landed(_)) = (first, &request) {
            first.take_back(&mut usage);
        }
        let after = guard.after().map(|text| {
            let client = Arc::clone(&self.client);
            launch(async move { client.batch_execute(text).await })
        });
        Guarded {
            guard,
            before,
            request,
            after,
            leg,
        }
    }

    /// Waits for a guarded request. What came of it counts only as far as its guard held.
    pub(crate) async fn land_guarded<T>(&self, guarded: Guarded<'_, T>, call: Call) -> Result<T> {
        let Guarded {
            guard,
            before,
            request,
            after,
            mut leg,
        } = guarded;
        let mut unguarded = None;
        if let Some(before) = before {
            let leg_before = Leg {
                phase: Phase::Prepare,
                index: 0,
                ..leg
            };
            let held = self
                .answer(leg_before, call.deadline, before.landed())
                .await;
            match (held, guard) {
                (Ok(()), Guard::Setting(lane)) => self.usage().settled_lane = lane,
                (Ok(()), _) => {}
                (Err(error), _) => {
                    // Without its guard a read is like any other statement.
                    leg.phase = Phase::Write;
                    self.usage().broken = true;
                    unguarded = Some(error);
                }
            }
        }
        let mut outcome = self.answer(leg, call.deadline, request.landed()).await;
        if let Some(after) = after {
            let leg_after = Leg {
                phase: Phase::Prepare,
                index: leg.index + 1,
                ..leg
            };
            let ended = self.answer(leg_after, call.deadline, after.landed()).await;
            if let (Err(error), Ok(_)) = (ended, &outcome) {
                // Nothing was written, but the database has not stood by what it had read.
                outcome = Err(error.into_report().class(Class::ReadLost).into());
            }
        }
        match (unguarded, outcome) {
            (None, outcome) => outcome,
            (Some(guard), Ok(_)) if call.lane == Lane::Read => Err(Guard::failed(&guard)),
            (Some(guard), Err(error)) if error.sqlstate() == Some("25006") => Err(guard),
            (Some(_), outcome) => outcome,
        }
    }

    /// After an error the server still has to say that it is ready. As a rule both come together;
    /// where they do not, waiting here is cheaper than cleaning the session.
    pub(crate) async fn settle_refusal(&self, call: Call) {
        if !self.is_ended() && !self.usage().abandoned && self.log.is_pending() {
            let leg = self.leg(self.preparing());
            let settled = self
                .answer(leg, call.deadline, self.client.check_connection())
                .await;
            if let Err(error) = settled {
                tracing::debug!(%error, "the session did not settle after an error");
            }
        }
    }
}

/// A request on its way with its guard.
pub(crate) struct Guarded<'a, T> {
    guard: Guard,
    before: Option<Launched<'a, DriverResult<()>>>,
    request: Launched<'a, DriverResult<T>>,
    /// Its own, so that a cursor can keep it.
    pub(crate) after: Option<Launched<'static, DriverResult<()>>>,
    pub(crate) leg: Leg,
}

/// Opens the rows of a statement.
pub(crate) async fn open(
    client: &Client,
    prepared: &Prepared,
    text: &str,
    bound: Vec<Bound<'_>>,
) -> DriverResult<RowStream> {
    match &prepared.statement {
        Some(statement) => client.query_raw(statement, bound).await,
        None => {
            let typed = bound.into_iter().map(|value| (value, unspecified()));
            client
                .query_typed_raw(text, typed.collect::<Vec<_>>())
                .await
        }
    }
}

/// Runs a statement to its end, keeping no more rows than are wanted; gives up on a result that
/// grows beyond so many bytes.
pub(crate) async fn fetch(
    client: &Client,
    prepared: &Prepared,
    text: &str,
    bound: Vec<Bound<'_>>,
    want: Want,
    bytes_max: usize,
) -> DriverResult<Fetched> {
    let mut stream = pin!(open(client, prepared, text, bound).await?);
    let shape = &prepared.shape;
    let mut fetched = Fetched {
        raw: Vec::new(),
        columns: None,
        rows: Vec::new(),
        affected: 0,
        unreadable: None,
        outgrown: false,
    };
    let mut bytes = 0_usize;
    let limit = match want {
        Want::Affected => 0,
        Want::Rows(limit) => limit,
    };
    // What comes beyond the limit is read away: a statement has succeeded only when it has ended.
    while let Some(row) = stream.try_next().await? {
        bytes = bytes.saturating_add(row.raw_size_bytes());
        if bytes > bytes_max {
            fetched.outgrown = true;
            return Ok(fetched);
        }
        let kept = fetched.rows.len() + fetched.raw.len();
        if kept >= limit || fetched.unreadable.is_some() {
            continue;
        }
        match shape.as_ref().map(|shape| shape.read(&row)) {
            Some(Ok(row)) => fetched.rows.push(row),
            Some(Err(error)) => fetched.unreadable = Some(error),
            None => fetched.raw.push(row),
        }
    }
    if let (Want::Rows(_), Some(shape)) = (want, shape) {
        fetched.columns = Some(Arc::clone(shape.columns()));
    }
    fetched.affected = stream.rows_affected().unwrap_or(0);
    Ok(fetched)
}
