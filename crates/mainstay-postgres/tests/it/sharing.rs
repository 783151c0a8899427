//! Strangers on one session do not feel each other.

use crate::fixture::*;
use futures_util::future::{join, join_all};
use mainstay_core::backend::{Burden, Call, Condition, Lane, Want};
use mainstay_core::{Class, Deadline, Error, IntoParams, Kind, Value};
use std::time::Duration;
use tokio::time::Instant;

const SLEEPS_LONG: &str = "select pg_sleep(30)";

/// Prepares the sleeper and the neighbours, so that they are sent in the order in which they are asked.
async fn prepared(conn: &Conn) {
    neighbours(conn, 1).await;
    let call = soon(Duration::from_millis(300));
    assert!(shared(conn, SLEEPS_LONG, (), call).await.is_err());
    is_clean_in_the_end(conn).await;
}

fn soon(after: Duration) -> Call {
    Call {
        lane: Lane::Read,
        deadline: Deadline::from_now(after),
    }
}

async fn shared(
    conn: &Conn,
    text: &str,
    params: impl IntoParams,
    call: Call,
) -> Result<Vec<Value>, Error> {
    let statement = statement(text, params);
    let reply = conn
        .run_shared(&statement, Want::Rows(usize::MAX), call)
        .await?;
    let values = reply.rows.into_iter().flat_map(|row| row.into_values());
    Ok(values.collect())
}

/// Reads of strangers, each of which must be answered with its own number.
async fn neighbours(conn: &Conn, count: i64) {
    let answers = (0..count).map(|number| async move {
        let answer = shared(conn, "select $1 + 1", (number,), read()).await;
        assert_eq!(answer.unwrap(), [Value::Int(number + 1)]);
    });
    join_all(answers).await;
}

async fn is_clean_in_the_end(conn: &Conn) {
    if conn.condition() != Condition::Clean {
        conn.clean(deadline()).await.unwrap();
    }
    assert_eq!(conn.condition(), Condition::Clean);
    let answer = value(conn, "select 40 + 2", (), read()).await.unwrap();
    assert_eq!(answer, Value::Int(42));
}

#[tokio::test]
async fn each_of_many_gets_its_own_answer_and_the_session_is_clean() {
    let home = Home::new().await;
    let conn = home.reader().await;
    neighbours(&conn, 200).await;
    assert_eq!(conn.condition(), Condition::Clean);
}

#[tokio::test]
async fn all_who_want_a_text_wait_for_one_preparation() {
    let home = Home::new().await;
    let conn = home.reader().await;
    neighbours(&conn, 50).await;
    let count = "select count(*) from pg_prepared_statements where statement like 'select $1 + 1'";
    let prepared = value(&conn, count, (), read()).await.unwrap();
    assert_eq!(prepared, Value::Int(1));
}

#[tokio::test]
async fn an_error_touches_no_neighbour() {
    let home = Home::new().await;
    let conn = home.reader().await;
    for _ in 0..20 {
        let wrong = async {
            let error = shared(&conn, "select 1 / $1", (0,), read()).await;
            assert_eq!(error.unwrap_err().sqlstate(), Some("22012"));
        };
        join(join(wrong, neighbours(&conn, 10)), neighbours(&conn, 10)).await;
        assert_eq!(conn.condition(), Condition::Clean);
    }
}

