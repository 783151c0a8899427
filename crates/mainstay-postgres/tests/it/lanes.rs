use crate::fixture::*;
use crate::scripted::{At, Script, Server, Then};
use crate::sqlstates::backend_of;
use mainstay_core::backend::{Backend, Begin, Condition, Connection, Lane, Presumption, Want};
use mainstay_core::{Class, Config, Evidence, Kind, Statement, Value};
use std::sync::Arc;

async fn route(home: &Home, conn: &Conn, text: &str) -> Lane {
    let text: Arc<str> = text.into();
    let lane = home
        .backend
        .route(&**conn, &text, deadline())
        .await
        .unwrap();
    assert_eq!(conn.condition(), Condition::Clean, "{text}");
    lane
}

#[tokio::test]
async fn the_server_refuses_to_write_on_the_read_lane() {
    let home = Home::new().await;
    home.sql("create table t (id int)").await;
    let conn = home.reader().await;
    for text in [
        "insert into t values (1)",
        "with x as (insert into t values (1) returning id) select * from x",
        "select * from t for update",
        "select nextval('s')",
        "create temp sequence s",
        "select * into u from t",
        "explain analyze insert into t values (1)",
    ] {
        let outcome = fetch(&conn, text, (), read()).await;
        let error = outcome.unwrap_err();
        if error.sqlstate() != Some("42P01") {
            assert!(error.is_refused_by_read_lane(), "{text}: {error:?}");
            assert_eq!(
                (error.kind(), error.class()),
                (Kind::ReadOnly, Class::Permanent),
                "{text}"
            );
            assert_eq!(error.evidence(), Evidence::Answered);
        }
        assert_eq!(conn.condition(), Condition::Clean, "{text}");
    }
    assert_eq!(home.sql("select count(*) from t").await, "0");
}

#[tokio::test]
async fn a_connection_changes_its_lane_in_the_flight_of_the_statement() {
    let home = Home::new().await;
    home.sql("create table t (id int)").await;
    let conn = home.reader().await;
    assert_eq!(
        execute(&conn, "insert into t values (1)", write())
            .await
            .unwrap(),
        1
    );
    assert_eq!(conn.lane(), Lane::Write);
    assert_eq!(conn.condition(), Condition::Clean);
    let error = execute(&conn, "insert into t values (2)", read())
        .await
        .unwrap_err();
    assert!(error.is_refused_by_read_lane());
    assert_eq!(
        (conn.lane(), conn.condition()),
        (Lane::Read, Condition::Clean)
    );
    assert_eq!(
        execute(&conn, "insert into t values (3)", write())
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        home.sql("select string_agg(id::text, ',') from t").await,
        "1,3"
    );
}

#[tokio::test]
async fn a_session_that_turned_read_only_off_is_not_lent_again() {
    let home = Home::new().await;
    for text in [
        "select set_config('default_transaction_read_only', 'off', false)",
        "set default_transaction_read_only = off",
        "set session characteristics as transaction read write",
    ] {
        let conn = home.reader().await;
        execute(&conn, text, read()).await.unwrap();
        assert_eq!(conn.condition(), Condition::Broken, "{text}");
    }
    // A session that its user had for himself is put back instead.
    let conn = home.reader().await;
    conn.hand_over();
    execute(&conn, "set default_transaction_read_only = off", read())
        .await
        .unwrap();
    conn.clean(deadline()).await.unwrap();
    assert_eq!(conn.condition(), Condition::Clean);
    let error = execute(&conn, "create table t (id int)", read())
        .await
        .unwrap_err();
    assert!(error.is_refused_by_read_lane());
}

const WRITERS: &str = "
create table log (line text);
create function plain() returns int language plpgsql as
    $$ begin insert into log values ('plain'); return 1; end $$;
create function \"Swallows\"() returns int language plpgsql as
    $$ begin insert into log values ('swallows'); return 1; exception when others then return 0; end $$;
create function stable_handler() returns int language plpgsql stable as
    $$ begin return \"Swallows\"(); exception when others then return 0; end $$;
create function dynamic() returns int language plpgsql stable as
    $$ begin execute 'select \"Swal' || 'lows\"()'; return 1; exception when others then return 0; end $$;
