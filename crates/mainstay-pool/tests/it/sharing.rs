use std::future::poll_fn;
use std::task::Poll;

use mainstay_pool::{Cause, CloseReason, Event, Place, Pool, Request, Tag};

use crate::script::{Script, Step, millis, pass, secs, turn, within};

async fn place(pool: &Pool<Script>) -> Place<Script> {
    pool.acquire_place(Request::until(within(secs(5))))
        .await
        .unwrap()
}

async fn places(pool: &Pool<Script>, count: usize) -> Vec<Place<Script>> {
    let mut places = Vec::new();
    for _ in 0..count {
        places.push(place(pool).await);
    }
    places
}

/// Polls once and says whether it is still waiting.
async fn waits<F: Future + Unpin>(future: &mut F) -> bool {
    poll_fn(|context| Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending()))
        .await
}

#[tokio::test(start_paused = true)]
async fn places_share_one_connection_and_the_last_one_returns_it() {
    let script = Script::default();
    let pool = script.pool().limit(1).build();
    let mut places = places(&pool, 3).await;
    assert!(places.iter().all(|place| place.number == 1));
    let status = pool.status();
    assert_eq!((status.shared, status.places, status.lent), (1, 3, 0));
    assert_eq!((status.in_use(), status.totals.acquired), (1, 3));
    assert_eq!(pool.holders().len(), 3);
    places.truncate(1);
    assert_eq!((pool.status().shared, pool.status().places), (1, 1));
    drop(places);
    assert_eq!((pool.status().idle, pool.status().places), (1, 0));
    let mut lease = pool.acquire(within(secs(1))).await.unwrap();
    assert_eq!(lease.number, 1);
    let _whole: &mut _ = &mut *lease; // exclusive again
}

#[tokio::test(start_paused = true)]
async fn active_set_is_filled_to_the_depth_before_another_connection_is_woken() {
    let script = Script::default();
    let pool = script.pool().limit(4).active(2).depth(3).build();
    pool.warm(within(secs(1))).await.unwrap();
    let mut all = places(&pool, 1).await;
    all.push(place(&pool).await); // joins the first and brings the second under way
    turn().await;
    assert_eq!((pool.status().shared, pool.status().idle), (1, 1));
    all.extend(places(&pool, 4).await);
    let on = |number| all.iter().filter(|place| place.number == number).count();
    assert_eq!((on(1), on(2), script.seen().attempts), (3, 3, 2));
    all.push(place(&pool).await);
    assert_eq!(all.last().unwrap().number, 3, "both are full");
    assert_eq!(pool.status().shared, 3);
}

#[tokio::test(start_paused = true)]
async fn the_brief_gather_on_one_connection_and_apart_from_others() {
    let script = Script::default();
    let pool = script.pool().limit(4).active(2).depth(3).build();
    let mut four = Vec::new();
    for _ in 0..4 {
        four.push(pool.acquire(within(secs(1))).await.unwrap());
    }
    drop(four);
    let brief = async |pool: &Pool<Script>| {
        let request = Request::until(within(secs(5))).brief(true);
        pool.acquire_place(request).await.unwrap()
    };
    let mut gathered = vec![brief(&pool).await, brief(&pool).await];
    let first = gathered[0].number;
    assert_eq!(gathered[1].number, first, "though three others are idle");
    let other = place(&pool).await;
    assert_ne!(
        other.number, first,
        "whoever may stay is spread over the active set"
    );
    gathered.push(brief(&pool).await);
    assert_eq!(gathered[2].number, first, "the fullest, not the roomiest");
    assert_eq!(
        brief(&pool).await.number,
        other.number,
        "the first one is full"
    );
    gathered.truncate(1);
    let second = place(&pool).await;
    assert_eq!(
        second.number, first,
        "the active set is complete, and both have one user"
    );
    // Somebody who may stay is on either: now the brief are spread like all others.
    let (one, two) = (brief(&pool).await, brief(&pool).await);
    assert_ne!(one.number, two.number);
    drop((second, gathered, one, two));
    assert_eq!(pool.status().shared, 1);
    gathered = vec![brief(&pool).await];
    assert_ne!(
        gathered[0].number, other.number,
        "an idle one before one that may be kept"
    );
}

