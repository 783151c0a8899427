//! Measurements, with OpenTelemetry's names, through the `metrics` facade.
//!
//! Nothing is installed here: an application that wants the numbers installs a recorder, and without
//! one they cost next to nothing. Labels have few values: the system, the pool, a kind. Never a text,
//! never a parameter.

use crate::engine::Engine;
use mainstay_core::backend::{Backend, Lane};
use mainstay_core::{Error, Statement};
use mainstay_pool::{Event, Observer};
use metrics::{Key, Label, Level, Metadata, counter, gauge, histogram, with_recorder};
use std::sync::{Arc, Weak};
use std::time::Duration;

const SYSTEM: &str = "db.system.name";
const POOL: &str = "db.client.connection.pool.name";
const GATE: &str = "gate";
const STATE: &str = "db.client.connection.state";
const ERROR: &str = "error.type";
const DURATION: &str = "db.client.operation.duration";
const WAITED: &str = "db.client.connection.wait_time";
const HELD: &str = "db.client.connection.use_time";

/// Durations in seconds, with their meaning.
const HISTOGRAMS: [(&str, &str); 4] = [
    (DURATION, "Duration of one call, repetitions included."),
    (WAITED, "Time a caller waited for a connection."),
    (
        "db.client.connection.create_time",
        "Time it took to open a connection.",
    ),
    (HELD, "Time a connection was lent."),
];

/// States, with their meaning.
const GAUGES: [(&str, &str); 7] = [
    ("db.client.connection.count", "Open connections by state."),
    (
        "db.client.connection.max",
        "The most connections that may be open at once.",
    ),
    (
        "db.client.connection.pending_requests",
        "Callers that wait for a connection.",
    ),
    (
        "db.client.mainstay.breaker_open",
        "1 while this gate of the breaker is open, 0.5 while half open.",
    ),
    (
        "db.client.mainstay.wal_size",
        "Bytes that the pages of a SQLite file's write-ahead log take.",
    ),
    (
        "db.client.mainstay.wal_held",
        "1 while a reader keeps the write-ahead log from being emptied.",
    ),
    (
        "db.client.mainstay.oldest_read",
        "Seconds that the oldest reader of a SQLite file has been reading, 0 without one.",
    ),
];

/// Counts, with their meaning.
const COUNTERS: [(&str, &str); 9] = [
    (
        "db.client.connection.timeouts",
        "Callers whose deadline ended while they waited.",
    ),
    (
        "db.client.mainstay.retries",
        "Repetitions, by the class of the failure.",
    ),
    (
        "db.client.mainstay.lane_changes",
        "Connections whose setting was changed, by the lane they went to.",
    ),
    (
        "db.client.mainstay.reads_at_primary",
        "Reads that no replica could serve in time, where reads go to replicas.",
    ),
    (
        "db.client.mainstay.breaker_opened",
        "How often this gate of the breaker has opened by itself.",
    ),
    (
        "db.client.mainstay.refusals",
        "Calls that this gate of the breaker refused.",
    ),
    (
        "db.client.mainstay.shed",
        "Callers refused early because of overload.",
    ),
    (
        "db.client.mainstay.closed",
        "Connections closed, by reason.",
    ),
    (
        "db.client.mainstay.connect_failures",
        "Attempts to connect that failed.",
    ),
];

/// Counts one repetition.
pub(crate) fn retried(class: &'static str) {
    counter!("db.client.mainstay.retries", "class" => class).increment(1);
}

/// Counts a connection whose setting was changed for the sake of a statement. Rare where the pool
/// finds one that has the setting.
pub(crate) fn lane_changed(to: Lane) {
    let lane = match to {
        Lane::Read => "read",
        Lane::Write => "write",
    };
    counter!("db.client.mainstay.lane_changes", "lane" => lane).increment(1);
}

/// Counts one read that the primary has to serve for the replicas.
pub(crate) fn read_at_primary() {
    counter!("db.client.mainstay.reads_at_primary").increment(1);
}

/// Counts one call that was refused by this gate.
pub(crate) fn refused(backend: &dyn Backend, gate: &'static str) {
    counter!(
        "db.client.mainstay.refusals",
        gate_labels(backend, gate).iter()
    )
    .increment(1);
}

fn gate_labels(backend: &dyn Backend, gate: &'static str) -> [Label; 3] {
    let [system, pool] = labels(backend);
    [system, pool, Label::new(GATE, gate)]
}

/// The span of one call, with OpenTelemetry's names. The text has placeholders, not values.
pub(crate) fn span(engine: &Engine, statement: &Statement) -> tracing::Span {
    tracing::debug_span!(
        "statement",
        otel.kind = "client",
        db.system.name = engine.backend.system().as_str(),
        db.query.text = %statement.text(),
    )
}

/// The names of what is measured with every statement, with their labels, made once for each database:
/// the macros make them anew each time, even where no recorder wants them.
pub(crate) struct EachTime {
    operation: Key,
    waited: Key,
    held: Key,
}

impl EachTime {
    pub(crate) fn new(backend: &dyn Backend) -> Self {
        let system = Label::new(SYSTEM, backend.system().as_str());
        let succeeded = Label::new(ERROR, "");
        let pool = labels(backend).to_vec();
        Self {
            operation: Key::from_parts(DURATION, vec![system, succeeded]),
            waited: Key::from_parts(WAITED, pool.clone()),
            held: Key::from_parts(HELD, pool),
        }
    }
}

