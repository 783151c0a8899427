use crate::fixture::*;
use mainstay_core::backend::{Backend, BoxFuture, Condition, Lane, Savepoint, Want};
use mainstay_core::{Deadline, Kind, Value};
use mainstay_testkit::poll_times;
use std::time::Duration;

/// Something that is done to a connection.
type Deed = for<'a> fn(&'a Conn, usize) -> BoxFuture<'a, bool>;

async fn leaves_a_connection_that_can_be_cleaned(deed: Deed) {
    let home = Home::new().await;
    home.sql("create table t (id int); insert into t select generate_series(1, 1000)")
        .await;
    let mut conn = home.reader().await;
    for times in 0..40 {
        let finished = deed(&conn, times).await;
        if conn.condition() != Condition::Clean {
            conn.clean(deadline()).await.unwrap();
        }
        assert_eq!(conn.condition(), Condition::Clean, "after {times} polls");
        let answer = value(&conn, "select 40 + 2", (), read()).await.unwrap();
        assert_eq!(
            answer,
            Value::Int(42),
            "somebody else's answer after {times} polls"
        );
        let open = "select count(*) from pg_stat_activity where datname = current_database() \
                    and state like 'idle in transaction%'";
        assert_eq!(home.sql(open).await, "0", "after {times} polls");
        if finished {
            return;
        }
        // A new session for every second round, so that preparing is interrupted as well.
        if times % 2 == 1 {
            conn = home.reader().await;
        }
    }
    panic!("it never finished");
}

#[tokio::test]
async fn a_dropped_statement_leaves_a_cleanable_connection() {
    leaves_a_connection_that_can_be_cleaned(|conn, times| {
        Box::pin(async move {
            let text = statement("select id from t where id > $1", (10,));
            poll_times(conn.run(&text, Want::Rows(5), read()), times).await
        })
    })
    .await;
}

#[tokio::test]
async fn a_dropped_shared_statement_leaves_a_cleanable_connection() {
    leaves_a_connection_that_can_be_cleaned(|conn, times| {
        Box::pin(async move {
            let text = statement("select id from t where id > $1", (10,));
            poll_times(conn.run_shared(&text, Want::Rows(5), read()), times).await
        })
    })
    .await;
}

#[tokio::test]
async fn a_dropped_write_leaves_a_cleanable_connection() {
    leaves_a_connection_that_can_be_cleaned(|conn, times| {
        Box::pin(async move {
            let text = statement("insert into t values ($1)", (10,));
            poll_times(conn.run(&text, Want::Affected, write()), times).await
        })
    })
    .await;
}

#[tokio::test]
async fn a_dropped_transaction_leaves_a_cleanable_connection() {
    leaves_a_connection_that_can_be_cleaned(|conn, times| {
        let work = Box::pin(async move {
            conn.begin(begin(), write()).await.unwrap();
            execute(conn, "insert into t values (1)", write())
                .await
                .unwrap();
            conn.savepoint(Savepoint::Set(1), write()).await.unwrap();
            conn.savepoint(Savepoint::RollBack(1), write())
                .await
                .unwrap();
            conn.commit(write()).await.unwrap();
        });
        Box::pin(poll_times(work, times))
    })
    .await;
}

#[tokio::test]
async fn a_dropped_transaction_that_begins_with_its_first_statement_leaves_a_cleanable_connection()
{
    leaves_a_connection_that_can_be_cleaned(|conn, times| {
        let work = Box::pin(async move {
            conn.begin_with_first(begin(), write()).await.unwrap();
            for _ in 0..2 {
                execute(conn, "insert into t values (1)", write())
                    .await
                    .unwrap();
            }
            conn.commit(write()).await.unwrap();
        });
        Box::pin(poll_times(work, times))
    })
    .await;
}

