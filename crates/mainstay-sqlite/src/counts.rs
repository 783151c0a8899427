//! What a database has done so far, for those who watch it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that all connections of a database share.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    commits: AtomicU64,
    writes: AtomicU64,
    replays: AtomicU64,
}

/// How the one-shot writes of a database were committed so far; see [`Sqlite::commits`](crate::Sqlite::commits).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Commits {
    /// Transactions that were committed.
    pub commits: u64,
    /// Writes that were acknowledged with them; divided by `commits`, the size of a group.
    pub writes: u64,
    /// Transactions that were run again because one write took them with it.
    pub replays: u64,
}

impl Counts {
    pub(crate) fn committed(&self, writes: usize) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        let writes = u64::try_from(writes).unwrap_or(u64::MAX);
        self.writes.fetch_add(writes, Ordering::Relaxed);
    }

    pub(crate) fn replayed(&self) {
        self.replays.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn commits(&self) -> Commits {
        Commits {
            commits: self.commits.load(Ordering::Relaxed),
            writes: self.writes.load(Ordering::Relaxed),
            replays: self.replays.load(Ordering::Relaxed),
        }
    }
}
