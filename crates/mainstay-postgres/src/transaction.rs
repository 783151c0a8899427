//! Transactions and savepoints.
//!
//! PostgreSQL answers COMMIT of an aborted transaction with ROLLBACK and without an error, so a
//! driver that looks at the absence of an error only reports a success that never was. The driver does
//! not hand that word on; it is read on the wire. And an error that comes *after* COMMIT was reported
//! complete does not undo it, so the completions are counted.

use crate::classify::Phase;
use crate::flight::launch;
use crate::opening::{Opening, access};
use crate::read_lane::Guard;
use crate::session::{Flight, Link, Usage};
use crate::wire::{Log, TransactionState};
use futures_util::TryStreamExt;
use mainstay_core::backend::{Begin, Call, Isolation, Lane, Savepoint};
use mainstay_core::error::Report;
use mainstay_core::{Error, Kind, Result};
use std::pin::pin;
use std::sync::Arc;
use tokio_postgres::{Client, SimpleQueryMessage};

/// What came back of a COMMIT.
pub(crate) enum CommitAnswer {
    /// It was committed, whatever came afterwards.
    Committed,
    /// The transaction had been aborted before.
    RolledBack,
    /// The server refused.
    Refused(tokio_postgres::Error),
    /// The server was ready again without a word about COMMIT, which it never is.
    Nothing,
}

/// Sends COMMIT and waits for what comes back. A connection that is lost before is an error.
pub(crate) async fn commit(
    client: &Client,
    log: &Log,
) -> Result<CommitAnswer, tokio_postgres::Error> {
    let mut answer = CommitAnswer::Nothing;
    let outcome = async {
        let mut answers = pin!(client.simple_query_raw("COMMIT").await?);
        while let Some(message) = answers.try_next().await? {
            if matches!(message, SimpleQueryMessage::CommandComplete(_)) {
                answer = if log.has_rolled_back() {
                    CommitAnswer::RolledBack
                } else {
                    CommitAnswer::Committed
                };
            }
        }
        Ok::<_, tokio_postgres::Error>(())
    };
    match outcome.await {
        Err(error) if matches!(answer, CommitAnswer::Nothing) => match error.as_db_error() {
            Some(_) => Ok(CommitAnswer::Refused(error)),
            None => Err(error),
        },
        _ => Ok(answer),
    }
}

/// COMMIT was answered with ROLLBACK.
pub(crate) fn was_aborted() -> Error {
    Report::new(
        Kind::TransactionOver,
        "the transaction was aborted by an earlier error and was rolled back instead",
    )
    .sqlstate("25P02")
    .remedy("look at the first error in the transaction")
    .into()
}

/// `BEGIN` with everything that was asked for. That it may write is never said: the server's own default
/// decides it, and READ WRITE would overrule that.
pub(crate) fn begin_text(begin: Begin, lane: Lane) -> String {
    let mut text = "BEGIN".to_owned();
    if let Some(isolation) = begin.isolation {
        let level = match isolation {
            Isolation::ReadCommitted => "READ COMMITTED",
            Isolation::RepeatableRead => "REPEATABLE READ",
            Isolation::Serializable => "SERIALIZABLE",
        };
        text.push_str(" ISOLATION LEVEL ");
        text.push_str(level);
    }
    if begin.read_only || lane == Lane::Read {
        text.push_str(" READ ONLY");
    }
    text
}

/// BEGIN and what goes behind it, in one text.
pub(crate) fn opening_text(mut begin: String, limit: Option<String>) -> String {
    if let Some(limit) = limit {
        begin.push(';');
        begin.push_str(&limit);
    }
    begin
}

impl Link {
    /// `BEGIN` for this session, and how many requests were sent before it.
    ///
    /// A session of the read lane that is to write goes back to the server's own default first, in the same
    /// flight.
    pub(crate) fn opening(&self, usage: &mut Usage, begin: Begin, lane: Lane) -> (String, u64) {
        let text = begin_text(begin, lane);
        if begin.read_only || lane == Lane::Read {
            return (text, 0);
        }
        let turns = self.style.lanes && usage.lane == Lane::Read;
        if let Some(setting) = Guard::Setting(Lane::Write).before().filter(|_| turns) {
            // Should it fail, what follows cannot write, and the server's report does not agree with the
            // lane.
            drop(launch(self.client.batch_execute(setting)));
            usage.lane = Lane::Write;
        }
        let is_reported = !self.style.pooled && self.log.glance().read_only == Some(false);
        if is_reported && !turns {
            usage.settled_lane = usage.lane;
        }
        (text, u64::from(turns))
    }

    /// Opens a transaction.
    pub(crate) async fn begin(self: &Arc<Self>, begin: Begin, call: Call) -> Result<()> {
        self.refuse_second_transaction()?;
        self.refuse_late(call.deadline)?;
        let flight = Flight::start(self);
        let outcome = self.send_begin(begin, call).await;
        flight.land();
        outcome
    }

