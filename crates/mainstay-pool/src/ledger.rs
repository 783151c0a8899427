//! Why a ledger: everything that decides (who gets which connection, what is opened, checked and
//! closed) is one state machine without clock, lock, task or socket. `now` comes in, orders go out.
//! It can be tested a million times a second, and there is exactly one place to look for a rule.
//!
//! The law that holds after every call while the pool lends: if somebody waits (for a place: while fewer
//! connections are shared than may be), then no idle connection could be lent as it is, and either as
//! many connections are arriving (being opened or checked) as would serve all who wait, or no more can be
//! brought under way. Opening and checking belong to tasks, never to a caller: whatever arrives goes to
//! the oldest waiter.

use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use crate::connector::{CloseReason, Condition, Tag};
use crate::error::{AcquireError, Cause, ShedReason};
use crate::observer::Event;
use crate::opening::{Failing, Failure};
use crate::orders::{Order, Orders};
use crate::quick::Weather;
use crate::settings::Settings;
use crate::shed::Shedder;
use crate::slots::{Held, Phase, Slot, Slots};
use crate::status::Totals;
use crate::waiters::{Answer, Grant, Key, Request, Ticket, Use, Waiters};

/// The state of one pool. Lives behind a short lock.
pub(crate) struct Ledger<C, E> {
    pub(crate) settings: Settings,
    pub(crate) slots: Slots<C>,
    pub(crate) waiters: Waiters<C, E>,
    pub(crate) totals: Totals,
    pub(crate) generation: u64,
    /// Connections of generations before this one are not lent again, whatever their end.
    pub(crate) lendable: u64,
    pub(crate) next_seat: u64,
    pub(crate) paused: bool,
    pub(crate) closed: bool,
    /// Whether the minimum is kept yet: from the first acquire or warm-up on.
    pub(crate) started: bool,
    /// Connections that a warm-up under way wants open, even if the minimum is smaller.
    pub(crate) warm_target: usize,
    /// Whether the quick ways may be taken: what [`outlook`](Self::outlook) said at the end of the last
    /// visit. Whatever may make it untrue outside of a visit says so here.
    pub(crate) weather: Weather,
    /// Futures that wait for a change of the counts.
    pub(crate) watchers: usize,
    pub(crate) failing: Option<Failing<E>>,
    /// Kept after connecting succeeded again: "it was away a minute ago" explains a lot.
    pub(crate) last_error: Option<(E, Instant)>,
    /// Replacements that are to be opened once there is room.
    pub(crate) owed: usize,
    pub(crate) replacing: usize,
    /// What the upkeep sleeps for; `None` means until it is told.
    pub(crate) alarm: Option<Instant>,
    /// The alarm goes off no later than this long from any instant since it was set.
    pub(crate) alarm_within: Duration,
    pub(crate) shedder: Option<Shedder>,
    pub(crate) random: fastrand::Rng,
}

/// What a caller gets at once.
pub(crate) enum Offer<C, E> {
    Lend(Grant<C>),
    Queue(Ticket<C, E>),
    /// Boxed: the way of those who get something should not carry the room for a reason.
    Refuse(Box<AcquireError<E>>),
}

impl<C: Clone, E: Clone> Ledger<C, E> {
    pub(crate) fn new(settings: Settings, random: fastrand::Rng) -> Self {
        Self {
            shedder: settings.shedding.map(Shedder::new),
            settings,
            slots: Slots::new(),
            waiters: Waiters::new(),
            totals: Totals::default(),
            generation: 0,
            lendable: 0,
            next_seat: 0,
            paused: false,
            closed: false,
            started: false,
            warm_target: 0,
            weather: Weather::Rough,
            watchers: 0,
            failing: None,
            last_error: None,
            owed: 0,
            replacing: 0,
            alarm: None,
            alarm_within: Duration::MAX,
            random,
        }
    }

    // ---- callers ----

