//! Why slots: capacity is lost when a connection exists that nobody counts. Every connection, from
//! the first attempt to open it until the other side has let go, owns a slot; one function, `turn`,
//! moves a slot between phases and keeps the counts, so the counts always add up.

use std::collections::VecDeque;
use std::panic::Location;
use std::time::Duration;

use tokio::task;
use tokio::time::Instant;

use crate::connector::Tag;
use crate::waiters::{Caller, Grant};

/// Called when a lease must end: the pool is closing and its grace is over.
pub(crate) type CancelHook = Box<dyn FnOnce() + Send>;

/// Where a connection is in its life.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// No connection. → `Connecting`
    Vacant,
    /// Being opened. → `Idle` or `Lent` (through `Idle`), `Closing` when unwanted, `Vacant` when it failed.
    Connecting,
    /// In the ledger's hands. → `Lent`, `Shared`, `Checking`, `Closing`
    Idle,
    /// In a user's hands. → `Idle`, `Cleaning`, `Closing`, `Vacant` when detached or lost.
    Lent,
    /// In the hands of several users, each on a place. → `Lent` to the last one as it leaves.
    Shared,
    /// In a checking task's hands. → `Idle`, `Closing`
    Checking,
    /// In a cleaning task's hands. → `Idle`, `Closing`
    Cleaning,
    /// In a closing task's hands. → `Vacant`
    Closing,
}

/// What is said of a lease that is over.
#[derive(Copy, Clone)]
pub(crate) struct Held {
    pub(crate) held: Duration,
    pub(crate) site: &'static Location<'static>,
}

/// One user of a shared connection.
pub(crate) struct Seat {
    pub(crate) number: u64,
    pub(crate) since: Instant,
    pub(crate) site: &'static Location<'static>,
    /// Its user is known to need it for a moment only.
    pub(crate) brief: bool,
    /// This place was reported as held for long.
    pub(crate) warned: bool,
    pub(crate) on_cancel: Option<CancelHook>,
}

pub(crate) struct Slot<C> {
    phase: Phase,
    /// Present exactly while idle and in the stack, or shared.
    pub(crate) connection: Option<C>,
    /// Which connection this is; slots are used again, serial numbers are not.
    pub(crate) serial: u64,
    pub(crate) generation: u64,
    /// When the phase began.
    pub(crate) since: Instant,
    /// When the connection was last known to answer, if that was after the phase began.
    pub(crate) proven: Instant,
    /// Until when it may be lent without a check, at most to its end; set when it becomes idle,
    /// because comparing is cheaper than subtracting and happens on every acquire.
    pub(crate) fresh_until: Instant,
    /// Since when it was idle before it was taken out of the stack for a keep-alive check.
    pub(crate) rested: Option<Instant>,
    /// When the connection ends, fixed at birth.
    pub(crate) expires: Option<Instant>,
    pub(crate) tag: Tag,
    /// Where the present or last lease was acquired.
    pub(crate) site: &'static Location<'static>,
    /// Must be checked before it is lent, however short it was idle.
    pub(crate) suspect: bool,
    /// The connection this one was opened to replace: slot and serial number.
    pub(crate) replaces: Option<(usize, u64)>,
    /// A connection is being opened to replace this one.
    pub(crate) has_successor: bool,
    /// Its replacement is there: close it as soon as it is idle.
    pub(crate) superseded: bool,
    /// The present lease was reported as held for long.
    pub(crate) warned: bool,
    /// The present lease is meant to be held for long.
    pub(crate) stays: bool,
    /// The task of the present lease was reported as waiting for another one.
    pub(crate) nested: bool,
    pub(crate) on_cancel: Option<CancelHook>,
    /// The places taken, oldest first, so by number; at most the depth of the pool.
    pub(crate) seats: VecDeque<Seat>,
    /// How many of them may be needed for longer than a moment.
    pub(crate) lengthy: usize,
    /// Shared, but takes nobody more until everybody has left.
    pub(crate) draining: bool,
}

