//! What an error of the server means, and what a lost connection means.
//!
//! The same SQLSTATE means different things at different moments, and the worst mistakes of a retry
//! are made by looking at the code alone: `40001` may be FATAL, a pooler hides "outcome unknown"
//! behind `08P01`, and a connection that dies under a read is harmless where under a COMMIT it is
//! the one case that must never be repeated. So the answer is a function of the [`Phase`], the
//! severity and the code, in this order, and it is given here and nowhere else.
//!
//! Two facts carry the rest. A backend that ends its session with FATAL *in place of* an answer has
//! not committed what it was doing: between the commit record and the answer, PostgreSQL holds
//! interrupts off. And a transaction whose COMMIT was never sent cannot commit.

mod table;

use self::table::{Entry, entry, parting};
use crate::wire::{LastWords, Reached};
use mainstay_core::error::Report;
use mainstay_core::{Class, Evidence, Kind};
use std::fmt;
use tokio_postgres::error::DbError;

/// Another process of the server has crashed and taken all sessions with it: what they were doing
/// is settled by the recovery, not by this answer.
pub(crate) const CRASH: &str = "57P02";

/// What was going on when it went wrong.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A session is being opened.
    Connect,
    /// Nothing that has an effect was sent: parsing, asking the catalog, beginning.
    Prepare,
    /// A statement runs where the server refuses to write.
    Read,
    /// A statement runs and commits by itself.
    Write,
    /// A statement runs inside an explicit transaction.
    Transaction,
    /// A transaction is being committed.
    Commit,
}

/// What an error of the server looks like: the driver's, or one that was seen on the wire.
#[derive(Clone, Debug)]
pub struct ServerError {
    severity: String,
    code: String,
    message: String,
    hint: Option<String>,
    position: Option<u32>,
    table: Option<String>,
    column: Option<String>,
    constraint: Option<String>,
    routine: Option<String>,
}

impl ServerError {
    /// ERROR, FATAL or PANIC.
    #[must_use]
    pub fn severity(&self) -> &str {
        &self.severity
    }

    /// SQLSTATE.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// What the server suggests.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Where in the statement's text, in characters from 1.
    #[must_use]
    pub fn position(&self) -> Option<u32> {
        self.position
    }

    /// The table it is about.
    #[must_use]
    pub fn table(&self) -> Option<&str> {
        self.table.as_deref()
    }

