//! Why a quick way: nearly every acquire finds a clean connection on top of the stack, and nearly
//! every return finds nobody who waits, or a plain queue. Then no rule has anything to say, and walking
//! through all of them costs more than the rest. The quick ways check that it is so, and otherwise
//! leave everything as it was for the long ones.

use std::task::Waker;
use std::time::Duration;

use tokio::task;
use tokio::time::Instant;

use crate::connector::Tag;
use crate::ledger::{Ledger, Offer};
use crate::shed::Shedder;
use crate::slots::Held;
use crate::waiters::{Caller, Grant, Request, Ticket, Use};

/// What the quick ways have to reckon with.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Weather {
    /// The pool lends, nobody waits or watches, nothing is to be closed for the limit, and the alarm is
    /// early enough for whatever is lent or laid to rest from now on.
    Calm,
    /// The same, but some wait, all of them for a lease and with the same priority.
    Queue,
    Rough,
}

impl<C: Clone, E: Clone> Ledger<C, E> {
    /// Lends the connection on top if it needs no check and nobody is before the caller.
    #[inline(always)]
    pub(crate) fn lend_quickly(
        &mut self,
        now: Instant,
        by: Caller,
        task: Option<task::Id>,
    ) -> Option<Grant<C>> {
        if self.weather != Weather::Calm {
            return None;
        }
        debug_assert_eq!(self.outlook(), Weather::Calm, "nothing moved unseen");
        let grant = self.slots.lend_top(now, by, task)?;
        debug_assert!(self.unfit(now, grant.index).is_none(), "fresh means fit");
        self.totals.acquired += 1;
        Some(grant)
    }

    /// What a caller gets that wants a lease, if no rule has a say in it.
    pub(crate) fn offer_quickly(
        &mut self,
        now: Instant,
        request: &Request,
        waker: &Waker,
    ) -> Option<Offer<C, E>> {
        match (self.weather, request.wanted) {
            (Weather::Calm, Use::Exclusive) => self
                .lend_quickly(now, request.caller(), request.task)
                .map(Offer::Lend),
            (Weather::Queue, Use::Exclusive) => {
                self.join_quickly(now, request, waker).map(Offer::Queue)
            }
            (Weather::Rough, _) | (_, Use::Shared) => None,
        }
    }

    /// Joins those who wait for a lease already, if nothing but a lease that comes back can serve any of
    /// them.
    fn join_quickly(
        &mut self,
        now: Instant,
        request: &Request,
        waker: &Waker,
    ) -> Option<Ticket<C, E>> {
        debug_assert_eq!(self.outlook(), Weather::Queue, "nothing moved unseen");
        let holds_one = || {
            request
                .task
                .is_some_and(|task| self.slots.lent_to(task).is_some())
        };
        let is_plain = now < request.deadline
            && self.waiters.all_have(request.priority)
            && self.waiters.waiting() < self.settings.max_waiters
            && self.slots.all_lent(self.settings.limit)
            && self.is_watched()
            && !holds_one();
        is_plain.then(|| self.waiters.join(now, *request, waker))
    }

    /// Whether the upkeep looks at the queue at the end of the interval that runs.
    fn is_watched(&self) -> bool {
        let alarm = self.alarm;
        let in_time = |ends: Instant| alarm.is_some_and(|alarm| alarm <= ends);
        let watched = |shedder: &Shedder| shedder.ends().is_some_and(in_time);
        self.shedder.as_ref().is_none_or(watched)
    }

    /// Lays a clean connection that comes back from a lease on top of the stack if nothing else is to
    /// be done about it, and says how long it was lent.
    #[inline]
    pub(crate) fn rest_quickly(
        &mut self,
        now: Instant,
        index: usize,
        connection: C,
        tag: Option<Tag>,
    ) -> Result<Held, C> {
        debug_assert_eq!(self.outlook(), Weather::Calm, "nothing moved unseen");
        if !self.needs_nothing(now, index) {
            return Err(connection);
        }
        let window = self.settings.check_after_idle;
        let held = self.slots.rest_on_top(index, connection, tag, now, window);
        if let Some(shedder) = &mut self.shedder {
            shedder.on_held(held.held);
            shedder.on_empty();
        }
        Ok(held)
    }

    /// Hands a clean connection that comes back from a lease to whoever has waited longest, if no rule
    /// has a say in it. Says how long it was lent, and who is to be woken.
    pub(crate) fn hand_over_quickly(
        &mut self,
        now: Instant,
        index: usize,
        connection: C,
        tag: Option<Tag>,
    ) -> Result<(Held, Option<Waker>), C> {
        debug_assert_eq!(self.outlook(), Weather::Queue, "nothing moved unseen");
        let Some(key) = self.waiters.oldest() else {
            return Err(connection);
        };
        let (request, since) = (self.waiters.request(key), self.waiters.since(key));
        let (site, task, deadline) = (request.site, request.task, request.deadline);
        let lets = |shedder: &mut Shedder| shedder.lets_serve(now, since, deadline);
        if !self.needs_nothing(now, index) || !self.shedder.as_mut().is_none_or(lets) {
            return Err(connection);
        }
        self.slots.note_tag(index, tag);
        let held = self.slots.lend_on(index, site, task, now);
        if let Some(shedder) = &mut self.shedder {
            shedder.on_held(held.held);
        }
        self.totals.acquired += 1;
        let waker = self.give(now, key, index, connection);
        if self.waiters.waiting() == 0 {
            self.weather = Weather::Calm;
        }
        Ok((held, waker))
    }

    /// Whether this connection, which was lent, is fit to be used again, and nothing else is to be done
    /// about it.
    #[inline]
    fn needs_nothing(&self, now: Instant, index: usize) -> bool {
        let slot = self.slots.slot(index);
        let needs_nothing = slot.is_plain(now) && slot.generation >= self.lendable;
        debug_assert!(!needs_nothing || self.unfit(now, index).is_none());
        needs_nothing
    }

    /// What the quick ways have to reckon with now.
    #[inline]
    pub(crate) fn outlook(&self) -> Weather {
        let early_enough = |time: Duration| self.alarm_within <= time;
        let is_fine = self.watchers == 0
            && self.started
            && !self.closed
            && !self.paused
            && self.slots.live() <= self.settings.limit
            && self.settings.long_hold.is_none_or(early_enough)
            && self.settings.longest_rest.is_none_or(early_enough);
        if !is_fine {
            Weather::Rough
        } else if self.waiters.waiting() == 0 {
            Weather::Calm
        } else if self.waiters.are_alike() {
            Weather::Queue
        } else {
            Weather::Rough
        }
    }
}