impl<C> Slot<C> {
    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether it may be lent as it is, for all that is known of the connection.
    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        !self.suspect && now < self.fresh_until
    }

    /// Whether nothing is to be done about it when it comes back clean, except that it becomes idle.
    #[inline]
    pub(crate) fn is_plain(&self, now: Instant) -> bool {
        debug_assert!(self.rested.is_none(), "what is lent does not rest");
        let marked = self.superseded | self.warned | self.stays;
        let lives = self.expires.is_none_or(|end| now < end);
        !marked && lives && self.on_cancel.is_none()
    }

    /// How long the lease has been held, and where it was taken.
    #[inline]
    pub(crate) fn held(&self, now: Instant) -> Held {
        Held {
            held: now.saturating_duration_since(self.since),
            site: self.site,
        }
    }

    /// Ends its life at this instant, if it would have lived longer.
    pub(crate) fn end_by(&mut self, end: Instant) {
        self.expires = Some(self.expires.map_or(end, |earlier| earlier.min(end)));
        self.fresh_until = self.fresh_until.min(end);
    }

    /// For the length of the window it needs no check.
    #[inline]
    fn stay_fresh(&mut self, now: Instant, window: Duration) {
        let until = now + window;
        self.fresh_until = self.expires.map_or(until, |end| end.min(until));
    }

    /// The only place where a phase changes. Says which one it was.
    #[inline]
    fn turn(&mut self, to: Phase, now: Instant, counts: &mut [usize; 8]) -> Phase {
        let from = std::mem::replace(&mut self.phase, to);
        counts[from as usize] -= 1;
        counts[to as usize] += 1;
        self.since = now;
        from
    }

    /// Notes whose lease begins.
    #[inline]
    pub(crate) fn lend_to(&mut self, site: &'static Location<'static>) {
        self.site = site;
        (self.warned, self.stays, self.nested) = (false, false, false);
    }

    /// Where among the places the one with this number is.
    pub(crate) fn position(&self, seat: u64) -> Option<usize> {
        self.seats
            .binary_search_by_key(&seat, |other| other.number)
            .ok()
    }

    /// When the connection last showed that it answers.
    pub(crate) fn last_seen(&self) -> Instant {
        self.since.max(self.proven)
    }
}

/// All slots, and the stack of the idle ones.
pub(crate) struct Slots<C> {
    slots: Vec<Slot<C>>,
    free: Vec<usize>,
    /// Last in, first out: caches stay warm and the rest may grow old and be closed.
    stack: Vec<usize>,
    /// The shared ones.
    shared: Vec<usize>,
    /// By slot, the task of the present or last lease; apart, because it is searched.
    tasks: Vec<Option<task::Id>>,
    /// How many slots are in each phase.
    counts: [usize; 8],
    serial: u64,
}

