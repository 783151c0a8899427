//! What an operator sees of the gates: the state of each, how often it opened, whom it refused; in the
//! metrics as in the status, at every step of an outage.

use crate::script::{self, Script};
use mainstay::{Database, Kind};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString,
    Unit,
};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::timeout;

const SECOND: Duration = Duration::from_secs(1);

/// Lets virtual time pass.
async fn pass(time: Duration) {
    timeout(time, std::future::pending::<()>())
        .await
        .unwrap_err();
}

/// A recorder that keeps the latest value of everything, by name, database and gate.
#[derive(Clone, Debug, Default)]
struct Board(Arc<Mutex<BTreeMap<At, f64>>>);

type At = [String; 3];

/// One number on it.
#[derive(Debug)]
struct Cell {
    board: Board,
    at: At,
}

impl Board {
    fn cell(&self, key: &Key) -> Arc<Cell> {
        let value = |name| {
            let label = key.labels().find(|label| label.key() == name);
            label.map_or_else(String::new, |label| label.value().to_owned())
        };
        let database = value("db.client.connection.pool.name");
        Arc::new(Cell {
            board: self.clone(),
            at: [key.name().to_owned(), database, value("gate")],
        })
    }

    /// What stands there for each gate: statements, connects, credentials.
    fn gates(&self, name: &str) -> [f64; 3] {
        let seen = self.0.lock().unwrap();
        ["execute", "connect", "credentials"].map(|gate| {
            let name = format!("db.client.mainstay.{name}");
            let at = [name, script::TARGET.to_owned(), gate.to_owned()];
            seen.get(&at).copied().unwrap_or_default()
        })
    }
}

impl Cell {
    fn change(&self, change: impl FnOnce(f64) -> f64) {
        let mut seen = self.board.0.lock().unwrap();
        let value = seen.entry(self.at.clone()).or_default();
        *value = change(*value);
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
impl CounterFn for Cell {
    fn increment(&self, value: u64) {
        self.change(|before| before + value as f64);
    }

    fn absolute(&self, value: u64) {
        self.change(|before| before.max(value as f64));
    }
}

impl GaugeFn for Cell {
    fn increment(&self, value: f64) {
        self.change(|before| before + value);
    }

    fn decrement(&self, value: f64) {
        self.change(|before| before - value);
    }

    fn set(&self, value: f64) {
        self.change(|_| value);
    }
}

impl Recorder for Board {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// The states of statements, connects and credentials, as gauges; the status says the same.
fn states(db: &Database, board: &Board) -> [f64; 3] {
    db.record_status();
    let status = db.status().breaker;
    let gauges = board.gates("breaker_open");
    let gates = [&status.execute, &status.connect, &status.credentials];
    for (gate, gauge) in gates.into_iter().zip(gauges) {
        let named = match gate.state {
            "open" => 1.0,
            "half_open" => 0.5,
            _ => 0.0,
        };
        assert!((named - gauge).abs() < 0.1, "{status:?}, and {gauges:?}");
        assert_eq!(gate.cause.is_some(), gate.state != "closed", "{status:?}");
    }
    let opened = board.gates("breaker_opened");
    for (gate, opened) in gates.into_iter().zip(opened) {
        assert_eq!(opened.to_string(), gate.times_opened.to_string());
    }
    gauges
}

async fn refused_with(db: &Database, kind: Kind) {
    let error = db.execute("insert into t", ()).await.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_seen_at_the_gate_for_connects_from_its_beginning_to_its_end() {
    let board = Board::default();
    let _recording = metrics::set_default_local_recorder(&board);
    let script = Script::new([]);
    let db = script.database(|_| {});
    assert_eq!(states(&db, &board), [0.0, 0.0, 0.0]);
    script.unreachable.store(true, Ordering::Relaxed);
    refused_with(&db, Kind::BreakerOpen).await;
    assert_eq!(states(&db, &board), [0.0, 1.0, 0.0]);
    assert_eq!(board.gates("breaker_opened"), [0.0, 1.0, 0.0]);
    // Who waited is told by the gate as well; only those whom it turns away at once are counted.
    let before = board.gates("refusals");
    for _ in 0..100 {
        refused_with(&db, Kind::BreakerOpen).await;
    }
    let [execute, connect, credentials] = board.gates("refusals");
    assert_eq!([execute, credentials], [before[0], before[2]]);
    assert!((connect - before[1] - 100.0).abs() < 0.1, "{connect}");
    script.unreachable.store(false, Ordering::Relaxed);
    pass(5 * SECOND).await;
    db.execute("insert into t", ()).await.unwrap();
    assert_eq!(states(&db, &board), [0.0, 0.0, 0.0]);
    // A second one counts as a second one.
    script.end_all();
    script.unreachable.store(true, Ordering::Relaxed);
    pass(SECOND).await;
    refused_with(&db, Kind::BreakerOpen).await;
    assert_eq!(board.gates("breaker_opened")[0], 0.0);
    states(&db, &board);
    assert_eq!(board.gates("breaker_opened"), [0.0, 2.0, 0.0]);
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_are_seen_at_their_own_gate() {
    let board = Board::default();
    let _recording = metrics::set_default_local_recorder(&board);
    let script = Script::new([]);
    let db = script.database(|_| {});
    script.refuses.store(true, Ordering::Relaxed);
    refused_with(&db, Kind::Credentials).await;
    assert_eq!(states(&db, &board), [0.0, 0.0, 1.0]);
    let before = board.gates("refusals")[2];
    for _ in 0..10 {
        refused_with(&db, Kind::Credentials).await;
    }
    assert!((board.gates("refusals")[2] - before - 10.0).abs() < 0.1);
    assert_eq!(board.gates("breaker_opened"), [0.0, 0.0, 1.0]);
    script.refuses.store(false, Ordering::Relaxed);
    pass(60 * SECOND).await;
    db.execute("insert into t", ()).await.unwrap();
    assert_eq!(states(&db, &board), [0.0, 0.0, 0.0]);
}

#[tokio::test(start_paused = true)]
async fn an_order_is_seen_and_what_it_refuses_is_counted() {
    let board = Board::default();
    let _recording = metrics::set_default_local_recorder(&board);
    let script = Script::new([]);
    let db = script.database(|_| {});
    db.breaker_force_open();
    for _ in 0..10 {
        refused_with(&db, Kind::BreakerOpen).await;
    }
    db.record_status();
    assert_eq!(board.gates("breaker_open"), [1.0, 1.0, 0.0]);
    assert_eq!(board.gates("refusals"), [10.0, 0.0, 0.0]);
    assert_eq!(board.gates("breaker_opened"), [0.0, 0.0, 0.0]);
    // What another database says of itself is not said of this one.
    let mut other = Script::new([]);
    Arc::get_mut(&mut other).unwrap().target = "another";
    other.database(|_| {}).record_status();
    assert_eq!(board.gates("breaker_open"), [1.0, 1.0, 0.0]);
    db.breaker_automatic();
    pass(SECOND).await;
    db.execute("insert into t", ()).await.unwrap();
    assert_eq!(states(&db, &board), [0.0, 0.0, 0.0]);
}
