//! A disk that fails to sync: what is said of COMMIT, and how writing goes on.

use crate::crowd::{Crowd, insert};
use crate::failing_disk::{in_a_child, sign};
use crate::{Bench, READ, WRITE, backend_with, on, run, soon, value};
use mainstay_core::backend::{Backend, Condition, Want};
use mainstay_core::config::SqlitePath;
use mainstay_core::{Class, Kind, Statement, Value};
use std::path::Path;
use std::process::Command;

/// What a process would find that starts after a crash at this moment: the file and its log, and no
/// memory of which part of the log counts.
fn after_a_crash(path: &Path) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("app.db");
    let log = path.with_file_name("app.db-wal");
    // Another program's doing: closing a descriptor of the file here would drop SQLite's locks.
    let copied = Command::new("cp")
        .args([path, &log])
        .arg(directory.path())
        .status();
    assert!(copied.unwrap().success());
    let connection = rusqlite::Connection::open(&copy).unwrap();
    let mut statement = connection.prepare("select a from t order by a").unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

async fn write(
    connection: &dyn mainstay_core::backend::Connection,
    name: &str,
) -> mainstay_core::Result<()> {
    let statement = Statement::new(insert(name), ()).unwrap();
    let written = connection.run_shared(&statement, Want::Affected, on(WRITE));
    written.await.map(drop)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_commit_that_was_not_synced_is_unknown_for_all_and_shuts_the_lane_until_it_is_settled() {
    let name = "failed_sync::a_commit_that_was_not_synced_is_unknown_for_all_and_shuts_the_lane_until_it_is_settled";
    let Some(sign) = sign() else {
        return in_a_child(name);
    };
    let bench = Bench::with_table().await;
    write(&*bench.writer, "kept").await.unwrap();
    let crowd = Crowd::on(bench).await;
    let lost = [
        crowd.queue(&insert("lost 1")),
        crowd.queue(&insert("lost 2")),
    ];
    let failed = crowd.queue(&insert("kept"));
    std::fs::write(&sign, "").unwrap();
    crowd.release().await;
    for lost in lost {
        let error = lost.await.unwrap_err();
        assert_eq!(
            (error.kind(), error.class()),
            (Kind::OutcomeUnknown, Class::OutcomeUnknown)
        );
    }
    // Nothing of it has happened in any case, and what it failed at may not be there either.
    let error = failed.await.unwrap_err();
    assert_eq!(
        (error.kind(), error.class()),
        (Kind::Storage, Class::RolledBack)
    );
    // Here nobody sees it, and after a crash it would be there: that is what unknown means.
    assert_eq!(crowd.all().await, ["kept"]);
    assert_eq!(
        after_a_crash(&crowd.bench.path()),
        ["kept", "lost 1", "lost 2"]
    );
    // The lane is shut: for the writer that met it, and for every other until the disk is well.
    assert_eq!(crowd.writer().condition(), Condition::Broken);
    let error = write(crowd.writer(), "refused").await.unwrap_err();
    assert_eq!(error.class(), Class::NotSent);
    for _ in 0..3 {
        let error = crowd.bench.sqlite.connect(WRITE, soon()).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.class()),
            (Kind::Storage, Class::NotSent),
            "{error}"
        );
        assert!(!crowd.bench.sqlite.is_permanent(&error));
    }
    // Reading goes on.
    crowd.bench.sqlite.connect(READ, soon()).await.unwrap();
    std::fs::remove_file(&sign).unwrap();
    let writer = crowd.bench.sqlite.connect(WRITE, soon()).await.unwrap();
    // Now there is one answer, whether asked here or after a crash.
    assert_eq!(after_a_crash(&crowd.bench.path()), ["kept"]);
    write(&*writer, "new").await.unwrap();
    assert_eq!(crowd.all().await, ["kept", "new"]);
    assert_eq!(after_a_crash(&crowd.bench.path()), ["kept", "new"]);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_lane_stays_shut_while_an_old_reader_keeps_the_log_from_being_copied() {
    let name =
        "failed_sync::the_lane_stays_shut_while_an_old_reader_keeps_the_log_from_being_copied";
    let Some(sign) = sign() else {
        return in_a_child(name);
    };
    let bench = Bench::with_table().await;
    let old = rusqlite::Connection::open(bench.path()).unwrap();
    old.execute_batch("begin; select count(*) from t").unwrap();
    write(&*bench.writer, "kept").await.unwrap();
    std::fs::write(&sign, "").unwrap();
    let error = write(&*bench.writer, "lost").await.unwrap_err();
    assert!(error.is_outcome_unknown());
    std::fs::remove_file(&sign).unwrap();
    let brief = mainstay_core::Deadline::from_now(std::time::Duration::from_millis(200));
    let error = bench.sqlite.connect(WRITE, brief).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.class()),
        (Kind::Storage, Class::NotSent),
        "{error}"
    );
    old.execute_batch("commit").unwrap();
    let writer = bench.sqlite.connect(WRITE, soon()).await.unwrap();
    write(&*writer, "new").await.unwrap();
    assert_eq!(after_a_crash(&bench.path()), ["kept", "new"]);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn settling_keeps_the_applications_own_settings() {
    let name = "failed_sync::settling_keeps_the_applications_own_settings";
    let Some(sign) = sign() else {
        return in_a_child(name);
    };
    let directory = tempfile::tempdir().unwrap();
    let path = SqlitePath::File(directory.path().join("app.db"));
    let sqlite = backend_with(path, |_, target| {
        target.durability = mainstay_core::config::Durability::Full;
    });
    let writer = sqlite.connect(WRITE, soon()).await.unwrap();
    let text = "create table t (a); pragma user_version = 42";
    writer.hand_over();
    writer.script(text, on(WRITE)).await.unwrap();
    writer.clean(soon()).await.unwrap();
    std::fs::write(&sign, "").unwrap();
    assert!(
        write(&*writer, "lost")
            .await
            .unwrap_err()
            .is_outcome_unknown()
    );
    std::fs::remove_file(&sign).unwrap();
    let writer = sqlite.connect(WRITE, soon()).await.unwrap();
    let version = run(
        &*writer,
        "select user_version from pragma_user_version",
        (),
        WRITE,
    )
    .await;
    assert_eq!(version.unwrap().rows[0].values()[0], Value::Int(42));
    assert_eq!(
        value(&*writer, "select synchronous from pragma_synchronous").await,
        Value::Int(2)
    );
}
