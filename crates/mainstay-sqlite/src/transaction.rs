//! Transactions whose state is ours to keep.
//!
//! SQLite ends a transaction by itself when it must (`insert or rollback`, `raise(rollback)`, a full
//! disk, an interrupted write), and whatever is executed next then commits statement by statement.
//! So after every statement SQLite is asked whether the transaction is still there, and after a
//! failure nothing but a rollback is accepted, as on PostgreSQL. Nothing leaks into autocommit.

use crate::classify::{Site, classify, stopped};
use crate::signals::{Stop, Ticket};
use crate::worker::Worker;
use mainstay_core::backend::{Begin, Lane, Savepoint, Want};
use mainstay_core::error::Report;
use mainstay_core::{Class, Error, Evidence, Kind, Result, Statement};
use rusqlite::ffi;
use std::sync::Arc;
use std::time::Duration;

/// The pause between two attempts to commit while another process reads the file.
const COMMIT_PAUSE: Duration = Duration::from_millis(5);

/// The transaction that we began, if one is open.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Unit {
    /// None is open. Exits: `begin`.
    #[default]
    Idle,
    /// Exits: `commit` and `roll_back` to `Idle`, a failed statement to `Aborted` or `Ended`.
    Open { read_only: bool },
    /// A statement failed. Exits: `roll_back` to `Idle`, a savepoint's rollback to `Open`.
    Aborted { read_only: bool },
    /// A statement failed and SQLite rolled everything back. Exit: `roll_back` to `Idle`.
    Ended,
    /// One that was begun by hand was left alone for so long that it was rolled back. What was meant
    /// to be part of it must not commit by itself. Exit: `roll_back` to `Idle`.
    LeftIdle { idle: Duration },
}

impl Unit {
    pub(crate) fn is_idle(self) -> bool {
        self == Self::Idle
    }

    /// Whether writing is refused inside.
    pub(crate) fn is_read_only(self) -> bool {
        matches!(
            self,
            Self::Open { read_only: true } | Self::Aborted { read_only: true }
        )
    }

    /// Refuses everything after a failure.
    pub(crate) fn check_usable(self) -> Result<()> {
        match self {
            Self::Idle | Self::Open { .. } => Ok(()),
            Self::Aborted { .. } | Self::Ended => Err(aborted()),
            Self::LeftIdle { idle } => Err(left_idle(idle)),
        }
    }

    /// What a statement leaves of the transaction.
    fn after(self, failed: bool, autocommit: bool) -> Self {
        match self {
            Self::Open { .. } | Self::Aborted { .. } if autocommit => Self::Ended,
            Self::Open { read_only } if failed => Self::Aborted { read_only },
            unchanged => unchanged,
        }
    }
}

fn aborted() -> Error {
    let message = "the transaction was aborted by an earlier error; nothing of it will be kept";
    Report::new(Kind::TransactionOver, message)
        .class(Class::RolledBack)
        .evidence(Evidence::Neither)
        .remedy("roll it back; use a savepoint around a statement that may fail")
        .into()
}

fn left_idle(idle: Duration) -> Error {
    let idle = idle.as_secs_f64();
    let message = format!("nothing was sent for {idle:.1} s, so the transaction was rolled back");
    Report::new(Kind::TransactionOver, message)
        .evidence(Evidence::Neither)
        .timed_out()
        .remedy("give the connection back and begin anew; do not wait for others in a transaction")
        .into()
}

fn misplaced(message: &'static str) -> Error {
    Report::new(Kind::TransactionOver, message)
        .evidence(Evidence::Neither)
        .into()
}

impl Worker {
    /// Notes what a statement has left of the transaction.
    pub(crate) fn note<T>(&mut self, result: Result<T>) -> Result<T> {
        // A value that the wanted type does not fit is the caller's affair, not the transaction's.
        let failed = result
            .as_ref()
            .is_err_and(|error| error.kind() != Kind::Decode);
        let autocommit = self.handle()?.is_autocommit();
        self.unit = self.unit.after(failed, autocommit);
        result
    }

    /// Opens a transaction: on the write lane with the lock in hand, because a transaction that
    /// reads first and then wants to write is refused at once when somebody else wrote meanwhile.
    pub(crate) fn begin(&mut self, begin: Begin, lane: Lane) -> Result<()> {
        if !self.unit.is_idle() || !self.handle()?.is_autocommit() {
            return Err(misplaced(
                "a transaction is already open on this connection",
            ));
        }
        let read_only = begin.read_only || lane == Lane::Read;
        if !read_only {
            self.check_file()?;
        }
        // What was prepared in exclusive use was not looked at by the guard.
        if self
            .signals
            .handed_over
            .load(std::sync::atomic::Ordering::SeqCst)
        {
            self.handle()?.flush_prepared_statement_cache();
        }
        let text = if read_only {
            "BEGIN DEFERRED"
        } else {
            "BEGIN IMMEDIATE"
        };
        self.control(text)
            .map_err(|error| classify(error, self.site()))?;
        self.unit = Unit::Open { read_only };
        Ok(())
    }

    /// Opens a transaction and writes a token's row, with one visit to the thread.
    pub(crate) fn begin_with_token(
        &mut self,
        begin: Begin,
        lane: Lane,
        row: &Statement,
    ) -> Result<()> {
        self.begin(begin, lane)?;
        let written = self.run(row, Want::Affected, lane);
        if written.is_err() {
            self.roll_back()?;
        }
        written.map(drop)
    }

