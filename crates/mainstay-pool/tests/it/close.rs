use std::sync::Arc;

use mainstay_pool::{Cause, CloseReason};
use tokio::sync::Notify;

use crate::script::{Script, Step, millis, secs, turn, within};

#[tokio::test(start_paused = true)]
async fn closing_refuses_new_callers_and_tells_waiters() {
    let script = Script::default();
    let pool = script.pool().limit(1).build();
    let held = pool.acquire(within(secs(60))).await.unwrap();
    let waiter = tokio::spawn({
        let pool = pool.clone();
        async move { pool.acquire(within(secs(60))).await.unwrap_err().cause }
    });
    turn().await;
    let closing = tokio::spawn({
        let pool = pool.clone();
        async move { pool.close(secs(10)).await }
    });
    assert_eq!(waiter.await.unwrap(), Cause::Closed);
    assert!(pool.is_closed());
    assert_eq!(
        pool.acquire(within(secs(60))).await.unwrap_err().cause,
        Cause::Closed
    );
    assert!(pool.try_acquire(None).is_none());
    drop(held);
    let report = closing.await.unwrap();
    assert!(report.is_clean() && report.lent == 1, "{report:?}");
    assert_eq!((script.seen().open, pool.status().in_use()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn closing_waits_for_leases_within_the_grace() {
    let script = Script::default();
    let pool = script.pool().build();
    let lease = pool.acquire(within(secs(1))).await.unwrap();
    let worker = tokio::spawn(async move {
        let _lease = lease;
        tokio::time::timeout(secs(3), std::future::pending::<()>())
            .await
            .unwrap_err();
    });
    let report = pool.close(secs(10)).await;
    assert_eq!(
        (report.took.as_secs(), report.overdue, report.left),
        (3, 0, 0)
    );
    worker.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn overdue_leases_are_cancelled_through_their_hook() {
    let script = Script::default();
    let pool = script.pool().build();
    let cancelled = Arc::new(Notify::new());
    let mut lease = pool.acquire(within(secs(1))).await.unwrap();
    let hook = Arc::clone(&cancelled);
    lease.on_cancel(move || hook.notify_one());
    let worker = tokio::spawn(async move {
        cancelled.notified().await;
        drop(lease);
    });
    let report = pool.close(secs(2)).await;
    assert_eq!((report.overdue, report.cancelled, report.left), (1, 1, 0));
    assert_eq!(report.took.as_secs(), 2);
    worker.await.unwrap();
    assert_eq!(script.seen().closed, [CloseReason::PoolClosed]);
}

#[tokio::test(start_paused = true)]
async fn closing_ends_even_if_a_lease_never_comes_back() {
    let script = Script::default();
    let pool = script.pool().close_timeout(secs(1)).build();
    let lease = pool.acquire(within(secs(1))).await.unwrap();
    let report = pool.close(secs(2)).await;
    assert_eq!((report.overdue, report.cancelled, report.left), (1, 0, 1));
    assert_eq!(report.took.as_secs(), 4);
    drop(lease);
    turn().await;
    assert_eq!((script.seen().open, pool.status().in_use()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn hook_of_a_returned_lease_is_not_called() {
    let script = Script::default();
    let pool = script.pool().limit(1).build();
    let mut lease = pool.acquire(within(secs(1))).await.unwrap();
    lease.on_cancel(|| panic!("the lease was returned"));
    drop(lease);
    let _other = pool.acquire(within(secs(1))).await.unwrap();
    let report = pool.close(millis(10)).await;
    assert_eq!((report.overdue, report.cancelled), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn attempts_under_way_are_given_up_when_the_pool_closes() {
    let script = Script::default();
    script.connects([Step::Hang]);
    let pool = script.pool().build();
    let waiter = tokio::spawn({
        let pool = pool.clone();
        async move { pool.acquire(within(secs(60))).await.unwrap_err().cause }
    });
    turn().await;
    let report = pool.close(secs(10)).await;
    assert!(report.is_clean() && report.took < millis(10), "{report:?}");
    assert_eq!(waiter.await.unwrap(), Cause::Closed);
    assert_eq!(script.seen().connecting, 0);
}
