//! BEGIN that travels with the first statement of its transaction.
//!
//! A closure begins a transaction and then says what is to happen in it, so BEGIN has a round trip to
//! itself in which nothing happens. Here nothing is sent until there is a statement, and then BEGIN goes
//! before it, in the same request and under the same Sync ([`Preface`]): when BEGIN is refused, the
//! server leaves the statement out. What cannot carry it (preparing, a savepoint) is sent behind it in
//! the same flight if it does nothing by itself, and waits for it otherwise.
//!
//! The price is that a transaction that cannot begin says so when its first statement fails. After that
//! nothing is sent as if it had begun.

use crate::classify::Phase;
use crate::flight::{Leg, launch};
use crate::session::{Flight, Link, Usage};
use crate::transaction::opening_text;
use crate::wire::{Preface, TransactionState};
use mainstay_core::backend::{Begin, Call, Lane};
use mainstay_core::error::Report;
use mainstay_core::{Class, Deadline, Error, Evidence, Kind, Result};
use std::sync::Arc;
use tokio::sync::MutexGuard;
use tokio::time::timeout_at;

/// How far a transaction has come that was begun without sending anything.
#[derive(Clone, Debug, Default)]
pub(crate) enum Opening {
    /// It has begun, or there is none.
    #[default]
    Over,
    /// BEGIN waits for the first statement.
    Unsent(Unsent),
    /// BEGIN was sent. Until its answer is known, and if it was refused, nothing else may be sent.
    Sent,
}

/// What is to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Unsent {
    begin: Begin,
    lane: Lane,
    /// The setting that carries the deadline, if it is worth it.
    limit: Option<String>,
}

/// The right to send BEGIN. Everybody else who wants something of the transaction waits until it is
/// used or dropped.
#[must_use]
pub(crate) struct First<'a> {
    link: &'a Link,
    unsent: Unsent,
    _turn: MutexGuard<'a, ()>,
}

impl Link {
    /// Begins a transaction without sending anything.
    pub(crate) async fn begin_with_first(self: &Arc<Self>, begin: Begin, call: Call) -> Result<()> {
        self.refuse_second_transaction()?;
        self.refuse_late(call.deadline)?;
        let flight = Flight::start(self);
        let limit = self.limit_of_transaction(call).await;
        flight.land();
        let limit = limit?;
        let mut usage = self.usage();
        usage.transaction = Some(access(begin, call.lane));
        usage.opening = Opening::Unsent(Unsent {
            begin,
            lane: call.lane,
            limit,
        });
        Ok(())
    }

    /// Whoever sends the first statement of a transaction has BEGIN to send; everybody else waits
    /// until it is known that the transaction has begun.
    pub(crate) async fn first(&self, deadline: Deadline) -> Result<Option<First<'_>>> {
        if matches!(self.usage().opening, Opening::Over) {
            return Ok(None);
        }
        let turn = timeout_at(deadline.instant(), self.opening_turn.lock()).await;
        let turn = turn.map_err(|_| waited_in_vain())?;
        let unsent = match &self.usage().opening {
            Opening::Over => return Ok(None),
            Opening::Sent => return Err(not_begun()),
            Opening::Unsent(unsent) => unsent.clone(),
        };
        Ok(Some(First {
            link: self,
            unsent,
            _turn: turn,
        }))
    }

    /// Sends BEGIN, if it has not been sent, and then a request that does nothing by itself.
    pub(crate) async fn behind_begin<T>(
        &self,
        call: Call,
        request: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        match self.first(call.deadline).await? {
            Some(first) => first.send_before(call, request).await,
            None => request.await,
        }
    }

    /// Sends BEGIN, if it has not been sent, and waits until the transaction has begun.
    pub(crate) async fn have_begun(&self, call: Call) -> Result<()> {
        self.behind_begin(call, async { Ok(()) }).await
    }

    /// Ends a transaction of which nothing was sent. Whether there was one.
    pub(crate) fn end_unsent(&self) -> bool {
        let mut usage = self.usage();
        let is_unsent = matches!(usage.opening, Opening::Unsent(_));
        if is_unsent {
            usage.opening = Opening::Over;
            usage.transaction = None;
        }
        is_unsent
    }
}

