//! Futures that are dropped at every point of their life.

use crate::{Bench, PLAIN, WRITE, execute, on, soon};
use mainstay_core::backend::{BoxFuture, Condition, Connection, Cursor, Savepoint, Want};
use mainstay_core::{Result, Statement};
use std::task::{Context, Waker};

type Make = for<'c> fn(&'c dyn Connection, &'c Statement) -> BoxFuture<'c, Result<()>>;

async fn discard(cursor: Result<Box<dyn Cursor>>) -> Result<()> {
    let batch = cursor?.next_batch().await?;
    drop(batch);
    Ok(())
}

/// Every method of a connection, as something that can be begun and dropped.
fn methods() -> Vec<(&'static str, Make)> {
    vec![
        ("run", |c, s| {
            Box::pin(async { c.run(s, Want::Affected, on(WRITE)).await.map(drop) })
        }),
        ("cursor", |c, s| {
            Box::pin(async { discard(c.cursor(s, on(WRITE)).await).await })
        }),
        ("batch", |c, s| {
            Box::pin(async {
                c.batch(std::slice::from_ref(s), PLAIN, on(WRITE))
                    .await
                    .map(drop)
            })
        }),
        ("script", |c, _| {
            c.script("insert into t (a) values (random())", on(WRITE))
        }),
        ("begin", |c, _| c.begin(PLAIN, on(WRITE))),
        ("begin, run", |c, s| {
            Box::pin(async {
                c.begin(PLAIN, on(WRITE)).await?;
                c.run(s, Want::Affected, on(WRITE)).await.map(drop)
            })
        }),
        ("begin, savepoint", |c, _| {
            Box::pin(async {
                c.begin(PLAIN, on(WRITE)).await?;
                c.savepoint(Savepoint::Set(1), on(WRITE)).await
            })
        }),
        ("begin, run, commit", |c, s| {
            Box::pin(async {
                c.begin(PLAIN, on(WRITE)).await?;
                c.run(s, Want::Affected, on(WRITE)).await?;
                c.commit(on(WRITE)).await
            })
        }),
        ("begin, roll back", |c, _| {
            Box::pin(async {
                c.begin(PLAIN, on(WRITE)).await?;
                c.roll_back(on(WRITE)).await
            })
        }),
        ("check", |c, _| c.check(soon())),
        ("clean", |c, _| c.clean(soon())),
    ]
}

/// Polls a future up to so many times and drops it; answers whether it was finished by then.
/// Between two polls the thread of the connection may or may not have done its part, so the rounds
/// meet every order over time.
pub(crate) async fn poll_and_drop(mut future: BoxFuture<'_, Result<()>>, polls: usize) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..polls {
        if future.as_mut().poll(&mut context).is_ready() {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

#[tokio::test]
async fn a_dropped_call_leaves_a_connection_that_cleans() {
    let bench = Bench::with_table().await;
    let writer = &*bench.writer;
    let statement = Statement::new("insert into t (a) values (random())", ()).unwrap();
    for (name, make) in methods() {
        for polls in (0..8).chain([20, 100, 1_000]) {
            let before = bench.count("t").await;
            poll_and_drop(make(writer, &statement), polls).await;
            if writer.condition() != Condition::Clean {
                writer.clean(soon()).await.unwrap();
            }
            assert_eq!(
                writer.condition(),
                Condition::Clean,
                "{name} after {polls} polls"
            );
            let after = bench.count("t").await;
            assert!(
                (before..=before + 1).contains(&after),
                "{name}: {before} then {after}"
            );
            // No transaction was left open: the next one begins, and its rollback takes one row.
            writer.begin(PLAIN, on(WRITE)).await.unwrap();
            execute(writer, "insert into t (a) values ('probe')")
                .await
                .unwrap();
            writer.roll_back(on(WRITE)).await.unwrap();
            assert_eq!(bench.count("t").await, after, "{name} after {polls} polls");
        }
    }
}

#[tokio::test]
async fn a_call_that_waits_in_the_queue_is_skipped_when_it_is_dropped() {
    let bench = Bench::with_table().await;
    let writer = &*bench.writer;
    let endless = "with recursive n(i) as (select 1 union all select i + 1 from n)
        select count(*) from n";
    let endless = Statement::new(endless, ()).unwrap();
    let insert = Statement::new("insert into t (a) values ('x')", ()).unwrap();
    let mut context = Context::from_waker(Waker::noop());
    let mut running = writer.run(&endless, Want::Affected, on(WRITE));
    assert!(running.as_mut().poll(&mut context).is_pending());
    // More than the queue holds: the last ones wait in front of it.
    let mut queued: Vec<_> = (0..40)
        .map(|_| writer.run(&insert, Want::Affected, on(WRITE)))
        .collect();
    for waiting in &mut queued {
        assert!(waiting.as_mut().poll(&mut context).is_pending());
    }
    drop(queued);
    drop(running);
    writer.clean(soon()).await.unwrap();
    assert_eq!(writer.condition(), Condition::Clean);
    assert_eq!(bench.count("t").await, 0);
}

#[tokio::test]
async fn a_dropped_connect_leaves_no_handle_behind() {
    use mainstay_core::backend::Backend;
    let bench = Bench::new().await;
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..20 {
        let mut connecting = bench.sqlite.connect(WRITE, soon());
        let _unfinished = connecting.as_mut().poll(&mut context).is_pending();
    }
    loop {
        let info = bench.sqlite.info(&*bench.reader, soon()).await.unwrap();
        if info.active_connections == 2 {
            break;
        }
        tokio::task::yield_now().await;
    }
}
