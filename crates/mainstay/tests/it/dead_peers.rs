//! Connections that died without a word, in front of a real server.

use futures_util::future::join_all;
use mainstay::Database;
use mainstay_testkit::{Proxy, wait_for};
use std::time::Duration;
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(60);

/// What a check may take, and what a connect on this machine takes at most.
const CHECK_AND_CONNECT: Duration = Duration::from_secs(1 + 2);

/// A connection that answered within this time is lent without a question.
const BELIEVED: Duration = Duration::from_millis(1_500);

/// How soon all connections must be usable again.
const CAPACITY_BACK: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_died_without_a_word_cost_one_check_and_never_the_pool() {
    let database = mainstay_testkit::database().await.unwrap();
    let proxy = Proxy::start(("127.0.0.1", database.cluster().port()))
        .await
        .unwrap();
    let db = Database::builder(&proxy.rewrite(&database.url()))
        .connection_limit(4)
        .min_connections(4)
        .open()
        .await
        .unwrap();
    wait_for("the pool to be full", LIMIT, || async {
        (db.status().idle() == 4).then_some(())
    })
    .await
    .unwrap();
    // What was used a moment ago is lent without a question.
    let idle_since = Instant::now();
    wait_for("them to be idle for a while", LIMIT, || async {
        (idle_since.elapsed() > BELIEVED).then_some(())
    })
    .await
    .unwrap();
    proxy.strand();

    let started = Instant::now();
    let lease = db.acquire().await.unwrap();
    let one: i64 = lease.fetch_one("select 1", ()).await.unwrap();
    let took = started.elapsed();
    assert_eq!(one, 1);
    assert!(took <= CHECK_AND_CONNECT, "an acquire took {took:?}");
    drop(lease);

    // All four at once.
    let calls = (0..4).map(|_| async {
        let lease = db.acquire().await?;
        lease
            .fetch_one::<i64>("select 1 from pg_sleep(0.1)", ())
            .await
    });
    for call in join_all(calls).await {
        assert_eq!(call.unwrap(), 1);
    }
    let took = started.elapsed();
    assert!(
        took <= CAPACITY_BACK,
        "the capacity was back after {took:?}"
    );
    let status = db.status();
    assert_eq!((status.leased(), status.waiting()), (0, 0), "{status:?}");
}
