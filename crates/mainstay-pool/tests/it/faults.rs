use mainstay_pool::{Cause, CloseReason, Condition};
use tokio::time::Instant;

use crate::script::{Failure, Script, Step, millis, pass, secs, turn, within};

/// So many leases at the same time.
async fn leases(
    pool: &mainstay_pool::Pool<Script>,
    count: usize,
) -> Vec<mainstay_pool::Lease<Script>> {
    let mut all = Vec::new();
    let waiting: Vec<_> = (0..count)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { pool.acquire(within(secs(10))).await.unwrap() })
        })
        .collect();
    for lease in waiting {
        all.push(lease.await.unwrap());
    }
    all
}

/// A pacing of constant delays, to be counted.
fn every(delay: std::time::Duration) -> Box<dyn Iterator<Item = std::time::Duration> + Send> {
    Box::new(std::iter::repeat(delay))
}

#[tokio::test(start_paused = true)]
async fn connect_that_hangs_costs_each_caller_exactly_its_deadline() {
    let script = Script::default();
    script.books().connect_default = Some(Step::Hang);
    let pool = script.pool().limit(4).build();
    let callers: Vec<_> = (1..40_u64)
        .map(|n| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let begun = Instant::now();
                let error = pool.acquire(within(millis(300 * n))).await.unwrap_err();
                assert!(matches!(error.cause, Cause::Silent), "{error}");
                let over = begun.elapsed() - millis(300 * n);
                assert!(over <= millis(1), "{over:?}");
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    // And it recovers by itself when the hanging stops.
    script.books().connect_default = None;
    assert!(pool.acquire(within(secs(7))).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn waiter_is_served_when_connecting_recovers() {
    let script = Script::default();
    script.connects([Step::Fail("a"), Step::Fail("b"), Step::Fail("c")]);
    let pool = script.pool().pacing(|| every(millis(100))).build();
    let begun = Instant::now();
    let lease = pool.acquire(within(secs(10))).await.unwrap();
    assert_eq!((lease.number, begun.elapsed().as_millis() / 10), (4, 30));
    let (error, age) = pool.last_connect_error().unwrap();
    assert_eq!((error, age.as_millis() / 10), (Failure("c"), 10));
}

#[tokio::test(start_paused = true)]
async fn failing_connects_are_paced_and_one_at_a_time() {
    let script = Script::default();
    script.books().record_times = true;
    script.books().connect_default = Some(Step::FailAfter(millis(10), "refused"));
    let pool = script
        .pool()
        .limit(10)
        .max_connecting(5)
        .pacing(|| every(millis(90)))
        .build();
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { pool.acquire(within(secs(1))).await.unwrap_err() })
        })
        .collect();
    for caller in callers {
        let error = caller.await.unwrap();
        assert_eq!(error.cause, Cause::Unreachable(Failure("refused")));
        assert!(error.to_string().contains("last connect error"), "{error}");
    }
    // The first five together, then one each 100 ms.
    let attempts = script.seen().attempts;
    assert!((13..=15).contains(&attempts), "{attempts}");
    let times = script.books().attempted_at.clone();
    assert!(
        times[5..]
            .windows(2)
            .all(|pair| pair[1] - pair[0] >= millis(100)),
        "{times:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn pacing_without_delays_does_not_run_hot() {
    let script = Script::default();
    script.books().connect_default = Some(Step::Fail("refused"));
    let pool = script
        .pool()
        .limit(1)
        .pacing(|| Box::new(std::iter::empty()))
        .build();
    pool.acquire(within(secs(10))).await.unwrap_err();
    assert!(script.seen().attempts <= 11);
}

#[tokio::test(start_paused = true)]
async fn permanent_failure_tells_everybody_at_once() {
    let script = Script::default();
    script.connects([Step::FailAfter(millis(50), "permanent: password")]);
    let pool = script.pool().limit(1).build();
    let callers: Vec<_> = (0..10)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { pool.acquire(within(secs(60))).await.unwrap_err() })
        })
        .collect();
    for caller in callers {
        let error = caller.await.unwrap();
        assert_eq!(error.cause, Cause::Refused(Failure("permanent: password")));
        assert_eq!(error.waited.as_millis() / 10, 5);
    }
}

