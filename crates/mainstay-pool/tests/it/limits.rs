use mainstay_pool::{Cause, Condition};

use crate::script::{Script, Step, millis, pass, secs, turn, within};

#[tokio::test(start_paused = true)]
async fn connections_being_opened_count_against_the_limit() {
    let script = Script::default();
    script.books().connect_default = Some(Step::Take(millis(100)));
    let pool = script.pool().limit(3).build();
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { drop(pool.acquire(within(secs(10))).await.unwrap()) })
        })
        .collect();
    turn().await;
    assert_eq!((pool.status().connecting, pool.status().waiting), (3, 50));
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!((script.seen().attempts, script.seen().most_open), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn connections_being_closed_count_against_the_limit() {
    let script = Script::default();
    script.books().closes.push_back(Step::Take(secs(2)));
    let pool = script.pool().limit(1).build();
    let mut lease = pool.acquire(within(secs(1))).await.unwrap();
    lease.condition = Condition::Broken;
    drop(lease);
    assert_eq!(pool.status().closing, 1);
    let error = pool.acquire(within(secs(1))).await.unwrap_err();
    assert_eq!((error.status.closing, error.status.in_use()), (1, 1));
    assert!(pool.acquire(within(millis(1500))).await.is_ok());
    assert_eq!(script.seen().most_open, 1);
}

#[tokio::test(start_paused = true)]
async fn no_more_attempts_run_at_once_than_allowed() {
    let script = Script::default();
    script.books().connect_default = Some(Step::Take(millis(100)));
    let pool = script
        .pool()
        .limit(20)
        .minimum(20)
        .max_connecting(4)
        .build();
    pool.warm(within(secs(10))).await.unwrap();
    assert_eq!((script.seen().most_connecting, script.seen().open), (4, 20));
}

#[tokio::test(start_paused = true)]
async fn warming_opens_the_minimum_in_parallel() {
    let script = Script::default();
    script.books().connect_default = Some(Step::Take(millis(100)));
    let pool = script.pool().limit(10).minimum(8).build();
    let begun = tokio::time::Instant::now();
    pool.warm(within(secs(10))).await.unwrap();
    assert!(begun.elapsed() < millis(150), "{:?}", begun.elapsed());
    assert_eq!(pool.status().idle, 8);
}

#[tokio::test(start_paused = true)]
async fn first_failure_surfaces_while_warming() {
    let script = Script::default();
    script.connects([Step::Fail("permanent: password")]);
    let pool = script.pool().limit(10).minimum(1).build();
    let error = pool.warm(within(secs(10))).await.unwrap_err();
    assert!(matches!(error.cause, Cause::Refused(_)), "{error:?}");
    // And warming may be tried again.
    pool.warm(within(secs(10))).await.unwrap();
    assert_eq!(pool.status().idle, 1);
}

#[tokio::test(start_paused = true)]
async fn warming_without_minimum_opens_one() {
    let script = Script::default();
    let pool = script.pool().build();
    pool.warm(within(secs(1))).await.unwrap();
    assert_eq!((pool.status().idle, script.seen().attempts), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn minimum_is_restored_when_connections_break() {
    let script = Script::default();
    let pool = script.pool().limit(5).minimum(3).build();
    pool.warm(within(secs(1))).await.unwrap();
    let mut lease = pool.acquire(within(secs(1))).await.unwrap();
    lease.condition = Condition::Broken;
    drop(lease);
    turn().await;
    assert_eq!((pool.status().idle, script.seen().attempts), (3, 4));
}

#[tokio::test(start_paused = true)]
async fn too_many_waiters_are_refused_at_once() {
    let script = Script::default();
    let pool = script.pool().limit(1).max_waiters(2).build();
    let _held = pool.acquire(within(secs(60))).await.unwrap();
    let waiters: Vec<_> = (0..2)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { pool.acquire(within(secs(60))).await.map(drop) })
        })
        .collect();
    turn().await;
    let error = pool.acquire(within(secs(60))).await.unwrap_err();
    assert_eq!((error.cause, error.waited), (Cause::Overflow, secs(0)));
    for waiter in waiters {
        waiter.abort();
    }
    pass(millis(1)).await;
    assert_eq!(pool.status().waiting, 0);
}
