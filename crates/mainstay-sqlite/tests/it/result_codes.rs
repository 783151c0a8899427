//! Result codes as SQLite really gives them, each compared with its row.

use crate::failure_table::{Row, rows};
use crate::{Bench, READ, WRITE, backend, execute, run, soon};
use mainstay_core::backend::{Backend, Condition};
use mainstay_core::{Class, Error, Evidence, Kind};
use std::io::{Seek, SeekFrom, Write};
use std::time::Duration;

fn row(code: i32) -> Row {
    let mut rows = rows().into_iter().filter(|row| row.code == code);
    rows.next().unwrap()
}

/// What is wrong with an error that should have this code.
fn difference(code: i32, error: &Error) -> Option<String> {
    if error.sqlite_code() != Some(code) {
        return Some(format!("{code}: found {error:?}"));
    }
    row(code).difference(error, false)
}

const TABLES: &str = "
    create table u (id integer primary key, a text unique, b text not null default '',
        c int check (c > 0), p int references u (id));
    create table r (a);
    create table s (a int) strict;
    create trigger on_r before insert on r when new.a = 'no' begin
        select raise(abort, 'no');
    end;
    insert into u (id, a) values (1, 'x');
    insert into r (rowid, a) values (1, 'x')";

/// Statements that fail, and with what.
const FAILING: [(i32, &str); 12] = [
    (
        1,
        "insert into u (id) values (abs(-9223372036854775807 - 1))",
    ),
    (18, "insert into r (a) values (zeroblob(2000000000))"),
    (20, "insert into u (id) values ('x')"),
    (275, "insert into u (c) values (0)"),
    (787, "insert into u (p) values (77)"),
    (1299, "insert into u (b) values (null)"),
    (1555, "insert into u (id) values (1)"),
    (1811, "insert into r (a) values ('no')"),
    (2067, "insert into u (a) values ('x')"),
    (2579, "insert into r (rowid) values (1)"),
    (3091, "insert into s (a) values ('x')"),
    (1, "insert into nowhere values (1)"),
];

#[tokio::test]
async fn every_error_of_a_statement_has_the_class_of_its_row_and_leaves_the_handle_usable() {
    let bench = Bench::new().await;
    let writer = &*bench.writer;
    writer.script(TABLES, crate::on(WRITE)).await.unwrap();
    let mut wrong = Vec::new();
    for (code, text) in FAILING {
        let error = execute(writer, text).await.unwrap_err();
        wrong.extend(difference(code, &error));
        if writer.condition() != Condition::Clean {
            wrong.push(format!("{code}: {:?}", writer.condition()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_lock_of_another_process_is_waited_for_and_then_a_conflict() {
    let bench = Bench::with(|_, target| target.busy_timeout = Duration::from_millis(5)).await;
    execute(&*bench.writer, "create table t (a)").await.unwrap();
    let other = rusqlite::Connection::open(bench.path()).unwrap();
    other.execute_batch("begin immediate").unwrap();
    let text = "insert into t values (1)";
    let error = execute(&*bench.writer, text).await.unwrap_err();
    assert_eq!(difference(5, &error), None);
    other.execute_batch("rollback").unwrap();
    execute(&*bench.writer, text).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_is_told_at_once_and_not_asked_again() {
    let bench = Bench::new().await;
    let writer = &*bench.writer;
    execute(writer, "create table t (a)").await.unwrap();
    // A limit of our own fills up like a disk.
    writer.hand_over();
    execute(writer, "pragma max_page_count = 4").await.unwrap();
    let text = "insert into t values (zeroblob(1000000))";
    let error = execute(writer, text).await.unwrap_err();
    assert_eq!(difference(13, &error), None);
    let labels = (error.kind(), error.class(), error.evidence());
    assert_eq!(
        labels,
        (Kind::Storage, Class::Permanent, Evidence::Exhausted)
    );
    assert_ne!(writer.condition(), Condition::Broken);
    assert!(!bench.sqlite.is_permanent(&error), "{error}");
}

#[tokio::test]
async fn a_handle_that_has_met_a_corrupt_file_is_not_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.db");
    let other = rusqlite::Connection::open(&path).unwrap();
    let fill = "create table t (a); insert into t values (zeroblob(100000))";
    other.execute_batch(fill).unwrap();
    drop(other);
    let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    // The second page is the root of the table.
    file.seek(SeekFrom::Start(4_096)).unwrap();
    file.write_all(&[0xff; 4_096]).unwrap();
    drop(file);
    let sqlite = backend(&path);
    let reader = sqlite.connect(READ, soon()).await.unwrap();
    let error = run(&*reader, "select a from t", (), READ)
        .await
        .unwrap_err();
    assert_eq!(difference(11, &error), None);
    assert_eq!(reader.condition(), Condition::Broken);
    assert!(sqlite.is_permanent(&error), "{error}");
}
