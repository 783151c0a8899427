//! Writes of strangers in one transaction: what one of them may do to the others, which is nothing.

use crate::crowd::{Crowd, insert, text};
use crate::{Bench, PLAIN, WRITE, execute, on, scalar, soon, value};
use futures_util::future::join_all;
use mainstay_core::backend::{BoxFuture, Condition, Reply, Want};
use mainstay_core::{Class, Deadline, Error, Kind, Result, Statement, Value};
use mainstay_sqlite::SqliteSession;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;
use tokio::time::Instant;

const ENDLESS_WRITE: &str = "with recursive n(i) as (select 1 union all select i + 1 from n)
    insert into t (a) select i from n";

#[tokio::test]
async fn what_queues_is_committed_together_and_acknowledged_afterwards() {
    let crowd = Crowd::new().await;
    let texts: Vec<_> = (10..30)
        .map(|n| format!("insert into t (a) values ('{n}') returning (select count(*) from t)"))
        .collect();
    let queued: Vec<_> = texts.iter().map(|text| crowd.queue(text)).collect();
    assert_eq!(crowd.commits(), 0);
    crowd.release().await;
    for (before, reply) in join_all(queued).await.into_iter().enumerate() {
        let reply = reply.unwrap();
        assert_eq!(reply.affected, 1);
        // Each has seen what those before it have written: they ran one after the other.
        assert_eq!(
            reply.rows[0].values()[0],
            Value::Int(i64::try_from(before).unwrap() + 1)
        );
    }
    crowd.check_grouped();
    assert_eq!(crowd.bench.sqlite.commits().writes, 20);
    assert_eq!(crowd.all().await.len(), 20);
    crowd.check_next().await;
}

#[tokio::test]
async fn a_write_that_fails_touches_no_neighbour() {
    let crowd = Crowd::new().await;
    let first = crowd.queue(&insert("a"));
    let twice = crowd.queue(&insert("a"));
    let missing = crowd.queue("insert into nowhere values (1)");
    let wrong = crowd.queue("insert into t (a) values ($1)");
    let last = crowd.queue(&insert("b"));
    crowd.release().await;
    first.await.unwrap();
    assert_eq!(twice.await.unwrap_err().kind(), Kind::Unique);
    assert_eq!(missing.await.unwrap_err().kind(), Kind::Statement);
    assert_eq!(wrong.await.unwrap_err().kind(), Kind::Statement);
    last.await.unwrap();
    crowd.check_grouped();
    assert_eq!(crowd.replays(), 0);
    assert_eq!(crowd.all().await, ["a", "b"]);
    crowd.check_next().await;
}

#[tokio::test]
async fn a_batch_among_others_happens_as_a_whole_or_not_at_all() {
    let crowd = Crowd::new().await;
    let lone = crowd.queue(&insert("a"));
    let whole = crowd.queue_batch(&[&insert("b"), "update t set a = a || '!' where a = 'b'"]);
    let half = crowd.queue_batch(&[&insert("c"), &insert("a")]);
    let last = crowd.queue(&insert("d"));
    crowd.release().await;
    lone.await.unwrap();
    assert_eq!(whole.await.unwrap(), [1, 1]);
    assert_eq!(half.await.unwrap_err().kind(), Kind::Unique);
    last.await.unwrap();
    crowd.check_grouped();
    assert_eq!(crowd.all().await, ["a", "b!", "d"]);
    crowd.check_next().await;
}

#[tokio::test]
async fn a_write_that_fails_half_way_leaves_nothing_whether_alone_or_in_company() {
    let crowd = Crowd::new().await;
    // `or fail` keeps the rows before the one that failed.
    let half = "insert or fail into t (a) values ('x'), ('y'), ('x')";
    let alone = crowd.queue(half);
    crowd.release().await;
    assert_eq!(alone.await.unwrap_err().kind(), Kind::Unique);
    assert_eq!(crowd.all().await, [""; 0]);
    crowd.hold().await;
    let first = crowd.queue(&insert("a"));
    let failing = crowd.queue(half);
    crowd.release().await;
    first.await.unwrap();
    assert_eq!(failing.await.unwrap_err().kind(), Kind::Unique);
    assert_eq!(crowd.all().await, ["a"]);
    crowd.check_next().await;
}

async fn with_deferred_keys() -> Crowd {
    let bench = Bench::with_table().await;
    let child = "create table child (t_id integer not null
        references t (id) deferrable initially deferred)";
    execute(&*bench.writer, child).await.unwrap();
    Crowd::on(bench).await
}

