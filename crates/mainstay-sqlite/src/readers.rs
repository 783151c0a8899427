//! Who reads, since when, and what is done about it when the log cannot be emptied for it.
//!
//! A reader sees the file as it was when it began. Until it ends, nothing that was written since may
//! be copied from the log into the database, so the log grows with every commit. Nobody waits for
//! that and nothing is lost, but the disk fills. So it is told, with the reader's age and the place
//! in the source that holds the connection; and where the configuration sets a limit, the oldest
//! reader is ended, and is told why.

use crate::log::Log;
use crate::session::SqliteSession;
use std::panic::Location;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::time::Instant;

/// A log of so many bytes is told of: four times what its file is cut back to. One that is emptied
/// now and then never comes near it.
const GROWN: u64 = 256 * 1024 * 1024;

/// What is to be done about a log that a reader keeps from being emptied.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Growth {
    Small,
    /// It is time to tell, for the first time or because it has doubled since.
    Tell,
    /// The limit is reached.
    Limit,
}

fn growth(bytes: u64, limit: Option<u64>, told: Option<u64>) -> Growth {
    if limit.is_some_and(|limit| bytes >= limit) {
        return Growth::Limit;
    }
    match told {
        None if bytes >= GROWN => Growth::Tell,
        Some(told) if bytes >= told.saturating_mul(2) => Growth::Tell,
        _ => Growth::Small,
    }
}

/// The readers of one database.
#[derive(Debug, Default)]
pub(crate) struct Readers(Mutex<Vec<Seat>>);

#[derive(Debug)]
struct Seat {
    session: Weak<SqliteSession>,
    may_be_ended: bool,
}

/// A reader that reads now.
#[derive(Debug)]
pub(crate) struct Reading {
    session: Arc<SqliteSession>,
    pub(crate) since: Instant,
    pub(crate) site: Option<&'static Location<'static>>,
}

impl Readers {
    /// Takes note of a reader; those that are gone are forgotten, so there are no more than open
    /// connections. A backup reads for long by its nature, and may not be ended.
    pub(crate) fn join(&self, session: &Arc<SqliteSession>, may_be_ended: bool) {
        let mut seats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seats.retain(|seat| seat.session.strong_count() > 0);
        seats.push(Seat {
            session: Arc::downgrade(session),
            may_be_ended,
        });
    }

    /// The one that has been reading for longest.
    pub(crate) fn oldest(&self) -> Option<Reading> {
        self.oldest_of(|_| true)
    }

    fn oldest_of(&self, wanted: impl Fn(&Seat) -> bool) -> Option<Reading> {
        let seats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let reading = |seat: &Seat| {
            let session = seat.session.upgrade()?;
            let (since, site) = session.reads_since()?;
            Some(Reading {
                session,
                since,
                site,
            })
        };
        let wanted = seats.iter().filter(|seat| wanted(seat));
        wanted
            .filter_map(reading)
            .min_by_key(|reading| reading.since)
    }

    /// Tells of a log that has grown because of a reader, or ends the reader. Called when a checkpoint
    /// has found it so: no more often than every thousand pages.
    pub(crate) fn mind(&self, log: &Log, limit: Option<u64>) {
        let bytes = log.bytes();
        let told = log.told();
        match growth(bytes, limit, told) {
            Growth::Small => {}
            Growth::Tell => {
                log.set_told(bytes);
                self.tell(bytes);
            }
            Growth::Limit => match self.oldest_of(|seat| seat.may_be_ended) {
                Some(reading) => {
                    tracing::warn!(
                        bytes, age = ?reading.since.elapsed(), site = reading.site.map(tracing::field::display),
                        "a read was ended: it kept the write-ahead log from being emptied, which had \
                         reached its limit (wal_limit_mib)"
                    );
                    reading.session.end_reading(reading.since);
                }
                None if told.is_none_or(|told| bytes >= told.saturating_mul(2)) => {
                    log.set_told(bytes);
                    self.tell(bytes);
                }
                None => {}
            },
        }
    }

    fn tell(&self, bytes: u64) {
        match self.oldest() {
            Some(reading) => tracing::warn!(
                bytes, age = ?reading.since.elapsed(), site = reading.site.map(tracing::field::display),
                "the write-ahead log grows, because somebody reads for long"
            ),
            None => tracing::warn!(
                bytes,
                "the write-ahead log grows, because another process reads for long"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn a_grown_log_is_told_of_once_and_again_when_it_has_doubled() {
        assert_eq!(growth(GROWN - 1, None, None), Growth::Small);
        assert_eq!(growth(GROWN, None, None), Growth::Tell);
        assert_eq!(growth(2 * GROWN - 1, None, Some(GROWN)), Growth::Small);
        assert_eq!(growth(2 * GROWN, None, Some(GROWN)), Growth::Tell);
    }

    #[test]
    fn the_limit_counts_before_anything_was_told_and_after() {
        assert_eq!(growth(8 * MIB, Some(8 * MIB), None), Growth::Limit);
        assert_eq!(growth(2 * GROWN, Some(GROWN), Some(GROWN)), Growth::Limit);
        assert_eq!(growth(GROWN, Some(2 * GROWN), None), Growth::Tell);
    }
}
