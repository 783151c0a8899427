//! What an error of SQLite means.
//!
//! The one place where result codes become kinds, classes and evidence. A local database has no
//! wire that can break between a question and its answer, with one exception: a COMMIT whose write
//! or sync failed is rolled back in memory, yet its frames may be in the file already and come back
//! when the file is recovered after a crash. That is an unknown outcome and is called one.

use crate::signals::Stop;
use mainstay_core::backend::Burden;
use mainstay_core::error::Report;
use mainstay_core::{Class, Error, Evidence, Kind};
use rusqlite::ffi;

/// Where an error came up.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Site {
    /// The step that failed may have been the one that commits: COMMIT itself, or a statement that
    /// writes outside a transaction.
    pub(crate) commits: bool,
    /// The call runs on the read lane, outside a transaction.
    pub(crate) on_read_lane: bool,
    /// Why the call was to stop when the error came.
    pub(crate) stop: Option<Stop>,
}

/// What a result code means.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Entry {
    kind: Kind,
    class: Class,
    evidence: Evidence,
}

const fn permanent(kind: Kind) -> Entry {
    Entry {
        kind,
        class: Class::Permanent,
        evidence: Evidence::Answered,
    }
}

const fn again(kind: Kind, evidence: Evidence) -> Entry {
    Entry {
        kind,
        class: Class::RolledBack,
        evidence,
    }
}

/// The file is not, or no longer, the database that it was.
const fn spoilt() -> Entry {
    Entry {
        kind: Kind::Storage,
        class: Class::Permanent,
        evidence: Evidence::Silent,
    }
}

const fn out_of_memory() -> Entry {
    Entry {
        kind: Kind::Storage,
        class: Class::Permanent,
        evidence: Evidence::Neither,
    }
}

/// The entry of an extended code: its own, else its primary code's.
fn entry(code: i32) -> Entry {
    use Evidence::{Answered, Exhausted, Neither};
    match code {
        ffi::SQLITE_CONSTRAINT_UNIQUE
        | ffi::SQLITE_CONSTRAINT_PRIMARYKEY
        | ffi::SQLITE_CONSTRAINT_ROWID => return permanent(Kind::Unique),
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => return permanent(Kind::ForeignKey),
        ffi::SQLITE_CONSTRAINT_NOTNULL => return permanent(Kind::NotNull),
        ffi::SQLITE_CONSTRAINT_CHECK => return permanent(Kind::Check),
        // The snapshot of a read transaction is gone; a new transaction gets a new one.
        ffi::SQLITE_ERROR_SNAPSHOT | ffi::SQLITE_ABORT_ROLLBACK => {
            return again(Kind::Conflict, Answered);
        }
        // The file was moved or deleted while it was open: what is written now is lost.
        ffi::SQLITE_READONLY_DBMOVED => return spoilt(),
        // SQLite asks for another attempt; or somebody else holds a table of the shared cache.
        ffi::SQLITE_ERROR_RETRY | ffi::SQLITE_LOCKED_SHAREDCACHE | ffi::SQLITE_LOCKED_VTAB => {
            return again(Kind::Conflict, Answered);
        }
        // The system's memory is used up, which is not the database's state.
        ffi::SQLITE_IOERR_NOMEM => return out_of_memory(),
        ffi::SQLITE_IOERR_BLOCKED => return again(Kind::Storage, Answered),
        // What was read is not what was written: a checksum, a file system or a key is wrong.
        ffi::SQLITE_IOERR_DATA
        | ffi::SQLITE_IOERR_CORRUPTFS
        | ffi::SQLITE_IOERR_BADKEY
        | ffi::SQLITE_IOERR_CODEC => return spoilt(),
        // The WAL index needs somebody with write access, who may be there in a moment.
        ffi::SQLITE_READONLY_RECOVERY
        | ffi::SQLITE_READONLY_CANTLOCK
        | ffi::SQLITE_READONLY_CANTINIT => return again(Kind::Conflict, Answered),
        _ => {}
    }
    match code & 0xff {
        ffi::SQLITE_BUSY => again(Kind::Conflict, Answered),
        // A statement of the same connection is in the way, and no waiting ends it.
        ffi::SQLITE_LOCKED => permanent(Kind::Statement),
        // The schema or the WAL changed under the statement more often than SQLite tries itself.
        ffi::SQLITE_PROTOCOL | ffi::SQLITE_SCHEMA => again(Kind::Conflict, Answered),
        ffi::SQLITE_READONLY => permanent(Kind::ReadOnly),
        ffi::SQLITE_INTERRUPT => Entry {
            evidence: Neither,
            ..permanent(Kind::Cancelled)
        },
        ffi::SQLITE_IOERR | ffi::SQLITE_CANTOPEN => again(Kind::Storage, Exhausted),
        // A full disk does not become empty by asking again.
        ffi::SQLITE_FULL => Entry {
            evidence: Exhausted,
            ..permanent(Kind::Storage)
        },
        ffi::SQLITE_NOMEM => out_of_memory(),
        ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB => spoilt(),
        // RAISE in a trigger, a datatype of a STRICT table and a virtual table's own rules have no
        // kind of their own: they are what the schema's author says about the data.
        ffi::SQLITE_CONSTRAINT
        | ffi::SQLITE_ERROR
        | ffi::SQLITE_TOOBIG
        | ffi::SQLITE_MISMATCH
        | ffi::SQLITE_RANGE
        | ffi::SQLITE_AUTH
        | ffi::SQLITE_PERM => permanent(Kind::Statement),
        _ => permanent(Kind::Other),
    }
}