#[tokio::test]
async fn a_deferred_foreign_key_is_checked_for_each_write() {
    let crowd = with_deferred_keys().await;
    let first = crowd.queue(&insert("a"));
    let dangling = crowd.queue("insert into child values (77)");
    // Would repair it, and be blamed for it.
    let repair = crowd.queue("insert into t (id, a) values (77, 'late')");
    let whole = crowd.queue_batch(&[
        "insert into child values (78)",
        "insert into t (id) values (78)",
    ]);
    crowd.release().await;
    first.await.unwrap();
    let error = dangling.await.unwrap_err();
    assert_eq!(
        (error.kind(), error.class()),
        (Kind::ForeignKey, Class::Permanent)
    );
    repair.await.unwrap();
    whole.await.unwrap();
    crowd.check_grouped();
    assert_eq!(crowd.replays(), 0);
    assert_eq!(crowd.bench.count("child").await, 1);
    crowd.check_next().await;
}

#[tokio::test]
async fn a_deferred_foreign_key_fails_a_write_that_is_alone() {
    let crowd = with_deferred_keys().await;
    let dangling = crowd.queue("insert into child values (77)");
    crowd.release().await;
    assert_eq!(dangling.await.unwrap_err().kind(), Kind::ForeignKey);
    assert_eq!(crowd.bench.count("child").await, 0);
    crowd.check_next().await;
}

#[tokio::test]
async fn what_may_not_be_in_a_shared_transaction_is_refused_or_run_by_itself() {
    let crowd = Crowd::new().await;
    let mut queued = vec![(None, crowd.queue(&insert("a")))];
    for text in [
        "commit",
        "begin",
        "rollback",
        "savepoint s",
        "release mainstay_write",
        "pragma defer_foreign_keys = on",
        "attach ':memory:' as other",
    ] {
        queued.push((Some(Kind::SessionStatement), crowd.queue(text)));
        queued.push((None, crowd.queue(&insert(text))));
    }
    // Those cannot be in a transaction at all, or change what others have prepared.
    for text in [
        "vacuum",
        "create table u (a)",
        "create index by_a on t (a)",
        "analyze",
        "drop table u",
    ] {
        queued.push((None, crowd.queue(text)));
        queued.push((None, crowd.queue(&insert(text))));
    }
    crowd.release().await;
    for (expected, queued) in queued {
        let error = queued.await.err();
        let kind = error.as_ref().map(Error::kind);
        assert_eq!(kind, expected, "{error:?}");
    }
    assert_eq!(crowd.all().await.len(), 13);
    crowd.check_next().await;
}

#[tokio::test]
async fn a_temporary_table_is_nobody_elses() {
    let crowd = Crowd::new().await;
    let made = crowd.queue("create temp table mine (a)");
    let stranger = crowd.queue("insert into mine values (1)");
    crowd.release().await;
    made.await.unwrap();
    assert_eq!(stranger.await.unwrap_err().kind(), Kind::Statement);
    crowd.check_next().await;
}

#[tokio::test]
async fn a_caller_that_leaves_the_queue_is_skipped() {
    let crowd = Crowd::new().await;
    let first = crowd.queue(&insert("a"));
    let gone = crowd.queue(&insert("gone"));
    let last = crowd.queue(&insert("b"));
    drop(gone);
    crowd.release().await;
    first.await.unwrap();
    last.await.unwrap();
    assert_eq!(crowd.all().await, ["a", "b"]);
    crowd.check_next().await;
}

#[tokio::test]
async fn a_caller_whose_time_ends_in_the_queue_is_told_that_nothing_was_done() {
    let crowd = Crowd::new().await;
    let first = crowd.queue(&insert("a"));
    let brief = Deadline::from_now(Duration::from_millis(20));
    let mut late = crowd.queue_with(&insert("late"), (), brief);
    // As the facade does: it asks once more when the caller's own time is over.
    tokio::time::sleep_until(brief.instant()).await;
    let error = (&mut late).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.class()),
        (Kind::Timeout, Class::NotSent)
    );
    crowd.release().await;
    first.await.unwrap();
    assert_eq!(crowd.all().await, ["a"]);
    crowd.check_next().await;
}

/// The longest that the innocent may wait after a long write beside them was given up.
const FREE_WITHIN: Duration = Duration::from_millis(100);

