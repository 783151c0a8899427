//! Reads of replicas that find what was written before them.
//!
//! A standby replays what the primary has written, milliseconds later on a good day. A user who saves a
//! form and sees the old one takes that for a bug. So a read goes to a standby only when the standby has
//! everything that this handle had written before the read began, and everything that anybody had written
//! [`max_replica_lag`](mainstay_core::config::PostgresTarget::max_replica_lag) ago; else it waits a
//! moment for it, and then the primary serves it.
//!
//! Writes pay nothing. The first read after one asks the primary how far its log has come, once for all
//! who wait for the answer; the standby is asked once for each such place in the log, because it does not
//! go back. Without writes of our own a read asks the primary twice in the time of the lag.

use crate::attempts::Setback;
use crate::bound::answer_by;
use crate::engine::Engine;
use crate::lanes::{Hold, PoolLease};
use crate::metrics;
use crate::router::Company;
use mainstay_core::backend::{Call, Connection, Lane, Position, Writes};
use mainstay_core::{Deadline, Result};
use mainstay_resilience::Work;
use std::collections::VecDeque;
use std::ops::Deref;
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout_at};

/// How long a read waits for a standby. One that streams is a few milliseconds behind; from one that is
/// further, the primary's answer comes sooner.
const CATCH_UP: Duration = Duration::from_millis(50);
/// The pauses between two questions to the standby, doubling.
const PAUSE: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(8);
/// How long a read waits to hear how far the primary has come, before it goes there itself.
const ASK_MAX: Duration = Duration::from_secs(1);

/// What is known of the primary's log.
#[derive(Debug)]
pub(crate) struct Replicas {
    max_lag: Duration,
    known: Mutex<Known>,
    /// One question at a time.
    turn: tokio::sync::Mutex<()>,
}

