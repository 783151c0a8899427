//! The numbers, for Prometheus.
//!
//! The libraries below measure through a facade and install nothing, because a process has one
//! recorder and the application owns it. [`Metrics::install`] is the application's one line.

use mainstay::Database;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use std::fmt;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Upper bounds in seconds, from a cached read of an embedded database to the usual patience of a
/// client. Two to three a decade, so that a p99 is known to about a factor of two.
const SECONDS: [f64; 19] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025,
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0,
];

/// Measurements gather in a buffer until somebody scrapes; this bounds it where nobody does.
const UPKEEP: Duration = Duration::from_secs(5);

static INSTALLED: OnceLock<Metrics> = OnceLock::new();

/// The process's Prometheus recorder.
#[derive(Clone)]
pub struct Metrics {
    prometheus: PrometheusHandle,
}

impl Metrics {
    /// Installs the process's recorder, once; a second call answers the first one's.
    ///
    /// # Errors
    ///
    /// When the process has another recorder already, or no thread can be started.
    pub fn install() -> Result<Self, InstallError> {
        /// Two first callers at once must not both install.
        static INSTALLING: Mutex<()> = Mutex::new(());
        let _installing = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(installed) = Self::installed() {
            return Ok(installed);
        }
        let recorder = PrometheusBuilder::new()
            // OpenTelemetry's names as its own exporters translate them: `_seconds`, `_total`.
            .with_recommended_naming(true)
            .set_buckets(&SECONDS)
            .map_err(InstallError::Build)?
            .set_buckets_for_metric(Matcher::Suffix("duration".to_owned()), &SECONDS)
            .map_err(InstallError::Build)?
            .build_recorder();
        let metrics = Self {
            prometheus: recorder.handle(),
        };
        // The thread lives as long as the recorder, which is as long as the process.
        let upkeep = metrics.prometheus.clone();
        std::thread::Builder::new()
            .name("metrics-upkeep".to_owned())
            .spawn(move || {
                loop {
                    std::thread::park_timeout(UPKEEP);
                    upkeep.run_upkeep();
                }
            })
            .map_err(InstallError::Thread)?;
        metrics::set_global_recorder(recorder).map_err(|_| InstallError::Occupied)?;
        Database::describe_metrics();
        metrics::describe_histogram!(
            crate::layer::DURATION,
            metrics::Unit::Seconds,
            "Duration of a request, by route, method and status."
        );
        Ok(INSTALLED.get_or_init(|| metrics).clone())
    }

    /// The recorder that was installed, if one was.
    #[must_use]
    pub fn installed() -> Option<Self> {
        INSTALLED.get().cloned()
    }

    /// Everything measured so far in Prometheus' text form, with the pool's state as it is now.
    #[must_use]
    pub fn render(&self, db: &Database) -> String {
        db.record_status();
        self.prometheus.run_upkeep();
        self.prometheus.render()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Why the recorder could not be installed.
#[derive(Debug)]
#[non_exhaustive]
pub enum InstallError {
    /// The process has a recorder of another make already; it has to expose the numbers itself.
    Occupied,
    /// The recorder could not be built.
    Build(BuildError),
    /// The thread that keeps the recorder's buffers small could not be started.
    Thread(std::io::Error),
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Occupied => "the process has another metrics recorder already",
            Self::Build(_) => "the metrics recorder could not be built",
            Self::Thread(_) => "the thread of the metrics recorder could not be started",
        })
    }
}

impl std::error::Error for InstallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Occupied => None,
            Self::Build(cause) => Some(cause),
            Self::Thread(cause) => Some(cause),
        }
    }
}