    /// Commits, or says why nothing was.
    pub(crate) fn commit(&mut self, ticket: &Arc<Ticket>) -> Result<()> {
        match self.unit {
            Unit::Idle => return Err(misplaced("no transaction is open")),
            Unit::Aborted { .. } | Unit::Ended | Unit::LeftIdle { .. } => {
                self.undisturbed(Self::roll_back)?;
                return Err(aborted());
            }
            Unit::Open { .. } => {}
        }
        self.commit_by(ticket)
    }

    /// Commits until the ticket says stop; rolls back when it cannot be done. The transaction is over
    /// in any case.
    pub(crate) fn commit_by(&mut self, ticket: &Arc<Ticket>) -> Result<()> {
        loop {
            let seen = ticket.nudges();
            let before = self.signals.replace(Some(Arc::clone(ticket)));
            let committed = self.control("COMMIT");
            let stop = self.signals.objection();
            self.signals.replace(before);
            let Err(error) = committed else {
                self.unit = Unit::Idle;
                return Ok(());
            };
            let is_busy = error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy);
            // A busy COMMIT leaves the transaction open, and only the COMMIT is repeated.
            if is_busy && stop.is_none() && !self.handle()?.is_autocommit() {
                ticket.wait(seen, Some(COMMIT_PAUSE));
                continue;
            }
            let error = classify(
                error,
                Site {
                    commits: true,
                    stop,
                    ..Site::default()
                },
            );
            if let Err(failure) = self.roll_back() {
                // The connection is broken now, and closing it rolls back.
                tracing::debug!(error = %failure, "a failed COMMIT could not be rolled back");
            }
            return Err(error);
        }
    }

    /// Rolls back the transaction that is ours, if there is one.
    pub(crate) fn roll_back(&mut self) -> Result<()> {
        self.undisturbed(Self::roll_back_whatever_is_open)
    }

    pub(crate) fn roll_back_whatever_is_open(&mut self) -> Result<()> {
        if !self.handle()?.is_autocommit() {
            let rolled_back = self.control("ROLLBACK");
            if !self.handle()?.is_autocommit() {
                self.signals
                    .broken
                    .store(true, std::sync::atomic::Ordering::SeqCst);
                let cause = rolled_back.err();
                let error = cause.unwrap_or(rusqlite::Error::InvalidQuery);
                return Err(classify(error, Site::default()));
            }
        }
        self.unit = Unit::Idle;
        Ok(())
    }

    /// Sets, releases or rolls back to a savepoint.
    pub(crate) fn savepoint(&mut self, step: Savepoint) -> Result<()> {
        match (self.unit, step) {
            (Unit::Idle, _) => Err(misplaced("no transaction is open")),
            (Unit::Ended | Unit::LeftIdle { .. }, _) => Err(aborted()),
            (
                Unit::Open { read_only } | Unit::Aborted { read_only },
                Savepoint::RollBack(depth),
            ) => {
                let text = format!("ROLLBACK TO mainstay_{depth}; RELEASE mainstay_{depth}");
                let undone = self.undisturbed(|worker| worker.control_batch(&text));
                let undone = undone.map_err(|error| classify(error, Site::default()));
                if undone.is_ok() {
                    self.unit = Unit::Open { read_only };
                }
                self.note(undone)
            }
            (Unit::Aborted { .. }, _) => Err(aborted()),
            (Unit::Open { .. }, Savepoint::Set(depth)) => {
                let set = self.control_batch(&format!("SAVEPOINT mainstay_{depth}"));
                let set = set.map_err(|error| classify(error, self.site()));
                self.note(set)
            }
            (Unit::Open { .. }, Savepoint::Release(depth)) => {
                let released = self.control_batch(&format!("RELEASE mainstay_{depth}"));
                let released = released.map_err(|error| classify(error, self.site()));
                self.note(released)
            }
        }
    }

    /// Runs a statement of our own; the guard is not listening.
    pub(crate) fn control(&self, text: &str) -> rusqlite::Result<()> {
        let Ok(handle) = self.handle() else {
            return Err(rusqlite::Error::SqliteFailure(
                ffi::Error::new(ffi::SQLITE_MISUSE),
                None,
            ));
        };
        handle.prepare_cached(text)?.execute([]).map(drop)
    }

    fn control_batch(&self, text: &str) -> rusqlite::Result<()> {
        let Ok(handle) = self.handle() else {
            return Err(rusqlite::Error::SqliteFailure(
                ffi::Error::new(ffi::SQLITE_MISUSE),
                None,
            ));
        };
        handle.execute_batch(text)
    }

    /// The error of a call that was stopped while it waited for its turn inside a unit of work.
    pub(crate) fn check_not_stopped(&self) -> Result<()> {
        match self.signals.objection() {
            Some(stop @ (Stop::Deadline | Stop::Cancelled | Stop::Closed)) => {
                Err(stopped(stop).into())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_aborts_and_a_transaction_that_is_gone_has_ended() {
        let open = Unit::Open { read_only: false };
        assert_eq!(open.after(false, false), open);
        assert_eq!(open.after(true, false), Unit::Aborted { read_only: false });
        assert_eq!(open.after(true, true), Unit::Ended);
        assert_eq!(open.after(false, true), Unit::Ended);
        assert_eq!(Unit::Idle.after(true, true), Unit::Idle);
        assert_eq!(Unit::Ended.after(false, true), Unit::Ended);
        assert!(Unit::Ended.check_usable().is_err());
    }
}
