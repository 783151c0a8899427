//! A file that is there for as long as it is open.

use crate::{READ, WRITE, backend_with, execute, natively, scalar, soon};
use mainstay_core::backend::{Backend, Layout};
use mainstay_core::config::SqlitePath;
use std::path::PathBuf;

async fn path(connection: &dyn mainstay_core::backend::Connection) -> PathBuf {
    let path = natively(connection, |handle| handle.path().unwrap().to_owned());
    PathBuf::from(path.await)
}

#[tokio::test]
async fn a_temporary_database_has_lanes_and_a_log_and_is_never_synced() {
    let sqlite = backend_with(SqlitePath::Temporary, |_, _| {});
    assert_eq!(sqlite.target(), "file:?temp");
    assert!(matches!(
        sqlite.layout(),
        Layout::Split {
            readers: 4,
            writers: 1
        }
    ));
    let writer = sqlite.connect(WRITE, soon()).await.unwrap();
    let reader = sqlite.connect(READ, soon()).await.unwrap();
    execute(&*writer, "create table t (a)").await.unwrap();
    execute(&*writer, "insert into t values (1)").await.unwrap();
    assert_eq!(scalar(&*reader, "select count(*) from t").await, 1);
    let synchronous = "select synchronous from pragma_synchronous";
    assert_eq!(scalar(&*writer, synchronous).await, 0);
    let info = sqlite.info(&*reader, soon()).await.unwrap();
    assert_eq!(info.file.unwrap().journal_mode, "wal");
}

#[tokio::test]
async fn a_temporary_database_stays_while_it_is_open_and_leaves_nothing() {
    let sqlite = backend_with(SqlitePath::Temporary, |_, _| {});
    let writer = sqlite.connect(WRITE, soon()).await.unwrap();
    let path = path(&*writer).await;
    execute(&*writer, "create table t (a)").await.unwrap();
    writer.close(soon()).await;
    // The pool may close every connection when nobody has used them for a while.
    let reader = sqlite.connect(READ, soon()).await.unwrap();
    assert_eq!(scalar(&*reader, "select count(*) from t").await, 0);
    let directory = path.parent().unwrap().to_owned();
    drop(sqlite);
    assert!(path.exists(), "a connection is still open");
    reader.close(soon()).await;
    assert!(!directory.exists());
}

#[tokio::test]
async fn every_temporary_database_is_another_one() {
    let one = backend_with(SqlitePath::Temporary, |_, _| {});
    let other = backend_with(SqlitePath::Temporary, |_, _| {});
    let writer = one.connect(WRITE, soon()).await.unwrap();
    execute(&*writer, "create table t (a)").await.unwrap();
    let stranger = other.connect(WRITE, soon()).await.unwrap();
    execute(&*stranger, "create table t (a)").await.unwrap();
    assert_ne!(path(&*writer).await, path(&*stranger).await);
}
