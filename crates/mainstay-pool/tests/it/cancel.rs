use std::future::{Future, poll_fn};
use std::task::Poll;

use mainstay_pool::{Condition, Request, Status, Totals};

use crate::script::{Script, Step, millis, pass, secs, turn, within};

/// Polls a future so many times, letting everything else run in between, then drops it. Says whether
/// it got ready.
async fn drop_after<F: Future>(future: F, polls: usize) -> bool {
    let mut future = Box::pin(future);
    for _ in 0..polls {
        let ready = poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await;
        if ready {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

#[tokio::test(start_paused = true)]
async fn acquire_dropped_after_any_number_of_polls_loses_nothing() {
    for polls in 0..24 {
        let script = Script::default();
        script.connects([Step::Take(millis(1))]);
        let pool = script.pool().limit(1).build();
        if polls % 2 == 0 {
            drop_after(pool.acquire(within(secs(5))), polls).await;
        } else {
            drop_after(pool.acquire_within(secs(5)), polls).await;
        }
        pass(millis(10)).await;
        let status = pool.status();
        assert_eq!((status.lent, status.waiting), (0, 0), "after {polls} polls");
        assert_eq!(
            status.idle,
            usize::from(polls > 0),
            "the connect outlives its caller"
        );
        assert!(pool.acquire(within(secs(1))).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn cancelled_waiter_gives_its_place_back() {
    let script = Script::default();
    let pool = script.pool().limit(1).build();
    let held = pool.acquire(within(secs(60))).await.unwrap();
    let mut gone = Box::pin(pool.acquire(within(secs(60))));
    let mut next = Box::pin(pool.acquire(within(secs(60))));
    poll_fn(|context| {
        assert!(gone.as_mut().poll(context).is_pending());
        assert!(next.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
    assert_eq!(pool.status().waiting, 2);
    drop(gone);
    assert_eq!(pool.status().waiting, 1);
    drop(held);
    assert!(next.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn connection_handed_to_a_waiter_that_is_dropped_goes_to_the_next() {
    let script = Script::default();
    let pool = script.pool().limit(1).build();
    let held = pool.acquire(within(secs(60))).await.unwrap();
    let mut first = Box::pin(pool.acquire(within(secs(60))));
    let mut second = Box::pin(pool.acquire(within(secs(60))));
    poll_fn(|context| {
        assert!(first.as_mut().poll(context).is_pending());
        assert!(second.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
    drop(held); // now it is the first one's, which never looks
    assert_eq!((pool.status().lent, pool.status().waiting), (1, 1));
    drop(first);
    let ready = poll_fn(|context| Poll::Ready(second.as_mut().poll(context).is_ready())).await;
    assert!(ready);
    assert_eq!(pool.status().idle, 1);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_cancelled_acquires_leave_the_counts_as_they_were() {
    let script = Script::default();
    let pool = script.pool().limit(4).build();
    let mut random = fastrand::Rng::with_seed(4);
    let held: Vec<_> = [
        pool.acquire(within(secs(600))).await.unwrap(),
        pool.acquire(within(secs(600))).await.unwrap(),
    ]
    .into();
    // Open what there is room for, so that nothing is left that a cancelled acquire could open.
    for other in [pool.acquire(within(secs(1))), pool.acquire(within(secs(1)))] {
        drop(other.await.unwrap());
    }
    let other = pool.acquire(within(secs(1))).await.unwrap();
    drop(pool.acquire(within(secs(1))).await.unwrap());
    drop(other);
    let counts = |mut status: Status| {
        status.totals = Totals::default();
        status
    };
    let before = counts(pool.status());
    for n in 0..10_000 {
        let (deadline, polls) = (within(secs(600)), random.usize(0..4));
        if n % 2 == 0 {
            drop_after(pool.acquire(deadline), polls).await;
        } else {
            drop_after(pool.acquire_place(Request::until(deadline)), polls).await;
        }
    }
    turn().await;
    let after = pool.status();
    assert_eq!(after.totals.timeouts + after.totals.connect_failures, 0);
    assert_eq!(counts(after), before);
    assert_eq!((before.lent, before.idle, script.seen().open), (2, 2, 4));
    drop(held);
    assert_eq!(pool.status().idle, script.seen().open);
}

#[tokio::test(start_paused = true)]
async fn check_outlives_the_caller_it_was_made_for() {
    let script = Script::default();
    let pool = script.pool().limit(1).build();
    drop(pool.acquire(within(secs(1))).await.unwrap());
    pass(secs(2)).await;
    script.checks([Step::Take(millis(500))]);
    drop_after(pool.acquire(within(secs(1))), 2).await;
    assert_eq!(pool.status().checking, 1);
    pass(secs(1)).await;
    assert_eq!((pool.status().idle, script.seen().open), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn dirty_lease_of_an_aborted_task_is_cleaned() {
    let script = Script::default();
    let pool = script.pool().limit(1).build();
    let task = tokio::spawn({
        let pool = pool.clone();
        async move {
            let mut lease = pool.acquire(within(secs(1))).await.unwrap();
            lease.condition = Condition::Dirty;
            std::future::pending::<()>().await;
        }
    });
    turn().await;
    assert_eq!(pool.status().lent, 1);
    task.abort();
    let lease = pool.acquire(within(secs(1))).await.unwrap();
    assert_eq!(lease.condition, Condition::Clean);
    assert_eq!((script.seen().cleaned, script.seen().attempts), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn dropped_warming_leaves_its_attempts_to_the_pool() {
    for polls in 0..3 {
        let script = Script::default();
        script.connects([Step::Take(millis(50)), Step::Hang]);
        let pool = script.pool().limit(4).minimum(2).build();
        let ready = drop_after(pool.warm(within(secs(60))), polls).await;
        assert!(!ready, "one attempt hangs");
        pass(secs(10)).await; // the one that hangs has run out of its own time
        let status = pool.status();
        let wanted = if polls == 0 { 0 } else { 2 };
        assert_eq!((status.idle, status.connecting), (wanted, 0), "{polls}");
        script.books().connects.clear();
        pool.warm(within(secs(1))).await.unwrap();
        assert_eq!(pool.status().idle, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_pause_leaves_the_pool_paused() {
    let script = Script::default();
    let pool = script.pool().limit(2).build();
    let held = pool.acquire(within(secs(60))).await.unwrap();
    assert!(!drop_after(pool.pause(within(secs(60))), 0).await);
    assert!(!pool.status().paused, "nobody asked yet");
    assert!(!drop_after(pool.pause(within(secs(60))), 2).await);
    assert!(pool.status().paused);
    drop(held);
    assert!(pool.try_acquire(None).is_none());
    pool.resume();
    assert!(pool.try_acquire(None).is_some());
}

#[tokio::test(start_paused = true)]
async fn dropped_closing_leaves_the_pool_closed_and_may_be_gone_on_with() {
    let script = Script::default();
    let pool = script.pool().limit(2).build();
    let held = pool.acquire(within(secs(60))).await.unwrap();
    assert!(!drop_after(pool.close(secs(60)), 0).await);
    assert!(!pool.is_closed(), "nobody asked yet");
    assert!(!drop_after(pool.close(secs(60)), 2).await);
    assert!(pool.is_closed());
    drop(held); // closed as it comes back, though nobody waits for it
    pass(millis(1)).await;
    assert_eq!((pool.status().in_use(), script.seen().open), (0, 0));
    assert!(pool.close(secs(60)).await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn closing_a_lease_goes_on_though_nobody_waits_for_it() {
    let script = Script::default();
    let pool = script.pool().limit(1).build();
    let lease = pool.acquire(within(secs(1))).await.unwrap();
    assert!(!drop_after(lease.close(), 0).await);
    assert_eq!(
        pool.status().idle,
        1,
        "not begun: it came back as any other"
    );
    script.books().closes.push_back(Step::Take(secs(2)));
    let lease = pool.acquire(within(secs(1))).await.unwrap();
    assert!(!drop_after(lease.close(), 2).await);
    assert_eq!(pool.status().closing, 1);
    pass(secs(3)).await;
    assert_eq!((pool.status().in_use(), script.seen().open), (0, 0));
}