/// Records a duration; without a recorder nothing happens.
fn record(key: &Key, took: Duration) {
    static METADATA: Metadata<'static> =
        Metadata::new(module_path!(), Level::INFO, Some(module_path!()));
    with_recorder(|recorder| recorder.register_histogram(key, &METADATA)).record(took);
}

/// Measures one call, repetitions included, and tells when it was slow.
pub(crate) fn operation(
    engine: &Engine,
    statement: &Statement,
    took: Duration,
    failure: Option<&Error>,
) {
    let system = engine.backend.system().as_str();
    let error = failure.map_or("", |error| error.kind().as_str());
    match failure {
        None => record(&engine.each_time.operation, took),
        Some(_) => histogram!(DURATION, SYSTEM => system, ERROR => error).record(took),
    }
    if engine
        .config
        .slow_statement
        .is_some_and(|limit| took >= limit)
    {
        tracing::warn!(
            took = ?took, statement = %statement.text(), system, error,
            "a slow statement (its parameters are left out)"
        );
    }
    if let Some(error) = failure {
        tracing::debug!(kind = error.kind().as_str(), %error, "a statement failed");
    }
}

/// Turns what happens in the pools into measurements, and tells the gate when connections end.
pub(crate) struct PoolObserver {
    engine: Weak<Engine>,
    each_time: Arc<EachTime>,
    labels: [Label; 2],
}

impl PoolObserver {
    pub(crate) fn new(
        engine: Weak<Engine>,
        each_time: Arc<EachTime>,
        backend: &dyn Backend,
    ) -> Self {
        Self {
            engine,
            each_time,
            labels: labels(backend),
        }
    }
}

/// What tells one pool from another.
fn labels(backend: &dyn Backend) -> [Label; 2] {
    [
        Label::new(SYSTEM, backend.system().as_str()),
        Label::new(POOL, Arc::<str>::from(backend.target())),
    ]
}

impl Observer for PoolObserver {
    fn on_event(&self, event: &Event) {
        let labels = self.labels.iter();
        match event {
            Event::Waited(waited) => record(&self.each_time.waited, *waited),
            Event::Held { held, .. } => record(&self.each_time.held, *held),
            Event::Connected(took) => {
                histogram!("db.client.connection.create_time", labels).record(*took);
            }
            Event::TimedOut(_) => {
                counter!("db.client.connection.timeouts", labels).increment(1);
            }
            Event::Shed(_) => {
                counter!("db.client.mainstay.shed", labels).increment(1);
            }
            Event::Closed(reason) => {
                if let Some(engine) = self.engine.upgrade() {
                    engine.gate.on_closed();
                }
                let reason = reason.as_str();
                counter!("db.client.mainstay.closed", "reason" => reason).increment(1);
            }
            Event::LongHold { site, held } => {
                tracing::warn!(%site, ?held, "a connection is held for long");
            }
            Event::ReturnedAfterLongHold { site, held } => {
                tracing::info!(%site, ?held, "a connection that was held for long came back");
            }
            Event::ConnectFailed {
                took, timed_out, ..
            } => {
                tracing::debug!(?took, timed_out, "an attempt to connect failed");
                counter!("db.client.mainstay.connect_failures", labels).increment(1);
            }
            _ => {}
        }
    }
}

impl crate::Database {
    /// Writes the present state of the pools and the breaker into the installed recorder's gauges;
    /// call it when the numbers are about to be read.
    pub fn record_status(&self) {
        let status = self.status();
        let system = status.system.as_str();
        for pool in &status.pools {
            let name = format!("{} {}", status.target, pool.lane);
            let set = |metric: &'static str, value: usize| {
                #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
                gauge!(metric, SYSTEM => system, POOL => name.clone()).set(value as f64);
            };
            set("db.client.connection.max", pool.limit);
            set("db.client.connection.pending_requests", pool.waiting);
            let used = pool.open - pool.idle;
            for (state, count) in [("idle", pool.idle), ("used", used)] {
                #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
                gauge!("db.client.connection.count",
                    SYSTEM => system, POOL => name.clone(), STATE => state)
                .set(count as f64);
            }
        }
        if let Some(log) = &status.log {
            let oldest = log.oldest_reader.unwrap_or_default().as_secs_f64();
            #[expect(
                clippy::cast_precision_loss,
                reason = "a log of 2^53 bytes is on no disk"
            )]
            let bytes = log.bytes as f64;
            let held = f64::from(u8::from(log.is_held));
            for (metric, value) in [
                ("db.client.mainstay.wal_size", bytes),
                ("db.client.mainstay.wal_held", held),
                ("db.client.mainstay.oldest_read", oldest),
            ] {
                gauge!(metric, SYSTEM => system, POOL => status.target.clone()).set(value);
            }
        }
        for (name, gate) in status.breaker.gates() {
            let open = match gate.state {
                "closed" => 0.0,
                "half_open" => 0.5,
                _ => 1.0,
            };
            let labels = gate_labels(&*self.engine().backend, name);
            gauge!("db.client.mainstay.breaker_open", labels.iter()).set(open);
            counter!("db.client.mainstay.breaker_opened", labels.iter())
                .absolute(gate.times_opened);
        }
    }

    /// Describes every metric to the installed recorder: unit and meaning.
    pub fn describe_metrics() {
        use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
        for (name, meaning) in HISTOGRAMS {
            describe_histogram!(name, Unit::Seconds, meaning);
        }
        for (name, meaning) in GAUGES {
            describe_gauge!(name, meaning);
        }
        for (name, meaning) in COUNTERS {
            describe_counter!(name, meaning);
        }
    }
}
