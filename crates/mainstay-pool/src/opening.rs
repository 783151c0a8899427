//! Why opening is rationed: a server that has just come back is stormed by every pool at once, and
//! one that refuses is asked again and again by callers who cannot know better. How many connections
//! are opened at once, when after a failure, and for whom, is decided here, never by a caller.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::Cause;
use crate::ledger::Ledger;
use crate::orders::{Order, Orders};
use crate::settings::{Delays, FASTEST_PACE, SLOWEST_PACE, sane};
use crate::slots::Phase;
use crate::waiters::Answer;

/// An attempt to connect that failed.
pub(crate) struct Failure<E> {
    /// `None` if its task was lost, or it got no answer that could be turned into an error.
    pub(crate) error: Option<E>,
    /// Whether the connector called it permanent.
    pub(crate) permanent: bool,
    /// How long the connector wants the next attempt to wait, if it says.
    pub(crate) retry_after: Option<Duration>,
}

/// Connecting fails at present: one attempt at a time, paced.
pub(crate) struct Failing<E> {
    /// `None` if the last attempt got no answer that could be turned into an error.
    pub(crate) error: Option<E>,
    /// Whether the connector called that error permanent.
    pub(crate) permanent: bool,
    /// Whether the connector said how long to wait.
    told: bool,
    pub(crate) not_before: Instant,
    delays: Delays,
}

impl<C: Clone, E: Clone> Ledger<C, E> {
    /// Why connecting fails at present, if it does.
    pub(crate) fn failure(&self) -> Option<Cause<E>> {
        let failing = self.failing.as_ref()?;
        Some(match failing.error.clone() {
            Some(error) if failing.permanent => Cause::Refused(error),
            Some(error) => Cause::Unreachable(error),
            None => Cause::Silent,
        })
    }

    /// What everybody is told at once who would need a new connection: that connecting was refused for
    /// good, and that it is not tried again yet.
    pub(crate) fn standing_refusal(&self, now: Instant) -> Option<Cause<E>> {
        let failing = self.failing.as_ref()?;
        let stands = failing.permanent && failing.told && now < failing.not_before;
        if !stands || self.present() > 0 {
            return None;
        }
        self.failure()
    }

    /// What stood in the way of connecting is gone.
    pub(crate) fn forget_failure(&mut self, now: Instant, orders: &mut Orders<C>) {
        self.failing = None;
        self.settle(now, orders);
    }

    /// Connections that are there, whatever they do at the moment.
    pub(crate) fn present(&self) -> usize {
        self.slots.live() - self.slots.count(Phase::Connecting)
    }

    /// Whether those who wait do so because connections cannot be opened, or none has been yet.
    pub(crate) fn is_away(&self) -> bool {
        self.failing.is_some() || self.present() == 0
    }

    /// A connection was opened.
    pub(crate) fn connected(
        &mut self,
        now: Instant,
        index: usize,
        connection: C,
        orders: &mut Orders<C>,
    ) {
        self.totals.opened += 1;
        let was_away = self.is_away();
        self.failing = None;
        if was_away && let Some(shedder) = &mut self.shedder {
            // Those who waited until it was there again have done nothing wrong.
            shedder.begin_anew(now);
        }
        let lifetime = self.lifetime();
        let slot = self.slots.slot_mut(index);
        // Whoever retired everything meanwhile meant this one too.
        let ends = [slot.expires, lifetime.map(|lifetime| now + lifetime)];
        slot.expires = ends.into_iter().flatten().min();
        let replaces = slot.replaces.take();
        if let Some((old, serial)) = replaces {
            self.replacing -= 1;
            self.supersede(now, old, serial, orders);
        }
        self.wake_upkeep_for(index, orders);
        self.arrive(now, index, connection, orders);
        self.settle(now, orders);
    }

    /// An attempt to connect failed.
    pub(crate) fn connect_failed(
        &mut self,
        now: Instant,
        index: usize,
        failure: Failure<E>,
        orders: &mut Orders<C>,
    ) {
        self.totals.connect_failures += 1;
        if let Some((old, serial)) = self.slots.slot_mut(index).replaces.take() {
            self.replacing -= 1;
            orders.push(Order::Upkeep);
            if self.is_present(old, serial) {
                self.slots.slot_mut(old).has_successor = false;
            }
        }
        self.slots.shift(index, Phase::Vacant, now);
        if let Some(error) = &failure.error {
            self.last_error = Some((error.clone(), now));
        }
        // Whoever can be served by a connection that is there goes on waiting for it.
        let refused = failure.permanent && self.present() == 0;
        let error = failure.error.clone().filter(|_| refused);
        self.pace(now, failure);
        if let Some(error) = error {
            self.answer_all(|| Answer::Refused(error.clone()), orders);
        }
        self.settle(now, orders);
    }

    /// The connections that are to be open even if nobody needs them.
    pub(crate) fn floor(&self) -> usize {
        let minimum = if self.started {
            self.settings.minimum
        } else {
            0
        };
        minimum.max(self.warm_target).min(self.settings.limit)
    }

    /// Brings connections under way for those who wait.
    ///
    /// Suspects are checked, all at once, and nobody relies on them: where there is room, a new
    /// connection is opened beside, so that silence costs a caller one check and not one for each
    /// sibling.
    pub(crate) fn bring(&mut self, now: Instant, orders: &mut Orders<C>) {
        while !self.paused && self.wanted() > self.slots.arriving() - self.slots.doubtful() {
            // Whatever is still idle needs a check first.
            if !self.check_top(now, orders) && self.open_one(now, orders).is_none() {
                break;
            }
        }
        self.drain_for_leases();
    }

    /// Brings one more connection under way, if limit and pacing allow.
    pub(crate) fn open_one(&mut self, now: Instant, orders: &mut Orders<C>) -> Option<usize> {
        let at_once = if self.failing.is_some() {
            1
        } else {
            self.settings.max_connecting
        };
        if self.slots.in_use() >= self.settings.limit
            || self.slots.count(Phase::Connecting) >= at_once
        {
            return None;
        }
        if let Some(at) = self.failing.as_ref().map(|failing| failing.not_before)
            && now < at
        {
            self.wake_upkeep_by(Some(at), orders);
            return None;
        }
        let wanted = self
            .waiters
            .oldest()
            .and_then(|key| self.waiters.request(key).prefer);
        let tag = wanted.unwrap_or_default();
        let index = self.slots.occupy(now, self.generation, tag);
        orders.push(Order::Connect { index, tag });
        Some(index)
    }

    /// Starts or goes on with the pacing after a failed attempt.
    fn pace(&mut self, now: Instant, failure: Failure<E>) {
        let (mut delays, earlier) = match self.failing.take() {
            Some(failing) => (failing.delays, Some(failing.not_before)),
            None => ((self.settings.pacing)(), None),
        };
        let earlier = earlier.filter(|at| now < *at);
        let not_before = match failure.retry_after {
            Some(wait) => {
                let at = now + sane(wait).max(FASTEST_PACE);
                earlier.map_or(at, |earlier| earlier.max(at))
            }
            // Attempts that were under way together and fail together are one step, not many.
            None => earlier.unwrap_or_else(|| {
                // An iterator that has ended means: go on at the slowest pace there is.
                let delay = delays.next().unwrap_or(SLOWEST_PACE);
                now + sane(delay).max(FASTEST_PACE)
            }),
        };
        self.failing = Some(Failing {
            error: failure.error,
            permanent: failure.permanent,
            told: failure.retry_after.is_some(),
            not_before,
            delays,
        });
    }
}
