use mainstay_pool::{CloseReason, Event, Pool};

use crate::script::{Script, Step, millis, pass, secs, turn, within};

#[tokio::test(start_paused = true)]
async fn silent_connection_is_checked_in_the_background_and_goes_on_resting() {
    let script = Script::default();
    let pool = script
        .pool()
        .limit(1)
        .keep_alive(secs(30))
        .idle_timeout(secs(100))
        .build();
    drop(pool.acquire(within(secs(1))).await.unwrap());
    pass(secs(29)).await;
    assert_eq!(script.seen().checked, 0);
    pass(millis(1500)).await;
    assert_eq!((script.seen().checked, pool.status().idle), (1, 1));
    // Just checked, so the next caller need not wait for a check.
    assert!(pool.try_acquire(None).is_some());
    pass(secs(95)).await;
    assert_eq!(script.seen().checked, 4);
    assert!(script.seen().closed.is_empty());
    pass(secs(10)).await;
    assert_eq!(
        script.seen().closed,
        [CloseReason::Idle],
        "checks do not keep it from being idle"
    );
}

#[tokio::test(start_paused = true)]
async fn silent_connections_are_checked_one_after_the_other() {
    let script = Script::default();
    let pool = script
        .pool()
        .limit(5)
        .minimum(5)
        .keep_alive(secs(30))
        .build();
    pool.warm(within(secs(1))).await.unwrap();
    script.checks(std::iter::repeat_n(Step::Take(millis(100)), 5));
    pass(secs(30)).await;
    for checked in 1..=5 {
        assert_eq!(
            (pool.status().checking, script.seen().checked),
            (1, checked)
        );
        assert!(pool.try_acquire(None).is_none() || checked > 1);
        pass(millis(101)).await;
    }
    assert_eq!((pool.status().idle, script.seen().checked), (5, 5));
}

#[tokio::test(start_paused = true)]
async fn connection_that_died_in_silence_is_replaced_before_anybody_needs_it() {
    let script = Script::default();
    let pool = script
        .pool()
        .limit(2)
        .minimum(1)
        .keep_alive(secs(30))
        .build();
    pool.warm(within(secs(1))).await.unwrap();
    script.checks([Step::Hang]);
    pass(secs(35)).await;
    assert_eq!(script.seen().closed, [CloseReason::CheckFailed]);
    assert_eq!((pool.status().idle, script.seen().attempts), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn task_that_waits_while_it_holds_a_lease_is_named_once() {
    let script = Script::default();
    let pool = script.pool().limit(1).build();
    let task = tokio::spawn({
        let pool = pool.clone();
        async move {
            let line = line!() + 1;
            let _held = pool.acquire(within(secs(5))).await.unwrap();
            for _ in 0..2 {
                pool.acquire(within(millis(10))).await.unwrap_err();
            }
            line
        }
    });
    let line = task.await.unwrap();
    // Another task that waits meanwhile, holding nothing, is nobody's fault.
    let held = pool.acquire(within(secs(1))).await.unwrap();
    let other = tokio::spawn({
        let pool = pool.clone();
        async move { pool.acquire(within(millis(10))).await.map(drop) }
    });
    assert!(other.await.unwrap().is_err());
    drop(held);
    turn().await;
    let books = script.seen();
    let named: Vec<_> = books
        .events
        .iter()
        .filter_map(|event| match event {
            Event::NestedWait { site, holds } => Some((holds.line(), site.line())),
            _ => None,
        })
        .collect();
    assert_eq!(named, [(line, line + 2)]);
}

#[tokio::test(start_paused = true)]
async fn task_that_waits_behind_others_while_it_holds_one_is_reported_as_well() {
    let script = Script::default();
    let pool = script.pool().limit(1).build();
    for _ in 0..3 {
        // Until the upkeep sleeps, and calls may go the quick way.
        drop(pool.acquire(within(secs(1))).await.unwrap());
        turn().await;
    }
    let fails = |pool: Pool<Script>| async move { pool.acquire(within(millis(10))).await.is_err() };
    let task = tokio::spawn({
        let pool = pool.clone();
        async move {
            let _held = pool.acquire(within(secs(1))).await.unwrap();
            let others = [(); 2].map(|()| tokio::spawn(fails(pool.clone())));
            turn().await;
            assert_eq!(pool.status().waiting, 2, "the queue is there already");
            assert!(fails(pool).await, "it waits for itself");
            for other in others {
                assert!(other.await.unwrap());
            }
        }
    });
    task.await.unwrap();
    let nested = |event: &&Event| matches!(event, Event::NestedWait { .. });
    assert_eq!(script.seen().events.iter().filter(nested).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn generation_bumped_over_an_interval_ends_connections_one_by_one() {
    let script = Script::default();
    script.books().record_times = true;
    let pool = script
        .pool()
        .limit(20)
        .minimum(20)
        .idle_timeout(None)
        .keep_alive(None)
        .seed(5)
        .build();
    pool.warm(within(secs(5))).await.unwrap();
    let begun = tokio::time::Instant::now();
    assert_eq!(pool.bump_generation_over(secs(100)), 1);
    let lease = pool.acquire(within(secs(5))).await.unwrap();
    assert_eq!(lease.generation(), 0, "it may still be lent for a while");
    drop(lease);
    pass(secs(101)).await;
    let books = script.seen();
    assert_eq!(books.closed, [CloseReason::Generation; 20]);
    assert_eq!((books.open, books.most_open), (20, 20));
    let early = books.closed_at.iter().filter(|at| **at - begun < secs(50));
    assert!((4..=16).contains(&early.count()));
    let lease = pool.acquire(within(secs(5))).await.unwrap();
    assert_eq!(lease.generation(), 1);
}

#[tokio::test(start_paused = true)]
async fn connection_opened_while_everything_retires_is_retired_too() {
    let script = Script::default();
    script.connects([Step::Take(secs(2))]);
    let pool = script.pool().limit(1).idle_timeout(None).build();
    let caller = tokio::spawn({
        let pool = pool.clone();
        async move {
            pool.acquire(within(secs(5)))
                .await
                .map(|lease| lease.number)
        }
    });
    turn().await;
    pool.bump_generation_over(secs(1));
    assert_eq!(
        caller.await.unwrap().unwrap(),
        2,
        "the first was too old when it came"
    );
    assert_eq!(script.seen().closed, [CloseReason::Generation]);
}
