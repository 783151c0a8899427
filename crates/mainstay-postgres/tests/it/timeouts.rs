//! The deadline of a call travels to the server.

use crate::fixture::{Conn, Home, begin, call, execute, session, statement, value};
use mainstay_core::backend::{Call, Condition, Lane, Want};
use mainstay_core::{Class, Deadline, Evidence, Kind, Timestamp, Value};
use std::time::Duration;

/// A call with this much time.
fn within(time: Duration) -> Call {
    Call {
        lane: Lane::Write,
        deadline: Deadline::from_now(time),
    }
}

async fn setting(conn: &Conn, call: Call) -> String {
    let shown = value(
        conn,
        "select current_setting('statement_timeout')",
        (),
        call,
    );
    match shown.await.unwrap() {
        Value::Text(text) => text,
        other => panic!("{other:?}"),
    }
}

fn long() -> Call {
    call(Lane::Write)
}

const SOON: Duration = Duration::from_millis(700);

/// A write that would take ten seconds, commits by itself, and leaves a row if it is not stopped.
const SLOW_WRITE: &str = "insert into t select 1 from pg_sleep(10)";

#[tokio::test]
async fn a_write_that_is_too_slow_is_stopped_by_the_server_and_its_outcome_is_known() {
    let home = Home::new().await;
    home.sql("create table t (n int)").await;
    let writer = home.writer().await;
    let error = execute(&writer, SLOW_WRITE, within(SOON))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.sqlstate()),
        (Kind::Timeout, Some("57014"))
    );
    assert_eq!(
        (error.class(), error.evidence()),
        (Class::Permanent, Evidence::Answered)
    );
    assert!(error.is_timeout() && error.doubt().is_none());
    // The next one finds the session as it was, without having been cleaned.
    assert_eq!(writer.condition(), Condition::Clean);
    assert_eq!(setting(&writer, long()).await, "0");
    assert_eq!(home.sql("select count(*) from t").await.trim(), "0");
}

#[tokio::test]
async fn the_limit_has_no_round_trip_of_its_own_and_holds_for_one_statement() {
    let home = Home::new().await;
    home.sql("create table t (n int)").await;
    let writer = home.writer().await;
    let insert = "insert into t values (1) returning current_setting('statement_timeout')";
    let seen = value(&writer, insert, (), within(SOON)).await.unwrap();
    assert!(
        matches!(&seen, Value::Text(text) if text.ends_with("ms")),
        "{seen:?}"
    );
    assert_eq!(setting(&writer, long()).await, "0");
    // Whoever has the usual patience sends nothing.
    assert_eq!(
        value(&writer, insert, (), long()).await.unwrap(),
        Value::Text("0".into())
    );
}

#[tokio::test]
async fn a_session_that_is_stricter_already_is_left_alone() {
    for limit in ["200ms", "3s"] {
        let home = Home::new().await;
        home.sql("create table t (n int)").await;
        home.sql(&format!(
            "do $$ begin execute format('alter database %I set statement_timeout = ''{limit}''', current_database()); end $$"
        ))
        .await;
        let writer = home.writer().await;
        let insert = "insert into t values (1) returning current_setting('statement_timeout')";
        let seen = value(&writer, insert, (), within(SOON)).await.unwrap();
        let Value::Text(seen) = seen else {
            panic!("{seen:?}")
        };
        if limit == "200ms" {
            assert_eq!(seen, limit);
        } else {
            assert!(seen.ends_with("ms"), "{seen}");
        }
        assert_eq!(setting(&writer, long()).await, limit, "its own again");
    }
}

#[tokio::test]
async fn a_transaction_has_the_limit_for_itself_and_commit_has_none() {
    let home = Home::new().await;
    home.sql("create table t (n int)").await;
    // A check that waits until COMMIT, and takes longer than the limit.
    home.sql(
        "create function slow() returns trigger language plpgsql as \
         $$ begin perform pg_sleep(1.2); return null; end $$; \
         create constraint trigger slow after insert on t deferrable initially deferred \
         for each row execute function slow()",
    )
    .await;
    let writer = home.writer().await;
    writer.begin(begin(), within(SOON)).await.unwrap();
    assert!(setting(&writer, long()).await.ends_with("ms"));
    execute(&writer, "insert into t values (1)", long())
        .await
        .unwrap();
    writer.commit(long()).await.unwrap();
    assert_eq!(home.sql("select count(*) from t").await.trim(), "1");
    assert_eq!(setting(&writer, long()).await, "0");
    // And a statement inside is stopped.
    writer.begin(begin(), within(SOON)).await.unwrap();
    let error = execute(&writer, "select pg_sleep(10)", long())
        .await
        .unwrap_err();
    assert_eq!(error.sqlstate(), Some("57014"));
    writer.roll_back(long()).await.unwrap();
    assert_eq!(setting(&writer, long()).await, "0");
}

#[tokio::test]
async fn a_batch_is_stopped_as_a_whole() {
    let home = Home::new().await;
    home.sql("create table t (n int)").await;
    let writer = home.writer().await;
    let statements = [
        statement("insert into t values (1)", ()),
        statement(SLOW_WRITE, ()),
    ];
    let error = writer
        .batch(&statements, begin(), within(SOON))
        .await
        .unwrap_err();
    assert_eq!(error.sqlstate(), Some("57014"), "{error}");
    assert_eq!(home.sql("select count(*) from t").await.trim(), "0");
    assert_eq!(setting(&writer, long()).await, "0");
}

#[tokio::test]
async fn a_dropped_write_leaves_no_limit_behind() {
    let home = Home::new().await;
    home.sql("create table t (n int)").await;
    let writer = home.writer().await;
    let write = execute(&writer, SLOW_WRITE, within(Duration::from_secs(5)));
    let dropped = tokio::time::timeout(Duration::from_millis(300), write).await;
    assert!(dropped.is_err());
    assert_eq!(writer.condition(), Condition::Dirty);
    writer.clean(long().deadline).await.unwrap();
    assert_eq!(writer.condition(), Condition::Clean);
    assert_eq!(setting(&writer, long()).await, "0");
}

#[tokio::test]
async fn a_setting_that_a_user_made_in_his_own_session_is_his() {
    let home = Home::new().await;
    home.sql("create table t (n int)").await;
    let writer = home.writer().await;
    writer.hand_over();
    session(&writer)
        .client()
        .batch_execute("set statement_timeout = '44s'")
        .await
        .unwrap();
    writer
        .run(
            &statement("insert into t values (1)", ()),
            Want::Affected,
            within(SOON),
        )
        .await
        .unwrap();
    assert_eq!(setting(&writer, long()).await, "44s");
}

#[tokio::test]
async fn an_outcome_that_stays_unknown_names_the_session_it_was_sent_to() {
    // With so little patience in all, this deadline is an ordinary one and does not travel.
    let home = Home::with(|config| config.timeout = Duration::from_millis(900)).await;
    home.sql("create table t (n int)").await;
    let writer = home.writer().await;
    let process = crate::fixture::pid(&writer).await;
    let before = Timestamp::now();
    let error = execute(&writer, SLOW_WRITE, within(SOON))
        .await
        .unwrap_err();
    assert!(error.is_outcome_unknown() && error.is_timeout(), "{error}");
    let doubt = error.doubt().unwrap();
    assert_eq!(doubt.process().map(i64::from), Some(process));
    assert!(before <= doubt.since() && doubt.since() <= Timestamp::now());
    assert_eq!(doubt.token(), None);
}
