use std::time::Duration;

use mainstay_pool::{Cause, Condition, Event, Priority, Request, Tag};
use tokio::time::{Instant, timeout};

use crate::script::{Script, Step, millis, pass, secs, turn, within};

#[tokio::test(start_paused = true)]
async fn returned_connection_is_lent_again_without_connecting() {
    let script = Script::default();
    let pool = script.pool().build();
    let first = pool.acquire(within(secs(1))).await.unwrap().number;
    let second = pool.acquire(within(secs(1))).await.unwrap().number;
    assert_eq!(first, second);
    assert_eq!(script.seen().attempts, 1);
    assert_eq!(script.seen().checked, 0);
}

#[tokio::test(start_paused = true)]
async fn time_to_wait_begins_with_the_first_poll_and_is_not_overshot() {
    let script = Script::default();
    let pool = script.pool().limit(1).build();
    let _held = pool.acquire_within(secs(1)).await.unwrap();
    let second = pool.acquire_within(secs(2));
    pass(secs(5)).await;
    let begun = Instant::now();
    let error = second.await.unwrap_err();
    assert!(matches!(error.cause, Cause::Exhausted), "{error}");
    assert_eq!(begun.elapsed().as_millis() / 2, 1000);
    let for_ever = pool.acquire_within(Duration::MAX);
    assert!(timeout(secs(1), for_ever).await.is_err(), "no overflow");
    assert_eq!(pool.status().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn the_wait_ends_where_the_holding_begins() {
    let script = Script::default();
    let pool = script.pool().limit(1).build();
    let held = pool.acquire(within(secs(1))).await.unwrap();
    let mut second = std::pin::pin!(pool.acquire(within(secs(1))));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(second.as_mut().poll(&mut context).is_pending());
    pass(millis(50)).await;
    drop(held);
    // Handed over, though its new holder looks only later.
    pass(millis(30)).await;
    let second = second.await.unwrap();
    let waited = |event: &&Event| matches!(event, Event::Waited(time) if *time == millis(50));
    assert_eq!(script.seen().events.iter().filter(waited).count(), 1);
    assert_eq!(second.held(), millis(30));
}

#[tokio::test(start_paused = true)]
async fn most_recently_returned_connection_is_lent_first() {
    let script = Script::default();
    let pool = script.pool().build();
    let a = pool.acquire(within(secs(1))).await.unwrap();
    let b = pool.acquire(within(secs(1))).await.unwrap();
    let (first, last) = (b.number, a.number);
    drop(b);
    drop(a);
    assert_eq!(pool.acquire(within(secs(1))).await.unwrap().number, last);
    assert_ne!(first, last);
}

#[tokio::test(start_paused = true)]
async fn wanted_tag_is_preferred_but_not_required() {
    let script = Script::default();
    let pool = script.pool().build();
    let mut a = pool.acquire(within(secs(1))).await.unwrap();
    let b = pool.acquire(within(secs(1))).await.unwrap();
    a.set_tag(Tag(7));
    let (tagged, plain) = (a.number, b.number);
    drop(a);
    drop(b);
    let wanted = pool.try_acquire(Some(Tag(7))).unwrap();
    assert_eq!((wanted.number, wanted.tag()), (tagged, Tag(7)));
    let other = pool
        .acquire_with(Request::until(within(secs(1))).prefer(Tag(7)))
        .await
        .unwrap();
    assert_eq!((other.number, other.tag()), (plain, Tag(0)));
}

#[tokio::test(start_paused = true)]
async fn fresh_connection_is_not_checked_and_idle_one_is() {
    let script = Script::default();
    let pool = script.pool().check_after_idle(secs(1)).build();
    drop(pool.acquire(within(secs(1))).await.unwrap());
    pass(millis(900)).await;
    drop(pool.acquire(within(secs(1))).await.unwrap());
    assert_eq!(script.seen().checked, 0);
    pass(millis(1100)).await;
    assert!(pool.try_acquire(None).is_none());
    drop(pool.acquire(within(secs(1))).await.unwrap());
    assert_eq!((script.seen().checked, script.seen().attempts), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn connection_known_to_be_dead_is_replaced_within_the_same_acquire() {
    let script = Script::default();
    let pool = script.pool().build();
    let dead = pool.acquire(within(secs(1))).await.unwrap().number;
    assert_eq!(pool.status().idle, 1);
    script.books().dead.push(dead);
    let lease = pool.acquire(within(secs(1))).await.unwrap();
    assert_ne!(lease.number, dead);
    turn().await;
    assert_eq!(script.seen().open, 1);
}

#[tokio::test(start_paused = true)]
async fn waiters_are_served_in_the_order_they_came() {
    let script = Script::default();
    let pool = script.pool().limit(1).build();
    let held = pool.acquire(within(secs(60))).await.unwrap();
    let (served, mut order) = tokio::sync::mpsc::unbounded_channel();
    for n in 0..100 {
        let (pool, served) = (pool.clone(), served.clone());
        tokio::spawn(async move {
            let lease = pool.acquire(within(secs(60))).await.unwrap();
            served.send(n).unwrap();
            drop(lease);
        });
        turn().await;
    }
    assert_eq!(pool.status().waiting, 100);
    drop(held);
    for expected in 0..100 {
        assert_eq!(order.recv().await, Some(expected));
    }
    assert_eq!(script.seen().attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn newcomer_does_not_overtake_a_waiter() {
    let script = Script::default();
    let pool = script.pool().limit(1).build();
    let held = pool.acquire(within(secs(60))).await.unwrap();
    let waiter = tokio::spawn({
        let pool = pool.clone();
        async move { pool.acquire(within(secs(60))).await.unwrap() }
    });
    turn().await;
    drop(held);
    // The connection is the waiter's already, though its task has not run yet.
    assert!(pool.try_acquire(None).is_none());
    assert_eq!(pool.status().lent, 1);
    drop(waiter.await.unwrap());
    assert!(pool.try_acquire(None).is_some());
}

#[tokio::test(start_paused = true)]
async fn interactive_callers_go_first_and_batch_work_does_not_starve() {
    let script = Script::default();
    let pool = script.pool().limit(1).build();
    let held = pool.acquire(within(secs(60))).await.unwrap();
    let (served, mut order) = tokio::sync::mpsc::unbounded_channel();
    for n in 0..20 {
        let priority = if n < 2 {
            Priority::Batch
        } else {
            Priority::Interactive
        };
        let (pool, served) = (pool.clone(), served.clone());
        tokio::spawn(async move {
            let request = Request::until(within(secs(60))).priority(priority);
            let lease = pool.acquire_with(request).await.unwrap();
            served.send(n).unwrap();
            drop(lease);
        });
        turn().await;
    }
    drop((held, served));
    let mut turns = Vec::new();
    while let Some(n) = order.recv().await {
        turns.push(n);
    }
    let place = |n| turns.iter().position(|&other| other == n).unwrap();
    assert_eq!(turns.len(), 20);
    assert_eq!((place(2), place(0), place(1)), (0, 7, 15), "{turns:?}");
}

#[tokio::test(start_paused = true)]
async fn exhausted_error_names_the_longest_holder() {
    let script = Script::default();
    let pool = script.pool().limit(2).build();
    let (_a, line) = (pool.acquire(within(secs(1))).await.unwrap(), line!());
    pass(secs(5)).await;
    let _b = pool.acquire(within(secs(1))).await.unwrap();
    let error = pool.acquire(within(secs(2))).await.unwrap_err();
    assert_eq!(error.cause, Cause::Exhausted);
    assert_eq!(error.waited.as_secs(), 2);
    assert_eq!((error.status.lent, error.status.limit), (2, 2));
    assert_eq!(error.holders.len(), 2);
    assert_eq!(error.holders[0].site.line(), line);
    assert_eq!(error.holders[0].held.as_secs(), 7);
    let text = error.to_string();
    assert!(text.contains("acquire.rs") && text.contains("limit 2") && !text.contains('\n'));
    assert!(
        script
            .seen()
            .events
            .iter()
            .any(|e| matches!(e, Event::TimedOut(_)))
    );
}

#[tokio::test(start_paused = true)]
async fn returned_connection_is_faster_than_a_connect_under_way() {
    let script = Script::default();
    let pool = script.pool().limit(2).build();
    let held = pool.acquire(within(secs(1))).await.unwrap();
    script.connects([Step::Take(secs(3))]);
    let waiter = tokio::spawn({
        let pool = pool.clone();
        async move { pool.acquire(within(secs(60))).await.unwrap().number }
    });
    turn().await;
    let number = held.number;
    drop(held);
    assert_eq!(waiter.await.unwrap(), number);
    // The attempt goes on and serves the next one.
    assert_eq!(pool.status().connecting, 1);
    pass(secs(4)).await;
    assert_eq!(pool.status().idle, 2);
}

#[tokio::test(start_paused = true)]
async fn detached_connection_leaves_its_slot() {
    let script = Script::default();
    let pool = script.pool().limit(1).build();
    let session = pool.acquire(within(secs(1))).await.unwrap().detach();
    assert_eq!(pool.status().in_use(), 0);
    let other = pool.acquire(within(secs(1))).await.unwrap();
    assert_ne!(session.number, other.number);
    assert_eq!(pool.status().totals.detached, 1);
}

#[tokio::test(start_paused = true)]
async fn closing_a_lease_waits_until_the_slot_is_free() {
    let script = Script::default();
    script.books().closes.push_back(Step::Take(secs(2)));
    let pool = script.pool().limit(1).build();
    let lease = pool.acquire(within(secs(1))).await.unwrap();
    let begun = Instant::now();
    lease.close().await;
    assert_eq!(begun.elapsed().as_secs(), 2);
    assert_eq!(pool.status().in_use(), 0);
    assert_eq!(script.seen().open, 0);
}

#[test]
fn lease_may_be_dropped_outside_a_runtime() {
    let script = Script::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let pool = script.pool().limit(2).build();
    let (mut broken, clean) = runtime.block_on(async {
        (
            pool.acquire(within(secs(1))).await.unwrap(),
            pool.acquire(within(secs(1))).await.unwrap(),
        )
    });
    broken.condition = Condition::Broken;
    drop(clean);
    drop(broken);
    assert_eq!((pool.status().idle, pool.status().closing), (1, 1));
    runtime.block_on(turn());
    assert_eq!(pool.status().in_use(), 1);
    // A runtime that has gone frees what its tasks had.
    drop(runtime);
    let mut last = pool.try_acquire(None).unwrap();
    last.condition = Condition::Dirty;
    drop(last);
    assert_eq!(pool.status().in_use(), 0);
}

#[test]
fn acquire_outside_a_runtime_says_so() {
    let script = Script::default();
    let pool = script.pool().build();
    let mut acquire = Box::pin(pool.acquire(within(secs(1))));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(Err(error)) = acquire.as_mut().poll(&mut context) else {
        panic!("it has nothing to wait for");
    };
    assert_eq!(error.cause, Cause::NoRuntime);
}