/// Gives up a long write among innocent ones. A machine that stands still for that long does not do
/// so every time.
async fn after_giving_up(give_up: impl AsyncFn(&Crowd, BoxFuture<'_, Result<Reply>>)) {
    let mut waits = Vec::new();
    while waits.len() < 5 {
        let took = wait_after(&give_up).await;
        waits.push(took);
        if took < FREE_WITHIN {
            return;
        }
    }
    panic!("{waits:?}");
}

/// How long the innocent wait after a long write beside them was given up.
async fn wait_after(give_up: impl AsyncFn(&Crowd, BoxFuture<'_, Result<Reply>>)) -> Duration {
    let crowd = Crowd::new().await;
    let before = crowd.queue("insert into t (a) values ('before') returning a");
    let brief = Deadline::from_now(Duration::from_millis(500));
    let long = crowd.queue_with(ENDLESS_WRITE, (), brief);
    let after = crowd.queue(&insert("after"));
    crowd.release().await;
    give_up(&crowd, long).await;
    let freed = Instant::now();
    assert_eq!(text(&before.await.unwrap().rows[0].values()[0]), "before");
    after.await.unwrap();
    let took = freed.elapsed();
    assert_eq!(crowd.all().await, ["after", "before"]);
    crowd.check_next().await;
    took
}

/// Waits until a write of somebody's has been running for a while.
async fn until_it_runs(crowd: &Crowd) {
    while !crowd.session().is_running() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_long_write_that_is_dropped_frees_the_writer_and_costs_nobody_anything() {
    after_giving_up(async |crowd, long| {
        until_it_runs(crowd).await;
        drop(long);
    })
    .await;
}

#[tokio::test]
async fn a_long_write_ends_at_its_deadline_and_costs_nobody_anything() {
    after_giving_up(async |_, long| {
        let error = long.await.unwrap_err();
        assert_eq!(
            (error.kind(), error.class()),
            (Kind::Timeout, Class::RolledBack)
        );
    })
    .await;
}

#[tokio::test]
async fn statement_timeout_ends_one_write_of_a_group_and_costs_the_others_nothing() {
    let bench = Bench::with(|config, _| {
        config.statement_timeout = Some(Duration::from_millis(100));
    })
    .await;
    let table = "create table t (id integer primary key, a text unique)";
    execute(&*bench.writer, table).await.unwrap();
    let crowd = Crowd::on(bench).await;
    let before = crowd.queue(&insert("before"));
    let long = crowd.queue(ENDLESS_WRITE);
    let after = crowd.queue(&insert("after"));
    crowd.release().await;
    before.await.unwrap();
    let error = long.await.unwrap_err();
    assert_eq!(
        (error.kind(), error.class()),
        (Kind::Timeout, Class::Permanent),
        "{error}"
    );
    assert!(error.message().contains("statement_timeout"), "{error}");
    after.await.unwrap();
    assert_eq!(crowd.all().await, ["after", "before"]);
    crowd.check_next().await;
}

#[tokio::test]
async fn a_commit_that_is_constrained_is_repeated_one_by_one() {
    let crowd = Crowd::new().await;
    let refused = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&refused);
    let hook = move || count.fetch_add(1, Ordering::SeqCst) == 0;
    let hooked = crowd
        .session()
        .call(|handle| handle.commit_hook(Some(hook)));
    hooked.await.unwrap().unwrap();
    let queued: Vec<_> = ["a", "b", "c"]
        .iter()
        .map(|name| crowd.queue(&insert(name)))
        .collect();
    crowd.release().await;
    for queued in join_all(queued).await {
        queued.unwrap();
    }
    assert_eq!(crowd.all().await, ["a", "b", "c"]);
    assert_eq!((crowd.commits(), refused.load(Ordering::SeqCst)), (3, 4));
}

#[tokio::test]
async fn a_commit_that_is_refused_for_good_fails_with_its_own_error() {
    let crowd = Crowd::new().await;
    let hooked = crowd
        .session()
        .call(|handle| handle.commit_hook(Some(|| true)));
    hooked.await.unwrap().unwrap();
    let queued = [crowd.queue(&insert("a")), crowd.queue(&insert("b"))];
    crowd.release().await;
    for queued in join_all(queued).await {
        let error = queued.unwrap_err();
        assert_eq!(
            (error.kind(), error.class()),
            (Kind::Statement, Class::Permanent),
            "{error}"
        );
    }
    assert_eq!(crowd.all().await, [""; 0]);
}

/// Without a write-ahead log a reader stands in the way of COMMIT.
async fn where_readers_are_in_the_way() -> (Crowd, rusqlite::Connection) {
    let bench = Bench::with_table().await;
    bench.reader.close(soon()).await;
    let session: &SqliteSession = bench.writer.as_any().downcast_ref().unwrap();
    let mode = session.call(|handle| {
        handle.query_row("pragma journal_mode = delete", [], |row| {
            row.get::<_, String>(0)
        })
    });
    assert_eq!(mode.await.unwrap().unwrap(), "delete");
    let other = rusqlite::Connection::open(bench.path()).unwrap();
    other
        .execute_batch("begin; select count(*) from t")
        .unwrap();
    let holder = Arc::clone(&bench.reader);
    (Crowd { bench, holder }, other)
}

#[tokio::test]
async fn a_commit_that_finds_the_file_locked_is_repeated() {
    let (crowd, reader) = where_readers_are_in_the_way().await;
    let queued = [crowd.queue(&insert("a")), crowd.queue(&insert("b"))];
    until_it_runs(&crowd).await;
    reader.execute_batch("commit").unwrap();
    for queued in join_all(queued).await {
        queued.unwrap();
    }
    let count: i64 = reader
        .query_row("select count(*) from t", [], |row| row.get(0))
        .unwrap();
    assert_eq!(count, 2);
}

#[tokio::test]
async fn a_commit_that_stays_locked_is_undone_at_the_deadline() {
    let (crowd, reader) = where_readers_are_in_the_way().await;
    let brief = Deadline::from_now(Duration::from_millis(100));
    let late = crowd.queue_with(&insert("a"), (), brief);
    let error = late.await.unwrap_err();
    assert_eq!(
        (error.kind(), error.class()),
        (Kind::Timeout, Class::RolledBack),
        "{error}"
    );
    reader.execute_batch("commit").unwrap();
    let count: i64 = reader
        .query_row("select count(*) from t", [], |row| row.get(0))
        .unwrap();
    assert_eq!(count, 0);
    crowd.queue(&insert("b")).await.unwrap();
}

#[tokio::test]
async fn rows_that_cannot_be_told_were_written_all_the_same() {
    let crowd = Crowd::new().await;
    let first = crowd.queue(&insert("a"));
    let odd = crowd.queue("insert into t (id, a) values (7, 'b') returning cast(x'ff' as text)");
    crowd.release().await;
    first.await.unwrap();
    let error = odd.await.unwrap_err();
    assert_eq!(error.kind(), Kind::Decode);
    assert!(error.message().contains("was carried out"), "{error}");
    assert_eq!(
        value(&*crowd.bench.reader, "select a from t where id = 7").await,
        Value::Text("b".into())
    );
    crowd.check_next().await;
}

#[tokio::test]
async fn closing_answers_everybody_and_leaves_nothing_half_done() {
    let crowd = Crowd::new().await;
    let queued: Vec<_> = (0..10)
        .map(|n| crowd.queue(&insert(&n.to_string())))
        .collect();
    crowd.writer().close(soon()).await;
    for queued in join_all(queued).await {
        let error = queued.unwrap_err();
        assert_eq!(
            (error.kind(), error.class()),
            (Kind::Closed, Class::NotSent)
        );
    }
    assert_eq!(
        scalar(&*crowd.bench.reader, "select count(*) from t").await,
        0
    );
}

#[tokio::test]
async fn a_shared_write_may_be_dropped_at_any_point() {
    let bench = Bench::with_table().await;
    let statement = Statement::new("insert into t (a) values (random())", ()).unwrap();
    let batch = [statement.clone(), statement.clone()];
    let mut context = Context::from_waker(Waker::noop());
    for polls in (0..8).chain([20, 100]) {
        let before = bench.count("t").await;
        let mut one = bench
            .writer
            .run_shared(&statement, Want::Affected, on(WRITE));
        let mut two = bench.writer.batch_shared(&batch, PLAIN, on(WRITE));
        let (mut one_done, mut two_done) = (false, false);
        for _ in 0..polls {
            one_done = one_done || one.as_mut().poll(&mut context).is_ready();
            two_done = two_done || two.as_mut().poll(&mut context).is_ready();
            tokio::task::yield_now().await;
        }
        drop((one, two));
        // Behind everything that was queued.
        bench.writer.check(soon()).await.unwrap();
        assert_eq!(bench.writer.condition(), Condition::Clean);
        let written = bench.count("t").await - before;
        assert!((0..=3).contains(&written), "{written}");
        assert!(written >= i64::from(one_done) + 2 * i64::from(two_done));
    }
}
