//! Behind the real PgBouncer in transaction mode: the same laws, the same promises.

use futures_util::TryStreamExt;
use futures_util::future::join_all;
use mainstay::{Database, Kind, Row, TransactionOptions};
use mainstay_testkit::conformance::{Subject, laws};
use mainstay_testkit::proxy::Direction;
use mainstay_testkit::{Pooler, Proxy, TestDatabase};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// A database behind a pooler, and a way past it.
struct Bed {
    database: TestDatabase,
    pooler: Pooler,
}

impl Bed {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    async fn with(settings: &'static [(&'static str, &'static str)]) -> Self {
        let database = mainstay_testkit::database().await.unwrap();
        let start = |cluster: &_| Pooler::start(cluster, settings);
        let pooler = database.cluster().run(start).await.unwrap();
        Self { database, pooler }
    }

    fn url(&self, parameters: &str) -> String {
        let url = self.pooler.url_for(self.database.name());
        format!("{url}?{parameters}")
    }

    /// More connections than the pooler has sessions, so that every statement may meet another one.
    async fn db(&self) -> Database {
        Database::connect(&self.url("pgbouncer=true&connection_limit=12"))
            .await
            .unwrap()
    }

    fn sql(&self, text: &str) -> String {
        self.database.psql(text).unwrap()
    }
}

/// Laws about state that a connection keeps; behind a pooler such statements are refused instead.
const OF_SESSIONS: [&str; 1] = ["an_exclusive_connection_comes_back_clean"];

