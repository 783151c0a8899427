//! What only a PostgreSQL server shows.

use futures_util::future::join_all;
use mainstay::{Database, Error, Kind, TransactionOptions};
use mainstay_testkit::cluster::Mode;
use mainstay_testkit::proxy::Direction;
use mainstay_testkit::{Cluster, Proxy, TestDatabase, wait_for};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

async fn fresh() -> (TestDatabase, Database) {
    let database = mainstay_testkit::database().await.unwrap();
    let db = Database::connect(&format!("{}?connection_limit=4", database.url()))
        .await
        .unwrap();
    (database, db)
}

async fn log_count(db: &Database) -> i64 {
    db.fetch_one("select count(*) from log", ()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_select_that_writes_through_a_function_writes() {
    let (_database, db) = fresh().await;
    db.execute("create table log (what text)", ())
        .await
        .unwrap();
    for definition in [
        "create function plain() returns int language sql as \
         $$ insert into log values ('plain') returning 1 $$",
        "create function swallowing() returns int language plpgsql as $$ begin \
         begin insert into log values ('swallowing'); exception when others then null; end; \
         return 1; end $$",
        "create view hidden as select swallowing() as done",
        "create view deeper as select done from hidden",
        "create procedure proc() language sql as $$ insert into log values ('proc') $$",
    ] {
        db.execute(definition, ()).await.unwrap();
    }
    let mut expected = 0;
    for text in [
        "select plain()",
        "select swallowing()",
        "select done from hidden",
        "select * from deeper",
    ] {
        for _ in 0..2 {
            let _: i64 = db.fetch_one(text, ()).await.unwrap();
            expected += 1;
            assert_eq!(log_count(&db).await, expected, "{text}");
        }
    }
    for text in [
        "call proc()",
        "do $$ begin insert into log values ('do'); end $$",
    ] {
        db.execute(text, ()).await.unwrap();
        expected += 1;
        assert_eq!(log_count(&db).await, expected, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_replaced_by_one_that_writes_is_noticed() {
    let (_database, db) = fresh().await;
    db.execute("create table log (what text)", ())
        .await
        .unwrap();
    db.execute(
        "create function f() returns int language sql stable as 'select 1'",
        (),
    )
    .await
    .unwrap();
    let _: i64 = db.fetch_one("select f()", ()).await.unwrap();
    db.execute(
        "create or replace function f() returns int language plpgsql volatile as $$ begin \
         begin insert into log values ('f'); exception when others then null; end; \
         return 1; end $$",
        (),
    )
    .await
    .unwrap();
    let _: i64 = db.fetch_one("select f()", ()).await.unwrap();
    assert_eq!(log_count(&db).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_turned_read_only_off_is_not_lent_for_reads_again() {
    let (_database, db) = fresh().await;
    db.execute("create table log (what text)", ())
        .await
        .unwrap();
    // As a read, past the router: a built-in function changes the session.
    let text = "select set_config('default_transaction_read_only', 'off', false)";
    drop(db.fetch_one::<String>(text, ()).await);
    // Whatever session serves the next reads, the server refuses to write on it.
    for _ in 0..8 {
        let setting: String = db
            .fetch_one("select current_setting('transaction_read_only')", ())
            .await
            .unwrap();
        assert_eq!(setting, "on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serializable_conflict_is_rerun_until_it_succeeds() {
    let (_database, db) = fresh().await;
    db.execute(
        "create table doctors (id int primary key, on_call bool)",
        (),
    )
    .await
    .unwrap();
    db.execute("insert into doctors values (1, true), (2, true)", ())
        .await
        .unwrap();
    let runs = AtomicU32::new(0);
    let leave = async |id: i64| {
        let options = TransactionOptions::serializable();
        db.transaction_with(options, async |tx| {
            runs.fetch_add(1, Ordering::Relaxed);
            let on_call: i64 = tx
                .fetch_one("select count(*) from doctors where on_call", ())
                .await?;
            if on_call < 2 {
                return Ok(false);
            }
            tx.execute("update doctors set on_call = false where id = $1", (id,))
                .await?;
            Ok(true)
        })
        .await
    };
    let (one, two) = futures_util::future::join(leave(1), leave(2)).await;
    let left = usize::from(one.unwrap()) + usize::from(two.unwrap());
    assert_eq!(left, 1, "somebody must stay on call");
    let on_call: i64 = db
        .fetch_one("select count(*) from doctors where on_call", ())
        .await
        .unwrap();
    assert_eq!(on_call, 1);
    assert!(runs.load(Ordering::Relaxed) >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_do_not_notice_that_their_connections_were_terminated() {
    let (database, db) = fresh().await;
    let reads = (0..4).map(|_| async {
        let slow = "select 1 from (select pg_sleep(0.3)) as slept";
        db.fetch_one::<i64>(slow, ()).await
    });
    let kill = async {
        let running = "select count(*) from pg_stat_activity where query like '%slept%' \
                       and state = 'active' and pid <> pg_backend_pid()";
        wait_for("the reads to run", SECOND * 10, || async {
            let active = database.psql(running).unwrap();
            (active.trim() == "4").then_some(())
        })
        .await
        .unwrap();
        database
            .psql("select pg_terminate_backend(pid) from pg_stat_activity where query like '%slept%' and pid <> pg_backend_pid()")
            .unwrap();
    };
    let (reads, ()) = futures_util::future::join(join_all(reads), kill).await;
    for read in reads {
        assert_eq!(read.unwrap(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_connection_was_terminated_is_reported_and_not_repeated() {
    let (database, db) = fresh().await;
    db.execute("create table log (what text)", ())
        .await
        .unwrap();
    let write = async {
        db.execute(
            "insert into log select 'x' from (select pg_sleep(600)) as slept",
            (),
        )
        .await
    };
    let kill = async {
        wait_for("the write to be terminated", SECOND * 10, || async {
            let done = database
                .psql("select pg_terminate_backend(pid) from pg_stat_activity where query like 'insert into log%' and state = 'active'")
                .unwrap();
            done.contains('t').then_some(())
        })
        .await
        .unwrap();
    };
    let (written, ()) = futures_util::future::join(write, kill).await;
    let error = written.unwrap_err();
    // The server said that it ended the statement before it was done, or said nothing: either way it
    // was not run again.
    assert!(
        matches!(error.kind(), Kind::OutcomeUnknown | Kind::Unreachable),
        "{error:?}"
    );
    assert_eq!(log_count(&db).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_was_cut_off_is_of_unknown_outcome() {
    let (database, direct) = fresh().await;
    direct
        .execute("create table log (what text)", ())
        .await
        .unwrap();
    let (proxy, url) = proxied(&database).await;
    let db = Database::builder(&url)
        .connection_limit(1)
        .open()
        .await
        .unwrap();
    let runs = AtomicU32::new(0);
    let result = db
        .transaction(async |tx| {
            runs.fetch_add(1, Ordering::Relaxed);
            tx.execute("insert into log values ('x')", ()).await?;
            // From here on the server hears everything and nobody hears the server.
            proxy.cut_after(0, Direction::FromTarget);
            Ok(())
        })
        .await;
    let error = result.unwrap_err();
    assert!(error.is_outcome_unknown(), "{error:?}");
    assert_eq!(runs.load(Ordering::Relaxed), 1, "it was run again");
    // It did happen, which is why it must not be run again.
    assert_eq!(log_count(&direct).await, 1);
}

/// A wire that can be cut in front of the test's server.
async fn proxied(database: &TestDatabase) -> (Proxy, String) {
    let proxy = Proxy::start(("127.0.0.1", database.cluster().port()))
        .await
        .unwrap();
    let url = proxy.rewrite(&database.url());
    (proxy, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_shorter_than_the_ride_through_is_invisible_to_reads() {
    let cluster = Cluster::start().unwrap();
    let db = Database::builder(&cluster.url())
        .connection_limit(4)
        .ride_through(SECOND * 20)
        .open()
        .await
        .unwrap();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let readers = (0..8).map(|_| {
        let (db, stop) = (db.clone(), std::sync::Arc::clone(&stop));
        tokio::spawn(async move {
            let mut reads = 0;
            while !stop.load(Ordering::Relaxed) {
                let one: i64 = db.fetch_one("select 1", ()).await?;
                reads += one;
            }
            Ok::<i64, Error>(reads)
        })
    });
    let readers: Vec<_> = readers.collect();
    let cluster = tokio::task::spawn_blocking(move || {
        cluster.stop(Mode::Fast).unwrap();
        cluster.start_again().unwrap();
        cluster
    })
    .await
    .unwrap();
    assert_eq!(db.fetch_one::<i64>("select 1", ()).await.unwrap(), 1);
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        let reads = reader.await.unwrap();
        assert!(reads.as_ref().is_ok_and(|reads| *reads > 0), "{reads:?}");
    }
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_holds_under_load_and_close_leaves_nothing() {
    let (database, db) = fresh().await;
    let watch = "select count(*) from pg_stat_activity where datname = current_database() \
                 and backend_type = 'client backend' and application_name <> 'psql'";
    let callers = (0..50).map(|number| {
        let db = db.clone();
        tokio::spawn(async move {
            for _ in 0..20 {
                let answer: i64 = db.fetch_one("select $1::bigint", (number,)).await?;
                assert_eq!(answer, number);
                db.transaction(async |tx| tx.fetch_one::<i64>("select 1", ()).await)
                    .await?;
            }
            Ok::<(), Error>(())
        })
    });
    let callers: Vec<_> = callers.collect();
    for caller in callers {
        let open: i64 = database.psql(watch).unwrap().trim().parse().unwrap();
        assert!(open <= 4, "{open} connections");
        caller.await.unwrap().unwrap();
    }
    let report = db.close().await;
    assert_eq!(report.left, 0);
    assert_eq!(database.psql(watch).unwrap().trim(), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_can_be_opened_lazily() {
    let cluster = Cluster::start().unwrap();
    cluster.stop(Mode::Fast).unwrap();
    let url = cluster.url();
    let error = Database::connect(&url).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{error}");
    assert!(
        !error.to_string().contains(cluster.credentials().1),
        "{error}"
    );
    let db = Database::builder(&url).open_lazy().unwrap();
    assert!(!db.health().await.healthy);
    let cluster = tokio::task::spawn_blocking(move || {
        cluster.start_again().unwrap();
        cluster
    })
    .await
    .unwrap();
    wait_for("the database to be healthy", SECOND * 10, || async {
        db.health().await.healthy.then_some(())
    })
    .await
    .unwrap();
    let info = db.info().await.unwrap();
    assert!(
        info.max_connections.is_some() && info.size_bytes > 0,
        "{info:?}"
    );
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn exact_rows_are_counted_on_request_and_what_cannot_be_counted_is_said() {
    let (database, db) = fresh().await;
    database
        .psql(
            "create schema \"Odd schema\"; create table \"Odd schema\".\"select\" (id int);
             insert into \"Odd schema\".\"select\" select generate_series(1, 1234);
             create table parts (id int) partition by range (id);
             create table part_one partition of parts for values from (0) to (100);
             insert into parts select generate_series(1, 17); create table stuck (id int)",
        )
        .unwrap();
    let lock = db.begin().await.unwrap();
    lock.execute("lock table stuck in access exclusive mode", ())
        .await
        .unwrap();
    let info = db.info().exact().timeout(SECOND * 8).await.unwrap();
    assert!(!info.rows_are_estimates);
    let rows: Vec<_> = info.tables.iter().map(|t| (&*t.name, t.rows)).collect();
    let expected = [
        ("Odd schema.select", Some(1_234)),
        ("part_one", Some(17)),
        ("parts", Some(17)),
        ("stuck", None),
    ];
    assert_eq!(rows, expected);
    lock.rollback().await.unwrap();
    let estimated = db.info().await.unwrap();
    assert!(estimated.rows_are_estimates);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_native_client_may_write_on_a_connection_that_served_reads() {
    let (database, _) = fresh().await;
    let db = Database::builder(&database.url())
        .connection_limit(2)
        .open()
        .await
        .unwrap();
    db.execute("create table log (what text)", ())
        .await
        .unwrap();
    for _ in 0..4 {
        let reads = (0..2).map(|_| db.fetch_one::<String>("select 'x' from pg_sleep(0.01)", ()));
        join_all(reads.map(IntoFuture::into_future)).await;
        let (one, two) = (db.acquire().await.unwrap(), db.acquire().await.unwrap());
        for lease in [one, two] {
            let client = lease.as_postgres().unwrap().client();
            client
                .execute("insert into log values ('x')", &[])
                .await
                .unwrap();
        }
    }
    assert_eq!(log_count(&db).await, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_native_client_is_at_hand() {
    let (_database, db) = fresh().await;
    let lease = db.acquire().await.unwrap();
    let session = lease.as_postgres().expect("a PostgreSQL session");
    let row = session
        .client()
        .query_one("select 1::int4", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, i32>(0), 1);
    #[cfg(feature = "sqlite")]
    assert!(lease.as_sqlite().is_none());
}
