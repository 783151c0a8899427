use crate::{Bench, PLAIN, READ, WRITE, execute, on, run, scalar, soon, value};
use mainstay_core::backend::{Backend, Condition, Connection};
use mainstay_core::{Kind, Value};
use mainstay_sqlite::SqliteSession;
use std::time::Duration;

const SETTINGS: [&str; 9] = [
    "foreign_keys",
    "synchronous",
    "temp_store",
    "cache_size",
    "query_only",
    "journal_mode",
    "recursive_triggers",
    "ignore_check_constraints",
    "journal_size_limit",
];

async fn settings(connection: &dyn Connection) -> Vec<Value> {
    let mut found = Vec::new();
    for name in SETTINGS {
        // Read as exclusive use does it: most settings have no function.
        let session: &SqliteSession = connection.as_any().downcast_ref().unwrap();
        let read = session.call(move |native| {
            native.query_row(&format!("pragma {name}"), [], |row| {
                row.get::<_, rusqlite::types::Value>(0)
            })
        });
        found.push(Value::Text(format!(
            "{name} = {:?}",
            read.await.unwrap().unwrap()
        )));
    }
    connection.clean(soon()).await.unwrap();
    found
}

async fn change_everything(connection: &dyn Connection) {
    connection.hand_over();
    assert_eq!(connection.condition(), Condition::Dirty);
    for text in [
        "pragma foreign_keys = off",
        "pragma synchronous = off",
        "pragma temp_store = file",
        "pragma cache_size = 10",
        "pragma recursive_triggers = on",
        "pragma ignore_check_constraints = on",
        "pragma journal_size_limit = 5",
        "attach ':memory:' as other",
        "create temp table scratch (a)",
        "create temp view shown as select * from scratch",
        "begin",
        "insert into t (a) values ('left open')",
    ] {
        execute(connection, text).await.unwrap();
    }
}

#[tokio::test]
async fn whatever_exclusive_use_changed_is_restored() {
    let bench = Bench::with_table().await;
    let writer = &*bench.writer;
    let before = settings(writer).await;
    change_everything(writer).await;
    writer.clean(soon()).await.unwrap();
    assert_eq!(writer.condition(), Condition::Clean);
    assert_eq!(settings(writer).await, before);
    assert_eq!(
        scalar(
            writer,
            "select count(*) from pragma_database_list where name = 'other'"
        )
        .await,
        0
    );
    assert!(execute(writer, "select * from scratch").await.is_err());
    assert_eq!(bench.count("t").await, 0);
    let error = execute(writer, "begin").await.unwrap_err();
    assert_eq!(error.kind(), Kind::SessionStatement, "the refusal is back");
}

#[tokio::test]
async fn memory_is_restored_without_losing_it() {
    let sqlite = crate::backend_with(mainstay_core::config::SqlitePath::Memory, |_, _| {});
    let only = Backend::connect(&sqlite, WRITE, soon()).await.unwrap();
    execute(&*only, "create table t (id integer primary key, a text)")
        .await
        .unwrap();
    execute(&*only, "insert into t (a) values ('kept')")
        .await
        .unwrap();
    let before = settings(&*only).await;
    change_everything(&*only).await;
    only.clean(soon()).await.unwrap();
    assert_eq!(settings(&*only).await, before);
    assert_eq!(
        scalar(
            &*only,
            "select count(*) from pragma_database_list where name = 'other'"
        )
        .await,
        0
    );
    assert!(execute(&*only, "select * from scratch").await.is_err());
    assert_eq!(
        value(&*only, "select a from t").await,
        Value::Text("kept".into())
    );
    assert_eq!(
        execute(&*only, "begin").await.unwrap_err().kind(),
        Kind::SessionStatement
    );
}

#[tokio::test]
async fn a_reader_stays_a_reader_after_exclusive_use() {
    let bench = Bench::with_table().await;
    bench.reader.hand_over();
    execute(&*bench.reader, "pragma query_only = off")
        .await
        .unwrap();
    let error = execute(&*bench.reader, "insert into t (a) values ('x')")
        .await
        .unwrap_err();
    assert_eq!(
        error.kind(),
        Kind::ReadOnly,
        "its handle cannot write either"
    );
    bench.reader.clean(soon()).await.unwrap();
    assert_eq!(
        scalar(&*bench.reader, "select query_only from pragma_query_only").await,
        1
    );
}

#[tokio::test]
async fn the_native_handle_can_be_used_on_its_thread() {
    let bench = Bench::with_table().await;
    let session: &SqliteSession = bench.writer.as_any().downcast_ref().unwrap();
    let rows = session.call(|native| native.execute("insert into t (a) values (?1)", ["x"]));
    assert_eq!(rows.await.unwrap().unwrap(), 1);
    assert_eq!(bench.writer.condition(), Condition::Dirty);
    let panicked = session.call(|_| -> () { panic!("on purpose") }).await;
    assert_eq!(panicked.unwrap_err().kind(), Kind::Other);
    bench.writer.clean(soon()).await.unwrap();
    bench.writer.begin(PLAIN, on(WRITE)).await.unwrap();
    run(&*bench.writer, "insert into t (a) values ('y')", (), WRITE)
        .await
        .unwrap();
    bench.writer.commit(on(WRITE)).await.unwrap();
    let reply = run(&*bench.reader, "select a from t order by a", (), READ)
        .await
        .unwrap();
    assert_eq!(reply.rows.len(), 2);
}

/// A `BEGIN` by hand takes the lock of the file; whoever then forgets it must not have it for ever.
#[tokio::test]
async fn a_transaction_begun_by_hand_and_left_idle_is_rolled_back_and_nothing_leaks() {
    let bench = Bench::with(|config, _| config.timeout = Duration::from_millis(100)).await;
    let writer = &*bench.writer;
    execute(writer, "create table t (a text)").await.unwrap();
    writer.hand_over();
    let text = "begin immediate; insert into t (a) values ('forgotten')";
    writer.script(text, on(WRITE)).await.unwrap();
    // Somebody else gets the lock without the holder's doing anything.
    let other = bench.sqlite.connect(WRITE, soon()).await.unwrap();
    execute(&*other, "insert into t (a) values ('other')")
        .await
        .unwrap();
    for text in ["insert into t (a) values ('leaked')", "commit", "select 1"] {
        let error = execute(writer, text).await.unwrap_err();
        assert_eq!(error.kind(), Kind::TransactionOver, "{text}");
        assert!(error.is_timeout());
        assert!(error.message().contains("for 0.1 s"), "{error}");
    }
    let session: &SqliteSession = writer.as_any().downcast_ref().unwrap();
    let native = session.call(|native| native.total_changes()).await;
    assert_eq!(native.unwrap_err().kind(), Kind::TransactionOver);
    writer.clean(soon()).await.unwrap();
    assert_eq!(writer.condition(), Condition::Clean);
    assert_eq!(bench.count("t").await, 1);
    execute(writer, "insert into t (a) values ('next')")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_connection_whose_transaction_by_hand_is_idle_takes_what_comes_and_closes() {
    let bench = Bench::with_table().await;
    let writer = &*bench.writer;
    writer.hand_over();
    execute(writer, "begin").await.unwrap();
    execute(writer, "insert into t (a) values ('kept')")
        .await
        .unwrap();
    execute(writer, "commit").await.unwrap();
    execute(writer, "begin").await.unwrap();
    // The thread waits, and the end of the queue wakes it.
    writer.close(soon()).await;
    assert_eq!(writer.condition(), Condition::Broken);
    assert_eq!(bench.count("t").await, 1);
}
