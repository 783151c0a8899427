//! Why dropping is enough: a connection must come back on every path, also on panic and
//! cancellation, on any thread, with or without a runtime around. Returning a clean connection is a
//! visit to the ledger; only dirty and broken ones need a task, and that task is bounded.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use crate::connector::{CloseReason, Condition, Connector, Tag};
use crate::errands;
use crate::lender::{Claim, Kept, LedgerOf, Lender, OrdersOf, SOLE};
use crate::observer::Event;
use crate::quick::Weather;
use crate::slots::{Held, Phase};
use crate::waiters::Grant;

const PRESENT: &str = "a lease has its connection until it is consumed";

/// The exclusive use of one connection; returns it when dropped.
pub struct Lease<K: Connector> {
    /// `None` only while the lease is being consumed.
    connection: Option<Kept<K>>,
    /// All else that is known of a lease stands in its slot: leases are moved about a lot.
    claim: Claim<K>,
}

impl<K: Connector> Lease<K> {
    pub(crate) fn new(lender: &Arc<Lender<K>>, grant: Grant<Kept<K>>) -> Self {
        Self {
            connection: Some(grant.connection),
            claim: lender.claim(grant.index),
        }
    }

    pub(crate) fn condition(&self) -> Condition {
        self.claim.lender.connector.condition(self)
    }

    /// Goes back as if it had never been given.
    pub(crate) fn give_back_unused(mut self) {
        let condition = self.condition();
        let Some(connection) = self.connection.take() else {
            return;
        };
        self.claim.settle(|ledger, index, now, orders| {
            ledger.totals.acquired -= 1;
            ledger.give_back(now, index, connection, condition, orders);
        });
    }

    /// Takes the connection out of the pool for good; its slot is free at once.
    #[must_use]
    pub fn detach(mut self) -> K::Connection {
        let connection = self.connection.take().expect(PRESENT);
        self.finish(|ledger, index, now, orders| {
            ledger.totals.detached += 1;
            let held = ledger.end_lease(now, index, orders);
            ledger.vacate(now, index, orders);
            held
        });
        Arc::into_inner(connection).expect(SOLE)
    }

    /// Closes the connection instead of returning it, and waits until the other side has let go (at
    /// most the pool's close timeout).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not stop the closing; it only stops waiting for it. Dropped before
    /// its first poll, it has not begun: the connection is returned as by dropping the lease.
    pub async fn close(mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        let claim = self.claim.pass_on();
        let lender = claim.lender.clone();
        let held = lender.visit(|ledger, now, orders| {
            let held = ledger.end_lease(now, claim.index, orders);
            ledger.slots.shift(claim.index, Phase::Closing, now);
            ledger.settle(now, orders);
            held
        });
        self.tell(held);
        let closing = lender.spawn(errands::close(claim, connection, CloseReason::Requested));
        drop(self);
        if let Some(closing) = closing
            && let Err(error) = closing.await
        {
            // Its claim has freed the slot.
            tracing::warn!(%error, "closing a connection ended without an answer");
        }
    }

    /// Remembers a setting that this connection has from now on, for callers that prefer it.
    pub fn set_tag(&mut self, tag: Tag) {
        self.claim
            .lender
            .ledger()
            .slots
            .slot_mut(self.claim.index)
            .tag = tag;
    }

    /// The setting this connection was last used with.
    #[must_use]
    pub fn tag(&self) -> Tag {
        let ledger = self.claim.lender.ledger();
        ledger.slots.slot(self.claim.index).tag
    }

    /// Where this lease was acquired.
    #[must_use]
    pub fn site(&self) -> &'static Location<'static> {
        let ledger = self.claim.lender.ledger();
        ledger.slots.slot(self.claim.index).site
    }

    /// How long this lease has been held.
    #[must_use]
    pub fn held(&self) -> Duration {
        let ledger = self.claim.lender.ledger();
        ledger.slots.slot(self.claim.index).since.elapsed()
    }

    /// The generation of the pool in which this connection was opened.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.claim
            .lender
            .ledger()
            .slots
            .slot(self.claim.index)
            .generation
    }

    /// Leaves a hook that is called if the pool is closed and this lease is still out when the grace
    /// is over: the place to cancel what the connection is doing. Replaces an earlier hook; gone
    /// when the lease is.
    pub fn on_cancel(&mut self, hook: impl FnOnce() + Send + 'static) {
        let hook = Box::new(hook);
        let earlier = {
            let mut ledger = self.claim.lender.ledger();
            ledger
                .slots
                .slot_mut(self.claim.index)
                .on_cancel
                .replace(hook)
        };
        // Dropped outside the lock: it is the user's code.
        drop(earlier);
    }

    /// Says that this lease is meant to be held for as long as its user lives, as by a listener: it is
    /// not reported as held for long, and does not count when the pool reckons how soon a
    /// connection comes back.
    pub fn stay(&mut self) {
        self.claim
            .lender
            .ledger()
            .slots
            .slot_mut(self.claim.index)
            .stays = true;
    }

    fn finish(
        &mut self,
        visit: impl FnOnce(&mut LedgerOf<K>, usize, Instant, &mut OrdersOf<K>) -> Held,
    ) {
        let held = self.claim.settle(visit);
        self.tell(held);
    }

    fn tell(&self, Held { held, site }: Held) {
        self.claim.lender.report(|| Event::Held { held, site });
    }
}

impl<K: Connector> Drop for Lease<K> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        // If judging panics, the claim still frees the slot.
        let connector = &self.claim.lender.connector;
        let condition = connector.condition(&connection);
        let tag = connector.tag(&connection);
        let now = Instant::now();
        self.claim.release();
        let (lender, index) = (&self.claim.lender, self.claim.index);
        let mut ledger = lender.ledger();
        let weather = if condition == Condition::Clean {
            ledger.weather
        } else {
            Weather::Rough
        };
        let connection = match weather {
            Weather::Calm => match ledger.rest_quickly(now, index, connection, tag) {
                Ok(held) => {
                    drop(ledger);
                    return self.tell(held);
                }
                Err(connection) => connection,
            },
            Weather::Queue => match ledger.hand_over_quickly(now, index, connection, tag) {
                Ok((held, waker)) => {
                    drop(ledger);
                    waker.into_iter().for_each(Waker::wake);
                    return self.tell(held);
                }
                Err(connection) => connection,
            },
            Weather::Rough => connection,
        };
        let held = lender.visit_in(ledger, now, move |ledger, now, orders| {
            ledger.slots.note_tag(index, tag);
            ledger.give_back(now, index, connection, condition, orders)
        });
        self.tell(held);
    }
}

impl<K: Connector> Deref for Lease<K> {
    type Target = K::Connection;

    fn deref(&self) -> &K::Connection {
        self.connection.as_ref().expect(PRESENT)
    }
}

impl<K: Connector> DerefMut for Lease<K> {
    fn deref_mut(&mut self) -> &mut K::Connection {
        Arc::get_mut(self.connection.as_mut().expect(PRESENT)).expect(SOLE)
    }
}

impl<K: Connector> fmt::Debug for Lease<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("held", &self.held())
            .finish_non_exhaustive()
    }
}
