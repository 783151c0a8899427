use crate::{Bench, PLAIN, READ, WRITE, execute, on, run, soon};
use mainstay_core::backend::{Backend, Call, Condition, Connection, Want};
use mainstay_core::{Class, Deadline, Evidence, Kind, Statement};
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;
use tokio::time::Instant;

const ENDLESS: &str = "with recursive n(i) as (select 1 union all select i + 1 from n)
    select count(*) from n";
const ENDLESS_WRITE: &str = "with recursive n(i) as (select 1 union all select i + 1 from n)
    insert into t (a) select i from n";

fn brief(lane: mainstay_core::backend::Lane) -> Call {
    Call {
        lane,
        deadline: Deadline::from_now(Duration::from_millis(50)),
    }
}

async fn run_briefly(connection: &dyn Connection, text: &str) -> mainstay_core::Error {
    let statement = Statement::new(text, ()).unwrap();
    let call = brief(if text == ENDLESS { READ } else { WRITE });
    connection
        .run(&statement, Want::Affected, call)
        .await
        .unwrap_err()
}

#[tokio::test]
async fn an_endless_statement_ends_at_its_deadline_and_leaves_nothing() {
    let bench = Bench::with_table().await;
    for (connection, text) in [(&bench.reader, ENDLESS), (&bench.writer, ENDLESS_WRITE)] {
        let started = Instant::now();
        let error = run_briefly(&**connection, text).await;
        assert_eq!(
            (error.kind(), error.class()),
            (Kind::Timeout, Class::RolledBack)
        );
        assert_eq!(error.evidence(), Evidence::Neither);
        assert!(error.is_timeout());
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "{:?}",
            started.elapsed()
        );
        assert_eq!(connection.condition(), Condition::Clean);
    }
    assert_eq!(bench.count("t").await, 0);
}

#[tokio::test]
async fn a_write_that_is_stopped_ends_its_transaction() {
    let bench = Bench::with_table().await;
    bench.writer.begin(PLAIN, on(WRITE)).await.unwrap();
    execute(&*bench.writer, "insert into t (a) values ('before')")
        .await
        .unwrap();
    assert_eq!(
        run_briefly(&*bench.writer, ENDLESS_WRITE).await.kind(),
        Kind::Timeout
    );
    let after = execute(&*bench.writer, "insert into t (a) values ('leaked')").await;
    assert_eq!(after.unwrap_err().kind(), Kind::TransactionOver);
    bench.writer.roll_back(on(WRITE)).await.unwrap();
    assert_eq!(bench.count("t").await, 0);
}

#[tokio::test]
async fn a_call_that_is_too_late_is_not_begun() {
    let bench = Bench::with_table().await;
    let call = Call {
        lane: WRITE,
        deadline: Deadline::at(Instant::now()),
    };
    let statement = Statement::new("insert into t (a) values ('x')", ()).unwrap();
    let error = bench
        .writer
        .run(&statement, Want::Affected, call)
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.class()),
        (Kind::Timeout, Class::NotSent)
    );
    assert_eq!(bench.count("t").await, 0);
}

#[tokio::test]
async fn a_wait_for_a_lock_ends_at_the_deadline() {
    let bench = Bench::with(|_, target| target.busy_timeout = Duration::from_secs(600)).await;
    let other = Backend::connect(&bench.sqlite, WRITE, soon())
        .await
        .unwrap();
    other.begin(PLAIN, on(WRITE)).await.unwrap();
    let waiting = bench.writer.begin(PLAIN, brief(WRITE));
    let error = tokio::time::timeout(Duration::from_secs(30), waiting)
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.class()),
        (Kind::Timeout, Class::RolledBack)
    );
    assert_eq!(bench.writer.condition(), Condition::Clean);
    // Somebody who does not wait any more ends the wait as well.
    let mut waiting = bench.writer.begin(PLAIN, on(WRITE));
    assert!(
        waiting
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    );
    drop(waiting);
    bench.writer.clean(soon()).await.unwrap();
    assert_eq!(bench.writer.condition(), Condition::Clean);
}

