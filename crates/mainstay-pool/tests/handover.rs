#![allow(missing_docs, clippy::unwrap_used)]
#![cfg(shuttle)]
//! The hand-over under every order of events that matters: the pool as it is, with a lock at which a
//! scheduler may change threads. A caller that is never woken shows as a deadlock, a connection
//! lent twice or lost as a failed assertion; a failure prints the schedule, which can be replayed.
//!
//! `RUSTFLAGS="--cfg shuttle" cargo test -p mainstay-pool --test handover`; `MAINSTAY_RUNS=n`
//! explores n schedules of each kind instead of 2,000.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use mainstay_pool::{CloseReason, Condition, Connector, Pool, Request, Tag};
use shuttle::future::block_on;
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;
use tokio::time::Instant;

/// A connection that notices whether two use it at once.
#[derive(Default)]
struct Guarded {
    users: AtomicUsize,
}

struct Plain;

impl Connector for Plain {
    type Connection = Guarded;
    type Error = Infallible;

    async fn connect(&self, _: Tag) -> Result<Guarded, Infallible> {
        Ok(Guarded::default())
    }
    fn condition(&self, connection: &Guarded) -> Condition {
        if connection.users.load(Ordering::Relaxed) == 0 {
            Condition::Clean
        } else {
            Condition::Dirty
        }
    }
    async fn check(&self, _: &mut Guarded) -> Result<(), Infallible> {
        Ok(())
    }
    async fn clean(&self, _: &mut Guarded) -> Result<(), Infallible> {
        Ok(())
    }
    async fn close(&self, _: Guarded, _: CloseReason) {}
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(600)
}

/// Explores schedules of callers of a pool that has this many connections open; afterwards all of
/// them must be idle.
fn explore(limit: usize, callers: &'static [fn(Pool<Plain>)]) {
    let scenario = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let _entered = runtime.enter();
        let pool = Pool::builder(Plain).limit(limit).minimum(limit).build();
        runtime.block_on(pool.warm(soon())).unwrap();
        let threads: Vec<_> = callers
            .iter()
            .map(|caller| {
                let pool = pool.clone();
                thread::spawn(move || caller(pool))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let status = pool.status();
        let (held, waiting) = (status.lent + status.places, status.waiting);
        assert_eq!((status.idle, held, waiting), (limit, 0, 0), "{status:?}");
    };
    let runs = std::env::var("MAINSTAY_RUNS").map_or(2000, |runs| runs.parse().unwrap());
    shuttle::check_random(scenario, runs);
    shuttle::check_pct(scenario, runs, 3);
}

/// Waits for a lease, uses it alone, returns it.
fn lease(pool: Pool<Plain>) {
    let lease = block_on(pool.acquire(soon())).unwrap();
    assert_eq!(lease.users.fetch_add(1, Ordering::Relaxed), 0, "lent twice");
    thread::yield_now();
    lease.users.fetch_sub(1, Ordering::Relaxed);
}

/// Waits for a place, uses it beside others, leaves.
fn place(pool: Pool<Plain>) {
    let place = block_on(pool.acquire_place(Request::until(soon()))).unwrap();
    place.users.fetch_add(1, Ordering::Relaxed);
    thread::yield_now();
    place.users.fetch_sub(1, Ordering::Relaxed);
}

/// Polls a few times and goes away, at whatever moment.
fn give_up<F: Future>(waiting: F) {
    let mut waiting = Box::pin(waiting);
    for _ in 0..thread_rng().gen_range(1..3) {
        let mut context = Context::from_waker(Waker::noop());
        if waiting.as_mut().poll(&mut context).is_ready() {
            return;
        }
        thread::yield_now();
    }
}

fn give_up_lease(pool: Pool<Plain>) {
    give_up(pool.acquire(soon()));
}

fn give_up_place(pool: Pool<Plain>) {
    give_up(pool.acquire_place(Request::until(soon())));
}

#[test]
fn waiters_are_served_however_others_give_up() {
    explore(1, &[lease, give_up_lease, lease, give_up_lease]);
}

#[test]
fn two_connections_serve_four_callers() {
    explore(2, &[lease, lease, lease, give_up_lease]);
}

#[test]
fn places_and_leases_share_one_connection_in_turn() {
    explore(1, &[place, lease, place, give_up_place]);
}

#[test]
fn last_place_returns_the_connection_whoever_is_last() {
    explore(1, &[place, place, give_up_place, give_up_lease]);
}