#[tokio::test(start_paused = true)]
async fn idle_connections_that_do_not_answer_cost_one_check_each_within_one_acquire() {
    let script = Script::default();
    let pool = script.pool().limit(3).check_timeout(millis(500)).build();
    let leases: Vec<_> = [
        pool.acquire(within(secs(1))).await.unwrap(),
        pool.acquire(within(secs(1))).await.unwrap(),
    ]
    .into();
    drop(leases);
    pass(secs(5)).await;
    script.checks([Step::Hang, Step::Fail("reset")]);
    let begun = Instant::now();
    let lease = pool.acquire(within(secs(10))).await.unwrap();
    assert_eq!(begun.elapsed().as_millis() / 10, 50);
    assert_eq!(lease.number, 3);
    turn().await;
    let books = script.seen();
    assert_eq!(
        books.closed,
        [CloseReason::CheckFailed, CloseReason::CheckFailed]
    );
    assert_eq!(books.open, 1);
}

#[tokio::test(start_paused = true)]
async fn cleaning_that_hangs_frees_the_slot_in_the_end() {
    let script = Script::default();
    script.books().cleans.push_back(Step::Hang);
    script.books().closes.push_back(Step::Hang);
    let pool = script
        .pool()
        .limit(1)
        .clean_timeout(secs(2))
        .close_timeout(secs(3))
        .build();
    let mut lease = pool.acquire(within(secs(1))).await.unwrap();
    lease.condition = Condition::Dirty;
    drop(lease);
    assert_eq!(pool.status().cleaning, 1);
    let begun = Instant::now();
    let lease = pool.acquire(within(secs(10))).await.unwrap();
    assert_eq!((begun.elapsed().as_secs(), lease.number), (5, 2));
    assert_eq!(script.seen().closed, [CloseReason::CleanFailed]);
}

#[tokio::test(start_paused = true)]
async fn panicking_connector_frees_the_slot_and_is_paced() {
    let script = Script::default();
    script.connects([Step::Panic, Step::Panic]);
    let pool = script.pool().limit(1).pacing(|| every(millis(100))).build();
    let lease = pool.acquire(within(secs(10))).await.unwrap();
    assert_eq!((lease.number, pool.status().totals.lost), (3, 2));
    drop(lease);
    pass(secs(2)).await;
    script.checks([Step::Panic]);
    assert_eq!(pool.acquire(within(secs(10))).await.unwrap().number, 4);
    assert_eq!((pool.status().in_use(), script.seen().open), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn checked_sibling_is_checked_even_when_fresh() {
    let script = Script::default();
    let pool = script.pool().build();
    drop(pool.acquire(within(secs(1))).await.unwrap());
    pool.check_all();
    assert!(pool.try_acquire(None).is_none());
    drop(pool.acquire(within(secs(1))).await.unwrap());
    drop(pool.acquire(within(secs(1))).await.unwrap());
    assert_eq!(script.seen().checked, 1);
}

#[tokio::test(start_paused = true)]
async fn silence_costs_a_caller_one_check_and_not_one_for_each_sibling() {
    let script = Script::default();
    let pool = script.pool().limit(4).keep_alive(None).build();
    pool.warm(within(secs(1))).await.unwrap();
    drop(leases(&pool, 4).await);
    pass(secs(2)).await;
    // Whoever is asked says nothing; the pool gives up after its second.
    script.checks((0..4).map(|_| Step::Hang));
    let begun = Instant::now();
    let lease = pool.acquire(within(secs(10))).await.unwrap();
    assert_eq!((lease.number, begun.elapsed().as_secs()), (5, 1));
    // The siblings were asked meanwhile, together.
    let all = leases(&pool, 3).await;
    assert_eq!(begun.elapsed().as_secs(), 2);
    assert_eq!(all.len(), 3);
    assert_eq!(script.seen().checked, 4);
}
