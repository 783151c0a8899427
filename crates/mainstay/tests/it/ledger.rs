//! The books balance, whatever is cut and whoever dies.
//!
//! Callers move amounts between accounts, and each writes the id of its move into the same
//! transaction. Meanwhile the wire is cut at every byte of the COMMIT exchange in turn, and the
//! server is killed and started again. Afterwards every id that was acknowledged is there once,
//! nothing is there that was refused, and no cent has been lost.
//!
//! `MAINSTAY_LEDGER` is the number of transactions, `MAINSTAY_SEED` repeats a run.

#![expect(clippy::print_stdout, reason = "a proof shows its numbers")]

use crate::books::{self, Told};
use crate::run::{length, seed};
use futures_util::future::join_all;
use mainstay::{Database, TransactionOptions};
use mainstay_testkit::cluster::Mode;
use mainstay_testkit::proxy::Direction;
use mainstay_testkit::{Cluster, Proxy};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Callers at the same time, each behind a proxy of its own, so that bytes can be counted.
const CALLERS: usize = 4;
/// One transaction in so many is left alone.
const SPARED: u64 = 5;
/// How often the server is killed in a short run.
const KILLS: usize = 3;
/// In a long run it is killed once in so many transactions.
const KILL_EVERY: usize = 250;
const DEADLINE: Duration = Duration::from_secs(60);

/// How a run is made.
struct Plan {
    transactions: usize,
    seed: u64,
    options: fn() -> TransactionOptions,
}

impl Plan {
    fn new(options: fn() -> TransactionOptions) -> Self {
        let transactions = usize::try_from(length("MAINSTAY_LEDGER", 150)).unwrap();
        let seed = seed();
        Self {
            transactions,
            seed,
            options,
        }
    }

    fn kills(&self) -> usize {
        KILLS.max(self.transactions / KILL_EVERY)
    }
}

/// What a COMMIT sends and what it is answered with, in bytes.
#[derive(Clone, Copy, Debug)]
struct Exchange {
    request: u64,
    answer: u64,
}

impl Exchange {
    /// Counts the bytes of one that nobody disturbs.
    async fn measure(url: &str, target: u16, options: TransactionOptions) -> Self {
        let proxy = Proxy::start(("127.0.0.1", target)).await.unwrap();
        let db = Database::builder(&proxy.rewrite(url))
            .connection_limit(1)
            .open()
            .await
            .unwrap();
        let passed = || [Direction::ToTarget, Direction::FromTarget].map(|way| proxy.passed(way));
        // The first transaction makes the table of tokens and sweeps it; the pool comes to rest.
        for _ in 0..2 {
            let unit = db.transaction_with(options.clone(), async |_| Ok(()));
            unit.await.unwrap();
            crate::exactly_once::quiet(&db).await;
        }
        let before = std::sync::Mutex::new([0; 2]);
        db.transaction_with(options, async |tx| {
            tx.execute("select 1", ()).await?;
            *before.lock().unwrap() = passed();
            Ok(())
        })
        .await
        .unwrap();
        let [request, answer] = passed();
        let [request_before, answer_before] = before.into_inner().unwrap();
        db.close().await;
        Self {
            request: request - request_before,
            answer: answer - answer_before,
        }
    }

    /// How many places there are to cut it: before each byte, and behind the last one of each
    /// direction.
    fn places(self) -> u64 {
        self.request + 1 + self.answer + 1
    }

    /// Which byte of which direction is the first that does not pass, for the move with this number.
    fn cut(self, number: u64) -> Option<(u64, Direction)> {
        if number.is_multiple_of(SPARED) {
            return None;
        }
        // Counted without those that are spared, so that no place is always among them.
        let place = (number - number / SPARED - 1) % self.places();
        Some(match place.checked_sub(self.request + 1) {
            None => (place, Direction::ToTarget),
            Some(place) => (place, Direction::FromTarget),
        })
    }
}

