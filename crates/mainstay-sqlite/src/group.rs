//! Writes that are committed together.
//!
//! A commit is durable when the disk has synced it, and a sync costs as much for a hundred writes as
//! for one. So what queued while the last commit was being synced goes into one transaction, each
//! write in a savepoint of its own, and nobody is answered before COMMIT has succeeded. There is no
//! delay in it: a write that comes alone is committed alone.
//!
//! That is the same as if they had been run one after the other, as long as nothing of it is told
//! before COMMIT: neither rows nor counts nor errors, which may speak of a row that a neighbour has
//! just written. What makes it hold:
//!
//! * A write that fails is undone by its savepoint, and its neighbours never notice.
//! * Some failures take the whole transaction (`insert or rollback`, `raise(rollback)`, a full disk,
//!   an interrupted write). Then the others are run again, in their order, and the one that did it
//!   is run behind them by itself, where its error is its own.
//! * A foreign key that is checked at COMMIT is checked behind each write, or one could be repaired
//!   by the next, or fail everybody.
//! * Whoever gave up is skipped if he has not begun, and stopped if he has; others are not.
//! * A COMMIT that finds the file locked is repeated; one that the disk failed is unknown for all.

use crate::classify::{Site, classify, not_begun, stopped};
use crate::queue::{Answer, Source, Task, Work, Write};
use crate::read_lane::lost;
use crate::signals::{Stop, Ticket};
use crate::transaction::Unit;
use crate::worker::{Worker, broken};
use mainstay_core::backend::{Lane, Want};
use mainstay_core::error::Report;
use mainstay_core::{Class, Error, Evidence, Kind, Result};
use rusqlite::ffi;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How often a group is run again because one of it took the transaction with it; after that
/// everybody is run alone. It bounds the work at so many times what the writes themselves need.
const REPLAYS_MAX: u32 = 8;

const SET: &str = "SAVEPOINT mainstay_write";
const RELEASE: &str = "RELEASE mainstay_write";
const UNDO: &str = "ROLLBACK TO mainstay_write";

/// A write whose statements have run, and what its caller is told if COMMIT succeeds.
struct Member {
    write: Write,
    result: Result<Answer>,
}

/// What a write has left of the transaction.
#[derive(Debug)]
enum Ran {
    /// The transaction is open; the write's effects are in it, or undone if it failed.
    Open(Result<Answer>),
    /// The transaction is gone with everything in it.
    Gone(Error),
}

impl Worker {
    /// Commits a write, together with what has queued behind it. Answers what came out of the queue
    /// that is to be done next.
    pub(crate) fn write(&mut self, first: Write, queue: &mut mpsc::Receiver<Task>) -> Option<Task> {
        if !first.may_share() {
            self.write_by_itself(first);
            return None;
        }
        let mut source = Source::new(first, queue);
        let mut replays = 0;
        while let Some((first, shares)) = source.first() {
            // Those who are dropped here are told that the connection is closed.
            if self.is_closing() {
                break;
            }
            if self.is_broken() {
                first.answer(Err(broken()));
                continue;
            }
            if self.transact(first, shares, &mut source) {
                self.opening.counts.replayed();
                replays += 1;
                if replays > REPLAYS_MAX {
                    source.part();
                }
            }
        }
        source.into_rest()
    }

    /// Runs what may not share a transaction: it changes definitions, or cannot be in one.
    fn write_by_itself(&mut self, write: Write) {
        let ticket = Arc::clone(&write.ticket);
        let result = self.perform(&ticket, |worker| match &write.work {
            Work::One(statement, want) => {
                worker.check_file()?;
                worker.run(statement, *want, Lane::Write).map(Answer::Reply)
            }
            Work::Batch(statements) => worker
                .batch(
                    statements,
                    mainstay_core::backend::Begin::default(),
                    Lane::Write,
                    &ticket,
                )
                .map(Answer::Affected),
        });
        // What it made for itself alone is nobody else's.
        if self.is_tainted()
            && let Err(error) = self.restore()
        {
            tracing::debug!(%error, "the session could not be restored");
        }
        write.answer(result);
    }