create function wrapper() returns int language sql stable as 'select \"Swallows\"()';
create view hidden as select \"Swallows\"() as it;
create view hidden_twice as select it from hidden;
create function harmless(int) returns int language sql immutable as 'select $1 + 1';
create function steady(int) returns int language plpgsql stable as $$ begin return $1; end $$;
create table guarded (id int);
alter table guarded enable row level security;
create policy watch on guarded using (\"Swallows\"() >= 0);
create function swallow_op(int, text) returns int language plpgsql as
    $$ begin insert into log values ('op'); return 1; exception when others then return 0; end $$;
create operator <<<! (leftarg = int, rightarg = text, function = swallow_op);
create aggregate collect(int) (sfunc = collect_step, stype = int, initcond = '0');
";

#[tokio::test]
async fn a_select_that_may_write_unseen_is_routed_to_the_write_lane() {
    let home = Home::new().await;
    let step = "create function collect_step(int, int) returns int language plpgsql as
        $$ begin insert into log values ('step'); return $1; exception when others then return 0; end $$;";
    home.sql(&format!("{step}{WRITERS}")).await;
    let conn = home.reader().await;
    for text in [
        "select plain()",
        "select \"Swallows\"()",
        "select public.plain ( )",
        "select stable_handler()",
        "select wrapper()",
        "select dynamic()",
        "select * from hidden",
        "table hidden_twice",
        "select count(*) from guarded",
        "select 1 <<<! 'x'",
        "select collect(id) from guarded",
        "select 1 from log where line = 'x' and PLAIN() = 1",
        "select pg_notify('c', 'p')",
        "select pg_advisory_lock(1)",
        "select set_config('a.b', 'c', false)",
    ] {
        assert_eq!(route(&home, &conn, text).await, Lane::Write, "{text}");
    }
    for text in [
        "select 1",
        "select harmless(1), steady(2)",
        "select line from log where line like 'plain()'",
        "select now(), random(), gen_random_uuid()",
        "select count(*) from log -- plain()",
        "select 1 <> 2, 3 << 1",
    ] {
        assert_eq!(route(&home, &conn, text).await, Lane::Read, "{text}");
    }
    assert_eq!(
        home.backend.presume("do $$ begin end $$"),
        Presumption::Writes
    );
    assert_eq!(home.backend.presume("call p()"), Presumption::Writes);
}

#[tokio::test]
async fn a_function_with_a_recorded_body_is_followed() {
    let home = Home::new().await;
    home.sql(WRITERS.split("create aggregate").next().unwrap())
        .await;
    home.sql("create function atomic() returns int language sql stable begin atomic select it from hidden; end")
        .await;
    let conn = home.reader().await;
    assert_eq!(route(&home, &conn, "select atomic()").await, Lane::Write);
}

fn single(config: &mut Config) {
    config.connection_limit = 1;
}

#[tokio::test]
async fn one_connection_reads_in_transactions_that_may_not_write() {
    let home = Home::with(single).await;
    home.sql("create table t (id int)").await;
    let conn = home.reader().await;
    let error = fetch(&conn, "insert into t values (1) returning id", (), read())
        .await
        .unwrap_err();
    assert!(error.is_refused_by_read_lane(), "{error:?}");
    assert_eq!(conn.condition(), Condition::Clean);
    fetch(&conn, "insert into t values (2) returning id", (), write())
        .await
        .unwrap();
    let found = value(&conn, "select id from t", (), read()).await.unwrap();
    assert_eq!((found, conn.condition()), (Value::Int(2), Condition::Clean));
    let mut cursor = conn
        .cursor(&statement("select id from t", ()), read())
        .await
        .unwrap();
    assert_eq!(cursor.next_batch().await.unwrap().unwrap().len(), 1);
    assert!(cursor.next_batch().await.unwrap().is_none());
    drop(cursor);
    assert_eq!(conn.condition(), Condition::Clean);
    let refused = conn
        .cursor(
            &statement("insert into t values (3) returning id", ()),
            read(),
        )
        .await;
    let error = match refused {
        Err(error) => error,
        Ok(mut cursor) => cursor.next_batch().await.unwrap_err(),
    };
    assert!(error.is_refused_by_read_lane());
    conn.clean(deadline()).await.unwrap();
    assert_eq!(home.sql("select count(*) from t").await, "1");
}

#[tokio::test]
async fn a_pooler_is_used_without_prepared_statements() {
    let home = Home::new().await;
    home.sql("create table t (id int)").await;
    let mut target = home.target.clone();
    target.pgbouncer = true;
    let backend = backend_with(&target, |_| {});
    let conn = backend.connect(Lane::Read, deadline()).await.unwrap();
    let error = fetch(&conn, "insert into t values ($1)", (1,), read())
        .await
        .unwrap_err();
    assert!(error.is_refused_by_read_lane(), "{error:?}");
    fetch(&conn, "insert into t values ($1)", (1,), write())
        .await
        .unwrap();
    let found = value(&conn, "select id from t where id = $1", (1,), read())
        .await
        .unwrap();
    assert_eq!(found, Value::Int(1));
    let prepared = value(
        &conn,
        "select count(*) from pg_prepared_statements",
        (),
        read(),
    )
    .await;
    assert_eq!(
        (prepared.unwrap(), conn.condition()),
        (Value::Int(0), Condition::Clean)
    );
}

#[tokio::test]
async fn inside_a_read_only_transaction_a_write_is_the_callers_mistake() {
    let home = Home::new().await;
    home.sql("create table t (id int)").await;
    let conn = home.reader().await;
    conn.begin(
        Begin {
            isolation: None,
            read_only: true,
        },
        read(),
    )
    .await
    .unwrap();
    let error = execute(&conn, "insert into t values (1)", read())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::ReadOnly);
    assert!(!error.is_refused_by_read_lane());
    conn.roll_back(read()).await.unwrap();
    // And a writing transaction writes, whatever the session's lane is.
    conn.begin(begin(), write()).await.unwrap();
    assert_eq!(
        execute(&conn, "insert into t values (1)", write())
            .await
            .unwrap(),
        1
    );
    conn.commit(write()).await.unwrap();
    // It has gone over to the write lane, in the same flight, and comes back as any other.
    assert_eq!(
        (conn.lane(), conn.condition()),
        (Lane::Write, Condition::Clean)
    );
    let error = execute(&conn, "insert into t values (2)", read())
        .await
        .unwrap_err();
    assert!(error.is_refused_by_read_lane(), "{error:?}");
    assert_eq!(
        (conn.lane(), conn.condition()),
        (Lane::Read, Condition::Clean)
    );
}

