//! What is refused for good is not asked for again and again, and costs nobody who needs no new
//! connection.

use mainstay_pool::{Cause, Request};
use tokio::time::Instant;

use crate::script::{Failure, Script, Step, millis, pass, secs, turn, within};

const PASSWORD: &str = "permanent: password";

/// A server that refuses the password and is to be asked again after ten seconds.
fn refusing() -> Script {
    let script = Script::default();
    script.books().connect_default = Some(Step::Fail(PASSWORD));
    script.books().retry_after = Some(secs(10));
    script.books().record_times = true;
    script
}

#[tokio::test(start_paused = true)]
async fn a_standing_refusal_is_told_at_once_and_tried_again_when_its_time_is_over() {
    let script = refusing();
    let pool = script.pool().limit(4).build();
    let begun = Instant::now();
    for _ in 0..100 {
        let error = pool.acquire(within(secs(60))).await.unwrap_err();
        assert_eq!(error.cause, Cause::Refused(Failure(PASSWORD)));
        assert!(error.last_connect_error.is_some());
    }
    assert_eq!(begun.elapsed(), millis(0));
    assert_eq!(script.seen().attempts, 1);
    pass(secs(10)).await;
    script.books().connect_default = None;
    let lease = pool.acquire(within(secs(1))).await.unwrap();
    assert_eq!(lease.number, 2);
}

#[tokio::test(start_paused = true)]
async fn a_minimum_keeps_to_the_interval_too() {
    let script = refusing();
    let pool = script.pool().limit(4).minimum(4).max_connecting(4).build();
    pool.acquire(within(secs(60))).await.unwrap_err();
    pass(secs(95)).await;
    // Four at once before anything was known, then one each ten seconds.
    let attempts = script.seen().attempted_at;
    assert_eq!(attempts.len(), 4 + 9, "{attempts:?}");
}

#[tokio::test(start_paused = true)]
async fn who_can_be_served_by_a_present_connection_is_not_refused() {
    let script = refusing();
    script.connects([Step::Succeed]);
    let pool = script.pool().limit(4).build();
    let lease = pool.acquire(within(secs(1))).await.unwrap();
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move {
            pool.acquire(within(secs(60)))
                .await
                .map(|lease| lease.number)
        }
    });
    turn().await;
    assert_eq!(script.seen().attempts, 2, "the refused one was tried");
    drop(lease);
    assert_eq!(waiting.await.unwrap().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_vain_beside_a_refusal_hears_of_it() {
    let script = refusing();
    script.connects([Step::Succeed]);
    let pool = script.pool().limit(4).build();
    let _lease = pool.acquire(within(secs(1))).await.unwrap();
    let error = pool.acquire(within(secs(3))).await.unwrap_err();
    assert_eq!(error.cause, Cause::Refused(Failure(PASSWORD)));
    assert_eq!(error.waited.as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_was_mended_need_not_be_waited_for() {
    let script = refusing();
    let pool = script.pool().build();
    pool.acquire(within(secs(1))).await.unwrap_err();
    script.books().connect_default = None;
    pool.acquire(within(secs(1))).await.unwrap_err();
    pool.forget_failure();
    assert_eq!(pool.acquire(within(secs(1))).await.unwrap().number, 2);
}

#[tokio::test(start_paused = true)]
async fn another_connection_is_opened_though_an_idle_one_is_there() {
    let script = Script::default();
    let pool = script.pool().limit(2).build();
    drop(pool.acquire(within(secs(1))).await.unwrap());
    assert!(pool.open_another(within(secs(1))).await.unwrap());
    assert_eq!((pool.status().idle, script.seen().attempts), (2, 2));
    // The limit holds for it as well.
    assert!(!pool.open_another(within(secs(1))).await.unwrap());
    assert_eq!(script.seen().attempts, 2);
}

#[tokio::test(start_paused = true)]
async fn the_failure_of_another_connection_is_its_answer() {
    let script = Script::default();
    let pool = script.pool().limit(2).build();
    drop(pool.acquire(within(secs(1))).await.unwrap());
    script.connects([Step::FailAfter(millis(30), "refused")]);
    let error = pool.open_another(within(secs(1))).await.unwrap_err();
    assert_eq!(error.cause, Cause::Unreachable(Failure("refused")));
    // Nobody needs it, so nobody tries again.
    pass(secs(20)).await;
    assert_eq!((pool.status().idle, script.seen().attempts), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_wish_for_another_connection_leaves_nothing_behind() {
    let script = Script::default();
    let pool = script.pool().limit(2).build();
    drop(pool.acquire(within(secs(1))).await.unwrap());
    script.connects([Step::Hang]);
    let wish = tokio::time::timeout(millis(100), pool.open_another(within(secs(60)))).await;
    assert!(wish.is_err());
    pass(secs(30)).await; // the attempt has run out of its own time
    assert_eq!((pool.status().idle, pool.status().connecting), (1, 0));
    assert_eq!(script.seen().attempts, 2);
}

#[tokio::test(start_paused = true)]
async fn all_who_wait_can_be_refused_and_who_comes_later_is_served() {
    let script = Script::default();
    let pool = script.pool().limit(1).depth(1).build();
    let lease = pool.acquire(within(secs(1))).await.unwrap();
    let waiting: Vec<_> = (0..3)
        .map(|number| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let request = Request::until(within(secs(60)));
                if number == 1 {
                    pool.acquire_place(request).await.err().unwrap()
                } else {
                    pool.acquire_with(request).await.err().unwrap()
                }
            })
        })
        .collect();
    turn().await;
    assert_eq!(pool.status().waiting, 3);
    pool.refuse_waiters(&Failure("the server is being moved"));
    assert_eq!((pool.status().waiting, pool.status().lent), (0, 1));
    for call in waiting {
        let error = call.await.unwrap();
        let expected = Failure("the server is being moved");
        assert_eq!(error.cause, Cause::TurnedAway(expected));
        assert!(error.to_string().contains("all who waited were refused"));
    }
    drop(lease);
    assert!(pool.acquire(within(secs(1))).await.is_ok());
}
