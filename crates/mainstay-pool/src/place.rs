//! Why a place is not a lease: it gives shared access only, to a connection whose other users are
//! strangers. Whether it is clean can only be said once the last of them has left; until then a
//! place just leaves, and the last one puts the connection back as a lease would.

use std::fmt;
use std::ops::Deref;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::connector::{Condition, Connector, Tag};
use crate::lender::{Kept, Lender};
use crate::observer::Event;
use crate::waiters::Grant;

/// The shared use of one connection, beside others; leaves when dropped.
pub struct Place<K: Connector> {
    /// Leaves with what the connection looked like; `Broken` until it has been judged.
    leaving: Leaving<K>,
    since: Instant,
    site: &'static Location<'static>,
    /// Of the connection. While this place is taken nobody else may change it, so reading it needs no
    /// lock.
    tag: AtomicU8,
}

impl<K: Connector> Place<K> {
    pub(crate) fn new(
        lender: &Arc<Lender<K>>,
        grant: Grant<Kept<K>>,
        site: &'static Location<'static>,
        since: Instant,
    ) -> Self {
        let leaving = Leaving {
            lender: Arc::clone(lender),
            index: grant.index,
            seat: grant.seat,
            connection: Some(grant.connection),
            condition: Condition::Broken,
            unused: false,
            at: None,
        };
        Self {
            leaving,
            since,
            site,
            tag: AtomicU8::new(grant.tag.0),
        }
    }

    pub(crate) fn condition(&self) -> Condition {
        self.leaving.lender.connector.condition(self)
    }

    /// Leaves as if the place had never been given; nobody else is seated on the connection then.
    pub(crate) fn leave_unused(mut self) {
        self.leaving.unused = true;
    }

    /// Remembers a setting that the connection has from now on, and lets those on it who prefer it.
    /// Refused (`false`, and nothing changed) while others are on the connection, who rely on the
    /// setting it has.
    pub fn set_tag(&self, tag: Tag) -> bool {
        let index = self.leaving.index;
        self.leaving.lender.visit(|ledger, now, orders| {
            let slot = ledger.slots.slot_mut(index);
            let alone = slot.seats.len() == 1;
            if alone {
                slot.tag = tag;
                self.tag.store(tag.0, Ordering::Relaxed);
                ledger.serve_places(now, orders);
            }
            alone
        })
    }

    /// The setting this connection was last used with.
    #[must_use]
    pub fn tag(&self) -> Tag {
        Tag(self.tag.load(Ordering::Relaxed))
    }

    /// The generation of the pool in which this connection was opened.
    #[must_use]
    pub fn generation(&self) -> u64 {
        let ledger = self.leaving.lender.ledger();
        ledger.slots.slot(self.leaving.index).generation
    }

    /// Where this place was acquired.
    #[must_use]
    pub fn site(&self) -> &'static Location<'static> {
        self.site
    }

    /// How long this place has been held.
    #[must_use]
    pub fn held(&self) -> Duration {
        self.since.elapsed()
    }

    /// Leaves a hook that is called if the pool is closed and this place is still taken when the
    /// grace is over. Replaces an earlier hook; gone when the place is.
    pub fn on_cancel(&mut self, hook: impl FnOnce() + Send + 'static) {
        let earlier = {
            let mut ledger = self.leaving.lender.ledger();
            let slot = ledger.slots.slot_mut(self.leaving.index);
            let position = self.leaving.seat.and_then(|seat| slot.position(seat));
            position.and_then(|at| slot.seats[at].on_cancel.replace(Box::new(hook)))
        };
        // Dropped outside the lock: it is the user's code.
        drop(earlier);
    }
}

impl<K: Connector> Drop for Place<K> {
    fn drop(&mut self) {
        if self.leaving.unused {
            return;
        }
        // If judging panics, the place is left with `Broken`.
        self.leaving.condition = self.condition();
        let now = Instant::now();
        self.leaving.at = Some(now);
        let (since, site) = (self.since, self.site);
        self.leaving.lender.report(|| {
            let held = now.saturating_duration_since(since);
            Event::Held { held, site }
        });
    }
}

impl<K: Connector> Deref for Place<K> {
    type Target = K::Connection;

    fn deref(&self) -> &K::Connection {
        const PRESENT: &str = "a place has its connection until it is dropped";
        self.leaving.connection.as_ref().expect(PRESENT)
    }
}

impl<K: Connector> fmt::Debug for Place<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("held", &self.held())
            .finish_non_exhaustive()
    }
}

/// The duty to leave a place, on every path.
struct Leaving<K: Connector> {
    lender: Arc<Lender<K>>,
    index: usize,
    seat: Option<u64>,
    /// `None` only while it is being dropped.
    connection: Option<Kept<K>>,
    condition: Condition,
    /// The connection was found broken before it was used.
    unused: bool,
    /// When it was judged, which is when it leaves.
    at: Option<Instant>,
}

impl<K: Connector> Drop for Leaving<K> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        let grant = Grant {
            index: self.index,
            seat: self.seat,
            tag: Tag::default(),
            connection,
        };
        let (condition, unused) = (self.condition, self.unused);
        let now = self.at.unwrap_or_else(Instant::now);
        let last = self.lender.visit_at(now, |ledger, now, orders| {
            ledger.totals.acquired -= u64::from(unused);
            ledger.leave_place(now, grant, condition, orders)
        });
        let Some(connection) = last else {
            return;
        };
        // Judged again: what others left may have changed since. If that panics, the claim frees the
        // slot.
        let mut claim = self.lender.claim(self.index);
        let condition = self.lender.connector.condition(&connection);
        let tag = self.lender.connector.tag(&connection);
        claim.settle_at(now, |ledger, index, now, orders| {
            ledger.slots.note_tag(index, tag);
            ledger.put_back(now, index, connection, condition, orders);
        });
    }
}
