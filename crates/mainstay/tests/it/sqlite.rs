//! What only a SQLite file shows.

use futures_util::future::join_all;
use mainstay::migrate::Migrations;
use mainstay::{Database, Kind};
use std::time::Duration;

async fn fresh() -> (tempfile::TempDir, Database) {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file:{}/test.db", directory.path().display());
    let db = Database::connect(&url).await.unwrap();
    (directory, db)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_interactive_transactions_than_worker_threads_all_finish() {
    let (_directory, db) = fresh().await;
    db.execute("create table counter (value integer not null)", ())
        .await
        .unwrap();
    db.execute("insert into counter values (0)", ())
        .await
        .unwrap();
    let many = (0..64).map(|_| {
        let db = db.clone();
        tokio::spawn(async move {
            db.transaction(async |tx| {
                let value: i64 = tx.fetch_one("select value from counter", ()).await?;
                // Lets everybody else run while the transaction is open.
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
                tx.execute("update counter set value = $1", (value + 1,))
                    .await
            })
            .await
        })
    });
    for done in join_all(many).await {
        done.unwrap().unwrap();
    }
    assert_eq!(
        db.fetch_one::<i64>("select value from counter", ())
            .await
            .unwrap(),
        64
    );
}

#[tokio::test]
async fn health_asks_for_the_write_lock_only_where_that_is_wanted() {
    let (directory, db) = fresh().await;
    let path = directory.path().join("test.db");
    let probing = Database::builder(&format!("file:{}", path.display()))
        .write_probe(true)
        .open()
        .await
        .unwrap();
    assert!(probing.health().await.healthy);
    let other = mainstay::sqlite::rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("begin immediate").unwrap();
    assert!(db.health().await.healthy, "it can be read");
    let health = probing.health().await;
    assert!(!health.healthy && health.error.unwrap().is_timeout());
    other.execute_batch("rollback").unwrap();
    let health = probing.health().await;
    assert!(health.healthy, "{health:?}");
    assert_eq!(probing.status().leased(), 0);
}

#[tokio::test]
async fn health_sees_what_has_become_of_the_file() {
    use std::fs;
    use std::path::Path;
    let faults: [fn(&Path); 3] = [
        |path| fs::remove_file(path).unwrap(),
        |path| {
            let other = path.with_file_name("other.db");
            fs::write(&other, "").unwrap();
            fs::rename(&other, path).unwrap();
        },
        |path| {
            use std::io::Write;
            let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
            file.write_all(&[0xff; 100]).unwrap();
        },
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        let (directory, db) = fresh().await;
        db.execute("create table t (x integer)", ()).await.unwrap();
        assert!(db.health().await.healthy, "fault {number}");
        // With the writer in hand nothing is written between the checkpoint and the look, also no
        // statistics: what is in the log would answer in the place of the file.
        let health = db.with_connection(async |c| {
            loop {
                let checkpoint =
                    c.fetch_one::<(i64, i64, i64)>("pragma wal_checkpoint(truncate)", ());
                if checkpoint.write().await? == (0, 0, 0) {
                    break;
                }
            }
            fault(&directory.path().join("test.db"));
            Ok(db.health().await)
        });
        let error = health.await.unwrap().error;
        let error = error.unwrap_or_else(|| panic!("fault {number} was not seen"));
        assert_eq!(error.kind(), Kind::Storage, "fault {number}: {error}");
    }
}

#[tokio::test]
async fn a_temporary_database_serves_many_at_once_and_goes_with_its_handle() {
    let db = Database::connect("sqlite://?temp").await.unwrap();
    db.execute("create table t (x integer)", ()).await.unwrap();
    let tx = db.begin().await.unwrap();
    tx.execute("insert into t values (1)", ()).await.unwrap();
    // In memory this would wait for the transaction.
    assert_eq!(
        db.fetch_one::<i64>("select count(*) from t", ())
            .await
            .unwrap(),
        0
    );
    tx.commit().await.unwrap();
    let path: String = db
        .fetch_one("select file from pragma_database_list", ())
        .await
        .unwrap();
    assert!(std::path::Path::new(&path).exists());
    assert_eq!(db.close().await.left, 0);
    drop(db);
    assert!(!std::path::Path::new(&path).exists());
}

#[tokio::test]
async fn a_database_in_memory_is_one_database() {
    let db = Database::connect("sqlite::memory:").await.unwrap();
    db.execute("create table t (x integer)", ()).await.unwrap();
    let inserts = (0..20).map(|x| db.execute("insert into t values ($1)", (x,)).into_future());
    for inserted in join_all(inserts).await {
        assert_eq!(inserted.unwrap(), 1);
    }
    assert_eq!(
        db.fetch_one::<i64>("select count(*) from t", ())
            .await
            .unwrap(),
        20
    );
    assert_eq!(db.status().limit(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_started_at_the_same_time_are_applied_once() {
    let (directory, first) = fresh().await;
    let url = format!("file:{}/test.db", directory.path().display());
    let second = Database::connect(&url).await.unwrap();
    let files = (1..=5).map(|number| {
        (
            format!("{number}_t.sql"),
            format!("create table t{number} (x integer not null);"),
        )
    });
    let migrations = Migrations::from_files(files).unwrap();
    let both = join_all([first.migrate(&migrations), second.migrate(&migrations)]).await;
    let applied: usize = both
        .into_iter()
        .map(|done| done.unwrap().applied.len())
        .sum();
    assert_eq!(applied, 5);
    assert!(
        first
            .migration_status(&migrations)
            .await
            .unwrap()
            .is_up_to_date()
    );
}

#[tokio::test]
async fn a_failed_migration_leaves_nothing_behind_and_may_be_mended() {
    let (_directory, db) = fresh().await;
    let files = |second: &str| {
        let one = (
            "1_a.sql".to_owned(),
            "create table a (x integer);".to_owned(),
        );
        Migrations::from_files([one, ("2_b.sql".to_owned(), second.to_owned())]).unwrap()
    };
    let broken = files("create table b (x integer); create table b (x integer);");
    let error = db.migrate(&broken).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Migration);
    assert!(error.to_string().contains("0002_b"), "{error}");
    let status = db.migration_status(&broken).await.unwrap();
    assert_eq!(
        (status.applied.len(), status.failed.len()),
        (1, 1),
        "{status:?}"
    );
    let mended = files("create table b (x integer);");
    assert_eq!(db.migrate(&mended).await.unwrap().applied.len(), 1);
    let changed = files("create table b (x integer, y integer);");
    let error = db.migrate(&changed).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("was changed after it was applied"),
        "{error}"
    );
}

#[tokio::test]
async fn migrations_can_be_embedded() {
    let (_directory, db) = fresh().await;
    let migrations = mainstay::embed_migrations!("$CARGO_MANIFEST_DIR/tests/migrations").unwrap();
    assert_eq!(db.migrate(&migrations).await.unwrap().applied.len(), 1);
    db.execute("insert into notes (body) values ($1)", ("x",))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_backup_is_a_database_of_its_own() {
    let (directory, db) = fresh().await;
    db.execute("create table t (x integer)", ()).await.unwrap();
    db.execute("insert into t values (7)", ()).await.unwrap();
    let copy = directory.path().join("copy.db");
    let backup = db.backup(&copy, &|_, _| {}).await.unwrap();
    assert!(backup.bytes > 0);
    assert_eq!(
        db.backup(&copy, &|_, _| {}).await.unwrap_err().kind(),
        Kind::Storage
    );
    let copy = Database::connect(&format!("file:{}", copy.display()))
        .await
        .unwrap();
    assert_eq!(
        copy.fetch_one::<i64>("select x from t", ()).await.unwrap(),
        7
    );
}

#[tokio::test]
async fn health_and_status_and_info_tell_the_truth() {
    let (_directory, db) = fresh().await;
    db.execute("create table t (x integer)", ()).await.unwrap();
    let health = db.health().await;
    assert!(health.healthy, "{health:?}");
    let info = db.info().await.unwrap();
    assert!(
        info.size_bytes > 0 && info.version.starts_with('3'),
        "{info:?}"
    );
    assert_eq!(
        (info.tables[0].name.as_str(), info.tables[0].rows),
        ("t", Some(0))
    );
    assert_eq!(info.file.unwrap().journal_mode, "wal");
    let status = db.status();
    assert_eq!(status.pools.len(), 2);
    assert_eq!(status.leased(), 0);
    let report = db.close_within(Duration::from_secs(5)).await;
    assert_eq!(report.left, 0);
    assert!(!db.health().await.healthy);
}

#[tokio::test]
async fn strict_rows_make_a_missing_column_an_error() {
    #[derive(serde::Deserialize, Debug)]
    struct Noted {
        #[expect(dead_code, reason = "it is only decoded")]
        note: Option<String>,
    }
    let db = Database::builder("sqlite::memory:")
        .strict_rows(true)
        .open()
        .await
        .unwrap();
    let error = db
        .fetch_one::<Noted>("select 1 as id", ())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Decode);
    assert!(error.to_string().contains("note"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_by_hand_that_is_left_open_gives_the_writer_back_at_its_deadline() {
    let (_directory, db) = fresh().await;
    db.execute("create table t (a text)", ()).await.unwrap();
    let brief = db.with_deadline(tokio::time::Instant::now() + Duration::from_millis(300));
    let forgotten = brief.begin().await.unwrap();
    forgotten
        .execute("insert into t values ('forgotten')", ())
        .await
        .unwrap();
    // Waits for the writer, which nobody gives back by hand.
    db.execute("insert into t values ('next')", ())
        .await
        .unwrap();
    let error = forgotten.commit().await.unwrap_err();
    assert_eq!(error.kind(), Kind::TransactionOver);
    assert!(error.to_string().contains("was rolled back"), "{error}");
    let all: Vec<String> = db.fetch_all("select a from t", ()).await.unwrap();
    assert_eq!(all, ["next"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closure_that_panics_is_rolled_back_and_the_writer_goes_on() {
    let (_directory, db) = fresh().await;
    db.execute("create table t (a text)", ()).await.unwrap();
    let panicking = db.clone();
    let task = tokio::spawn(async move {
        let panicked = panicking.transaction(async |tx| {
            tx.execute("insert into t values ('gone')", ()).await?;
            panic!("on purpose");
            #[expect(unreachable_code, reason = "the type of the closure")]
            Ok(())
        });
        panicked.await
    });
    assert!(task.await.unwrap_err().is_panic());
    db.execute("insert into t values ('next')", ())
        .await
        .unwrap();
    let all: Vec<String> = db.fetch_all("select a from t", ()).await.unwrap();
    assert_eq!(all, ["next"]);
}
