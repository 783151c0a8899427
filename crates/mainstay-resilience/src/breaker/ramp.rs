//! Why not let everyone in at once when the server is back?
//!
//! Because everyone is a crowd by then, and a server with cold caches that has just started is the
//! easiest to knock over again. The ramp admits one call, then two, then four. It is a slope and
//! not a lock: whatever happens to the calls that it admitted, even if none of them ever reports
//! back, time alone takes it to its end.

use std::time::Duration;

use tokio::time::Instant;

use crate::Deadline;

/// Above this many calls in flight there is no limit any more: far more than the connections of one
/// pool.
const HIGHEST_LIMIT: u32 = 256;

/// A limit on calls in flight that doubles until it is none.
#[derive(Clone, Debug)]
pub(super) struct Ramp {
    limit: u32,
    in_flight: u32,
    answered: u32,
    step: Duration,
    step_ends: Instant,
    /// When the outage began that this ramp ends; for the message to those who are refused.
    pub(super) since: Instant,
}

impl Ramp {
    pub(super) fn new(now: Instant, step: Duration, since: Instant) -> Self {
        let step_ends = Deadline::after(now, step).instant();
        Self {
            limit: 1,
            in_flight: 0,
            answered: 0,
            step,
            step_ends,
            since,
        }
    }

    /// Takes a place in flight, or says how long the present step lasts at most.
    pub(super) fn try_enter(&mut self, now: Instant) -> Result<(), Duration> {
        if self.in_flight >= self.limit {
            return Err(self.step_ends.saturating_duration_since(now));
        }
        self.in_flight += 1;
        Ok(())
    }

    pub(super) fn leave(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// As many answers as the limit finish a step early.
    pub(super) fn on_answer(&mut self, now: Instant) {
        self.answered += 1;
        if self.answered >= self.limit {
            self.climb(now);
        }
    }

    /// A failure begins the ramp again.
    pub(super) fn on_failure(&mut self, now: Instant) {
        self.limit = 1;
        self.begin_step(now);
    }

    /// Lets time pass; `true` when the ramp is over.
    pub(super) fn is_over(&mut self, now: Instant) -> bool {
        // At most nine rounds: the limit doubles each time.
        while now >= self.step_ends && self.limit <= HIGHEST_LIMIT {
            // Calls that have not come back within a step are slow or gone; either way they no
            // longer hold a place.
            self.in_flight = 0;
            self.climb(self.step_ends);
        }
        self.limit > HIGHEST_LIMIT
    }

    fn climb(&mut self, now: Instant) {
        self.limit = self.limit.saturating_mul(2);
        self.begin_step(now);
    }

    fn begin_step(&mut self, now: Instant) {
        self.answered = 0;
        self.step_ends = Deadline::after(now, self.step).instant();
    }
}
