//! A COMMIT that the disk failed to sync on SQLite, looked into as soon as the disk is well again.

use mainstay::{Database, Kind, Result, TransactionOptions};
use mainstay_testkit::wait_for;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

#[path = "../../../mainstay-sqlite/tests/it/failing_disk.rs"]
mod failing_disk;

use failing_disk::{in_a_child, sign};

const LIMIT: Duration = Duration::from_secs(60);

/// A database with a table `log` on a disk that fails on command.
struct Bed {
    directory: tempfile::TempDir,
    db: Database,
    runs: AtomicU32,
}

impl Bed {
    async fn new(connection_limit: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("file:{}/app.db", directory.path().display());
        let builder = Database::builder(&url).connection_limit(connection_limit);
        let db = builder.open().await.unwrap();
        db.execute("create table log (what text)", ())
            .await
            .unwrap();
        db.create_token_table().await.unwrap();
        let runs = AtomicU32::new(0);
        Self {
            directory,
            db,
            runs,
        }
    }

    /// Writes one row, on a disk that fails from now on; only the first run makes it fail.
    async fn write(&self, options: TransactionOptions, sign: &Path) -> Result<u64> {
        self.write_on(options, sign, "").await
    }

    async fn write_on(&self, options: TransactionOptions, sign: &Path, how: &str) -> Result<u64> {
        let written = self.db.transaction_with(options, async |tx| {
            let run = self.runs.fetch_add(1, Ordering::SeqCst);
            let written = tx.execute("insert into log values ('once')", ()).await?;
            if run == 0 {
                std::fs::write(sign, how).unwrap();
            }
            Ok(written)
        });
        written.await
    }

    /// The disk is well again when the writer that met the failure has been closed.
    async fn heal(&self, sign: &Path) {
        wait_for("the writer to be closed", LIMIT, async || {
            let status = self.db.status();
            let closed = status.pools.iter().any(|pool| pool.closed > 0);
            (closed && sign.exists()).then_some(())
        })
        .await
        .unwrap();
        std::fs::remove_file(sign).unwrap();
    }

    /// What is there, for this process and for one that starts after a crash.
    async fn rows(&self) -> (i64, i64) {
        let here = self.db.fetch_one("select count(*) from log", ());
        let copy = tempfile::tempdir().unwrap();
        let file = self.directory.path().join("app.db");
        // Another program's doing: closing a descriptor of the file here would drop SQLite's locks.
        let copied = std::process::Command::new("cp")
            .args([&file, &file.with_file_name("app.db-wal")])
            .arg(copy.path())
            .status();
        assert!(copied.unwrap().success());
        let url = format!("file:{}/app.db", copy.path().display());
        let there = Database::connect(&url).await.unwrap();
        let there = there.fetch_one("select count(*) from log", ());
        (here.await.unwrap(), there.await.unwrap())
    }
}

fn once() -> TransactionOptions {
    TransactionOptions::new().exactly_once().timeout(LIMIT)
}

fn keyed() -> TransactionOptions {
    once().exactly_once_as("order-7")
}

/// Where readers have the file open, nobody sees what was not synced, and it is written over.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_was_lost_with_its_sync_is_run_again() {
    let name = "failed_sync::a_commit_that_was_lost_with_its_sync_is_run_again";
    let Some(sign) = sign() else {
        return in_a_child(name);
    };
    for options in [once(), keyed()] {
        let bed = Bed::new(5).await;
        let (written, ()) = tokio::join!(bed.write(options, &sign), bed.heal(&sign));
        assert_eq!(written.unwrap(), 1);
        assert_eq!(bed.runs.load(Ordering::SeqCst), 2);
        assert_eq!(bed.rows().await, (1, 1));
    }
}

/// Where nobody else has the file open, the next who opens it finds in the log what was not synced.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_came_back_without_its_sync_is_answered_and_not_run_again() {
    let name =
        "failed_sync::a_commit_that_came_back_without_its_sync_is_answered_and_not_run_again";
    let Some(sign) = sign() else {
        return in_a_child(name);
    };
    for options in [once(), keyed()] {
        let bed = Bed::new(1).await;
        let (written, ()) = tokio::join!(bed.write(options, &sign), bed.heal(&sign));
        assert_eq!(written.unwrap(), 1);
        assert_eq!(bed.runs.load(Ordering::SeqCst), 1);
        assert_eq!(bed.rows().await, (1, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_stays_bad_leaves_the_outcome_unknown_and_the_key_decides_later() {
    let name =
        "failed_sync::a_disk_that_stays_bad_leaves_the_outcome_unknown_and_the_key_decides_later";
    let Some(sign) = sign() else {
        return in_a_child(name);
    };
    // The outcome of the first is open until the second call settles it: lost, or come back.
    for (connection_limit, came_back) in [(5, false), (1, true)] {
        let bed = Bed::new(connection_limit).await;
        let brief = keyed().timeout(Duration::from_millis(500));
        let error = bed.write(brief, &sign).await.unwrap_err();
        assert!(error.is_outcome_unknown(), "{error}");
        let doubt = error.doubt().unwrap();
        assert_eq!(doubt.token(), Some("order-7"));
        assert!(error.to_string().contains("order-7"), "{error}");
        let (again, ()) = tokio::join!(bed.write(keyed(), &sign), bed.heal(&sign));
        match came_back {
            true => assert!(again.unwrap_err().is_already_done()),
            false => assert_eq!(again.unwrap(), 1),
        }
        assert_eq!(bed.rows().await, (1, 1));
    }
}

/// COMMIT is waited for until half of the time is over; after that the writer is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_hangs_in_its_sync_is_looked_into_when_the_writer_is_free() {
    let name =
        "failed_sync::a_commit_that_hangs_in_its_sync_is_looked_into_when_the_writer_is_free";
    let Some(sign) = sign() else {
        return in_a_child(name);
    };
    let bed = Bed::new(5).await;
    let healing = async {
        wait_for("COMMIT to be given up", LIMIT, async || {
            let status = bed.db.status();
            let is_given_up = status.pools.iter().any(|pool| pool.in_upkeep > 0);
            (is_given_up && sign.exists()).then_some(())
        })
        .await
        .unwrap();
        std::fs::remove_file(&sign).unwrap();
    };
    let patient = once().timeout(Duration::from_secs(5));
    let (written, ()) = tokio::join!(bed.write_on(patient, &sign, "hangs"), healing);
    assert_eq!(written.unwrap(), 1);
    assert_eq!(bed.runs.load(Ordering::SeqCst), 1);
    assert_eq!(bed.rows().await, (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_promise_a_failed_sync_is_reported_and_never_rerun() {
    let name = "failed_sync::without_the_promise_a_failed_sync_is_reported_and_never_rerun";
    let Some(sign) = sign() else {
        return in_a_child(name);
    };
    let bed = Bed::new(5).await;
    let error = bed.write(TransactionOptions::new(), &sign).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), Kind::OutcomeUnknown, "{error}");
    bed.heal(&sign).await;
    assert_eq!(bed.runs.load(Ordering::SeqCst), 1);
    bed.db
        .execute("insert into log values ('next')", ())
        .await
        .unwrap();
    assert_eq!(bed.rows().await, (1, 1));
}
