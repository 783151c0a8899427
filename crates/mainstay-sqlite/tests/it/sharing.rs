//! Reads of strangers that queue on one reader's thread.

use crate::abandoned::poll_and_drop;
use crate::{Bench, READ, on, soon};
use futures_util::future::{join, join_all};
use mainstay_core::backend::{Burden, Condition, Connection, Reply, Want};
use mainstay_core::{Class, Result, Statement};
use std::time::Duration;
use tokio::time::Instant;

const ENDLESS: &str = "with recursive n(i) as (select 1 union all select i + 1 from n)
    select count(*) from n";

async fn shared(connection: &dyn Connection, text: &str) -> Result<Reply> {
    let statement = Statement::new(text, ())?;
    connection
        .run_shared(&statement, Want::Rows(1), on(READ))
        .await
}

async fn quick(connection: &dyn Connection, number: i64) {
    let reply = shared(connection, &format!("select {number} + 1")).await;
    assert_eq!(reply.unwrap().rows[0].at::<i64>(0).unwrap(), number + 1);
}

#[tokio::test]
async fn one_that_keeps_others_waiting_is_stopped_and_they_are_answered() {
    let bench = Bench::new().await;
    let reader = &*bench.reader;
    let behind = join_all((0..20).map(|number| quick(reader, number)));
    // Queued in this order: a future is begun by its first poll.
    let (slow, _) = join(shared(reader, ENDLESS), behind).await;
    let error = slow.unwrap_err();
    assert_eq!(error.burden(), Some(Burden::Slow), "{error:?}");
    assert_eq!(error.class(), Class::ReadLost);
    assert_eq!(reader.condition(), Condition::Clean);
}

#[tokio::test]
async fn one_that_nobody_waits_behind_runs_to_its_end() {
    let bench = Bench::new().await;
    let begun = Instant::now();
    let mut rows: i64 = 100_000;
    // As many as it takes on this machine to be longer than others would be kept waiting.
    loop {
        let text = ENDLESS.replace("from n)", &format!("from n limit {rows})"));
        let counted = shared(&*bench.reader, &text).await.unwrap();
        assert_eq!(counted.rows[0].at::<i64>(0).unwrap(), rows);
        if begun.elapsed() > Duration::from_millis(200) {
            return;
        }
        rows *= 2;
    }
}

#[tokio::test]
async fn a_dropped_read_costs_nobody_anything() {
    let bench = Bench::new().await;
    let reader = &*bench.reader;
    for polls in 1..4 {
        let slow = Box::pin(async { shared(reader, ENDLESS).await.map(drop) });
        assert!(!poll_and_drop(slow, polls).await);
        join_all((0..20).map(|number| quick(reader, number))).await;
        reader.clean(soon()).await.unwrap();
        assert_eq!(reader.condition(), Condition::Clean);
    }
}

#[tokio::test]
async fn an_error_touches_no_neighbour() {
    let bench = Bench::new().await;
    let reader = &*bench.reader;
    let wrong = async {
        let error = shared(reader, "select * from nowhere").await.unwrap_err();
        assert!(error.message().contains("nowhere"), "{error}");
    };
    let around = join_all((0..20).map(|number| quick(reader, number)));
    join(wrong, around).await;
}
