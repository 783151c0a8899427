use crate::fixture::*;
use mainstay_core::backend::{Begin, Condition, Isolation, Savepoint};
use mainstay_core::{Class, Kind, Value};

#[tokio::test]
async fn what_is_committed_is_there_and_what_is_rolled_back_is_not() {
    let home = Home::new().await;
    home.sql("create table t (id int)").await;
    let conn = home.writer().await;
    for (id, commits) in [(1, true), (2, false)] {
        conn.begin(begin(), write()).await.unwrap();
        assert_eq!(conn.condition(), Condition::Dirty);
        execute(&conn, &format!("insert into t values ({id})"), write())
            .await
            .unwrap();
        if commits {
            conn.commit(write()).await.unwrap();
        } else {
            conn.roll_back(write()).await.unwrap();
        }
        assert_eq!(conn.condition(), Condition::Clean);
    }
    assert_eq!(home.sql("select id from t").await, "1");
}

#[tokio::test]
async fn a_failed_statement_aborts_its_transaction() {
    let home = Home::new().await;
    home.sql("create table t (id int primary key)").await;
    let conn = home.writer().await;
    conn.begin(begin(), write()).await.unwrap();
    execute(&conn, "insert into t values (1)", write())
        .await
        .unwrap();
    let first = execute(&conn, "insert into t values (1)", write())
        .await
        .unwrap_err();
    assert_eq!(
        (first.kind(), first.class()),
        (Kind::Unique, Class::Permanent)
    );
    let second = execute(&conn, "insert into t values (2)", write())
        .await
        .unwrap_err();
    assert_eq!(
        (second.kind(), second.class()),
        (Kind::TransactionOver, Class::Permanent)
    );
    assert!(
        second.to_string().contains("aborted by an earlier error"),
        "{second}"
    );
    conn.roll_back(write()).await.unwrap();
    assert_eq!(conn.condition(), Condition::Clean);
}

#[tokio::test]
async fn to_commit_an_aborted_transaction_is_an_error() {
    let home = Home::new().await;
    home.sql("create table t (id int primary key)").await;
    let conn = home.writer().await;
    conn.begin(begin(), write()).await.unwrap();
    execute(&conn, "insert into t values (1)", write())
        .await
        .unwrap();
    execute(&conn, "select 1 / 0", write()).await.unwrap_err();
    let error = conn.commit(write()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.class()),
        (Kind::TransactionOver, Class::Permanent)
    );
    assert_eq!(conn.condition(), Condition::Clean);
    conn.roll_back(write()).await.unwrap();
    assert_eq!(home.sql("select count(*) from t").await, "0");
}

#[tokio::test]
async fn a_constraint_that_waits_for_commit_fails_it() {
    let home = Home::new().await;
    home.sql(
        "create table t (id int primary key, up int references t deferrable initially deferred)",
    )
    .await;
    let conn = home.writer().await;
    conn.begin(begin(), write()).await.unwrap();
    execute(&conn, "insert into t values (1, 99)", write())
        .await
        .unwrap();
    let error = conn.commit(write()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.class()),
        (Kind::ForeignKey, Class::Permanent)
    );
    assert_eq!(conn.condition(), Condition::Clean);
    assert_eq!(home.sql("select count(*) from t").await, "0");
}

#[tokio::test]
async fn a_transaction_that_was_ended_from_inside_is_not_committed_again() {
    let home = Home::new().await;
    home.sql("create table t (id int)").await;
    let conn = home.writer().await;
    conn.begin(begin(), write()).await.unwrap();
    execute(&conn, "rollback", write()).await.unwrap();
    let error = conn.commit(write()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::TransactionOver);
    assert_eq!(conn.condition(), Condition::Clean);
}

#[tokio::test]
async fn serialization_failures_ask_for_the_whole_transaction_again() {
    let home = Home::new().await;
    home.sql("create table t (id int, n int); insert into t values (1, 0)")
        .await;
    let (one, two) = (home.writer().await, home.writer().await);
    let serializable = Begin {
        isolation: Some(Isolation::Serializable),
        read_only: false,
    };
    for conn in [&one, &two] {
        conn.begin(serializable, write()).await.unwrap();
        let level = value(conn, "show transaction_isolation", (), write())
            .await
            .unwrap();
        assert_eq!(level, Value::Text("serializable".into()));
        fetch(conn, "select n from t", (), write()).await.unwrap();
    }
    execute(&one, "update t set n = n + 1", write())
        .await
        .unwrap();
    one.commit(write()).await.unwrap();
    let error = execute(&two, "update t set n = n + 1", write())
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.class()),
        (Kind::Conflict, Class::RolledBack)
    );
    assert_eq!(error.sqlstate(), Some("40001"));
    two.roll_back(write()).await.unwrap();
}

#[tokio::test]
async fn a_savepoint_lifts_the_aborted_state() {
    let home = Home::new().await;
    home.sql("create table t (id int primary key)").await;
    let conn = home.writer().await;
    conn.begin(begin(), write()).await.unwrap();
    execute(&conn, "insert into t values (1)", write())
        .await
        .unwrap();
    conn.savepoint(Savepoint::Set(1), write()).await.unwrap();
    execute(&conn, "insert into t values (2)", write())
        .await
        .unwrap();
    conn.savepoint(Savepoint::Set(2), write()).await.unwrap();
    execute(&conn, "insert into t values (1)", write())
        .await
        .unwrap_err();
    conn.savepoint(Savepoint::RollBack(2), write())
        .await
        .unwrap();
    conn.savepoint(Savepoint::Release(1), write())
        .await
        .unwrap();
    execute(&conn, "insert into t values (3)", write())
        .await
        .unwrap();
    conn.commit(write()).await.unwrap();
    assert_eq!(
        home.sql("select string_agg(id::text, ',' order by id) from t")
            .await,
        "1,2,3"
    );
}

#[tokio::test]
async fn two_statements_of_one_transaction_travel_together() {
    let home = Home::new().await;
    home.sql("create table t (id int)").await;
    let conn = home.writer().await;
    conn.begin(begin(), write()).await.unwrap();
    let (one, two) = tokio::join!(
        execute(&conn, "insert into t values (1), (2)", write()),
        execute(&conn, "insert into t values (3)", write()),
    );
    assert_eq!((one.unwrap(), two.unwrap()), (2, 1));
    conn.commit(write()).await.unwrap();
    assert_eq!(home.sql("select count(*) from t").await, "3");
}