#[tokio::test]
async fn statement_timeout_bounds_one_statement() {
    let bench = Bench::with(|config, _| {
        config.statement_timeout = Some(Duration::from_millis(50));
    })
    .await;
    let error = run(&*bench.reader, ENDLESS, (), READ).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.class()),
        (Kind::Timeout, Class::Permanent)
    );
}

#[tokio::test]
async fn cancel_stops_what_runs_and_nothing_later() {
    let bench = Bench::new().await;
    let statement = Statement::new(ENDLESS, ()).unwrap();
    let mut running = pin!(bench.reader.run(&statement, Want::Affected, on(READ)));
    let error = loop {
        // The statement may not have begun yet, and then there is nothing to cancel.
        bench.reader.cancel(soon()).await.unwrap();
        let pause = tokio::task::yield_now();
        tokio::select! {
            biased;
            result = &mut running => break result.unwrap_err(),
            () = pause => {}
        }
    };
    assert_eq!(
        (error.kind(), error.class()),
        (Kind::Cancelled, Class::Permanent)
    );
    bench.reader.cancel(soon()).await.unwrap();
    run(&*bench.reader, "select 1", (), READ).await.unwrap();
}

#[tokio::test]
async fn closing_stops_what_runs_and_refuses_what_comes() {
    let bench = Bench::new().await;
    let statement = Statement::new(ENDLESS, ()).unwrap();
    let mut running = pin!(bench.reader.run(&statement, Want::Affected, on(READ)));
    let mut queued = pin!(bench.reader.run(&statement, Want::Affected, on(READ)));
    let mut context = Context::from_waker(Waker::noop());
    assert!(running.as_mut().poll(&mut context).is_pending());
    assert!(queued.as_mut().poll(&mut context).is_pending());
    bench.reader.close(soon()).await;
    assert_eq!(bench.reader.condition(), Condition::Broken);
    let error = running.await.unwrap_err();
    assert!(
        matches!(error.kind(), Kind::Cancelled | Kind::Closed),
        "{error:?}"
    );
    let error = queued.await.unwrap_err();
    assert_eq!(
        (error.kind(), error.class()),
        (Kind::Closed, Class::NotSent)
    );
    let error = run(&*bench.reader, "select 1", (), READ).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.class()),
        (Kind::Closed, Class::NotSent)
    );
}

/// One thread of the runtime, more transactions than threads, each holding the only writer in turn:
/// a backend that blocked the runtime would stand still here.
#[tokio::test(flavor = "current_thread")]
async fn the_runtime_is_never_blocked() {
    let bench = Bench::new().await;
    let statement = Statement::new(ENDLESS, ()).unwrap();
    let mut running = pin!(bench.writer.run(&statement, Want::Affected, on(WRITE)));
    let mut context = Context::from_waker(Waker::noop());
    assert!(running.as_mut().poll(&mut context).is_pending());
    for _ in 0..100 {
        run(&*bench.reader, "select 1", (), READ).await.unwrap();
    }
    bench.writer.cancel(soon()).await.unwrap();
}

#[tokio::test]
async fn a_read_that_is_dropped_is_interrupted_and_frees_its_reader() {
    let bench = Bench::new().await;
    let statement = Statement::new(ENDLESS, ()).unwrap();
    let session: &mainstay_sqlite::SqliteSession = bench.reader.as_any().downcast_ref().unwrap();
    let mut context = Context::from_waker(Waker::noop());
    let mut running = bench.reader.run(&statement, Want::Affected, on(READ));
    assert!(running.as_mut().poll(&mut context).is_pending());
    while !session.is_running() {
        tokio::task::yield_now().await;
    }
    drop(running);
    // Behind it in the queue: it would wait for ever.
    run(&*bench.reader, "select 1", (), READ).await.unwrap();
    assert_eq!(bench.reader.condition(), Condition::Clean);
}
