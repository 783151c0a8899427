//! A short outage is waited out, a long one fails fast, and recovery is noticed.

use crate::script::{Script, failure};
use mainstay::{Class, Evidence, Kind};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn an_outage_shorter_than_the_ride_through_is_waited_out() {
    let script = Script::new([]);
    let db = script.database(|_| {});
    script.unreachable.store(true, Ordering::Relaxed);
    let waiting = tokio::spawn({
        let db = db.clone();
        async move { db.execute("insert into t", ()).await }
    });
    tokio::time::advance(Duration::from_secs(1)).await;
    script.unreachable.store(false, Ordering::Relaxed);
    assert_eq!(waiting.await.unwrap().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_long_outage_opens_the_breaker_and_refuses_at_once_with_the_cause() {
    let script = Script::new([]);
    let db = script.database(|_| {});
    script.unreachable.store(true, Ordering::Relaxed);
    // Whoever waits is told when it opens, long before the pool's own timeout.
    let started = Instant::now();
    let error = db.execute("select 1", ()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::BreakerOpen, "{error}");
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    // Whoever comes is refused at once.
    let started = Instant::now();
    let error = db.execute("select 1", ()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::BreakerOpen);
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert!(
        error.to_string().contains("connection refused by script:1"),
        "{error}"
    );
    assert!(error.retry_after().is_some());
    assert_eq!(db.status().breaker.state, "open");
    assert!(!db.health().await.healthy);
    // And when it is back, calls pass within a second.
    script.unreachable.store(false, Ordering::Relaxed);
    let started = Instant::now();
    while db.execute("select 1", ()).await.is_err() {
        tokio::time::advance(Duration::from_millis(10)).await;
        assert!(
            started.elapsed() < Duration::from_secs(1),
            "recovery went unnoticed"
        );
    }
    assert!(db.health().await.healthy);
}

#[tokio::test(start_paused = true)]
async fn answers_do_not_open_the_breaker() {
    let unique = failure(Kind::Unique, Class::Permanent, Evidence::Answered);
    let script = Script::new((0..100).map(|_| unique.clone()));
    let db = script.database(|config| config.ride_through = Duration::ZERO);
    for _ in 0..100 {
        assert!(
            db.execute("insert into t", ())
                .await
                .unwrap_err()
                .is_unique_violation()
        );
    }
    assert_eq!(db.status().breaker.state, "closed");
}

#[tokio::test(start_paused = true)]
async fn an_operator_may_open_and_close_the_breaker() {
    let script = Script::new([]);
    let db = script.database(|_| {});
    db.breaker_force_open();
    assert_eq!(
        db.execute("select 1", ()).await.unwrap_err().kind(),
        Kind::BreakerOpen
    );
    assert_eq!(db.status().breaker.state, "open");
    db.breaker_force_close();
    db.execute("select 1", ()).await.unwrap();
    db.breaker_automatic();
    assert_eq!(db.status().breaker.state, "closed");
}
