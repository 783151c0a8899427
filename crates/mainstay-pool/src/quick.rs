//! Why a quick way: nearly every acquire finds a clean connection on top of the stack, and nearly
//! every return finds nobody who waits. Then no rule has anything to say, and walking through all of
//! them costs more than the rest. The quick ways check that it is so, and otherwise leave everything
//! as it was for the long ones.

use std::time::Duration;

use tokio::task;
use tokio::time::Instant;

use crate::connector::Tag;
use crate::ledger::Ledger;
use crate::slots::Held;
use crate::waiters::{Caller, Grant};

impl<C: Clone, E: Clone> Ledger<C, E> {
    /// Lends the connection on top if it needs no check and nobody is before the caller.
    #[inline(always)]
    pub(crate) fn lend_quickly(
        &mut self,
        now: Instant,
        by: Caller,
        task: Option<task::Id>,
    ) -> Option<Grant<C>> {
        debug_assert!(!self.calm || self.is_calm(), "nothing moved unseen");
        if !self.calm {
            return None;
        }
        let grant = self.slots.lend_top(now, by, task)?;
        debug_assert!(self.unfit(now, grant.index).is_none(), "fresh means fit");
        self.totals.acquired += 1;
        Some(grant)
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
        debug_assert!(!self.calm || self.is_calm(), "nothing moved unseen");
        if !self.calm {
            return Err(connection);
        }
        let (window, oldest) = (self.settings.check_after_idle, self.lendable);
        let slot = self.slots.slot(index);
        if !slot.is_plain(now) || slot.generation < oldest {
            return Err(connection);
        }
        debug_assert!(self.unfit(now, index).is_none(), "plain means fit");
        let held = self.slots.rest_on_top(index, connection, tag, now, window);
        if let Some(shedder) = &mut self.shedder {
            shedder.on_held(held.held);
            shedder.on_empty();
        }
        Ok(held)
    }

    /// Whether the pool lends, nobody waits or watches, nothing is to be closed for the limit, and the
    /// alarm is early enough for whatever is lent or laid to rest from now on.
    #[inline]
    pub(crate) fn is_calm(&self) -> bool {
        let early_enough = |time: Duration| self.alarm_within <= time;
        self.waiters.waiting() == 0
            && self.watchers == 0
            && self.started
            && !self.closed
            && !self.paused
            && self.slots.live() <= self.settings.limit
            && self.settings.long_hold.is_none_or(early_enough)
            && self.settings.longest_rest.is_none_or(early_enough)
    }
}
