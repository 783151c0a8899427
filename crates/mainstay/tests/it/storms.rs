//! A storm of errors is not an outage, and one lost connection is not a storm.

use futures_util::future::join_all;
use mainstay::{Database, Kind, TransactionOptions};
use mainstay_testkit::{TestDatabase, wait_for};
use std::collections::BTreeSet;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const STORM: usize = 100;

/// A handle whose breaker opens at the first reason.
async fn touchy(url: &str) -> Database {
    Database::builder(url)
        .ride_through(Duration::ZERO)
        .open()
        .await
        .unwrap()
}

async fn fresh() -> (TestDatabase, Database) {
    let database = mainstay_testkit::database().await.unwrap();
    let db = touchy(&format!("{}?connection_limit=4", database.url())).await;
    (database, db)
}

/// Each call of `act` fails with this kind, the breaker has not moved, and the next call passes.
async fn weathers(db: &Database, kind: Kind, act: impl AsyncFn(&Database) -> mainstay::Result<()>) {
    for _ in 0..STORM {
        let error = act(db).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(db.status().breaker.state, "closed", "{error}");
    }
    assert_eq!(db.fetch_one::<i64>("select 7", ()).await.unwrap(), 7);
    let breaker = db.status().breaker;
    assert_eq!((breaker.state, breaker.times_opened), ("closed", 0));
}

async fn break_the_rules(db: &Database) {
    db.execute("create table once (id bigint primary key)", ())
        .await
        .unwrap();
    db.execute("insert into once values (1)", ()).await.unwrap();
    weathers(db, Kind::Unique, async |db| {
        db.execute("insert into once values (1)", ())
            .await
            .map(drop)
    })
    .await;
    weathers(db, Kind::Statement, async |db| {
        db.execute("selekt 1", ()).await.map(drop)
    })
    .await;
    weathers(db, Kind::Statement, async |db| {
        db.fetch_one::<i64>("select 1 from nowhere", ())
            .await
            .map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_rules_do_not_move_the_breaker() {
    let (_database, db) = fresh().await;
    break_the_rules(&db).await;
    let opened = db.status().pools[0].opened;
    assert!(opened <= 4, "{opened} connections for errors");
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_broken_rules_do_not_move_the_breaker() {
    let directory = tempfile::tempdir().unwrap();
    let db = touchy(&format!("file:{}/a.db", directory.path().display())).await;
    break_the_rules(&db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_do_not_move_the_breaker() {
    let (_database, db) = fresh().await;
    let conflict = "do $$ begin raise exception 'again' using errcode = '40001'; end $$";
    weathers(&db, Kind::Conflict, async |db| {
        let once = TransactionOptions::new().once();
        db.transaction_with(once, async |tx| tx.execute(conflict, ()).await.map(drop))
            .await
    })
    .await;
    assert!(db.status().pools[0].opened <= 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_stands_is_cut_down_where_that_was_asked_for() {
    for (parameters, kind) in [
        ("shed_after=100ms", Kind::Shed),
        ("shed_after=0", Kind::Exhausted),
    ] {
        let database = mainstay_testkit::database().await.unwrap();
        let url = database.url();
        let and = if url.contains('?') { '&' } else { '?' };
        let url = format!("{url}{and}connection_limit=1&pool_timeout=3&{parameters}");
        let db = Database::connect(&url).await.unwrap();
        let held = db.acquire().await.unwrap();
        let error = db.execute("select 1", ()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.retry_after().is_some(), "{error}");
        drop(held);
        assert_eq!(db.fetch_one::<i64>("select 7", ()).await.unwrap(), 7);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shed_waiters_do_not_move_the_breaker() {
    let database = mainstay_testkit::database().await.unwrap();
    let db = Database::builder(&database.url())
        .connection_limit(1)
        .max_waiters(1)
        .ride_through(Duration::ZERO)
        .open()
        .await
        .unwrap();
    let held = db.acquire().await.unwrap();
    let waiting = tokio::spawn({
        let db = db.clone();
        async move { db.fetch_one::<i64>("select 7", ()).await }
    });
    wait_for(
        "the only place in the queue to be taken",
        SECOND * 10,
        || async { (db.status().waiting() == 1).then_some(()) },
    )
    .await
    .unwrap();
    for _ in 0..STORM {
        let error = db.execute("select 1", ()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Shed, "{error}");
    }
    drop(held);
    assert_eq!(waiting.await.unwrap().unwrap(), 7);
    let breaker = db.status().breaker;
    assert_eq!((breaker.state, breaker.times_opened), ("closed", 0));
}

/// The processes that serve a handle's connections.
async fn processes(db: &Database, limit: usize) -> BTreeSet<i64> {
    let leases = join_all((0..limit).map(|_| db.acquire())).await;
    let mut processes = BTreeSet::new();
    for lease in leases {
        let lease = lease.unwrap();
        let process: i64 = lease
            .fetch_one("select pg_backend_pid()::bigint", ())
            .await
            .unwrap();
        processes.insert(process);
    }
    processes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_terminated_costs_one_reconnect() {
    let (database, db) = fresh().await;
    let before = processes(&db, 4).await;
    let opened = db.status().pools[0].opened;
    let victim = before.first().unwrap();
    database
        .psql(&format!("select pg_terminate_backend({victim}, 5000)"))
        .unwrap();
    // Reads do not notice.
    let reads = (0..40).map(|number: i64| {
        let db = &db;
        async move { db.fetch_one::<i64>("select $1::bigint", (number,)).await }
    });
    for (number, read) in (0..).zip(join_all(reads).await) {
        assert_eq!(read.unwrap(), number);
    }
    let after = processes(&db, 4).await;
    assert_eq!(before.difference(&after).collect::<Vec<_>>(), [victim]);
    assert_eq!(db.status().pools[0].opened, opened + 1);
    assert_eq!(db.status().breaker.times_opened, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_reads_only_by_default_gets_an_error_and_asks_once() {
    let database = mainstay_testkit::database().await.unwrap();
    let role = format!("reader_{}", std::process::id());
    database
        .psql(&format!(
            "create table log (what text); create role {role} login password 'p'; \
             grant all on log to {role}; alter role {role} set default_transaction_read_only = on"
        ))
        .unwrap();
    let url = database.url();
    let (_, place) = url.split_once('@').unwrap();
    let write = "insert into log values ('x')";
    // With one lane and with two.
    for limit in [1, 4] {
        let db = touchy(&format!(
            "postgres://{role}:p@{place}?connection_limit={limit}"
        ))
        .await;
        let error = db.execute(write, ()).await.unwrap_err();
        let (acquired, opened) = (db.status().pools[0].acquired, db.status().pools[0].opened);
        assert_eq!(error.kind(), Kind::ReadOnly, "{error}");
        weathers(&db, Kind::ReadOnly, async |db| {
            db.execute(write, ()).await.map(drop)
        })
        .await;
        let pool = &db.status().pools[0];
        // One lease a call, the read at the end included, and never another connection.
        assert_eq!(pool.acquired - acquired, STORM as u64 + 1);
        assert_eq!(pool.opened, opened);
        assert_eq!(database.psql("select count(*) from log").unwrap(), "0");
        db.close().await;
    }
    database
        .psql(&format!("drop owned by {role}; drop role {role}"))
        .unwrap();
}
