use std::time::Duration;

use mainstay_pool::{Cause, Priority, Request, ShedReason, Shedding};
use tokio::time::Instant;

use crate::script::{Script, Step, millis, pass, secs, turn, within};

/// Holds a connection for a while.
async fn hold(time: Duration) {
    tokio::time::timeout(time, std::future::pending::<()>())
        .await
        .unwrap_err();
}

/// Connections, and how long a call holds one: together the capacity.
const CONNECTIONS: usize = 8;
const HOLD: Duration = Duration::from_millis(20);

/// Offers this many times the capacity for ten seconds, at random moments; every call is given up by
/// its caller after 300 ms. Says how much of the capacity was useful work: calls answered in time.
async fn useful_share(offered: f64, shedding: Option<Shedding>) -> f64 {
    let pool = Script::default()
        .pool()
        .limit(CONNECTIONS)
        .shedding(shedding)
        .build();
    let mut random = fastrand::Rng::with_seed(7);
    let begun = Instant::now();
    let mut calls = Vec::new();
    let mut arrival = Duration::ZERO;
    let gap = HOLD.div_f64(CONNECTIONS as f64 * offered);
    while arrival < secs(10) {
        let (pool, at) = (pool.clone(), begun + arrival);
        calls.push(tokio::spawn(async move {
            tokio::time::timeout_at(at, std::future::pending::<()>())
                .await
                .unwrap_err();
            let arrived = Instant::now();
            let deadline = arrived + millis(300);
            let held = pool.acquire(deadline).await;
            let Ok(_lease) = held else {
                return (None, false);
            };
            let lent = Instant::now();
            hold(HOLD).await;
            (Some(lent.elapsed()), Instant::now() <= deadline)
        }));
        arrival += gap.mul_f64(-random.f64().max(f64::MIN_POSITIVE).ln());
    }
    let mut useful = Duration::ZERO;
    for call in calls {
        let (held, in_time) = call.await.unwrap();
        useful += held.filter(|_| in_time).unwrap_or_default();
    }
    // To the end of the last call, so that what was begun in time and ended later counts on both sides.
    useful.div_duration_f64(begun.elapsed() * CONNECTIONS as u32)
}

#[tokio::test(start_paused = true)]
async fn nearly_all_capacity_is_useful_work_at_one_and_a_half_and_three_times_the_load() {
    for offered in [1.5, 3.0] {
        let share = useful_share(offered, Some(Shedding::default())).await;
        assert!(share >= 0.95, "{share:.3} at {offered} x capacity");
    }
}

#[tokio::test(start_paused = true)]
async fn without_shedding_the_work_is_useless() {
    let share = useful_share(3.0, None).await;
    assert!(
        share < 0.5,
        "{share:.3}: then shedding would be for nothing"
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
async fn those_who_ride_an_outage_out_are_not_refused() {
    let script = Script::default();
    script.books().connect_default = Some(Step::Fail("away"));
    let pool = script.pool().limit(1).shedding(Shedding::default()).build();
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let _lease = pool.acquire(within(secs(10))).await.unwrap();
                hold(millis(50)).await;
            })
        })
        .collect();
    pass(secs(3)).await;
    assert_eq!(pool.status().waiting, 10);
    script.books().connect_default = None;
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(pool.status().totals.shed, 0);
    // Nor is it overload while nothing can be heard.
    drop(pool);
    let pool = script.pool().limit(1).shedding(Shedding::default()).build();
    script.connects([Step::Take(secs(3))]);
    let (one, two) = tokio::join!(
        pool.acquire(within(secs(10))),
        pool.acquire(within(millis(3100)))
    );
    assert!(one.is_ok());
    let cause = two.unwrap_err().cause;
    assert_eq!(cause, Cause::Exhausted);
    drop(one);
    // What stands without an outage is refused as before.
    let _stuck = pool.acquire(within(secs(1))).await.unwrap();
    let error = pool.acquire(within(secs(60))).await.unwrap_err();
    assert_eq!(error.cause, Cause::Shed(ShedReason::Standing));
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
async fn holds_shorter_than_a_timer_can_tell_ask_nobody_for_slack() {
    let script = Script::default();
    let pool = script.pool().limit(1).shedding(Shedding::default()).build();
    for _ in 0..100 {
        let lease = pool.acquire(within(secs(1))).await.unwrap();
        tokio::time::advance(Duration::from_micros(900)).await;
        drop(lease);
    }
    let held = pool.acquire(within(secs(1))).await.unwrap();
    let mut last = std::pin::pin!(pool.acquire(within(millis(20))));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(last.as_mut().poll(&mut context).is_pending());
    // Half a millisecond before its deadline it can still be served.
    tokio::time::advance(Duration::from_micros(19_500)).await;
    drop(held);
    assert!(last.await.is_ok());
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
