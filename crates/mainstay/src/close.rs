//! The orderly end: refuse new work, wait for what runs, cancel what does not end, close.

use crate::connector::{CLEAN_TIMEOUT, CLOSE_TIMEOUT};
use crate::database::Database;
use futures_util::future::join_all;
use mainstay_core::Deadline;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How a database was closed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseReport {
    /// How long it took.
    pub took: Duration,
    /// Statements that were cancelled because the grace had ended.
    pub cancelled: usize,
    /// Connections that were still there when the patience ended; 0 is a clean end.
    pub left: usize,
}

impl Database {
    /// Refuses new work, ends listeners, waits for leases until the configured grace ends, cancels what
    /// still runs, and closes every connection. Calling it again answers at once.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the handle closed; connections close as they come back.
    pub async fn close(&self) -> CloseReport {
        self.close_within(self.config().close_grace).await
    }

    /// As [`close`](Self::close), with another grace.
    ///
    /// # Cancel safety
    ///
    /// As [`close`](Self::close).
    pub async fn close_within(&self, grace: Duration) -> CloseReport {
        let started = Instant::now();
        self.engine().closing.send_replace(true);
        let lanes = &self.engine().lanes;
        let closing = join_all(lanes.pools().map(|(_, pool)| pool.close(grace)));
        let cancelling = async {
            tokio::time::sleep(grace).await;
            let running = lanes.live();
            let deadline = Deadline::from_now(CLEAN_TIMEOUT);
            let cancels = running.iter().map(|connection| connection.cancel(deadline));
            for error in join_all(cancels).await.into_iter().filter_map(Result::err) {
                tracing::debug!(%error, "a statement could not be cancelled while closing");
            }
            running.len()
        };
        tokio::pin!(closing, cancelling);
        let mut cancelled = 0;
        tokio::select! {
            _ = &mut closing => {}
            count = &mut cancelling => {
                cancelled = count;
                // What was cancelled comes back, is found dirty and closed.
                let patience = Deadline::from_now(CLEAN_TIMEOUT + CLOSE_TIMEOUT);
                drop(timeout_at(patience.instant(), closing).await);
            }
        }
        let left = lanes.pools().map(|(_, pool)| pool.status().in_use()).sum();
        let report = CloseReport {
            took: started.elapsed(),
            cancelled,
            left,
        };
        tracing::info!(took = ?report.took, cancelled, left, "the database was closed");
        report
    }
}
