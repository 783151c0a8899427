//! Why every default is written here with its reason: a default that nobody can explain is a
//! default that nobody dares to change.

use std::sync::Arc;
use std::time::Duration;

/// Delays between attempts to connect while connecting fails.
pub(crate) type Delays = Box<dyn Iterator<Item = Duration> + Send>;

/// Longer than any process runs; keeps `Instant + Duration` from overflowing.
const LONGEST: Duration = Duration::from_secs(50 * 365 * 24 * 3600);

/// The shortest delay between attempts to connect while connecting fails: pacing that says "at once"
/// must not become a busy loop.
pub(crate) const FASTEST_PACE: Duration = Duration::from_millis(1);

/// The delay once a pacing has no more delays to give.
pub(crate) const SLOWEST_PACE: Duration = Duration::from_secs(1);

/// Every bound of a pool.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) name: Arc<str>,
    pub(crate) limit: usize,
    pub(crate) minimum: usize,
    pub(crate) connect_timeout: Duration,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) max_lifetime: Option<Duration>,
    pub(crate) check_after_idle: Duration,
    pub(crate) check_timeout: Duration,
    pub(crate) keep_alive: Option<Duration>,
    /// How long a connection may be idle before something is to be done about it. From the two above,
    /// because every return asks.
    pub(crate) longest_rest: Option<Duration>,
    pub(crate) depth: usize,
    pub(crate) active: usize,
    pub(crate) widest: usize,
    pub(crate) late_after: Duration,
    pub(crate) clean_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) max_waiters: usize,
    pub(crate) max_connecting: usize,
    pub(crate) long_hold: Option<Duration>,
    pub(crate) shedding: Option<Shedding>,
    pub(crate) pacing: Arc<dyn Fn() -> Delays + Send + Sync>,
}

/// When a standing queue is cut down (controlled delay).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Shedding {
    /// A queue whose shortest wait stays above this is too long.
    pub target: Duration,
    /// For how long it must stay above before waiters are refused.
    pub interval: Duration,
}

impl Shedding {
    /// Refuses waiters once the shortest wait has been above `target` for `interval`.
    #[must_use]
    pub fn new(target: Duration, interval: Duration) -> Self {
        Self { target, interval }
    }
}

impl Default for Shedding {
    /// 100 ms and 1 s: shorter ones, tuned for calls without I/O, refuse in bursts that a database
    /// would have absorbed.
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(1))
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: Arc::from("pool"),
            // A server with a handful of cores does its best work with about this many.
            limit: 10,
            minimum: 0,
            // A TLS connection across regions takes well under a second; five say "not there".
            connect_timeout: Duration::from_secs(5),
            // Long enough to live through a quiet spell, short enough to free the server by night.
            idle_timeout: Some(Duration::from_secs(600)),
            // Balancers and server-side caches want connections to end now and then.
            max_lifetime: Some(Duration::from_secs(1800)),
            // What answered a second ago almost surely answers now; the check costs a round trip.
            check_after_idle: Duration::from_secs(1),
            check_timeout: Duration::from_secs(1),
            // Balancers and firewalls forget silent connections after as little as four minutes.
            keep_alive: Some(Duration::from_secs(120)),
            longest_rest: None,
            // Deep enough that hundreds of callers share a few connections, which is where sharing
            // wins; bounded, because a huge backlog on one connection collapses.
            depth: 64,
            // Fewer connections mean more requests in one system call; one for each core keeps all
            // of them busy, and one more bridges the moment in which one drains.
            active: std::thread::available_parallelism().map_or(2, usize::from) + 1,
            // A pool knows nothing of who else may need connections.
            widest: usize::MAX,
            // Several times what the last one on a full connection ordinarily waits.
            late_after: Duration::from_millis(100),
            clean_timeout: Duration::from_secs(5),
            close_timeout: Duration::from_secs(5),
            // Protects memory; by then nobody at the end of the queue is served in time.
            max_waiters: 10_000,
            // A pool of the usual size opens in one go, where eight at once would take as long as two; few
            // enough not to storm a server that has just come back.
            max_connecting: 10,
            long_hold: Some(Duration::from_secs(60)),
            shedding: None,
            pacing: Arc::new(|| Box::new(FullJitter::default())),
        }
    }
}

impl Settings {
    /// Brings every value into the range in which the arithmetic of the ledger cannot fail.
    pub(crate) fn sane(mut self) -> Self {
        self.limit = self.limit.max(1);
        self.minimum = self.minimum.min(self.limit);
        self.max_connecting = self.max_connecting.max(1);
        self.idle_timeout = self.idle_timeout.map(sane);
        // Below a second it would do nothing but check.
        self.keep_alive = self.keep_alive.map(|d| sane(d).max(Duration::from_secs(1)));
        self.longest_rest = match (self.idle_timeout, self.keep_alive) {
            (Some(idle), Some(silent)) => Some(idle.min(silent)),
            (idle, silent) => idle.or(silent),
        };
        (self.depth, self.widest) = (self.depth.max(1), self.widest.max(1));
        self.active = self.active.clamp(1, self.widest);
        // A lifetime below a second would do nothing but connect.
        self.max_lifetime = self
            .max_lifetime
            .map(|d| sane(d).max(Duration::from_secs(1)));
        self.long_hold = self.long_hold.map(sane);
        for d in [
            &mut self.connect_timeout,
            &mut self.check_after_idle,
            &mut self.check_timeout,
            &mut self.late_after,
            &mut self.clean_timeout,
            &mut self.close_timeout,
        ] {
            *d = sane(*d);
        }
        if let Some(shedding) = &mut self.shedding {
            shedding.target = sane(shedding.target).max(Duration::from_millis(1));
            shedding.interval = sane(shedding.interval).max(Duration::from_millis(1));
        }
        self
    }
}

/// A duration that may be added to any instant.
pub(crate) fn sane(duration: Duration) -> Duration {
    duration.min(LONGEST)
}

/// Full jitter between nothing and a bound that doubles from 50 ms to 1 s: a server that is back is
/// noticed within a second, and a fleet does not knock in step.
#[derive(Default)]
struct FullJitter {
    step: u32,
}

impl Iterator for FullJitter {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let bound = (50_u64 << self.step.min(5)).min(1000);
        self.step = self.step.saturating_add(1);
        Some(Duration::from_millis(fastrand::u64(1..=bound)))
    }
}
