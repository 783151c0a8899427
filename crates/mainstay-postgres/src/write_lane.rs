//! The lane on which everything is allowed: what obviously belongs to it, atomic batches, scripts.

use crate::classify::{Phase, ServerError};
use crate::flight::{Leg, launch};
use crate::pooled::refuse_session_state;
use crate::run::fetch;
use crate::session::{Flight, Link};
use crate::sql;
use crate::statements::{Prepared, refuse_unsendable};
use crate::transaction::{CommitAnswer, commit, opening_text, was_aborted};
use crate::wire::TransactionState;
use mainstay_core::backend::{Begin, Call, Lane, Presumption, Want};
use mainstay_core::error::Report;
use mainstay_core::{Class, Error, Kind, Result, Statement};
use std::sync::Arc;

/// Says what the first keyword alone tells.
pub(crate) fn presume(text: &str) -> Presumption {
    sql::first_keyword(text).map_or(Presumption::Unknown, |keyword| {
        Presumption::of_keyword(&keyword)
    })
}

impl Link {
    /// Runs statements as one transaction in one flight.
    pub(crate) async fn batch(
        self: &Arc<Self>,
        statements: &[Statement],
        begin: Begin,
        call: Call,
    ) -> Result<Vec<u64>> {
        if self.is_in_transaction() {
            let message = "a batch is a transaction of its own and one is open already";
            return Err(Report::new(Kind::TransactionOver, message).into());
        }
        let flight = Flight::start(self);
        let outcome = match self.prepare_all(statements, call).await {
            Ok(prepared) => self.fly(statements, &prepared, begin, call).await,
            // A table that an earlier statement creates is not there yet when a later one is
            // prepared; one by one they find it.
            Err(error) if error.downcast_ref::<ServerError>().is_some() && !self.is_ended() => {
                self.one_by_one(statements, begin, call).await
            }
            Err(error) => Err(error),
        };
        if outcome.is_err() {
            self.settle_refusal(call).await;
            // A COMMIT that was not sent leaves it open.
            if self.log.state() != TransactionState::Idle && !self.is_ended() {
                self.roll_back_quietly(call).await;
            }
        }
        flight.land();
        outcome
    }

    async fn prepare_all(
        &self,
        statements: &[Statement],
        call: Call,
    ) -> Result<Vec<Arc<Prepared>>> {
        let mut prepared = Vec::with_capacity(statements.len());
        for statement in statements {
            let deadline = call.deadline;
            prepared.push(
                self.prepared(statement.text(), statement.params(), deadline)
                    .await?,
            );
        }
        Ok(prepared)
    }

    async fn fly(
        &self,
        statements: &[Statement],
        prepared: &[Arc<Prepared>],
        begin: Begin,
        call: Call,
    ) -> Result<Vec<u64>> {
        let mut bound = Vec::with_capacity(statements.len());
        for (statement, prepared) in statements.iter().zip(prepared) {
            bound.push(prepared.bind(statement.params())?);
        }
        let limit = self.limit_of_transaction(call).await?;
        self.refuse_late(call.deadline)?;
        // With COMMIT on its way behind them, whatever is lost is a lost COMMIT.
        let index = statements.len() as u64 + 1;
        let mut leg = Leg {
            index,
            ..self.leg(Phase::Commit)
        };
        let (begun, running, committed) = {
            let mut usage = self.usage(); // nobody else sends in between
            let (opening, before) = self.opening(&mut usage, begin, Lane::Write);
            leg.index += before;
            let opening = opening_text(opening, limit);
            let begun = launch(async move { self.client.batch_execute(&opening).await });
            let running: Vec<_> = statements
                .iter()
                .zip(prepared)
                .zip(bound)
                .map(|((statement, prepared), bound)| {
                    launch(fetch(
                        &self.client,
                        prepared,
                        statement.text(),
                        bound,
                        Want::Affected,
                        usize::MAX,
                    ))
                })
                .collect();
            (begun, running, launch(commit(&self.client, &self.log)))
        };
        let begun = self.answer(leg, call.deadline, begun.landed()).await;
        let mut affected = Vec::with_capacity(running.len());
        let mut first_error = None;
        for request in running {
            match self.answer(leg, call.deadline, request.landed()).await {
                Ok(fetched) => affected.push(fetched.affected()),
                Err(error) => drop(first_error.get_or_insert(error)),
            }
        }
        let committed = self.answer(leg, call.deadline, committed.landed()).await;
        self.judge_batch(leg, begun, first_error, affected, committed)
    }

    /// One answer from those of the flight. Each request had its own Sync, so when BEGIN fails the
    /// statements behind it run on their own.
    fn judge_batch(
        &self,
        leg: Leg,
        begun: Result<()>,
        first_error: Option<Error>,
        affected: Vec<u64>,
        committed: Result<CommitAnswer>,
    ) -> Result<Vec<u64>> {
        if let Err(error) = begun {
            self.usage().broken = true;
            if error.is_outcome_unknown() || affected.is_empty() {
                return Err(error);
            }
            let message = "the transaction did not begin, and statements meant for it ran alone";
            let report = Report::new(Kind::OutcomeUnknown, message).source(error);
            return Err(self.in_doubt(report.into()));
        }
        if let Some(error) = first_error {
            return Err(error);
        }
        Err(match committed? {
            CommitAnswer::Committed => return Ok(affected),
            CommitAnswer::RolledBack => was_aborted(),
            CommitAnswer::Refused(error) => self.judge(leg, error),
            CommitAnswer::Nothing => self.unanswered_commit(),
        })
    }

