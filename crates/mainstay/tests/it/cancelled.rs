//! A statement whose caller has gone is stopped on the server, and nothing of it reaches whoever
//! comes next: neither the wait for it, nor a cancel request that arrives late.
//!
//! `MAINSTAY_CANCELS` is the number of statements that are dropped.

use crate::run::{length, seed};
use mainstay::Database;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How soon the connection is fit for the next caller.
const IDLE_AGAIN: Duration = Duration::from_secs(1);
/// The statement may be dropped before it is sent, while it is prepared, and while it runs.
const DROPPED_WITHIN_MICROS: u64 = 8000;
const LONG: Duration = Duration::from_secs(60);

/// Starts a statement of half a minute in one of the ways that there are and drops it.
async fn begin_and_drop(db: &Database, way: u64, after: Duration) {
    let slow = "select 1 from (select pg_sleep(30)) as slept";
    let dropped = match way % 3 {
        0 => timeout(after, db.fetch_one::<i64>(slow, ())).await.is_err(),
        1 => timeout(after, db.fetch_one::<i64>(slow, ()).write())
            .await
            .is_err(),
        _ => {
            let unit = db.transaction(async |tx| tx.fetch_one::<i64>(slow, ()).await);
            timeout(after, unit).await.is_err()
        }
    };
    assert!(dropped, "it ended by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_statement_is_stopped_and_its_cancel_stops_nothing_else() {
    let trials = length("MAINSTAY_CANCELS", 150);
    let mut rng = fastrand::Rng::with_seed(seed());
    let database = mainstay_testkit::database().await.unwrap();
    // One connection, so that the next caller gets the one that was left; and two lanes where there
    // are two, which is another way through the backend.
    let url = database.url();
    let handles = [1, 2].map(|limit| format!("{url}?connection_limit={limit}"));
    let [one, two] = &handles;
    let [one, two] = [
        Database::connect(one).await.unwrap(),
        Database::connect(two).await.unwrap(),
    ];
    let mut waits = Vec::new();
    for trial in 0..trials {
        let db = if rng.bool() { &one } else { &two };
        let after = Duration::from_micros(rng.u64(0..DROPPED_WITHIN_MICROS));
        begin_and_drop(db, trial, after).await;
        let left = Instant::now();
        let limit = db.status().limit();
        // Everybody who comes now is served, and is not stopped in the middle.
        let next = (0..limit).map(|_| async {
            let slept = "select 7 from (select pg_sleep(0.001)) as slept";
            db.fetch_one::<i64>(slept, ()).timeout(LONG).await
        });
        for seven in futures_util::future::join_all(next).await {
            assert_eq!(seven.unwrap(), 7);
        }
        waits.push(left.elapsed());
    }
    waits.sort_unstable();
    let [median, longest] = [waits.len() / 2, waits.len() - 1].map(|at| waits[at]);
    println!("served after {median:.1?} (median), {longest:.1?} (longest) of {trials}");
    assert!(longest <= IDLE_AGAIN, "{longest:?}");
    let busy = "select count(*) from pg_stat_activity where datname = current_database() \
                and backend_type = 'client backend' and pid <> pg_backend_pid() \
                and state <> 'idle'";
    assert_eq!(database.psql(busy).unwrap().trim(), "0");
}
