//! No call outlives its deadline, and a dropped call leaves nothing behind.

use crate::script::{Answer, Script};
use mainstay::{Kind, Result};
use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_read_that_hangs_ends_at_its_deadline() {
    let script = Script::new([Answer::Never]);
    let db = script.database(|_| {});
    let started = Instant::now();
    let error = db
        .execute("select 1", ())
        .timeout(SECOND)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    assert_eq!(started.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_hangs_ends_at_its_deadline_with_an_unknown_outcome() {
    let script = Script::new([Answer::Never]);
    let db = script.database(|_| {});
    let started = Instant::now();
    let error = db
        .execute("insert into t", ())
        .timeout(SECOND)
        .await
        .unwrap_err();
    assert!(
        error.is_outcome_unknown() && error.is_timeout(),
        "{error:?}"
    );
    assert_eq!(started.elapsed(), SECOND);
    assert_eq!(script.count("run"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_hangs_is_of_unknown_outcome() {
    let script = Script::new([Answer::Fine, Answer::Fine, Answer::Never]);
    let db = script.database(|config| config.timeout = SECOND);
    let result = db
        .transaction(async |tx| tx.execute("update a", ()).await)
        .await;
    let error = result.unwrap_err();
    assert!(
        error.is_outcome_unknown() && error.is_timeout(),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_closure_that_hangs_is_rolled_back_at_the_deadline() {
    let script = Script::new([]);
    let db = script.database(|config| config.timeout = SECOND);
    let started = Instant::now();
    let result: Result<()> = db.transaction(async |_| std::future::pending().await).await;
    assert!(result.unwrap_err().is_timeout());
    assert_eq!(started.elapsed(), SECOND);
    db.execute("select 1", ()).await.unwrap();
    assert_eq!(script.count("commit"), 0);
    assert_eq!(script.count("clean"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_view_with_a_deadline_bounds_every_call_through_it() {
    let script = Script::new([Answer::Never]);
    let db = script.database(|_| {});
    let started = Instant::now();
    let view = db
        .with_deadline(started + SECOND)
        .with_deadline(started + SECOND * 5);
    let result = view.execute("select 1", ()).timeout(SECOND * 10).await;
    assert!(result.unwrap_err().is_timeout());
    assert_eq!(started.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_pool_says_why_and_who() {
    let script = Script::new([]);
    let db = script.database(|config| config.pool_timeout = Some(SECOND));
    let _one = db.acquire().await.unwrap();
    let _two = db.acquire().await.unwrap();
    let started = Instant::now();
    let error = db.execute("select 1", ()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Exhausted);
    assert_eq!(started.elapsed(), SECOND);
    assert_eq!(error.waited(), Some(SECOND));
    let text = error.to_string();
    assert!(
        text.contains("deadlines.rs"),
        "the holder's call site is missing: {text}"
    );
    assert!(
        text.contains("limit 2") && text.contains("lent 2"),
        "{text}"
    );
}

/// Polls a future so many times without ever waking it, then drops it.
async fn poll_times<F: Future>(future: F, times: usize) -> bool {
    let mut future = pin!(future);
    for _ in 0..times {
        let mut context = Context::from_waker(Waker::noop());
        if future.as_mut().poll(&mut context).is_ready() {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

/// The pool is as it was: nobody holds anything, and both connections can be had.
async fn is_whole(db: &mainstay::Database) {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let status = db.status();
    assert_eq!((status.leased(), status.waiting()), (0, 0), "{status:?}");
    let _one = db.acquire().await.unwrap();
    let _two = db.acquire().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_at_any_poll_leaves_nothing_behind() {
    for times in 0..40 {
        let script = Script::new([]);
        let db = script.database(|_| {});
        let done = poll_times(db.execute("insert into t", ()).into_future(), times).await;
        is_whole(&db).await;
        if done {
            return;
        }
    }
    panic!("the call never ended");
}

#[tokio::test(start_paused = true)]
async fn a_transaction_dropped_at_any_poll_leaves_nothing_behind() {
    for times in 0..60 {
        let script = Script::new([]);
        let db = script.database(|_| {});
        let unit = db.transaction(async |tx| {
            tx.execute("update a", ()).await?;
            tx.savepoint(async |tx| {
                tokio::task::yield_now().await;
                tx.execute("update b", ()).await
            })
            .await
        });
        let done = poll_times(unit, times).await;
        is_whole(&db).await;
        if done {
            return;
        }
        assert_eq!(
            script.count("commit"),
            0,
            "after {times} polls: {:?}",
            script.log()
        );
    }
    panic!("the transaction never ended");
}

#[tokio::test(start_paused = true)]
async fn every_other_call_dropped_at_any_poll_leaves_nothing_behind() {
    let files = [(
        "1_a.sql".to_owned(),
        "create table a (x integer)".to_owned(),
    )];
    let migrations = mainstay::migrate::Migrations::from_files(files).unwrap();
    for times in 0..20 {
        let script = Script::new([]);
        let db = script.database(|_| {});
        poll_times(db.acquire(), times).await;
        poll_times(db.begin(), times).await;
        poll_times(db.with_connection(async |c| c.script("x").await), times).await;
        poll_times(db.batch([mainstay::statement("insert a", ())]), times).await;
        poll_times(db.health(), times).await;
        poll_times(db.info().into_future(), times).await;
        poll_times(db.create(), times).await;
        poll_times(db.erase(), times).await;
        poll_times(db.migrate(&migrations), times).await;
        poll_times(db.migration_status(&migrations), times).await;
        poll_times(db.backup("copy".as_ref(), &|_, _| {}), times).await;
        poll_times(db.fetch::<i64>("select 1", ()).next(), times).await;
        is_whole(&db).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_statement_ends_the_transaction() {
    let script = Script::new([Answer::Fine, Answer::Never]);
    let db = script.database(|_| {});
    let tx = db.begin().await.unwrap();
    assert!(!poll_times(tx.execute("update a", ()).into_future(), 3).await);
    let error = tx.execute("update b", ()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::TransactionOver);
    assert!(
        error.to_string().contains("dropped in the middle"),
        "{error}"
    );
    assert!(tx.commit().await.is_err());
    assert_eq!(script.count("commit"), 0);
    is_whole(&db).await;
}

#[tokio::test(start_paused = true)]
async fn a_dropped_savepoint_ends_the_transaction() {
    let script = Script::new([]);
    let db = script.database(|_| {});
    let tx = db.begin().await.unwrap();
    let part = tx.savepoint(async |_| std::future::pending::<Result<()>>().await);
    assert!(!poll_times(part, 3).await);
    let error = tx.execute("update a", ()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::TransactionOver);
    assert!(tx.commit().await.is_err());
    assert_eq!(script.count("commit"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_close_leaves_the_handle_closed() {
    for times in 0..10 {
        let script = Script::new([]);
        let db = script.database(|_| {});
        db.execute("select 1", ()).await.unwrap();
        poll_times(db.close(), times).await;
        if times > 0 {
            assert_eq!(
                db.execute("select 1", ()).await.unwrap_err().kind(),
                Kind::Closed
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_transaction_by_hand_that_is_left_open_ends_at_its_deadline_and_says_so() {
    let script = Script::new([]);
    let db = script.database(|config| config.timeout = Duration::from_secs(30));
    let tx = db.begin().await.unwrap();
    tokio::time::advance(Duration::from_secs(20)).await;
    tx.execute("update a", ()).await.unwrap();
    assert_eq!(db.status().leased(), 1);
    // The runtime passes the time when nothing else is left to do.
    tokio::time::sleep_until(tx.deadline() + Duration::from_millis(1)).await;
    is_whole(&db).await;
    assert_eq!(db.status().leased(), 0);
    for error in [
        tx.execute("update b", ()).await.unwrap_err(),
        tx.commit().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), Kind::TransactionOver);
        assert!(error.is_timeout());
        let told = error.to_string();
        assert!(
            told.contains("open for 30.0 s and idle for 10.0 s"),
            "{told}"
        );
    }
    assert_eq!(script.count("commit"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_by_hand_that_has_ended_is_not_watched_any_more() {
    let script = Script::new([]);
    let db = script.database(|_| {});
    for _ in 0..3 {
        db.begin().await.unwrap().commit().await.unwrap();
        drop(db.begin().await.unwrap());
    }
    // What watched them has ended with them.
    let metrics = tokio::runtime::Handle::current().metrics();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let before = metrics.num_alive_tasks();
    let tx = db.begin().await.unwrap();
    assert_eq!(metrics.num_alive_tasks(), before + 1);
    tx.rollback().await.unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(metrics.num_alive_tasks(), before);
}
