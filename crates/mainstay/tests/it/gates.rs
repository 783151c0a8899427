//! Three gates in front of one database: what statements say, what connects say, and whether the
//! server lets us in at all.

use crate::script::{Answer, Check, Script, conflict, failure};
use mainstay::{Class, Database, Error, Evidence, Kind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

const SECOND: Duration = Duration::from_secs(1);

/// Lets virtual time pass.
async fn pass(time: Duration) {
    timeout(time, std::future::pending::<()>())
        .await
        .unwrap_err();
}

fn call(db: &Database) -> JoinHandle<Result<u64, Error>> {
    let db = db.clone();
    tokio::spawn(async move { db.execute("insert into t", ()).await })
}

/// A database whose only connection is held by a transaction while no other can be opened, with the
/// gate for connects open.
async fn no_second_connection() -> (
    Arc<Script>,
    Database,
    mainstay::Transaction,
    JoinHandle<Result<u64, Error>>,
) {
    let script = Script::new([]);
    let db = script.database(|_| {});
    let tx = db.begin().await.unwrap();
    script.unreachable.store(true, Ordering::Relaxed);
    let waiting = call(&db);
    pass(4 * SECOND).await;
    assert_eq!(db.status().breaker.connect.state, "open");
    (script, db, tx, waiting)
}

#[tokio::test(start_paused = true)]
async fn live_connections_go_on_serving_while_no_new_one_can_be_had() {
    let (script, db, tx, waiting) = no_second_connection().await;
    let status = db.status().breaker;
    assert_eq!((status.state, status.execute.state), ("closed", "closed"));
    let cause = status.connect.cause.unwrap();
    assert!(cause.contains("connection refused by script:1"), "{cause}");
    assert!(status.connect.retry_after.unwrap() <= SECOND);
    assert!(db.refusal().is_none());
    // Who waits for the one that is there gets it, and so does who comes when it is idle.
    tx.execute("insert into t", ()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), 1);
    let started = Instant::now();
    for _ in 0..100 {
        db.execute("insert into t", ()).await.unwrap();
    }
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(db.status().breaker.connect.state, "open");
    drop(script);
}