impl Replicas {
    pub(crate) fn new(max_lag: Duration) -> Self {
        Self {
            max_lag,
            known: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// What a replica must have for a read that begins now, after so many writes of ours, if that is known.
    fn required(&self, writes: Writes) -> Option<Position> {
        let (now, known) = (Instant::now(), self.known());
        let suffices = known.suffices(now, writes, self.max_lag);
        suffices
            .then(|| known.required(now, self.max_lag))
            .flatten()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The primary had come that far at some time after `at`, and after so many writes of ours.
#[derive(Copy, Clone, Debug)]
struct Sample {
    at: Instant,
    writes: u64,
    position: Position,
}

/// How far the primary's log had come, and when.
#[derive(Debug, Default)]
struct Known {
    /// The first that was asked after our last write.
    own: Option<Sample>,
    latest: Option<Sample>,
    /// Older ones, the oldest first; at most eight in the time of the lag.
    samples: VecDeque<Sample>,
    /// When the primary was asked and did not say.
    in_vain: Option<Instant>,
}

impl Known {
    fn note(&mut self, sample: Sample, max_lag: Duration) {
        if self
            .latest
            .is_some_and(|latest| sample.position < latest.position)
        {
            // Another server has taken over, and what the old one had come to is nowhere.
            *self = Self::default();
        }
        if self.own.is_none_or(|own| own.writes < sample.writes) {
            self.own = Some(sample);
        }
        self.latest = Some(sample);
        let is_due = |last: &Sample| sample.at.saturating_duration_since(last.at) >= max_lag / 8;
        if self.samples.back().is_none_or(is_due) {
            self.samples.push_back(sample);
        }
        while self
            .samples
            .front()
            .is_some_and(|first| first.at + max_lag < sample.at)
        {
            self.samples.pop_front();
        }
    }

    /// Whether it is known how far the log had come after so many writes of ours.
    fn covers(&self, writes: u64) -> bool {
        self.latest.is_some_and(|latest| latest.writes >= writes)
    }

    /// Whether the primary need not be asked: what is known includes these writes of ours and is no older
    /// than half the lag. A primary that did not answer a moment ago is not asked again by every read, and
    /// then only those writes count whose callers were told what came of them.
    fn suffices(&self, now: Instant, writes: Writes, max_lag: Duration) -> bool {
        let is_within = |at: Option<Instant>, time: Duration| {
            at.is_some_and(|at| now.saturating_duration_since(at) < time)
        };
        let asked = self.latest.map(|latest| latest.at);
        (self.covers(writes.ended) && is_within(asked, max_lag / 2))
            || (self.covers(writes.decided) && is_within(self.in_vain, ASK_MAX))
    }

    /// What a standby must have for a read that begins now: our own writes, and what was there a lag
    /// ago. While the primary cannot be asked, what was known last.
    fn required(&self, now: Instant, max_lag: Duration) -> Option<Position> {
        let own = self.own?.position;
        let within = |sample: &&Sample| now.saturating_duration_since(sample.at) <= max_lag;
        let oldest = self.samples.iter().find(within).or(self.latest.as_ref())?;
        Some(own.max(oldest.position))
    }
}

impl Engine {
    /// The lane whose connections lead to the server that takes writes, where reads go to others; else
    /// that of the reads.
    pub(crate) fn home(&self) -> Lane {
        match self.replicas {
            Some(_) => Lane::Write,
            None => Lane::Read,
        }
    }

    /// A lease for reads that is not one of a replica.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    pub(crate) async fn admit_at_home(
        &self,
        deadline: Deadline,
        site: &'static Location<'static>,
    ) -> Result<PoolLease, Setback> {
        self.gate
            .admit(Instant::now())
            .map_err(Setback::NotServed)?;
        self.served(self.lease_at_home(deadline, site).await)
    }

    async fn lease_at_home(
        &self,
        deadline: Deadline,
        site: &'static Location<'static>,
    ) -> Result<PoolLease> {
        self.lanes
            .acquire_from(self.home(), Lane::Read, deadline, &self.gate, site)
            .await
    }

    /// A lease of a replica that has what a read must find, or else one of the primary.
    pub(crate) async fn admit_to_replica(
        &self,
        replicas: &Replicas,
        deadline: Deadline,
        site: &'static Location<'static>,
    ) -> Result<PoolLease, Setback> {
        let taking = self.lanes.acquire(Lane::Read, deadline, &self.gate, site);
        if let Some(lease) = self.take_fresh(replicas, deadline, taking).await? {
            return Ok(lease);
        }
        self.served(self.lease_at_home(deadline, site).await)
    }

    /// The same for a one-shot statement.
    pub(crate) async fn seat_at_replica(
        &self,
        replicas: &Replicas,
        company: Company,
        deadline: Deadline,
        site: &'static Location<'static>,
    ) -> Result<Hold, Setback> {
        let taking = self
            .lanes
            .hold(Lane::Read, company, deadline, &self.gate, site);
        if let Some(hold) = self.take_fresh(replicas, deadline, taking).await? {
            return Ok(hold);
        }
        let lease = self.served(self.lease_at_home(deadline, site).await)?;
        Ok(Hold::Lease(lease))
    }

    /// Passes the gate and takes a connection of a replica, if that has what a read must find.
    async fn take_fresh<H: Deref<Target = Arc<dyn Connection>>>(
        &self,
        replicas: &Replicas,
        deadline: Deadline,
        taking: impl Future<Output = Result<H>>,
    ) -> Result<Option<H>, Setback> {
        self.gate
            .admit(Instant::now())
            .map_err(Setback::NotServed)?;
        if let Some(position) = self.required(replicas, deadline).await {
            let taken = self.served(taking.await)?;
            if self.catches_up(&**taken, position, deadline).await? {
                return Ok(Some(taken));
            }
        }
        metrics::read_at_primary();
        Ok(None)
    }

    /// What a replica must have for a read that begins now; `None` when nobody can say.
    async fn required(&self, replicas: &Replicas, deadline: Deadline) -> Option<Position> {
        let writes = self.backend.writes();
        if let Some(position) = replicas.required(writes) {
            return Some(position);
        }
        let until = deadline.earliest(Deadline::from_now(ASK_MAX));
        let engine = self.me().upgrade()?;
        // A task: whoever has the turn and is not polled would keep it from all others.
        let asked = tokio::spawn(async move { engine.learn(writes, until).await }).await;
        if !matches!(asked, Ok(Ok(Ok(())))) {
            replicas.known().in_vain = Some(Instant::now());
            tracing::debug!(?asked, "the primary did not say how far it has come");
        }
        replicas.required(writes)
    }

    /// Asks the primary how far it has come, unless somebody has done so meanwhile.
    async fn learn(&self, writes: Writes, until: Deadline) -> Result<Result<()>, Elapsed> {
        let Some(replicas) = &self.replicas else {
            return Ok(Ok(()));
        };
        let asking = async {
            let _turn = replicas.turn.lock().await;
            // Whoever had the turn before may have asked for us as well.
            if replicas.required(writes).is_none() {
                let sample = self.ask_primary(until).await?;
                replicas.known().note(sample, replicas.max_lag);
            }
            Ok(())
        };
        timeout_at(until.instant(), asking).await
    }

    async fn ask_primary(&self, deadline: Deadline) -> Result<Sample> {
        let lease = self.borrow_past_gate(Lane::Write, deadline).await?;
        let (at, writes) = (Instant::now(), self.backend.writes().ended);
        let lane = Lane::Write;
        let position = lease.position(Call { lane, deadline }).await?;
        Ok(Sample {
            at,
            writes,
            position,
        })
    }

    /// Whether the server of this connection has come that far. Waits a moment for it.
    async fn catches_up(
        &self,
        connection: &dyn Connection,
        position: Position,
        deadline: Deadline,
    ) -> Result<bool, Setback> {
        let started = Instant::now();
        let deadline = deadline.earliest(Deadline::after(started, CATCH_UP));
        let lane = Lane::Read;
        let mut pause = PAUSE;
        while !connection.has_reached(position) {
            let asking = connection.position(Call { lane, deadline });
            match answer_by(deadline, lane, asking).await {
                Ok(_) if connection.has_reached(position) => {}
                Ok(_) if Instant::now() + pause < deadline.instant() => {
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                Ok(_) => return Ok(false),
                Err(error) if error.is_timeout() || error.burden().is_some() => return Ok(false),
                Err(error) => {
                    self.witness("position", started.elapsed(), Some(&error));
                    return Err(Setback::Failed(error, Work::Read));
                }
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAG: Duration = Duration::from_secs(8);

    fn sample(at: Instant, writes: u64, position: u64) -> Sample {
        let position = Position::new(position);
        Sample {
            at,
            writes,
            position,
        }
    }

    fn required(known: &Known, now: Instant) -> Option<u64> {
        known.required(now, LAG).map(Position::get)
    }

    #[test]
    fn own_writes_and_what_is_a_lag_old_are_required_and_no_more() {
        let (mut known, begin) = (Known::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(required(&known, begin), None, "nobody has been asked");
        known.note(sample(begin, 3, 100), LAG);
        assert!(known.covers(3) && !known.covers(4));
        // Somebody else writes.
        known.note(sample(at(4), 3, 500), LAG);
        assert_eq!(
            required(&known, at(4)),
            Some(100),
            "what is younger need not be there"
        );
        assert_eq!(required(&known, at(9)), Some(500));
        // We do.
        known.note(sample(at(10), 4, 700), LAG);
        assert_eq!(required(&known, at(10)), Some(700));
        known.note(sample(at(11), 4, 900), LAG);
        assert_eq!(
            required(&known, at(11)),
            Some(700),
            "not what others wrote after it"
        );
    }

    #[test]
    fn while_the_primary_is_silent_what_was_known_last_is_required() {
        let (mut known, begin) = (Known::default(), Instant::now());
        known.note(sample(begin, 0, 100), LAG);
        known.note(sample(begin + LAG / 2, 0, 200), LAG);
        let suffices = |known: &Known, now, ended, decided| {
            known.suffices(now, Writes { ended, decided }, LAG)
        };
        assert!(suffices(&known, begin + LAG / 2, 0, 0));
        assert!(!suffices(&known, begin + LAG / 2, 1, 0));
        let late = begin + LAG * 10;
        assert!(!suffices(&known, late, 0, 0), "it is asked again");
        assert_eq!(required(&known, late), Some(200));
        known.in_vain = Some(late);
        assert!(suffices(&known, late, 1, 0), "not every read waits for it");
        assert!(
            !suffices(&known, late, 1, 1),
            "somebody was told of a write"
        );
        assert!(!suffices(&known, late + ASK_MAX, 0, 0));
    }

    #[test]
    fn a_log_that_goes_back_is_another_servers() {
        let (mut known, begin) = (Known::default(), Instant::now());
        known.note(sample(begin, 9, 900), LAG);
        known.note(sample(begin + LAG / 2, 9, 400), LAG);
        assert_eq!(required(&known, begin + LAG / 2), Some(400));
    }

    #[test]
    fn few_samples_are_kept_however_often_is_asked() {
        let (mut known, begin) = (Known::default(), Instant::now());
        for number in 0..10_000 {
            let at = begin + Duration::from_millis(number * 3);
            known.note(sample(at, number, number), LAG);
            assert!(known.samples.len() <= 10, "{}", known.samples.len());
        }
    }
}