    /// Lends an idle connection or a place, or queues the caller, who is woken when there is an
    /// answer, or refuses.
    pub(crate) fn request(
        &mut self,
        now: Instant,
        request: &Request,
        waker: &Waker,
        orders: &mut Orders<C>,
    ) -> Offer<C, E> {
        self.started = true;
        if request.wanted == Use::Shared {
            if let Some(grant) = self.take_place(now, request, orders) {
                self.watch_long_hold(now, orders);
                return Offer::Lend(grant);
            }
        } else if let Some(grant) = self.lend_idle(now, request, orders) {
            return Offer::Lend(grant);
        }
        if self.closed {
            return self.refuse(now, Cause::Closed);
        }
        if request.deadline <= now {
            self.totals.timeouts += 1;
            return self.refuse(now, self.cause_of_timeout());
        }
        if self.waiters.waiting() >= self.settings.max_waiters {
            self.totals.shed += 1;
            orders.push(Order::Tell(Event::Shed(ShedReason::Overflow)));
            return self.refuse(now, Cause::Overflow);
        }
        if let Some(refusal) = self.standing_refusal(now) {
            return self.refuse(now, refusal);
        }
        self.warn_of_nesting(request, orders);
        let ticket = self.waiters.join(now, *request, waker);
        let changes_nothing = match request.wanted {
            Use::Exclusive => self.slots.all_lent(self.settings.limit),
            Use::Shared => self.is_full_of_places(now),
        };
        if !changes_nothing {
            self.settle(now, orders);
        }
        if let Some(shedder) = &mut self.shedder {
            let at = shedder.on_join(now, self.waiters.waiting());
            self.wake_upkeep_by(at, orders);
        }
        Offer::Queue(ticket)
    }

    fn refuse(&self, now: Instant, cause: Cause<E>) -> Offer<C, E> {
        Offer::Refuse(Box::new(self.explain(now, cause, Duration::ZERO)))
    }

    /// Lends an idle connection that needs no check, unless somebody is before the caller.
    pub(crate) fn lend_idle(
        &mut self,
        now: Instant,
        request: &Request,
        orders: &mut Orders<C>,
    ) -> Option<Grant<C>> {
        if self.closed || self.paused || self.whose_turn().is_some() {
            return None;
        }
        let height = self.choose(now, request.prefer, orders)?;
        let (index, connection) = self.slots.take_idle(height, Phase::Lent, now)?;
        self.note_lease(now, index, request, orders);
        Some(Grant {
            index,
            seat: None,
            tag: self.slots.slot(index).tag,
            connection,
        })
    }

    /// A waiter leaves; what it was given meanwhile goes to the next one.
    pub(crate) fn leave(&mut self, now: Instant, ticket: &Ticket<C, E>, orders: &mut Orders<C>) {
        let Some(Answer::Lent(grant, _)) = self.waiters.leave(ticket) else {
            // Whoever was behind it may fit where it did not.
            self.serve_places(now, orders);
            return;
        };
        self.totals.acquired -= 1;
        let index = grant.index;
        // Nobody did anything with it, so a connection that was clean still is.
        let connection = if grant.seat.is_some() {
            self.leave_place(now, grant, Condition::Clean, orders)
        } else {
            Some(grant.connection)
        };
        if let Some(connection) = connection {
            self.arrive(now, index, connection, orders);
            self.settle(now, orders);
        }
    }

    /// A task that waits while it holds a lease may wait for itself: said once per lease.
    fn warn_of_nesting(&mut self, request: &Request, orders: &mut Orders<C>) {
        let Some(index) = request.task.and_then(|task| self.slots.lent_to(task)) else {
            return;
        };
        let slot = self.slots.slot_mut(index);
        if !std::mem::replace(&mut slot.nested, true) {
            orders.push(Order::Tell(Event::NestedWait {
                site: request.site,
                holds: slot.site,
            }));
        }
    }

    /// Why a caller whose deadline has passed got nothing.
    pub(crate) fn cause_of_timeout(&self) -> Cause<E> {
        if self.closed {
            return Cause::Closed;
        }
        if self.paused {
            return Cause::Paused;
        }
        let stuck = self.slots.out() + self.slots.count(Phase::Cleaning);
        let unanswered = self.slots.count(Phase::Connecting) > 0 && stuck == 0;
        self.failure().unwrap_or(if unanswered {
            Cause::Silent
        } else {
            Cause::Exhausted
        })
    }

