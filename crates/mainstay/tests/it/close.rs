//! The orderly end.

use crate::script::{Answer, Script};
use mainstay::Kind;
use std::time::Duration;
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn close_waits_for_what_runs_and_refuses_what_comes() {
    let script = Script::new([]);
    let db = script.database(|_| {});
    let tx = db.begin().await.unwrap();
    let closing = tokio::spawn({
        let db = db.clone();
        async move { db.close().await }
    });
    tokio::task::yield_now().await;
    assert_eq!(
        db.execute("select 1", ()).await.unwrap_err().kind(),
        Kind::Closed
    );
    tx.execute("update a", ()).await.unwrap();
    tx.commit().await.unwrap();
    let report = closing.await.unwrap();
    assert_eq!((report.cancelled, report.left), (0, 0), "{report:?}");
    assert!(db.status().closed);
}

#[tokio::test(start_paused = true)]
async fn close_cancels_what_does_not_end_within_the_grace() {
    let script = Script::new([Answer::Never]);
    let db = script.database(|_| {});
    let hanging = tokio::spawn({
        let db = db.clone();
        async move { db.execute("select 1", ()).await }
    });
    while script.count("run") == 0 {
        tokio::task::yield_now().await;
    }
    let started = Instant::now();
    let report = db.close_within(Duration::from_secs(1)).await;
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(report.cancelled, 1, "{report:?}");
    assert_eq!(script.count("cancel"), 1);
    hanging.abort();
}

#[tokio::test(start_paused = true)]
async fn closing_twice_answers_at_once() {
    let script = Script::new([]);
    let db = script.database(|_| {});
    db.execute("select 1", ()).await.unwrap();
    db.close().await;
    let started = Instant::now();
    assert_eq!(db.close().await.left, 0);
    assert_eq!(started.elapsed(), Duration::ZERO);
}
