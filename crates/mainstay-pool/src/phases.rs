//! Why the pool's own life has waiting in it: a service is ready when its connections are open, may
//! be held still while a server is maintained, and ends without cutting anybody off. Warming,
//! pausing and closing wait for facts of the ledger, each with a bound.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::connector::Connector;
use crate::error::{AcquireError, Cause};
use crate::lender::{LedgerOf, Lender};
use crate::pool::Pool;
use crate::quick::Weather;
use crate::settings;
use crate::slots::Phase;

/// How a pool was closed.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CloseReport {
    /// Leases and places that were out when closing began.
    pub lent: usize,
    /// Leases and places that were still out when the grace was over.
    pub overdue: usize,
    /// Cancel hooks that were called for those overdue.
    pub cancelled: usize,
    /// Connections that were not closed when closing ended: leases still out, or a server that does
    /// not let go. They are closed as they come back.
    pub left: usize,
    /// How long closing took.
    pub took: Duration,
}

impl CloseReport {
    /// Whether every connection was closed, and none had to be cancelled.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.overdue == 0 && self.left == 0
    }
}

impl<K: Connector> Pool<K> {
    /// The gate of a start: opens the minimum in parallel (at least one connection) and returns when
    /// it is open.
    ///
    /// # Errors
    ///
    /// The first failure to connect surfaces at once, as `Refused`, `Unreachable` or `Silent`; the
    /// pool goes on connecting at its own pace, and warming may be tried again.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any await; attempts under way go on.
    pub async fn warm(&self, deadline: Instant) -> Result<(), AcquireError<K::Error>> {
        let begun = Instant::now();
        if !self.lender.has_runtime() {
            return Err(self
                .lender
                .ledger()
                .explain(begun, Cause::NoRuntime, Duration::ZERO));
        }
        let watch = Watch::new(&self.lender);
        let (target, failures) = self.lender.visit(|ledger, now, orders| {
            ledger.started = true;
            let target = ledger.settings.minimum.clamp(1, ledger.settings.limit);
            ledger.warm_target = target;
            ledger.settle(now, orders);
            (target, ledger.totals.connect_failures)
        });
        let outcome = watch
            .until(deadline, |ledger| {
                let connecting = ledger.slots.count(Phase::Connecting);
                if ledger.closed {
                    Some(Err(Cause::Closed))
                } else if ledger.slots.live() - connecting >= target.min(ledger.settings.limit) {
                    Some(Ok(()))
                } else if ledger.totals.connect_failures > failures {
                    Some(Err(ledger.failure().unwrap_or(Cause::Silent)))
                } else {
                    None
                }
            })
            .await;
        let ledger = self.lender.ledger();
        let cause = match outcome {
            Some(Ok(())) => return Ok(()),
            Some(Err(cause)) => cause,
            None => ledger.cause_of_timeout(),
        };
        Err(ledger.explain(Instant::now(), cause, begun.elapsed()))
    }

    /// Opens one connection more than there are, whether or not anybody needs it: the question whether
    /// connecting is possible at present. Answers `false` when the limit leaves no room for another
    /// one. The attempt keeps to the pool's pacing, and one that is under way already is the attempt.
    ///
    /// # Errors
    ///
    /// The failure of the attempt, as `Refused`, `Unreachable` or `Silent`.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any await; an attempt under way goes on.
    pub async fn open_another(&self, deadline: Instant) -> Result<bool, AcquireError<K::Error>> {
        let begun = Instant::now();
        if !self.lender.has_runtime() {
            let ledger = self.lender.ledger();
            return Err(ledger.explain(begun, Cause::NoRuntime, Duration::ZERO));
        }
        let watch = Watch::new(&self.lender);
        let before = self.lender.visit(|ledger, now, orders| {
            let target = ledger.present() + 1;
            if ledger.closed || ledger.slots.in_use() >= ledger.settings.limit {
                // One that is being opened already will tell as well.
                let is_asked = ledger.slots.count(Phase::Connecting) > 0;
                return is_asked.then_some(ledger.totals);
            }
            ledger.warm_target = ledger.warm_target.max(target);
            ledger.settle(now, orders);
            Some(ledger.totals)
        });
        let Some(before) = before else {
            return Ok(false);
        };
        let outcome = watch
            .until(deadline, |ledger| {
                if ledger.closed {
                    Some(Err(Cause::Closed))
                } else if ledger.totals.opened > before.opened {
                    Some(Ok(true))
                } else if ledger.totals.connect_failures > before.connect_failures {
                    Some(Err(ledger.failure().unwrap_or(Cause::Silent)))
                } else {
                    None
                }
            })
            .await;
        let ledger = self.lender.ledger();
        let cause = match outcome {
            Some(Ok(opened)) => return Ok(opened),
            Some(Err(cause)) => cause,
            None => ledger.cause_of_timeout(),
        };
        Err(ledger.explain(Instant::now(), cause, begun.elapsed()))
    }

