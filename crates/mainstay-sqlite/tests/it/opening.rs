use crate::{Bench, READ, WRITE, backend, execute, scalar, soon, value};
use mainstay_core::backend::{Backend, Connection};
use mainstay_core::config::{Durability, SqlitePath};
use mainstay_core::{Kind, Value};
use rusqlite::config::DbConfig;
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

/// What a handle says of itself, setting by setting.
async fn settings(connection: &dyn Connection) -> Vec<(&'static str, i64)> {
    crate::natively(connection, |handle| {
        [
            "foreign_keys",
            "synchronous",
            "fullfsync",
            "checkpoint_fullfsync",
            "cache_size",
            "temp_store",
            "journal_size_limit",
            "query_only",
            "trusted_schema",
            "busy_timeout",
        ]
        .map(|name| {
            let read = handle.query_row(&format!("pragma {name}"), [], |row| row.get(0));
            (name, read.unwrap())
        })
        .to_vec()
    })
    .await
}

fn expected(cache_size: i64, query_only: i64) -> Vec<(&'static str, i64)> {
    vec![
        ("foreign_keys", 1),
        ("synchronous", 2),
        ("fullfsync", 1),
        ("checkpoint_fullfsync", 1),
        ("cache_size", cache_size),
        ("temp_store", 2),
        ("journal_size_limit", 64 * 1024 * 1024),
        ("query_only", query_only),
        ("trusted_schema", 0),
        // A handler of our own, which knows the caller's deadline, stands in its place.
        ("busy_timeout", 0),
    ]
}

#[tokio::test]
async fn every_setting_is_in_place_on_both_lanes() {
    let bench = Bench::new().await;
    for (connection, expected) in [
        (&bench.writer, expected(-16_000, 0)),
        (&bench.reader, expected(-8_000, 1)),
    ] {
        assert_eq!(settings(&**connection).await, expected);
        // Restored the long way, it is the same.
        connection.clean(soon()).await.unwrap();
        assert_eq!(settings(&**connection).await, expected);
        connection.clean(soon()).await.unwrap();
        assert_eq!(
            value(&**connection, "select * from pragma_journal_mode").await,
            Value::Text("wal".into())
        );
    }
    let relaxed = Bench::with(|_, target| target.durability = Durability::Relaxed).await;
    let told = settings(&*relaxed.writer).await;
    assert_eq!(
        told[1..4],
        [
            ("synchronous", 1),
            ("fullfsync", 0),
            ("checkpoint_fullfsync", 0)
        ]
    );
}

#[tokio::test]
async fn what_makes_a_hostile_file_dangerous_is_off() {
    let bench = Bench::new().await;
    for connection in [&bench.writer, &bench.reader] {
        let switches = crate::natively(&**connection, |handle| {
            [
                DbConfig::SQLITE_DBCONFIG_DEFENSIVE,
                DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA,
                DbConfig::SQLITE_DBCONFIG_DQS_DML,
                DbConfig::SQLITE_DBCONFIG_DQS_DDL,
            ]
            .map(|switch| handle.db_config(switch).unwrap())
        });
        assert_eq!(switches.await, [true, false, false, false]);
        connection.clean(soon()).await.unwrap();
        // What the switches are for.
        for text in ["select \"no such column\"", "select load_extension('x')"] {
            let error = crate::run(&**connection, text, (), READ).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Statement, "{text}: {error}");
        }
        let mapped = crate::natively(&**connection, |handle| {
            let read = handle.query_row("pragma mmap_size", [], |row| row.get::<_, i64>(0));
            read.unwrap()
        });
        assert_eq!(mapped.await, 0, "an I/O error must not be a signal");
    }
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
