//! Random operations against a reference model: a queue of those who wait and a list of those who
//! hold. After every operation the pool's counts must be the model's, nobody may hold what another
//! one holds alone, and nobody may be served before somebody who came earlier (a place may, past
//! somebody who waits for a lease, and a lease past those who wait for a place while no more connections may
//! be shared). Every run prints its seed; `MAINSTAY_SEED=n` replays one run, and
//! `MAINSTAY_RUNS=n` makes it more of them (a thousand operations each) than the 200 that take
//! a second or two.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use mainstay_pool::{AcquireError, Cause, Condition, Lease, Place, Pool, Request, Tag};
use tokio::time::{Instant, advance};

use crate::script::{Failure, Script, Step, millis, pass, secs, within};

const RUNS: u64 = 200;
const OPERATIONS: usize = 1000;

enum Held {
    Lease(Lease<Script>),
    Place(Place<Script>),
}

type Acquiring = Pin<Box<dyn Future<Output = Result<Held, AcquireError<Failure>>>>>;

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Waiter {
    acquiring: Acquiring,
    for_place: bool,
    deadline: Instant,
    woken: Arc<Flag>,
}

struct Model {
    random: fastrand::Rng,
    script: Script,
    pool: Pool<Script>,
    /// In the order in which they came.
    waiters: Vec<Waiter>,
    holders: Vec<Lease<Script>>,
    places: Vec<Place<Script>>,
    /// More than the limit may exist after it was lowered, but never more than there were.
    most: usize,
    limit: usize,
    widest: usize,
    /// How many connections were shared after the last operation.
    shared: usize,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let script = Script::default();
        let limit = random.usize(1..6);
        let widest = random.usize(1..6);
        let pool = script
            .pool()
            .limit(limit)
            .minimum(random.usize(0..3))
            .max_connecting(random.usize(1..4))
            .idle_timeout(secs(random.u64(1..20)))
            .keep_alive(random.bool().then(|| secs(random.u64(1..10))))
            .depth(random.usize(1..5))
            .active(random.usize(1..4))
            .widest(widest)
            .late_after(millis(random.u64(0..500)))
            .max_lifetime(secs(random.u64(1..60)))
            .connect_timeout(millis(300))
            .check_timeout(millis(100))
            .clean_timeout(millis(100))
            .close_timeout(millis(200))
            .pacing(|| Box::new(std::iter::repeat(millis(20))))
            .seed(seed)
            .build();
        let (waiters, holders, places) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            random,
            script,
            pool,
            waiters,
            holders,
            places,
            most: limit,
            limit,
            widest,
            shared: 0,
        }
    }

    fn step(&mut self) -> Step {
        match self.random.u8(0..20) {
            0..10 => Step::Succeed,
            10..15 => Step::Take(millis(self.random.u64(1..400))),
            15..17 => Step::Fail("refused"),
            17 => Step::FailAfter(millis(50), "reset"),
            18 => Step::Hang,
            _ => Step::Fail("permanent: password"),
        }
    }

    fn plan(&mut self) {
        let steps = [self.step(), self.step(), self.step(), self.step()];
        let mut books = self.script.books();
        let [connect, check, clean, close] = steps;
        books.connects = [connect].into();
        books.checks = [check].into();
        books.cleans = [clean].into();
        books.closes = [close].into();
    }

    async fn operate(&mut self) {
        match self.random.u8(0..100) {
            0..30 if self.waiters.len() < 12 => self.join(),
            30..40 if !self.waiters.is_empty() => {
                let index = self.random.usize(..self.waiters.len());
                drop(self.waiters.remove(index));
            }
            40..58 if !self.holders.is_empty() => self.give_back(),
            58..72 if !self.places.is_empty() => self.leave_place(),
            72 => drop(
                self.pool
                    .bump_generation_over(millis(self.random.u64(0..2000))),
            ),
            73..78 => {
                if let Some(lease) = self.pool.try_acquire(Some(Tag(self.random.u8(0..2)))) {
                    let overtaken = |waiter: &Waiter| !waiter.for_place || !self.is_wide();
                    assert!(
                        !self.waiters.iter().any(overtaken),
                        "nobody overtakes a waiter"
                    );
                    self.holders.push(lease);
                }
            }
            78 => drop(self.pool.bump_generation()),
            79 => self.pool.check_all(),
            80 => self.pool.retire_all(millis(self.random.u64(0..2000))),
            81 => {
                self.most = self.most.max(self.pool.status().in_use());
                self.limit = self.random.usize(1..6);
                self.pool.resize(self.limit);
                self.most = self.limit.max(self.pool.status().in_use());
            }
            82..88 => self.plan(),
            88..94 => advance(millis(self.random.u64(0..100))).await,
            94 => advance(millis(self.random.u64(0..3000))).await,
            _ => {}
        }
        for _ in 0..self.random.usize(0..4) {
            tokio::task::yield_now().await;
        }
    }

    fn join(&mut self) {
        let deadline = within(millis(self.random.u64(0..3000)));
        let (pool, for_place) = (self.pool.clone(), self.random.bool());
        let tag = self.random.u8(0..6);
        let request = Request::until(deadline).prefer((tag < 2).then_some(Tag(tag)));
        let request = request.brief(self.random.bool());
        let acquiring: Acquiring = if for_place {
            Box::pin(async move { pool.acquire_place(request).await.map(Held::Place) })
        } else {
            Box::pin(async move { pool.acquire_with(request).await.map(Held::Lease) })
        };
        let woken = Arc::new(Flag(AtomicBool::new(true)));
        self.waiters.push(Waiter {
            acquiring,
            for_place,
            deadline,
            woken,
        });
    }

    fn leave_place(&mut self) {
        let index = self.random.usize(..self.places.len());
        let place = self.places.swap_remove(index);
        match self.random.u8(0..20) {
            0 => self.script.books().dead.push(place.number),
            1..4 => {
                let alone = self.places.iter().all(|p| p.number != place.number);
                assert_eq!(place.set_tag(Tag(self.random.u8(0..2))), alone);
            }
            _ => {}
        }
        drop(place);
    }

    fn give_back(&mut self) {
        let index = self.random.usize(..self.holders.len());
        let mut lease = self.holders.swap_remove(index);
        lease.set_tag(Tag(self.random.u8(0..2)));
        match self.random.u8(0..20) {
            0 => lease.condition = Condition::Broken,
            1..4 => lease.condition = Condition::Dirty,
            4 => return drop(lease.detach()),
            _ => {}
        }
        drop(lease);
    }

    /// Whether no more connections may be shared, now or before the operation; those that drain are counted
    /// here, so it may be less strict than the pool.
    fn is_wide(&self) -> bool {
        self.shared.max(self.pool.status().shared) >= self.widest
    }

    /// Lets everybody look who was woken, the first one first: one who joins may find a connection late, and
    /// those before him are served from another one.
    fn sweep(&mut self) {
        let is_woken = |waiter: &Waiter| waiter.woken.0.swap(false, Ordering::Relaxed);
        while let Some(index) = self.waiters.iter().position(is_woken) {
            self.look(index);
        }
    }

    fn look(&mut self, index: usize) {
        let now = Instant::now();
        let waiter = &mut self.waiters[index];
        let waker = Waker::from(Arc::clone(&waiter.woken));
        let acquiring = waiter.acquiring.as_mut();
        let Poll::Ready(outcome) = acquiring.poll(&mut Context::from_waker(&waker)) else {
            return;
        };
        let waiter = self.waiters.remove(index);
        let place_waits = self.waiters[..index].iter().any(|w| w.for_place);
        let lease_waits = self.waiters[..index].iter().any(|w| !w.for_place);
        match outcome {
            Ok(Held::Lease(lease)) => {
                let first = !lease_waits && (!place_waits || self.is_wide());
                assert!(
                    first,
                    "a lease was given before an earlier waiter was served"
                );
                self.holders.push(lease);
            }
            Ok(Held::Place(place)) => {
                assert!(!place_waits, "a place was given before an earlier one");
                self.places.push(place);
            }
            Err(error) => {
                let refused = matches!(error.cause, Cause::Refused(_));
                assert!(refused || now >= waiter.deadline, "{error} too early");
            }
        }
    }

    fn compare(&mut self) {
        let now = Instant::now();
        let overshot = |waiter: &Waiter| now > waiter.deadline + millis(2);
        assert!(
            !self.waiters.iter().any(overshot),
            "a deadline was overshot"
        );
        let status = self.pool.status();
        assert_eq!(status.lent, self.holders.len(), "{status:?}");
        assert_eq!(status.places, self.places.len(), "{status:?}");
        assert_eq!(status.waiting, self.waiters.len(), "{status:?}");
        assert!(
            status.in_use() <= self.most,
            "{status:?} with at most {}",
            self.most
        );
        self.most = self.limit.max(status.in_use());
        let arriving = status.connecting + status.checking;
        let leases = self.waiters.iter().filter(|w| !w.for_place).count();
        let wanted = leases + usize::from(leases < self.waiters.len() && !self.is_wide());
        self.shared = status.shared;
        assert!(
            status.idle == 0 || arriving >= wanted,
            "somebody waits beside an idle connection: {status:?}"
        );
        let open = self.script.books().open;
        assert!(open <= status.in_use(), "{open} open, {status:?}");
        let mut numbers: Vec<_> = self.holders.iter().map(|lease| lease.number).collect();
        numbers.sort_unstable();
        assert!(
            numbers.windows(2).all(|pair| pair[0] != pair[1]),
            "lent twice: {numbers:?}"
        );
        let mut shared: Vec<_> = self.places.iter().map(|place| place.number).collect();
        shared.sort_unstable();
        shared.dedup();
        assert_eq!(status.shared, shared.len(), "{status:?}");
        let alone = |number: &usize| numbers.binary_search(number).is_err();
        assert!(shared.iter().all(alone), "leased and shared: {shared:?}");
    }

    /// When all is over, the whole capacity must still be there, and closing must leave nothing.
    async fn finish(mut self) {
        self.waiters.clear();
        self.holders.clear();
        self.places.clear();
        *self.script.books() = crate::script::Books {
            open: self.script.seen().open,
            connecting: self.script.seen().connecting,
            ..Default::default()
        };
        pass(secs(5)).await;
        let status = self.pool.status();
        assert_eq!((status.lent, status.shared, status.waiting), (0, 0, 0));
        assert_eq!(status.in_use(), self.script.seen().open, "{status:?}");
        for _ in 0..self.limit {
            self.holders
                .push(self.pool.acquire(within(secs(1))).await.unwrap());
        }
        self.holders.clear();
        assert!(self.pool.close(secs(1)).await.is_clean());
        assert_eq!(
            (self.pool.status().in_use(), self.script.seen().open),
            (0, 0)
        );
    }
}

async fn run(seed: u64) {
    let mut model = Model::new(seed);
    for _ in 0..OPERATIONS {
        model.operate().await;
        model.sweep();
        model.compare();
    }
    model.finish().await;
}

#[test]
fn random_operations_agree_with_the_reference_model() {
    let replayed = std::env::var("MAINSTAY_SEED")
        .ok()
        .map(|seed| seed.parse().unwrap());
    let runs = std::env::var("MAINSTAY_RUNS").map_or(RUNS, |runs| runs.parse().unwrap());
    let seeds: Vec<u64> = match replayed {
        Some(seed) => vec![seed],
        None => (0..runs).map(|_| fastrand::u64(..)).collect(),
    };
    for seed in seeds {
        println!("MAINSTAY_SEED={seed}");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(run(seed));
    }
}
