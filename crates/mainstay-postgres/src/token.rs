//! Beginning a transaction together with the row by which it can be asked for later.
//!
//! BEGIN and the row travel as *one* request, not as two in one flight. Each request has a Sync of
//! its own, so a row behind a BEGIN that failed (a late cancel is enough) would be committed by
//! itself, and say of a transaction that never was that it is done. Within one request the server
//! leaves out everything behind an error.

use crate::classify::Phase;
use crate::flight::Leg;
use crate::session::{Flight, Link};
use crate::transaction::opening_text;
use crate::wire::TransactionState;
use mainstay_core::Deadline;
use mainstay_core::Result;
use mainstay_core::backend::{Begin, Call};
use mainstay_core::token::{Origin, Token};
use std::fmt::Write;
use std::sync::Arc;
use tokio_postgres::SimpleQueryMessage;

/// The session's own row. The start travels as a number, so that no setting changes its text.
const ORIGIN: &str = "
select pid, (extract(epoch from backend_start) * 1000000)::bigint
from pg_catalog.pg_stat_activity where pid = pg_catalog.pg_backend_pid()";

/// The server's process and the start of the transaction: behind a pooler the session goes on to
/// somebody else afterwards, so it must not be known by its own start.
const TRANSACTION: &str = ";\
select pg_catalog.pg_backend_pid(),
    (extract(epoch from pg_catalog.now()) * 1000000)::bigint";

impl Link {
    /// Opens a transaction and writes the token's row, in one round trip.
    pub(crate) async fn begin_with_token(
        self: &Arc<Self>,
        begin: Begin,
        token: &Token,
        call: Call,
    ) -> Result<()> {
        self.refuse_second_transaction()?;
        let flight = Flight::start(self);
        let outcome = match self.learn_origin(call.deadline).await {
            Ok(()) => self.send_begin_with_token(begin, token, call).await,
            Err(error) => Err(error),
        };
        flight.land();
        outcome
    }

    async fn send_begin_with_token(&self, begin: Begin, token: &Token, call: Call) -> Result<()> {
        let limit = self.limit_of_transaction(call).await?;
        let is_limited = limit.is_some();
        let mark = self.leg(Phase::Prepare);
        let (begin, before) = self.opening(&mut self.usage(), begin, call.lane);
        let mut text = opening_text(begin, limit) + ";" + &insert_text(token);
        if self.style.pooled {
            text.push_str(TRANSACTION);
        }
        let leg = Leg {
            completes: if is_limited { 3 } else { 2 },
            index: before,
            ..mark
        };
        self.usage().transaction = Some(call.lane);
        let request = self.client.simple_query(&text);
        let outcome = self.answer(leg, call.deadline, request).await;
        let outcome = outcome.map(|answers| self.note_transaction(&answers));
        if outcome.is_err() && !self.is_ended() && !self.usage().abandoned {
            self.settle_refusal(call).await;
            if self.log.state() == TransactionState::Idle {
                self.usage().transaction = None;
            } else if let Err(error) = self.send_roll_back(call).await {
                // It stays dirty and is cleaned before anybody else gets it.
                tracing::debug!(%error, "a transaction that did not begin was not rolled back");
            }
        }
        outcome
    }

    /// Behind a pooler the session is another one each time, so each transaction tells its own.
    fn note_transaction(&self, answers: &[SimpleQueryMessage]) {
        if !self.style.pooled {
            return;
        }
        *self.origin() = answers.iter().find_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => Some(Origin {
                process: row.get(0)?.parse().ok()?,
                started: row.get(1)?.parse().ok()?,
            }),
            _ => None,
        });
    }

    /// Asks once which session this is, unless each transaction says so.
    async fn learn_origin(&self, deadline: Deadline) -> Result<()> {
        if self.style.pooled {
            *self.origin() = None;
            return Ok(());
        }
        if self.origin().is_some() {
            return Ok(());
        }
        let leg = self.leg(Phase::Prepare);
        let rows = self
            .answer(leg, deadline, self.client.query_typed(ORIGIN, &[]))
            .await?;
        if let Some(row) = rows.first() {
            let process = row.try_get(0).map_err(|error| self.judge(leg, error))?;
            let started = row.try_get(1).map_err(|error| self.judge(leg, error))?;
            *self.origin() = Some(Origin { process, started });
        }
        Ok(())
    }
}

/// The row's statement. A request of several statements has no parameters, so the values travel as
/// digits, which need no quoting whatever is in them.
fn insert_text(token: &Token) -> String {
    format!(
        "INSERT INTO _mainstay_tokens (token, state) VALUES ({}, {})",
        text_literal(token.key()),
        text_literal(token.mark())
    )
}

fn text_literal(text: &str) -> String {
    let mut literal = "pg_catalog.convert_from(pg_catalog.decode('".to_owned();
    for byte in text.bytes() {
        write!(literal, "{byte:02x}").expect("writing to a String does not fail");
    }
    literal.push_str("', 'hex'), 'UTF8')");
    literal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reaches_the_text_as_digits_only() {
        let text = insert_text(&Token::new("';drop", "n"));
        assert!(text.contains("decode('273b64726f70', 'hex')"), "{text}");
        assert!(!text.contains("drop"), "{text}");
    }
}