    /// Stops lending and waits until no lease and no place is out, at most until the deadline; says whether that
    /// was so. Callers go on waiting, within their own deadlines.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the pool paused.
    pub async fn pause(&self, deadline: Instant) -> bool {
        let watch = Watch::new(&self.lender);
        self.lender
            .visit(|ledger, now, orders| ledger.set_paused(now, true, orders));
        let returned = |ledger: &LedgerOf<K>| (ledger.slots.out() == 0).then_some(());
        watch.until(deadline, returned).await.is_some()
    }

    /// Lends again after a pause.
    pub fn resume(&self) {
        self.lender
            .visit(|ledger, now, orders| ledger.set_paused(now, false, orders));
    }

    /// Closes the pool: refuses everybody new and everybody who waits, waits for leases until the
    /// grace is over, then calls the cancel hooks of those still out, and returns when all
    /// connections are closed. Takes at most the grace and twice the close timeout.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the pool closed; leases still out are closed as they come back,
    /// but nobody cancels them. Calling it again goes on waiting.
    pub async fn close(&self, grace: Duration) -> CloseReport {
        let begun = Instant::now();
        let watch = Watch::new(&self.lender);
        let lent = self.lender.visit(|ledger, now, orders| {
            ledger.shut(now, orders);
            held::<K>(ledger)
        });
        // Ends attempts, checks and cleanings that have no user any more.
        self.lender.stop.send_replace(true);
        let returned = |ledger: &LedgerOf<K>| (ledger.slots.out() == 0).then_some(());
        let in_time = watch
            .until(begun + settings::sane(grace), returned)
            .await
            .is_some();
        let (mut overdue, mut cancelled) = (0, 0);
        if !in_time {
            let hooks = {
                let mut ledger = self.lender.ledger();
                overdue = held::<K>(&ledger);
                ledger.take_cancel_hooks()
            };
            cancelled = hooks.len();
            for hook in hooks {
                hook();
            }
        }
        let patience = Instant::now() + 2 * self.lender.settings.close_timeout;
        let gone = |ledger: &LedgerOf<K>| (ledger.slots.in_use() == 0).then_some(());
        watch.until(patience, gone).await;
        let left = self.lender.ledger().slots.in_use();
        CloseReport {
            lent,
            overdue,
            cancelled,
            left,
            took: begun.elapsed(),
        }
    }
}

/// Leases and places that are out.
fn held<K: Connector>(ledger: &LedgerOf<K>) -> usize {
    ledger.slots.count(Phase::Lent) + ledger.slots.places()
}

/// The right to be told about changes of the counts; as long as nobody has it, nobody is told.
struct Watch<'a, K: Connector>(&'a Arc<Lender<K>>);

impl<'a, K: Connector> Watch<'a, K> {
    fn new(lender: &'a Arc<Lender<K>>) -> Self {
        let mut ledger = lender.ledger();
        ledger.watchers += 1;
        ledger.weather = Weather::Rough;
        drop(ledger);
        Self(lender)
    }

    /// Waits until the ledger shows a fact, at most until the deadline.
    async fn until<R>(
        &self,
        deadline: Instant,
        fact: impl Fn(&LedgerOf<K>) -> Option<R>,
    ) -> Option<R> {
        loop {
            let mut changed = pin!(self.0.changed.notified());
            // Registered before looking, so that no change falls between looking and waiting.
            changed.as_mut().enable();
            if let Some(result) = fact(&self.0.ledger()) {
                return Some(result);
            }
            if timeout_at(deadline, changed).await.is_err() {
                return fact(&self.0.ledger());
            }
        }
    }
}

impl<K: Connector> Drop for Watch<'_, K> {
    fn drop(&mut self) {
        let mut ledger = self.0.ledger();
        ledger.watchers -= 1;
        if ledger.watchers == 0 {
            // A warm-up that ended, however it ended, wants nothing any more.
            ledger.warm_target = 0;
        }
    }
}
