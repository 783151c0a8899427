use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mainstay_pool::Condition;

use crate::script::{Script, secs, within};

/// Real threads: the hand-over races with callers that are aborted at any moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn aborted_callers_on_many_threads_lose_no_capacity() {
    let script = Script::default();
    let pool = script.pool().limit(3).build();
    let served = Arc::new(AtomicUsize::new(0));
    let mut random = fastrand::Rng::with_seed(9);
    let mut calls = Vec::new();
    for n in 0..5000 {
        let (pool, served, yields) = (pool.clone(), Arc::clone(&served), random.u8(0..3));
        let call = tokio::spawn(async move {
            let mut lease = pool.acquire(within(secs(60))).await.unwrap();
            served.fetch_add(1, Ordering::Relaxed);
            if n % 7 == 0 {
                lease.condition = Condition::Dirty;
            }
            for _ in 0..yields {
                tokio::task::yield_now().await;
            }
        });
        if random.bool() {
            for _ in 0..random.u8(0..3) {
                tokio::task::yield_now().await;
            }
            call.abort();
        } else {
            calls.push(call);
        }
    }
    let kept = calls.len();
    for call in calls {
        call.await.unwrap();
    }
    assert!(served.load(Ordering::Relaxed) >= kept);
    assert!(script.seen().most_open <= 3);
    let all = [
        pool.acquire(within(secs(10))).await.unwrap(),
        pool.acquire(within(secs(10))).await.unwrap(),
        pool.acquire(within(secs(10))).await.unwrap(),
    ];
    let status = pool.status();
    assert_eq!((status.lent, status.in_use(), status.waiting), (3, 3, 0));
    drop(all);
    assert!(pool.close(secs(10)).await.is_clean());
}
