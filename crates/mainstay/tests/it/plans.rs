//! Prepared statements whose ground moves: what was prepared and is not right any more is prepared
//! anew, and no caller notices.

use futures_util::future::{join_all, try_join_all};
use mainstay::{Database, Result};
use mainstay_testkit::TestDatabase;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

async fn fresh(connections: usize) -> (TestDatabase, Database) {
    let database = mainstay_testkit::database().await.unwrap();
    let db = Database::builder(&database.url())
        .connection_limit(connections)
        .open()
        .await
        .unwrap();
    (database, db)
}

/// Something that is done to the session behind our back.
const BEHIND_OUR_BACK: [&str; 3] = ["deallocate all", "discard all", "discard plans"];

async fn read(db: &Database) -> i64 {
    db.fetch_one("select id from t where id = $1", (1,))
        .await
        .unwrap()
}

async fn one_row(database: &TestDatabase) {
    database
        .psql("create table t (id int); insert into t values (1)")
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deallocated_behind_our_back_is_prepared_anew() {
    for connections in [1, 2] {
        let (database, db) = fresh(connections).await;
        one_row(&database).await;
        for text in BEHIND_OUR_BACK {
            read(&db).await;
            // By SQL, by the native client, on the lease itself and after it.
            db.with_connection(async |c| {
                let before: i64 = c.fetch_one("select id from t where id = $1", (1,)).await?;
                c.execute(text, ()).await?;
                let after: i64 = c.fetch_one("select id from t where id = $1", (1,)).await?;
                c.as_postgres()
                    .unwrap()
                    .client()
                    .batch_execute(text)
                    .await
                    .unwrap();
                let again: i64 = c.fetch_one("select id from t where id = $1", (1,)).await?;
                assert_eq!((before, after, again), (1, 1, 1));
                Ok(())
            })
            .await
            .unwrap();
            for _ in 0..4 {
                read(&db).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_the_driver_has_not_met_is_found_after_discard_all() {
    let (database, db) = fresh(1).await;
    database
        .psql("create type mood as enum ('sad'); create type size as enum ('small')")
        .unwrap();
    let mood: String = db.fetch_one("select 'sad'::mood", ()).await.unwrap();
    assert_eq!(mood, "sad");
    db.with_connection(async |c| {
        let mood: String = c.fetch_one("select 'sad'::mood as m", ()).await?;
        assert_eq!(mood, "sad");
        c.as_postgres()
            .unwrap()
            .client()
            .batch_execute("discard all")
            .await
            .unwrap();
        Ok(())
    })
    .await
    .unwrap();
    let size: String = db.fetch_one("select 'small'::size", ()).await.unwrap();
    assert_eq!(size, "small");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_whose_plan_went_stale_is_run_again() {
    let (database, db) = fresh(1).await;
    one_row(&database).await;
    for round in 0..3 {
        let text = "select * from t where id = $1";
        let _: mainstay::Row = db.fetch_one(text, (1,)).await.unwrap();
        database
            .psql(&format!("alter table t add column c{round} int"))
            .unwrap();
        let runs = AtomicU32::new(0);
        let columns = db
            .transaction(async |tx| {
                runs.fetch_add(1, Ordering::Relaxed);
                let row: mainstay::Row = tx.fetch_one(text, (1,)).await?;
                Ok(row.values().len())
            })
            .await
            .unwrap();
        assert_eq!(columns, 2 + round);
        assert!(runs.load(Ordering::Relaxed) <= 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_under_load_reaches_no_caller() {
    let (database, db) = fresh(4).await;
    database
        .psql("create table t (id int primary key, note text); insert into t select n, 'x' from generate_series(1, 50) n")
        .unwrap();
    let done = AtomicBool::new(false);
    let reading = async || -> Result<u32> {
        let mut reads = 0;
        while !done.load(Ordering::Relaxed) {
            let rows: Vec<mainstay::Row> = db.fetch_all("select * from t", ()).await?;
            assert_eq!(rows.len(), 50);
            reads += 1;
        }
        Ok(reads)
    };
    let writing = async || -> Result<u32> {
        let mut units = 0;
        while !done.load(Ordering::Relaxed) {
            db.transaction(async |tx| {
                let _: mainstay::Row = tx.fetch_one("select * from t where id = $1", (7,)).await?;
                tx.execute("update t set note = $1 where id = $2", ("y", 7))
                    .await
            })
            .await?;
            units += 1;
        }
        Ok(units)
    };
    let migrating = async {
        for round in 0..20 {
            let text = format!("alter table t add column c{round} int default {round}");
            db.execute(&text, ()).await?;
            let text = format!("alter table t alter column c{round} type text");
            db.execute(&text, ()).await?;
        }
        done.store(true, Ordering::Relaxed);
        Ok::<(), mainstay::Error>(())
    };
    let readers = join_all((0..6).map(|_| reading()));
    let writers = join_all((0..2).map(|_| writing()));
    let (readers, writers, migrated) = tokio::join!(readers, writers, migrating);
    migrated.unwrap();
    for done in readers.into_iter().chain(writers) {
        assert!(done.unwrap() > 0);
    }
    let columns: Vec<i64> = try_join_all((0..4).map(|_| async {
        let row: mainstay::Row = db.fetch_one("select * from t where id = $1", (7,)).await?;
        Ok::<_, mainstay::Error>(row.values().len() as i64)
    }))
    .await
    .unwrap();
    assert_eq!(columns, [22; 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_changed_under_a_cached_statement_is_read_as_it_is_now() {
    let (database, db) = fresh(2).await;
    let make = |base: &str| {
        format!(
            "drop table if exists t; drop type if exists mood; drop domain if exists cents;
             create type mood as enum ('sad'); create domain cents as {base};
             create table t (m mood, c cents, l mood[]); insert into t values ('sad', '7', '{{sad}}')"
        )
    };
    let read = async || -> (String, String) {
        db.fetch_one("select m, c::text from t where m = $1 or true", ("sad",))
            .await
            .unwrap()
    };
    // Other oids, other base types, the same names and the same text.
    for base in ["int4", "numeric", "text", "int8"] {
        database.psql(&make(base)).unwrap();
        for _ in 0..4 {
            assert_eq!(read().await, ("sad".to_owned(), "7".to_owned()), "{base}");
        }
        database.psql("alter type mood add value 'glad'").unwrap();
        database.psql("update t set m = 'glad'").unwrap();
        assert_eq!(read().await.0, "glad");
        let written = db
            .execute("update t set m = $1 where m = $2", ("sad", "glad"))
            .await
            .unwrap();
        assert_eq!(written, 1);
    }
}