impl First<'_> {
    /// Puts BEGIN before the statement that the caller sends next, before letting go of the usage.
    pub(crate) fn precede(&self, usage: &mut Usage, leg: &mut Leg) {
        let Unsent { begin, lane, limit } = &self.unsent;
        let (begin, before) = self.link.opening(usage, *begin, *lane);
        let commands = [Some(&*begin), limit.as_deref()];
        let commands: Vec<&str> = commands.into_iter().flatten().collect();
        usage.opening = Opening::Sent;
        self.link.log.precede(Preface::new(&commands));
        leg.index += before;
        leg.completes += if commands.len() > 1 { 2 } else { 1 };
    }

    /// The driver has not taken the statement, so BEGIN was not sent either.
    pub(crate) fn take_back(&self, usage: &mut Usage) {
        if self.link.log.take_preface().is_some() {
            usage.opening = Opening::Unsent(self.unsent.clone());
        }
    }

    /// The statement has been answered, and with it BEGIN.
    pub(crate) async fn landed<T>(self, outcome: Result<T>, call: Call) -> Result<T> {
        let link = self.link;
        if outcome.is_err() {
            link.settle_refusal(call).await;
        }
        // A statement that failed has aborted its transaction, so that it did begin shows.
        let has_begun = outcome.is_ok() || link.log.state() != TransactionState::Idle;
        let mut usage = link.usage();
        if has_begun && matches!(usage.opening, Opening::Sent) {
            usage.opening = Opening::Over;
        }
        if outcome.is_ok() && link.log.take_preface().is_some() {
            // Nobody has seen it happen, and it must not pass for a transaction.
            usage.opening = Opening::Sent;
            usage.broken = true;
            return Err(ran_alone());
        }
        outcome
    }

    /// Sends BEGIN as a request of its own and another behind it, which does nothing by itself.
    pub(crate) async fn send_before<T>(
        self,
        call: Call,
        request: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let link = self.link;
        let mut leg = link.leg(Phase::Transaction);
        let begin = {
            let mut usage = link.usage();
            let Unsent { begin, lane, limit } = &self.unsent;
            let (begin, before) = link.opening(&mut usage, *begin, *lane);
            leg.index += before;
            let text = opening_text(begin, limit.clone());
            usage.opening = Opening::Sent;
            launch(async move { link.client.batch_execute(&text).await })
        };
        let outcome = request.await;
        let begun = link.answer(leg, call.deadline, begin.landed()).await;
        match begun {
            Ok(()) => {
                link.usage().opening = Opening::Over;
                outcome
            }
            Err(error) => {
                link.settle_refusal(call).await;
                Err(error)
            }
        }
    }
}

/// The lane of a transaction.
pub(crate) fn access(begin: Begin, lane: Lane) -> Lane {
    if begin.read_only { Lane::Read } else { lane }
}

fn not_begun() -> Error {
    let message = "the transaction did not begin and can only be rolled back";
    Report::new(Kind::TransactionOver, message)
        .evidence(Evidence::Neither)
        .remedy("look at the first error in the transaction")
        .into()
}

fn waited_in_vain() -> Error {
    let message = "the deadline had passed before the transaction had begun";
    Report::new(Kind::Timeout, message)
        .class(Class::RolledBack)
        .evidence(Evidence::Neither)
        .timed_out()
        .into()
}

fn ran_alone() -> Error {
    let message = "a statement ran without the transaction it was meant for";
    Report::new(Kind::OutcomeUnknown, message)
        .class(Class::OutcomeUnknown)
        .into()
}
