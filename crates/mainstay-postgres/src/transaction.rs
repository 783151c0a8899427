//! Transactions and savepoints.
//!
//! PostgreSQL answers COMMIT of an aborted transaction with ROLLBACK and without an error, so a
//! driver that looks at the absence of an error only reports a success that never was. `SELECT` is
//! sent before it in the same text: in an aborted transaction that is an error (25P02), otherwise
//! it costs nothing. And an error that comes *after* COMMIT was reported complete does not undo it,
//! so the completions are counted.

use crate::classify::Phase;
use crate::flight::{Leg, launch};
use crate::opening::{Opening, access};
use crate::read_lane::TO_THE_SERVERS_DEFAULT;
use crate::session::{Flight, Link, Usage};
use crate::wire::TransactionState;
use futures_util::TryStreamExt;
use mainstay_core::backend::{Begin, Call, Isolation, Lane, Savepoint};
use mainstay_core::error::Report;
use mainstay_core::{Error, Kind, Result};
use std::pin::pin;
use std::sync::Arc;
use tokio_postgres::{Client, SimpleQueryMessage};

/// Fails in an aborted transaction instead of rolling back without a word.
const COMMIT: &str = "SELECT;COMMIT";

/// How many commands of it the server reports complete.
pub(crate) const COMPLETES: u32 = 2;

/// What came back of a COMMIT.
pub(crate) struct CommitAnswer {
    completes: u32,
    error: Option<tokio_postgres::Error>,
}

impl CommitAnswer {
    pub(crate) fn is_committed(&self) -> bool {
        self.completes >= COMPLETES
    }

    /// An answer is one that came; a connection that was lost first is an error.
    pub(crate) fn or_lost(self) -> Result<Self, tokio_postgres::Error> {
        match self.error {
            Some(error) if self.completes < COMPLETES && error.as_db_error().is_none() => {
                Err(error)
            }
            error => Ok(Self { error, ..self }),
        }
    }

    pub(crate) fn into_error(self) -> Option<tokio_postgres::Error> {
        self.error
    }
}

/// Sends COMMIT and waits for what comes back.
pub(crate) async fn commit(client: Arc<Client>) -> CommitAnswer {
    let mut completes = 0;
    let outcome = async {
        let mut answers = pin!(client.simple_query_raw(COMMIT).await?);
        while let Some(message) = answers.try_next().await? {
            if matches!(message, SimpleQueryMessage::CommandComplete(_)) {
                completes += 1;
            }
        }
        Ok(())
    };
    let error = outcome.await.err();
    CommitAnswer { completes, error }
}

/// `BEGIN` with everything that was asked for; the access mode is always said, because the
/// session's default is its lane's.
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
    text.push_str(if begin.read_only || lane == Lane::Read {
        " READ ONLY"
    } else {
        " READ WRITE"
    });
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
    /// `BEGIN` for this session. Where the server's own default says whether it takes writes, a
    /// transaction that writes does not say the opposite: the session goes back to that default, in the
    /// same flight, and begins as it is.
    pub(crate) fn opening(&self, usage: &mut Usage, begin: Begin, lane: Lane) -> String {
        let text = begin_text(begin, lane);
        let Some(plain) = text
            .strip_suffix(" READ WRITE")
            .filter(|_| self.style.defers)
        else {
            return text;
        };
        if self.style.lanes && usage.lane == Lane::Read {
            // Should it fail, what follows is a transaction that cannot write.
            drop(launch(self.client.batch_execute(TO_THE_SERVERS_DEFAULT)));
            usage.lane = Lane::Write;
        }
        plain.to_owned()
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
        let leg = self.leg(Phase::Prepare);
        let text = {
            let mut usage = self.usage();
            usage.transaction = Some(access(begin, call.lane));
            opening_text(self.opening(&mut usage, begin, call.lane), limit)
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
        let leg = Leg {
            completes: COMPLETES,
            ..self.leg(Phase::Commit)
        };
        let client = Arc::clone(&self.client);
        let request = async { commit(client).await.or_lost() };
        let answer = self.answer(leg, call.deadline, request).await?;
        let is_committed = answer.is_committed();
        match answer.into_error() {
            _ if is_committed => {
                self.usage().transaction = None;
                Ok(())
            }
            Some(error) => {
                let error = self.judge(leg, error);
                self.settle_refusal(call).await;
                if self.log.state() == TransactionState::Idle {
                    self.usage().transaction = None;
                } else if !self.is_ended() {
                    self.send_roll_back(call).await?;
                }
                Err(error)
            }
            None => Err(self.unanswered_commit()),
        }
    }

    /// The server was ready again without a word about COMMIT, which it never is.
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
    fn the_access_mode_is_always_said() {
        let mut begin = Begin::default();
        assert_eq!(begin_text(begin, Lane::Write), "BEGIN READ WRITE");
        assert_eq!(begin_text(begin, Lane::Read), "BEGIN READ ONLY");
        begin.isolation = Some(Isolation::Serializable);
        assert_eq!(
            begin_text(begin, Lane::Write),
            "BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE"
        );
        begin.read_only = true;
        assert_eq!(
            begin_text(begin, Lane::Write),
            "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY"
        );
    }
}
