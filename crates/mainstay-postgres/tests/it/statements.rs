use crate::fixture::*;
use mainstay_core::backend::{Condition, Want};
use mainstay_core::{Class, Kind, Value};

const PREPARED: &str = "select count(*) from pg_prepared_statements";

#[tokio::test]
async fn the_statement_cache_is_bounded_and_what_goes_is_closed() {
    let home = Home::with(|config| config.statement_cache_size = 5).await;
    let conn = home.reader().await;
    for number in 0..50 {
        let answer = value(&conn, &format!("select {number}"), (), read())
            .await
            .unwrap();
        assert_eq!(answer, Value::Int(number));
    }
    let Value::Int(kept) = value(&conn, PREPARED, (), read()).await.unwrap() else {
        panic!()
    };
    assert!(kept <= 6, "{kept} statements are prepared");
    assert_eq!(conn.condition(), Condition::Clean);
}

#[tokio::test]
async fn a_statement_is_prepared_once() {
    let home = Home::new().await;
    let conn = home.reader().await;
    for number in 0..20 {
        let answer = value(&conn, "select $1::int", (number,), read())
            .await
            .unwrap();
        assert_eq!(answer, Value::Int(number));
    }
    assert_eq!(
        value(&conn, PREPARED, (), read()).await.unwrap(),
        Value::Int(2)
    );
}

#[tokio::test]
async fn a_plan_that_a_migration_made_stale_is_prepared_anew() {
    let home = Home::new().await;
    home.sql("create table t (id int); insert into t values (1)")
        .await;
    let conn = home.writer().await;
    let select = "select * from t";
    assert_eq!(
        fetch(&conn, select, (), write()).await.unwrap()[0]
            .values()
            .len(),
        1
    );
    home.sql("alter table t add column name text default 'x'")
        .await;
    assert_eq!(
        fetch(&conn, select, (), write()).await.unwrap()[0]
            .values()
            .len(),
        2
    );
    execute(&conn, "deallocate all", write()).await.unwrap();
    assert_eq!(fetch(&conn, select, (), write()).await.unwrap().len(), 1);
    assert_eq!(conn.condition(), Condition::Clean);
}

#[tokio::test]
async fn a_stale_plan_inside_a_transaction_asks_for_the_whole_again() {
    let home = Home::new().await;
    home.sql("create table t (id int)").await;
    let conn = home.writer().await;
    let select = "select * from t";
    fetch(&conn, select, (), write()).await.unwrap();
    home.sql("alter table t add column name text").await;
    conn.begin(begin(), write()).await.unwrap();
    let error = fetch(&conn, select, (), write()).await.unwrap_err();
    assert_eq!(error.class(), Class::RolledBack, "{error:?}");
    conn.roll_back(write()).await.unwrap();
    conn.begin(begin(), write()).await.unwrap();
    fetch(&conn, select, (), write()).await.unwrap();
    conn.commit(write()).await.unwrap();
}

#[tokio::test]
async fn a_plan_that_was_refused_to_one_session_is_tried_by_no_other() {
    let home = Home::new().await;
    home.sql("create table t (id int)").await;
    let sessions = [
        home.writer().await,
        home.writer().await,
        home.writer().await,
    ];
    let select = "select * from t";
    for session in &sessions {
        fetch(session, select, (), write()).await.unwrap();
    }
    home.sql("alter table t add column name text").await;
    let [first, others @ ..] = &sessions;
    first.begin(begin(), write()).await.unwrap();
    fetch(first, select, (), write()).await.unwrap_err();
    first.roll_back(write()).await.unwrap();
    for other in others {
        other.begin(begin(), write()).await.unwrap();
        fetch(other, select, (), write()).await.unwrap();
        other.commit(write()).await.unwrap();
    }
}

#[tokio::test]
async fn no_more_rows_are_kept_than_are_wanted() {
    let home = Home::new().await;
    home.sql("create table t (id int)").await;
    let conn = home.writer().await;
    let insert = statement(
        "insert into t select generate_series(1, 1000) returning id",
        (),
    );
    let reply = conn.run(&insert, Want::Rows(2), write()).await.unwrap();
    assert_eq!((reply.rows.len(), reply.affected), (2, 1_000));
    assert_eq!(conn.condition(), Condition::Clean);
    assert_eq!(home.sql("select count(*) from t").await, "1000");
    let reply = conn
        .run(
            &statement("select 1 as a where false", ()),
            Want::Rows(1),
            read(),
        )
        .await;
    let reply = reply.unwrap();
    assert_eq!((reply.rows.len(), reply.columns[0].name()), (0, "a"));
}

#[tokio::test]
async fn wrong_statements_are_permanent_and_leave_the_session_clean() {
    let home = Home::new().await;
    let conn = home.writer().await;
    for text in [
        "selec 1",
        "select * from nowhere",
        "select nothing",
        "select 1; select 2",
        "select f(1)",
    ] {
        let error = fetch(&conn, text, (), write()).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.class()),
            (Kind::Statement, Class::Permanent),
            "{text}"
        );
        assert_eq!(conn.condition(), Condition::Clean, "{text}");
    }
    let error = fetch(&conn, "copy (select 1) to stdout", (), write())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Statement);
    let error = fetch(&conn, "select 'a\0b'", (), write())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Statement);
}

#[tokio::test]
async fn constraint_violations_have_their_kinds() {
    let home = Home::new().await;
    home.sql(
        "create table up (id int primary key);
         create table t (id int primary key, n int not null check (n > 0), up int references up,
             span int4range, exclude using gist (span with &&))",
    )
    .await;
    let conn = home.writer().await;
    execute(&conn, "insert into t values (1, 1, null, '[1,5)')", write())
        .await
        .unwrap();
    for (text, kind, constraint) in [
        ("insert into t values (1, 1)", Kind::Unique, "t_pkey"),
        ("insert into t values (2, null)", Kind::NotNull, "t.n"),
        ("insert into t values (2, -1)", Kind::Check, "t_n_check"),
        (
            "insert into t values (2, 1, 99)",
            Kind::ForeignKey,
            "t_up_fkey",
        ),
        (
            "insert into t values (2, 1, null, '[2,3)')",
            Kind::Check,
            "t_span_excl",
        ),
    ] {
        let error = execute(&conn, text, write()).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.constraint()),
            (kind, Some(constraint)),
            "{text}"
        );
    }
}

#[tokio::test]
async fn the_servers_own_limit_is_a_timeout() {
    let home = Home::with(|config| {
        config.statement_timeout = Some(std::time::Duration::from_millis(50));
    })
    .await;
    let conn = home.reader().await;
    let error = execute(&conn, "select pg_sleep(600)", read())
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.class()),
        (Kind::Timeout, Class::Permanent)
    );
    assert_eq!(conn.condition(), Condition::Clean);
}
