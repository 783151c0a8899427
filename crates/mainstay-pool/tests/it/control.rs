use mainstay_pool::{Cause, CloseReason};

use crate::script::{Script, Step, millis, pass, secs, turn, within};

#[tokio::test(start_paused = true)]
async fn lowering_the_limit_closes_idle_ones_at_once_and_lent_ones_as_they_return() {
    let script = Script::default();
    let pool = script.pool().limit(4).build();
    let mut leases = Vec::new();
    for _ in 0..4 {
        leases.push(pool.acquire(within(secs(1))).await.unwrap());
    }
    leases.pop();
    pool.resize(1);
    turn().await;
    assert_eq!(
        (pool.status().limit, pool.status().lent, script.seen().open),
        (1, 3, 3)
    );
    leases.truncate(1);
    turn().await;
    assert_eq!((pool.status().in_use(), script.seen().open), (1, 1));
    drop(leases);
    assert_eq!(pool.status().idle, 1, "the last one fits the limit");
    assert_eq!(script.seen().closed, [CloseReason::Resized; 3]);
}

#[tokio::test(start_paused = true)]
async fn raising_the_limit_serves_who_waits() {
    let script = Script::default();
    let pool = script.pool().limit(1).build();
    let _held = pool.acquire(within(secs(60))).await.unwrap();
    let waiter = tokio::spawn({
        let pool = pool.clone();
        async move { pool.acquire(within(secs(60))).await.map(drop) }
    });
    turn().await;
    pool.resize(2);
    assert!(waiter.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn older_generation_is_not_lent_again() {
    let script = Script::default();
    let pool = script.pool().limit(3).build();
    let lent = pool.acquire(within(secs(1))).await.unwrap();
    drop(pool.acquire(within(secs(1))).await.unwrap());
    script.connects([Step::Take(millis(10))]);
    let two = [pool.acquire(within(secs(1))), pool.acquire(within(secs(1)))];
    let [idle, connecting] = two;
    let idle = idle.await.unwrap();
    let waiter = tokio::spawn({
        let pool = pool.clone();
        async move { pool.acquire(within(secs(1))).await.unwrap().number }
    });
    drop(connecting);
    turn().await;
    drop(idle); // goes to the waiter, whose own attempt is still under way
    turn().await;
    assert_eq!(pool.bump_generation(), 1);
    assert!(waiter.await.unwrap() < 3);
    drop(lent);
    pass(millis(20)).await;
    assert_eq!(script.seen().closed, [CloseReason::Generation; 3]);
    let lease = pool.acquire(within(secs(1))).await.unwrap();
    assert_eq!(
        (lease.number, lease.generation(), pool.status().in_use()),
        (4, 1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn retiring_replaces_everything_spread_over_the_interval() {
    let script = Script::default();
    script.books().record_times = true;
    let pool = script
        .pool()
        .limit(20)
        .minimum(20)
        .idle_timeout(None)
        .seed(5)
        .build();
    pool.warm(within(secs(5))).await.unwrap();
    let begun = tokio::time::Instant::now();
    pool.retire_all(secs(100));
    pass(secs(101)).await;
    let books = script.seen();
    assert_eq!(
        (books.closed.len(), books.open, books.most_open),
        (20, 20, 20)
    );
    let early = books
        .closed_at
        .iter()
        .filter(|at| **at - begun < secs(50))
        .count();
    assert!((4..=16).contains(&early), "{early}");
}

#[tokio::test(start_paused = true)]
async fn paused_pool_lends_nothing_and_goes_on_when_resumed() {
    let script = Script::default();
    let pool = script.pool().limit(2).build();
    let held = pool.acquire(within(secs(60))).await.unwrap();
    assert!(!pool.pause(within(millis(100))).await, "a lease is out");
    drop(held);
    assert!(pool.pause(within(millis(100))).await);
    assert!(pool.try_acquire(None).is_none());
    let error = pool.acquire(within(millis(100))).await.unwrap_err();
    assert_eq!(error.cause, Cause::Paused);
    let waiter = tokio::spawn({
        let pool = pool.clone();
        async move {
            pool.acquire(within(secs(60)))
                .await
                .map(|lease| lease.number)
        }
    });
    turn().await;
    pool.resume();
    assert_eq!(waiter.await.unwrap().unwrap(), 1);
}
