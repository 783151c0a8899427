//! Why upkeep by deadline: a sweep every so often closes connections up to one sweep late, wakes for
//! nothing the rest of the time, and replaces everything at once. The ledger names the next instant
//! at which something is to be done, and sleeps until then.

use std::time::Duration;

use tokio::time::Instant;

use crate::connector::CloseReason;
use crate::ledger::Ledger;
use crate::observer::Event;
use crate::orders::{Order, Orders};
use crate::quick::Weather;
use crate::slots::{Phase, Slot};

/// A replacement is begun this long before the end of a connection (or a twentieth of its life, if
/// that is shorter), so that nobody waits for it.
const LEAD: Duration = Duration::from_secs(30);

impl<C: Clone, E: Clone> Ledger<C, E> {
    /// Does what is due and returns when to look again.
    pub(crate) fn tend(&mut self, now: Instant, orders: &mut Orders<C>) -> Option<Instant> {
        self.no_alarm();
        if !self.closed {
            self.shed(now, false, orders);
            self.end_idle(now, orders);
            self.end_lifetimes(now, orders);
            self.replace_ageing(now, orders);
            self.keep_alive(now, orders);
            self.settle(now, orders);
            self.lower_alarm(now);
            self.alarm_for_lifetimes(now);
        }
        self.warn_long_holds(now, orders);
        // What is due now has just been done; an alarm in the past would turn the loop hot.
        self.alarm = self.alarm.map(|at| at.max(now + Duration::from_millis(1)));
        self.alarm_within = Duration::MAX;
        orders.without_upkeep();
        self.alarm
    }

    /// Nobody looks until the next alarm is set.
    pub(crate) fn no_alarm(&mut self) {
        (self.alarm, self.alarm_within) = (None, Duration::MAX);
        self.weather = Weather::Rough;
    }

    /// Closes what nobody has needed for the idle timeout, down to the minimum.
    fn end_idle(&mut self, now: Instant, orders: &mut Orders<C>) {
        let Some(timeout) = self.settings.idle_timeout else {
            return;
        };
        while self.slots.live() > self.floor() {
            let Some(height) = self.slots.lowest(|slot| slot.since + timeout <= now) else {
                break;
            };
            self.dismiss_idle(now, height, CloseReason::Idle, orders);
        }
    }

    /// Closes idle connections whose life has ended, whether or not a successor is there.
    fn end_lifetimes(&mut self, now: Instant, orders: &mut Orders<C>) {
        let over = |slot: &Slot<C>| slot.expires.is_some_and(|end| end <= now);
        while let Some(height) = self.slots.lowest(over) {
            let Some(index) = self.slots.at_height(height) else {
                break;
            };
            let reason = self.end_of_life(self.slots.slot(index));
            self.dismiss_idle(now, height, reason, orders);
        }
    }

    /// Checks connections that have rested for long, so that whatever forgets silent ones between
    /// here and the server does not forget them, and nobody has to find out. As many at a time as
    /// may be replaced.
    fn keep_alive(&mut self, now: Instant, orders: &mut Orders<C>) {
        let Some(every) = self.settings.keep_alive else {
            return;
        };
        while self.slots.count(Phase::Checking) < self.max_replacing() {
            let silent = |slot: &Slot<C>| slot.last_seen() + every <= now;
            let Some(height) = self.slots.lowest(silent) else {
                return;
            };
            let since = self
                .slots
                .at_height(height)
                .map(|i| self.slots.slot(i).since);
            let Some((index, connection)) = self.slots.take_idle(height, Phase::Checking, now)
            else {
                return;
            };
            self.slots.slot_mut(index).rested = since;
            orders.push(Order::Check { index, connection });
        }
    }

    /// Opens successors for connections whose life ends soon, a tenth of the pool at a time.
    fn replace_ageing(&mut self, now: Instant, orders: &mut Orders<C>) {
        let lead = self.lead();
        let room = self.max_replacing().saturating_sub(self.replacing);
        let due: Vec<(usize, u64)> = [Phase::Idle, Phase::Lent, Phase::Shared]
            .into_iter()
            .flat_map(|phase| self.slots.in_phase(phase))
            .filter(|(_, slot)| !slot.has_successor && !slot.superseded)
            .filter(|(_, slot)| slot.generation >= self.lendable)
            .filter(|(_, slot)| slot.expires.is_some_and(|end| end <= now + lead))
            .map(|(index, slot)| (index, slot.serial))
            .take(room)
            .collect();
        for (old, serial) in due {
            let Some(new) = self.open_one(now, orders) else {
                break;
            };
            self.slots.slot_mut(new).replaces = Some((old, serial));
            self.slots.slot_mut(old).has_successor = true;
            self.replacing += 1;
        }
    }

    fn max_replacing(&self) -> usize {
        (self.settings.limit / 10).max(1)
    }