impl<C> Slots<C> {
    pub(crate) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            stack: Vec::new(),
            shared: Vec::new(),
            tasks: Vec::new(),
            counts: [0; 8],
            serial: 0,
        }
    }

    pub(crate) fn count(&self, phase: Phase) -> usize {
        self.counts[phase as usize]
    }

    /// Slots that hold a connection in any phase.
    pub(crate) fn in_use(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Connections that are of use now or soon: all but those being closed.
    pub(crate) fn live(&self) -> usize {
        self.in_use() - self.count(Phase::Closing)
    }

    /// Whether nothing can be had before somebody gives it back: the limit is reached, and nobody
    /// shares.
    pub(crate) fn all_lent(&self, limit: usize) -> bool {
        self.count(Phase::Lent) == self.slots.len() && self.slots.len() >= limit
    }

    /// Connections on their way to a waiter.
    pub(crate) fn arriving(&self) -> usize {
        self.count(Phase::Connecting) + self.count(Phase::Checking)
    }

    /// Those of them that are being checked because a sibling was lost.
    pub(crate) fn doubtful(&self) -> usize {
        if self.count(Phase::Checking) == 0 {
            return 0;
        }
        let checking = |slot: &&Slot<C>| slot.phase == Phase::Checking && slot.suspect;
        self.slots.iter().filter(checking).count()
    }

    /// Connections in the hands of users.
    pub(crate) fn out(&self) -> usize {
        self.count(Phase::Lent) + self.count(Phase::Shared)
    }

    /// Places taken on shared connections.
    pub(crate) fn places(&self) -> usize {
        let shared = self.shared.iter();
        shared.map(|&index| self.slots[index].seats.len()).sum()
    }

    /// Takes a vacant slot for a connection that is about to be opened.
    pub(crate) fn occupy(&mut self, now: Instant, generation: u64, tag: Tag) -> usize {
        self.serial += 1;
        let slot = Slot {
            phase: Phase::Vacant,
            connection: None,
            serial: self.serial,
            generation,
            since: now,
            proven: now,
            fresh_until: now,
            rested: None,
            expires: None,
            tag,
            site: Location::caller(),
            suspect: false,
            replaces: None,
            has_successor: false,
            superseded: false,
            warned: false,
            stays: false,
            nested: false,
            on_cancel: None,
            seats: VecDeque::new(),
            lengthy: 0,
            draining: false,
        };
        let index = if let Some(index) = self.free.pop() {
            self.slots[index] = slot;
            index
        } else {
            self.slots.push(slot);
            self.tasks.push(None);
            self.counts[Phase::Vacant as usize] += 1;
            self.slots.len() - 1
        };
        self.shift(index, Phase::Connecting, now);
        index
    }

    /// Moves a slot to another phase and keeps the lists.
    #[inline]
    pub(crate) fn shift(&mut self, index: usize, to: Phase, now: Instant) {
        let from = self.slots[index].turn(to, now, &mut self.counts);
        if from == Phase::Shared {
            self.shared.retain(|&other| other != index);
        }
        if to == Phase::Shared {
            self.shared.push(index);
        }
        if to == Phase::Vacant {
            self.free.push(index);
        }
    }

    /// Lends the connection on top of the stack as it is, if it is fresh and has the wanted setting.
    #[inline(always)]
    pub(crate) fn lend_top(
        &mut self,
        now: Instant,
        by: Caller,
        task: Option<task::Id>,
    ) -> Option<Grant<C>> {
        let index = *self.stack.last()?;
        let slot = &mut self.slots[index];
        if !slot.is_fresh(now) || by.prefer.is_some_and(|tag| tag != slot.tag) {
            return None;
        }
        let connection = slot.connection.take()?;
        slot.turn(Phase::Lent, now, &mut self.counts);
        slot.lend_to(by.site);
        let tag = slot.tag;
        self.stack.pop();
        self.tasks[index] = task;
        Some(Grant {
            index,
            seat: None,
            tag,
            connection,
        })
    }

    /// Lends a lent connection on to another task, and says how long it was lent to the one before.
    pub(crate) fn lend_on(
        &mut self,
        index: usize,
        site: &'static Location<'static>,
        task: Option<task::Id>,
        now: Instant,
    ) -> Held {
        let slot = &mut self.slots[index];
        let held = slot.held(now);
        slot.turn(Phase::Lent, now, &mut self.counts);
        slot.lend_to(site);
        self.tasks[index] = task;
        held
    }

    /// Lays a lent connection on top of the stack, and says how long it was lent.
    #[inline]
    pub(crate) fn rest_on_top(
        &mut self,
        index: usize,
        connection: C,
        tag: Option<Tag>,
        now: Instant,
        window: Duration,
    ) -> Held {
        let slot = &mut self.slots[index];
        let held = slot.held(now);
        slot.turn(Phase::Idle, now, &mut self.counts);
        slot.stay_fresh(now, window);
        slot.connection = Some(connection);
        slot.tag = tag.unwrap_or(slot.tag);
        self.stack.push(index);
        held
    }

    /// Puts a connection on top of the stack, or back to where a keep-alive check took it from.
    /// For the length of the window it needs no check.
    pub(crate) fn push_idle(
        &mut self,
        index: usize,
        connection: C,
        now: Instant,
        window: Duration,
    ) {
        self.shift(index, Phase::Idle, now);
        let slot = &mut self.slots[index];
        slot.stay_fresh(now, window);
        slot.connection = Some(connection);
        let Some(since) = slot.rested.take() else {
            self.stack.push(index);
            return;
        };
        self.lay_back(index, since, now);
    }

    fn lay_back(&mut self, index: usize, since: Instant, now: Instant) {
        let slot = &mut self.slots[index];
        (slot.since, slot.proven) = (since, now);
        let above = |&other: &usize| self.slots[other].since > since;
        let height = self.stack.iter().position(above);
        self.stack.insert(height.unwrap_or(self.stack.len()), index);
    }

    /// Notes the setting of a connection, if it told one.
    pub(crate) fn note_tag(&mut self, index: usize, tag: Option<Tag>) {
        if let Some(tag) = tag {
            self.slots[index].tag = tag;
        }
    }

    /// Notes whose lease this is.
    pub(crate) fn set_task(&mut self, index: usize, task: Option<task::Id>) {
        self.tasks[index] = task;
    }

    /// A lease of this task, if it holds one.
    pub(crate) fn lent_to(&self, task: task::Id) -> Option<usize> {
        let mut tasks = self.tasks.iter().enumerate();
        let lent = |index: &usize| self.slots[*index].phase == Phase::Lent;
        tasks.find_map(|(index, id)| (*id == Some(task)).then_some(index).filter(lent))
    }

    /// The shared connections.
    pub(crate) fn shared(&self) -> impl Iterator<Item = (usize, &Slot<C>)> {
        self.shared.iter().map(|&index| (index, &self.slots[index]))
    }

    /// Takes the connection at this height of the stack and moves its slot on.
    #[inline]
    pub(crate) fn take_idle(
        &mut self,
        height: usize,
        to: Phase,
        now: Instant,
    ) -> Option<(usize, C)> {
        let index = match self.stack.len().checked_sub(height)? {
            0 => return None,
            1 => self.stack.pop()?,
            _ => self.stack.remove(height),
        };
        let connection = self.slots[index].connection.take()?;
        self.shift(index, to, now);
        Some((index, connection))
    }

    /// The height of the stack's top, and the slot that lies there.
    pub(crate) fn top(&self) -> Option<(usize, usize)> {
        let index = *self.stack.last()?;
        Some((self.stack.len() - 1, index))
    }

    /// The highest idle connection that fits.
    pub(crate) fn highest(&self, fits: impl Fn(&Slot<C>) -> bool) -> Option<usize> {
        self.stack
            .iter()
            .rposition(|&index| fits(&self.slots[index]))
    }

    /// The lowest idle connection (the one unused for longest) that fits.
    pub(crate) fn lowest(&self, fits: impl Fn(&Slot<C>) -> bool) -> Option<usize> {
        self.stack
            .iter()
            .position(|&index| fits(&self.slots[index]))
    }

    /// The slot at this height, if the stack is that high.
    pub(crate) fn at_height(&self, height: usize) -> Option<usize> {
        self.stack.get(height).copied()
    }

    /// Where in the stack this slot lies.
    pub(crate) fn height(&self, index: usize) -> Option<usize> {
        self.stack.iter().position(|&other| other == index)
    }

    pub(crate) fn phase(&self, index: usize) -> Phase {
        self.slots[index].phase
    }

    pub(crate) fn slot(&self, index: usize) -> &Slot<C> {
        &self.slots[index]
    }

    pub(crate) fn slot_mut(&mut self, index: usize) -> &mut Slot<C> {
        &mut self.slots[index]
    }

    /// All slots in this phase, by index.
    pub(crate) fn in_phase(&self, phase: Phase) -> impl Iterator<Item = (usize, &Slot<C>)> {
        self.slots
            .iter()
            .enumerate()
            .filter(move |(_, slot)| slot.phase == phase)
    }

    /// All slots that hold a connection, to be changed.
    pub(crate) fn occupied_mut(&mut self) -> impl Iterator<Item = &mut Slot<C>> {
        self.slots
            .iter_mut()
            .filter(|slot| slot.phase != Phase::Vacant)
    }
}
