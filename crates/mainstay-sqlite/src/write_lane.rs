//! Writing more than one statement: atomic batches, and scripts.

use crate::signals::Ticket;
use crate::worker::Worker;
use mainstay_core::backend::{Begin, Lane, Want};
use mainstay_core::error::Report;
use mainstay_core::{Error, Kind, Result, Statement};
use rusqlite::Batch;
use rusqlite::fallible_iterator::FallibleIterator;
use std::sync::Arc;

impl Worker {
    /// Runs statements as one atomic unit, with one visit to the thread. Inside a transaction they
    /// become part of it.
    pub(crate) fn batch(
        &mut self,
        statements: &[Statement],
        begin: Begin,
        lane: Lane,
        ticket: &Arc<Ticket>,
    ) -> Result<Vec<u64>> {
        let is_own = self.unit.is_idle();
        if is_own {
            self.begin(begin, lane)?;
        }
        let ran = self.run_all(statements, lane);
        if !is_own {
            return ran;
        }
        match ran {
            Ok(affected) => self.commit(ticket).map(|()| affected),
            Err(error) => {
                self.roll_back()?;
                Err(error)
            }
        }
    }

    fn run_all(&mut self, statements: &[Statement], lane: Lane) -> Result<Vec<u64>> {
        let mut affected = Vec::with_capacity(statements.len());
        for statement in statements {
            self.check_not_stopped()?;
            affected.push(self.run(statement, Want::Affected, lane)?.affected);
        }
        Ok(affected)
    }

    /// Runs a text of several statements. SQLite says where each ends: a `;` may stand in a string,
    /// a comment or a trigger.
    pub(crate) fn script(&mut self, text: &str, lane: Lane) -> Result<()> {
        self.unit.check_usable()?;
        let result = self.script_statements(text, lane);
        self.note(result)
    }

    fn script_statements(&self, text: &str, lane: Lane) -> Result<()> {
        let frame = self.frame(lane)?;
        let in_transaction = !self.unit.is_idle();
        let mut batch = Batch::new(frame.connection, text);
        for number in 1_u64.. {
            let prepared = frame.guard.watch(frame.refuse, || batch.next());
            let prepared = prepared.map_err(|error| frame.explain(error, self.site()));
            let Some(mut statement) = prepared.map_err(|error| at(number, error))? else {
                break;
            };
            let ran = frame.script_statement(&mut statement, || self.site());
            ran.map_err(|error| at(number, error))?;
            if in_transaction && frame.connection.is_autocommit() {
                let message = "the statement ended the transaction that the script is part of";
                return Err(at(
                    number,
                    Report::new(Kind::TransactionOver, message).into(),
                ));
            }
        }
        Ok(())
    }
}

fn at(number: u64, error: Error) -> Error {
    let message = format!("statement {number} of the script: {}", error.message());
    error.into_report().message(message).into()
}