    /// The column it is about.
    #[must_use]
    pub fn column(&self) -> Option<&str> {
        self.column.as_deref()
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn routine(&self) -> Option<&str> {
        self.routine.as_deref()
    }

    pub(crate) fn ends_the_session(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }
}

/// The detail is left out: it quotes the values of the row.
impl From<&DbError> for ServerError {
    fn from(error: &DbError) -> Self {
        use tokio_postgres::error::{ErrorPosition, Severity};
        let severity = match error.parsed_severity() {
            Some(Severity::Panic) => "PANIC",
            Some(Severity::Fatal) => "FATAL",
            Some(Severity::Error) => "ERROR",
            _ => error.severity(),
        };
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Self {
            severity: severity.to_owned(),
            code: error.code().code().to_owned(),
            message: without_values(error.code().code(), error.message()),
            hint: owned(error.hint()),
            position: match error.position() {
                Some(ErrorPosition::Original(position)) => Some(*position),
                _ => None,
            },
            table: owned(error.table()),
            column: owned(error.column()),
            constraint: owned(error.constraint()),
            routine: owned(error.routine()),
        }
    }
}

impl From<LastWords> for ServerError {
    fn from(words: LastWords) -> Self {
        Self {
            message: without_values(&words.code, &words.message),
            severity: words.severity,
            code: words.code,
            hint: None,
            position: None,
            table: None,
            column: None,
            constraint: None,
            routine: None,
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.severity, self.code, self.message)
    }
}

impl std::error::Error for ServerError {}

/// Data exceptions (class 22) quote the offending value in their message; it may be a secret.
fn without_values(code: &str, message: &str) -> String {
    if code.starts_with("22")
        && let (Some(first), Some(last)) = (message.find('"'), message.rfind('"'))
        && first < last
    {
        return format!("{}…{}", &message[..=first], &message[last..]);
    }
    message.to_owned()
}

/// What an error of the server means of which nothing but the SQLSTATE is known, for errors of other
/// drivers: in the moment that allows least, while a statement ran that commits by itself.
///
/// ```
/// use mainstay_core::{Class, Evidence};
/// assert_eq!(mainstay_postgres::meaning("40001"), (Class::RolledBack, Evidence::Answered));
/// assert_eq!(mainstay_postgres::meaning("23505"), (Class::Permanent, Evidence::Answered));
/// assert_eq!(mainstay_postgres::meaning("08006"), (Class::OutcomeUnknown, Evidence::Silent));
/// ```
#[must_use]
pub fn meaning(sqlstate: &str) -> (Class, Evidence) {
    // The server sends these only to end a session.
    let ends = matches!(
        sqlstate,
        "57P01" | "57P02" | "57P03" | "57P04" | "57P05" | "25P03" | "25P04"
    );
    let error = ServerError {
        severity: if ends { "FATAL" } else { "ERROR" }.to_owned(),
        code: sqlstate.to_owned(),
        message: String::new(),
        hint: None,
        position: None,
        table: None,
        column: None,
        constraint: None,
        routine: None,
    };
    let meant = refused(Phase::Write, error, false, false).into_error();
    (meant.class(), meant.evidence())
}

/// What an error of the server means. `mid_answer`: it had already reported the command complete.
/// `pooled`: a pooler stands between, whose errors are not the server's.
pub(crate) fn refused(phase: Phase, error: ServerError, mid_answer: bool, pooled: bool) -> Report {
    let ends = error.ends_the_session();
    if phase == Phase::Connect {
        return turned_away(error);
    }
    let Entry {
        kind,
        class,
        evidence,
    } = if ends {
        parting(&error.code)
    } else {
        entry(&error.code)
    };
    if is_poolers(&error.code, ends || pooled) {
        return by_phase(phase, Reached::Unknown, kind)
            .evidence(Evidence::Silent)
            .described(error);
    }
    let undecided = error.severity == "PANIC"
        || ends && (mid_answer || pooled || error.code == CRASH)
        || error.code == "40003";
    if undecided {
        return by_phase(phase, Reached::Unknown, kind)
            .evidence(evidence)
            .described(error);
    }
    if ends && class != Class::Permanent {
        return by_phase(phase, Reached::Refused, kind)
            .evidence(evidence)
            .described(error);
    }
    let class = match (phase, class) {
        // Nothing has happened yet that could be undone.
        (Phase::Prepare, Class::RolledBack) => Class::NotSent,
        (_, class) => class,
    };
    Report::new(kind, "")
        .class(class)
        .evidence(evidence)
        .described(error)
}

/// A session that is not opened: nothing was sent, and the code says whether to ask again.
fn turned_away(error: ServerError) -> Report {
    let Entry {
        kind,
        class,
        evidence,
    } = match &*error.code {
        // The time for logging in is over, which says nothing about the next attempt.
        "57014" => parting("57014"),
        code => entry(code),
    };
    let report = match class {
        Class::Permanent if !is_poolers(&error.code, true) => {
            Report::new(kind, "").class(class).evidence(evidence)
        }
        Class::Permanent => by_phase(Phase::Connect, Reached::Unknown, kind),
        _ => by_phase(Phase::Connect, Reached::Unknown, kind).evidence(evidence),
    };
    report.described(error)
}

/// Whether a code may come from something between us and the server, which knows as little as we
/// do about what the server has done. Class 08 always may; some poolers borrow the server's own
/// codes when they end a session.
fn is_poolers(code: &str, is_possible: bool) -> bool {
    match code {
        "08000" | "08003" | "08006" | "08007" | "08P01" => true,
        "58000" | "XX000" => is_possible,
        _ => false,
    }
}

/// A session with an unknown peer, or one that has lost count of the answers, is not lent again,
/// although it may still be open.
pub(crate) fn spoils_the_session(error: &ServerError) -> bool {
    error.ends_the_session() || is_poolers(&error.code, false)
}

/// What a connection means that ended before the answer came, with what the server had said last.
pub(crate) fn lost(
    phase: Phase,
    reached: Reached,
    words: Option<&ServerError>,
    pooled: bool,
) -> Report {
    // The farewell of a pooler is not the server's: who knows what the server did.
    let reached = match reached {
        Reached::Refused if pooled => Reached::Unknown,
        reached => reached,
    };
    let Entry {
        kind,
        class,
        evidence,
    } = parting(words.map_or("", |words| &*words.code));
    let report = by_phase(phase, reached, kind).evidence(evidence);
    // It was said about this unit, so the whole of it would end like this again.
    let is_ours = match reached {
        Reached::Refused => true,
        Reached::NotWritten => matches!(phase, Phase::Transaction | Phase::Commit),
        Reached::Unknown => false,
    };
    if class == Class::Permanent && is_ours {
        return report.class(Class::Permanent);
    }
    report
}

/// The decision itself; the kind is the one for everything but an unknown outcome.
fn by_phase(phase: Phase, reached: Reached, kind: Kind) -> Report {
    let class = match (phase, reached) {
        (Phase::Connect | Phase::Prepare, _)
        | (Phase::Write | Phase::Read, Reached::NotWritten) => Class::NotSent,
        (Phase::Read, _) => Class::ReadLost,
        (Phase::Transaction, _) => Class::RolledBack,
        (Phase::Commit | Phase::Write, Reached::Refused) | (Phase::Commit, Reached::NotWritten) => {
            Class::RolledBack
        }
        (Phase::Write | Phase::Commit, Reached::Unknown) => Class::OutcomeUnknown,
    };
    let kind = if class == Class::OutcomeUnknown {
        Kind::OutcomeUnknown
    } else {
        kind
    };
    Report::new(kind, "")
        .class(class)
        .evidence(Evidence::Silent)
}

/// Adds what the server said to a report.
pub(crate) trait Described {
    /// Message, SQLSTATE, constraint and source.
    fn described(self, error: ServerError) -> Self;
}

impl Described for Report {
    fn described(self, error: ServerError) -> Self {
        let mut report = self.message(error.message.clone()).sqlstate(&error.code);
        if let Some(constraint) = &error.constraint {
            report = report.constraint(constraint.as_str());
        } else if let ("23502", Some(table), Some(column)) =
            (error.code.as_str(), error.table(), error.column())
        {
            report = report.constraint(format!("{table}.{column}"));
        }
        if let Some(remedy) = remedy(&error) {
            report = report.remedy(remedy);
        }
        report.source(error)
    }
}

/// What to try, where the code alone tells.
fn remedy(error: &ServerError) -> Option<String> {
    let fixed = match error.code.as_str() {
        "57P03" => "the server is starting up or recovering; it will answer soon",
        "53300" => "lower connection_limit, or raise max_connections of the server",
        "53100" => "free some disk space on the server",
        "42501" => "grant the role what it needs, or use another role",
        "42P05" | "26000" => {
            "if a transaction pooler such as PgBouncer stands between, add pgbouncer=true to the URL"
        }
        "25P02" => "look at the first error in the transaction",
        _ => return error.hint.clone(),
    };
    Some(fixed.to_owned())
}

#[cfg(test)]
mod tests;