fn lost_at_the_setting(then: Then) -> Script {
    Script {
        at: At::Query("SET"),
        after: 0,
        says: Vec::new(),
        then,
    }
}

async fn check_that_a_read_is_not_sent(conn: &dyn Connection, text: &Statement, is_shared: bool) {
    let outcome = if is_shared {
        conn.run_shared(text, Want::Affected, read()).await
    } else {
        conn.run(text, Want::Affected, read()).await
    };
    let error = outcome.unwrap_err();
    assert_eq!(
        (error.kind(), error.class()),
        (Kind::Unreachable, Class::NotSent),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_read_after_a_write_that_is_lost_with_its_setting_was_not_sent() {
    let server = Server::start();
    let text = statement("select a from t", ());
    for is_shared in [false, true] {
        server.play(Some(lost_at_the_setting(Then::HangUp)));
        let backend = backend_of(&server);
        let conn = backend.connect(Lane::Write, deadline()).await.unwrap();
        // From here on the statement is prepared, and the session is one for writes.
        conn.run(&text, Want::Affected, write()).await.unwrap();
        check_that_a_read_is_not_sent(&*conn, &text, is_shared).await;
    }
}

#[tokio::test]
async fn a_first_read_that_is_lost_with_its_setting_was_not_sent() {
    let server = Server::start();
    let text = statement("select a from t", ());
    for then in [Then::HangUp, Then::Reset] {
        for is_shared in [false, true] {
            server.play(Some(lost_at_the_setting(then)));
            let backend = backend_of(&server);
            let conn = backend.connect(Lane::Read, deadline()).await.unwrap();
            check_that_a_read_is_not_sent(&*conn, &text, is_shared).await;
        }
    }
}
