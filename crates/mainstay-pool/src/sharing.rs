//! Why places: a connection that can have several statements under way serves many short reads with
//! one wake-up and one system call, where a lease for each would make most of them queue. A place is
//! lent under the same rules as a lease: the same queue, limit, deadline, shedding and generation.
//!
//! Which connection: a small active set first, each filled up to a depth, and only then another one.
//! Callers that are known to be brief gather on one connection before they use a second: the fewer
//! there are, the more requests go with one system call, and the fewer sessions compete for the
//! server's processors. A connection whose oldest place is late, or that must not be lent again, takes
//! nobody more until everybody has left (it drains).
//!
//! How many: at most `widest`, those that drain not counted. Who finds them full waits, though others are
//! idle: those are for leases, which are lent past him.
//!
//! Who first: leases and places are one queue for a connection that becomes free. A place may be
//! taken on a shared connection past somebody who waits for a lease, because that costs the lease
//! nothing: for every one that waits and cannot be brought a connection otherwise, a shared one
//! drains, and goes to whoever has waited longest when it is empty. So neither kind starves.

use tokio::time::Instant;

use crate::connector::Condition;
use crate::ledger::Ledger;
use crate::orders::Orders;
use crate::slots::{Held, Phase, Seat, Slot};
use crate::waiters::{Answer, Grant, Key, Request, Use};

/// Shared connections that take one more.
#[derive(Default)]
struct Open {
    /// The one with the fewest users.
    roomiest: Option<usize>,
    /// For one who is brief: the one with the most, all of them brief.
    among_brief: Option<usize>,
}

impl<C: Clone, E: Clone> Ledger<C, E> {
    /// Takes a place at once, unless somebody is before the caller.
    pub(crate) fn take_place(
        &mut self,
        now: Instant,
        request: &Request,
        orders: &mut Orders<C>,
    ) -> Option<Grant<C>> {
        if self.closed || self.paused || self.waiters.waiting_for(Use::Shared) > 0 {
            return None;
        }
        let may_wake = self.waiters.waiting() == 0;
        let widen = may_wake && self.slots.count(Phase::Shared) < self.settings.active;
        let open = self.open_places(now, request);
        if let Some(index) = open.among_brief {
            return self.sit_down(now, index, request);
        }
        if widen && let Some(index) = self.wake_idle(now, request, orders) {
            return self.sit_down(now, index, request);
        }
        if let Some(index) = open.roomiest {
            if widen {
                self.bring_another(now, orders);
            }
            return self.sit_down(now, index, request);
        }
        if may_wake
            && self.may_share_another()
            && let Some(index) = self.wake_idle(now, request, orders)
        {
            return self.sit_down(now, index, request);
        }
        None
    }

    /// Somebody leaves a place. The last one gets the connection, which counts as lent until it is
    /// put back: only then can be said whether it is clean.
    pub(crate) fn leave_place(
        &mut self,
        now: Instant,
        grant: Grant<C>,
        condition: Condition,
        orders: &mut Orders<C>,
    ) -> Option<C> {
        let Grant {
            index,
            seat,
            connection,
            ..
        } = grant;
        // Dropped before the last one may take it out, so that the last one is its only owner.
        drop(connection);
        let slot = self.slots.slot_mut(index);
        let position = slot.position(seat?)?;
        let left = slot.seats.remove(position)?;
        slot.lengthy -= usize::from(!left.brief);
        // Unanswered statements of others look dirty too; only what is broken is so for all.
        slot.draining |= condition == Condition::Broken;
        if slot.seats.is_empty() {
            slot.draining = false;
            slot.site = left.site;
            let connection = slot.connection.take();
            self.slots.set_task(index, None);
            self.slots.shift(index, Phase::Lent, now);
            self.end_seat(now, left, orders);
            return connection;
        }
        self.end_seat(now, left, orders);
        self.serve_places(now, orders);
        None
    }

    /// Serves those who wait for a place after something has changed on a shared connection: it may have room
    /// now, or drain, and then another one may be shared.
    pub(crate) fn serve_places(&mut self, now: Instant, orders: &mut Orders<C>) {
        self.seat_waiters(now, orders);
        if self.waiters.waiting_for(Use::Shared) > 0 && self.may_share_another() {
            self.settle(now, orders);
        }
    }

    fn end_seat(&mut self, now: Instant, seat: Seat, orders: &mut Orders<C>) {
        let held = Held {
            held: now.saturating_duration_since(seat.since),
            site: seat.site,
        };
        self.note_held(held, seat.warned, orders);
        orders.forget(seat.on_cancel);
    }

    /// Makes a connection shared that nobody uses.
    pub(crate) fn share(&mut self, now: Instant, index: usize, connection: C) {
        let slot = self.slots.slot_mut(index);
        slot.connection = Some(connection);
        slot.draining = false;
        self.slots.shift(index, Phase::Shared, now);
    }

    /// Gives a waiter a place on this connection.
    pub(crate) fn seat(&mut self, now: Instant, key: Key, index: usize, orders: &mut Orders<C>) {
        let request = *self.waiters.request(key);
        let Some(grant) = self.sit_down(now, index, &request) else {
            return;
        };
        self.waiters.served(key);
        orders.wake(self.waiters.answer(key, Answer::Lent(grant, now)));
        self.watch_long_hold(now, orders);
    }

