//! One statement: prepare, bind, step, decode.

use crate::bind::bind;
use crate::classify::{Site, classify};
use crate::decode::Shape;
use crate::guard::{Guard, Refuse};
use crate::keyword;
use mainstay_core::backend::{Reply, Want};
use mainstay_core::error::Report;
use mainstay_core::{Class, Error, Evidence, Kind, Result, Row, Value};
use rusqlite::{CachedStatement, Connection, ffi};
use std::ops::ControlFlow;

/// The frame in which a statement runs.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Frame<'w> {
    pub(crate) connection: &'w Connection,
    pub(crate) guard: &'w Guard,
    pub(crate) refuse: Refuse,
    /// Statements that write are refused; why, if they are.
    pub(crate) read_only: Option<ReadOnly>,
}

/// Why a statement that writes is refused.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReadOnly {
    /// It came to the read lane; the write lane takes it.
    Lane,
    /// It is part of a transaction that was begun as read only.
    Transaction,
}

impl<'w> Frame<'w> {
    /// Prepares a text, or takes it from the cache.
    pub(crate) fn prepare(&self, text: &str, site: Site) -> Result<CachedStatement<'w>> {
        let prepared = self
            .guard
            .watch(self.refuse, || self.connection.prepare_cached(text));
        let statement = prepared.map_err(|error| self.explain(error, site))?;
        // SQLite prepares a text of comments to nothing at all, and nothing cannot be executed.
        if statement.column_count() == 0 && statement.readonly() && keyword::is_blank(text) {
            return Err(Report::new(Kind::Statement, "the text holds no statement").into());
        }
        Ok(statement)
    }

    /// An error of preparing; a refusal of the guard has a name.
    pub(crate) fn explain(&self, error: rusqlite::Error, site: Site) -> Error {
        let refused = self.guard.take_refused();
        let is_refusal = match &error {
            rusqlite::Error::SqliteFailure(code, _) => code.extended_code == ffi::SQLITE_AUTH,
            rusqlite::Error::SqlInputError { error, .. } => error.extended_code == ffi::SQLITE_AUTH,
            _ => false,
        };
        match refused.filter(|_| is_refusal) {
            Some(keyword) => session_statement(keyword, self.refuse),
            None => classify(error, site),
        }
    }

    /// Refuses a statement that writes where writing is not allowed, before anything of it runs.
    pub(crate) fn admit(&self, statement: &rusqlite::Statement<'_>) -> Result<()> {
        let Some(read_only) = self.read_only.filter(|_| !statement.readonly()) else {
            return Ok(());
        };
        let report = Report::new(
            Kind::ReadOnly,
            "the statement writes where only reading is allowed",
        )
        .class(Class::Permanent)
        .evidence(Evidence::Neither);
        Err(match read_only {
            ReadOnly::Lane => report.refused_by_read_lane().into(),
            ReadOnly::Transaction => report
                .remedy("begin the transaction without read_only")
                .into(),
        })
    }

    /// Runs one statement to its end.
    pub(crate) fn run(
        &self,
        text: &str,
        params: &[Value],
        want: Want,
        site: impl Fn() -> Site,
    ) -> Result<Reply> {
        let mut statement = self.prepare(text, site())?;
        self.admit(&statement)?;
        bind(&mut statement, params)?;
        let mut rows = Vec::new();
        let room = match want {
            Want::Affected => 0,
            Want::Rows(most) => most,
        };
        let reads = statement.readonly();
        let (shape, returned, affected) = self.step(
            &mut statement,
            matches!(want, Want::Rows(_)),
            site,
            |row, _| {
                if rows.len() < room {
                    rows.push(row);
                }
                // A statement that writes is always carried to its end: it commits there.
                if reads && rows.len() >= room {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            },
        )?;
        let affected = if reads { returned } else { affected };
        Ok(Reply {
            burden: None,
            columns: shape.columns,
            rows,
            affected,
        })
    }

    /// Runs one statement of a script to its end; its rows are nobody's.
    pub(crate) fn script_statement(
        &self,
        statement: &mut rusqlite::Statement<'_>,
        site: impl Fn() -> Site,
    ) -> Result<()> {
        if statement.parameter_count() > 0 {
            let message = "a script takes no parameters";
            return Err(Report::new(Kind::Statement, message).into());
        }
        self.admit(statement)?;
        self.step(statement, false, site, |_, _| ControlFlow::Continue(()))
            .map(drop)
    }

    /// Steps through a bound statement and hands out its rows when they are wanted. Answers the
    /// shape of the result, how many rows there were, and how many rows were changed.
    pub(crate) fn step(
        &self,
        statement: &mut rusqlite::Statement<'_>,
        decode: bool,
        site: impl Fn() -> Site,
        mut take: impl FnMut(Row, usize) -> ControlFlow<()>,
    ) -> Result<(Shape, u64, u64)> {
        let reads = statement.readonly();
        let commits = self.commits(reads);
        let changes_before = self.connection.total_changes();
        let mut shape = None;
        let mut undecodable = None;
        let mut returned = 0;
        let mut rows = statement.raw_query();
        loop {
            let row = rows.next().map_err(|error| {
                let on_read_lane = self.read_only == Some(ReadOnly::Lane);
                classify(
                    error,
                    Site {
                        commits,
                        on_read_lane,
                        ..site()
                    },
                )
            })?;
            let Some(row) = row else { break };
            returned += 1;
            let shape = shape.get_or_insert_with(|| Shape::of(row.as_ref()));
            if !decode || undecodable.is_some() {
                continue;
            }
            match shape.row(row) {
                Ok((row, bytes)) => {
                    if take(row, bytes).is_break() {
                        break;
                    }
                }
                Err(error) if reads => return Err(error),
                // It has written already; the caller learns what it can after it has committed.
                Err(error) => undecodable = Some(error),
            }
        }
        drop(rows);
        if let Some(error) = undecodable {
            let message = format!("{}; the statement itself was carried out", error.message());
            return Err(error.into_report().message(message).into());
        }
        // Definitions change nothing that is counted, and SQLite then still tells the last count.
        let has_changed = self.connection.total_changes() != changes_before;
        let affected = if has_changed && !reads {
            self.connection.changes()
        } else {
            0
        };
        Ok((
            shape.unwrap_or_else(|| Shape::of(statement)),
            returned,
            affected,
        ))
    }
}

impl Frame<'_> {
    /// Whether a statement that is about to run may be the one that commits: outside a transaction
    /// every write is; inside one that somebody with exclusive use has begun, any may be a COMMIT.
    fn commits(&self, reads: bool) -> bool {
        match self.connection.is_autocommit() {
            true => !reads,
            false => self.refuse == Refuse::Nothing,
        }
    }
}

/// The refusal of a statement that changes the session.
fn session_statement(keyword: &'static str, refuse: Refuse) -> Error {
    let (message, remedy) = match (refuse, keyword) {
        (_, "pragma") => (
            format!("`{keyword}` changes the session, which the next caller would inherit"),
            "to read, select from pragma_table_info(…) and its like; to change, use with_connection",
        ),
        (Refuse::SessionChanges, _) => (
            format!("`{keyword}` changes the session, which the next caller would inherit"),
            "use with_connection for session state, transaction for transactions",
        ),
        _ => (
            format!("`{keyword}` is not for the inside of a transaction"),
            "the transaction's own methods begin, nest and end it",
        ),
    };
    Report::new(Kind::SessionStatement, message)
        .remedy(remedy)
        .into()
}
