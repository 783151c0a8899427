use crate::{Bench, PLAIN, READ, WRITE, execute, on, run};
use mainstay_core::backend::{Call, Condition};
use mainstay_core::{Deadline, Kind, Statement};
use std::time::Duration;

const NUMBERS: &str = "with recursive n(i) as (select 1 union all select i + 1 from n where i < $1)
    select i, zeroblob(100) from n";

#[tokio::test]
async fn a_stream_hands_out_every_row_in_bounded_batches() {
    let bench = Bench::new().await;
    let statement = Statement::new(NUMBERS, (10_000,)).unwrap();
    let mut cursor = bench.reader.cursor(&statement, on(READ)).await.unwrap();
    let mut next = 1;
    while let Some(batch) = cursor.next_batch().await.unwrap() {
        assert!(!batch.is_empty() && batch.len() <= 256, "{}", batch.len());
        for row in batch {
            assert_eq!(row.at::<i64>(0).unwrap(), next);
            next += 1;
        }
    }
    assert_eq!(next, 10_001);
    assert!(cursor.next_batch().await.unwrap().is_none());
    assert_eq!(bench.reader.condition(), Condition::Clean);
}

#[tokio::test]
async fn large_rows_make_small_batches() {
    let bench = Bench::new().await;
    let text = "select zeroblob(40000) from (values (1), (2), (3), (4), (5))";
    let mut cursor = bench
        .reader
        .cursor(&Statement::new(text, ()).unwrap(), on(READ))
        .await
        .unwrap();
    let mut sizes = Vec::new();
    while let Some(batch) = cursor.next_batch().await.unwrap() {
        sizes.push(batch.len());
    }
    assert_eq!(sizes, [2, 2, 1]);
}

/// An endless result: whoever read it to its end before handing out rows would never return.
#[tokio::test]
async fn the_first_row_comes_long_before_the_last_and_dropping_stops_the_statement() {
    let bench = Bench::new().await;
    let statement = Statement::new(NUMBERS, (i64::MAX,)).unwrap();
    let mut cursor = bench.reader.cursor(&statement, on(READ)).await.unwrap();
    assert_eq!(
        cursor.next_batch().await.unwrap().unwrap()[0]
            .at::<i64>(0)
            .unwrap(),
        1
    );
    assert_eq!(bench.reader.condition(), Condition::Dirty);
    drop(cursor);
    bench.reader.clean(crate::soon()).await.unwrap();
    assert_eq!(bench.reader.condition(), Condition::Clean);
}

#[tokio::test]
async fn the_deadline_bounds_the_first_batch_and_not_the_reader() {
    let bench = Bench::new().await;
    let statement = Statement::new(NUMBERS, (100_000,)).unwrap();
    let deadline = Deadline::from_now(Duration::from_millis(300));
    let call = Call {
        lane: READ,
        deadline,
    };
    let mut cursor = bench.reader.cursor(&statement, call).await.unwrap();
    let mut rows = cursor.next_batch().await.unwrap().unwrap().len();
    tokio::time::timeout_at(deadline.instant(), std::future::pending::<()>())
        .await
        .unwrap_err();
    while let Some(batch) = cursor.next_batch().await.unwrap() {
        rows += batch.len();
    }
    assert_eq!(rows, 100_000);
    let never = "with recursive n(i) as (select 1 union all select i + 1 from n)
        select i from n where i < 0";
    let call = Call {
        lane: READ,
        deadline: Deadline::from_now(Duration::from_millis(50)),
    };
    let mut cursor = bench
        .reader
        .cursor(&Statement::new(never, ()).unwrap(), call)
        .await
        .unwrap();
    assert_eq!(cursor.next_batch().await.unwrap_err().kind(), Kind::Timeout);
}

#[tokio::test]
async fn a_stream_says_what_failed() {
    let bench = Bench::with_table().await;
    let cursor = |text: &str, lane| {
        let (statement, reader) = (Statement::new(text, ()).unwrap(), &bench.reader);
        async move { reader.cursor(&statement, on(lane)).await.map(drop) }
    };
    let error = cursor("select * from nowhere", READ).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Statement);
    let error = cursor("insert into t (a) values ('x') returning id", READ)
        .await
        .unwrap_err();
    assert!(error.is_refused_by_read_lane());
    let late = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000)
        select case when i < 900 then i else abs(-9223372036854775808) end from n";
    let statement = Statement::new(late, ()).unwrap();
    let mut cursor = bench.reader.cursor(&statement, on(READ)).await.unwrap();
    let mut rows = 0;
    let error = loop {
        match cursor.next_batch().await {
            Ok(Some(batch)) => rows += batch.len(),
            Ok(None) => panic!("the failure was swallowed after {rows} rows"),
            Err(error) => break error,
        }
    };
    assert_eq!((error.kind(), rows), (Kind::Statement, 768));
}

#[tokio::test]
async fn a_stream_of_a_write_commits_at_its_end() {
    let bench = Bench::with_table().await;
    let text = "insert into t (a) values ('x'), ('y') returning a";
    let statement = Statement::new(text, ()).unwrap();
    let mut cursor = bench.writer.cursor(&statement, on(WRITE)).await.unwrap();
    assert_eq!(cursor.next_batch().await.unwrap().unwrap().len(), 2);
    assert!(cursor.next_batch().await.unwrap().is_none());
    assert_eq!(bench.count("t").await, 2);
}

#[tokio::test]
async fn dropping_a_stream_leaves_its_transaction_usable() {
    let bench = Bench::with_table().await;
    bench.writer.begin(PLAIN, on(WRITE)).await.unwrap();
    execute(&*bench.writer, "insert into t (a) values ('x')")
        .await
        .unwrap();
    let statement = Statement::new(NUMBERS, (i64::MAX,)).unwrap();
    let mut cursor = bench.writer.cursor(&statement, on(WRITE)).await.unwrap();
    cursor.next_batch().await.unwrap().unwrap();
    drop(cursor);
    run(&*bench.writer, "insert into t (a) values ('y')", (), WRITE)
        .await
        .unwrap();
    bench.writer.commit(on(WRITE)).await.unwrap();
    assert_eq!(bench.count("t").await, 2);
}
