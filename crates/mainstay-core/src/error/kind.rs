//! What went wrong, in one word.
//!
//! A kind exists only where a caller would act differently: answer 409 instead of 503, show a form
//! again, page somebody. How a failure may be *repeated* is a different question and has its own
//! answer, [`Class`](crate::Class).

/// What went wrong, in one word.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The configuration is wrong: URL, parameter, file, unknown database.
    Config,
    /// The server refused the user or the password.
    Credentials,
    /// TLS could not be agreed on: certificate, host name, a server without TLS.
    Tls,
    /// The database could not be reached: refused, no answer, no such host, starting up.
    Unreachable,
    /// Every connection was lent until the deadline ended the wait.
    Exhausted,
    /// The pool refused to queue the call because it could not be served in time.
    Shed,
    /// The breaker is open: the database has not answered for a while.
    BreakerOpen,
    /// The pool is paused by its operator.
    Paused,
    /// The database handle has been closed.
    Closed,
    /// The deadline of the call ended first.
    Timeout,
    /// The statement was cancelled, by the caller or by the server's operator.
    Cancelled,
    /// A unique or primary key already holds the value.
    Unique,
    /// A foreign key points nowhere, or something still points here.
    ForeignKey,
    /// A column that must hold a value was given none.
    NotNull,
    /// A check constraint (or an exclusion constraint) says no.
    Check,
    /// Another transaction was in the way: serialization failure, deadlock, lock timeout, busy.
    Conflict,
    /// The statement writes where writing is not allowed.
    ReadOnly,
    /// The statement itself is wrong: syntax, unknown table or column, privileges, data out of range.
    Statement,
    /// A statement that changes the session was sent as a one-shot call.
    SessionStatement,
    /// A row could not be turned into the wanted type, or a parameter not into the wanted column.
    Decode,
    /// Exactly one row was asked for and none came.
    NoRows,
    /// At most one row was asked for and more came.
    TooManyRows,
    /// The transaction has ended or is aborted, and the handle was used again.
    TransactionOver,
    /// The application asked for a rollback; its own error is the source.
    RolledBack,
    /// The write may or may not have happened.
    OutcomeUnknown,
    /// A unit with this key was committed before.
    AlreadyDone,
    /// A migration failed, or the recorded history does not fit the files.
    Migration,
    /// The storage failed: disk full, corrupt file, I/O error.
    Storage,
    /// Anything else; the message and the source say what.
    Other,
}

impl Kind {
    /// Every kind, in the order of the documentation.
    pub const ALL: [Self; 29] = [
        Self::Config,
        Self::Credentials,
        Self::Tls,
        Self::Unreachable,
        Self::Exhausted,
        Self::Shed,
        Self::BreakerOpen,
        Self::Paused,
        Self::Closed,
        Self::Timeout,
        Self::Cancelled,
        Self::Unique,
        Self::ForeignKey,
        Self::NotNull,
        Self::Check,
        Self::Conflict,
        Self::ReadOnly,
        Self::Statement,
        Self::SessionStatement,
        Self::Decode,
        Self::NoRows,
        Self::TooManyRows,
        Self::TransactionOver,
        Self::RolledBack,
        Self::OutcomeUnknown,
        Self::AlreadyDone,
        Self::Migration,
        Self::Storage,
        Self::Other,
    ];

    /// The kind as logs and metrics spell it: lower case, words joined by `_`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Credentials => "credentials",
            Self::Tls => "tls",
            Self::Unreachable => "unreachable",
            Self::Exhausted => "exhausted",
            Self::Shed => "shed",
            Self::BreakerOpen => "breaker_open",
            Self::Paused => "paused",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Unique => "unique",
            Self::ForeignKey => "foreign_key",
            Self::NotNull => "not_null",
            Self::Check => "check",
            Self::Conflict => "conflict",
            Self::ReadOnly => "read_only",
            Self::Statement => "statement",
            Self::SessionStatement => "session_statement",
            Self::Decode => "decode",
            Self::NoRows => "no_rows",
            Self::TooManyRows => "too_many_rows",
            Self::TransactionOver => "transaction_over",
            Self::RolledBack => "rolled_back",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::AlreadyDone => "already_done",
            Self::Migration => "migration",
            Self::Storage => "storage",
            Self::Other => "other",
        }
    }

    /// The code under which operators coming from Prisma know this kind, where there is one.
    #[must_use]
    pub const fn code(self) -> Option<&'static str> {
        Some(match self {
            Self::Config => "P1013",
            Self::Credentials => "P1000",
            Self::Tls => "P1011",
            Self::Unreachable | Self::BreakerOpen => "P1001",
            Self::Exhausted | Self::Shed | Self::Paused => "P2024",
            Self::Closed => "P1017",
            Self::Timeout => "P1008",
            Self::Unique => "P2002",
            Self::ForeignKey => "P2003",
            Self::NotNull => "P2011",
            Self::Check => "P2004",
            Self::Conflict => "P2034",
            Self::Statement | Self::SessionStatement | Self::ReadOnly => "P2010",
            Self::Decode => "P2023",
            Self::NoRows => "P2025",
            Self::TransactionOver | Self::RolledBack => "P2028",
            Self::Migration => "P3018",
            Self::Cancelled
            | Self::TooManyRows
            | Self::OutcomeUnknown
            | Self::AlreadyDone
            | Self::Storage
            | Self::Other => return None,
        })
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.as_str().replace('_', " "))
    }
}
