//! Why orders: the ledger decides under a lock and must not act there. What has to be done is
//! written down, and the lender carries it out after the lock is released.

use std::task::Waker;

use crate::connector::{CloseReason, Tag};
use crate::observer::Event;
use crate::slots::CancelHook;

/// What the ledger wants done. An order that holds a connection owns it.
pub(crate) enum Order<C> {
    /// A waiter has its answer.
    Wake(Waker),
    /// Open a connection for this slot.
    Connect { index: usize, tag: Tag },
    /// Ask this connection whether it still answers.
    Check { index: usize, connection: C },
    /// Make this connection clean.
    Clean { index: usize, connection: C },
    /// Close this connection.
    Close {
        index: usize,
        connection: C,
        reason: CloseReason,
    },
    /// The upkeep has an earlier deadline than it sleeps for.
    Upkeep,
    /// Drop this hook, which is the user's code and may do anything.
    Forget(CancelHook),
    /// The observer wants to know.
    Tell(Event),
}

/// Orders of one visit to the ledger. At most a few per slot; empty when a clean connection is lent or
/// returned and nobody waits, and without allocation when it only goes to the next waiter.
pub(crate) struct Orders<C> {
    /// Whoever is woken first, which is most often the only order.
    first: Option<Waker>,
    more: Vec<Order<C>>,
}

impl<C> Orders<C> {
    pub(crate) const fn new() -> Self {
        Self {
            first: None,
            more: Vec::new(),
        }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none() && self.more.is_empty()
    }

    pub(crate) fn push(&mut self, order: Order<C>) {
        self.more.push(order);
    }

    /// Wakes this waiter, if it has left a way to.
    pub(crate) fn wake(&mut self, waker: Option<Waker>) {
        match waker {
            Some(waker) if self.first.is_none() => self.first = Some(waker),
            waker => self.more.extend(waker.map(Order::Wake)),
        }
    }

    /// Drops this hook, if there is one.
    pub(crate) fn forget(&mut self, hook: Option<CancelHook>) {
        self.more.extend(hook.map(Order::Forget));
    }

    /// The upkeep looks again anyway.
    pub(crate) fn without_upkeep(&mut self) {
        self.more.retain(|order| !matches!(order, Order::Upkeep));
    }

    /// Whoever is woken first, and the rest.
    pub(crate) fn split(self) -> (Option<Waker>, Vec<Order<C>>) {
        (self.first, self.more)
    }

    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Order<C>> {
        self.more.iter()
    }
}
