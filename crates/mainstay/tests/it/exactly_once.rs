//! A lost COMMIT is looked into, and a key is committed once.

use futures_util::future::join;
use mainstay::{Database, Kind, Result, TransactionOptions};
use mainstay_testkit::cluster::Mode;
use mainstay_testkit::proxy::Direction;
use mainstay_testkit::{Cluster, Proxy, TestDatabase, wait_for};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

const SECOND: Duration = Duration::from_secs(1);

/// COMMIT as the driver sends it: a letter, a length, the text, a NUL.
const COMMIT_BYTES: u64 = 1 + 4 + 7;

/// A database with a table `log`, a way to it that fails on command, and one that does not.
struct Bed {
    database: TestDatabase,
    direct: Database,
    proxy: Proxy,
    db: Database,
}

impl Bed {
    async fn new() -> Self {
        Self::with_limit(2).await
    }

    async fn with_limit(limit: usize) -> Self {
        let database = mainstay_testkit::database().await.unwrap();
        let direct = Database::builder(&database.url())
            .connection_limit(2)
            .open()
            .await
            .unwrap();
        direct
            .execute("create table log (what text)", ())
            .await
            .unwrap();
        let proxy = Proxy::start(("127.0.0.1", database.cluster().port()))
            .await
            .unwrap();
        let db = Database::builder(&proxy.rewrite(&database.url()))
            .connection_limit(limit)
            .ride_through(SECOND * 20)
            .open()
            .await
            .unwrap();
        Self {
            database,
            direct,
            proxy,
            db,
        }
    }

    async fn rows(&self) -> i64 {
        count(&self.direct).await
    }
}

async fn count(db: &Database) -> i64 {
    db.fetch_one("select count(*) from log", ()).await.unwrap()
}

fn once() -> TransactionOptions {
    TransactionOptions::new()
        .exactly_once()
        .timeout(SECOND * 30)
}

fn keyed(key: &str) -> TransactionOptions {
    TransactionOptions::new()
        .exactly_once_as(key)
        .timeout(SECOND * 30)
}

/// Waits until nothing of an earlier transaction is under way: cleaning, sweeping, reconnecting. A cut
/// that counts bytes would hit that instead of COMMIT.
pub(crate) async fn quiet(db: &Database) {
    free_of(db, |pool| pool.open > pool.idle || pool.waiting > 0).await;
}

/// The same while transactions are open: a connection that was lost makes the pool check its siblings
/// and open one beside them, and whoever asks is served by the first that is ready.
async fn quiet_otherwise(db: &Database) {
    free_of(db, |pool| pool.connecting + pool.in_upkeep > 0).await;
}

async fn free_of(db: &Database, busy: impl Fn(&mainstay::PoolStatus) -> bool) {
    wait_for(
        "the pool to come to rest",
        Duration::from_secs(10),
        || async { (!db.status().pools.iter().any(&busy)).then_some(()) },
    )
    .await
    .unwrap();
}

