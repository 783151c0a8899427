//! A restart that is shorter than the ride-through is nobody's business: reads and `exactly_once`
//! transactions do not notice it, others are told at most that their COMMIT was lost, and work goes
//! on as soon as the server takes connections again.
//!
//! `MAINSTAY_RESTARTS` is the number of restarts, half of them `fast`, half `immediate`.

use crate::books::{self, Told};
use crate::run::{length, seed};
use futures_util::future::join_all;
use mainstay::{Database, Error, Result, TransactionOptions};
use mainstay_testkit::cluster::Mode;
use mainstay_testkit::{Cluster, wait_for};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// The restarts of a short run.
const SHORT: u64 = 3;
/// How many callers there are of each sort.
const READERS: usize = 20;
const WRITERS: usize = 15;
/// Longer than any restart takes, also on a machine that does ten other things.
const RIDE_THROUGH: Duration = Duration::from_secs(30);
/// How soon after the server takes connections the first call succeeds.
const FIRST_SUCCESS: Duration = Duration::from_millis(300);
/// How many calls succeed before the next restart: enough for every caller to have a few.
const BETWEEN: u64 = 500;

/// What the callers share.
struct Load {
    db: Database,
    seed: u64,
    next_id: AtomicI64,
    stop: AtomicBool,
    successes: AtomicU64,
    /// Set by the first success since it was emptied.
    first_success: Mutex<Option<Instant>>,
}

impl Load {
    async fn new(cluster: &Cluster, seed: u64) -> Arc<Self> {
        let db = Database::builder(&cluster.url())
            .connection_limit(10)
            .ride_through(RIDE_THROUGH)
            .pool_timeout(RIDE_THROUGH)
            .timeout(RIDE_THROUGH * 2)
            .open()
            .await
            .unwrap();
        Arc::new(Self {
            db,
            seed,
            next_id: AtomicI64::new(0),
            stop: AtomicBool::new(false),
            successes: AtomicU64::new(0),
            first_success: Mutex::default(),
        })
    }

    fn runs(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn succeeded(&self) {
        self.successes.fetch_add(1, Ordering::Relaxed);
        let mut first = self.first_success.lock().unwrap();
        first.get_or_insert_with(Instant::now);
    }

    async fn read(self: Arc<Self>) -> Vec<Error> {
        let mut errors = Vec::new();
        while self.runs() {
            match self.db.fetch_one::<i64>("select 7", ()).await {
                Ok(seven) => {
                    assert_eq!(seven, 7);
                    self.succeeded();
                }
                Err(error) => errors.push(error),
            }
        }
        errors
    }

    async fn book(self: Arc<Self>, options: fn() -> TransactionOptions) -> Told {
        let mut told = Told::default();
        while self.runs() {
            let id = self.next_id.fetch_add(1, Ordering::Relaxed);
            let booked: Result<()> = self
                .db
                .transaction_with(options(), async |tx| books::book(&tx, id, self.seed).await)
                .await;
            if booked.is_ok() {
                self.succeeded();
            }
            told.note(id, booked);
        }
        told
    }

    /// Restarts the server while everybody works; answers how long after it took connections again
    /// the first call succeeded.
    async fn restart(&self, cluster: &Cluster, mode: Mode) -> (Duration, Duration) {
        let before = self.successes.load(Ordering::Relaxed);
        wait_for("the callers to work", RIDE_THROUGH, || async {
            (self.successes.load(Ordering::Relaxed) >= before + BETWEEN).then_some(())
        })
        .await
        .unwrap();
        let began = Instant::now();
        cluster
            .run(move |cluster| cluster.stop(mode))
            .await
            .unwrap();
        // What was answered before the end is counted before the end.
        wait_for(
            "the last connection to be given up",
            RIDE_THROUGH,
            || async {
                let status = self.db.status();
                let pool = &status.pools[0];
                (pool.open == pool.connecting).then_some(())
            },
        )
        .await
        .unwrap();
        self.first_success.lock().unwrap().take();
        cluster.run(Cluster::start_again).await.unwrap();
        let ready = Instant::now();
        let first = wait_for("the first success", RIDE_THROUGH, || async {
            *self.first_success.lock().unwrap()
        })
        .await
        .unwrap();
        (ready - began, first.saturating_duration_since(ready))
    }
}

fn exactly_once() -> TransactionOptions {
    TransactionOptions::new().exactly_once()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_shorter_than_the_ride_through_reaches_nobody_who_may_be_served_again() {
    let restarts = length("MAINSTAY_RESTARTS", SHORT);
    let cluster = Cluster::start().unwrap();
    books::open(&cluster);
    let load = Load::new(&cluster, seed()).await;
    let readers: Vec<_> = (0..READERS)
        .map(|_| tokio::spawn(Arc::clone(&load).read()))
        .collect();
    let writers = |options: fn() -> TransactionOptions| -> Vec<_> {
        (0..WRITERS)
            .map(|_| tokio::spawn(Arc::clone(&load).book(options)))
            .collect()
    };
    let (plain, safe) = (writers(TransactionOptions::new), writers(exactly_once));
    let mut delays = Vec::new();
    for number in 0..restarts {
        let mode = [Mode::Fast, Mode::Immediate][usize::from(number % 2 == 1)];
        let (outage, delay) = load.restart(&cluster, mode).await;
        println!("{mode:?}: away {outage:.0?}, first success after {delay:.1?}");
        delays.push(delay);
    }
    load.stop.store(true, Ordering::Relaxed);
    let mut told = Told::default();
    for reader in join_all(readers).await {
        let errors = reader.unwrap();
        assert!(errors.is_empty(), "a read failed: {errors:#?}");
    }
    for caller in join_all(safe).await {
        let safe = caller.unwrap();
        assert!(safe.unknown.is_empty(), "{:?}", safe.unknown);
        assert!(safe.refused.is_empty(), "{:#?}", safe.refused);
        told.join(safe);
    }
    for caller in join_all(plain).await {
        let plain = caller.unwrap();
        assert!(plain.refused.is_empty(), "{:#?}", plain.refused);
        told.join(plain);
    }
    load.db.close().await;
    books::audit(&cluster, &told);
    delays.sort_unstable();
    let [median, longest] = [delays.len() / 2, delays.len() - 1].map(|at| delays[at]);
    println!("{told}; first success after {median:.1?} (median), {longest:.1?} (longest)");
    // Beside other tests the processor may be late by more than that, though not every time.
    let counts = if restarts > SHORT { longest } else { delays[0] };
    assert!(counts <= FIRST_SUCCESS, "{delays:?}");
}
