use crate::{Bench, READ, WRITE, backend, execute, scalar, soon, value};
use mainstay_core::backend::Backend;
use mainstay_core::config::{Durability, SqlitePath};
use mainstay_core::{Kind, Value};
use std::fs;
use std::path::Path;

async fn refusal(path: &Path) -> mainstay_core::Error {
    let sqlite = backend(path);
    let write = sqlite.connect(WRITE, soon()).await.unwrap_err();
    let read = sqlite.connect(READ, soon()).await.unwrap_err();
    assert_eq!(write.kind(), read.kind(), "{write} / {read}");
    assert!(sqlite.is_permanent(&write), "{write}");
    write
}

#[tokio::test]
async fn a_path_that_cannot_be_a_database_is_one_clear_line() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("notes.txt");
    fs::write(
        &text,
        "not a database, but longer than a header of a hundred bytes. ".repeat(9),
    )
    .unwrap();
    for (path, words) in [
        (directory.path().to_owned(), "is a directory"),
        (directory.path().join("no/such/app.db"), "does not exist"),
        (text.clone(), "is not a SQLite database"),
        ("/dev/null".into(), "is not a regular file"),
    ] {
        let error = refusal(&path).await;
        assert_eq!(error.kind(), Kind::Config, "{error}");
        assert!(error.message().contains(words), "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
        assert!(error.remedy().is_some());
    }
    assert!(
        fs::read_to_string(&text)
            .unwrap()
            .starts_with("not a database")
    );
}

#[tokio::test]
async fn a_file_marked_read_only_is_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.db");
    assert!(backend(&path).create(soon()).await.unwrap());
    let mut permissions = fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&path, permissions).unwrap();
    let error = backend(&path).connect(WRITE, soon()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    assert!(error.message().contains("read-only"), "{error}");
}

#[tokio::test]
async fn every_setting_is_in_place_on_both_lanes() {
    let bench = Bench::new().await;
    for (connection, query_only) in [(&bench.writer, 0), (&bench.reader, 1)] {
        let number = |name: &'static str| async move {
            scalar(&**connection, &format!("select {name} from pragma_{name}")).await
        };
        assert_eq!(
            value(&**connection, "select * from pragma_journal_mode").await,
            Value::Text("wal".into())
        );
        assert_eq!(number("foreign_keys").await, 1);
        assert_eq!(number("synchronous").await, 2, "FULL");
        assert_eq!(number("query_only").await, query_only);
        assert_eq!(number("temp_store").await, 2);
        assert_eq!(number("trusted_schema").await, 0);
    }
    let relaxed = Bench::with(|_, target| target.durability = Durability::Relaxed).await;
    let text = "select synchronous from pragma_synchronous";
    assert_eq!(scalar(&*relaxed.writer, text).await, 1, "NORMAL");
}

#[tokio::test]
async fn a_reader_may_come_first() {
    let directory = tempfile::tempdir().unwrap();
    let sqlite = backend(&directory.path().join("new.db"));
    let reader = sqlite.connect(READ, soon()).await.unwrap();
    let writer = sqlite.connect(WRITE, soon()).await.unwrap();
    execute(&*writer, "create table t (a)").await.unwrap();
    assert_eq!(scalar(&*reader, "select count(*) from t").await, 0);
}

#[tokio::test]
async fn a_file_of_another_journal_mode_is_switched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("old.db");
    let old = rusqlite::Connection::open(&path).unwrap();
    old.execute_batch("pragma journal_mode = delete; create table t (a)")
        .unwrap();
    drop(old);
    let sqlite = backend(&path);
    let reader = sqlite.connect(READ, soon()).await.unwrap();
    assert_eq!(
        value(&*reader, "select * from pragma_journal_mode").await,
        Value::Text("wal".into())
    );
}

#[tokio::test]
async fn a_name_with_a_meaning_of_its_own_is_a_file() {
    let directory = tempfile::tempdir().unwrap();
    for name in [":memory:", "a?mode=memory&cache=shared", "file:b"] {
        let path = directory.path().join(name);
        let sqlite = crate::backend_with(SqlitePath::File(path.clone()), |_, _| {});
        let writer = sqlite.connect(WRITE, soon()).await.unwrap();
        execute(&*writer, "create table t (a)").await.unwrap();
        assert!(path.is_file(), "{name}");
    }
}
