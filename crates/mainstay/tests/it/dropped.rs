//! A caller may go away at any await. Every public method is dropped after its first poll, its
//! second, its third … until it ends by itself, on both databases; each time the next borrower is
//! outside of any transaction, all connections can be had, and a unit was done as a whole or not.

#![expect(clippy::print_stdout, reason = "a proof shows its numbers")]

use futures_util::future::{BoxFuture, join_all};
use mainstay::migrate::Migrations;
use mainstay::{Database, System, TransactionOptions, statement};
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(60);
/// More polls than any of the calls needs; a bound, never reached.
const POLLS_MAX: usize = 300;

/// A call, by its name.
type Call = (&'static str, for<'a> fn(&'a Database) -> BoxFuture<'a, ()>);

/// Each future is boxed and its answer dropped: some are refused (their table is there already, an
/// earlier drop was done), and that is not what is asked here.
macro_rules! calls {
    ($($name:literal: |$db:ident| $future:expr;)*) => {
        [$(($name, (|$db| Box::pin(async move { let _answer = $future.await; })) as for<'a> fn(&'a Database) -> BoxFuture<'a, ()>)),*]
    };
}

const INSERT: &str = "insert into t (x) values (1)";

/// What writes, writes two rows or none.
fn calls() -> Vec<Call> {
    let calls = calls! {
        "execute": |db| db.execute("insert into t (x) values (1), (2)", ());
        "execute read": |db| db.execute("select x from t", ());
        "fetch_all": |db| db.fetch_all::<i64>("select x from t", ());
        "fetch_one": |db| db.fetch_one::<i64>("select count(*) from t", ()).write();
        "fetch_optional": |db| db.fetch_optional::<i64>("select x from t limit 1", ());
        "fetch": |db| async move {
            let mut rows = db.fetch::<i64>("select x from t", ());
            while let Ok(Some(_)) = rows.next().await {}
        };
        "batch": |db| db.batch([statement(INSERT, ()), statement(INSERT, ())]);
        "transaction": |db| db.transaction(async |tx| {
            tx.execute(INSERT, ()).await?;
            tx.execute(INSERT, ()).await
        });
        "savepoint": |db| db.transaction(async |tx| {
            tx.execute(INSERT, ()).await?;
            tx.savepoint(async |tx| tx.execute(INSERT, ()).await).await
        });
        "script": |db| db.transaction(async |tx| {
            tx.script("insert into t (x) values (1); insert into t (x) values (2)").await
        });
        "exactly_once": |db| db.transaction_with(
            TransactionOptions::new().exactly_once(),
            async |tx| {
                tx.execute(INSERT, ()).await?;
                tx.execute(INSERT, ()).await
            },
        );
        "read_only": |db| db.transaction_with(TransactionOptions::new().read_only(), async |tx| {
            tx.fetch_all::<i64>("select x from t", ()).await
        });
        "begin and commit": |db| async move {
            let tx = db.begin().await?;
            tx.execute(INSERT, ()).await?;
            tx.execute(INSERT, ()).await?;
            tx.commit().await
        };
        "begin and rollback": |db| async move {
            let tx = db.begin().await?;
            tx.execute(INSERT, ()).await?;
            tx.rollback().await
        };
        "acquire": |db| async move {
            let lease = db.acquire().await?;
            lease.script("begin; insert into t (x) values (1); insert into t (x) values (2); commit")
                .await?;
            lease.fetch_all::<i64>("select x from t", ()).await
        };
        "with_connection": |db| db.with_connection(async |lease| {
            // Left open on purpose.
            lease.script("begin; insert into t (x) values (1)").await?;
            lease.execute(INSERT, ()).await
        });
        "health": |db| db.health();
        "info": |db| db.info();
        "create_token_table": |db| db.create_token_table();
        "migrate": |db| async move {
            let files = (1..=2).map(|n| (format!("{n}_m.sql"), format!("create table m{n} (x int);")));
            let migrations = Migrations::from_files(files)?;
            db.migrate(&migrations).await?;
            db.migration_status(&migrations).await
        };
    };
    calls.to_vec()
}

/// Polls a future so often, whenever it is woken, then drops it; says whether it ended before.
async fn drop_after(future: BoxFuture<'_, ()>, polls: usize) -> bool {
    let mut future = pin!(Some(future));
    let mut left = polls;
    let ended = poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(false);
        }
        left -= 1;
        let Some(running) = future.as_mut().as_pin_mut() else {
            return Poll::Ready(false);
        };
        match running.poll(context) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending if left == 0 => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    });
    timeout(LONG, ended).await.expect("it hangs")
}

/// All connections can be had at once, and each is outside of a transaction.
async fn is_whole(db: &Database, after: &str) {
    let limit = match db.system() {
        System::Sqlite => 1,
        _ => db.status().limit(),
    };
    let leases = join_all((0..limit).map(|_| timeout(LONG, db.acquire()))).await;
    for lease in leases {
        let lease = lease.expect(after).expect(after);
        match db.system() {
            System::Sqlite => lease.script("begin; rollback").await.expect(after),
            _ => {
                let error = lease.script("savepoint inside").await.expect_err(after);
                assert_eq!(error.sqlstate(), Some("25P01"), "{after}: {error}");
            }
        }
    }
}

async fn drop_everything(db: &Database) {
    db.execute("create table t (x bigint not null)", ())
        .await
        .unwrap();
    let mut all = 0;
    for (name, call) in calls() {
        let mut polls = 0;
        while !drop_after(call(db), polls).await {
            let after = format!("{name} dropped after {polls} polls");
            is_whole(db, &after).await;
            let rows: i64 = db.fetch_one("select count(*) from t", ()).await.unwrap();
            assert_eq!(rows % 2, 0, "{after}: half of a unit is there");
            polls += 1;
            assert!(polls < POLLS_MAX, "{name} never ends");
        }
        all += polls;
    }
    println!("{all} drops of {} calls", calls().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_dropped_on_postgresql_leaves_nothing_behind() {
    let database = mainstay_testkit::database().await.unwrap();
    for limit in [1, 2] {
        let db = Database::connect(&format!("{}?connection_limit={limit}", database.url()))
            .await
            .unwrap();
        drop_everything(&db).await;
        let opened = db.status().pools[0].opened;
        println!("limit {limit}: {opened} connections opened");
        db.execute("drop table t", ()).await.unwrap();
        for table in ["m1", "m2", "_mainstay_migrations", "_mainstay_tokens"] {
            let text = format!("drop table if exists {table}");
            db.execute(&text, ()).await.unwrap();
        }
        db.close().await;
    }
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_dropped_on_sqlite_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file:{}/a.db", directory.path().display());
    let db = Database::connect(&url).await.unwrap();
    drop_everything(&db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_health_question_that_is_kept_and_not_polled_keeps_no_other() {
    let database = mainstay_testkit::database().await.unwrap();
    let db = Database::connect(&database.url()).await.unwrap();
    for polls in 1..6 {
        let mut kept = pin!(db.health());
        mainstay_testkit::poll_times(kept.as_mut(), polls).await;
        let health = db.health().await;
        assert!(health.healthy, "after {polls}: {health:?}");
    }
}