    /// Gives places to those who wait for one, as far as shared connections have room.
    pub(crate) fn seat_waiters(&mut self, now: Instant, orders: &mut Orders<C>) {
        while !self.paused && self.waiters.waiting_for(Use::Shared) > 0 {
            self.shed(now, true, orders);
            let Some(key) = self.waiters.oldest_for(Use::Shared) else {
                return;
            };
            let request = *self.waiters.request(key);
            let open = self.open_places(now, &request);
            let Some(index) = open.among_brief.or(open.roomiest) else {
                return;
            };
            self.seat(now, key, index, orders);
        }
    }

    /// Lets shared connections drain for those who wait for a lease, if there is no other way to one.
    pub(crate) fn drain_for_leases(&mut self) {
        let waiting = self.waiters.waiting_for(Use::Exclusive);
        if waiting == 0 || self.paused || self.slots.count(Phase::Shared) == 0 {
            return;
        }
        if self.slots.in_use() < self.settings.limit && self.failing.is_none() {
            return;
        }
        let draining = self
            .slots
            .shared()
            .filter(|(_, slot)| slot.draining)
            .count();
        let coming = self.slots.arriving() + draining;
        for _ in coming..waiting {
            let open = self.slots.shared().filter(|(_, slot)| !slot.draining);
            let Some((index, _)) = open.min_by_key(|(_, slot)| slot.seats.len()) else {
                return;
            };
            self.slots.slot_mut(index).draining = true;
        }
    }

    /// How many connections would serve all who wait: one for each lease, one for each depth of
    /// places, and as many as the active set has room for.
    pub(crate) fn wanted(&self) -> usize {
        let leases = self.waiters.waiting_for(Use::Exclusive);
        let places = self.waiters.waiting_for(Use::Shared);
        let active = self.settings.active;
        if places == 0 {
            return leases;
        }
        let room = active.saturating_sub(self.slots.count(Phase::Shared));
        let sessions = places.div_ceil(self.settings.depth).max(places.min(room));
        leases + sessions.min(self.settings.widest.saturating_sub(self.open_shared()))
    }

    /// Who is next for a connection that nobody uses: those who wait for a place are not while as many
    /// connections are shared as may be.
    pub(crate) fn whose_turn(&self) -> Option<Key> {
        if self.waiters.waiting_for(Use::Shared) == 0 || self.may_share_another() {
            self.waiters.oldest()
        } else {
            self.waiters.oldest_for(Use::Exclusive)
        }
    }

    /// Whether one more connection may be shared.
    pub(crate) fn may_share_another(&self) -> bool {
        self.settings.widest > self.open_shared()
    }

    /// Whether one more who waits for a place has nothing to hope for but that somebody leaves: nobody has
    /// waited for so long that a shared connection may be late.
    pub(crate) fn is_full_of_places(&self, now: Instant) -> bool {
        let oldest = self.waiters.oldest_since();
        let may_be_late = |since| now.saturating_duration_since(since) > self.settings.late_after;
        !self.may_share_another() && !oldest.is_some_and(may_be_late)
    }

    /// Shared connections that do not drain.
    fn open_shared(&self) -> usize {
        let shared = self.slots.shared();
        shared.filter(|(_, slot)| !slot.draining).count()
    }

    /// Which shared connections take one more. Lets those drain that are late.
    fn open_places(&mut self, now: Instant, request: &Request) -> Open {
        let late = self.settings.late_after;
        let is_late = |slot: &Slot<C>| {
            let oldest = slot.seats.front().map(|seat| seat.since);
            oldest.is_some_and(|since| now.saturating_duration_since(since) > late)
        };
        let fits = |slot: &Slot<C>| {
            slot.seats.len() < self.settings.depth
                && request.prefer.is_none_or(|tag| tag == slot.tag)
        };
        let (mut found_late, mut open) = (None, Open::default());
        let (mut fewest, mut most) = (usize::MAX, 0);
        for (index, slot) in self.slots.shared().filter(|(_, slot)| !slot.draining) {
            if is_late(slot) {
                found_late = Some(index);
                continue;
            }
            if !fits(slot) || self.unfit(now, index).is_some() {
                continue;
            }
            let users = slot.seats.len();
            if users < fewest {
                (fewest, open.roomiest) = (users, Some(index));
            }
            if request.brief && slot.lengthy == 0 && users > most {
                (most, open.among_brief) = (users, Some(index));
            }
        }
        if let Some(late) = found_late {
            self.slots.slot_mut(late).draining = true;
        }
        open
    }

    fn wake_idle(
        &mut self,
        now: Instant,
        request: &Request,
        orders: &mut Orders<C>,
    ) -> Option<usize> {
        let height = self.choose(now, request.prefer, orders)?;
        let (index, connection) = self.slots.take_idle(height, Phase::Lent, now)?;
        self.share(now, index, connection);
        Some(index)
    }

    /// Brings one more connection under way for the active set, while its only users crowd together.
    fn bring_another(&mut self, now: Instant, orders: &mut Orders<C>) {
        let coming = self.slots.count(Phase::Shared) + self.slots.arriving();
        if coming < self.settings.active && !self.check_top(now, orders) {
            self.open_one(now, orders);
        }
    }

    fn sit_down(&mut self, now: Instant, index: usize, request: &Request) -> Option<Grant<C>> {
        let number = self.next_seat;
        let slot = self.slots.slot_mut(index);
        let connection = slot.connection.clone()?;
        self.totals.acquired += 1;
        self.next_seat += 1;
        slot.lengthy += usize::from(!request.brief);
        slot.seats.push_back(Seat {
            number,
            since: now,
            site: request.site,
            brief: request.brief,
            warned: false,
            on_cancel: None,
        });
        Some(Grant {
            index,
            seat: Some(number),
            tag: slot.tag,
            connection,
        })
    }
}
