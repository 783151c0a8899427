//! The planner's statistics, refreshed by nobody's call.

use crate::{Bench, PLAIN, WRITE, backend, execute, natively, on, scalar, soon};
use mainstay_core::backend::{Backend, Condition};
use std::time::Duration;

/// A table with an index that was never analysed.
async fn fill(bench: &Bench) {
    let text = "create table sold (sku text, day int);
        create index by_sku on sold (sku);
        with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000)
        insert into sold select 'sku' || (i % 7), i from n;";
    bench.writer.script(text, on(WRITE)).await.unwrap();
}

const HAS_STATISTICS: &str = "select count(*) from sqlite_schema where name = 'sqlite_stat1'";

#[tokio::test]
async fn an_idle_writer_refreshes_the_statistics() {
    let bench = Bench::new().await;
    fill(&bench).await;
    let fresh = async {
        while scalar(&*bench.reader, HAS_STATISTICS).await == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), fresh)
        .await
        .unwrap();
    let entries = "select count(*) from sqlite_stat1 where idx = 'by_sku'";
    assert_eq!(scalar(&*bench.reader, entries).await, 1);
    let limit = natively(&*bench.writer, |handle| {
        let read = handle.query_row("pragma analysis_limit", [], |row| row.get::<_, i64>(0));
        read.unwrap()
    });
    assert_eq!(
        limit.await,
        0,
        "the application's own `analyze` has no limit"
    );
}

#[tokio::test]
async fn a_writer_refreshes_the_statistics_before_it_is_closed() {
    let bench = Bench::new().await;
    fill(&bench).await;
    bench.writer.close(soon()).await;
    assert_eq!(scalar(&*bench.reader, HAS_STATISTICS).await, 1);
}

#[tokio::test]
async fn a_writer_that_is_used_is_left_alone() {
    let bench = Bench::new().await;
    fill(&bench).await;
    bench.writer.begin(PLAIN, on(WRITE)).await.unwrap();
    execute(&*bench.writer, "insert into sold values ('x', 1)")
        .await
        .unwrap();
    bench.writer.close(soon()).await;
    assert_eq!(scalar(&*bench.reader, HAS_STATISTICS).await, 0);
    assert_eq!(bench.count("sold where sku = 'x'").await, 0);
}

#[tokio::test]
async fn another_process_with_the_lock_holds_up_no_close() {
    let bench = Bench::new().await;
    fill(&bench).await;
    let other = rusqlite::Connection::open(bench.path()).unwrap();
    other.execute_batch("begin immediate").unwrap();
    let begun = tokio::time::Instant::now();
    bench.writer.close(soon()).await;
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(bench.writer.condition(), Condition::Broken);
    other.execute_batch("rollback").unwrap();
    let writer = backend(&bench.path()).connect(WRITE, soon()).await.unwrap();
    execute(&*writer, "insert into sold values ('x', 1)")
        .await
        .unwrap();
}