#[tokio::test(start_paused = true)]
async fn places_leave_connections_for_leases_and_one_that_drains_is_replaced() {
    let script = Script::default();
    let pool = script.pool().limit(4).active(1).depth(2).widest(2).build();
    let mut four = Vec::new();
    for _ in 0..4 {
        four.push(pool.acquire(within(secs(1))).await.unwrap());
    }
    drop(four);
    let mut seated = places(&pool, 4).await;
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { place(&pool).await })
        })
        .collect();
    turn().await;
    let status = pool.status();
    assert_eq!((status.shared, status.idle, status.waiting), (2, 2, 3));

    let hasty = Request::until(within(millis(10)));
    let error = pool.acquire_place(hasty).await.err().unwrap();
    let text = error.to_string();
    assert!(text.contains("no place on a shared connection became free"));

    let lease = pool.try_acquire(None).expect("nobody else may have it");
    let other = pool.acquire(within(secs(1))).await.unwrap();
    assert!(seated.iter().all(|place| place.number != lease.number));
    drop((lease, other));
    assert_eq!(
        pool.status().waiting,
        3,
        "and not those who wait for a place"
    );

    // One breaks and takes nobody more; its other user stays.
    let broken = seated.pop().unwrap();
    let number = broken.number;
    script.books().dead.push(number);
    drop(broken);
    turn().await;
    let status = pool.status();
    assert_eq!((status.shared, status.waiting), (3, 1), "{status:?}");
    assert!(seated.iter().any(|place| place.number == number));
    drop(seated);
    for call in waiting {
        call.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_a_place_are_served_past_a_connection_that_is_late() {
    let script = Script::default();
    let quiet = script.pool().late_after(millis(100));
    let pool = quiet.limit(3).active(1).depth(1).widest(1).build();
    pool.warm(within(secs(1))).await.unwrap();
    let stuck = place(&pool).await;
    let wait = || {
        let pool = pool.clone();
        tokio::spawn(async move { place(&pool).await.number })
    };
    let first = wait();
    pass(millis(101)).await;
    assert_eq!((pool.status().shared, pool.status().waiting), (1, 1));
    let second = wait(); // whoever joins looks
    assert_ne!(first.await.unwrap(), stuck.number);
    assert_ne!(second.await.unwrap(), stuck.number);
}

#[tokio::test(start_paused = true)]
async fn cold_start_opens_the_active_set_for_many_places() {
    let script = Script::default();
    script.books().connect_default = Some(Step::Take(millis(10)));
    let pool = script.pool().limit(10).active(3).depth(64).build();
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { place(&pool).await })
        })
        .collect();
    turn().await;
    assert_eq!((pool.status().connecting, pool.status().waiting), (3, 100));
    let mut places = Vec::new();
    for call in calls {
        places.push(call.await.unwrap());
    }
    assert_eq!((pool.status().places, script.seen().most_open), (100, 3));
}

#[tokio::test(start_paused = true)]
async fn waiter_for_a_place_is_seated_when_one_leaves_a_full_connection() {
    let script = Script::default();
    let pool = script.pool().limit(1).depth(2).build();
    let mut held = places(&pool, 2).await;
    let mut next = Box::pin(pool.acquire_place(Request::until(within(secs(5)))));
    assert!(waits(&mut next).await);
    held.pop();
    assert_eq!((pool.status().places, pool.status().waiting), (2, 0));
    assert_eq!(next.await.unwrap().number, 1);
}

#[tokio::test(start_paused = true)]
async fn waiter_that_leaves_lets_those_behind_it_fit() {
    let script = Script::default();
    let pool = script.pool().limit(1).build();
    let _held = place(&pool).await;
    let picky = Request::until(within(millis(50))).prefer(Tag(1));
    let mut first = Box::pin(pool.acquire_place(picky));
    assert!(waits(&mut first).await);
    let mut second = Box::pin(pool.acquire_place(Request::until(within(secs(5)))));
    assert!(waits(&mut second).await, "not before the first");
    drop(first);
    assert_eq!(second.await.unwrap().number, 1);
}

