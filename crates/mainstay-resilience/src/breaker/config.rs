//! The numbers of the breaker, each with its reason.

use std::time::Duration;

/// When the breaker opens, how it asks, and how it closes.
///
/// Change a field of the default:
///
/// ```
/// let mut config = mainstay_resilience::BreakerConfig::default();
/// config.ride_through = std::time::Duration::ZERO; // fail fast at once
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BreakerConfig {
    /// How far back evidence counts. Default 10 s, in ten buckets (Envoy's and Hystrix's interval):
    /// long enough that a quiet service has evidence at all, short enough that an old outage is
    /// forgotten.
    pub window: Duration,
    /// Failures within the window below which it stays closed, whatever their share. Default 5
    /// (Finagle, Envoy), so that a lone lost connection on a quiet night opens nothing.
    pub failures: u32,
    /// The share of failures, in percent, from which it opens. Default 50 (Hystrix, resilience4j):
    /// a server that answers more often than not is worth asking.
    pub failure_percent: u32,
    /// Failed connects in a row, without any answer between them, that open it alone. Default 5
    /// (Envoy's rule for TCP).
    pub silent_connects: u32,
    /// An outage shorter than this is waited out by the callers, each within its own deadline,
    /// before anything is refused. Default 2 s: a restart or a failover of a small server takes
    /// about that long. 0 turns it off.
    pub ride_through: Duration,
    /// While open, the prober asks at least this often; each wait is drawn from the upper half, so
    /// that many processes do not ask in step. Default 500 ms: recovery is seen within half a
    /// second, and two questions a second burden nobody.
    pub probe_every: Duration,
    /// The wait between a good probe and the next one that confirms it. Default 50 ms.
    pub confirm_after: Duration,
    /// Good probes in a row that close it. Default 2 (Semian): a server that is still starting
    /// often accepts one.
    pub probes_to_close: u32,
    /// When a probe is overdue by this much, one caller passes in its place, so that a prober that
    /// died cannot keep the breaker open for ever. Default 15 s, three times the default limit of
    /// one connect.
    pub probe_patience: Duration,
    /// After closing, the number of calls in flight starts at one and doubles with every batch of
    /// answers, at the latest after this time. Default 50 ms: without limit again after nine steps,
    /// less than half a second.
    pub ramp_step: Duration,
    /// Fixes the jitter of the probes. Default none: different in every process, which is its
    /// purpose.
    pub seed: Option<u64>,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(10),
            failures: 5,
            failure_percent: 50,
            silent_connects: 5,
            ride_through: Duration::from_secs(2),
            probe_every: Duration::from_millis(500),
            confirm_after: Duration::from_millis(50),
            probes_to_close: 2,
            probe_patience: Duration::from_secs(15),
            ramp_step: Duration::from_millis(50),
            seed: None,
        }
    }
}