    /// Reports every lease and place that has been out for long, once.
    fn warn_long_holds(&mut self, now: Instant, orders: &mut Orders<C>) {
        let Some(long) = self.settings.long_hold else {
            return;
        };
        let mut alarm = self.alarm;
        let mut watch = |since: Instant, site, warned: &mut bool| {
            let at = since + long;
            if at <= now {
                *warned = true;
                let held = now.saturating_duration_since(since);
                orders.push(Order::Tell(Event::LongHold { site, held }));
            } else {
                alarm = Some(alarm.map_or(at, |alarm| alarm.min(at)));
            }
        };
        for slot in self.slots.occupied_mut() {
            if slot.phase() == Phase::Lent && !slot.warned && !slot.stays {
                watch(slot.since, slot.site, &mut slot.warned);
            }
            for seat in slot.seats.iter_mut().filter(|seat| !seat.warned) {
                watch(seat.since, seat.site, &mut seat.warned);
            }
        }
        self.alarm = alarm;
    }

    /// Alarms for idleness, for silence and for a queue that may stand.
    fn lower_alarm(&mut self, now: Instant) {
        let idle = self
            .settings
            .idle_timeout
            .filter(|_| self.slots.live() > self.floor());
        let idle = idle.and_then(|timeout| {
            let lowest = self.slots.at_height(0)?;
            Some(self.slots.slot(lowest).since + timeout)
        });
        let silent = self.settings.keep_alive.and_then(|every| {
            let resting = self.slots.in_phase(Phase::Idle);
            let due = resting.map(|(_, slot)| slot.last_seen() + every);
            // What is due now waits for a check under way, whose end rings.
            due.filter(|at| *at > now).min()
        });
        let queue = self.shedder.as_ref().filter(|_| self.waiters.waiting() > 0);
        let queue = queue.and_then(|shedder| shedder.ends());
        self.alarm = [self.alarm, idle, silent, queue]
            .into_iter()
            .flatten()
            .min();
    }

    /// Alarms for successors that are to be opened and for lives that end.
    fn alarm_for_lifetimes(&mut self, now: Instant) {
        let lead = self.lead();
        let next = [Phase::Idle, Phase::Lent, Phase::Shared]
            .into_iter()
            .flat_map(|phase| self.slots.in_phase(phase))
            .filter_map(|(_, slot)| {
                let end = slot.expires.filter(|end| *end > now)?;
                let due = end
                    .checked_sub(lead)
                    .filter(|due| *due > now && !slot.has_successor);
                Some(due.unwrap_or(end))
            })
            .min();
        self.alarm = [self.alarm, next].into_iter().flatten().min();
    }

    /// Makes sure that the upkeep looks when the life of this connection ends.
    pub(crate) fn wake_upkeep_for(&mut self, index: usize, orders: &mut Orders<C>) {
        let lead = self.lead();
        let end = self.slots.slot(index).expires;
        self.wake_upkeep_by(end.map(|end| end.checked_sub(lead).unwrap_or(end)), orders);
    }

    fn lead(&self) -> Duration {
        self.settings
            .max_lifetime
            .map_or(LEAD, |life| LEAD.min(life / 20))
    }

    /// A lifetime for a connection that is born now: the maximum, give or take a quarter, so that
    /// connections that were opened together do not end together.
    pub(crate) fn lifetime(&mut self) -> Option<Duration> {
        let factor = 0.75 + 0.5 * self.random.f64();
        self.settings.max_lifetime.map(|life| life.mul_f64(factor))
    }

    /// The successor of this connection is there.
    pub(crate) fn supersede(
        &mut self,
        now: Instant,
        old: usize,
        serial: u64,
        orders: &mut Orders<C>,
    ) {
        // The next one may be replaced now.
        orders.push(Order::Upkeep);
        if !self.is_present(old, serial) {
            return;
        }
        self.slots.slot_mut(old).superseded = true;
        if let Some(height) = self.slots.height(old) {
            let reason = self.end_of_life(self.slots.slot(old));
            self.dismiss_idle(now, height, reason, orders);
        }
    }

    /// Whether the connection with this serial number is still there and not being closed.
    pub(crate) fn is_present(&self, index: usize, serial: u64) -> bool {
        let gone = matches!(self.slots.phase(index), Phase::Vacant | Phase::Closing);
        !gone && self.slots.slot(index).serial == serial
    }

    /// Closes the idle connection at this height of the stack.
    pub(crate) fn dismiss_idle(
        &mut self,
        now: Instant,
        height: usize,
        reason: CloseReason,
        orders: &mut Orders<C>,
    ) {
        if let Some((index, connection)) = self.slots.take_idle(height, Phase::Idle, now) {
            self.dismiss(now, index, connection, reason, orders);
        }
    }
}
