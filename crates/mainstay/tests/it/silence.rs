//! Connections that a firewall has forgotten: nothing comes back on them, not even an error. They
//! cost whoever wants one a check, and the pool not a connection for long.

use futures_util::future::join_all;
use mainstay::{Database, Lease};
use mainstay_testkit::{Proxy, TestDatabase, wait_for};
use std::future::IntoFuture;
use std::time::Duration;
use tokio::time::{Instant, timeout};

const LIMIT: usize = 4;
/// The deadline of a check, and beside it what a connect takes on a busy machine.
const CHECK_AND_CONNECT: Duration = Duration::from_millis(1000 + 500);
/// How soon all connections can be had again.
const CAPACITY: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_secs(60);

/// A handle that has all its connections, and the wire that they go through.
async fn warm() -> (TestDatabase, Proxy, Database) {
    let database = mainstay_testkit::database().await.unwrap();
    let proxy = Proxy::start(("127.0.0.1", database.cluster().port()))
        .await
        .unwrap();
    let db = Database::builder(&proxy.rewrite(&database.url()))
        .connection_limit(LIMIT)
        .open()
        .await
        .unwrap();
    drop(all(&db, LIMIT).await);
    wait_for("the connections to be idle", LONG, || async {
        (db.status().idle() == LIMIT).then_some(())
    })
    .await
    .unwrap();
    (database, proxy, db)
}

/// So many connections at the same time, each of which works.
async fn all(db: &Database, count: usize) -> Vec<Lease> {
    let leases = join_all((0..count).map(|_| timeout(LONG, db.acquire()))).await;
    let leases: Vec<Lease> = leases
        .into_iter()
        .map(|lease| lease.unwrap().unwrap())
        .collect();
    for lease in &leases {
        assert_eq!(lease.fetch_one::<i64>("select 1", ()).await.unwrap(), 1);
    }
    leases
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_have_gone_silent_cost_one_check() {
    let (_database, proxy, db) = warm().await;
    // Longer than a connection counts as just used.
    let rested = Instant::now() + Duration::from_millis(1100);
    wait_for("the connections to have rested", LONG, || async {
        (Instant::now() >= rested).then_some(())
    })
    .await
    .unwrap();
    proxy.strand();
    let began = Instant::now();
    let first = all(&db, 1).await;
    let served = began.elapsed();
    let rest = all(&db, LIMIT - 1).await;
    let whole = began.elapsed();
    println!("the first was served after {served:.1?}, all {LIMIT} after {whole:.1?}");
    assert!(served <= CHECK_AND_CONNECT, "{served:?}");
    assert!(whole <= CAPACITY, "{whole:?}");
    drop((first, rest));
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_on_silent_connections_are_let_go_and_the_capacity_comes_back() {
    let (_database, proxy, db) = warm().await;
    proxy.strand();
    let limit = Duration::from_millis(500);
    let began = Instant::now();
    let calls = (0..LIMIT).map(|_| {
        db.fetch_one::<i64>("select 1", ())
            .timeout(limit)
            .into_future()
    });
    for call in join_all(calls).await {
        assert!(call.unwrap_err().is_timeout());
    }
    let released = began.elapsed();
    drop(all(&db, LIMIT).await);
    let whole = began.elapsed() - released;
    println!("callers were let go after {released:.1?}, all {LIMIT} there {whole:.1?} later");
    assert!(released <= limit * 2, "{released:?}");
    assert!(whole <= CAPACITY, "{whole:?}");
}
