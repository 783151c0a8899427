use crate::{Bench, PLAIN, READ, WRITE, execute, on, run, scalar};
use mainstay_core::backend::{Begin, Condition, Connection, Savepoint};
use mainstay_core::{Class, Kind, Statement};

async fn insert(connection: &dyn Connection, a: &str) -> mainstay_core::Result<()> {
    run(connection, "insert into t (a) values ($1)", (a,), WRITE)
        .await
        .map(drop)
}

#[tokio::test]
async fn what_is_committed_stays_and_what_is_rolled_back_does_not() {
    let bench = Bench::with_table().await;
    let writer = &*bench.writer;
    writer.begin(PLAIN, on(WRITE)).await.unwrap();
    assert_eq!(writer.condition(), Condition::Dirty);
    insert(writer, "kept").await.unwrap();
    assert_eq!(
        bench.count("t").await,
        0,
        "nobody sees it before the commit"
    );
    writer.commit(on(WRITE)).await.unwrap();
    assert_eq!(writer.condition(), Condition::Clean);
    writer.begin(PLAIN, on(WRITE)).await.unwrap();
    insert(writer, "lost").await.unwrap();
    writer.roll_back(on(WRITE)).await.unwrap();
    writer.roll_back(on(WRITE)).await.unwrap();
    assert_eq!(bench.count("t").await, 1);
    let error = writer.commit(on(WRITE)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::TransactionOver);
}

#[tokio::test]
async fn a_failed_statement_aborts_its_transaction() {
    let bench = Bench::with_table().await;
    let writer = &*bench.writer;
    writer.begin(PLAIN, on(WRITE)).await.unwrap();
    insert(writer, "x").await.unwrap();
    let error = insert(writer, "x").await.unwrap_err();
    assert_eq!(
        (error.kind(), error.constraint()),
        (Kind::Unique, Some("t.a"))
    );
    for error in [
        insert(writer, "y").await.unwrap_err(),
        run(writer, "select 1", (), WRITE).await.unwrap_err(),
        writer.script("select 1", on(WRITE)).await.unwrap_err(),
        writer
            .savepoint(Savepoint::Set(1), on(WRITE))
            .await
            .unwrap_err(),
        writer.commit(on(WRITE)).await.unwrap_err(),
    ] {
        assert_eq!(
            (error.kind(), error.class()),
            (Kind::TransactionOver, Class::RolledBack)
        );
    }
    // The commit of an aborted transaction has ended it.
    assert_eq!(writer.condition(), Condition::Clean);
    assert_eq!(bench.count("t").await, 0);
}

/// SQLite rolls the whole transaction back here, and what followed would commit by itself.
#[tokio::test]
async fn nothing_leaks_after_sqlite_has_ended_the_transaction() {
    let bench = Bench::with_table().await;
    let writer = &*bench.writer;
    insert(writer, "x").await.unwrap();
    let raising = "create trigger no_y before insert on t when new.a = 'y'
        begin select raise(rollback, 'no y'); end";
    execute(writer, raising).await.unwrap();
    for (text, kind) in [
        ("insert or rollback into t (a) values ('x')", Kind::Unique),
        ("insert into t (a) values ('y')", Kind::Statement),
    ] {
        writer.begin(PLAIN, on(WRITE)).await.unwrap();
        insert(writer, "before").await.unwrap();
        assert_eq!(execute(writer, text).await.unwrap_err().kind(), kind);
        let leaked = insert(writer, "leaked").await.unwrap_err();
        assert_eq!(leaked.kind(), Kind::TransactionOver);
        let undone = writer
            .savepoint(Savepoint::RollBack(1), on(WRITE))
            .await
            .unwrap_err();
        assert_eq!(undone.kind(), Kind::TransactionOver);
        let committed = writer.commit(on(WRITE)).await.unwrap_err();
        assert_eq!(committed.kind(), Kind::TransactionOver);
        assert_eq!(bench.count("t").await, 1);
    }
}

#[tokio::test]
async fn a_savepoint_undoes_a_failure() {
    let bench = Bench::with_table().await;
    let writer = &*bench.writer;
    let step = |step| writer.savepoint(step, on(WRITE));
    writer.begin(PLAIN, on(WRITE)).await.unwrap();
    insert(writer, "x").await.unwrap();
    step(Savepoint::Set(1)).await.unwrap();
    insert(writer, "inner").await.unwrap();
    step(Savepoint::Set(2)).await.unwrap();
    insert(writer, "x").await.unwrap_err();
    assert!(step(Savepoint::Release(2)).await.is_err());
    step(Savepoint::RollBack(2)).await.unwrap();
    insert(writer, "innermost").await.unwrap();
    step(Savepoint::Release(1)).await.unwrap();
    step(Savepoint::Set(1)).await.unwrap();
    insert(writer, "undone").await.unwrap();
    step(Savepoint::RollBack(1)).await.unwrap();
    writer.commit(on(WRITE)).await.unwrap();
    let text = "select count(*) from t where a in ('x', 'inner', 'innermost')";
    assert_eq!(scalar(&*bench.reader, text).await, 3);
    assert_eq!(bench.count("t").await, 3);
}

