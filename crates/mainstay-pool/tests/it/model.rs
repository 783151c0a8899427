//! Random operations against a reference model: a queue of those who wait and a list of those who
//! hold. After every operation the pool's counts must be the model's, nobody may hold what another
//! one holds, and nobody may be served before somebody who came earlier. Every run prints its seed;
//! `MAINSTAY_SEED=n` replays one run.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use mainstay_pool::{AcquireError, Cause, Condition, Lease, Pool, Tag};
use tokio::time::{Instant, advance};

use crate::script::{Failure, Script, Step, millis, pass, secs, within};

const RUNS: u64 = 200;
const OPERATIONS: usize = 1000;

type Acquiring = Pin<Box<dyn Future<Output = Result<Lease<Script>, AcquireError<Failure>>>>>;

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Waiter {
    acquiring: Acquiring,
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
    /// More than the limit may exist after it was lowered, but never more than there were.
    most: usize,
    limit: usize,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let script = Script::default();
        let limit = random.usize(1..6);
        let pool = script
            .pool()
            .limit(limit)
            .minimum(random.usize(0..3))
            .max_connecting(random.usize(1..4))
            .idle_timeout(secs(random.u64(1..20)))
            .max_lifetime(secs(random.u64(1..60)))
            .connect_timeout(millis(300))
            .check_timeout(millis(100))
            .clean_timeout(millis(100))
            .close_timeout(millis(200))
            .pacing(|| Box::new(std::iter::repeat(millis(20))))
            .seed(seed)
            .build();
        let (waiters, holders) = (Vec::new(), Vec::new());
        Self {
            random,
            script,
            pool,
            waiters,
            holders,
            most: limit,
            limit,
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
            0..30 if self.waiters.len() < 12 => {
                let deadline = within(millis(self.random.u64(0..3000)));
                let pool = self.pool.clone();
                let acquiring = Box::pin(async move { pool.acquire(deadline).await });
                let woken = Arc::new(Flag(AtomicBool::new(true)));
                self.waiters.push(Waiter {
                    acquiring,
                    deadline,
                    woken,
                });
            }
            30..40 if !self.waiters.is_empty() => {
                let index = self.random.usize(..self.waiters.len());
                drop(self.waiters.remove(index));
            }
            40..75 if !self.holders.is_empty() => self.give_back(),
            75..78 => {
                if let Some(lease) = self.pool.try_acquire(Some(Tag(self.random.u8(0..2)))) {
                    assert!(self.waiters.is_empty(), "nobody overtakes a waiter");
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

    /// Lets everybody who was woken look, in the order in which they came.
    fn sweep(&mut self) {
        let now = Instant::now();
        let mut overtaken = false;
        let mut still = Vec::new();
        for mut waiter in std::mem::take(&mut self.waiters) {
            let looked = if waiter.woken.0.swap(false, Ordering::Relaxed) {
                let waker = Waker::from(Arc::clone(&waiter.woken));
                waiter
                    .acquiring
                    .as_mut()
                    .poll(&mut Context::from_waker(&waker))
            } else {
                Poll::Pending
            };
            match looked {
                Poll::Pending => {
                    assert!(
                        now <= waiter.deadline + millis(2),
                        "a deadline was overshot"
                    );
                    overtaken = true;
                    still.push(waiter);
                }
                Poll::Ready(Ok(lease)) => {
                    assert!(!overtaken, "somebody was served before an earlier waiter");
                    self.holders.push(lease);
                }
                Poll::Ready(Err(error)) => {
                    let refused = matches!(error.cause, Cause::Refused(_));
                    assert!(refused || now >= waiter.deadline, "{error} too early");
                }
            }
        }
        self.waiters = still;
    }

    fn compare(&mut self) {
        let status = self.pool.status();
        assert_eq!(status.lent, self.holders.len(), "{status:?}");
        assert_eq!(status.waiting, self.waiters.len(), "{status:?}");
        assert!(
            status.in_use() <= self.most,
            "{status:?} with at most {}",
            self.most
        );
        self.most = self.limit.max(status.in_use());
        let arriving = status.connecting + status.checking;
        assert!(
            status.waiting == 0 || status.idle == 0 || arriving >= status.waiting.min(status.idle),
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
    }

    /// When all is over, the whole capacity must still be there, and closing must leave nothing.
    async fn finish(mut self) {
        self.waiters.clear();
        self.holders.clear();
        *self.script.books() = crate::script::Books {
            open: self.script.seen().open,
            connecting: self.script.seen().connecting,
            ..Default::default()
        };
        pass(secs(5)).await;
        let status = self.pool.status();
        assert_eq!((status.lent, status.waiting), (0, 0));
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
    let seeds = match replayed {
        Some(seed) => vec![seed],
        None => (0..RUNS).map(|_| fastrand::u64(..)).collect(),
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