#[tokio::test(start_paused = true)]
async fn with_the_last_live_connection_gone_everybody_is_refused_at_once() {
    let (script, db, tx, waiting) = no_second_connection().await;
    // Held by somebody who has not noticed yet that it has ended.
    script.end_all();
    let started = Instant::now();
    let error = db.execute("insert into t", ()).await.unwrap_err();
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(error.kind(), Kind::BreakerOpen);
    assert!(
        error.to_string().contains("connection refused by script:1"),
        "{error}"
    );
    assert!(error.retry_after().is_some());
    // And so is who was waiting for it.
    assert_eq!(
        waiting.await.unwrap().unwrap_err().kind(),
        Kind::BreakerOpen
    );
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(db.status().breaker.state, "open");
    drop(tx);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_is_refused_when_the_last_live_connection_is_given_back_dead() {
    let (script, _db, tx, waiting) = no_second_connection().await;
    script.end_all();
    let started = Instant::now();
    drop(tx);
    assert_eq!(
        waiting.await.unwrap().unwrap_err().kind(),
        Kind::BreakerOpen
    );
    assert!(
        started.elapsed() <= Duration::from_millis(500),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn the_gate_for_connects_closes_by_opening_a_connection_though_idle_ones_are_there() {
    let (script, db, tx, waiting) = no_second_connection().await;
    tx.rollback().await.unwrap();
    waiting.await.unwrap().unwrap();
    pass(10 * SECOND).await;
    assert_eq!(
        db.status().breaker.connect.state,
        "open",
        "an idle connection proves nothing"
    );
    script.unreachable.store(false, Ordering::Relaxed);
    pass(SECOND).await;
    assert_eq!(db.status().breaker.connect.state, "closed");
}

#[tokio::test(start_paused = true)]
async fn while_open_it_is_asked_twice_a_second_and_once_at_a_time() {
    let script = Script::new([]);
    let db = script.database(|_| {});
    script.unreachable.store(true, Ordering::Relaxed);
    db.execute("insert into t", ()).await.unwrap_err();
    script.connected_at.lock().unwrap().clear();
    pass(60 * SECOND).await;
    let times = script.connected_at.lock().unwrap().clone();
    let gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(
        gaps.iter().all(|gap| *gap <= Duration::from_millis(502)),
        "{gaps:?}"
    );
    assert!(times.len() < 60 * 6, "{} attempts in a minute", times.len());
}

#[tokio::test(start_paused = true)]
async fn a_prober_that_panics_hangs_or_is_dropped_leaves_nothing_stuck() {
    for checks in [
        vec![Check::Panics; 3],
        vec![Check::Hangs; 2],
        vec![Check::Panics, Check::Hangs, Check::Panics],
    ] {
        let silent = || failure(Kind::Unreachable, Class::OutcomeUnknown, Evidence::Silent);
        let script = Script::new((0..5).map(|_| silent()));
        let db = script.database(|config| config.ride_through = Duration::ZERO);
        for n in 0..5 {
            drop(db.execute(&format!("insert into t{n}"), ()).await);
        }
        assert_eq!(db.status().breaker.execute.state, "open");
        script.checks.lock().unwrap().extend(checks.iter().copied());
        // Callers that are told to stay away may still ask whether they have to.
        let started = Instant::now();
        while db.refusal().is_some() {
            pass(Duration::from_millis(50)).await;
            assert!(started.elapsed() < 20 * SECOND, "stuck after {checks:?}");
        }
        db.execute("insert into t", ()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_look_at_the_server_that_panics_is_not_the_last_one() {
    let demoted = || failure(Kind::ReadOnly, Class::RolledBack, Evidence::Silent);
    let script = Script::new([demoted(), demoted()]);
    let db = script.database(|config| config.retry_max = 0);
    for looks in 1..=2 {
        db.execute("insert into t", ()).await.unwrap_err();
        pass(SECOND).await;
        assert_eq!(script.looks.load(Ordering::Relaxed), looks);
    }
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_are_asked_once_in_an_interval_and_told_with_their_age() {
    let script = Script::new([]);
    let db = script.database(|_| {});
    script.refuses.store(true, Ordering::Relaxed);
    let first = db.execute("insert into t", ()).await.unwrap_err();
    assert_eq!(first.kind(), Kind::Credentials);
    pass(3 * SECOND).await;
    let started = Instant::now();
    for _ in 0..1000 {
        let error = db.execute("insert into t", ()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Credentials);
        assert!(
            error
                .to_string()
                .contains("wrong password (that was 3.0s ago"),
            "{error}"
        );
        assert!(error.retry_after().unwrap() <= 15 * SECOND);
    }
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(script.connects.load(Ordering::Relaxed), 1);
    let status = db.status().breaker;
    assert_eq!((status.state, status.credentials.state), ("open", "open"));
    assert_eq!(
        (status.connect.state, status.execute.state),
        ("closed", "closed")
    );
    // Half a minute of callers that come every tenth of a second.
    for _ in 0..300 {
        pass(SECOND / 10).await;
        drop(db.execute("insert into t", ()).await);
    }
    let attempts = script.connects.load(Ordering::Relaxed);
    assert!((2..=4).contains(&attempts), "{attempts}");
    // And when the password is right, it is noticed within the interval.
    script.refuses.store(false, Ordering::Relaxed);
    let started = Instant::now();
    while db.execute("insert into t", ()).await.is_err() {
        pass(SECOND / 10).await;
    }
    assert!(started.elapsed() < 19 * SECOND, "{:?}", started.elapsed());
    assert_eq!(db.status().breaker.credentials.state, "closed");
}

#[tokio::test(start_paused = true)]
async fn whoever_only_asks_for_the_refusal_is_let_through_when_the_interval_is_over() {
    let script = Script::new([]);
    let db = script.database(|_| {});
    script.refuses.store(true, Ordering::Relaxed);
    db.execute("insert into t", ()).await.unwrap_err();
    script.refuses.store(false, Ordering::Relaxed);
    assert_eq!(db.refusal().unwrap().kind(), Kind::Credentials);
    pass(18 * SECOND).await;
    assert!(db.refusal().is_none());
    db.execute("insert into t", ()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_cost_nobody_who_needs_no_new_connection() {
    let script = Script::new([]);
    let db = script.database(|_| {});
    let tx = db.begin().await.unwrap();
    script.refuses.store(true, Ordering::Relaxed);
    let waiting = call(&db);
    pass(3 * SECOND).await;
    assert_eq!(db.status().breaker.credentials.state, "open");
    tx.rollback().await.unwrap();
    waiting.await.unwrap().unwrap();
    db.execute("insert into t", ()).await.unwrap();
    assert_eq!(script.connects.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn an_operator_who_repaired_the_password_need_not_wait() {
    let script = Script::new([]);
    let db = script.database(|_| {});
    script.refuses.store(true, Ordering::Relaxed);
    db.execute("insert into t", ()).await.unwrap_err();
    script.refuses.store(false, Ordering::Relaxed);
    db.breaker_automatic();
    db.execute("insert into t", ()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn every_gate_obeys_an_order() {
    let script = Script::new([]);
    let db = script.database(|_| {});
    db.execute("insert into t", ()).await.unwrap();
    db.breaker_force_open();
    // Also for those who need no new connection, and nobody asks the server meanwhile.
    let error = db.execute("insert into t", ()).await.unwrap_err();
    assert!(error.message().contains("opened by an operator"), "{error}");
    let status = db.status().breaker;
    assert_eq!(
        (status.execute.state, status.connect.state),
        ("open", "open")
    );
    pass(60 * SECOND).await;
    assert_eq!(script.connects.load(Ordering::Relaxed), 1);
    // Kept closed, nobody is refused before the pool gives up.
    db.breaker_force_close();
    script.end_all();
    script.unreachable.store(true, Ordering::Relaxed);
    let started = Instant::now();
    let error = db.execute("insert into t", ()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable);
    assert_eq!(started.elapsed().as_secs(), 10, "the pool's own timeout");
    script.refuses.store(true, Ordering::Relaxed);
    let attempts = script.connects.load(Ordering::Relaxed);
    for _ in 0..3 {
        let error = db.execute("insert into t", ()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Credentials);
        pass(SECOND).await;
    }
    let more = script.connects.load(Ordering::Relaxed) - attempts;
    assert!(more >= 3, "each of them was let through, {more} attempts");
}

#[tokio::test(start_paused = true)]
async fn no_answer_moves_any_gate_and_neither_do_shed_callers() {
    let answers = [
        failure(Kind::Unique, Class::Permanent, Evidence::Answered),
        failure(Kind::Statement, Class::Permanent, Evidence::Answered),
        conflict(),
    ];
    for answer in answers {
        let script = Script::new((0..1000).map(|_| answer.clone()));
        let db = script.database(|config| config.ride_through = Duration::ZERO);
        for n in 0..100 {
            db.execute(&format!("insert into t{}", n % 7), ())
                .await
                .unwrap_err();
            assert!(db.refusal().is_none());
        }
        let status = db.status().breaker;
        assert!(
            status
                .gates()
                .iter()
                .all(|(_, gate)| gate.state == "closed" && gate.times_opened == 0)
        );
    }
    let script = Script::new([Answer::Fine, Answer::Fine]);
    let db = script.database(|config| {
        config.ride_through = Duration::ZERO;
        config.max_waiters = 1;
    });
    let held = [db.begin().await.unwrap(), db.begin().await.unwrap()];
    let waiting = call(&db);
    pass(SECOND).await;
    for _ in 0..100 {
        assert_eq!(
            db.execute("insert into t", ()).await.unwrap_err().kind(),
            Kind::Shed
        );
    }
    assert!(db.refusal().is_none());
    drop(held);
    waiting.await.unwrap().unwrap();
}

/// What a database answers is no outage, however often it answers "no".
async fn a_storm_of_refusals_moves_no_gate(db: &Database) {
    db.execute("create table t (n integer primary key)", ())
        .await
        .unwrap();
    db.execute("insert into t values (1)", ()).await.unwrap();
    for _ in 0..100 {
        let unique = db.execute("insert into t values (1)", ()).await;
        assert!(unique.unwrap_err().is_unique_violation());
        let syntax = db.execute("selct 1", ()).await;
        assert_eq!(syntax.unwrap_err().kind(), Kind::Statement);
        assert!(db.refusal().is_none());
    }
    let status = db.status().breaker;
    let quiet = |gate: &mainstay::GateStatus| gate.state == "closed" && gate.times_opened == 0;
    assert!(
        status.gates().iter().all(|(_, gate)| quiet(gate)),
        "{status:?}"
    );
    db.execute("insert into t values (2)", ()).await.unwrap();
}

#[tokio::test]
async fn a_storm_of_refusals_moves_no_gate_on_postgres() {
    let database = mainstay_testkit::database().await.unwrap();
    let url = format!("{}?connection_limit=3&ride_through=0", database.url());
    let db = Database::connect(&url).await.unwrap();
    a_storm_of_refusals_moves_no_gate(&db).await;
    // Conflicts, each rerun until its attempts or the budget of conflicts end.
    let conflict = "do $$ begin raise exception 'no' using errcode = '40001'; end $$";
    for _ in 0..20 {
        let error = db.execute(conflict, ()).await.unwrap_err();
        assert!(error.is_conflict(), "{error}");
    }
    let status = db.status().breaker;
    assert!(
        status
            .gates()
            .iter()
            .all(|(_, gate)| gate.times_opened == 0)
    );
    db.close().await;
}

#[tokio::test]
async fn a_storm_of_refusals_moves_no_gate_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file:{}/test.db", directory.path().display());
    let db = Database::connect(&url).await.unwrap();
    a_storm_of_refusals_moves_no_gate(&db).await;
    db.close().await;
}

#[tokio::test]
async fn a_changed_password_is_asked_about_once_while_live_connections_serve() {
    let database = mainstay_testkit::database().await.unwrap();
    let as_owner = database.url();
    let owner = Database::connect(&as_owner).await.unwrap();
    let role = format!("rotating_{}", std::process::id());
    owner
        .execute(&format!("create role {role} login password 'old'"), ())
        .await
        .unwrap();
    let (_, address) = as_owner.split_once('@').unwrap();
    let url = format!("postgres://{role}:old@{address}?connection_limit=2&ride_through=0");
    let db = Database::connect(&url).await.unwrap();
    let tx = db.begin().await.unwrap();
    owner
        .execute(&format!("alter role {role} password 'new'"), ())
        .await
        .unwrap();
    let waiting = {
        let db = db.clone();
        tokio::spawn(async move { db.fetch_one::<i64>("select 1", ()).await })
    };
    let refused = async || (db.status().breaker.credentials.state == "open").then_some(());
    mainstay_testkit::wait_for("the new connection to be refused", 10 * SECOND, refused)
        .await
        .unwrap();
    // Whoever can be served by the connection that is there is served.
    assert_eq!(tx.fetch_one::<i64>("select 1", ()).await.unwrap(), 1);
    tx.rollback().await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), 1);
    for _ in 0..50 {
        db.fetch_one::<i64>("select 1", ()).await.unwrap();
    }
    assert_eq!(db.status().breaker.credentials.times_opened, 1);
    db.close().await;
    owner
        .execute(&format!("drop role {role}"), ())
        .await
        .unwrap();
}
