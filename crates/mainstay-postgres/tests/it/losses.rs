use crate::fixture::*;
use mainstay_core::backend::{Backend, Condition, Lane, Want};
use mainstay_core::{Class, Error, Evidence, Kind};
use mainstay_postgres::ServerError;
use mainstay_testkit::Proxy;
use mainstay_testkit::proxy::Direction;

fn labels(error: &Error) -> (Kind, Class, Evidence) {
    (error.kind(), error.class(), error.evidence())
}

async fn terminate(home: &Home, pid: i64) {
    home.sql(&format!("select pg_terminate_backend({pid}, 60000)"))
        .await;
}

/// Waits until the server runs what the process was given.
async fn until_active(home: &Home, pid: i64) {
    let text = format!(
        "select count(*) from pg_stat_activity where pid = {pid} and state = 'active' and wait_event = 'PgSleep'"
    );
    mainstay_testkit::wait_for("the statement to run", LIMIT, async || {
        (home.sql(&text).await == "1").then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_operator_who_ends_a_session_is_named_with_the_right_class_per_phase() {
    let home = Home::new().await;
    home.sql("create table t (id int)").await;
    let slow = "insert into t select 1 from pg_sleep(600)";
    for (in_transaction, text, lane, class) in [
        (
            false,
            "select 1 from pg_sleep(600)",
            Lane::Read,
            Class::ReadLost,
        ),
        (false, slow, Lane::Write, Class::RolledBack),
        (true, slow, Lane::Write, Class::RolledBack),
    ] {
        let conn = home.connect(lane).await;
        let pid = pid(&conn).await;
        if in_transaction {
            conn.begin(begin(), call(lane)).await.unwrap();
        }
        let (outcome, ()) = tokio::join!(execute(&conn, text, call(lane)), async {
            until_active(&home, pid).await;
            terminate(&home, pid).await;
        });
        let error = outcome.unwrap_err();
        assert_eq!(
            labels(&error),
            (Kind::Unreachable, class, Evidence::Silent),
            "{text}"
        );
        assert_eq!(error.sqlstate(), Some("57P01"), "{error:?}");
        assert!(error.to_string().contains("57P01"), "{error}");
        assert!(error.downcast_ref::<ServerError>().is_some());
        assert_eq!(conn.condition(), Condition::Broken);
    }
    assert_eq!(home.sql("select count(*) from t").await, "0");
}

#[tokio::test]
async fn what_waited_behind_a_statement_that_was_ended_was_not_carried_out() {
    let home = Home::new().await;
    home.sql("create table t (id int)").await;
    let conn = home.writer().await;
    let (slow, quick) = (
        "insert into t select 1 from pg_sleep(600 * $1)",
        "insert into t values ($1)",
    );
    for text in [slow, quick] {
        fetch(&conn, text, (0,), write()).await.unwrap();
    }
    let pid = pid(&conn).await;
    let (first, second, ()) = tokio::join!(
        fetch(&conn, slow, (1,), write()),
        fetch(&conn, quick, (2,), write()),
        async {
            until_active(&home, pid).await;
            terminate(&home, pid).await;
        }
    );
    for error in [first.unwrap_err(), second.unwrap_err()] {
        let expected = (Kind::Unreachable, Class::RolledBack, Evidence::Silent);
        assert_eq!(labels(&error), expected, "{error:?}");
        assert_eq!(error.sqlstate(), Some("57P01"));
    }
    assert_eq!(
        home.sql("select string_agg(id::text, ',') from t").await,
        "1,0"
    );
}

#[tokio::test]
async fn a_session_that_died_while_idle_has_sent_nothing() {
    let home = Home::new().await;
    home.sql("create table t (id int)").await;
    let conn = home.writer().await;
    let pid = pid(&conn).await;
    terminate(&home, pid).await;
    let error = execute(&conn, "insert into t values (1)", write())
        .await
        .unwrap_err();
    assert!(
        matches!(error.class(), Class::NotSent | Class::RolledBack),
        "{error:?}"
    );
    assert_eq!(
        (error.kind(), error.evidence()),
        (Kind::Unreachable, Evidence::Silent)
    );
    assert_eq!(error.sqlstate(), Some("57P01"));
    assert_eq!(conn.condition(), Condition::Broken);
}

#[tokio::test]
async fn a_transaction_ended_during_a_deferred_trigger_of_its_commit_has_rolled_back() {
    let home = Home::new().await;
    home.sql(
        "create table t (id int);
         create function slow() returns trigger language plpgsql as
             'begin perform pg_sleep(600); return null; end';
         create constraint trigger slow after insert on t deferrable initially deferred
             for each row execute function slow()",
    )
    .await;
    let conn = home.writer().await;
    let pid = pid(&conn).await;
    conn.begin(begin(), write()).await.unwrap();
    execute(&conn, "insert into t values (1)", write())
        .await
        .unwrap();
    let (outcome, ()) = tokio::join!(conn.commit(write()), async {
        until_active(&home, pid).await;
        terminate(&home, pid).await;
    });
    let error = outcome.unwrap_err();
    assert_eq!(
        labels(&error),
        (Kind::Unreachable, Class::RolledBack, Evidence::Silent)
    );
    assert_eq!(home.sql("select count(*) from t").await, "0");
}

/// A backend whose connections go through a proxy.
async fn through_a_proxy(home: &Home) -> (Proxy, mainstay_postgres::Postgres) {
    let proxy = Proxy::start(("127.0.0.1", home.database.cluster().port()))
        .await
        .unwrap();
    let mut target = home.target.clone();
    target.hosts = vec![tcp("127.0.0.1", proxy.port())];
    let backend = backend_with(&target, |_| {});
    (proxy, backend)
}

#[tokio::test]
async fn a_connection_cut_before_the_answer_means_what_was_going_on() {
    let home = Home::new().await;
    home.sql("create table t (id int)").await;
    let insert = "insert into t values (1)";
    for (in_transaction, text, lane, class) in [
        (false, "select id from t", Lane::Read, Class::ReadLost),
        (false, insert, Lane::Write, Class::OutcomeUnknown),
        (true, insert, Lane::Write, Class::RolledBack),
    ] {
        let (proxy, backend) = through_a_proxy(&home).await;
        let conn = backend.connect(lane, deadline()).await.unwrap();
        execute(&conn, text, call(lane)).await.unwrap();
        if in_transaction {
            conn.begin(begin(), call(lane)).await.unwrap();
        }
        proxy.cut_after(0, Direction::FromTarget);
        let error = execute(&conn, text, call(lane)).await.unwrap_err();
        let kind = match class {
            Class::OutcomeUnknown => Kind::OutcomeUnknown,
            _ => Kind::Unreachable,
        };
        assert_eq!(
            labels(&error),
            (kind, class, Evidence::Silent),
            "{text} {in_transaction}"
        );
        assert_eq!(conn.condition(), Condition::Broken);
    }
}

#[tokio::test]
async fn a_commit_without_an_answer_is_unknown() {
    let home = Home::new().await;
    home.sql("create table t (id int)").await;
    let (proxy, backend) = through_a_proxy(&home).await;
    let conn = backend.connect(Lane::Write, deadline()).await.unwrap();
    conn.begin(begin(), write()).await.unwrap();
    execute(&conn, "insert into t values (1)", write())
        .await
        .unwrap();
    proxy.cut_after(0, Direction::FromTarget);
    let error = conn.commit(write()).await.unwrap_err();
    let unknown = (
        Kind::OutcomeUnknown,
        Class::OutcomeUnknown,
        Evidence::Silent,
    );
    assert_eq!(labels(&error), unknown);

    let conn = {
        proxy.forward().await.unwrap();
        let (fresh, backend) = through_a_proxy(&home).await;
        let conn = backend.connect(Lane::Write, deadline()).await.unwrap();
        execute(&conn, "insert into t values (2)", write())
            .await
            .unwrap();
        fresh.cut_after(0, Direction::FromTarget);
        let batch = [statement("insert into t values (2)", ())];
        let error = conn.batch(&batch, begin(), write()).await.unwrap_err();
        assert_eq!(labels(&error), unknown);
        conn
    };
    assert_eq!(conn.condition(), Condition::Broken);
}

#[tokio::test]
async fn a_connection_cut_while_preparing_has_sent_nothing() {
    let home = Home::new().await;
    home.sql("create table t (id int)").await;
    let (proxy, backend) = through_a_proxy(&home).await;
    let conn = backend.connect(Lane::Write, deadline()).await.unwrap();
    proxy.cut_after(0, Direction::FromTarget);
    let error = execute(&conn, "insert into t values (1)", write())
        .await
        .unwrap_err();
    assert_eq!(
        labels(&error),
        (Kind::Unreachable, Class::NotSent, Evidence::Silent)
    );
    assert_eq!(home.sql("select count(*) from t").await, "0");
}

#[tokio::test]
async fn a_statement_on_a_lost_connection_is_not_sent() {
    let home = Home::new().await;
    let (proxy, backend) = through_a_proxy(&home).await;
    let conn = backend.connect(Lane::Write, deadline()).await.unwrap();
    execute(&conn, "select 1", write()).await.unwrap();
    proxy.cut_all().await;
    mainstay_testkit::wait_for("the loss to be noticed", LIMIT, async || {
        (conn.condition() == Condition::Broken).then_some(())
    })
    .await
    .unwrap();
    let error = execute(&conn, "select 1", write()).await.unwrap_err();
    assert_eq!(
        labels(&error),
        (Kind::Unreachable, Class::NotSent, Evidence::Silent)
    );
    let text = statement("select 1", ());
    let error = conn.run(&text, Want::Rows(1), read()).await.unwrap_err();
    assert_eq!(error.class(), Class::NotSent);
}

#[tokio::test]
async fn a_server_that_dies_at_once_says_goodbye_in_a_notice() {
    let cluster = start(mainstay_testkit::Cluster::builder()).await;
    let backend = backend_with(&target(&cluster, "postgres"), |_| {});
    let conn = backend.connect(Lane::Write, deadline()).await.unwrap();
    execute(&conn, "create table t (id int)", write())
        .await
        .unwrap();
    let (outcome, ()) = tokio::join!(
        execute(&conn, "insert into t select 1 from pg_sleep(600)", write()),
        async {
            let busy = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
            mainstay_testkit::wait_for("the statement to run", LIMIT, async || {
                let found = cluster
                    .run(move |cluster| cluster.psql(busy))
                    .await
                    .unwrap();
                (found == "1").then_some(())
            })
            .await
            .unwrap();
            cluster
                .run(|cluster| cluster.stop(mainstay_testkit::cluster::Mode::Immediate))
                .await
                .unwrap();
        }
    );
    let error = outcome.unwrap_err();
    assert_eq!(
        (error.kind(), error.class()),
        (Kind::OutcomeUnknown, Class::OutcomeUnknown)
    );
    assert!(
        matches!(error.sqlstate(), Some("57P01" | "57P02")),
        "{error:?}"
    );
}
