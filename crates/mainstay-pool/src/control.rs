//! Why run-time control: limits are wrong at three in the morning, a failover makes every open
//! connection worthless, and a deployment must end without cutting anybody off. What an operator or
//! the layer above may tell a pool is here, as decisions of the ledger.

use std::time::Duration;

use tokio::time::Instant;

use crate::connector::CloseReason;
use crate::error::{AcquireError, Cause};
use crate::ledger::Ledger;
use crate::orders::{Order, Orders};
use crate::slots::{CancelHook, Phase};
use crate::status::{Holder, Status};
use crate::waiters::Answer;

/// How many holders an error names.
const NAMED_HOLDERS: usize = 3;

impl<C: Clone, E: Clone> Ledger<C, E> {
    /// From now on no connection opened before is lent again.
    pub(crate) fn bump_generation(&mut self, now: Instant, orders: &mut Orders<C>) -> u64 {
        self.generation += 1;
        self.lendable = self.generation;
        self.dismiss_all_idle(now, CloseReason::Generation, orders);
        self.settle(now, orders);
        self.generation
    }

    /// Begins a new generation, and ends the connections of older ones somewhere within this interval.
    pub(crate) fn bump_generation_over(
        &mut self,
        now: Instant,
        over: Duration,
        orders: &mut Orders<C>,
    ) -> u64 {
        self.generation += 1;
        self.retire_all(now, over, orders);
        self.generation
    }

    /// Ends every connection's life somewhere within this interval.
    pub(crate) fn retire_all(&mut self, now: Instant, over: Duration, orders: &mut Orders<C>) {
        let random = &mut self.random;
        for slot in self.slots.occupied_mut() {
            let end = now + over.mul_f64(random.f64());
            slot.end_by(end);
        }
        orders.push(Order::Upkeep);
    }

    /// Every idle connection is checked before its next lending.
    pub(crate) fn suspect_all(&mut self) {
        for slot in self
            .slots
            .occupied_mut()
            .filter(|slot| slot.phase() == Phase::Idle)
        {
            slot.suspect = true;
        }
    }

    /// Changes the limit; what is idle above it is closed at once, the rest as it comes back.
    pub(crate) fn resize(&mut self, now: Instant, limit: usize, orders: &mut Orders<C>) {
        self.settings.limit = limit.max(1);
        while self.slots.live() > self.settings.limit && self.slots.count(Phase::Idle) > 0 {
            self.dismiss_idle(now, 0, CloseReason::Resized, orders);
        }
        self.settle(now, orders);
    }

    /// Stops or resumes lending; who waits goes on waiting.
    pub(crate) fn set_paused(&mut self, now: Instant, paused: bool, orders: &mut Orders<C>) {
        self.paused = paused;
        self.settle(now, orders);
    }

    /// Sends all away who wait now, each with this answer.
    pub(crate) fn answer_all(&mut self, answer: impl Fn() -> Answer<C, E>, orders: &mut Orders<C>) {
        while let Some(key) = self.waiters.oldest() {
            orders.wake(self.waiters.answer(key, answer()));
        }
    }

    /// Closes for good: nobody new, nobody who waits, nothing idle.
    pub(crate) fn shut(&mut self, now: Instant, orders: &mut Orders<C>) {
        self.closed = true;
        self.answer_all(|| Answer::Closed, orders);
        self.dismiss_all_idle(now, CloseReason::PoolClosed, orders);
    }

    /// What the holders of leases left to be called when they must end.
    pub(crate) fn take_cancel_hooks(&mut self) -> Vec<CancelHook> {
        self.slots
            .occupied_mut()
            .flat_map(|slot| {
                let places = slot.seats.iter_mut().map(|seat| &mut seat.on_cancel);
                std::iter::once(&mut slot.on_cancel).chain(places)
            })
            .filter_map(Option::take)
            .collect()
    }

    fn dismiss_all_idle(&mut self, now: Instant, reason: CloseReason, orders: &mut Orders<C>) {
        while self.slots.count(Phase::Idle) > 0 {
            self.dismiss_idle(now, 0, reason, orders);
        }
    }

    pub(crate) fn status(&self) -> Status {
        Status {
            limit: self.settings.limit,
            minimum: self.settings.minimum.min(self.settings.limit),
            idle: self.slots.count(Phase::Idle),
            lent: self.slots.count(Phase::Lent),
            shared: self.slots.count(Phase::Shared),
            places: self.slots.places(),
            connecting: self.slots.count(Phase::Connecting),
            checking: self.slots.count(Phase::Checking),
            cleaning: self.slots.count(Phase::Cleaning),
            closing: self.slots.count(Phase::Closing),
            waiting: self.waiters.waiting(),
            generation: self.generation,
            paused: self.paused,
            closed: self.closed,
            totals: self.totals,
        }
    }

    /// The leases and places that are out, longest first.
    pub(crate) fn holders(&self, now: Instant) -> Vec<Holder> {
        let holder = |site, since, tag| Holder {
            site,
            held: now.saturating_duration_since(since),
            tag,
        };
        let leases = self.slots.in_phase(Phase::Lent);
        let leases = leases.map(|(_, slot)| holder(slot.site, slot.since, slot.tag));
        let places = self.slots.shared().flat_map(|(_, slot)| {
            let seats = slot.seats.iter();
            seats.map(|seat| holder(seat.site, seat.since, slot.tag))
        });
        let mut holders: Vec<Holder> = leases.chain(places).collect();
        holders.sort_by_key(|holder| std::cmp::Reverse(holder.held));
        holders
    }

    pub(crate) fn last_error(&self, now: Instant) -> Option<(E, Duration)> {
        let (error, at) = self.last_error.as_ref()?;
        Some((error.clone(), now.saturating_duration_since(*at)))
    }

    /// Tells a caller why it gets nothing, with all that is known.
    pub(crate) fn explain(
        &self,
        now: Instant,
        cause: Cause<E>,
        waited: Duration,
    ) -> AcquireError<E> {
        let mut holders = self.holders(now);
        holders.truncate(NAMED_HOLDERS);
        AcquireError {
            cause,
            waited,
            status: Box::new(self.status()),
            last_connect_error: self.last_error(now),
            holders,
        }
    }
}
