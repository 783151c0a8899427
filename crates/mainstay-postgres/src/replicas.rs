//! How far the servers of one database have come, and whether anything may have been written since.
//!
//! A read that goes to a standby must find what was written before it. The primary says how far its log
//! has been written, a standby how far it has replayed it; who compares the two, and what happens when
//! one is behind, is decided above. Here it is only told, and what was told is kept for each host: a
//! standby does not go back.

use crate::classify::Phase;
use crate::connect::Connector;
use crate::hosts::Hosts;
use crate::session::{Flight, Link};
use mainstay_core::backend::{Call, Lane, Position, Want, Writes};
use mainstay_core::config::{PostgresTarget, ReadFrom, SessionAttrs};
use mainstay_core::{Deadline, Result, Row, Statement};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// As bytes from the beginning of the log. What is inserted and not only what is flushed: a commit that
/// does not wait for the disk (`synchronous_commit = off`) is seen by others at once.
const POSITION: &str = "
select (case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn()
    else pg_catalog.pg_current_wal_insert_lsn() end - '0/0'::pg_catalog.pg_lsn)::bigint";

/// The pages of the log, and what stands at the beginning of one: the short header, and the long one of a
/// segment's first page.
const PAGE: u64 = 8192;
const HEADERS: [u64; 2] = [24, 40];

/// What may have been written through the sessions of one database.
#[derive(Debug, Default)]
pub(crate) struct WriteCount {
    ended: AtomicU64,
    decided: AtomicU64,
    /// Sessions in the hands of users, who may write at any moment.
    in_hands: AtomicUsize,
}

impl WriteCount {
    /// A call on the write lane has ended; whether its outcome is known.
    pub(crate) fn note(&self, is_decided: bool) {
        let number = self.ended.fetch_add(1, Ordering::AcqRel) + 1;
        if is_decided {
            self.decided.fetch_max(number, Ordering::AcqRel);
        }
    }

    pub(crate) fn so_far(&self) -> Writes {
        if self.in_hands.load(Ordering::Acquire) > 0 {
            self.note(true);
        }
        // What has been decided has ended, so it is looked at first.
        let decided = self.decided.load(Ordering::Acquire);
        let ended = self.ended.load(Ordering::Acquire);
        Writes { ended, decided }
    }
}

/// A session is in the hands of a user for as long as this lives.
#[derive(Debug)]
pub(crate) struct InHands(Arc<WriteCount>);

impl InHands {
    pub(crate) fn new(writes: &Arc<WriteCount>) -> Self {
        writes.in_hands.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(writes))
    }
}

impl Drop for InHands {
    fn drop(&mut self) {
        self.0.note(true);
        self.0.in_hands.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Whether reads are sent to standbys.
pub(crate) fn reads_from_replicas(target: &PostgresTarget) -> bool {
    target.read_from == ReadFrom::Replica
}

/// How long a session is used that was opened because no standby answered. So soon is one noticed that
/// has come back, and so seldom is it asked for.
const STOPGAP: Duration = Duration::from_secs(10);

/// Until when a session is used whose server was not what was wanted most.
pub(crate) fn stopgap_until(connector: &Connector, wanted: SessionAttrs) -> Option<Instant> {
    let is_stopgap = reads_from_replicas(connector.target()) && wanted == SessionAttrs::Any;
    is_stopgap.then(|| Instant::now() + STOPGAP)
}

/// How a limit is divided: half for the reads of standbys, half for the primary, which also serves the
/// reads that no standby can. Neither is ever none.
pub(crate) fn divide(limit: usize) -> (usize, usize) {
    let writers = (limit / 2).max(1);
    (limit.saturating_sub(writers).max(1), writers)
}

/// Where the next record begins is behind the header of its page, where the last one ended is before it:
/// on a page boundary a standby that has everything would seem to lack the header.
fn without_header(position: u64) -> u64 {
    if HEADERS.contains(&(position % PAGE)) {
        position - position % PAGE
    } else {
        position
    }
}

impl Link {
    /// How far the server has come: written, or replayed in recovery.
    pub(crate) async fn position(self: &Arc<Self>, call: Call) -> Result<Position> {
        let position = match call.lane {
            Lane::Read => self.position_beside_others(call).await?,
            Lane::Write => self.position_alone(call.deadline).await?,
        };
        // A standby that has replayed nothing yet says nothing.
        let position = u64::try_from(position.unwrap_or(0)).unwrap_or(0);
        let position = without_header(position);
        self.hosts().on_position(self.endpoint.index, position);
        Ok(Position::new(position))
    }

    async fn position_beside_others(self: &Arc<Self>, call: Call) -> Result<Option<i64>> {
        let question = Statement::new(POSITION, ())?;
        let reply = self.run_shared(&question, Want::Rows(1), call).await?;
        reply.rows.first().map_or(Ok(None), Row::decode)
    }

    /// Not as a statement of the write lane, which would count as a write.
    async fn position_alone(self: &Arc<Self>, deadline: Deadline) -> Result<Option<i64>> {
        let flight = Flight::start_reading(self);
        let leg = self.leg(Phase::Prepare);
        let asked = async {
            let rows = self.client.query_typed(POSITION, &[]).await?;
            rows.first().map_or(Ok(None), |row| row.try_get(0))
        };
        let position = self.answer(leg, deadline, asked).await;
        flight.land();
        position
    }

    /// Whether it is known to have come that far.
    pub(crate) fn has_reached(&self, position: Position) -> bool {
        self.hosts().position(self.endpoint.index) >= position.get()
    }

    fn hosts(&self) -> &Hosts {
        self.connector.hosts()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_divided_and_nobody_is_left_without() {
        for limit in 2..100 {
            let (readers, writers) = divide(limit);
            assert_eq!(readers + writers, limit);
            assert!(readers > 0 && writers > 0);
        }
        assert_eq!(divide(10), (5, 5));
        assert_eq!(divide(21), (11, 10));
    }

    #[test]
    fn the_header_of_a_page_is_no_part_of_what_was_written() {
        let page = 7 * PAGE;
        assert_eq!(without_header(page + 24), page);
        assert_eq!(without_header(page + 40), page);
        assert_eq!(without_header(page + 48), page + 48);
        assert_eq!(without_header(page), page);
    }

    #[test]
    fn what_a_user_has_may_write_at_any_moment() {
        let writes = Arc::new(WriteCount::default());
        assert_eq!(writes.so_far(), Writes::default());
        let held = InHands::new(&writes);
        let first = writes.so_far().decided;
        assert!(first > 0 && writes.so_far().decided > first);
        drop(held);
        assert!(writes.so_far().decided > first + 1);
        assert_eq!(writes.so_far(), writes.so_far());
    }

    #[test]
    fn what_is_decided_includes_all_that_ended_before() {
        let writes = WriteCount::default();
        let so_far = |ended, decided| Writes { ended, decided };
        writes.note(false);
        assert_eq!(writes.so_far(), so_far(1, 0));
        writes.note(true);
        assert_eq!(writes.so_far(), so_far(2, 2));
        writes.note(false);
        assert_eq!(writes.so_far(), so_far(3, 2));
    }
}
