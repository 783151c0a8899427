//! The write-ahead log: copied beside the writer, kept by readers, given back when they are gone.

use crate::{Bench, PLAIN, READ, WRITE, backend_with, execute, on, run, scalar, soon};
use mainstay_core::backend::{Backend, Connection, LogInfo, Want};
use mainstay_core::config::SqlitePath;
use mainstay_core::{Kind, Statement};
use mainstay_sqlite::Sqlite;
use std::fs;
use std::panic::Location;
use std::time::Duration;
use tokio::time::Instant;

const PAGE: u64 = 4_096;
/// What the log's file is cut back to.
const KEPT: u64 = 64 * 1024 * 1024;

async fn fresh() -> Bench {
    with_limit(None).await
}

async fn with_limit(limit: Option<u64>) -> Bench {
    let bench = Bench::with(|_, target| target.wal_limit = limit).await;
    execute(&*bench.writer, "create table t (a blob)")
        .await
        .unwrap();
    bench
}

/// Commits so many pages, a hundred with each commit; answers how long the longest one took.
async fn write_pages(writer: &dyn Connection, pages: u64) -> Duration {
    let text = "insert into t values (zeroblob($1))";
    let bytes = i64::try_from(100 * PAGE).unwrap();
    let insert = Statement::new(text, (bytes,)).unwrap();
    let mut longest = Duration::ZERO;
    for _ in 0..pages.div_ceil(100) {
        let begun = Instant::now();
        let written = writer.run_shared(&insert, Want::Affected, on(WRITE));
        assert_eq!(written.await.unwrap().affected, 1);
        longest = longest.max(begun.elapsed());
    }
    longest
}

fn told(sqlite: &Sqlite) -> LogInfo {
    sqlite.log().unwrap()
}

/// Waits until the log is as wanted.
async fn until(sqlite: &Sqlite, wanted: impl Fn(&LogInfo) -> bool) -> LogInfo {
    let found = async {
        loop {
            let log = told(sqlite);
            if wanted(&log) {
                return log;
            }
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), found).await;
    waited.unwrap_or_else(|_| panic!("{:?}", told(sqlite)))
}

fn file_bytes(bench: &Bench) -> u64 {
    let log = fs::metadata(bench.directory.path().join("app.db-wal"));
    log.unwrap().len()
}

#[tokio::test]
async fn the_log_is_copied_beside_the_writer_which_does_not_copy_it_itself() {
    let bench = fresh().await;
    write_pages(&*bench.writer, 1_500).await;
    // Nothing is written meanwhile, so it is somebody else who does it.
    let log = until(&bench.sqlite, |log| log.copied_pages >= 1_000).await;
    assert!(log.pages >= 1_500 && !log.is_held, "{log:?}");
    assert_eq!(log.error, None);
    assert!(log.bytes > log.pages * PAGE, "{log:?}");
    let info = bench.sqlite.info(&*bench.reader, soon()).await.unwrap();
    assert_eq!(
        info.active_connections, 3,
        "the handle that copies is counted"
    );
    assert_eq!(info.file.unwrap().log.unwrap().pages, log.pages);
}

#[tokio::test]
async fn a_writer_that_never_pauses_begins_the_log_anew() {
    let bench = fresh().await;
    let (mut longest, mut last, mut began) = (0, 0, 0);
    for _ in 0..300 {
        write_pages(&*bench.writer, 200).await;
        let pages = told(&bench.sqlite).pages;
        began += u32::from(pages < last);
        (longest, last) = (longest.max(pages), pages);
    }
    assert!(began >= 2, "it began anew {began} times");
    assert!(longest <= 16_000, "it was {longest} pages long");
    assert_eq!(scalar(&*bench.reader, "select count(*) from t").await, 600);
}

#[tokio::test]
async fn a_reader_that_stays_grows_the_log_and_holds_up_no_writer() {
    let bench = fresh().await;
    let alone = write_pages(&*bench.writer, 4_000).await;
    bench.reader.on_lent(Location::caller());
    bench.reader.begin(PLAIN, on(READ)).await.unwrap();
    let before = scalar(&*bench.reader, "select count(*) from t").await;
    let beside = write_pages(&*bench.writer, 20_000).await;
    let log = until(&bench.sqlite, |log| log.is_held).await;
    assert!(log.pages >= 20_000 && log.copied_pages < 8_000, "{log:?}");
    assert!(log.oldest_reader.unwrap() > Duration::ZERO, "{log:?}");
    assert_eq!(log.oldest_reader_site.unwrap().file(), file!());
    assert!(file_bytes(&bench) > KEPT);
    // A checkpoint that waits for readers would have waited for `busy_timeout`: five seconds.
    let most = Duration::from_secs(2).max(alone * 10);
    assert!(beside < most, "{beside:?} beside a reader, {alone:?} alone");
    // What it reads is what it read before.
    assert_eq!(
        scalar(&*bench.reader, "select count(*) from t").await,
        before
    );
    bench.reader.roll_back(on(READ)).await.unwrap();
    // Its end is enough: nobody has to write for the log to be copied. What the statistics add to it
    // afterwards is too little to be copied at once.
    let written = log.pages;
    let log = until(&bench.sqlite, |log| {
        !log.is_held && log.copied_pages >= written
    })
    .await;
    assert_eq!(log.oldest_reader, None);
    // The next commits begin it anew, and cut its file back.
    write_pages(&*bench.writer, 300).await;
    let log = told(&bench.sqlite);
    assert!(log.pages <= 1_000, "{log:?}");
    assert!(file_bytes(&bench) <= KEPT, "{}", file_bytes(&bench));
}