    async fn one_by_one(
        self: &Arc<Self>,
        statements: &[Statement],
        begin: Begin,
        call: Call,
    ) -> Result<Vec<u64>> {
        self.begin(begin, call).await?;
        let mut affected = Vec::with_capacity(statements.len());
        for statement in statements {
            match self.run(statement, Want::Affected, call).await {
                Ok(reply) => affected.push(reply.affected),
                Err(error) => {
                    self.roll_back_quietly(call).await;
                    return Err(error);
                }
            }
        }
        self.commit(call).await?;
        Ok(affected)
    }

    /// Ends a transaction that has failed already. If that fails too, the session stays dirty, and
    /// the server rolls back what it loses.
    async fn roll_back_quietly(&self, call: Call) {
        if let Err(error) = self.send_roll_back(call).await {
            tracing::debug!(%error, "a failed batch could not be rolled back");
        }
    }

    /// Runs a text of several statements one after the other.
    pub(crate) async fn script(self: &Arc<Self>, text: &str, call: Call) -> Result<()> {
        let flight = Flight::start(self);
        let outcome = self.run_script(text, call).await;
        if outcome.is_err() {
            self.settle_refusal(call).await;
        }
        flight.land();
        outcome
    }

    async fn run_script(&self, text: &str, call: Call) -> Result<()> {
        refuse_unsendable(text)?;
        let statements = sql::statements(text);
        let count = statements.len();
        self.have_begun(call).await?;
        let is_one_unit = self.is_in_transaction();
        // A transaction that the user of an exclusive session began by hand is theirs to end.
        if self.usage().transaction.is_some() {
            refuse_transaction_control(&statements)?;
        }
        for (index, statement) in statements.into_iter().enumerate() {
            refuse_unsendable(statement)?;
            if self.style.pooled {
                refuse_session_state(statement)?;
            }
            let in_place = |error| numbered(error, index + 1, count, is_one_unit);
            self.refuse_late(call.deadline).map_err(in_place)?;
            let guarded = self.send_guarded(call.lane, None, self.client.batch_execute(statement));
            self.land_guarded(guarded, call).await.map_err(in_place)?;
        }
        Ok(())
    }
}

/// A script inside a transaction is a part of it: a migration that commits by itself would be
/// applied without its record.
fn refuse_transaction_control(statements: &[&str]) -> Result<()> {
    for statement in statements {
        let mut words = sql::tokens(statement).filter_map(|token| match token {
            sql::Token::Word { name, .. } => Some(name),
            _ => None,
        });
        let Some(keyword) = sql::first_keyword(statement) else {
            continue;
        };
        let is_control = match &*keyword {
            "begin" | "start" | "commit" | "end" | "abort" => true,
            "rollback" => words.nth(1).is_none_or(|second| second != "to"),
            "prepare" => words.nth(1).is_some_and(|second| second == "transaction"),
            _ => false,
        };
        if is_control {
            let message =
                format!("`{keyword}` would end the transaction that this script is part of");
            return Err(Report::new(Kind::SessionStatement, message)
                .remedy("leave it out: the script is committed as a whole or not at all")
                .into());
        }
    }
    Ok(())
}

/// Says which of several statements it was. What ran before it has happened, unless a transaction
/// holds it all, so the script as a whole must not be run again.
fn numbered(error: Error, number: usize, count: usize, is_one_unit: bool) -> Error {
    if count < 2 {
        return error;
    }
    let message = format!("statement {number} of {count}: {}", error.message());
    let repeatable = is_one_unit || number == 1 || error.is_outcome_unknown();
    let class = if repeatable {
        error.class()
    } else {
        Class::Permanent
    };
    error.into_report().message(message).class(class).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_keyword_tells_what_it_can() {
        for (text, presumption) in [
            ("select 1", Presumption::Unknown),
            (
                "WITH x AS (INSERT INTO t VALUES (1)) SELECT 1",
                Presumption::Unknown,
            ),
            ("values (1)", Presumption::Unknown),
            ("table t", Presumption::Unknown),
            ("explain analyze delete from t", Presumption::Unknown),
            ("show all", Presumption::Unknown),
            ("", Presumption::Unknown),
            ("'update'", Presumption::Unknown),
            ("Insert into t values (1)", Presumption::Writes),
            (
                "-- why\n/* a /* b */ */ update t set a = 1",
                Presumption::Writes,
            ),
            ("(((delete", Presumption::Writes),
            (";; do $$ begin end $$", Presumption::Writes),
            ("call p()", Presumption::Writes),
            ("vacuum t", Presumption::Writes),
            ("checkpoint", Presumption::Writes),
            ("SET search_path = x", Presumption::Session("set")),
            ("begin", Presumption::Session("begin")),
            ("Rollback to a", Presumption::Session("rollback")),
            ("lock table t", Presumption::Session("lock")),
            ("listen c", Presumption::Session("listen")),
            ("attach database 'x' as y", Presumption::Session("attach")),
        ] {
            assert_eq!(presume(text), presumption, "{text}");
        }
    }
}
