//! One-shot reads that share connections with PostgreSQL, through the whole facade.

use crate::script::Script;
use futures_util::future::{join, join_all};
use mainstay::{Database, IntoParams};
use mainstay_testkit::{TestDatabase, wait_for};
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;

const LIMIT: usize = 4;
const LONG: Duration = Duration::from_secs(60);
const POINT: &str = "select $1 + 1";
const SLEEP: &str = "select 7 from pg_sleep($1)";

async fn fresh() -> (TestDatabase, Database) {
    let database = mainstay_testkit::database().await.unwrap();
    let url = format!("{}?connection_limit={LIMIT}", database.url());
    let db = Database::connect(&url).await.unwrap();
    // Where the texts belong has been asked, which happens on a connection of one's own.
    points(&db, 1).await;
    let _: i64 = db.fetch_one(SLEEP, (0.0,)).await.unwrap();
    (database, db)
}

async fn points(db: &Database, count: i64) {
    let calls = (0..count).map(|number| async move {
        let answer: i64 = db.fetch_one(POINT, (number,)).await.unwrap();
        assert_eq!(answer, number + 1);
    });
    join_all(calls).await;
}

/// Every connection can still be had alone, and each is in order.
async fn nothing_is_lost(db: &Database) {
    let leases = join_all((0..LIMIT).map(|_| db.acquire())).await;
    for lease in leases {
        let answer: i64 = lease.unwrap().fetch_one("select 40 + 2", ()).await.unwrap();
        assert_eq!(answer, 42);
    }
}