#[tokio::test(start_paused = true)]
async fn late_connection_takes_no_more_until_it_has_drained() {
    let script = Script::default();
    let pool = script
        .pool()
        .limit(2)
        .active(1)
        .late_after(millis(50))
        .build();
    let late = place(&pool).await;
    pass(millis(60)).await;
    let next = place(&pool).await;
    assert_eq!((late.number, next.number), (1, 2), "another one is woken");
    let third = place(&pool).await;
    assert_eq!(third.number, 2);
    drop(late);
    assert_eq!(pool.status().idle, 1, "drained, and of use again");
}

#[tokio::test(start_paused = true)]
async fn waiter_for_a_lease_does_not_starve_behind_places() {
    let script = Script::default();
    let pool = script.pool().limit(2).active(2).build();
    let mut held = std::collections::VecDeque::from(places(&pool, 4).await);
    turn().await;
    held.extend(places(&pool, 2).await);
    assert_eq!(pool.status().shared, 2);
    let lease = tokio::spawn({
        let pool = pool.clone();
        async move { pool.acquire(within(secs(5))).await.unwrap() }
    });
    turn().await;
    // Places go on coming and going, one for each that leaves, and still the lease gets its turn.
    let mut rounds = 0;
    while !lease.is_finished() {
        rounds += 1;
        assert!(rounds < 20, "starved: {:?}", pool.status());
        drop(held.pop_front());
        let more = Request::until(within(secs(5)));
        held.push_back(pool.acquire_place(more).await.unwrap());
        turn().await;
    }
    assert!(
        rounds > 1,
        "the other connection went on serving places meanwhile"
    );
    let _lease = lease.await.unwrap();
    assert_eq!((pool.status().lent, pool.status().shared), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn waiter_for_a_place_does_not_starve_behind_leases() {
    let script = Script::default();
    let pool = script.pool().limit(1).build();
    let first = pool.acquire(within(secs(5))).await.unwrap();
    let mut place = Box::pin(pool.acquire_place(Request::until(within(secs(5)))));
    assert!(waits(&mut place).await);
    let mut later = Box::pin(pool.acquire(within(secs(5))));
    assert!(waits(&mut later).await);
    drop(first);
    assert!(waits(&mut later).await, "the place came first");
    let place = place.await.unwrap();
    let mut newcomer = Box::pin(pool.acquire_place(Request::until(within(secs(5)))));
    assert!(
        waits(&mut newcomer).await,
        "the connection drains for the lease"
    );
    drop(place);
    drop(later.await.unwrap());
    drop(newcomer.await.unwrap());
    assert_eq!((pool.status().idle, pool.status().waiting), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn cancelled_place_gives_back_what_it_was_handed() {
    let script = Script::default();
    let pool = script.pool().limit(1).build();
    let held = pool.acquire(within(secs(5))).await.unwrap();
    let mut first = Box::pin(pool.acquire_place(Request::until(within(secs(5)))));
    let mut second = Box::pin(pool.acquire_place(Request::until(within(secs(5)))));
    assert!(waits(&mut first).await && waits(&mut second).await);
    drop(held); // both are seated now, and neither has looked
    assert_eq!((pool.status().places, pool.status().waiting), (2, 0));
    drop(first);
    assert_eq!(pool.status().places, 1);
    drop(second);
    assert_eq!((pool.status().idle, pool.status().totals.acquired), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn broken_shared_connection_takes_nobody_more_and_is_closed_when_empty() {
    let script = Script::default();
    let pool = script.pool().limit(2).active(1).build();
    let mut places = places(&pool, 2).await;
    script.books().dead.push(1);
    let next = place(&pool).await;
    assert_eq!(next.number, 2, "the newcomer noticed");
    places.truncate(1);
    assert!(script.seen().closed.is_empty(), "somebody is still on it");
    drop(places);
    turn().await;
    assert_eq!(script.seen().closed, [CloseReason::Broken]);
    assert_eq!((pool.status().in_use(), pool.status().places), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn older_generation_seats_nobody_more() {
    let script = Script::default();
    let pool = script.pool().limit(2).active(1).build();
    let old = place(&pool).await;
    pool.bump_generation();
    let new = place(&pool).await;
    assert_eq!((old.generation(), new.generation()), (0, 1));
    drop(old);
    turn().await;
    assert_eq!(script.seen().closed, [CloseReason::Generation]);
}

#[tokio::test(start_paused = true)]
async fn setting_of_a_shared_connection_is_kept_while_others_rely_on_it() {
    let script = Script::default();
    let pool = script.pool().limit(1).build();
    let reading = || Request::until(within(secs(5))).prefer(Tag(1));
    let first = place(&pool).await;
    let second = place(&pool).await;
    assert!(!first.set_tag(Tag(1)));
    drop(second);
    let mut reader = Box::pin(pool.acquire_place(reading()));
    assert!(waits(&mut reader).await, "it has another setting");
    assert!(first.set_tag(Tag(1)));
    let reader = reader.await.unwrap();
    assert_eq!((reader.tag(), pool.status().places), (Tag(1), 2));
}

#[tokio::test(start_paused = true)]
async fn waiter_that_does_not_fit_beside_the_others_is_brought_its_own() {
    let script = Script::default();
    // Without anything to be done by time, no upkeep comes by and repairs what was forgotten.
    let quiet = script.pool().long_hold(None).keep_alive(None);
    let quiet = quiet.idle_timeout(None).max_lifetime(None);
    let pool = quiet.limit(2).minimum(2).active(1).build();
    pool.warm(within(secs(1))).await.unwrap();
    pass(secs(2)).await; // both need a check now
    script.checks([Step::Take(millis(10)), Step::Take(millis(10))]);
    let request = |tag| Request::until(within(secs(1))).prefer(Tag(tag));
    let mut first = Box::pin(pool.acquire_place(request(0)));
    let mut second = Box::pin(pool.acquire_place(request(1)));
    assert!(waits(&mut first).await && waits(&mut second).await);
    assert_eq!(pool.status().checking, 1, "one would do for both");
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_ne!(first.number, second.number);
}

#[tokio::test(start_paused = true)]
async fn place_has_the_deadline_and_the_reasons_of_a_lease() {
    let script = Script::default();
    let pool = script.pool().limit(1).depth(1).build();
    let held = place(&pool).await;
    let begun = tokio::time::Instant::now();
    let error = pool
        .acquire_place(Request::until(within(millis(70))))
        .await
        .unwrap_err();
    assert_eq!(error.cause, Cause::Exhausted);
    assert!(begun.elapsed() >= millis(70) && begun.elapsed() < millis(73));
    assert_eq!(error.holders.first().unwrap().site, held.site());
    let report = pool.close(millis(10)).await;
    assert_eq!((report.lent, report.overdue, report.left), (1, 1, 1));
    drop(held);
    turn().await;
    assert_eq!(script.seen().closed, [CloseReason::PoolClosed]);
    let closed = pool.acquire_place(Request::until(within(secs(1)))).await;
    assert_eq!(closed.unwrap_err().cause, Cause::Closed);
}

#[tokio::test(start_paused = true)]
async fn place_held_for_long_is_reported_and_cancelled_by_its_hook() {
    let script = Script::default();
    let pool = script.pool().limit(1).long_hold(secs(30)).build();
    let mut held = place(&pool).await;
    let other = place(&pool).await;
    let (told, mut hears) = tokio::sync::oneshot::channel();
    held.on_cancel(move || told.send(()).unwrap());
    pass(secs(10)).await;
    drop(other);
    pass(secs(25)).await;
    let long = |event: &&Event| matches!(event, Event::LongHold { .. });
    assert_eq!(script.seen().events.iter().filter(long).count(), 1);
    let report = pool.close(secs(1)).await;
    assert_eq!((report.cancelled, hears.try_recv()), (1, Ok(())));
    drop(held);
    let back = |event: &&Event| matches!(event, Event::ReturnedAfterLongHold { .. });
    assert_eq!(script.seen().events.iter().filter(back).count(), 1);
}
