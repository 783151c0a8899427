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

/// Orders of one visit to the ledger. At most a few per slot; empty (and not allocated) when a clean
/// connection is lent or returned and nobody waits.
pub(crate) type Orders<C> = Vec<Order<C>>;