#[test]
fn every_place_of_the_exchange_is_cut() {
    let exchange = Exchange {
        request: 19,
        answer: 46,
    };
    let cuts = (0..150).filter_map(|number| exchange.cut(number));
    let mut cuts: Vec<_> = cuts
        .map(|(byte, way)| (byte, way == Direction::ToTarget))
        .collect();
    cuts.sort_unstable();
    cuts.dedup();
    assert_eq!(cuts.len() as u64, exchange.places());
}

/// Makes one caller's moves, one after the other.
async fn call(
    cluster: Cluster,
    ids: Vec<i64>,
    plan: Arc<Plan>,
    exchange: Exchange,
    done: watch::Sender<usize>,
) -> (Told, usize) {
    let proxy = Proxy::start(("127.0.0.1", cluster.port())).await.unwrap();
    let db = Database::builder(&proxy.rewrite(&cluster.url()))
        .connection_limit(2)
        .ride_through(DEADLINE)
        .pool_timeout(DEADLINE)
        .open()
        .await
        .unwrap();
    let mut told = Told::default();
    let mut closures = 0;
    for id in ids {
        let runs = std::sync::atomic::AtomicUsize::new(0);
        let options = (plan.options)().timeout(DEADLINE);
        let moved = db.transaction_with(options, async |tx| {
            let run = runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            books::book(&tx, id, plan.seed).await?;
            if run == 0
                && let Some((bytes, direction)) = exchange.cut(id.unsigned_abs())
            {
                proxy.cut_after(bytes, direction);
            }
            Ok(())
        });
        told.note(id, moved.await);
        closures += runs.into_inner();
        done.send_modify(|done| *done += 1);
    }
    db.close().await;
    (told, closures)
}

/// Kills the server whenever another part of the moves is done.
async fn kill(cluster: &Cluster, plan: &Plan, mut done: watch::Receiver<usize>) {
    let kills = plan.kills();
    for number in 1..=kills {
        let part = plan.transactions * number / (kills + 1);
        done.wait_for(|done| *done >= part).await.unwrap();
        cluster
            .run(|cluster| {
                cluster.stop(Mode::Immediate)?;
                cluster.start_again()
            })
            .await
            .unwrap();
    }
}

/// Runs the moves and checks the books; answers what the callers were told, and how often their
/// closures ran.
async fn run(plan: Plan) -> (Told, usize) {
    let plan = Arc::new(plan);
    let cluster = Cluster::start().unwrap();
    books::open(&cluster);
    let exchange = Exchange::measure(&cluster.url(), cluster.port(), (plan.options)()).await;
    println!("{exchange:?}");
    assert!(
        plan.transactions as u64 * (SPARED - 1) / SPARED >= exchange.places(),
        "too few transactions to cut the exchange everywhere"
    );
    let (count, done) = watch::channel(0);
    let callers = (0..CALLERS).map(|caller| {
        let ids = (0..plan.transactions)
            .filter(|number| number % CALLERS == caller)
            .map(|number| i64::try_from(number).unwrap())
            .collect();
        let plan = Arc::clone(&plan);
        tokio::spawn(call(cluster.clone(), ids, plan, exchange, count.clone()))
    });
    let callers: Vec<_> = callers.collect();
    kill(&cluster, &plan, done).await;
    let mut told = Told::default();
    let mut closures = 0;
    for caller in join_all(callers).await {
        let (caller, runs) = caller.unwrap();
        told.join(caller);
        closures += runs;
    }
    books::audit(&cluster, &told);
    let kills = plan.kills();
    println!("{told}, {closures} runs of closures, {kills} kills");
    (told, closures)
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_once_transactions_are_neither_lost_nor_doubled_nor_unknown() {
    let (told, closures) = run(Plan::new(|| TransactionOptions::new().exactly_once())).await;
    assert!(told.unknown.is_empty(), "{:?}", told.unknown);
    assert!(closures > told.done.len(), "nothing was cut");
    assert!(told.refused.is_empty(), "{:?}", told.refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_transactions_are_neither_lost_nor_doubled_but_may_be_unknown() {
    let (told, _) = run(Plan::new(TransactionOptions::new)).await;
    assert!(!told.unknown.is_empty(), "nothing was cut");
}
