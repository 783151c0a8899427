//! A transaction that is begun and ended by hand.
//!
//! A closure ends with the call that runs it; a handle may be kept, forgotten in a struct, or carried
//! into a wait that has nothing to do with the database. On SQLite it has the only writer meanwhile,
//! on PostgreSQL a connection and every lock it took. So its deadline holds whether or not it is
//! asked for anything, and whoever comes back too late is told what has become of it.

use crate::tx::Tx;
use mainstay_core::Result;
use tokio::task::AbortHandle;

/// A transaction that is ended by hand. Rolled back when dropped, and at its deadline; never rerun.
///
/// Everything that [`Tx`] can do it can do as well.
#[derive(Debug)]
pub struct Transaction {
    tx: Tx,
    /// Ends it at its deadline; itself ended with this handle.
    watch: AbortHandle,
}

impl Transaction {
    pub(crate) fn new(tx: Tx) -> Self {
        let watch = tokio::spawn(tx.ends_at_deadline()).abort_handle();
        Self { tx, watch }
    }

    /// Commits.
    ///
    /// # Errors
    ///
    /// [`Kind::OutcomeUnknown`](mainstay_core::Kind::OutcomeUnknown) when the answer was lost;
    /// [`Kind::TransactionOver`](mainstay_core::Kind::TransactionOver) when an earlier statement had
    /// failed, or the deadline has passed.
    ///
    /// # Cancel safety
    ///
    /// A commit that was dropped may have happened.
    pub async fn commit(self) -> Result<()> {
        self.tx.commit().await
    }

    /// Rolls back.
    ///
    /// # Errors
    ///
    /// When the connection was lost; the transaction is rolled back all the same.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping rolls back as well.
    pub async fn rollback(self) -> Result<()> {
        self.tx.roll_back("it was rolled back").await
    }
}

impl std::ops::Deref for Transaction {
    type Target = Tx;

    fn deref(&self) -> &Tx {
        &self.tx
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.watch.abort();
        // The lease comes back dirty and is rolled back before anybody else gets it.
        drop(self.tx.end("its handle was dropped, so it was rolled back"));
    }
}
