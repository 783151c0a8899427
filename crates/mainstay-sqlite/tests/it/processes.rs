//! Another process on the same file.

use crate::{Bench, PLAIN, WRITE, backend, execute, on, soon};
use mainstay_core::backend::Backend;
use std::path::Path;
use std::process::{Command, Stdio};

/// Set for the child: the file that it writes to.
const FILE: &str = "MAINSTAY_TEST_FILE";
const EACH: i64 = 200;

async fn write_many(path: &Path, who: &str) {
    let writer = backend(path).connect(WRITE, soon()).await.unwrap();
    for _ in 0..EACH / 2 {
        execute(&*writer, &format!("insert into t (a) values ('{who}')"))
            .await
            .unwrap();
        writer.begin(PLAIN, on(WRITE)).await.unwrap();
        execute(&*writer, "update counter set n = n + 1")
            .await
            .unwrap();
        execute(&*writer, &format!("insert into t (a) values ('{who}')"))
            .await
            .unwrap();
        writer.commit(on(WRITE)).await.unwrap();
    }
    writer.close(soon()).await;
}

#[tokio::test]
async fn two_processes_write_one_file_and_nothing_is_lost() {
    if let Ok(path) = std::env::var(FILE) {
        return write_many(Path::new(&path), "child").await;
    }
    let bench = Bench::new().await;
    let text =
        "create table t (a text); create table counter (n int); insert into counter values (0)";
    bench.writer.script(text, on(WRITE)).await.unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "processes::two_processes_write_one_file_and_nothing_is_lost",
        ])
        .env(FILE, bench.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    write_many(&bench.path(), "parent").await;
    let status = tokio::task::spawn_blocking(move || child.wait().unwrap())
        .await
        .unwrap();
    assert!(status.success());
    for who in ["parent", "child"] {
        assert_eq!(bench.count(&format!("t where a = '{who}'")).await, EACH);
    }
    let sum = crate::scalar(&*bench.reader, "select n from counter").await;
    assert_eq!(sum, EACH, "an update was lost");
}
