//! Writes that take the transaction of their group with them: the innocent ones are done again.

use crate::crowd::{Crowd, insert, text};
use crate::{Bench, execute, soon};
use futures_util::future::join_all;
use mainstay_core::backend::Condition;
use mainstay_core::{Class, Kind};
use rusqlite::ffi;
use rusqlite::functions::FunctionFlags;

/// As [`taken_by`], and the writer is as good as before.
async fn killed_by(crowd: &Crowd, killer: &str, kind: Kind) {
    taken_by(crowd, killer, kind).await;
    crowd.check_next().await;
}

/// Runs a write that takes the transaction with it between two that are innocent.
async fn taken_by(crowd: &Crowd, killer: &str, kind: Kind) {
    let before = crowd.queue("insert into t (a) values ('before') returning a");
    let guilty = crowd.queue(killer);
    let after = crowd.queue("insert into t (a) values ('after') returning a");
    crowd.release().await;
    assert_eq!(text(&before.await.unwrap().rows[0].values()[0]), "before");
    let error = guilty.await.unwrap_err();
    assert_eq!(
        (error.kind(), error.class()),
        (kind, Class::Permanent),
        "{error}"
    );
    assert_eq!(text(&after.await.unwrap().rows[0].values()[0]), "after");
    // None where the machine was so slow that the killer began a group of its own.
    assert!(crowd.replays() <= 1, "{}", crowd.replays());
    assert_eq!(crowd.all().await, ["after", "before"]);
}

#[tokio::test]
async fn or_rollback_takes_only_itself() {
    let crowd = Crowd::new().await;
    let killer = "insert or rollback into t (a) values ('x'), ('before'), ('x')";
    killed_by(&crowd, killer, Kind::Unique).await;
}

#[tokio::test]
async fn raise_rollback_takes_only_itself() {
    let bench = Bench::with_table().await;
    let trigger = "create trigger no before insert on t when new.a = 'never'
        begin select raise(rollback, 'never'); end";
    execute(&*bench.writer, trigger).await.unwrap();
    let crowd = Crowd::on(bench).await;
    killed_by(&crowd, &insert("never"), Kind::Statement).await;
}

/// A crowd whose writer has a function `fail(code)`, which ends a statement as SQLite's own allocations
/// and reads do when they fail.
async fn with_failures() -> Crowd {
    let crowd = Crowd::new().await;
    let defined = crowd.session().call(|handle| {
        handle.create_scalar_function("fail", 1, FunctionFlags::SQLITE_UTF8, |context| {
            let code: i32 = context.get(0)?;
            let failure = ffi::Error::new(code);
            Err::<i64, _>(rusqlite::Error::SqliteFailure(failure, None))
        })
    });
    defined.await.unwrap().unwrap();
    crowd
}

#[tokio::test]
async fn a_lack_of_memory_takes_only_what_met_it() {
    let crowd = with_failures().await;
    let killer = format!("insert into t (a) values (fail({}))", ffi::SQLITE_NOMEM);
    taken_by(&crowd, &killer, Kind::Storage).await;
}

#[tokio::test]
async fn a_page_that_cannot_be_read_ends_its_writer_and_nobody_is_told_what_is_not_so() {
    let crowd = with_failures().await;
    let killer = format!(
        "insert into t (a) values (fail({}))",
        ffi::SQLITE_IOERR_READ
    );
    let innocents = ["before", "after"].map(insert);
    let before = crowd.queue(&innocents[0]);
    let guilty = crowd.queue(&killer);
    let after = crowd.queue(&innocents[1]);
    crowd.release().await;
    let told = [before.await, after.await];
    let error = guilty.await.unwrap_err();
    assert_eq!(
        (error.kind(), error.class()),
        (Kind::Storage, Class::RolledBack),
        "{error:?}"
    );
    // Nobody knows what such a handle would read next; what has not begun is done on the next one.
    assert_eq!(crowd.writer().condition(), Condition::Broken);
    let kept = crowd.all().await;
    for (name, told) in ["before", "after"].iter().zip(told) {
        let is_there = kept.iter().any(|kept| kept == name);
        match told {
            Ok(reply) => assert!(is_there && reply.affected == 1, "{name}"),
            Err(error) => assert!(!is_there && error.class() == Class::NotSent, "{error:?}"),
        }
    }
}

#[tokio::test]
async fn a_full_disk_takes_only_what_does_not_fit() {
    let crowd = Crowd::new().await;
    let session = crowd.session();
    let limited = session.call(|handle| {
        handle.query_row("pragma max_page_count = 20", [], |row| row.get::<_, i64>(0))
    });
    assert_eq!(limited.await.unwrap().unwrap(), 20);
    let before = crowd.queue(&insert("before"));
    let large = crowd.queue_with(
        "insert into t (a) values ($1)",
        ("x".repeat(200_000),),
        soon(),
    );
    let after = crowd.queue(&insert("after"));
    crowd.release().await;
    before.await.unwrap();
    let error = large.await.unwrap_err();
    assert_eq!(
        (error.kind(), error.class()),
        (Kind::Storage, Class::Permanent)
    );
    after.await.unwrap();
    assert_eq!(crowd.all().await, ["after", "before"]);
}

#[tokio::test]
async fn everybody_gets_an_own_error_when_everybody_is_guilty() {
    let crowd = Crowd::new().await;
    let seed = crowd.queue(&insert("a"));
    let guilty: Vec<_> = (0..30)
        .map(|_| crowd.queue("insert or rollback into t (a) values ('a')"))
        .collect();
    let innocent = crowd.queue(&insert("b"));
    crowd.release().await;
    seed.await.unwrap();
    for guilty in join_all(guilty).await {
        assert_eq!(guilty.unwrap_err().kind(), Kind::Unique);
    }
    innocent.await.unwrap();
    assert!(crowd.replays() < 20, "{}", crowd.replays());
    assert_eq!(crowd.all().await, ["a", "b"]);
    crowd.check_next().await;
}