    // ---- leases ----

    /// A lease comes back. Says how long it was held.
    pub(crate) fn give_back(
        &mut self,
        now: Instant,
        index: usize,
        connection: C,
        condition: Condition,
        orders: &mut Orders<C>,
    ) -> Held {
        let held = self.end_lease(now, index, orders);
        self.put_back(now, index, connection, condition, orders);
        held
    }

    /// A connection comes back from its last user.
    pub(crate) fn put_back(
        &mut self,
        now: Instant,
        index: usize,
        connection: C,
        condition: Condition,
        orders: &mut Orders<C>,
    ) {
        match condition {
            Condition::Clean => {
                self.arrive(now, index, connection, orders);
                return;
            }
            Condition::Broken => self.dismiss(now, index, connection, CloseReason::Broken, orders),
            Condition::Dirty => {
                if let Some(reason) = self.unfit(now, index) {
                    self.dismiss(now, index, connection, reason, orders);
                } else {
                    self.slots.shift(index, Phase::Cleaning, now);
                    orders.push(Order::Clean { index, connection });
                }
            }
        }
        self.settle(now, orders);
    }

    /// A lease is over, wherever its connection goes. Says how long it was held.
    pub(crate) fn end_lease(&mut self, now: Instant, index: usize, orders: &mut Orders<C>) -> Held {
        let slot = self.slots.slot_mut(index);
        if slot.on_cancel.is_some() {
            orders.forget(slot.on_cancel.take());
        }
        let held = slot.held(now);
        if !slot.stays {
            let warned = slot.warned;
            self.note_held(held, warned, orders);
        }
        held
    }

    /// A lease or a place was held for this long.
    pub(crate) fn note_held(
        &mut self,
        Held { held, site }: Held,
        warned: bool,
        orders: &mut Orders<C>,
    ) {
        if warned {
            orders.push(Order::Tell(Event::ReturnedAfterLongHold { site, held }));
        }
        if let Some(shedder) = &mut self.shedder {
            shedder.on_held(held);
        }
    }

    fn note_lease(&mut self, now: Instant, index: usize, by: &Request, orders: &mut Orders<C>) {
        self.slots.set_task(index, by.task);
        self.slots.slot_mut(index).lend_to(by.site);
        self.totals.acquired += 1;
        self.watch_long_hold(now, orders);
    }

    #[inline]
    pub(crate) fn watch_long_hold(&mut self, now: Instant, orders: &mut Orders<C>) {
        if let Some(long) = self.settings.long_hold {
            self.wake_upkeep_after(now, long, orders);
        }
    }

    // ---- connections ----

    /// A connection is ready for the next user: from a lease, a check, a cleaning or a connect.
    pub(crate) fn arrive(
        &mut self,
        now: Instant,
        index: usize,
        connection: C,
        orders: &mut Orders<C>,
    ) {
        if let Some(reason) = self.unfit(now, index) {
            self.dismiss(now, index, connection, reason, orders);
            self.settle(now, orders);
            return;
        }
        self.slots.slot_mut(index).suspect = false;
        let waiter = if self.paused {
            None
        } else {
            self.next_waiter(now, orders)
        };
        let slot = self.slots.slot_mut(index);
        if slot.rested.is_some() {
            // The next one that rests may be checked now.
            orders.push(Order::Upkeep);
        }
        if let Some(key) = waiter {
            slot.rested = None;
            self.serve(now, key, index, connection, orders);
            return;
        }
        let window = self.settings.check_after_idle;
        self.slots.push_idle(index, connection, now, window);
        if let Some(rest) = self.settings.longest_rest {
            self.wake_upkeep_after(now, rest, orders);
        }
    }

