//! Why not one `is_transient()`?
//!
//! Because "may this be done again?" has no yes or no answer. A refused connection may be tried
//! again with anything in hand; a conflict asks for the whole transaction again, not for its last
//! statement; a lost COMMIT must not be repeated at all, because it may have happened. Layers with
//! one flag for all of these book twice.
//!
//! And "may this be done again?" is not "is the database well?". A unique violation must not be
//! repeated, yet it proves that the server is alive; a refused connection may be repeated, yet it
//! says the opposite. So every failure gets two labels, both given once, where the error is still
//! the driver's own: a [`Class`] for what may be done next, and an [`Evidence`] for what it says
//! about the database.

use std::fmt;

/// What a failure means for what may be done next.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// Nothing reached the server: a refused connection, zero bytes written. Any work may run
    /// again.
    NotSent,
    /// The unit (an autocommit statement, or a whole transaction) certainly left no trace: a
    /// conflict, or a connection lost before COMMIT was sent. The whole unit may run again, never
    /// its last statement alone.
    RolledBack,
    /// The connection was lost while a statement ran where the database forbids writing. It may be
    /// repeated elsewhere.
    ReadLost,
    /// The write may or may not have happened: a connection lost after an autocommit write or a
    /// COMMIT was sent. Only work that is the same done twice may be repeated; everything else is
    /// reported.
    OutcomeUnknown,
    /// It would fail again: syntax, a constraint, credentials, configuration. Returned at once.
    Permanent,
}

impl Class {
    /// The name used in logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotSent => "not_sent",
            Self::RolledBack => "rolled_back",
            Self::ReadLost => "read_lost",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Permanent => "permanent",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a result says about the database's health. It feeds the breaker and picks the budget of a
/// retry.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Evidence {
    /// The server answered. Any answer counts: rows, constraint violations, conflicts, syntax
    /// errors.
    Answered,
    /// No answer where one was due: connection lost or refused, a timeout without a sign of life, a
    /// shutdown.
    Silent,
    /// The server is there but out of resources (SQLSTATE classes 53 and 58).
    Exhausted,
    /// It says nothing about the server: the caller cancelled, the waiter was shed, a local limit
    /// was reached.
    Neither,
}

impl Evidence {
    /// The name used in logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Silent => "silent",
            Self::Exhausted => "exhausted",
            Self::Neither => "neither",
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