#[tokio::test(start_paused = true)]
async fn a_crowd_with_a_new_text_asks_no_more_often_than_there_are_connections() {
    let script = Script::new([]);
    let db = script.database(|_| {});
    let calls = (0..50).map(|_| db.execute("select 1", ()).into_future());
    for answer in join_all(calls).await {
        answer.unwrap();
    }
    assert_eq!(script.count("run select 1"), 50);
    let asked = script.routes.load(Ordering::Relaxed);
    assert!(asked <= script.limit, "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_share_no_more_connections_than_the_limit() {
    let (database, db) = fresh().await;
    points(&db, 1_000).await;
    let ours = "select count(*) from pg_stat_activity where datname = current_database() \
                and pid <> pg_backend_pid() and backend_type = 'client backend'";
    let open: usize = database.psql(ours).unwrap().parse().unwrap();
    assert!(open <= LIMIT, "{open}");
    nothing_is_lost(&db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_callers_do_not_share_while_a_connection_is_free() {
    let (_database, db) = fresh().await;
    let process = || db.fetch_one::<i64>("select pg_backend_pid() from pg_sleep($1)", (0.2,));
    let _: i64 = process().await.unwrap();
    nothing_is_lost(&db).await;
    let (one, other) = join(process().into_future(), process().into_future()).await;
    assert_ne!(one.unwrap(), other.unwrap());
}

/// The sessions on which a crowd of callers is served that each ask several times.
async fn sessions(db: &Database, text: &str, callers: usize, times: usize) -> BTreeSet<i64> {
    let calls = (0..callers).map(|_| async move {
        let mut found = BTreeSet::new();
        for _ in 0..times {
            found.insert(db.fetch_one::<i64>(text, ()).await.unwrap());
        }
        found
    });
    join_all(calls).await.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_are_answered_in_a_moment_gather_on_one_session() {
    let (_database, db) = fresh().await;
    let brief = "select pg_backend_pid()";
    nothing_is_lost(&db).await;
    wait_for("three callers to share one session", LONG, async || {
        let found = sessions(&db, brief, 3, 50).await;
        (found.len() == 1).then_some(())
    })
    .await
    .unwrap();
    // Whoever may take longer does not join them.
    let slow = async {
        let answer: i64 = db.fetch_one(SLEEP, (0.2,)).await.unwrap();
        assert_eq!(answer, 7);
    };
    join(slow, sessions(&db, brief, 3, 50)).await;
    nothing_is_lost(&db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_keep_the_server_busy_for_milliseconds_get_sessions_of_their_own() {
    let (_database, db) = fresh().await;
    let slow = "select pg_backend_pid() from pg_sleep(0.005)";
    nothing_is_lost(&db).await;
    wait_for("each session to be used", LONG, async || {
        let found = sessions(&db, slow, 16, 10).await;
        (found.len() == LIMIT).then_some(())
    })
    .await
    .unwrap();
    nothing_is_lost(&db).await;
}

/// Runs a slow read among quick ones, twice: the second time it is known.
async fn holds_up_none<P: IntoParams + Copy>(db: &Database, text: &str, params: P, right: i64) {
    for _ in 0..2 {
        let done = AtomicUsize::new(0);
        let slow = async {
            let answer: i64 = db.fetch_one(text, params).await.unwrap();
            assert_eq!(answer, right);
            done.load(Ordering::SeqCst)
        };
        let quick = (0..400).map(|number: i64| {
            let done = &done;
            async move {
                let answer: i64 = db.fetch_one(POINT, (number,)).await.unwrap();
                assert_eq!(answer, number + 1);
                done.fetch_add(1, Ordering::SeqCst);
            }
        });
        let (before, _) = join(slow, join_all(quick)).await;
        assert_eq!(
            before, 400,
            "quick reads that were answered before the slow one"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_read_among_quick_ones_holds_up_none_and_is_answered() {
    let (_database, db) = fresh().await;
    holds_up_none(&db, SLEEP, (5.0,), 7).await;
    nothing_is_lost(&db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_a_slow_read_among_quick_ones_holds_up_none_and_is_answered() {
    let db = Database::connect("sqlite://?temp&connection_limit=3")
        .await
        .unwrap();
    let count = "with recursive n(i) as (select 1 union all select i + 1 from n limit $1)
                 select count(*) from n";
    let _: i64 = db.fetch_one(count, (1,)).await.unwrap();
    holds_up_none(&db, count, (10_000_000,), 10_000_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_result_arrives_whole_and_holds_up_none() {
    let (_database, db) = fresh().await;
    let text = "select n, repeat('x', 500) from generate_series(1, $1) n";
    let _: Vec<(i64, String)> = db.fetch_all(text, (1,)).await.unwrap();
    for _ in 0..2 {
        let large = async {
            let rows: Vec<(i64, String)> = db.fetch_all(text, (20_000,)).await.unwrap();
            let numbers = rows.iter().map(|(number, _)| *number);
            assert!(numbers.eq(1..=20_000));
        };
        join(large, points(&db, 300)).await;
    }
    nothing_is_lost(&db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_parameter_arrives_whole_among_others() {
    let (_database, db) = fresh().await;
    for length in [10, 20_000_000, 10] {
        let large = async {
            let text = "x".repeat(length);
            let found: usize = db.fetch_one("select length($1)", (text,)).await.unwrap();
            assert_eq!(found, length);
        };
        join(large, points(&db, 300)).await;
    }
    nothing_is_lost(&db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_does_not_take_his_answer_holds_up_none() {
    let (_database, db) = fresh().await;
    let text = "select n, repeat('x', 500) from generate_series(1, $1) n";
    let _: Vec<(i64, String)> = db.fetch_all(text, (1,)).await.unwrap();
    let mut idle = db.fetch_all::<(i64, String)>(text, (200,)).into_future();
    let sent = poll_fn(|context| Poll::Ready(idle.as_mut().poll(context).is_pending()));
    assert!(sent.await);
    let longest = AtomicUsize::new(0);
    let callers = (0..200_i64).map(|caller| {
        let (db, longest) = (&db, &longest);
        async move {
            for number in 0..20 {
                let begun = Instant::now();
                let answer: i64 = db.fetch_one(POINT, (caller + number,)).await.unwrap();
                assert_eq!(answer, caller + number + 1);
                let took = usize::try_from(begun.elapsed().as_millis()).unwrap();
                longest.fetch_max(took, Ordering::Relaxed);
            }
        }
    });
    join_all(callers).await;
    let longest = longest.into_inner();
    assert!(longest < 2_000, "somebody was kept for {longest} ms");
    let breaker = db.status().breaker;
    assert_eq!((breaker.state, breaker.times_opened), ("closed", 0));
    // Whoever comes for it late is served as well, and does not do it to others again.
    let rows = idle.await.unwrap();
    assert_eq!(rows.len(), 200);
    nothing_is_lost(&db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_reads_lose_nothing_whenever_they_are_dropped() {
    let (_database, db) = fresh().await;
    for polls in 0..12 {
        let gone = async {
            let mut gone = db.fetch_one::<i64>(SLEEP, (30.0,)).into_future();
            for _ in 0..polls {
                let polled = poll_fn(|context| Poll::Ready(gone.as_mut().poll(context).is_ready()));
                if polled.await {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        join(gone, points(&db, 20)).await;
        nothing_is_lost(&db).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_among_reads_takes_the_write_lane_and_they_go_on() {
    let (_database, db) = fresh().await;
    db.execute("create table t (id bigint primary key)", ())
        .await
        .unwrap();
    let writes = (0..50_i64).map(|id| {
        let db = &db;
        async move {
            db.execute("insert into t values ($1)", (id,))
                .await
                .unwrap()
        }
    });
    join(join_all(writes), points(&db, 200)).await;
    let count: i64 = db.fetch_one("select count(*) from t", ()).await.unwrap();
    assert_eq!(count, 50);
    nothing_is_lost(&db).await;
}
