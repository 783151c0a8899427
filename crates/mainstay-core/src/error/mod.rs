//! One opaque error for everything.
//!
//! A caller wants to ask four things of an error: what is it ([`Error::kind`]), may I do it again
//! ([`Error::class`]), which constraint or code was it ([`Error::constraint`],
//! [`Error::sqlstate`]), and what caused it ([`std::error::Error::source`]). An enum with a variant
//! per cause answers the first and freezes the rest into the signature of every function, so the
//! error is one word wide, opaque and cheap to clone, and new facts can be added without breaking
//! anybody.
//!
//! Backends and the facade make errors through [`Report`]; applications make exactly one kind of
//! their own, [`Error::rollback`].

mod doubt;
mod kind;
mod report;

pub use doubt::Doubt;
pub use kind::Kind;
pub use report::Report;

use crate::backend::Burden;
use mainstay_resilience::{Class, Evidence};
use std::time::Duration;

/// What every fallible call of mainstay returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and what may be done next.
///
/// `Display` prints what happened, for how long where that matters, and what to try; it never
/// prints a secret or a parameter. The cause is [`source`](std::error::Error::source).
#[derive(Clone)]
pub struct Error(Box<Report>);

impl Error {
    /// Aborts the transaction from inside its closure and carries the application's own error out.
    ///
    /// The error comes back from `Database::transaction` with [`Kind::RolledBack`], and
    /// [`downcast_ref`](Self::downcast_ref) finds the application's error in it.
    #[must_use]
    pub fn rollback<E>(cause: E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Report::new(
            Kind::RolledBack,
            "the application rolled the transaction back",
        )
        .boxed_source(cause.into())
        .into()
    }

    /// What went wrong, in one word.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// What this failure allows to be done next.
    #[must_use]
    pub fn class(&self) -> Class {
        self.0.class
    }

    /// What this failure says about the health of the database.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        self.0.evidence
    }

    /// The message alone, without remedy.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What to try, in a few words, where there is something to try.
    #[must_use]
    pub fn remedy(&self) -> Option<&str> {
        self.0.remedy.as_deref()
    }

    /// The five-character SQLSTATE that PostgreSQL answered, if it did.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        self.0.sqlstate.as_deref()
    }

    /// The extended result code that SQLite answered, if it did.
    #[must_use]
    pub fn sqlite_code(&self) -> Option<i32> {
        self.0.sqlite_code
    }

    /// The violated constraint: its name on PostgreSQL, `table.column` on SQLite, which does not
    /// report names of unique constraints.
    #[must_use]
    pub fn constraint(&self) -> Option<&str> {
        self.0.constraint.as_deref()
    }

    /// The code under which operators coming from Prisma know this failure, where there is one.
    #[must_use]
    pub fn code(&self) -> Option<&'static str> {
        match self.sqlstate() {
            Some("3D000") => Some("P1003"),
            Some("28000" | "42501") => Some("P1010"),
            Some("42P01") => Some("P2021"),
            Some("42703") => Some("P2022"),
            Some("53300") => Some("P2037"),
            Some("22001") => Some("P2000"),
            Some("22003") => Some("P2020"),
            _ => self.0.kind.code(),
        }
    }

    /// How long the call waited before it failed, where waiting was the failure.
    #[must_use]
    pub fn waited(&self) -> Option<Duration> {
        self.0.waited
    }

    /// How long to wait before asking again, where that is known (an open breaker, a shed call).
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// How many times the work was tried, counting the first.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// The write may or may not have happened.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        self.0.kind == Kind::OutcomeUnknown
    }

    /// What is needed to look into an unknown outcome; `None` where the outcome is known.
    #[must_use]
    pub fn doubt(&self) -> Option<&Doubt> {
        self.0.doubt.as_deref()
    }

    /// The deadline ended first; an outcome may be unknown at the same time.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.0.kind == Kind::Timeout || self.0.timed_out
    }

    /// A unique or primary key already holds the value.
    #[must_use]
    pub fn is_unique_violation(&self) -> bool {
        self.0.kind == Kind::Unique
    }

    /// A foreign key points nowhere, or something still points here.
    #[must_use]
    pub fn is_foreign_key_violation(&self) -> bool {
        self.0.kind == Kind::ForeignKey
    }

    /// A column that must hold a value was given none.
    #[must_use]
    pub fn is_not_null_violation(&self) -> bool {
        self.0.kind == Kind::NotNull
    }

    /// A check constraint says no.
    #[must_use]
    pub fn is_check_violation(&self) -> bool {
        self.0.kind == Kind::Check
    }

    /// Another transaction was in the way; running the whole unit again can succeed.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.0.kind == Kind::Conflict
    }

    /// Exactly one row was asked for and none came.
    #[must_use]
    pub fn is_no_rows(&self) -> bool {
        self.0.kind == Kind::NoRows
    }

    /// A unit with this key was committed before.
    #[must_use]
    pub fn is_already_done(&self) -> bool {
        self.0.kind == Kind::AlreadyDone
    }

    /// The database cannot be used at the moment, whatever the statement: a caller's caller should
    /// be told to come back later (HTTP 503).
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(
            self.0.kind,
            Kind::Unreachable
                | Kind::Exhausted
                | Kind::Shed
                | Kind::BreakerOpen
                | Kind::Paused
                | Kind::Closed
                | Kind::Credentials
                | Kind::Tls
        )
    }

    /// The read lane refused the statement because it writes; the write lane takes it.
    #[must_use]
    pub fn is_refused_by_read_lane(&self) -> bool {
        self.0.wrong_lane
    }

    /// Why a read was stopped on a connection that it shared, if it was: it is to be run again on a
    /// connection of its own, which can do no harm.
    #[must_use]
    pub fn burden(&self) -> Option<Burden> {
        self.0.burden
    }

    /// The first cause of type `E` in the chain of sources.
    #[must_use]
    pub fn downcast_ref<E: std::error::Error + 'static>(&self) -> Option<&E> {
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref::<E>() {
                return Some(found);
            }
            cause = error.source();
        }
        None
    }

    /// Takes the report out, so that a layer can add what it knows.
    #[must_use]
    pub fn into_report(self) -> Report {
        *self.0
    }
}

impl From<Report> for Error {
    fn from(mut report: Report) -> Self {
        report.doubt = if report.kind == Kind::OutcomeUnknown {
            // It stays the doubt that it was, whatever is said about it later.
            Some(report.doubt.unwrap_or_else(|| Box::new(Doubt::since_now())))
        } else {
            None
        };
        Self(Box::new(report))
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.message)?;
        if let Some(remedy) = &self.0.remedy {
            write!(f, "; {remedy}")?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}
