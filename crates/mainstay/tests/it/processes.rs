//! Two processes on one SQLite file.

use mainstay::{Database, Result};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Names the file to the second process, which is this very test in another role.
const FILE: &str = "MAINSTAY_TEST_SECOND_PROCESS";
const EACH: i64 = 200;

async fn write(db: &Database, writer: &str) -> Result<()> {
    for number in 0..EACH {
        db.transaction(async |tx| {
            let seen: i64 = tx.fetch_one("select count(*) from log", ()).await?;
            tx.execute(
                "insert into log (writer, number, seen) values ($1, $2, $3)",
                (writer, number, seen),
            )
            .await
        })
        .await?;
        let _: i64 = db.fetch_one("select max(seen) from log", ()).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_one_file_without_a_lost_write() {
    let patient = |url: &str| {
        Database::builder(url)
            .timeout(Duration::from_secs(120))
            .open()
    };
    if let Ok(url) = std::env::var(FILE) {
        let db = patient(&url).await.unwrap();
        write(&db, "child").await.unwrap();
        db.close().await;
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file:{}/both.db", directory.path().display());
    let db = patient(&url).await.unwrap();
    db.execute(
        "create table log (id integer primary key, writer text not null, number integer not null, \
         seen integer not null unique, unique (writer, number))",
        (),
    )
    .await
    .unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "processes::two_processes_share_one_file_without_a_lost_write",
        ])
        .env(FILE, &url)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let parent = write(&db, "parent").await;
    let child = tokio::task::spawn_blocking(move || child.wait_with_output())
        .await
        .unwrap();
    let child = child.unwrap();
    assert!(
        child.status.success(),
        "{}",
        String::from_utf8_lossy(&child.stdout)
    );
    parent.unwrap();
    // Each transaction saw all before it: `seen` is unique and has no gap.
    let (count, last): (i64, i64) = db
        .fetch_one("select count(*), max(seen) from log", ())
        .await
        .unwrap();
    assert_eq!((count, last), (2 * EACH, 2 * EACH - 1));
}