#[tokio::test]
async fn a_transaction_that_keeps_the_log_at_its_limit_is_ended_and_told_why() {
    let bench = with_limit(Some(24 * 1024 * 1024)).await;
    bench.reader.begin(PLAIN, on(READ)).await.unwrap();
    scalar(&*bench.reader, "select count(*) from t").await;
    // Below the limit it is left alone.
    write_pages(&*bench.writer, 4_000).await;
    until(&bench.sqlite, |log| log.is_held).await;
    scalar(&*bench.reader, "select count(*) from t").await;
    write_pages(&*bench.writer, 8_000).await;
    until(&bench.sqlite, |log| log.oldest_reader.is_none()).await;
    for _ in 0..2 {
        let error = run(&*bench.reader, "select 1", (), READ).await.unwrap_err();
        assert_eq!(error.kind(), Kind::TransactionOver, "{error}");
        assert!(error.message().contains("write-ahead log"), "{error}");
        assert!(error.remedy().unwrap().contains("wal_limit_mib"));
    }
    bench.reader.roll_back(on(READ)).await.unwrap();
    assert_eq!(scalar(&*bench.reader, "select count(*) from t").await, 120);
    until(&bench.sqlite, |log| !log.is_held).await;
}

#[tokio::test]
async fn a_stream_that_keeps_the_log_at_its_limit_is_ended_and_told_why() {
    let bench = with_limit(Some(8 * 1024 * 1024)).await;
    write_pages(&*bench.writer, 800).await;
    let endless = "with recursive n(i) as (select 1 union all select i + 1 from n)
        select i, (select count(*) from t) from n";
    let endless = Statement::new(endless, ()).unwrap();
    let mut cursor = bench.reader.cursor(&endless, on(READ)).await.unwrap();
    cursor.next_batch().await.unwrap();
    write_pages(&*bench.writer, 6_000).await;
    let error = loop {
        if let Err(error) = cursor.next_batch().await {
            break error;
        }
    };
    assert_eq!(error.kind(), Kind::Cancelled, "{error}");
    assert!(error.message().contains("write-ahead log"), "{error}");
    drop(cursor);
    bench.reader.clean(soon()).await.unwrap();
    until(&bench.sqlite, |log| !log.is_held).await;
}

#[tokio::test]
async fn the_thread_that_copies_ends_with_its_writer_and_keeps_no_handle() {
    let bench = fresh().await;
    write_pages(&*bench.writer, 1_500).await;
    until(&bench.sqlite, |log| log.copied_pages > 0).await;
    bench.writer.close(soon()).await;
    let info = bench.sqlite.info(&*bench.reader, soon()).await.unwrap();
    assert_eq!(info.active_connections, 1);
    // The next writer has one again.
    let writer = bench.sqlite.connect(WRITE, soon()).await.unwrap();
    for _ in 0..1_000 {
        write_pages(&*writer, 100).await;
        let info = bench.sqlite.info(&*bench.reader, soon()).await.unwrap();
        if info.active_connections == 3 {
            return;
        }
    }
    panic!("nobody copies beside the second writer");
}

#[tokio::test]
async fn a_file_with_one_connection_has_one_handle_and_copies_its_log_itself() {
    let directory = tempfile::tempdir().unwrap();
    let path = SqlitePath::File(directory.path().join("app.db"));
    let sqlite = backend_with(path, |config, _| config.connection_limit = 1);
    let only = sqlite.connect(WRITE, soon()).await.unwrap();
    execute(&*only, "create table t (a blob)").await.unwrap();
    write_pages(&*only, 5_000).await;
    let log = told(&sqlite);
    assert!(log.pages < 2_000, "{log:?}");
    let info = sqlite.info(&*only, soon()).await.unwrap();
    assert_eq!(info.active_connections, 1);
}