    pub(crate) fn refuse_second_transaction(&self) -> Result<()> {
        if !self.is_in_transaction() {
            return Ok(());
        }
        let message = "a transaction is open already";
        Err(Report::new(Kind::TransactionOver, message).into())
    }

    async fn send_begin(&self, begin: Begin, call: Call) -> Result<()> {
        let limit = self.limit_of_transaction(call).await?;
        let mut leg = self.leg(Phase::Prepare);
        let text = {
            let mut usage = self.usage();
            usage.transaction = Some(access(begin, call.lane));
            let (text, before) = self.opening(&mut usage, begin, call.lane);
            leg.index += before;
            opening_text(text, limit)
        };
        let outcome = self
            .answer(leg, call.deadline, self.client.batch_execute(&text))
            .await;
        if outcome.is_err() {
            self.usage().transaction = None;
        }
        outcome
    }

    /// Commits.
    pub(crate) async fn commit(self: &Arc<Self>, call: Call) -> Result<()> {
        let flight = Flight::start(self);
        let outcome = self.send_commit(call).await;
        flight.land();
        outcome
    }

    async fn send_commit(self: &Arc<Self>, call: Call) -> Result<()> {
        if self.end_unsent() {
            return Ok(());
        }
        if let Err(error) = self.have_begun(call).await {
            if !self.is_ended() {
                self.send_roll_back(call).await?;
            }
            return Err(error);
        }
        if self.log.state() == TransactionState::Idle && !self.log.is_pending() && !self.is_ended()
        {
            self.usage().transaction = None;
            let message = "there is no transaction to commit; a statement inside it has ended it";
            return Err(Report::new(Kind::TransactionOver, message).into());
        }
        self.refuse_late(call.deadline)?;
        let leg = self.leg(Phase::Commit);
        let request = commit(&self.client, &self.log);
        match self.answer(leg, call.deadline, request).await? {
            CommitAnswer::Committed => {
                self.usage().transaction = None;
                Ok(())
            }
            CommitAnswer::RolledBack => {
                self.usage().transaction = None;
                Err(was_aborted())
            }
            CommitAnswer::Refused(error) => {
                let error = self.judge(leg, error);
                self.settle_refusal(call).await;
                if self.log.state() == TransactionState::Idle {
                    self.usage().transaction = None;
                } else if !self.is_ended() {
                    self.send_roll_back(call).await?;
                }
                Err(error)
            }
            CommitAnswer::Nothing => Err(self.unanswered_commit()),
        }
    }

    /// The server was silent about COMMIT.
    pub(crate) fn unanswered_commit(&self) -> Error {
        self.usage().broken = true;
        let message = "the server was silent about COMMIT";
        self.in_doubt(Report::new(Kind::OutcomeUnknown, message).into())
    }

    /// Rolls back; without a transaction it does nothing.
    pub(crate) async fn roll_back(self: &Arc<Self>, call: Call) -> Result<()> {
        if self.end_unsent() || !self.is_in_transaction() && !self.log.is_pending() {
            return Ok(());
        }
        let flight = Flight::start(self);
        let outcome = self.send_roll_back(call).await;
        flight.land();
        outcome
    }

    pub(crate) async fn send_roll_back(&self, call: Call) -> Result<()> {
        let leg = self.leg(Phase::Transaction);
        let outcome = self
            .answer(leg, call.deadline, self.client.batch_execute("ROLLBACK"))
            .await;
        if outcome.is_ok() {
            let mut usage = self.usage();
            usage.transaction = None;
            usage.opening = Opening::Over;
        }
        outcome
    }

    /// Sets, releases or rolls back to a savepoint.
    pub(crate) async fn savepoint(self: &Arc<Self>, step: Savepoint, call: Call) -> Result<()> {
        let text = match step {
            Savepoint::Set(depth) => format!("SAVEPOINT mainstay_{depth}"),
            Savepoint::Release(depth) => format!("RELEASE SAVEPOINT mainstay_{depth}"),
            Savepoint::RollBack(depth) => {
                format!("ROLLBACK TO SAVEPOINT mainstay_{depth};RELEASE SAVEPOINT mainstay_{depth}")
            }
        };
        let flight = Flight::start(self);
        let stepping = async {
            let leg = self.leg(Phase::Transaction);
            self.answer(leg, call.deadline, self.client.batch_execute(&text))
                .await
        };
        let outcome = self.behind_begin(call, stepping).await;
        if outcome.is_err() {
            self.settle_refusal(call).await;
        }
        flight.land();
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_never_allowed_to_write_by_us() {
        let mut begin = Begin::default();
        assert_eq!(begin_text(begin, Lane::Write), "BEGIN");
        assert_eq!(begin_text(begin, Lane::Read), "BEGIN READ ONLY");
        begin.isolation = Some(Isolation::Serializable);
        assert_eq!(
            begin_text(begin, Lane::Write),
            "BEGIN ISOLATION LEVEL SERIALIZABLE"
        );
        begin.read_only = true;
        assert_eq!(
            begin_text(begin, Lane::Write),
            "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY"
        );
    }
}
