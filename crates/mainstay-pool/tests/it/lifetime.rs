use mainstay_pool::{CloseReason, Event};

use crate::script::{Script, Step, millis, pass, secs, turn, within};

/// Opens this many connections and returns them together.
async fn fill(pool: &mainstay_pool::Pool<Script>, count: usize) {
    let mut leases = Vec::new();
    for _ in 0..count {
        leases.push(pool.acquire(within(secs(5))).await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_closed_down_to_the_minimum() {
    let script = Script::default();
    let pool = script
        .pool()
        .limit(5)
        .minimum(2)
        .idle_timeout(secs(60))
        .max_lifetime(None)
        .build();
    fill(&pool, 5).await;
    pass(secs(59)).await;
    assert_eq!(pool.status().idle, 5);
    pass(secs(2)).await;
    assert_eq!((pool.status().idle, script.seen().open), (2, 2));
    assert_eq!(script.seen().closed, [CloseReason::Idle; 3]);
    pass(secs(600)).await;
    assert_eq!((pool.status().idle, script.seen().attempts), (2, 5));
}

#[tokio::test(start_paused = true)]
async fn connection_in_use_now_and_then_is_not_idle() {
    let script = Script::default();
    let pool = script
        .pool()
        .limit(5)
        .idle_timeout(secs(60))
        .max_lifetime(None)
        .build();
    fill(&pool, 2).await;
    for _ in 0..10 {
        pass(secs(20)).await;
        drop(pool.acquire(within(secs(1))).await.unwrap());
    }
    assert_eq!(
        script.seen().closed,
        [CloseReason::Idle],
        "only the one at the bottom"
    );
    assert_eq!(script.seen().attempts, 2);
}

#[tokio::test(start_paused = true)]
async fn lifetimes_are_spread_and_replaced_before_their_end() {
    let script = Script::default();
    script.books().record_times = true;
    let pool = script
        .pool()
        .limit(60)
        .minimum(50)
        .idle_timeout(None)
        .max_lifetime(secs(600))
        .seed(1)
        .build();
    let begun = tokio::time::Instant::now();
    pool.warm(within(secs(5))).await.unwrap();
    for _ in 0..800 {
        pass(secs(1)).await;
        assert!(
            pool.status().idle >= 50,
            "replaced first, then closed: {:?}",
            pool.status()
        );
    }
    let books = script.seen();
    let mut by_second = std::collections::HashMap::new();
    for at in &books.closed_at {
        assert!(*at - begun >= secs(600 * 3 / 4 - 31) && *at - begun <= secs(801));
        *by_second.entry((*at - begun).as_secs()).or_insert(0) += 1;
    }
    assert!(books.closed.len() >= 50, "{}", books.closed.len());
    assert!(
        books
            .closed
            .iter()
            .all(|reason| *reason == CloseReason::Lifetime)
    );
    assert!(by_second.values().all(|n| *n <= 10), "{by_second:?}");
}

#[tokio::test(start_paused = true)]
async fn no_second_replaces_more_than_a_fifth_of_fifty_that_were_opened_together() {
    for (seed, limit) in (0..20).map(|seed| (seed, if seed % 2 == 0 { 50 } else { 60 })) {
        let script = Script::default();
        script.books().record_times = true;
        let pool = script
            .pool()
            .limit(limit)
            .minimum(50)
            .idle_timeout(None)
            .keep_alive(None)
            .max_lifetime(secs(60))
            .seed(seed)
            .build();
        pool.warm(within(secs(5))).await.unwrap();
        pass(secs(80)).await;
        let mut ends = script.seen().closed_at;
        assert!(ends.len() >= 50 && pool.status().idle >= 49, "seed {seed}");
        ends.sort_unstable();
        for (n, end) in ends.iter().enumerate() {
            let within_a_second = ends[n..].iter().take_while(|at| **at - *end < secs(1));
            assert!(within_a_second.count() <= 10, "seed {seed}: {ends:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn at_the_limit_the_old_one_is_closed_and_then_a_new_one_opened() {
    let script = Script::default();
    let pool = script
        .pool()
        .limit(2)
        .idle_timeout(None)
        .max_lifetime(secs(100))
        .build();
    fill(&pool, 2).await;
    pass(secs(126)).await;
    let books = script.seen();
    assert_eq!(books.closed, [CloseReason::Lifetime; 2]);
    assert_eq!((books.open, books.most_open, books.attempts), (2, 2, 4));
}

#[tokio::test(start_paused = true)]
async fn lent_connection_past_its_life_is_closed_when_it_comes_back() {
    let script = Script::default();
    let pool = script.pool().limit(1).max_lifetime(secs(10)).build();
    let lease = pool.acquire(within(secs(1))).await.unwrap();
    pass(secs(20)).await;
    let old = lease.number;
    drop(lease);
    assert_ne!(pool.acquire(within(secs(1))).await.unwrap().number, old);
    assert_eq!(script.seen().closed, [CloseReason::Lifetime]);
}

#[tokio::test(start_paused = true)]
async fn replacement_that_fails_leaves_the_old_one_until_its_end() {
    let script = Script::default();
    let pool = script
        .pool()
        .limit(2)
        .idle_timeout(None)
        .max_lifetime(secs(100))
        .seed(3)
        .build();
    fill(&pool, 1).await;
    script.books().connect_default = Some(Step::Fail("refused"));
    pass(secs(70)).await;
    assert_eq!(script.seen().open, 1);
    pass(secs(60)).await;
    assert_eq!(script.seen().open, 0);
    script.books().connect_default = None;
    assert!(pool.acquire(within(secs(5))).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn long_hold_is_reported_once_and_its_return_too() {
    let script = Script::default();
    let pool = script.pool().long_hold(secs(30)).build();
    let line = line!() + 1;
    let lease = pool.acquire(within(secs(1))).await.unwrap();
    pass(secs(100)).await;
    drop(lease);
    turn().await;
    let books = script.seen();
    let long: Vec<_> = books
        .events
        .iter()
        .filter_map(|event| match event {
            Event::LongHold { site, held } => Some((site.line(), held.as_secs(), "out")),
            Event::ReturnedAfterLongHold { site, held } => {
                Some((site.line(), held.as_secs(), "back"))
            }
            _ => None,
        })
        .collect();
    assert_eq!(long, [(line, 30, "out"), (line, 100, "back")]);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_meant_to_stay_is_no_long_hold() {
    let script = Script::default();
    let pool = script.pool().limit(1).long_hold(secs(30)).build();
    let is_long = |event: &Event| {
        matches!(
            event,
            Event::LongHold { .. } | Event::ReturnedAfterLongHold { .. }
        )
    };
    let mut lease = pool.acquire(within(secs(1))).await.unwrap();
    lease.stay();
    pass(secs(100)).await;
    drop(lease);
    turn().await;
    assert!(!script.seen().events.iter().any(is_long));
    // The next one of the same connection is an ordinary lease.
    let lease = pool.acquire(within(secs(1))).await.unwrap();
    pass(secs(100)).await;
    drop(lease);
    turn().await;
    assert!(script.seen().events.iter().any(is_long));
}

#[tokio::test(start_paused = true)]
async fn upkeep_ends_with_the_pool() {
    let script = Script::default();
    let pool = script.pool().build();
    drop(pool.acquire(within(secs(1))).await.unwrap());
    turn().await;
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    assert_eq!(tasks(), 1);
    drop(pool);
    turn().await;
    assert_eq!((tasks(), script.seen().open), (0, 0));
    pass(millis(1)).await;
}
