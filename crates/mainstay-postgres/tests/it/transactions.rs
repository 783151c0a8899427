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

/// Whether a transaction may write, and whether its session's next one may by default.
async fn access_modes(conn: &Conn, begin: Begin) -> (Value, Value) {
    conn.begin(begin, write()).await.unwrap();
    let show = |name| statement("select current_setting($1)", (name,));
    let mut modes = Vec::new();
    for name in ["transaction_read_only", "default_transaction_read_only"] {
        let want = mainstay_core::backend::Want::Rows(1);
        let mut reply = conn.run(&show(name), want, write()).await.unwrap();
        modes.push(reply.rows.remove(0).into_values().remove(0));
    }
    conn.commit(write()).await.unwrap();
    (modes.remove(0), modes.remove(0))
}

#[tokio::test]
async fn a_transaction_writes_or_does_not_whatever_lane_its_session_was_on() {
    let home = Home::new().await;
    let (on, off) = (Value::Text("on".into()), Value::Text("off".into()));
    let reads = Begin {
        isolation: None,
        read_only: true,
    };
    for conn in [home.reader().await, home.writer().await] {
        for _ in 0..2 {
            let modes = access_modes(&conn, begin()).await;
            assert_eq!(modes, (off.clone(), off.clone()));
            assert_eq!(access_modes(&conn, reads).await.0, on);
            fetch(&conn, "select 1", (), read()).await.unwrap();
            assert_eq!(access_modes(&conn, reads).await, (on.clone(), on.clone()));
            assert_eq!(conn.condition(), Condition::Clean);
        }
    }
}

#[tokio::test]
async fn a_role_that_does_not_write_by_default_writes_in_a_transaction_that_asks_for_it() {
    // With one connection, where the lane is no setting of the session, and with several.
    for limit in [1, 10] {
        let home = Home::with(|config| config.connection_limit = limit).await;
        home.sql("create table t (id int)").await;
        home.sql(&format!(
            "alter database {} set default_transaction_read_only = on",
            home.database.name()
        ))
        .await;
        let conn = home.writer().await;
        for _ in 0..2 {
            conn.begin(begin(), write()).await.unwrap();
            let insert = "insert into t values (1)";
            let error = execute(&conn, insert, write()).await.unwrap_err();
            assert_eq!(error.kind(), Kind::ReadOnly, "{error}");
            conn.roll_back(write()).await.unwrap();
            conn.begin(begin(), write()).await.unwrap();
            let ask = "set local transaction_read_only = off";
            execute(&conn, ask, write()).await.unwrap();
            execute(&conn, insert, write()).await.unwrap();
            conn.commit(write()).await.unwrap();
        }
    }
}
