//! Why a lender between ledger and world: the ledger only decides. The lender owns the lock, the
//! connector and the runtime, visits the ledger with the time of day, and carries out what it
//! ordered once the lock is released. Every connection outside the ledger travels with a [`Claim`],
//! which frees the slot if whoever holds it disappears.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::connector::Connector;
use crate::ledger::Ledger;
use crate::lock::{self, Mutex, MutexGuard};
use crate::observer::{Event, Observer};
use crate::orders::{Order, Orders};
use crate::settings::Settings;
use crate::{errands, upkeep};

/// A connection as the pool keeps it: with one owner, except while it is shared.
pub(crate) type Kept<K> = Arc<<K as Connector>::Connection>;
pub(crate) type LedgerOf<K> = Ledger<Kept<K>, <K as Connector>::Error>;
pub(crate) type OrdersOf<K> = Orders<Kept<K>>;

/// Why a connection that is not shared can always be had whole.
pub(crate) const SOLE: &str = "places are dropped before the last one takes the connection out";

/// Everything that the clones of a pool, its leases and its tasks have in common.
pub(crate) struct Lender<K: Connector> {
    ledger: Mutex<LedgerOf<K>>,
    pub(crate) connector: K,
    /// As built; the limit in force is the ledger's.
    pub(crate) settings: Settings,
    observer: Option<Arc<dyn Observer>>,
    runtime: OnceLock<Handle>,
    /// Rings when the upkeep has to look earlier than it planned.
    bell: Arc<Notify>,
    upkeep_runs: AtomicBool,
    /// Whether whoever asked last had to queue behind others: then the next one most likely has to as
    /// well, and does not visit the ledger twice to find out. A guess, that costs time when it is wrong.
    crowded: AtomicBool,
    /// Tells futures that watch the counts that something changed.
    pub(crate) changed: Notify,
    /// Turns true when the pool closes: whatever has no user stops at once.
    pub(crate) stop: watch::Sender<bool>,
}

impl<K: Connector> Lender<K> {
    pub(crate) fn new(
        connector: K,
        settings: Settings,
        observer: Option<Arc<dyn Observer>>,
        random: fastrand::Rng,
    ) -> Arc<Self> {
        let lender = Arc::new(Self {
            ledger: Mutex::new(Ledger::new(settings.clone(), random)),
            connector,
            settings,
            observer,
            runtime: OnceLock::new(),
            bell: Arc::new(Notify::new()),
            upkeep_runs: AtomicBool::new(false),
            crowded: AtomicBool::new(false),
            changed: Notify::new(),
            stop: watch::Sender::new(false),
        });
        lender.has_runtime();
        lender
    }

    /// Whether tasks can be spawned; remembers the first runtime it meets, so that a lease may be
    /// dropped on any thread.
    #[inline]
    pub(crate) fn has_runtime(&self) -> bool {
        self.runtime.get().is_some() || self.finds_runtime()
    }

    fn finds_runtime(&self) -> bool {
        match Handle::try_current() {
            Ok(handle) => {
                self.runtime.get_or_init(|| handle);
                true
            }
            Err(_) => false,
        }
    }

    #[inline]
    pub(crate) fn seems_crowded(&self) -> bool {
        self.crowded.load(Ordering::Relaxed)
    }

    /// Written only when it changes: everybody reads it.
    pub(crate) fn seem_crowded(&self, crowded: bool) {
        if self.seems_crowded() != crowded {
            self.crowded.store(crowded, Ordering::Relaxed);
        }
    }