/// Turns an error of SQLite into one of ours.
pub(crate) fn classify(error: rusqlite::Error, site: Site) -> Error {
    let Some((code, text)) = code_and_text(&error) else {
        return foreign(error);
    };
    let primary = code & 0xff;
    if let Some(stop) = site.stop
        && matches!(
            primary,
            ffi::SQLITE_INTERRUPT | ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED
        )
    {
        return stopped(stop).sqlite_code(code).into();
    }
    if site.commits && may_have_committed(code) {
        let message =
            format!("the commit failed half-way ({text}); it may come back after a crash");
        return Report::new(Kind::OutcomeUnknown, message)
            .class(Class::OutcomeUnknown)
            .evidence(Evidence::Exhausted)
            .remedy("check the disk, then look whether the change is there")
            .sqlite_code(code)
            .into();
    }
    let Entry {
        kind,
        class,
        evidence,
    } = entry(code);
    let mut report = Report::new(kind, text.clone())
        .class(class)
        .evidence(evidence)
        .sqlite_code(code);
    if let Some(constraint) = constraint(code, &text) {
        report = report.constraint(constraint);
    }
    if kind == Kind::ReadOnly && site.on_read_lane {
        report = report.refused_by_read_lane();
    }
    match remedy(code) {
        Some(remedy) => report.remedy(remedy).into(),
        None => report.into(),
    }
}

/// Whether a handle that has met this is not used again: a bad disk, a file that is corrupt or no
/// longer there, an engine that has lost its way. A new handle finds out whether things are better.
pub(crate) fn spoils_the_handle(code: i32) -> bool {
    let primary = matches!(
        code & 0xff,
        ffi::SQLITE_IOERR
            | ffi::SQLITE_CORRUPT
            | ffi::SQLITE_NOTADB
            | ffi::SQLITE_CANTOPEN
            | ffi::SQLITE_INTERNAL
            | ffi::SQLITE_MISUSE
    );
    code == ffi::SQLITE_READONLY_DBMOVED || primary && code != ffi::SQLITE_IOERR_NOMEM
}

/// The error of a call that was stopped. SQLite undid what the statement had done.
pub(crate) fn stopped(stop: Stop) -> Report {
    let (kind, message) = match stop {
        Stop::Deadline => (Kind::Timeout, "the deadline ended before the statement did"),
        Stop::StatementTimeout => (
            Kind::Timeout,
            "the statement ran longer than statement_timeout",
        ),
        Stop::Cancelled => (Kind::Cancelled, "the statement was cancelled"),
        Stop::Abandoned => (Kind::Cancelled, "nobody waited for the statement any more"),
        Stop::Closed => (
            Kind::Cancelled,
            "the connection was closed while the statement ran",
        ),
        Stop::HoldsUp => (
            Kind::Other,
            "the statement takes too long for a shared connection",
        ),
        Stop::LogLimit => (Kind::Cancelled, LOG_LIMIT),
    };
    let report = Report::new(kind, message).evidence(Evidence::Neither);
    match stop {
        Stop::Deadline => report
            .class(Class::RolledBack)
            .timed_out()
            .remedy("give it more time, or look at why it is slow (explain query plan)"),
        // It would run as long again.
        Stop::StatementTimeout => report
            .class(Class::Permanent)
            .timed_out()
            .remedy("look at why it is slow (explain query plan), or raise the limit"),
        // It would last as long again.
        Stop::LogLimit => report.class(Class::Permanent).remedy(SHORTER_READS),
        // It has done nothing but read; whoever shares connections knows what to do.
        Stop::HoldsUp => report
            .class(Class::ReadLost)
            .evidence(Evidence::Answered)
            .burden(Burden::Slow),
        Stop::Cancelled | Stop::Abandoned | Stop::Closed => report.class(Class::Permanent),
    }
}

