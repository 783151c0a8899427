//! Writes that wait together for a lock that somebody else holds.

use crate::{Bench, PLAIN, READ, WRITE, on, run, soon};
use mainstay_core::backend::{Backend, BoxFuture, Call, Condition, Connection, Reply, Want};
use mainstay_core::{Deadline, IntoParams, Result, Statement, Value};
use mainstay_sqlite::SqliteSession;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// A database whose write lock somebody else holds, so that writes queue up.
pub(crate) struct Crowd {
    pub(crate) bench: Bench,
    pub(crate) holder: Arc<dyn Connection>,
}

impl Crowd {
    pub(crate) async fn new() -> Self {
        Self::on(Bench::with_table().await).await
    }

    pub(crate) async fn on(bench: Bench) -> Self {
        let holder = bench.sqlite.connect(WRITE, soon()).await.unwrap();
        let crowd = Self { bench, holder };
        crowd.hold().await;
        crowd
    }

    pub(crate) async fn hold(&self) {
        self.holder.begin(PLAIN, on(WRITE)).await.unwrap();
    }

    /// Lets everybody go who has queued.
    pub(crate) async fn release(&self) {
        self.holder.roll_back(on(WRITE)).await.unwrap();
    }

    pub(crate) fn writer(&self) -> &dyn Connection {
        &*self.bench.writer
    }

    pub(crate) fn session(&self) -> &SqliteSession {
        self.bench.writer.as_any().downcast_ref().unwrap()
    }

    /// Queues a write; it is in the queue when this returns.
    pub(crate) fn queue<'c>(&'c self, text: &str) -> BoxFuture<'c, Result<Reply>> {
        self.queue_with(text, (), soon())
    }

    pub(crate) fn queue_with<'c>(
        &'c self,
        text: &str,
        params: impl IntoParams,
        deadline: Deadline,
    ) -> BoxFuture<'c, Result<Reply>> {
        let statement = Statement::new(text, params).unwrap();
        let call = Call {
            lane: WRITE,
            deadline,
        };
        let writer = self.writer();
        polled(Box::pin(async move {
            writer
                .run_shared(&statement, Want::Rows(usize::MAX), call)
                .await
        }))
    }

    pub(crate) fn queue_batch<'c>(&'c self, texts: &[&str]) -> BoxFuture<'c, Result<Vec<u64>>> {
        let statements: Vec<_> = texts
            .iter()
            .map(|text| Statement::new(*text, ()).unwrap())
            .collect();
        let writer = self.writer();
        polled(Box::pin(async move {
            writer.batch_shared(&statements, PLAIN, on(WRITE)).await
        }))
    }

    pub(crate) fn commits(&self) -> u64 {
        self.bench.sqlite.commits().commits
    }

    pub(crate) fn replays(&self) -> u64 {
        self.bench.sqlite.commits().replays
    }

    /// They shared commits: one, or a few where the machine was so slow that a group ended early.
    pub(crate) fn check_grouped(&self) {
        let told = self.bench.sqlite.commits();
        assert!(
            told.commits == 1 || told.commits * 2 <= told.writes,
            "{told:?}"
        );
    }

    pub(crate) async fn all(&self) -> Vec<String> {
        let rows = run(&*self.bench.reader, "select a from t order by a", (), READ)
            .await
            .unwrap();
        rows.rows.iter().map(|row| text(&row.values()[0])).collect()
    }

    /// Nothing is left over that the next one would feel.
    pub(crate) async fn check_next(&self) {
        assert_eq!(self.writer().condition(), Condition::Clean);
        let next = Statement::new("insert into t (a) values ('next')", ()).unwrap();
        let writer = self.writer();
        writer
            .run_shared(&next, Want::Affected, on(WRITE))
            .await
            .unwrap();
    }
}

/// Polls once, so that it is in the queue. What needs no lock may be done already.
pub(crate) fn polled<'c, T: Send + 'c>(mut future: BoxFuture<'c, T>) -> BoxFuture<'c, T> {
    let mut context = Context::from_waker(Waker::noop());
    match future.as_mut().poll(&mut context) {
        Poll::Ready(answer) => Box::pin(std::future::ready(answer)),
        Poll::Pending => future,
    }
}

pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn insert(name: &str) -> String {
    let name = name.replace('\'', "''");
    format!("insert into t (a) values ('{name}')")
}