    /// One transaction: begins, runs everybody, commits and answers. True if somebody destroyed it
    /// and the others have to be run again.
    fn transact(&mut self, first: Write, shares: bool, source: &mut Source<'_>) -> bool {
        let Some(first) = self.begin_for(first) else {
            return false;
        };
        source.begun();
        let mut members: Vec<Member> = Vec::new();
        let mut next = Some(first);
        while let Some(write) = next.take() {
            match self.run_member(&write, !members.is_empty()) {
                Ok(Ran::Open(result)) => members.push(Member { write, result }),
                Ok(Ran::Gone(error)) => return self.part_with(write, error, members, source),
                Err(stop) => write.answer(Err(not_begun(stop))),
            }
            next = if shares { source.next() } else { None };
        }
        self.commit_group(members, source)
    }

    /// Begins a transaction with the lock in hand, for as long as its first write may wait.
    fn begin_for(&mut self, first: Write) -> Option<Write> {
        let begun = match first.ticket.objection() {
            Some(stop) => Err(not_begun(stop)),
            None => self.check_file().and_then(|()| {
                self.signals.replace(Some(Arc::clone(&first.ticket)));
                let begun = self.control("BEGIN IMMEDIATE");
                let stop = self.signals.objection();
                self.signals.replace(None);
                begun.map_err(|error| match stop {
                    Some(stop) => not_begun(stop),
                    None => classify(error, Site::default()),
                })
            }),
        };
        match begun {
            Ok(()) => {
                self.unit = Unit::Open { read_only: false };
                Some(first)
            }
            Err(error) => {
                self.give_up_after(&error);
                first.answer(Err(error));
                None
            }
        }
    }

    /// Runs the statements of one write, in a savepoint if there is something before it. `Err` if it
    /// was not begun because nobody wants it any more.
    fn run_member(&mut self, write: &Write, has_neighbours: bool) -> Result<Ran, Stop> {
        write.ticket.begin(self.statement_limit())?;
        if has_neighbours && let Err(error) = self.control(SET) {
            return Ok(self.gone(classify(error, Site::default())));
        }
        self.signals.take_up(&write.ticket);
        let result = self.run_statements(write);
        self.signals.replace(None);
        if self.has_lost_its_transaction() {
            return Ok(Ran::Gone(match result {
                Ok(_) => lost(),
                Err(error) => error,
            }));
        }
        let result = result.and_then(|answer| self.check_foreign_keys().map(|()| answer));
        let is_kept = match (&result, &write.work) {
            (Ok(_), _) => true,
            // The statement was carried out, only its rows cannot be told.
            (Err(error), Work::One(..)) => error.kind() == Kind::Decode,
            (Err(_), Work::Batch(_)) => false,
        };
        let ended = match (is_kept, has_neighbours) {
            (true, true) => self.control(RELEASE),
            (false, true) => self.control(UNDO).and_then(|()| self.control(RELEASE)),
            (true, false) => Ok(()),
            // There is nothing else in the transaction.
            (false, false) => return Ok(self.gone(failure(result))),
        };
        Ok(match ended {
            Ok(()) => Ran::Open(result),
            Err(error) => self.gone(classify(error, Site::default())),
        })
    }

    fn run_statements(&self, write: &Write) -> Result<Answer> {
        let frame = self.frame(Lane::Write)?;
        match &write.work {
            Work::One(statement, want) => frame
                .run(statement.text(), statement.params(), *want, || self.site())
                .map(Answer::Reply),
            Work::Batch(statements) => {
                let mut affected = Vec::with_capacity(statements.len());
                for statement in statements {
                    if let Some(stop) = write.ticket.objection() {
                        return Err(stopped(stop).into());
                    }
                    let reply =
                        frame.run(statement.text(), statement.params(), Want::Affected, || {
                            self.site()
                        })?;
                    affected.push(reply.affected);
                }
                Ok(Answer::Affected(affected))
            }
        }
    }

    /// Rolls back what is left of a transaction in which nothing is worth keeping.
    fn gone(&mut self, error: Error) -> Ran {
        Ran::Gone(self.roll_back().err().unwrap_or(error))
    }

    fn has_lost_its_transaction(&self) -> bool {
        self.handle().is_ok_and(|handle| handle.is_autocommit())
    }

    /// A write took the transaction with it: the others are run again, without it.
    fn part_with(
        &mut self,
        write: Write,
        error: Error,
        members: Vec<Member>,
        source: &mut Source<'_>,
    ) -> bool {
        self.unit = Unit::Idle;
        let is_certain = members.is_empty() || write.ticket.objection().is_some();
        if is_certain {
            self.give_up_after(&error);
            write.answer(Err(error));
        } else {
            tracing::debug!(%error, "a write took its group's transaction with it");
            source.run_alone(write);
        }
        let others = !members.is_empty();
        if others {
            source.run_again(members.into_iter().map(|member| member.write));
        }
        others
    }