#[tokio::test]
async fn a_dropped_batch_leaves_a_cleanable_connection() {
    leaves_a_connection_that_can_be_cleaned(|conn, times| {
        Box::pin(async move {
            let batch = [
                statement("insert into t values (1)", ()),
                statement("delete from t", ()),
            ];
            poll_times(conn.batch(&batch, begin(), write()), times).await
        })
    })
    .await;
}

#[tokio::test]
async fn a_dropped_cursor_leaves_a_cleanable_connection() {
    leaves_a_connection_that_can_be_cleaned(|conn, times| {
        let work = Box::pin(async move {
            let text = statement("select a.id from t a, t b limit 2000", ());
            let mut cursor = conn.cursor(&text, read()).await.unwrap();
            while cursor.next_batch().await.unwrap().is_some() {}
        });
        Box::pin(poll_times(work, times))
    })
    .await;
}

#[tokio::test]
async fn a_dropped_preparation_leaves_no_statement_on_the_server() {
    let home = Home::new().await;
    let conn = home.reader().await;
    for number in 0..50 {
        let text = statement(&format!("select {number}"), ());
        let finished = poll_times(conn.run(&text, Want::Rows(1), read()), 1).await;
        assert!(!finished);
        conn.clean(deadline()).await.unwrap();
    }
    let prepared = "select string_agg(statement, '; ') from pg_prepared_statements";
    let kept = value(&conn, prepared, (), read()).await.unwrap();
    assert_eq!(kept, Value::Text(prepared.into()));
}

#[tokio::test]
async fn what_a_dropped_statement_still_runs_is_stopped() {
    let home = Home::new().await;
    let conn = home.writer().await;
    let running = "select count(*) from pg_stat_activity where query like 'select pg_sleep%' and state = 'active'";
    {
        let text = statement("select pg_sleep(600)", ());
        let mut sleep = conn.run(&text, Want::Affected, write());
        tokio::select! {
            _ = &mut sleep => panic!("it did not sleep"),
            () = until(&home, running, "1") => {}
        }
    }
    assert_eq!(conn.condition(), Condition::Dirty);
    conn.clean(deadline()).await.unwrap();
    assert_eq!(home.sql(running).await, "0");
    assert_eq!(conn.condition(), Condition::Clean);
    // The cancel request has hit what it was meant for and nothing after it.
    for _ in 0..20 {
        execute(&conn, "select 1", write()).await.unwrap();
    }
}