const LOG_LIMIT: &str =
    "the read lasted so long that the write-ahead log, which it keeps, has reached its limit";
const SHORTER_READS: &str = "read in shorter pieces, or raise wal_limit_mib";

/// The error of whatever is asked of a transaction that was ended for the sake of the log.
pub(crate) fn ended_for_log() -> Error {
    Report::new(Kind::TransactionOver, LOG_LIMIT)
        .class(Class::Permanent)
        .evidence(Evidence::Neither)
        .remedy(SHORTER_READS)
        .into()
}

/// The error of a call that was stopped before it began.
pub(crate) fn not_begun(stop: Stop) -> Error {
    let report = stopped(stop).class(Class::NotSent);
    match stop {
        Stop::Closed => report
            .kind(Kind::Closed)
            .message("the connection is closed")
            .into(),
        Stop::Deadline => report
            .message("the deadline ended before the statement began")
            .into(),
        _ => report.into(),
    }
}

fn code_and_text(error: &rusqlite::Error) -> Option<(i32, String)> {
    let (code, text) = match error {
        rusqlite::Error::SqliteFailure(code, text) => (code.extended_code, text.clone()),
        rusqlite::Error::SqlInputError { error, msg, .. } => {
            (error.extended_code, Some(msg.clone()))
        }
        _ => return None,
    };
    Some((
        code,
        text.unwrap_or_else(|| ffi::code_to_str(code).to_owned()),
    ))
}

/// Errors that rusqlite makes itself.
fn foreign(error: rusqlite::Error) -> Error {
    match error {
        rusqlite::Error::MultipleStatement => {
            Report::new(Kind::Statement, "the text holds more than one statement")
                .remedy("send one at a time, or use batch for an atomic unit")
                .into()
        }
        rusqlite::Error::NulError(_) => {
            Report::new(Kind::Statement, "the text holds a NUL character").into()
        }
        other => Report::new(Kind::Other, "SQLite could not be used as asked")
            .source(other)
            .into(),
    }
}

/// Whether the frames of a commit may be in the file although it failed.
fn may_have_committed(code: i32) -> bool {
    let only_read = matches!(
        code,
        ffi::SQLITE_IOERR_READ | ffi::SQLITE_IOERR_SHORT_READ | ffi::SQLITE_IOERR_NOMEM
    );
    code & 0xff == ffi::SQLITE_IOERR && !only_read
}

/// The violated constraint, which SQLite names in its message only.
fn constraint(code: i32, text: &str) -> Option<&str> {
    if code & 0xff != ffi::SQLITE_CONSTRAINT {
        return None;
    }
    let (_, name) = text.split_once("constraint failed: ")?;
    let index = name
        .strip_prefix("index '")
        .and_then(|name| name.strip_suffix('\''));
    Some(index.unwrap_or(name))
}

fn remedy(code: i32) -> Option<&'static str> {
    Some(match code & 0xff {
        ffi::SQLITE_BUSY => "another process holds the lock; raise busy_timeout, or end it",
        ffi::SQLITE_FULL => "make room on the disk",
        ffi::SQLITE_CORRUPT => "stop writing, and restore the last backup",
        ffi::SQLITE_NOTADB => "this file is no SQLite database, or it is encrypted",
        ffi::SQLITE_CANTOPEN => "check that the directory is there, writable, and not out of files",
        ffi::SQLITE_IOERR => "check the disk",
        ffi::SQLITE_READONLY if code == ffi::SQLITE_READONLY_DBMOVED => {
            "the file was moved or deleted while it was open; start again"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
