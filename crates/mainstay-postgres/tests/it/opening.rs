//! BEGIN that travels with the first statement.

use crate::failure_table::{Code, Moment, assert_none, codes, difference};
use crate::fixture::*;
use crate::scripted::{At, Script, Server, Then, UNTIL_BEGUN, complaint};
use crate::sqlstates::{backend_of, until_broken};
use mainstay_core::backend::{Backend, Begin, Begun, Condition, Isolation, Lane, Savepoint, Want};
use mainstay_core::{Class, Kind, Value};
use mainstay_testkit::Cluster;

const TEXT: &str = "update t set a = 1";

/// How a transaction is begun here.
async fn begin_with_first(conn: &Conn) {
    begin_as(conn, begin()).await;
}

async fn begin_as(conn: &Conn, begin: Begin) {
    let begun = conn.begin_with_first(begin, write()).await.unwrap();
    assert_eq!(begun, Begun::WithFirst);
    assert_eq!(conn.condition(), Condition::Dirty);
}

/// A session that knows the statements of these tests, or one that has to ask for them first.
async fn writer(home: &Home, knows: bool) -> Conn {
    let conn = home.writer().await;
    if knows {
        insert(&conn, 0).await.unwrap();
        execute(&conn, "delete from t", write()).await.unwrap();
    }
    conn
}

async fn insert(conn: &Conn, id: i64) -> Result<u64, mainstay_core::Error> {
    let text = statement("insert into t values ($1)", (id,));
    let inserted = conn.run(&text, Want::Affected, write()).await;
    inserted.map(|reply| reply.affected)
}

async fn rows(home: &Home) -> String {
    home.sql("select string_agg(id::text, ',' order by id) from t")
        .await
}

#[tokio::test]
async fn what_is_committed_is_there_and_what_is_rolled_back_is_not() {
    let home = Home::new().await;
    home.sql("create table t (id int primary key)").await;
    for knows in [true, false] {
        for commits in [true, false] {
            let conn = writer(&home, knows).await;
            begin_with_first(&conn).await;
            insert(&conn, 1).await.unwrap();
            assert_eq!(rows(&home).await, "", "nothing is committed yet");
            insert(&conn, 2).await.unwrap();
            if commits {
                conn.commit(write()).await.unwrap();
            } else {
                conn.roll_back(write()).await.unwrap();
            }
            assert_eq!(conn.condition(), Condition::Clean);
            assert_eq!(rows(&home).await, if commits { "1,2" } else { "" });
            home.sql("delete from t").await;
        }
    }
}

#[tokio::test]
async fn what_was_asked_for_holds_from_the_first_statement_on() {
    let home = Home::new().await;
    let conn = home.reader().await;
    let show = "select current_setting('transaction_isolation') || \
                current_setting('transaction_read_only')";
    let ask = async |begin: Begin| {
        conn.begin_with_first(begin, write()).await.unwrap();
        let shown = value(&conn, show, (), write()).await.unwrap();
        conn.commit(write()).await.unwrap();
        shown
    };
    for _ in 0..2 {
        for (isolation, read_only, shown) in [
            (Some(Isolation::Serializable), false, "serializableoff"),
            (Some(Isolation::RepeatableRead), true, "repeatable readon"),
            (None, false, "read committedoff"),
        ] {
            let begin = Begin {
                isolation,
                read_only,
            };
            assert_eq!(ask(begin).await, Value::Text(shown.into()));
        }
    }
    assert_eq!(conn.condition(), Condition::Clean);
}

#[tokio::test]
async fn a_transaction_without_a_statement_ends_without_a_word() {
    let home = Home::new().await;
    let conn = home.writer().await;
    begin_with_first(&conn).await;
    conn.commit(write()).await.unwrap();
    assert_eq!(conn.condition(), Condition::Clean);
    begin_with_first(&conn).await;
    conn.roll_back(write()).await.unwrap();
    assert_eq!(conn.condition(), Condition::Clean);
    // Nothing was left to travel with somebody else's statement.
    execute(&conn, "select 1", write()).await.unwrap();
    assert_eq!(conn.condition(), Condition::Clean);
    let error = conn.commit(write()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::TransactionOver);
}

