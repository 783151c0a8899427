//! Why a thin face: the pool itself decides nothing. It is a cheap clone of the way to its lender,
//! with one method for each thing a caller or an operator may ask for.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::acquire;
use crate::builder::Builder;
use crate::connector::{Connector, Tag};
use crate::error::AcquireError;
use crate::lease::Lease;
use crate::lender::Lender;
use crate::place::Place;
use crate::settings;
use crate::status::{Holder, Status};
use crate::waiters::{Answer, Caller, Request};

/// Owns the connections of one database and lends them. A cheap clone: all clones are one pool.
///
/// When the last clone and the last lease are gone, idle connections are dropped; for an orderly end
/// call [`close`](Self::close).
pub struct Pool<K: Connector> {
    pub(crate) lender: Arc<Lender<K>>,
}

impl<K: Connector> Pool<K> {
    /// Begins to build a pool that opens its connections with this connector.
    pub fn builder(connector: K) -> Builder<K> {
        Builder::new(connector)
    }

    pub(crate) fn new(lender: Arc<Lender<K>>) -> Self {
        Self { lender }
    }

    /// Waits for a connection, at most until the deadline, which bounds queueing, checking and
    /// connecting together. The caller's place in the source is kept for [`holders`](Self::holders).
    ///
    /// # Errors
    ///
    /// Says why there was none: [`Cause`](crate::Cause).
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any await: a connection that was just handed over goes to the next waiter,
    /// one that is being opened or checked for the caller goes to whoever needs it.
    #[track_caller]
    pub fn acquire(
        &self,
        deadline: Instant,
    ) -> impl Future<Output = Result<Lease<K>, AcquireError<K::Error>>> + Send + use<'_, K> {
        let by = Caller::here();
        acquire::acquire(&self.lender, by, move |_| {
            Request::until(deadline).site(by.site)
        })
    }

    /// Like [`acquire`](Self::acquire), for a caller that has no deadline but a time it is willing to
    /// wait, counted from the first poll: the clock is read once for both.
    ///
    /// # Errors
    ///
    /// Says why there was none: [`Cause`](crate::Cause).
    ///
    /// # Cancel safety
    ///
    /// As for [`acquire`](Self::acquire).
    #[track_caller]
    pub fn acquire_within(
        &self,
        time: Duration,
    ) -> impl Future<Output = Result<Lease<K>, AcquireError<K::Error>>> + Send + use<'_, K> {
        let by = Caller::here();
        acquire::acquire(&self.lender, by, move |now| {
            Request::until(now + settings::sane(time)).site(by.site)
        })
    }

    /// Like [`acquire`](Self::acquire), with a preferred setting and a priority.
    ///
    /// # Errors
    ///
    /// Says why there was none: [`Cause`](crate::Cause).
    ///
    /// # Cancel safety
    ///
    /// As for [`acquire`](Self::acquire).
    pub fn acquire_with(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<Lease<K>, AcquireError<K::Error>>> + Send + use<'_, K> {
        acquire::acquire(&self.lender, request.caller(), move |_| request)
    }

    /// Waits for a place on a connection that others use at the same time, under the same rules as
    /// for a lease: limit, order, deadline, shedding, generation. With a preferred setting it only
    /// joins others whose connection has that setting; a connection of its own may have another one
    /// ([`Place::set_tag`]).
    ///
    /// # Errors
    ///
    /// Says why there was none: [`Cause`](crate::Cause).
    ///
    /// # Cancel safety
    ///
    /// As for [`acquire`](Self::acquire).
    pub fn acquire_place(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<Place<K>, AcquireError<K::Error>>> + Send + use<'_, K> {
        acquire::acquire_place(&self.lender, request)
    }

    /// Takes an idle connection that needs no check, if there is one and nobody waits.
    #[track_caller]
    #[must_use]
    pub fn try_acquire(&self, prefer: Option<Tag>) -> Option<Lease<K>> {
        let now = Instant::now();
        let request = Request::until(now).prefer(prefer).site(Location::caller());
        acquire::try_acquire(&self.lender, &request, now)
    }

    /// Takes a place on a shared connection, or on an idle one that needs no check, if there is one and
    /// nobody waits; takes none where whoever asked last had to wait. Worth trying before
    /// [`acquire_place`](Self::acquire_place) where the future that waits is large: it need not exist for
    /// those who need not wait. `now` is the present instant, which whoever asks so often has just read. The
    /// deadline of the request says nothing here.
    #[must_use]
    pub fn try_acquire_place(&self, now: Instant, request: &Request) -> Option<Place<K>> {
        if self.lender.seems_crowded() {
            return None;
        }
        acquire::try_acquire(&self.lender, request, now)
    }

    /// Refuses all who wait now with [`Cause::TurnedAway`](crate::Cause::TurnedAway), as when it is known that
    /// there is nothing to wait for. Who comes later is not concerned.
    pub fn refuse_waiters(&self, error: &K::Error) {
        self.lender.visit(|ledger, _, orders| {
            ledger.answer_all(|| Answer::TurnedAway(error.clone()), orders);
        });
    }

    /// The pool at this instant; the counts agree with each other.
    #[must_use]
    pub fn status(&self) -> Status {
        self.lender.ledger().status()
    }

    /// The leases and places that are out, longest first.
    #[must_use]
    pub fn holders(&self) -> Vec<Holder> {
        self.lender.ledger().holders(Instant::now())
    }

    /// The most recent failure to connect and its age, kept after connecting succeeded again.
    #[must_use]
    pub fn last_connect_error(&self) -> Option<(K::Error, Duration)> {
        self.lender.ledger().last_error(Instant::now())
    }

    /// The connector this pool was built with.
    #[must_use]
    pub fn connector(&self) -> &K {
        &self.lender.connector
    }

    /// Begins a new generation: connections opened before are not lent again. Idle ones are closed
    /// at once, lent ones as they come back. Returns the new generation.
    pub fn bump_generation(&self) -> u64 {
        self.lender
            .visit(|ledger, now, orders| ledger.bump_generation(now, orders))
    }

    /// Begins a new generation at leisure: connections opened before go on being lent, but each ends
    /// at its own moment within this interval, so that they are not all opened anew at once.
    pub fn bump_generation_over(&self, interval: Duration) -> u64 {
        let over = settings::sane(interval);
        self.lender
            .visit(|ledger, now, orders| ledger.bump_generation_over(now, over, orders))
    }

    /// Replaces every connection within this interval, spread over it: for new credentials or a
    /// moved server that may be left at leisure.
    pub fn retire_all(&self, over: Duration) {
        let over = settings::sane(over);
        self.lender
            .visit(|ledger, now, orders| ledger.retire_all(now, over, orders));
    }

    /// Lets every connection that is idle now be checked before it is lent again: for the moment in
    /// which one of its siblings was lost.
    pub fn check_all(&self) {
        self.lender.ledger().suspect_all();
    }

    /// Says that what stood in the way of connecting is gone (a password was changed, a database was
    /// created): the next attempt need not wait.
    pub fn forget_failure(&self) {
        self.lender
            .visit(|ledger, now, orders| ledger.forget_failure(now, orders));
    }

    /// Changes the limit (at least 1). Connections above it are closed as they become idle, so there
    /// may be more than the limit until then.
    pub fn resize(&self, limit: usize) {
        self.lender
            .visit(|ledger, now, orders| ledger.resize(now, limit, orders));
    }

    /// Whether the pool was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.lender.ledger().closed
    }
}

impl<K: Connector> Clone for Pool<K> {
    fn clone(&self) -> Self {
        Self {
            lender: Arc::clone(&self.lender),
        }
    }
}

impl<K: Connector> fmt::Debug for Pool<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.lender.settings.name;
        f.debug_struct("Pool")
            .field("name", name)
            .field("status", &self.status())
            .finish()
    }
}
