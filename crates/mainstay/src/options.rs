//! How a transaction is to be run.

use mainstay_core::backend::{Begin, Isolation};
use mainstay_core::error::Report;
use mainstay_core::{Error, Kind};
use std::time::Duration;

/// How a transaction is to be run: isolation, access, repetition, time.
///
/// ```
/// use mainstay::TransactionOptions;
/// use std::time::Duration;
/// let options = TransactionOptions::serializable().timeout(Duration::from_secs(5));
/// # drop(options);
/// ```
#[derive(Clone, Debug, Default)]
pub struct TransactionOptions {
    pub(crate) isolation: Option<Isolation>,
    pub(crate) read_only: bool,
    pub(crate) once: bool,
    pub(crate) timeout: Option<Duration>,
    exactly_once: bool,
}

impl TransactionOptions {
    /// The database's own isolation, read and write, rerun on conflicts.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// As if the transactions had run one after the other; conflicts are rerun.
    #[must_use]
    pub fn serializable() -> Self {
        Self::new().isolation(Isolation::Serializable)
    }

    /// Refuses to write, and runs on the read lane. Where no isolation is asked for it sees one
    /// snapshot (`REPEATABLE READ` on PostgreSQL), as a SQLite transaction always does.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Another isolation.
    #[must_use]
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = Some(isolation);
        self
    }

    /// Never runs the closure a second time.
    #[must_use]
    pub fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// Until when everything must be done, counted from the call: waiting, reruns and COMMIT too.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Commits at most once even if the answer to COMMIT is lost.
    ///
    /// Not available yet: a transaction with this option answers an error that says so, because a
    /// promise that is not kept is worse than none.
    #[must_use]
    pub fn exactly_once(mut self) -> Self {
        self.exactly_once = true;
        self
    }

    /// As [`exactly_once`](Self::exactly_once), with the caller's own key. Not available yet.
    #[must_use]
    pub fn exactly_once_as(self, key: impl AsRef<str>) -> Self {
        drop(key);
        self.exactly_once()
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if !self.exactly_once {
            return Ok(());
        }
        Err(
            Report::new(Kind::Config, "exactly_once is not available yet")
                .remedy(
                    "leave it out; a lost COMMIT is reported as an unknown outcome and never rerun",
                )
                .into(),
        )
    }

    pub(crate) fn begin(&self, fallback: Option<Isolation>) -> Begin {
        let snapshot = self.read_only.then_some(Isolation::RepeatableRead);
        Begin {
            isolation: self.isolation.or(fallback).or(snapshot),
            read_only: self.read_only,
        }
    }
}
