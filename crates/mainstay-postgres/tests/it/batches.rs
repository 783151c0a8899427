use crate::fixture::*;
use mainstay_core::backend::{Begin, Condition};
use mainstay_core::{Class, Kind, Statement, Value};

fn inserts(ids: &[i64]) -> Vec<Statement> {
    ids.iter()
        .map(|id| statement("insert into t values ($1)", (*id,)))
        .collect()
}

#[tokio::test]
async fn a_batch_happens_as_a_whole() {
    let home = Home::new().await;
    home.sql("create table t (id int primary key)").await;
    let conn = home.reader().await;
    let mut batch = inserts(&[1, 2, 3]);
    batch.push(statement("update t set id = id + 10", ()));
    assert_eq!(
        conn.batch(&batch, begin(), write()).await.unwrap(),
        [1, 1, 1, 3]
    );
    assert_eq!(conn.condition(), Condition::Clean);
    assert_eq!(
        home.sql("select string_agg(id::text, ',' order by id) from t")
            .await,
        "11,12,13"
    );
}

#[tokio::test]
async fn a_batch_that_fails_has_not_happened() {
    let home = Home::new().await;
    home.sql("create table t (id int primary key)").await;
    let conn = home.writer().await;
    let error = conn
        .batch(&inserts(&[1, 2, 1, 4]), begin(), write())
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.class()),
        (Kind::Unique, Class::Permanent)
    );
    assert_eq!(conn.condition(), Condition::Clean);
    assert_eq!(home.sql("select count(*) from t").await, "0");
}

#[tokio::test]
async fn a_batch_that_fails_at_commit_has_not_happened() {
    let home = Home::new().await;
    home.sql(
        "create table t (id int primary key, up int references t deferrable initially deferred)",
    )
    .await;
    let conn = home.writer().await;
    let batch = [statement("insert into t values (1, 99)", ())];
    let error = conn.batch(&batch, begin(), write()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.class()),
        (Kind::ForeignKey, Class::Permanent)
    );
    assert_eq!(conn.condition(), Condition::Clean);
    assert_eq!(home.sql("select count(*) from t").await, "0");
}

#[tokio::test]
async fn a_statement_of_a_batch_sees_what_an_earlier_one_made() {
    let home = Home::new().await;
    let conn = home.writer().await;
    let batch = [
        statement("create table t (id int)", ()),
        statement("insert into t values ($1), ($2)", (1, 2)),
    ];
    assert_eq!(conn.batch(&batch, begin(), write()).await.unwrap(), [0, 2]);
    let batch = [
        statement("create table u (id int)", ()),
        statement("insert into u values (1)", ()),
        statement("insert into nowhere values (1)", ()),
    ];
    let error = conn.batch(&batch, begin(), write()).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("42P01"));
    assert_eq!(conn.condition(), Condition::Clean);
    assert_eq!(home.sql("select to_regclass('u') is null").await, "t");
}

#[tokio::test]
async fn a_batch_that_may_not_write_is_refused_as_a_whole() {
    let home = Home::new().await;
    home.sql("create table t (id int primary key)").await;
    let conn = home.writer().await;
    let read_only = Begin {
        isolation: None,
        read_only: true,
    };
    let error = conn
        .batch(&inserts(&[1]), read_only, write())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::ReadOnly);
    assert_eq!(home.sql("select count(*) from t").await, "0");
}

#[tokio::test]
async fn values_that_do_not_fit_stop_a_batch_before_it_is_sent() {
    let home = Home::new().await;
    home.sql("create table t (id int primary key)").await;
    let conn = home.writer().await;
    let error = conn
        .batch(&inserts(&[1, i64::MAX]), begin(), write())
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), conn.condition()),
        (Kind::Decode, Condition::Clean)
    );
    let count = value(&conn, "select count(*) from t", (), write())
        .await
        .unwrap();
    assert_eq!(count, Value::Int(0));
}

#[tokio::test]
async fn a_large_batch_keeps_its_order() {
    let home = Home::new().await;
    home.sql("create table t (n bigint generated always as identity, id int)")
        .await;
    let conn = home.writer().await;
    let ids: Vec<i64> = (0..500).collect();
    let batch: Vec<_> = ids
        .iter()
        .map(|id| statement("insert into t (id) values ($1)", (*id,)))
        .collect();
    conn.batch(&batch, begin(), write()).await.unwrap();
    assert_eq!(
        home.sql("select bool_and(n = id + 1), count(*) from t")
            .await,
        "t|500"
    );
}