    /// Commits and answers everybody. True if somebody has to be run again.
    fn commit_group(&mut self, members: Vec<Member>, source: &mut Source<'_>) -> bool {
        let earliest = members.iter().map(|member| member.write.deadline).min();
        let Some(earliest) = earliest else {
            // Nobody was left of them.
            let rolled_back = self.roll_back();
            if let Err(error) = rolled_back {
                tracing::debug!(%error, "an empty transaction could not be rolled back");
            }
            return false;
        };
        let committed = self.commit_by(&Ticket::new(Some(earliest)));
        self.unit = Unit::Idle;
        let failure = match committed {
            Ok(()) => {
                self.opening.counts.committed(members.len());
                for Member { write, result } in members {
                    write.answer(result);
                }
                return false;
            }
            Err(failure) => failure,
        };
        if failure.is_outcome_unknown() {
            self.give_up_after(&failure);
            for Member { write, result } in members {
                write.answer(Err(match result {
                    Ok(_) => failure.clone(),
                    Err(error) => unsettled(&error),
                }));
            }
            return false;
        }
        self.part_after(&failure, members, source)
    }

    /// COMMIT failed and nothing of it has happened. Whoever's time is over is told so; if that was
    /// not the reason, it is one of them, and each is run by itself.
    fn part_after(
        &mut self,
        failure: &Error,
        members: Vec<Member>,
        source: &mut Source<'_>,
    ) -> bool {
        let now = Instant::now();
        let is_late = |member: &Member| member.write.deadline.is_past(now);
        let was_deadline = members.iter().any(is_late);
        let is_single = members.len() == 1;
        let mut again = Vec::new();
        for member in members {
            if is_late(&member) {
                member.write.answer(Err(stopped(Stop::Deadline).into()));
            } else if was_deadline {
                again.push(member.write);
            } else if is_single {
                self.give_up_after(failure);
                member.write.answer(Err(failure.clone()));
            } else {
                source.run_alone(member.write);
            }
        }
        let others = !again.is_empty();
        if others {
            source.run_again(again);
        }
        others
    }

    /// Whether a write has left a foreign key open that is to be checked at COMMIT.
    fn check_foreign_keys(&self) -> Result<()> {
        if !owes_foreign_keys(self.handle()?) {
            return Ok(());
        }
        let code = ffi::Error::new(ffi::SQLITE_CONSTRAINT_FOREIGNKEY);
        let text = "FOREIGN KEY constraint failed".to_owned();
        Err(classify(
            rusqlite::Error::SqliteFailure(code, Some(text)),
            Site::default(),
        ))
    }
}

fn failure(result: Result<Answer>) -> Error {
    result.err().unwrap_or_else(lost)
}

/// The error of a write that failed beside others whose outcome is not known: nothing of it has
/// happened, but what it failed at may have been a neighbour's row.
fn unsettled(error: &Error) -> Error {
    let message = format!(
        "the disk failed while the statement waited to be acknowledged (it had failed: {})",
        error.message()
    );
    Report::new(Kind::Storage, message)
        .class(Class::RolledBack)
        .evidence(Evidence::Exhausted)
        .into()
}

/// Asks SQLite whether a foreign key is violated that is checked at COMMIT only.
#[expect(unsafe_code, reason = "sqlite3_db_status has no wrapper")]
fn owes_foreign_keys(connection: &rusqlite::Connection) -> bool {
    let (mut owed, mut unused) = (0, 0);
    // SAFETY: the handle is that of an open connection, which is borrowed for as long as the call
    // takes, on the thread that owns it; both pointers lead to integers that outlive the call, which
    // keeps neither.
    let answered = unsafe {
        ffi::sqlite3_db_status(
            connection.handle(),
            ffi::SQLITE_DBSTATUS_DEFERRED_FKS,
            &raw mut owed,
            &raw mut unused,
            0,
        )
    };
    // A library that cannot tell leaves it to COMMIT, which fails for everybody and is then repeated
    // one by one.
    answered == ffi::SQLITE_OK && owed != 0
}
