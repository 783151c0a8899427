//! The peers behind one small seam: take within a time, hold, give back. Every one lends the same
//! thing, an empty connection whose check is the cheapest possible await: one yield.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::yield_now;
use tokio::time::Instant;

/// How a pool is set up.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Checks {
    /// As the library does it unless told otherwise.
    Default,
    /// No check that costs a round trip.
    Off,
}

impl Checks {
    pub fn title(self) -> &'static str {
        match self {
            Self::Default => "default checks",
            Self::Off => "no checks",
        }
    }
}

/// One pool under test.
pub trait Peer: Clone + Send + Sync + 'static {
    /// What a caller holds.
    type Held: Send;

    /// Takes a connection within this time, or not at all.
    fn take(&self, within: Duration) -> impl Future<Output = Option<Self::Held>> + Send;

    /// Gives it back.
    fn give(&self, held: Self::Held) -> impl Future<Output = ()> + Send {
        drop(held);
        std::future::ready(())
    }
}

/// How long callers are willing to wait where the scenario says nothing else; every pool is told.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Never expires within a run; the same for all that have such settings.
const LONG: Duration = Duration::from_secs(3600);

// ---- mainstay ----

pub struct Empty;

impl mainstay_pool::Connector for Empty {
    type Connection = ();
    type Error = Infallible;

    async fn connect(&self, _: mainstay_pool::Tag) -> Result<(), Infallible> {
        Ok(())
    }
    fn condition(&self, (): &()) -> mainstay_pool::Condition {
        mainstay_pool::Condition::Clean
    }
    async fn check(&self, (): &mut ()) -> Result<(), Infallible> {
        yield_now().await;
        Ok(())
    }
    async fn clean(&self, (): &mut ()) -> Result<(), Infallible> {
        Ok(())
    }
    async fn close(&self, (): (), _: mainstay_pool::CloseReason) {}
}

thread_local! {
    static EVENTS: Cell<u64> = const { Cell::new(0) };
}

/// Counts every event, as a metrics layer with a counter for each thread would.
struct Counting;

impl mainstay_pool::Observer for Counting {
    fn on_event(&self, _: &mainstay_pool::Event) {
        EVENTS.set(EVENTS.get() + 1);
    }
}

#[derive(Clone)]
pub struct Mainstay(pub mainstay_pool::Pool<Empty>);

/// Everything on: observer, shedding, lifetimes, long-hold warnings, keep-alive.
pub fn mainstay(limit: usize, checks: Checks) -> Mainstay {
    let builder = mainstay_pool::Pool::builder(Empty)
        .limit(limit)
        .minimum(limit)
        .shedding(mainstay_pool::Shedding::default())
        .observer(Arc::new(Counting));
    Mainstay(match checks {
        Checks::Default => builder.build(),
        Checks::Off => builder.check_after_idle(LONG).build(),
    })
}

impl Peer for Mainstay {
    type Held = mainstay_pool::Lease<Empty>;

    async fn take(&self, within: Duration) -> Option<Self::Held> {
        self.0.acquire_within(within).await.ok()
    }
}

/// The same for a caller that has its deadline already, as a request has that makes several calls.
#[derive(Clone)]
pub struct Fixed {
    pool: mainstay_pool::Pool<Empty>,
    deadline: Instant,
}

pub fn fixed(limit: usize, checks: Checks) -> Fixed {
    Fixed {
        pool: mainstay(limit, checks).0,
        deadline: Instant::now() + LONG,
    }
}

impl Peer for Fixed {
    type Held = mainstay_pool::Lease<Empty>;

    async fn take(&self, _: Duration) -> Option<Self::Held> {
        self.pool.acquire(self.deadline).await.ok()
    }
}

/// Places on shared connections instead of leases: what a pipelined read costs.
#[derive(Clone)]
pub struct PlacesOnly(Fixed);

pub fn shared(limit: usize, checks: Checks) -> PlacesOnly {
    PlacesOnly(fixed(limit, checks))
}

impl Peer for PlacesOnly {
    type Held = mainstay_pool::Place<Empty>;

    async fn take(&self, _: Duration) -> Option<Self::Held> {
        let request = mainstay_pool::Request::until(self.0.deadline);
        self.0.pool.acquire_place(request).await.ok()
    }
}

// ---- deadpool ----

pub struct Plain;

impl deadpool::managed::Manager for Plain {
    type Type = ();
    type Error = Infallible;

    async fn create(&self) -> Result<(), Infallible> {
        Ok(())
    }
    // What the PostgreSQL backend's `Fast` does: look at a flag.
    async fn recycle(
        &self,
        (): &mut (),
        _: &deadpool::managed::Metrics,
    ) -> deadpool::managed::RecycleResult<Infallible> {
        Ok(())
    }
}

#[derive(Clone)]
pub struct Deadpool {
    pool: deadpool::managed::Pool<Plain>,
    bounded: bool,
}

/// Fast recycling is its default. Without `bounded` it waits for ever, which is its default too and
/// the quickest it can be.
pub fn deadpool(limit: usize, bounded: bool) -> Deadpool {
    let pool = deadpool::managed::Pool::builder(Plain)
        .max_size(limit)
        .runtime(deadpool::Runtime::Tokio1)
        .build()
        .expect("a runtime is given");
    Deadpool { pool, bounded }
}

impl Peer for Deadpool {
    type Held = deadpool::managed::Object<Plain>;