async fn until(home: &Home, text: &'static str, answer: &'static str) {
    mainstay_testkit::wait_for(text, LIMIT, async || {
        (home.sql(text).await == answer).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_deadline_stops_the_wait_and_says_what_it_means() {
    let home = Home::new().await;
    home.sql("create function slow() returns int language plpgsql as 'begin perform pg_sleep(600); return 1; end'")
        .await;
    // A read is given up by us. A write is stopped by the server, which its deadline has reached: so
    // it is known that nothing was written, and nothing is left to clean.
    for (lane, condition) in [
        (Lane::Read, Condition::Dirty),
        (Lane::Write, Condition::Clean),
    ] {
        let conn = home.connect(lane).await;
        let soon = mainstay_core::backend::Call {
            lane,
            deadline: Deadline::from_now(Duration::from_millis(1_000)),
        };
        let error = execute(&conn, "select slow()", soon).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Timeout);
        assert!(error.is_timeout());
        assert_eq!(conn.condition(), condition);
        conn.clean(deadline()).await.unwrap();
        assert_eq!(conn.condition(), Condition::Clean);
    }
}

#[tokio::test]
async fn a_session_that_was_handed_over_comes_back_as_it_was() {
    let home = Home::new().await;
    home.sql("create table t (id int); create type mood as enum ('a')")
        .await;
    let conn = home.reader().await;
    // The driver asks for types it does not know with statements of its own.
    fetch(&conn, "select 'a'::mood as m", (), read())
        .await
        .unwrap();
    conn.hand_over();
    let client = session(&conn).client();
    client
        .batch_execute("set default_transaction_read_only = off")
        .await
        .unwrap();
    client
        .batch_execute(
            "set work_mem = '77MB'; listen somewhere;
             prepare mine as select 1; create temp table junk (id int);
             select pg_advisory_lock(42); begin; insert into t values (1); declare c cursor for select 1",
        )
        .await
        .unwrap();
    assert_eq!(conn.condition(), Condition::Dirty);
    conn.clean(deadline()).await.unwrap();
    assert_eq!(
        (conn.condition(), conn.lane()),
        (Condition::Clean, Lane::Write)
    );
    let left = fetch(
        &conn,
        "select current_setting('work_mem'), (select count(*) from pg_prepared_statements where from_sql),
            (select count(*) from pg_locks where locktype = 'advisory'),
            (select count(*) from pg_listening_channels()), to_regclass('junk') is null,
            (select count(*) from t), current_setting('default_transaction_read_only')",
        (),
        read(),
    )
    .await
    .unwrap()
    .remove(0);
    let left: (String, i64, i64, i64, bool, i64, String) = left.decode().unwrap();
    assert_eq!(left, ("4MB".into(), 0, 0, 0, true, 0, "on".into()));
    home.sql("create type mood2 as enum ('b')").await;
    let found = value(&conn, "select 'b'::mood2 as m", (), read())
        .await
        .unwrap();
    assert_eq!(found, Value::Text("b".into()));
}

#[tokio::test]
async fn a_session_left_in_the_middle_of_a_copy_is_cleaned_or_given_up() {
    let home = Home::new().await;
    home.sql("create table t (id int)").await;
    let conn = home.writer().await;
    conn.hand_over();
    {
        let sink = session(&conn)
            .client()
            .copy_in::<_, bytes::Bytes>("copy t from stdin")
            .await;
        drop(sink.unwrap());
    }
    if conn.clean(deadline()).await.is_ok() {
        assert_eq!(conn.condition(), Condition::Clean);
        execute(&conn, "insert into t values (1)", write())
            .await
            .unwrap();
    } else {
        assert_eq!(conn.condition(), Condition::Broken);
    }
}

/// Waits until the server has no session left in this database.
async fn until_alone(home: &Home) {
    let left = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
    until(home, left, "0").await;
}

#[tokio::test]
async fn a_session_that_nobody_holds_any_more_ends() {
    let home = Home::new().await;
    let conn = home.reader().await;
    let text = statement(
        "select n, pg_sleep(0.01) from generate_series(1, 1000000) n",
        (),
    );
    let mut cursor = conn.cursor(&text, read()).await.unwrap();
    cursor.next_batch().await.unwrap().unwrap();
    drop(conn);
    drop(cursor);
    until_alone(&home).await;
}

/// A connection whose statement was dropped while the server runs it for ten minutes.
async fn asleep(home: &Home) -> Conn {
    let conn = home.backend.connect(Lane::Read, deadline()).await.unwrap();
    let text = statement("select pg_sleep(600)", ());
    {
        let mut sleep = conn.run(&text, Want::Affected, read());
        let running = "select count(*) from pg_stat_activity where query like 'select pg_sleep%' and state = 'active'";
        tokio::select! {
            _ = &mut sleep => panic!("it did not sleep"),
            () = until(home, running, "1") => {}
        }
    }
    conn
}

#[tokio::test]
async fn a_session_that_is_closed_while_it_is_cleaned_stops_what_it_runs() {
    let home = Home::new().await;
    let conn = asleep(&home).await;
    assert!(!poll_times(conn.clean(deadline()), 1).await);
    conn.close(deadline()).await;
    until_alone(&home).await;
}

#[tokio::test]
async fn a_closed_session_is_gone_from_the_server() {
    let home = Home::new().await;
    let conn = asleep(&home).await;
    conn.close(deadline()).await;
    assert_eq!(conn.condition(), Condition::Broken);
    let error = execute(&conn, "select 1", read()).await.unwrap_err();
    assert_eq!(error.class(), mainstay_core::Class::NotSent);
    until_alone(&home).await;
}