#[tokio::test]
async fn a_dropped_read_costs_nobody_anything() {
    let home = Home::new().await;
    let conn = home.reader().await;
    neighbours(&conn, 1).await;
    for polls in 0..6 {
        let gone = shared(&conn, "select $1 + 1", (1,), read());
        let gone = async {
            let mut gone = Box::pin(gone);
            for _ in 0..polls {
                let polled = std::future::poll_fn(|context| {
                    std::task::Poll::Ready(gone.as_mut().poll(context).is_ready())
                });
                if polled.await {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        join(gone, neighbours(&conn, 10)).await;
        // Those who were behind it have been answered, so it is over as well.
        assert_eq!(conn.condition(), Condition::Clean, "after {polls} polls");
    }
}

#[tokio::test]
async fn the_last_one_to_be_dropped_is_stopped_by_cleaning() {
    let home = Home::new().await;
    let conn = home.reader().await;
    let error = shared(&conn, SLEEPS_LONG, (), soon(Duration::from_millis(300))).await;
    assert!(error.unwrap_err().is_timeout());
    assert_eq!(conn.condition(), Condition::Dirty);
    let begun = Instant::now();
    is_clean_in_the_end(&conn).await;
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn one_that_keeps_others_waiting_is_stopped_and_they_are_answered() {
    let home = Home::new().await;
    let conn = home.reader().await;
    prepared(&conn).await;
    let begun = Instant::now();
    let slow = async {
        let error = shared(&conn, SLEEPS_LONG, (), read()).await.unwrap_err();
        assert_eq!(error.burden(), Some(Burden::Slow));
        assert_eq!(error.class(), Class::ReadLost);
    };
    join(slow, neighbours(&conn, 20)).await;
    assert!(begun.elapsed() < Duration::from_secs(10));
    is_clean_in_the_end(&conn).await;
}

#[tokio::test]
async fn one_that_is_overdue_is_told_on_time_and_the_others_are_answered() {
    let home = Home::new().await;
    let conn = home.reader().await;
    prepared(&conn).await;
    let begun = Instant::now();
    let late = async {
        let call = soon(Duration::from_millis(20));
        let error = shared(&conn, SLEEPS_LONG, (), call).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Timeout, "{error}");
        assert!(error.burden().is_none());
    };
    join(late, neighbours(&conn, 20)).await;
    assert!(begun.elapsed() < Duration::from_secs(10));
    is_clean_in_the_end(&conn).await;
}

#[tokio::test]
async fn a_slow_read_that_nobody_waits_behind_runs_to_its_end() {
    let home = Home::new().await;
    let conn = home.reader().await;
    let slept = shared(&conn, "select pg_sleep(0.4), 7", (), read()).await;
    assert_eq!(slept.unwrap()[1], Value::Int(7));
    assert_eq!(conn.condition(), Condition::Clean);
}

#[tokio::test]
async fn nobody_hears_of_a_cancel_request_for_somebody_else() {
    let home = Home::new().await;
    let conn = home.reader().await;
    prepared(&conn).await;
    // Each is long enough to be hit by a request that was meant for the one before it.
    for _ in 0..8 {
        let slow = shared(&conn, SLEEPS_LONG, (), soon(Duration::from_millis(70)));
        let behind = (0..12).map(|number: i64| {
            let conn = &conn;
            async move {
                let text = "select $1 + 1 from pg_sleep(0.01)";
                let answer = shared(conn, text, (number,), read()).await;
                assert_eq!(answer.unwrap(), [Value::Int(number + 1)]);
            }
        });
        let (slow, _) = join(slow, join_all(behind)).await;
        assert!(slow.is_err());
    }
    is_clean_in_the_end(&conn).await;
}

#[tokio::test]
async fn a_cancel_by_an_operator_is_reported() {
    let home = Home::new().await;
    let conn = home.reader().await;
    let pid = pid(&conn).await;
    let stopped = async {
        let error = shared(&conn, SLEEPS_LONG, (), read()).await.unwrap_err();
        assert_eq!((error.sqlstate(), error.burden()), (Some("57014"), None));
    };
    let stop = async {
        let running = "select count(*) from pg_stat_activity where query like '%pg_sleep(30)%' \
                       and state = 'active' and pid <> pg_backend_pid()";
        while home.sql(running).await != "1" {
            tokio::task::yield_now().await;
        }
        home.sql(&format!("select pg_cancel_backend({pid})")).await;
    };
    join(stopped, stop).await;
}

#[tokio::test]
async fn a_result_that_grows_large_is_given_up() {
    let home = Home::new().await;
    let conn = home.reader().await;
    let large = async {
        let text = "select repeat('x', 1000) from generate_series(1, 100000)";
        let error = shared(&conn, text, (), read()).await.unwrap_err();
        assert_eq!(error.burden(), Some(Burden::Large));
        assert_eq!(error.class(), Class::ReadLost);
    };
    join(large, neighbours(&conn, 20)).await;
    is_clean_in_the_end(&conn).await;
}

#[tokio::test]
async fn large_parameters_are_not_sent_beside_others() {
    let home = Home::new().await;
    let conn = home.reader().await;
    let text = "select length($1)";
    let length = async |bytes: usize| shared(&conn, text, ("x".repeat(bytes),), read()).await;
    for bytes in [1, 100_000] {
        let expected = Value::Int(i64::try_from(bytes).unwrap());
        assert_eq!(length(bytes).await.unwrap(), [expected]);
    }
    let error = length(200_000).await.unwrap_err();
    assert_eq!(error.burden(), Some(Burden::Slow));
    is_clean_in_the_end(&conn).await;
}

#[tokio::test]
async fn the_setting_changes_with_the_first_read_and_the_next_ones_rely_on_it() {
    let home = Home::new().await;
    home.sql("create table t (id int)").await;
    let conn = home.writer().await;
    let lane = "select current_setting('default_transaction_read_only')";
    let first = shared(&conn, lane, (), read()).await.unwrap();
    assert_eq!(first, [Value::Text("on".into())]);
    assert_eq!(
        (conn.lane(), conn.condition()),
        (Lane::Read, Condition::Clean)
    );
    let refused = async {
        let error = shared(&conn, "insert into t values (1)", (), read()).await;
        assert!(error.unwrap_err().is_refused_by_read_lane());
    };
    join(refused, neighbours(&conn, 10)).await;
    assert_eq!(conn.condition(), Condition::Clean);
    assert_eq!(home.sql("select count(*) from t").await, "0");
}

#[tokio::test]
async fn those_who_lose_the_connection_may_all_ask_again() {
    let home = Home::new().await;
    let conn = home.reader().await;
    let pid = pid(&conn).await;
    neighbours(&conn, 1).await;
    let lost = (0..10).map(|_| shared(&conn, "select pg_sleep(20)", (), read()));
    let end = async {
        let running = "select count(*) from pg_stat_activity where query like '%pg_sleep(20)%' \
                       and state = 'active' and pid <> pg_backend_pid()";
        while home.sql(running).await != "1" {
            tokio::task::yield_now().await;
        }
        home.sql(&format!("select pg_terminate_backend({pid})"))
            .await;
    };
    let (lost, ()) = join(join_all(lost), end).await;
    for error in lost {
        let error = error.unwrap_err();
        // The first one may have been stopped already because the others wait.
        let class = error.class();
        assert!(
            matches!(class, Class::ReadLost | Class::NotSent),
            "{error:?}"
        );
    }
    assert_eq!(conn.condition(), Condition::Broken);
}