/// Writes a row and answers the number of the run; `before_commit` is told the number.
async fn write(
    db: &Database,
    options: TransactionOptions,
    before_commit: impl Fn(u32),
) -> Result<u32> {
    quiet(db).await;
    let runs = AtomicU32::new(0);
    db.transaction_with(options, async |tx| {
        let run = runs.fetch_add(1, Ordering::Relaxed) + 1;
        tx.execute("insert into log values ('x')", ()).await?;
        quiet_otherwise(db).await;
        before_commit(run);
        Ok(run)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_was_cut_off_is_found_and_answered() {
    // With a single connection the lost one must be gone before there is one to ask on.
    for limit in [1, 2] {
        let bed = Bed::with_limit(limit).await;
        let run = write(&bed.db, once(), |_| {
            bed.proxy.cut_after(0, Direction::FromTarget);
        })
        .await;
        assert_eq!(run.unwrap(), 1);
        assert_eq!(bed.rows().await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_never_arrived_is_run_again() {
    let bed = Bed::new().await;
    let cut = |run| {
        if run == 1 {
            bed.proxy.cut_after(COMMIT_BYTES - 1, Direction::ToTarget);
        }
    };
    assert_eq!(write(&bed.db, once(), cut).await.unwrap(), 2);
    assert_eq!(bed.rows().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closure_that_may_run_only_once_is_told_that_nothing_was_committed() {
    let bed = Bed::new().await;
    let cut = |_| {
        bed.proxy.cut_after(COMMIT_BYTES - 1, Direction::ToTarget);
    };
    let error = write(&bed.db, once().once(), cut).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{error}");
    assert_eq!(bed.rows().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_died_around_commit_is_asked_when_it_is_back() {
    for byte in [0, COMMIT_BYTES] {
        let cluster = Cluster::start().unwrap();
        let proxy = Proxy::start(("127.0.0.1", cluster.port())).await.unwrap();
        let db = Database::builder(&proxy.rewrite(&cluster.url()))
            .connection_limit(2)
            .ride_through(SECOND * 20)
            .open()
            .await
            .unwrap();
        db.execute("create table log (what text)", ())
            .await
            .unwrap();
        let (about_to_commit, told) = oneshot::channel();
        let about_to_commit = std::sync::Mutex::new(Some(about_to_commit));
        let written = write(&db, once(), |run| {
            if run == 1 {
                // The first byte of the answer, or the last of the request, does not get through.
                if byte == 0 {
                    proxy.cut_after(0, Direction::FromTarget);
                } else {
                    proxy.cut_after(byte - 1, Direction::ToTarget);
                }
                let told = about_to_commit.lock().unwrap().take().unwrap();
                told.send(()).unwrap();
            }
        });
        let dies = async {
            told.await.unwrap();
            cluster
                .run(|cluster| {
                    cluster.stop(Mode::Immediate)?;
                    cluster.start_again()
                })
                .await
                .unwrap();
        };
        let (written, ()) = join(written, dies).await;
        assert!(written.is_ok(), "{written:?}");
        assert_eq!(count(&db).await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_session_that_still_commits_is_ended_and_the_closure_run_again() {
    let bed = Bed::new().await;
    // The first COMMIT takes for ever; numbers of a sequence are not given out twice.
    for text in [
        "create sequence runs",
        "create function slow() returns trigger language plpgsql as $$ begin \
         if nextval('runs') = 1 then perform pg_sleep(600); end if; return null; end $$",
        "create constraint trigger slow after insert on log \
         deferrable initially deferred for each row execute function slow()",
    ] {
        bed.direct.execute(text, ()).await.unwrap();
    }
    let written = write(&bed.db, once(), |_| {});
    let cut = async {
        wait_for("COMMIT to hang", SECOND * 10, || async {
            let asleep = "select count(*) from pg_stat_activity where wait_event = 'PgSleep' \
                          and datname = current_database()";
            let asleep = bed.database.psql(asleep).unwrap();
            (asleep.trim() == "1").then_some(())
        })
        .await
        .unwrap();
        bed.proxy.cut_all().await;
    };
    let (run, ()) = join(written, cut).await;
    assert_eq!(run.unwrap(), 2);
    assert_eq!(bed.rows().await, 1);
    let asleep = "select count(*) from pg_stat_activity where wait_event = 'PgSleep' \
                  and datname = current_database()";
    assert_eq!(bed.database.psql(asleep).unwrap().trim(), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_ends_first_leaves_the_outcome_unknown_and_says_where_to_look() {
    let bed = Bed::new().await;
    let options = keyed("order-7").timeout(SECOND);
    let (about_to_commit, told) = oneshot::channel();
    let about_to_commit = std::sync::Mutex::new(Some(about_to_commit));
    let (go, may_go) = oneshot::channel::<()>();
    let may_go = tokio::sync::Mutex::new(Some(may_go));
    let unit = bed.db.transaction_with(options, async |tx| {
        tx.execute("insert into log values ('x')", ()).await?;
        about_to_commit
            .lock()
            .unwrap()
            .take()
            .unwrap()
            .send(())
            .unwrap();
        may_go.lock().await.take().unwrap().await.unwrap();
        Ok(())
    });
    let silence = async {
        told.await.unwrap();
        bed.proxy.black_hole().await.unwrap();
        go.send(()).unwrap();
    };
    let (result, ()) = join(unit, silence).await;
    let error = result.unwrap_err();
    assert!(error.is_outcome_unknown(), "{error}");
    let text = error.to_string();
    assert!(text.contains("token order-7, backend "), "{text}");
    let doubt = error.doubt().unwrap();
    assert_eq!(doubt.token(), Some("order-7"));
    assert!(doubt.committed_state().unwrap().starts_with("tx "));
    assert!(doubt.process().is_some() && doubt.started().is_some());
    assert!(doubt.started().unwrap() < doubt.since());
    bed.proxy.forward().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_committed_once() {
    let bed = Bed::new().await;
    assert_eq!(write(&bed.db, keyed("k"), |_| {}).await.unwrap(), 1);
    let error = write(&bed.db, keyed("k"), |_| {}).await.unwrap_err();
    assert!(error.is_already_done(), "{error}");
    assert_eq!(write(&bed.db, keyed("other"), |_| {}).await.unwrap(), 1);
    assert_eq!(bed.rows().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_used_twice_at_the_same_time_is_committed_once() {
    let bed = Bed::new().await;
    let (may_commit, told) = oneshot::channel::<()>();
    let told = tokio::sync::Mutex::new(Some(told));
    let first = bed.direct.transaction_with(keyed("k"), async |tx| {
        tx.execute("insert into log values ('x')", ()).await?;
        told.lock().await.take().unwrap().await.unwrap();
        Ok(())
    });
    let second = async {
        let waiting = |what: &'static str| {
            let database = &bed.database;
            wait_for(what, SECOND * 10, move || async move {
                let count = format!(
                    "select count(*) from pg_stat_activity where datname = current_database() \
                     and pid <> pg_backend_pid() and {what}"
                );
                (database.psql(&count).unwrap().trim() == "1").then_some(())
            })
        };
        waiting("state = 'idle in transaction' and query like 'insert into log%'")
            .await
            .unwrap();
        let let_go = async {
            waiting("wait_event_type = 'Lock'").await.unwrap();
            may_commit.send(()).unwrap();
        };
        join(write(&bed.db, keyed("k"), |_| {}), let_go).await.0
    };
    let (first, second) = join(first, second).await;
    first.unwrap();
    let error = second.unwrap_err();
    assert!(error.is_already_done(), "{error}");
    assert_eq!(bed.rows().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_transaction_was_rolled_back_is_free() {
    let bed = Bed::new().await;
    let refused = bed
        .db
        .transaction_with(keyed("k"), async |_| {
            Err::<(), _>(mainstay::Error::rollback(std::io::Error::other("no")))
        })
        .await;
    assert!(refused.is_err());
    assert_eq!(write(&bed.db, keyed("k"), |_| {}).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_commit_was_lost_is_decided_before_it_is_used_again() {
    let bed = Bed::new().await;
    // Found committed: the value is answered, and the key is taken.
    let run = write(&bed.db, keyed("a"), |_| {
        bed.proxy.cut_after(0, Direction::FromTarget);
    });
    assert_eq!(run.await.unwrap(), 1);
    let again = write(&bed.db, keyed("a"), |_| {}).await;
    assert!(again.unwrap_err().is_already_done());
    // Found not committed: the tombstone does not stand in the way of the second run.
    let cut = |run| {
        if run == 1 {
            bed.proxy.cut_after(COMMIT_BYTES - 1, Direction::ToTarget);
        }
    };
    assert_eq!(write(&bed.db, keyed("b"), cut).await.unwrap(), 2);
    // Nor, where the closure may run only once, of the next call.
    let cut = |_| {
        bed.proxy.cut_after(COMMIT_BYTES - 1, Direction::ToTarget);
    };
    let lost = write(&bed.db, keyed("c").once(), cut).await;
    assert_eq!(lost.unwrap_err().kind(), Kind::Unreachable);
    assert_eq!(write(&bed.db, keyed("c"), |_| {}).await.unwrap(), 1);
    assert_eq!(bed.rows().await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_create_tables_is_sent_to_init() {
    let bed = Bed::new().await;
    let role = format!("poor_{}", std::process::id());
    bed.database
        .psql(&format!(
            "revoke create on schema public from public; create role {role} login password 'p'; \
             grant all on log to {role}"
        ))
        .unwrap();
    let url = bed.database.url();
    let (_, place) = url.split_once('@').unwrap();
    let poor = Database::connect(&format!("postgres://{role}:p@{place}?connection_limit=2"))
        .await
        .unwrap();
    let error = write(&poor, once(), |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Statement, "{error:?}");
    let remedy = error.remedy().unwrap();
    assert!(remedy.contains("mainstay init"), "{remedy}");
    bed.direct.create_token_table().await.unwrap();
    bed.database
        .psql(&format!("grant all on _mainstay_tokens to {role}"))
        .unwrap();
    assert_eq!(write(&poor, once(), |_| {}).await.unwrap(), 1);
    poor.close().await;
    bed.database
        .psql(&format!("drop owned by {role}; drop role {role}"))
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_older_than_a_day_are_removed_after_a_commit() {
    let bed = Bed::new().await;
    bed.direct.create_token_table().await.unwrap();
    bed.direct
        .execute(
            "insert into _mainstay_tokens select 'old ' || n, 'tx', now() - interval '25 hours' \
             from generate_series(1, 2500) n",
            (),
        )
        .await
        .unwrap();
    write(&bed.db, once(), |_| {}).await.unwrap();
    wait_for("the sweep", SECOND * 10, || async {
        let left = "select count(*) from _mainstay_tokens";
        let left: i64 = bed.direct.fetch_one(left, ()).await.unwrap();
        (left == 1).then_some(())
    })
    .await
    .unwrap();
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_a_key_is_committed_once_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file:{}", directory.path().join("a.db").display());
    let db = Database::connect(&url).await.unwrap();
    db.execute("create table log (what text)", ())
        .await
        .unwrap();
    assert_eq!(write(&db, once(), |_| {}).await.unwrap(), 1);
    let tables = "select count(*) from sqlite_master where name = '_mainstay_tokens'";
    assert_eq!(db.fetch_one::<i64>(tables, ()).await.unwrap(), 1);
    let (one, two) = join(
        write(&db, keyed("k"), |_| {}),
        write(&db, keyed("k"), |_| {}),
    )
    .await;
    assert_eq!(usize::from(one.is_ok()) + usize::from(two.is_ok()), 1);
    let error = one.err().or(two.err()).unwrap();
    assert!(error.is_already_done(), "{error}");
    assert_eq!(write(&db, keyed("other"), |_| {}).await.unwrap(), 1);
    assert_eq!(count(&db).await, 3);
}
