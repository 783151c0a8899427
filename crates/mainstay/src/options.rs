//! How a transaction is to be run.

use mainstay_core::Error;
use mainstay_core::backend::{Begin, Isolation};
use std::sync::Arc;
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
    pub(crate) promise: Promise,
}

/// What is promised about the number of commits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Promise {
    /// A lost COMMIT is reported.
    #[default]
    Nothing,
    /// A lost COMMIT is looked into.
    Once,
    /// And the same key is not committed again by anybody.
    As(Arc<str>),
}

impl Promise {
    /// The longest key in bytes. It is a key of an index, and travels with every BEGIN.
    pub(crate) const KEY_MAX: usize = 200;
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

    /// Looks into a lost COMMIT instead of reporting it.
    ///
    /// The transaction writes a token row together with BEGIN. If the answer to COMMIT is lost,
    /// another connection makes sure that the old transaction has ended (on PostgreSQL it ends the
    /// session after a second if it must) and reads whether the row is there: then the closure's
    /// value is answered, else the closure is run again, with a new token. Only when the deadline
    /// ends first is the outcome still unknown.
    ///
    /// On SQLite nothing is lost between the program and its database; there it is a disk that
    /// failed to sync COMMIT. The row is read as soon as a new writer could be opened and had
    /// everything synced.
    ///
    /// The rows are kept for a day. What the transaction does elsewhere (`dblink`, foreign servers,
    /// your own side effects) is not covered, nor is a commit that an asynchronous failover lost.
    ///
    /// ```no_run
    /// # async fn example(db: &mainstay::Database, from: i64, to: i64) -> mainstay::Result<()> {
    /// use mainstay::TransactionOptions;
    /// db.transaction_with(TransactionOptions::new().exactly_once(), async |tx| {
    ///     tx.execute("update accounts set cents = cents - 100 where id = $1", (from,)).await?;
    ///     tx.execute("update accounts set cents = cents + 100 where id = $1", (to,)).await
    /// })
    /// .await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn exactly_once(mut self) -> Self {
        self.promise = Promise::Once;
        self
    }

    /// As [`exactly_once`](Self::exactly_once), with the caller's own key (1 to 200 bytes), so that
    /// the caller's own caller may repeat its request: the same key never commits a second time
    /// within a day, on both databases. The second call answers
    /// [`AlreadyDone`](mainstay_core::Kind::AlreadyDone), also when both run at the same time.
    #[must_use]
    pub fn exactly_once_as(mut self, key: impl AsRef<str>) -> Self {
        self.promise = Promise::As(Arc::from(key.as_ref()));
        self
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        self.promise.check(self.read_only)
    }

    pub(crate) fn begin(&self, fallback: Option<Isolation>) -> Begin {
        let snapshot = self.read_only.then_some(Isolation::RepeatableRead);
        Begin {
            isolation: self.isolation.or(fallback).or(snapshot),
            read_only: self.read_only,
        }
    }
}