#[tokio::test]
async fn a_deferred_foreign_key_fails_at_commit_and_ends_the_transaction() {
    let bench = Bench::new().await;
    let writer = &*bench.writer;
    let text = "create table p (id integer primary key);
        create table c (p int references p deferrable initially deferred)";
    writer.script(text, on(WRITE)).await.unwrap();
    writer.begin(PLAIN, on(WRITE)).await.unwrap();
    execute(writer, "insert into c values (7)").await.unwrap();
    let error = writer.commit(on(WRITE)).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.class()),
        (Kind::ForeignKey, Class::Permanent)
    );
    assert_eq!(writer.condition(), Condition::Clean);
    assert_eq!(bench.count("c").await, 0);
    let error = execute(writer, "insert into c values (7)")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::ForeignKey);
}

#[tokio::test]
async fn a_read_only_transaction_sees_one_moment_and_refuses_to_write() {
    let bench = Bench::with_table().await;
    let read_only = Begin {
        isolation: None,
        read_only: true,
    };
    bench.reader.begin(read_only, on(READ)).await.unwrap();
    assert_eq!(bench.count("t").await, 0);
    insert(&*bench.writer, "x").await.unwrap();
    assert_eq!(bench.count("t").await, 0);
    bench.reader.commit(on(READ)).await.unwrap();
    assert_eq!(bench.count("t").await, 1);
    // On a connection that could write it is the transaction that refuses, for good.
    bench.writer.begin(read_only, on(WRITE)).await.unwrap();
    let error = insert(&*bench.writer, "y").await.unwrap_err();
    assert_eq!(
        (error.kind(), error.is_refused_by_read_lane()),
        (Kind::ReadOnly, false)
    );
    let error = bench.writer.commit(on(WRITE)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::TransactionOver);
}

#[tokio::test]
async fn a_batch_is_all_or_nothing() {
    let bench = Bench::with_table().await;
    let insert = |a: &str| Statement::new("insert into t (a) values ($1)", (a,)).unwrap();
    let both = [insert("x"), insert("y")];
    let affected = bench.writer.batch(&both, PLAIN, on(WRITE)).await.unwrap();
    assert_eq!(affected, [1, 1]);
    let error = bench
        .writer
        .batch(&[insert("z"), insert("x")], PLAIN, on(WRITE))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Unique);
    assert_eq!(bench.writer.condition(), Condition::Clean);
    assert_eq!(bench.count("t").await, 2);
    assert_eq!(
        bench.writer.batch(&[], PLAIN, on(WRITE)).await.unwrap(),
        [0_u64; 0]
    );
}

#[tokio::test]
async fn a_second_writer_waits_and_then_says_conflict() {
    let bench = Bench::with(|_, target| {
        target.busy_timeout = std::time::Duration::from_millis(20);
    })
    .await;
    execute(&*bench.writer, "create table t (a)").await.unwrap();
    let other = mainstay_core::backend::Backend::connect(&bench.sqlite, WRITE, crate::soon());
    let other = other.await.unwrap();
    bench.writer.begin(PLAIN, on(WRITE)).await.unwrap();
    let error = other.begin(PLAIN, on(WRITE)).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.class()),
        (Kind::Conflict, Class::RolledBack)
    );
    bench.writer.commit(on(WRITE)).await.unwrap();
    other.begin(PLAIN, on(WRITE)).await.unwrap();
}

#[tokio::test]
async fn two_statements_awaited_together_run_in_order() {
    let bench = Bench::with_table().await;
    let writer = &*bench.writer;
    writer.begin(PLAIN, on(WRITE)).await.unwrap();
    let (first, second, third) = tokio::join!(
        insert(writer, "x"),
        run(writer, "select count(*) from t", (), WRITE),
        insert(writer, "y"),
    );
    first.unwrap();
    third.unwrap();
    assert_eq!(second.unwrap().rows[0].at::<i64>(0).unwrap(), 1);
    writer.commit(on(WRITE)).await.unwrap();
}