#[tokio::test(flavor = "multi_thread")]
async fn every_law_holds_behind_a_pooler() {
    let first = Bed::new().await;
    let mut failures = Vec::new();
    let mut checked = 0;
    for law in laws().iter().filter(|law| !law.alone) {
        if OF_SESSIONS.contains(&law.name) {
            continue;
        }
        let database = mainstay_testkit::database().await.unwrap();
        let url = first.pooler.url_for(database.name());
        let url = format!("{url}?pgbouncer=true&connection_limit=8");
        let subject = Subject::open(&url, None).await;
        let subject = subject
            .unwrap_or_else(|error| panic!("before {}: {error}\n{}", law.name, first.pooler.log()));
        checked += 1;
        if let Err(broken) = law.check(subject).await {
            failures.push(format!("{}: {broken}", law.name));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(checked > 20, "{checked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_of_many_callers_meet_each_others_sessions_and_none_is_confused() {
    let bed = Bed::new().await;
    let db = bed.db().await;
    bed.sql(
        "create type mood as enum ('sad', 'glad'); create domain age as int check (value > 0); \
             create table people (id bigint primary key, mood mood, age age, tags text[])",
    );
    let one = async |number: i64| {
        let mood = if number % 2 == 0 { "glad" } else { "sad" };
        db.execute(
            "insert into people values ($1, $2, $3, $4)",
            (number, mood, 1 + number, format!("{{a,{number}}}")),
        )
        .await?;
        // As many texts as callers: nothing that one session has seen helps another.
        let text = format!(
            "select id, mood, age, tags::text, {number} as number from people where id = $1"
        );
        let row: (i64, String, i64, String, i64) = db.fetch_one(&text, (number,)).await?;
        assert_eq!(
            row,
            (
                number,
                mood.into(),
                1 + number,
                format!("{{a,{number}}}"),
                number
            )
        );
        db.transaction(async |tx| {
            let age: i64 = tx
                .fetch_one(
                    "update people set age = age + 1 where id = $1 returning age",
                    (number,),
                )
                .await?;
            assert_eq!(age, 2 + number);
            let mood: String = tx
                .fetch_one("select mood from people where id = $1", (number,))
                .await?;
            Ok(mood)
        })
        .await
    };
    let answers = join_all((0..200).map(one)).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(
        bed.sql("select count(*), count(*) filter (where age = id + 2) from people"),
        "200|200"
    );
    // The driver has left no statement behind in a session that others use next.
    let left: i64 = db
        .fetch_one("select count(*) from pg_prepared_statements", ())
        .await
        .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_was_made_a_moment_ago_is_read_by_fetch_and_by_stream() {
    let bed = Bed::new().await;
    let db = bed.db().await;
    bed.sql(
        "create type colour as enum ('red'); \
             create table paint as select 'red'::colour as colour from generate_series(1, 20000)",
    );
    let all: Vec<String> = db
        .fetch("select colour from paint", ())
        .try_collect()
        .await
        .unwrap();
    assert_eq!((all.len(), &*all[0]), (20_000, "red"));
    bed.sql(
        "create type shape as enum ('round'); \
             create table things as select 'round'::shape as shape from generate_series(1, 20000)",
    );
    let all: Vec<String> = db.fetch_all("select shape from things", ()).await.unwrap();
    assert_eq!((all.len(), &*all[0]), (20_000, "round"));
    // A type that one transaction makes and reads, before anybody else can see it.
    let made: String = db
        .transaction(async |tx| {
            tx.execute("create type fresh as enum ('new')", ()).await?;
            tx.fetch_one("select 'new'::fresh", ()).await
        })
        .await
        .unwrap();
    assert_eq!(made, "new");
    // What has no value here says so on every way, with the column's name and the type's.
    let error = db
        .fetch_all::<Row>("select array['red'::colour] as colours", ())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Decode);
    assert!(
        error.to_string().contains("\"colours\" cannot be read"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_cannot_write_and_what_changes_the_session_is_refused() {
    let bed = Bed::new().await;
    let db = bed.db().await;
    bed.sql(
        "create table log (what text); create function writes() returns int language sql \
             stable as $$ insert into log values ('x') returning 1 $$",
    );
    // Found out by the server, and sent again as a write.
    let _: i64 = db
        .fetch_one(
            "with w as (insert into log values ('y') returning 1) select 1 from w",
            (),
        )
        .await
        .unwrap();
    assert_eq!(bed.sql("select count(*) from log"), "1");
    let limit = db.status().limit();
    let modes = (0..limit).map(|_| {
        db.fetch_one::<String>("show transaction_read_only", ())
            .into_future()
    });
    for mode in join_all(modes).await {
        assert_eq!(mode.unwrap(), "on");
    }
    let error = db
        .with_connection(async |lease| lease.execute("set work_mem = '9MB'", ()).await)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::SessionStatement);
    assert!(error.to_string().contains("pooler"), "{error}");
    let error = db
        .with_connection(async |lease| lease.script("select 1; listen c").await)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::SessionStatement);
    db.transaction(async |tx| {
        tx.execute("set local work_mem = '9MB'", ()).await?;
        let set: String = tx.fetch_one("show work_mem", ()).await?;
        assert_eq!(set, "9MB");
        Ok(())
    })
    .await
    .unwrap();
    let after: String = db.fetch_one("show work_mem", ()).await.unwrap();
    assert_eq!(after, "4MB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_atomic_and_a_dropped_statement_reaches_nobody() {
    let bed = Bed::new().await;
    let db = bed.db().await;
    bed.sql("create table log (id int primary key)");
    let insert = |id: i64| mainstay::statement("insert into log values ($1)", (id,));
    assert_eq!(db.batch([insert(1), insert(2)]).await.unwrap(), [1, 1]);
    assert!(
        db.batch([insert(3), insert(1)])
            .await
            .unwrap_err()
            .is_unique_violation()
    );
    for _ in 0..20 {
        let sleep = db.execute("select pg_sleep(600)", ());
        assert!(
            tokio::time::timeout(SECOND / 50, sleep.into_future())
                .await
                .is_err()
        );
    }
    let counts = (0..40).map(|_| {
        db.fetch_one::<i64>("select count(*) from log", ())
            .into_future()
    });
    for count in join_all(counts).await {
        assert_eq!(count.unwrap(), 2);
    }
}

fn once() -> TransactionOptions {
    TransactionOptions::new()
        .exactly_once()
        .timeout(SECOND * 10)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_commit_is_found_through_the_pooler() {
    let bed = Bed::new().await;
    bed.sql("create table log (what text)");
    let proxy = Proxy::start(("127.0.0.1", bed.pooler.port()))
        .await
        .unwrap();
    let url = proxy.rewrite(&bed.url("pgbouncer=true&connection_limit=2"));
    let db = Database::connect(&url).await.unwrap();
    for direction in [Direction::FromTarget, Direction::ToTarget] {
        let runs = AtomicU32::new(0);
        db.transaction_with(once(), async |tx| {
            tx.execute("insert into log values ('x')", ()).await?;
            if runs.fetch_add(1, Ordering::Relaxed) == 0 {
                proxy.cut_after(0, direction);
            }
            Ok(())
        })
        .await
        .unwrap();
    }
    assert_eq!(bed.sql("select count(*) from log"), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_hangs_behind_the_pooler_is_ended_by_the_servers_process() {
    let bed = Bed::new().await;
    bed.sql("create table log (what text)");
    let proxy = Proxy::start(("127.0.0.1", bed.pooler.port()))
        .await
        .unwrap();
    // The first way falls silent, the second one stays.
    let url = bed.url("pgbouncer=true&connection_limit=4&connect_timeout=1");
    let (login, rest) = url.split_once("127.0.0.1:").unwrap();
    let url = format!("{login}127.0.0.1:{},127.0.0.1:{rest}", proxy.port());
    let db = Database::connect(&url).await.unwrap();
    let runs = AtomicU32::new(0);
    let ended = db
        .transaction_with(once(), async |tx| {
            let pid: i64 = tx.fetch_one("select pg_backend_pid()", ()).await?;
            tx.execute("insert into log values ('x')", ()).await?;
            if runs.fetch_add(1, Ordering::Relaxed) == 0 {
                proxy.black_hole().await.unwrap();
            }
            Ok(pid)
        })
        .await;
    let second = ended.unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 2);
    assert_eq!(bed.sql("select count(*) from log"), "1");
    let open = "select count(*) from pg_stat_activity where datname = current_database() \
                and state like 'idle in transaction%'";
    assert_eq!(bed.sql(open), "0", "{second}");
    proxy.forward().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_nobody_mentioned_is_named_with_the_way_out() {
    // It refuses what a session begins with, or leaves it out without a word.
    for settings in [&[][..], &[("ignore_startup_parameters", "options")][..]] {
        let bed = Bed::with(settings).await;
        let error = Database::connect(&bed.url("connection_limit=4"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Config, "{error}");
        let text = error.to_string();
        assert!(
            text.contains("pooler") && text.contains("pgbouncer=true"),
            "{text}"
        );
        // And what only the user asked for is refused with the way out as well.
        let url = bed.url("pgbouncer=true&schema=app");
        match (settings.is_empty(), Database::connect(&url).await) {
            (true, Err(error)) => assert!(error.to_string().contains("schema"), "{error}"),
            (false, Ok(_)) => {}
            (_, other) => panic!("{other:?}"),
        }
    }
}