    async fn take(&self, within: Duration) -> Option<Self::Held> {
        if !self.bounded {
            return self.pool.get().await.ok();
        }
        let timeouts = deadpool::managed::Timeouts {
            wait: Some(within),
            create: None,
            recycle: None,
        };
        self.pool.timeout_get(&timeouts).await.ok()
    }
}

// ---- bb8 ----

impl bb8::ManageConnection for Plain {
    type Connection = ();
    type Error = Infallible;

    async fn connect(&self) -> Result<(), Infallible> {
        Ok(())
    }
    async fn is_valid(&self, (): &mut ()) -> Result<(), Infallible> {
        yield_now().await;
        Ok(())
    }
    fn has_broken(&self, (): &mut ()) -> bool {
        false
    }
}

#[derive(Clone)]
pub struct Bb8(bb8::Pool<Plain>);

pub async fn bb8(limit: usize, checks: Checks, within: Duration) -> Bb8 {
    let size = u32::try_from(limit).expect("limits are small");
    let pool = bb8::Pool::builder()
        .max_size(size)
        .min_idle(size)
        .connection_timeout(within)
        .test_on_check_out(checks == Checks::Default)
        .build(Plain)
        .await
        .expect("connecting cannot fail");
    Bb8(pool)
}

impl Peer for Bb8 {
    type Held = bb8::PooledConnection<'static, Plain>;

    /// The time is the pool's own.
    async fn take(&self, _: Duration) -> Option<Self::Held> {
        self.0.get_owned().await.ok()
    }
}

// ---- mobc ----

#[mobc::async_trait]
impl mobc::Manager for Plain {
    type Connection = ();
    type Error = Infallible;

    async fn connect(&self) -> Result<(), Infallible> {
        Ok(())
    }
    async fn check(&self, (): ()) -> Result<(), Infallible> {
        yield_now().await;
        Ok(())
    }
}

#[derive(Clone)]
pub struct Mobc(mobc::Pool<Plain>);

/// `max_idle` is raised to the limit: its default of 2 would measure reconnecting.
pub fn mobc(limit: usize, checks: Checks) -> Mobc {
    let limit = limit as u64;
    Mobc(
        mobc::Pool::builder()
            .max_open(limit)
            .max_idle(limit)
            .test_on_check_out(checks == Checks::Default)
            .build(Plain),
    )
}

impl Peer for Mobc {
    type Held = mobc::Connection<Plain>;

    async fn take(&self, within: Duration) -> Option<Self::Held> {
        self.0.get_timeout(within).await.ok()
    }
}

// ---- connpool-rs ----

/// It knows connections by their value, so these are numbered.
#[derive(Default)]
pub struct Numbered(AtomicU64);

impl connpool::AsyncConnectionFactory<u64> for Numbered {
    async fn create(&self) -> Result<u64, connpool::FactoryError> {
        Ok(self.0.fetch_add(1, Ordering::Relaxed))
    }
    async fn validate(&self, _: &u64) -> bool {
        yield_now().await;
        true
    }
}

#[derive(Clone)]
pub struct Connpool(Arc<connpool::AsyncConnectionPool<u64, Numbered>>);

pub fn connpool(limit: usize, checks: Checks) -> Connpool {
    let mut config = connpool::PoolConfig {
        max_size: limit,
        min_size: limit,
        ..Default::default()
    };
    if checks == Checks::Off {
        config.validate_after_idle = None;
    }
    let pool = connpool::AsyncConnectionPool::new(Numbered::default(), config, None);
    Connpool(Arc::new(pool.expect("the settings are valid")))
}

impl Peer for Connpool {
    type Held = u64;

    async fn take(&self, within: Duration) -> Option<u64> {
        let within = connpool::Timeout::Of(within.as_secs_f64());
        self.0.acquire(within).await.ok()
    }
    /// It has no guard that returns a connection when dropped.
    async fn give(&self, held: u64) {
        Sent(self.0.release(held)).await.expect("it was lent");
    }
}

/// Its release keeps an `Option<&dyn Error>` across an await and so cannot be awaited in a spawned
/// task at all; without this wrapper it could not take part on a runtime with threads.
struct Sent<F>(F);

// SAFETY: `release` passes `None` for the error, so no reference is ever sent; everything else in
// the future is `Send` by its own types (the pool, a number, a mutex, a spawned task).
unsafe impl<F> Send for Sent<F> {}

impl<F: Future> Future for Sent<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: the only field is pinned whenever the wrapper is.
        unsafe { self.map_unchecked_mut(|sent| &mut sent.0) }.poll(context)
    }
}

// ---- a semaphore with a queue ----

#[derive(Clone)]
pub struct Plainest {
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<()>>>,
}

/// What one writes in ten lines: permits, a stack, a timeout.
pub fn semaphore(limit: usize) -> Plainest {
    Plainest {
        permits: Arc::new(Semaphore::new(limit)),
        idle: Arc::new(Mutex::new(vec![(); limit])),
    }
}

pub struct Permit {
    idle: Arc<Mutex<Vec<()>>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.idle.lock().expect("nothing panics under it").push(());
    }
}

impl Peer for Plainest {
    type Held = Permit;

    async fn take(&self, within: Duration) -> Option<Permit> {
        let permit = Arc::clone(&self.permits).acquire_owned();
        let permit = tokio::time::timeout(within, permit).await.ok()?.ok()?;
        self.idle.lock().expect("nothing panics under it").pop()?;
        Some(Permit {
            idle: Arc::clone(&self.idle),
            _permit: permit,
        })
    }
}
