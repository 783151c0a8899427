//! A check finds out what has become of the file.

use crate::{Bench, PLAIN, READ, WRITE, execute, natively, on, scalar, soon};
use mainstay_core::backend::{Backend, Condition, Want};
use mainstay_core::{Class, Evidence, Kind, Statement};
use std::fs;
use std::io::Write;

/// Puts everything into the file itself and forgets nothing of it.
async fn checkpoint(bench: &Bench) {
    natively(&*bench.writer, |handle| {
        let text = "pragma wal_checkpoint(truncate)";
        let busy: i64 = handle.query_row(text, [], |row| row.get(0)).unwrap();
        assert_eq!(busy, 0);
    })
    .await;
    bench.writer.clean(soon()).await.unwrap();
}

#[tokio::test]
async fn a_header_that_was_overwritten_is_noticed() {
    let bench = Bench::with_table().await;
    checkpoint(&bench).await;
    assert_eq!(bench.count("t").await, 0);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .open(bench.path())
        .unwrap();
    file.write_all(&[0xff; 100]).unwrap();
    drop(file);
    // The handle's own pages still say that all is well.
    assert_eq!(
        scalar(
            &*bench.reader,
            "select schema_version from pragma_schema_version"
        )
        .await,
        1
    );
    let error = bench.reader.check(soon()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.class()),
        (Kind::Storage, Class::Permanent),
        "{error}"
    );
    assert_eq!(error.evidence(), Evidence::Silent);
    assert_eq!(bench.reader.condition(), Condition::Broken);
}

#[tokio::test]
async fn a_file_that_was_deleted_is_noticed_by_both_checks() {
    let bench = Bench::with_table().await;
    fs::remove_file(bench.path()).unwrap();
    let error = bench.reader.check(soon()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Storage, "{error}");
    assert!(error.message().contains("moved or deleted"), "{error}");
    assert!(!bench.path().exists(), "a check makes no file");
}

#[tokio::test]
async fn a_file_that_was_replaced_is_noticed() {
    let bench = Bench::with_table().await;
    let other = bench.directory.path().join("other.db");
    assert!(crate::backend(&other).create(soon()).await.unwrap());
    fs::rename(&other, bench.path()).unwrap();
    let error = bench.writer.check(soon()).await.unwrap_err();
    assert!(error.message().contains("replaced"), "{error}");
}

#[tokio::test]
async fn a_write_probe_sees_a_file_that_may_not_be_written_any_more() {
    let bench = Bench::with_table().await;
    bench.writer.check_writing(soon()).await.unwrap();
    assert_eq!(bench.writer.condition(), Condition::Clean);
    let mut permissions = fs::metadata(bench.path()).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(bench.path(), permissions).unwrap();
    bench.reader.check(soon()).await.unwrap();
    let error = bench.writer.check_writing(soon()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::ReadOnly, "{error}");
    assert_eq!(error.evidence(), Evidence::Exhausted);
}

#[tokio::test]
async fn a_write_probe_waits_for_the_lock_until_its_deadline_and_writes_nothing() {
    let bench = Bench::with_table().await;
    let other = rusqlite::Connection::open(bench.path()).unwrap();
    let version = "select data_version from pragma_data_version";
    let before = scalar(&*bench.reader, version).await;
    bench.writer.check_writing(soon()).await.unwrap();
    assert_eq!(scalar(&*bench.reader, version).await, before);
    other.execute_batch("begin immediate").unwrap();
    let late = mainstay_core::Deadline::from_now(std::time::Duration::from_millis(50));
    let error = bench.writer.check_writing(late).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout, "{error}");
    bench.reader.check(soon()).await.unwrap();
    other.execute_batch("rollback").unwrap();
    bench.writer.check_writing(soon()).await.unwrap();
    execute(&*bench.writer, "insert into t (a) values ('x')")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_dropped_write_probe_leaves_no_transaction() {
    let bench = Bench::with_table().await;
    let other = rusqlite::Connection::open(bench.path()).unwrap();
    other.execute_batch("begin immediate").unwrap();
    let probe = tokio::time::timeout(
        std::time::Duration::from_millis(20),
        bench.writer.check_writing(soon()),
    );
    assert!(probe.await.is_err(), "the lock is taken");
    other.execute_batch("rollback").unwrap();
    bench.writer.clean(soon()).await.unwrap();
    assert_eq!(bench.writer.condition(), Condition::Clean);
    bench.writer.begin(PLAIN, on(WRITE)).await.unwrap();
    bench.writer.roll_back(on(WRITE)).await.unwrap();
    let reader = bench.sqlite.connect(READ, soon()).await.unwrap();
    reader.check(soon()).await.unwrap();
}

/// SQLite would take the write, tell that it is on the disk, and it would be gone with the process.
#[tokio::test]
async fn a_file_that_was_deleted_or_replaced_takes_no_more_writes_until_it_is_back() {
    let bench = Bench::with_table().await;
    let (path, elsewhere) = (bench.path(), bench.directory.path().join("elsewhere.db"));
    let writer = &*bench.writer;
    let insert = Statement::new("insert into t (a) values ('x')", ()).unwrap();
    let statements = [insert.clone(), insert.clone()];
    for replaced in [false, true] {
        fs::rename(&path, &elsewhere).unwrap();
        if replaced {
            fs::write(&path, "").unwrap();
        }
        let one = writer.run_shared(&insert, Want::Affected, on(WRITE)).await;
        let batch = writer.batch_shared(&statements, PLAIN, on(WRITE)).await;
        let begun = writer.begin(PLAIN, on(WRITE)).await;
        let word = if replaced {
            "replaced"
        } else {
            "moved or deleted"
        };
        for error in [one.unwrap_err(), batch.unwrap_err(), begun.unwrap_err()] {
            assert_eq!(
                (error.kind(), error.class()),
                (Kind::Storage, Class::NotSent)
            );
            assert!(error.message().contains(word), "{error}");
        }
        fs::rename(&elsewhere, &path).unwrap();
    }
    writer
        .run_shared(&insert, Want::Affected, on(WRITE))
        .await
        .unwrap();
    assert_eq!(bench.count("t").await, 1);
}