    /// Gives this connection, which nobody else uses, to a waiter, and to those who may share it.
    fn serve(
        &mut self,
        now: Instant,
        key: Key,
        index: usize,
        connection: C,
        orders: &mut Orders<C>,
    ) {
        if self.waiters.request(key).wanted == Use::Exclusive {
            self.hand_over(now, key, index, connection, orders);
            return;
        }
        self.share(now, index, connection);
        self.seat(now, key, index, orders);
        self.seat_waiters(now, orders);
        // One connection was brought for many places, and not everybody may fit on it.
        self.bring(now, orders);
    }

    /// Puts a connection into a waiter's place.
    fn hand_over(
        &mut self,
        now: Instant,
        key: Key,
        index: usize,
        connection: C,
        orders: &mut Orders<C>,
    ) {
        self.slots.shift(index, Phase::Lent, now);
        let request = *self.waiters.request(key);
        self.note_lease(now, index, &request, orders);
        orders.wake(self.give(now, key, index, connection));
    }

    /// Puts a connection whose lease has begun into a waiter's place, and says who is to be woken.
    pub(crate) fn give(
        &mut self,
        now: Instant,
        key: Key,
        index: usize,
        connection: C,
    ) -> Option<Waker> {
        self.waiters.served(key);
        let grant = Grant {
            index,
            seat: None,
            tag: self.slots.slot(index).tag,
            connection,
        };
        self.waiters.answer(key, Answer::Lent(grant, now))
    }

    /// Sends a connection to be closed; its slot counts until it is.
    ///
    /// What has silenced one connection may have silenced all, so one that did not pass its check
    /// makes its idle siblings be checked before they are lent again.
    pub(crate) fn dismiss(
        &mut self,
        now: Instant,
        index: usize,
        connection: C,
        reason: CloseReason,
        orders: &mut Orders<C>,
    ) {
        let slot = self.slots.slot(index);
        let replaced = slot.has_successor || slot.superseded;
        let aged = slot.generation >= self.lendable
            && matches!(reason, CloseReason::Lifetime | CloseReason::Generation);
        if aged && !replaced {
            // At the limit a successor can only be opened after this one has gone.
            self.owed = (self.owed + 1).min(self.settings.limit);
        }
        self.slots.shift(index, Phase::Closing, now);
        if reason == CloseReason::CheckFailed {
            self.suspect_all();
        }
        orders.push(Order::Close {
            index,
            connection,
            reason,
        });
    }

    /// A connection has gone for good, and its slot is free.
    pub(crate) fn vacate(&mut self, now: Instant, index: usize, orders: &mut Orders<C>) {
        orders.forget(self.slots.slot_mut(index).on_cancel.take());
        self.slots.shift(index, Phase::Vacant, now);
        self.settle(now, orders);
    }

    /// Whoever had this connection is gone without a word (a panic, a runtime that shut down).
    pub(crate) fn forfeit(&mut self, now: Instant, index: usize, orders: &mut Orders<C>) {
        self.totals.lost += 1;
        if self.slots.phase(index) == Phase::Connecting {
            let lost = Failure {
                error: None,
                permanent: false,
                retry_after: None,
            };
            self.connect_failed(now, index, lost, orders);
        } else {
            self.vacate(now, index, orders);
        }
    }

    // ---- rules ----

    /// Why a connection must not be lent again, if it must not.
    #[inline]
    pub(crate) fn unfit(&self, now: Instant, index: usize) -> Option<CloseReason> {
        let slot = self.slots.slot(index);
        let over = slot.superseded || slot.expires.is_some_and(|end| end <= now);
        let old = slot.generation < self.lendable;
        if over || old || self.closed || self.slots.live() > self.settings.limit {
            Some(self.why_unfit(slot, over))
        } else {
            None
        }
    }

    #[cold]
    fn why_unfit(&self, slot: &Slot<C>, over: bool) -> CloseReason {
        if self.closed {
            CloseReason::PoolClosed
        } else if slot.generation < self.lendable {
            CloseReason::Generation
        } else if over {
            self.end_of_life(slot)
        } else {
            CloseReason::Resized
        }
    }

