//! A connector that does what a test says, and keeps its own books about what exists.

use std::collections::VecDeque;
use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay_pool::{Builder, CloseReason, Condition, Connector, Event, Observer, Pool, Tag};
use tokio::time::{Instant, sleep};

/// What one attempt does.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Succeed,
    /// Succeeds after this long.
    Take(Duration),
    Fail(&'static str),
    /// Fails after this long.
    FailAfter(Duration, &'static str),
    Hang,
    Panic,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Failure(pub(crate) &'static str);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Failure {}

/// A connection: its number, its condition, and the entry in the books that ends with it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) number: usize,
    pub(crate) condition: Condition,
    script: Script,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.script.books().open -= 1;
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Books {
    pub(crate) connects: VecDeque<Step>,
    pub(crate) checks: VecDeque<Step>,
    pub(crate) cleans: VecDeque<Step>,
    pub(crate) closes: VecDeque<Step>,
    /// What is done when nothing is scripted; `None` succeeds.
    pub(crate) connect_default: Option<Step>,
    pub(crate) open: usize,
    pub(crate) most_open: usize,
    pub(crate) connecting: usize,
    pub(crate) most_connecting: usize,
    pub(crate) attempts: usize,
    pub(crate) attempted_at: Vec<Instant>,
    pub(crate) checked: usize,
    pub(crate) cleaned: usize,
    pub(crate) closed: Vec<CloseReason>,
    pub(crate) closed_at: Vec<Instant>,
    pub(crate) events: Vec<Event>,
    pub(crate) record_times: bool,
    /// Numbers of connections that have died, which their condition shows.
    pub(crate) dead: Vec<usize>,
    /// How long the next attempt is to wait after a permanent failure.
    pub(crate) retry_after: Option<Duration>,
}

/// The script and the books; a cheap clone of the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    books: Arc<Mutex<Books>>,
}

impl Script {
    pub(crate) fn books(&self) -> std::sync::MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    /// A copy of the books, which may be looked at while the pool goes on.
    pub(crate) fn seen(&self) -> Books {
        self.books().clone()
    }

    pub(crate) fn pool(&self) -> Builder<Self> {
        Pool::builder(self.clone()).observer(Arc::new(self.clone()))
    }

    pub(crate) fn connects(&self, steps: impl IntoIterator<Item = Step>) {
        self.books().connects.extend(steps);
    }

    pub(crate) fn checks(&self, steps: impl IntoIterator<Item = Step>) {
        self.books().checks.extend(steps);
    }

    async fn perform(&self, step: Option<Step>) -> Result<(), Failure> {
        match step.unwrap_or(Step::Succeed) {
            Step::Succeed => Ok(()),
            Step::Take(time) => {
                sleep(time).await;
                Ok(())
            }
            Step::Fail(why) => Err(Failure(why)),
            Step::FailAfter(time, why) => {
                sleep(time).await;
                Err(Failure(why))
            }
            Step::Hang => pending().await,
            Step::Panic => panic!("scripted"),
        }
    }
}

/// Notes that an attempt is under way, however it ends.
struct Attempt(Script);

impl Drop for Attempt {
    fn drop(&mut self) {
        self.0.books().connecting -= 1;
    }
}

impl Connector for Script {
    type Connection = Session;
    type Error = Failure;

    async fn connect(&self, _: Tag) -> Result<Session, Failure> {
        let (number, step) = {
            let mut books = self.books();
            books.attempts += 1;
            if books.record_times {
                books.attempted_at.push(Instant::now());
            }
            books.connecting += 1;
            books.most_connecting = books.most_connecting.max(books.connecting);
            let step = books
                .connects
                .pop_front()
                .or_else(|| books.connect_default.clone());
            (books.attempts, step)
        };
        let _attempt = Attempt(self.clone());
        self.perform(step).await?;
        let mut books = self.books();
        books.open += 1;
        books.most_open = books.most_open.max(books.open);
        Ok(Session {
            number,
            condition: Condition::Clean,
            script: self.clone(),
        })
    }

    fn condition(&self, session: &Session) -> Condition {
        if self.books().dead.contains(&session.number) {
            return Condition::Broken;
        }
        session.condition
    }

    async fn check(&self, _: &mut Session) -> Result<(), Failure> {
        let step = {
            let mut books = self.books();
            books.checked += 1;
            books.checks.pop_front()
        };
        self.perform(step).await
    }

    async fn clean(&self, session: &mut Session) -> Result<(), Failure> {
        let step = {
            let mut books = self.books();
            books.cleaned += 1;
            books.cleans.pop_front()
        };
        self.perform(step).await?;
        session.condition = Condition::Clean;
        Ok(())
    }

    async fn close(&self, session: Session, reason: CloseReason) {
        let step = {
            let mut books = self.books();
            books.closed.push(reason);
            if books.record_times {
                books.closed_at.push(Instant::now());
            }
            books.closes.pop_front()
        };
        // A close cannot fail; a scripted failure just ends it.
        let _ended = self.perform(step).await;
        drop(session);
    }

    fn is_permanent(&self, error: &Failure) -> bool {
        error.0.starts_with("permanent")
    }

    fn retry_after(&self, error: &Failure) -> Option<Duration> {
        let told = self.books().retry_after;
        told.filter(|_| self.is_permanent(error))
    }
}

impl Observer for Script {
    fn on_event(&self, event: &Event) {
        let mut books = self.books();
        if books.events.len() < 10_000 {
            books.events.push(event.clone());
        }
    }
}

pub(crate) fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(crate) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The deadline this far from now.
pub(crate) fn within(time: Duration) -> Instant {
    Instant::now() + time
}

/// Lets every task that can run do so, without letting time pass.
pub(crate) async fn turn() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// Lets this much virtual time pass, deadline by deadline. Nothing really sleeps: the clock is
/// paused, and the runtime moves it on to the next timer whenever nobody has anything to do.
pub(crate) async fn pass(time: Duration) {
    tokio::time::timeout(time, pending::<()>())
        .await
        .unwrap_err();
    turn().await;
}
