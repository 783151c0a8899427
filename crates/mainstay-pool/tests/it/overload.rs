use std::time::Duration;

use mainstay_pool::{Cause, Pool, Priority, Request, ShedReason, Shedding};
use tokio::time::Instant;

use crate::script::{Script, millis, pass, secs, turn, within};

/// Holds a connection for a while.
async fn hold(time: Duration) {
    tokio::time::timeout(time, std::future::pending::<()>())
        .await
        .unwrap_err();
}

/// Offers a call every `gap` for ten seconds, each held for 20 ms and given up by its caller after
/// 500 ms, and counts those answered in time.
async fn offered(pool: &Pool<Script>, gap: Duration) -> usize {
    let mut calls = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < secs(10) {
        let pool = pool.clone();
        calls.push(tokio::spawn(async move {
            let deadline = within(millis(500));
            let Ok(_lease) = pool.acquire(deadline).await else {
                return false;
            };
            hold(millis(20)).await;
            Instant::now() <= deadline
        }));
        hold(gap).await;
    }
    let mut useful = 0;
    for call in calls {
        useful += usize::from(call.await.unwrap());
    }
    useful
}

#[tokio::test(start_paused = true)]
async fn shedding_keeps_the_work_useful_under_three_times_the_capacity() {
    // Three connections and 20 ms a call: one every 7 ms is the capacity, three times that is offered.
    let pool = |shedding: Option<Shedding>| {
        Script::default()
            .pool()
            .limit(3)
            .shedding(shedding)
            .check_after_idle(secs(60))
            .build()
    };
    // Three connections at (20 + 1) ms a call give about 1,430 answers in ten seconds.
    let without = offered(&pool(None), millis(2)).await;
    let with = offered(&pool(Some(Shedding::default())), millis(2)).await;
    assert!(with > 1300, "{with} with shedding, {without} without");
    assert!(
        without < with / 2,
        "{with} with shedding, {without} without"
    );
}

#[tokio::test(start_paused = true)]
async fn stuck_pool_refuses_a_standing_queue() {
    let script = Script::default();
    let pool = script.pool().limit(1).shedding(Shedding::default()).build();
    let _stuck = pool.acquire(within(secs(1))).await.unwrap();
    let error = pool.acquire(within(secs(60))).await.unwrap_err();
    assert_eq!(error.cause, Cause::Shed(ShedReason::Standing));
    assert!(error.waited < millis(1100), "{:?}", error.waited);
    assert_eq!(error.status.totals.shed, 1);
}

#[tokio::test(start_paused = true)]
async fn short_burst_is_absorbed() {
    let script = Script::default();
    let pool = script.pool().limit(2).shedding(Shedding::default()).build();
    let calls: Vec<_> = (0..60)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let _lease = pool.acquire(within(secs(5))).await.unwrap();
                hold(millis(20)).await;
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(pool.status().totals.shed, 0);
}

#[tokio::test(start_paused = true)]
async fn batch_work_is_refused_first() {
    let script = Script::default();
    let pool = script.pool().limit(1).shedding(Shedding::default()).build();
    let held = pool.acquire(within(secs(1))).await.unwrap();
    pass(millis(1)).await;
    let caller = |priority| {
        let pool = pool.clone();
        tokio::spawn(async move {
            let request = Request::until(within(secs(60))).priority(priority);
            pool.acquire_with(request).await.map(drop)
        })
    };
    // The queue stands when these two arrive, 150 ms before the interval ends.
    let first = caller(Priority::Interactive);
    pass(millis(850)).await;
    let (batch, interactive) = (caller(Priority::Batch), caller(Priority::Interactive));
    turn().await;
    pass(millis(160)).await;
    assert_eq!(
        first.await.unwrap().unwrap_err().cause,
        Cause::Shed(ShedReason::Standing)
    );
    assert_eq!(
        batch.await.unwrap().unwrap_err().cause,
        Cause::Shed(ShedReason::Standing)
    );
    drop(held);
    assert!(interactive.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn without_shedding_everybody_waits_until_their_own_deadline() {
    let script = Script::default();
    let pool = script.pool().limit(1).build();
    let _stuck = pool.acquire(within(secs(1))).await.unwrap();
    let error = pool.acquire(within(secs(60))).await.unwrap_err();
    assert_eq!(
        (error.cause, error.waited.as_secs()),
        (Cause::Exhausted, 60)
    );
}