    /// Why a connection ends whose time is over.
    pub(crate) fn end_of_life(&self, slot: &Slot<C>) -> CloseReason {
        if slot.generation < self.generation {
            CloseReason::Generation
        } else {
            CloseReason::Lifetime
        }
    }

    /// Brings the law back: serves who can be served, and brings connections under way for the rest
    /// and for the minimum.
    pub(crate) fn settle(&mut self, now: Instant, orders: &mut Orders<C>) {
        if self.closed {
            return;
        }
        self.seat_waiters(now, orders);
        while !self.paused
            && let Some(key) = self.whose_turn()
        {
            let prefer = self.waiters.request(key).prefer;
            let Some(height) = self.choose(now, prefer, orders) else {
                break;
            };
            let Some(key) = self.next_waiter(now, orders) else {
                break;
            };
            if let Some((index, connection)) = self.slots.take_idle(height, Phase::Lent, now) {
                self.serve(now, key, index, connection, orders);
            }
        }
        self.bring(now, orders);
        while self.owed > 0 && self.open_one(now, orders).is_some() {
            self.owed -= 1;
        }
        while self.slots.live() < self.floor() && self.open_one(now, orders).is_some() {}
    }

    /// Sends the topmost idle connection to be checked (or closed, if it is unfit); says whether there
    /// was one.
    pub(crate) fn check_top(&mut self, now: Instant, orders: &mut Orders<C>) -> bool {
        let top = self.slots.count(Phase::Idle).wrapping_sub(1);
        let Some((index, connection)) = self.slots.take_idle(top, Phase::Checking, now) else {
            return false;
        };
        match self.unfit(now, index) {
            Some(reason) => self.dismiss(now, index, connection, reason, orders),
            None => orders.push(Order::Check { index, connection }),
        }
        true
    }

    /// The height of the best idle connection that needs no check: the highest with the wanted tag,
    /// else the highest. Closes what it finds to be unfit.
    #[inline]
    pub(crate) fn choose(
        &mut self,
        now: Instant,
        prefer: Option<Tag>,
        orders: &mut Orders<C>,
    ) -> Option<usize> {
        // Nearly always it is the one on top, which needs no search.
        let (height, index) = self.slots.top()?;
        let top = self.slots.slot(index);
        if top.is_fresh(now)
            && prefer.is_none_or(|tag| tag == top.tag)
            && self.unfit(now, index).is_none()
        {
            return Some(height);
        }
        self.search(now, prefer, orders)
    }

    fn search(
        &mut self,
        now: Instant,
        prefer: Option<Tag>,
        orders: &mut Orders<C>,
    ) -> Option<usize> {
        loop {
            let fresh = |slot: &Slot<C>| slot.is_fresh(now);
            let height = prefer
                .and_then(|tag| self.slots.highest(|slot| slot.tag == tag && fresh(slot)))
                .or_else(|| self.slots.highest(fresh))?;
            let Some(reason) = self.unfit(now, self.slots.at_height(height)?) else {
                return Some(height);
            };
            self.dismiss_idle(now, height, reason, orders);
        }
    }

    /// Whose turn it is, after those who cannot be served in time were refused.
    #[inline]
    fn next_waiter(&mut self, now: Instant, orders: &mut Orders<C>) -> Option<Key> {
        self.shed(now, true, orders);
        self.whose_turn()
    }

    /// Makes sure that the upkeep looks again within this time from now. An alarm that was early
    /// enough for somebody who asked before, with no more time than this, is early enough still.
    #[inline]
    fn wake_upkeep_after(&mut self, now: Instant, time: Duration, orders: &mut Orders<C>) {
        if time < self.alarm_within {
            self.alarm_within = time;
            self.wake_upkeep_by(Some(now + time), orders);
        }
    }

    /// Makes sure that the upkeep looks again at this instant or earlier.
    pub(crate) fn wake_upkeep_by(&mut self, at: Option<Instant>, orders: &mut Orders<C>) {
        if let Some(at) = at
            && self.alarm.is_none_or(|alarm| at < alarm)
        {
            self.alarm = Some(at);
            orders.push(Order::Upkeep);
        }
    }
}