    /// The ledger, to be read.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, LedgerOf<K>> {
        lock::enter(&self.ledger)
    }

    /// Visits the ledger and carries out what it orders.
    pub(crate) fn visit<R>(
        self: &Arc<Self>,
        visit: impl FnOnce(&mut LedgerOf<K>, Instant, &mut OrdersOf<K>) -> R,
    ) -> R {
        self.visit_at(Instant::now(), visit)
    }

    /// The same for a caller that has just read the clock, which costs more than the lock.
    pub(crate) fn visit_at<R>(
        self: &Arc<Self>,
        now: Instant,
        visit: impl FnOnce(&mut LedgerOf<K>, Instant, &mut OrdersOf<K>) -> R,
    ) -> R {
        self.visit_in(self.ledger(), now, visit)
    }

    /// The same for a caller that is there already. Kept apart: the quick ways need none of it.
    #[inline(never)]
    pub(crate) fn visit_in<R>(
        self: &Arc<Self>,
        mut ledger: MutexGuard<'_, LedgerOf<K>>,
        now: Instant,
        visit: impl FnOnce(&mut LedgerOf<K>, Instant, &mut OrdersOf<K>) -> R,
    ) -> R {
        let mut orders = Orders::new();
        let result = visit(&mut ledger, now, &mut orders);
        ledger.weather = ledger.outlook();
        let watched = ledger.watchers > 0;
        drop(ledger);
        let (first, more) = orders.split();
        if let Some(waker) = first {
            waker.wake();
        }
        if !more.is_empty() {
            self.carry_out(more);
        }
        if watched {
            self.changed.notify_waiters();
        }
        result
    }

    fn carry_out(self: &Arc<Self>, orders: Vec<Order<Kept<K>>>) {
        for order in orders {
            match order {
                Order::Wake(waker) => waker.wake(),
                Order::Connect { index, tag } => {
                    self.spawn(errands::connect(self.claim(index), tag));
                }
                Order::Check { index, connection } => {
                    self.spawn(errands::check(self.claim(index), connection));
                }
                Order::Clean { index, connection } => {
                    self.spawn(errands::clean(self.claim(index), connection));
                }
                Order::Close {
                    index,
                    connection,
                    reason,
                } => {
                    self.spawn(errands::close(self.claim(index), connection, reason));
                }
                Order::Upkeep => self.ring(),
                Order::Forget(hook) => drop(hook),
                Order::Tell(event) => self.tell(&event),
            }
        }
    }

    pub(crate) fn claim(self: &Arc<Self>, index: usize) -> Claim<K> {
        Claim {
            lender: Arc::clone(self),
            index,
            duty: Duty::Due,
        }
    }

    /// Spawns an errand. Without a runtime it is dropped, and its claim frees the slot.
    pub(crate) fn spawn(
        &self,
        errand: impl Future<Output = ()> + Send + 'static,
    ) -> Option<JoinHandle<()>> {
        self.runtime.get().map(|runtime| runtime.spawn(errand))
    }

    /// Wakes the upkeep, which begins with the first ring.
    fn ring(self: &Arc<Self>) {
        if !self.upkeep_runs.swap(true, Ordering::AcqRel) {
            self.spawn(upkeep::run(Arc::downgrade(self), Arc::clone(&self.bell)));
        }
        self.bell.notify_one();
    }

    /// The upkeep has ended; the next ring begins another one.
    pub(crate) fn upkeep_ended(&self) {
        self.ledger().no_alarm();
        self.upkeep_runs.store(false, Ordering::Release);
    }

    pub(crate) fn tell(&self, event: &Event) {
        self.log(event);
        if let Some(observer) = &self.observer {
            observer.on_event(event);
        }
    }

    /// Tells only the observer, for events that are in no log.
    pub(crate) fn report(&self, event: impl FnOnce() -> Event) {
        if let Some(observer) = &self.observer {
            observer.on_event(&event());
        }
    }

    fn log(&self, event: &Event) {
        if let Event::LongHold { site, held } = event {
            let pool = &*self.settings.name;
            tracing::warn!(pool, %site, ?held, "a connection has been held for long");
        }
        if let Event::ReturnedAfterLongHold { site, held } = event {
            let pool = &*self.settings.name;
            tracing::info!(pool, %site, ?held, "a connection held for long was returned");
        }
        if let Event::NestedWait { site, holds } = event {
            let pool = &*self.settings.name;
            tracing::warn!(pool, %site, %holds, "a task waits for a connection while it holds one");
        }
    }
}

impl<K: Connector> Drop for Lender<K> {
    fn drop(&mut self) {
        // Without this the upkeep would sleep until its next deadline before it noticed.
        self.bell.notify_one();
    }
}

/// The duty to account for one slot. Whoever takes a connection out of the ledger owns it before the
/// first await; dropped without being settled, it frees the slot.
pub(crate) struct Claim<K: Connector> {
    pub(crate) lender: Arc<Lender<K>>,
    pub(crate) index: usize,
    duty: Duty,
}

/// As wide as what it stands beside: leases are moved about, and a narrow field between wide ones
/// makes each move wait for the one before.
#[derive(Copy, Clone, PartialEq, Eq)]
#[repr(usize)]
enum Duty {
    Due,
    Done,
}

impl<K: Connector> Claim<K> {
    /// Accounts for the slot. Later calls are ordinary visits.
    pub(crate) fn settle<R>(
        &mut self,
        visit: impl FnOnce(&mut LedgerOf<K>, usize, Instant, &mut OrdersOf<K>) -> R,
    ) -> R {
        self.settle_at(Instant::now(), visit)
    }

    /// The same for a caller that has just read the clock.
    pub(crate) fn settle_at<R>(
        &mut self,
        now: Instant,
        visit: impl FnOnce(&mut LedgerOf<K>, usize, Instant, &mut OrdersOf<K>) -> R,
    ) -> R {
        self.duty = Duty::Done;
        let index = self.index;
        self.lender
            .visit_at(now, |ledger, now, orders| visit(ledger, index, now, orders))
    }

    /// Leaves the accounting to the one who calls this.
    pub(crate) fn release(&mut self) {
        self.duty = Duty::Done;
    }

    #[cold]
    fn forfeit(&mut self) {
        self.settle(|ledger, index, now, orders| ledger.forfeit(now, index, orders));
    }

    /// Leaves the accounting to another claim on the same slot.
    pub(crate) fn pass_on(&mut self) -> Self {
        let duty = std::mem::replace(&mut self.duty, Duty::Done);
        Self {
            lender: Arc::clone(&self.lender),
            index: self.index,
            duty,
        }
    }
}

impl<K: Connector> Drop for Claim<K> {
    fn drop(&mut self) {
        if self.duty == Duty::Due {
            self.forfeit();
        }
    }
}
