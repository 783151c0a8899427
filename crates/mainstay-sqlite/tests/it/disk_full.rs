//! A disk that is full: a file system of a few megabytes, in a process that has it for itself.

use crate::{PLAIN, READ, WRITE, backend, execute, on, scalar, soon};
use futures_util::future::join_all;
use mainstay_core::backend::{Backend, Condition, Connection, LogInfo, Want};
use mainstay_core::{Class, Evidence, Kind, Result, Statement};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Set for the child: the directory that it mounts its file system on.
const DISK: &str = "MAINSTAY_SMALL_DISK";
/// Enough for the first part of each test, without the ballast that is taken away in the second.
const BYTES: u64 = 48 * 1024 * 1024;
const BALLAST: u64 = 36 * 1024 * 1024;

/// Runs the test of this name again in a child that may mount: for itself, so that nothing is left
/// over whatever becomes of it.
fn in_a_child(name: &str) {
    let directory = tempfile::tempdir().unwrap();
    let ways: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];
    let tries = |way: &[&str]| {
        let tried = Command::new("unshare")
            .args(way)
            .args(["--", "true"])
            .output();
        tried.is_ok_and(|tried| tried.status.success())
    };
    let way = ways.into_iter().find(|way| tries(way));
    let way = way.expect(
        "NOT TESTED: no small disk can be made. `unshare --mount` is refused to this user; run as \
         root, or allow user namespaces",
    );
    let child = Command::new("unshare")
        .args(way)
        .arg("--")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(DISK, directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    let cried = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{said}\n{cried}");
    assert!(said.contains("1 passed"), "{said}");
}

/// A small disk with a ballast on it that can be taken away.
fn small_disk() -> Option<PathBuf> {
    let directory = PathBuf::from(std::env::var_os(DISK)?);
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", &format!("size={BYTES}"), "tmpfs"])
        .arg(&directory)
        .output()
        .unwrap();
    let cried = String::from_utf8_lossy(&mounted.stderr);
    assert!(mounted.status.success(), "NOT TESTED: {cried}");
    std::fs::write(ballast(&directory), vec![1; BALLAST.try_into().unwrap()]).unwrap();
    Some(directory)
}

fn ballast(disk: &Path) -> PathBuf {
    disk.join("ballast")
}

async fn write(writer: &dyn Connection, id: i64, bytes: i64) -> Result<()> {
    let text = "insert into t (id, a) values ($1, zeroblob($2))";
    let insert = Statement::new(text, (id, bytes)).unwrap();
    let written = writer.run_shared(&insert, Want::Affected, on(WRITE));
    written.await.map(drop)
}

async fn ids(reader: &dyn Connection) -> Vec<i64> {
    let rows = crate::run(reader, "select id from t order by id", (), READ).await;
    let rows = rows.unwrap().rows;
    rows.iter().map(|row| row.at::<i64>(0).unwrap()).collect()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_is_told_loses_nothing_acknowledged_and_is_written_again_when_there_is_room() {
    let name = "disk_full::a_full_disk_is_told_loses_nothing_acknowledged_and_is_written_again_when_there_is_room";
    let Some(disk) = small_disk() else {
        return in_a_child(name);
    };
    let sqlite = backend(&disk.join("app.db"));
    let writer = sqlite.connect(WRITE, soon()).await.unwrap();
    let reader = sqlite.connect(READ, soon()).await.unwrap();
    execute(&*writer, "create table t (id integer primary key, a blob)")
        .await
        .unwrap();
    // Groups of eight strangers: one of them wants more than is left, sooner or later.
    let (mut kept, mut refused, mut id) = (Vec::new(), Vec::new(), 0);
    while refused.is_empty() {
        let large = if id > 100 { 60 * 1024 * 1024 } else { 100 };
        let group: Vec<_> = (0..8).map(|number| id + number).collect();
        let written = group.iter().map(|&id| {
            let bytes = if id % 8 == 3 { large } else { 20_000 };
            write(&*writer, id, bytes)
        });
        for (id, written) in group.iter().zip(join_all(written).await) {
            match written {
                Ok(()) => kept.push(*id),
                Err(error) => refused.push((*id, error)),
            }
        }
        id += 8;
    }
    for (_, error) in &refused {
        assert_eq!(
            (error.kind(), error.class(), error.evidence()),
            (Kind::Storage, Class::Permanent, Evidence::Exhausted),
            "{error}"
        );
        assert!(error.remedy().unwrap().contains("make room"), "{error}");
        assert!(!sqlite.is_permanent(error));
    }
    // Whoever wanted no more than there was got it, though his neighbour did not.
    let refused: Vec<_> = refused.into_iter().map(|(id, _)| id % 8).collect();
    assert_eq!(refused, [3]);
    assert_eq!(ids(&*reader).await, kept);
    // Now nothing goes in, not even what is small.
    while write(&*writer, id, 20_000).await.is_ok() {
        kept.push(id);
        id += 1;
    }
    let error = write(&*writer, id, 500_000).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Storage, "{error}");
    assert_eq!(ids(&*reader).await, kept);
    assert_eq!(writer.condition(), Condition::Clean);
    // There is room again: the same connection writes.
    std::fs::remove_file(ballast(&disk)).unwrap();
    write(&*writer, id, 500_000).await.unwrap();
    kept.push(id);
    assert_eq!(ids(&*reader).await, kept);
    writer.close(soon()).await;
    reader.close(soon()).await;
    let again = backend(&disk.join("app.db"));
    let reader = again.connect(READ, soon()).await.unwrap();
    assert_eq!(ids(&*reader).await, kept);
    assert_eq!(
        scalar(
            &*reader,
            "select count(*) from pragma_integrity_check where integrity_check = 'ok'"
        )
        .await,
        1
    );
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_log_that_cannot_be_copied_for_want_of_room_is_told_and_copied_when_there_is() {
    let name =
        "disk_full::a_log_that_cannot_be_copied_for_want_of_room_is_told_and_copied_when_there_is";
    let Some(disk) = small_disk() else {
        return in_a_child(name);
    };
    let sqlite = backend(&disk.join("app.db"));
    let writer = sqlite.connect(WRITE, soon()).await.unwrap();
    let reader = sqlite.connect(READ, soon()).await.unwrap();
    execute(&*writer, "create table t (id integer primary key, a blob)")
        .await
        .unwrap();
    let settled = async |wanted: fn(&LogInfo) -> bool| {
        let waiting = async {
            while !wanted(&sqlite.log().unwrap()) {
                tokio::task::yield_now().await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        waited.unwrap_or_else(|_| panic!("{:?}", sqlite.log()));
    };
    // The log has room for this, and the database has none for it beside the log.
    reader.begin(PLAIN, on(READ)).await.unwrap();
    assert!(ids(&*reader).await.is_empty());
    let mut kept = Vec::new();
    for id in 0..24 {
        write(&*writer, id, 400_000).await.unwrap();
        kept.push(id);
    }
    settled(|log| log.is_held).await;
    reader.roll_back(on(READ)).await.unwrap();
    settled(|log| log.error.is_some()).await;
    let log = sqlite.log().unwrap();
    assert!(log.error.as_ref().unwrap().contains("full"), "{log:?}");
    assert_eq!(ids(&*reader).await, kept);
    std::fs::remove_file(ballast(&disk)).unwrap();
    for id in 24..36 {
        write(&*writer, id, 400_000).await.unwrap();
        kept.push(id);
    }
    settled(|log| log.error.is_none()).await;
    assert_eq!(ids(&*reader).await, kept);
}