#[tokio::test]
async fn one_that_was_abandoned_before_its_first_statement_leaves_nothing_to_the_next_user() {
    let home = Home::new().await;
    home.sql("create table t (id int primary key)").await;
    let conn = writer(&home, true).await;
    begin_with_first(&conn).await;
    conn.clean(deadline()).await.unwrap();
    insert(&conn, 1).await.unwrap();
    assert_eq!(conn.condition(), Condition::Clean);
    assert_eq!(rows(&home).await, "1");
}

#[tokio::test]
async fn whoever_comes_second_waits_until_the_transaction_has_begun() {
    let home = Home::new().await;
    home.sql("create table t (id int primary key)").await;
    for knows in [true, false] {
        let conn = writer(&home, knows).await;
        begin_with_first(&conn).await;
        let (one, two, three) = tokio::join!(
            insert(&conn, 1),
            execute(&conn, "insert into t values (2)", write()),
            insert(&conn, 3)
        );
        assert_eq!((one.unwrap(), two.unwrap(), three.unwrap()), (1, 1, 1));
        conn.roll_back(write()).await.unwrap();
        assert_eq!(rows(&home).await, "");
    }
}

#[tokio::test]
async fn a_failed_first_statement_aborts_its_transaction() {
    let home = Home::new().await;
    home.sql("create table t (id int primary key); insert into t values (1)")
        .await;
    for knows in [true, false] {
        let conn = home.writer().await;
        if knows {
            insert(&conn, 1).await.unwrap_err();
        }
        begin_with_first(&conn).await;
        let first = insert(&conn, 1).await.unwrap_err();
        let labels = (first.kind(), first.class());
        assert_eq!(labels, (Kind::Unique, Class::Permanent));
        let second = insert(&conn, 2).await.unwrap_err();
        assert_eq!(second.sqlstate(), Some("25P02"));
        let error = conn.commit(write()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::TransactionOver);
        assert_eq!(conn.condition(), Condition::Clean);
        assert_eq!(rows(&home).await, "1");
    }
}

#[tokio::test]
async fn values_that_do_not_fit_leave_the_transaction_to_the_next_statement() {
    let home = Home::new().await;
    home.sql("create table t (id int primary key)").await;
    let conn = writer(&home, true).await;
    begin_with_first(&conn).await;
    insert(&conn, i64::MAX).await.unwrap_err();
    insert(&conn, 1).await.unwrap();
    conn.roll_back(write()).await.unwrap();
    assert_eq!(rows(&home).await, "");
}

#[tokio::test]
async fn whatever_comes_first_is_in_the_transaction() {
    let home = Home::new().await;
    home.sql("create table t (id int primary key)").await;
    let conn = home.writer().await;
    begin_with_first(&conn).await;
    conn.savepoint(Savepoint::Set(1), write()).await.unwrap();
    insert(&conn, 1).await.unwrap();
    conn.savepoint(Savepoint::RollBack(1), write())
        .await
        .unwrap();
    conn.commit(write()).await.unwrap();
    begin_with_first(&conn).await;
    conn.script(
        "insert into t values (2); insert into t values (3)",
        write(),
    )
    .await
    .unwrap();
    conn.roll_back(write()).await.unwrap();
    begin_with_first(&conn).await;
    let copy = "copy t from stdin".into();
    let mut sink = conn.copy_in(&copy, write()).await.unwrap();
    futures_util::future::poll_fn(|context| sink.as_mut().poll_finish(context))
        .await
        .unwrap();
    conn.roll_back(write()).await.unwrap();
    for _ in 0..2 {
        begin_with_first(&conn).await;
        let text = statement("insert into t values (4) returning id", ());
        let mut cursor = conn.cursor(&text, write()).await.unwrap();
        while cursor.next_batch().await.unwrap().is_some() {}
        drop(cursor);
        conn.roll_back(write()).await.unwrap();
        assert_eq!(conn.condition(), Condition::Clean);
    }
    assert_eq!(rows(&home).await, "");
}

