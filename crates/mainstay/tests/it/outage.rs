//! A database that is away for long: callers are refused at once and told why, hardly anybody asks
//! it, and when it is back it is in use within a second.
//!
//! `MAINSTAY_OUTAGE` is how many seconds the server is away.

#![expect(clippy::print_stdout, reason = "a proof shows its numbers")]

use crate::run::length;
use futures_util::future::join_all;
use mainstay::{Database, Error, Kind};
use mainstay_testkit::cluster::Mode;
use mainstay_testkit::{Cluster, Proxy, wait_for};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

const CALLERS: usize = 20;
/// How often each caller calls: a service that is in use.
const EVERY: Duration = Duration::from_millis(20);
/// How soon a refusal is there.
const AT_ONCE: Duration = Duration::from_millis(5);
/// How soon after the server is back a call succeeds.
const RECOVERY: Duration = Duration::from_secs(1);
/// How long a caller waits for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
const RIDE_THROUGH: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(60);

/// One call that ended.
struct Ended {
    began: Instant,
    took: Duration,
    error: Option<Error>,
}

/// Callers that keep calling, and what can be seen of the pool meanwhile.
struct Crowd {
    db: Database,
    stop: AtomicBool,
    answered: AtomicUsize,
    /// From here on attempts to connect are counted.
    is_open: AtomicBool,
    most_connecting: AtomicUsize,
}

impl Crowd {
    async fn new(url: &str) -> Arc<Self> {
        let db = Database::builder(url)
            .connection_limit(8)
            .timeout(PATIENCE)
            .ride_through(RIDE_THROUGH)
            .open()
            .await
            .unwrap();
        Arc::new(Self {
            db,
            stop: AtomicBool::new(false),
            answered: AtomicUsize::new(0),
            is_open: AtomicBool::new(false),
            most_connecting: AtomicUsize::new(0),
        })
    }

    async fn call(self: Arc<Self>, number: usize) -> Vec<Ended> {
        let mut ended = Vec::new();
        let mut pace = tokio::time::interval(EVERY);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Texts of their own: one statement that fails again and again opens no breaker.
        let text = format!("select {number}");
        while !self.stop.load(Ordering::Relaxed) {
            pace.tick().await;
            let began = Instant::now();
            let error = self.db.fetch_one::<i64>(&text, ()).await.err();
            let took = began.elapsed();
            if error.is_none() {
                self.answered.fetch_add(1, Ordering::Relaxed);
            }
            ended.push(Ended { began, took, error });
            if self.is_open.load(Ordering::Relaxed) {
                let connecting = self.db.status().pools[0].connecting;
                self.most_connecting
                    .fetch_max(connecting, Ordering::Relaxed);
            }
        }
        ended
    }

    async fn is_in_full_use(&self) {
        wait_for("everybody to have been answered", LONG, || async {
            (self.answered.load(Ordering::Relaxed) > CALLERS * 5).then_some(())
        })
        .await
        .unwrap();
    }

    async fn until(&self, state: &str) -> Instant {
        wait_for("the breaker to change", LONG, || async {
            (self.db.status().breaker.state == state).then_some(())
        })
        .await
        .unwrap();
        Instant::now()
    }
}

/// Runs callers while `leave` and `come_back` take the database away; `cause` is what they are told.
/// Answers how long it took until they were refused.
async fn an_outage(
    url: &str,
    cause: &str,
    leave: impl AsyncFnOnce(),
    come_back: impl AsyncFnOnce(),
) -> Duration {
    let seconds = length("MAINSTAY_OUTAGE", 4);
    let crowd = Crowd::new(url).await;
    let callers: Vec<_> = (0..CALLERS)
        .map(|number| tokio::spawn(Arc::clone(&crowd).call(number)))
        .collect();
    crowd.is_in_full_use().await;
    let began = Instant::now();
    leave().await;
    let opened = crowd.until("open").await;
    crowd.is_open.store(true, Ordering::Relaxed);
    tokio::time::sleep_until(
        (opened + Duration::from_secs(1)).max(began + Duration::from_secs(seconds)),
    )
    .await;
    crowd.is_open.store(false, Ordering::Relaxed);
    let returning = Instant::now();
    come_back().await;
    let back = Instant::now();
    let closed = crowd.until("closed").await;
    wait_for("a call to succeed", LONG, || async {
        crowd.db.fetch_one::<i64>("select 1", ()).await.ok()
    })
    .await
    .unwrap();
    let recovered = Instant::now();
    crowd.stop.store(true, Ordering::Relaxed);
    let mut refused = Vec::new();
    for caller in join_all(callers).await {
        let within = caller.unwrap();
        refused.extend(
            within
                .into_iter()
                .filter(|ended| ended.began > opened && ended.began < returning),
        );
    }
    assert!(refused.len() > CALLERS, "nobody called");
    let good = refused.iter().filter(|ended| {
        let told = ended.error.as_ref().is_some_and(|error| {
            error.kind() == Kind::BreakerOpen && error.to_string().contains(cause)
        });
        told && ended.took < AT_ONCE
    });
    let (good, all) = (good.count(), refused.len());
    let connecting = crowd.most_connecting.load(Ordering::Relaxed);
    println!(
        "away {:.1?}; the breaker opened after {:.1?}; {good} of {all} calls refused within \
         {AT_ONCE:?}; at most {connecting} connecting; closed {:.0?} and in use {:.0?} after it \
         was back",
        back - began,
        opened - began,
        closed.saturating_duration_since(back),
        recovered - back,
    );
    let other = refused.iter().find(|ended| {
        !ended
            .error
            .as_ref()
            .is_some_and(|error| error.to_string().contains(cause))
    });
    assert!(
        good * 100 >= all * 99,
        "{good} of {all}; for instance {:?}",
        other.map(|ended| (ended.took, &ended.error))
    );
    assert!(connecting <= 1, "{connecting} attempts at once");
    assert!(recovered - back <= RECOVERY, "{:?}", recovered - back);
    crowd.db.close().await;
    opened - began
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_is_left_alone_and_in_use_within_a_second_of_its_return() {
    let cluster = Cluster::start().unwrap();
    an_outage(
        &cluster.url(),
        "refused",
        async || {
            cluster
                .run(|cluster| cluster.stop(Mode::Immediate))
                .await
                .unwrap();
        },
        async || cluster.run(Cluster::start_again).await.unwrap(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_swallows_everything_is_an_outage_as_well() {
    let database = mainstay_testkit::database().await.unwrap();
    let proxy = Proxy::start(("127.0.0.1", database.cluster().port()))
        .await
        .unwrap();
    let opened = an_outage(
        &proxy.rewrite(&database.url()),
        "answer",
        async || proxy.black_hole().await.unwrap(),
        async || proxy.forward().await.unwrap(),
    )
    .await;
    // Nothing is known of a silence before the first deadline, and from then on it is ridden through.
    let soon = PATIENCE + RIDE_THROUGH + Duration::from_secs(2);
    assert!(opened <= soon, "the breaker opened after {opened:.1?}");
}