#[tokio::test]
async fn a_statement_is_left_out_when_its_begin_is_refused() {
    let primary = start(Cluster::builder()).await;
    let copied = primary.clone();
    let standby =
        tokio::task::spawn_blocking(move || Cluster::builder().start_standby_of(&copied).unwrap());
    let standby = standby.await.unwrap();
    let backend = backend_with(&target(&standby, "postgres"), |_| {});
    for knows in [true, false] {
        // On the read lane a standby is as good as any.
        let conn = backend.connect(Lane::Read, deadline()).await.unwrap();
        if knows {
            value(&conn, "select 1", (), read()).await.unwrap();
        }
        let refused = Begin {
            isolation: Some(Isolation::Serializable),
            ..begin()
        };
        begin_as(&conn, refused).await;
        let error = value(&conn, "select 1", (), write()).await.unwrap_err();
        assert!(error.to_string().contains("hot standby"), "{error}");
        for _ in 0..2 {
            let error = value(&conn, "select 1", (), write()).await.unwrap_err();
            assert_eq!(error.kind(), Kind::TransactionOver, "{error}");
        }
        let error = conn.commit(write()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::TransactionOver, "{error}");
        assert_eq!(conn.condition(), Condition::Clean);
        value(&conn, "select 1", (), read()).await.unwrap();
    }
}

/// A session that has prepared the statement, and meets the script with the next transaction.
async fn prepared(server: &Server, script: Script) -> Conn {
    server.play(Some(script));
    let conn = backend_of(server)
        .connect(Lane::Write, deadline())
        .await
        .unwrap();
    execute(&conn, TEXT, write()).await.unwrap();
    begin_with_first(&conn).await;
    conn
}

fn is_sent_in_a_transaction(code: &Code) -> bool {
    code.severity != "NOTICE" && code.severity != "WARNING" && code.is_met_in_a_session()
}

#[tokio::test]
async fn every_code_has_its_class_in_place_of_begin_and_of_the_statement_behind_it() {
    let server = Server::start();
    let mut wrong = Vec::new();
    for code in codes().into_iter().map(crate::sqlstates::amended) {
        if !is_sent_in_a_transaction(&code) {
            continue;
        }
        for after in 0..=UNTIL_BEGUN + 1 {
            let ends = matches!(&*code.severity, "FATAL" | "PANIC");
            let conn = prepared(
                &server,
                Script {
                    at: At::First,
                    after,
                    says: code.says(),
                    then: if ends { Then::HangUp } else { Then::Ready },
                },
            )
            .await;
            let found = execute(&conn, TEXT, write()).await.map(drop);
            let name = format!("{} {} after {after}", code.severity, code.name);
            if let Some(difference) = difference(&code.facts, Moment::Transaction, &found) {
                wrong.push(format!("{name}: {difference}"));
            }
            if conn.condition() == Condition::Broken {
                continue;
            }
            // Did it begin? The scripted server would let anything through.
            let next = execute(&conn, TEXT, write()).await;
            if after < UNTIL_BEGUN && next.is_ok() {
                wrong.push(format!("{name}: the next statement ran alone"));
            }
            conn.roll_back(write()).await.unwrap();
            if execute(&conn, TEXT, write()).await.is_err() || conn.condition() != Condition::Clean
            {
                wrong.push(format!("{name}: the session is of no use"));
            }
        }
    }
    assert_none(&wrong);
}

#[tokio::test]
async fn a_connection_that_is_lost_with_the_first_statement_has_rolled_back() {
    let server = Server::start();
    for then in [Then::HangUp, Then::Reset] {
        for after in 0..=UNTIL_BEGUN + 2 {
            let conn = prepared(
                &server,
                Script {
                    at: At::First,
                    after,
                    says: Vec::new(),
                    then,
                },
            )
            .await;
            let error = execute(&conn, TEXT, write()).await.unwrap_err();
            assert_eq!(error.class(), Class::RolledBack, "{then:?} after {after}");
            until_broken(&conn).await;
            execute(&conn, TEXT, write()).await.unwrap_err();
        }
    }
}

#[tokio::test]
async fn a_notice_on_the_way_is_no_answer() {
    let server = Server::start();
    for after in 0..=UNTIL_BEGUN + 2 {
        let conn = prepared(
            &server,
            Script {
                at: At::First,
                after,
                says: complaint(b'N', "WARNING", "01000", "Scripted"),
                then: Then::GoOn,
            },
        )
        .await;
        execute(&conn, TEXT, write()).await.unwrap();
        conn.commit(write()).await.unwrap();
        assert_eq!(conn.condition(), Condition::Clean, "after {after}");
    }
}
