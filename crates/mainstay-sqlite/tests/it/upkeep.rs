use crate::{Bench, PLAIN, READ, WRITE, backend, execute, on, scalar, soon, value};
use mainstay_core::backend::{Backend, Condition};
use mainstay_core::{Deadline, Kind, Value};
use std::fs;
use std::sync::Mutex;
use std::time::Duration;

#[tokio::test]
async fn a_backup_is_one_moment_complete_and_checked() {
    let bench = Bench::with_table().await;
    let fill = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000)
        insert into t (a) select printf('%0500d', i) from n";
    execute(&*bench.writer, fill).await.unwrap();
    // A transaction that is open meanwhile is not part of it, and does not hold it up.
    bench.writer.begin(PLAIN, on(WRITE)).await.unwrap();
    execute(&*bench.writer, "delete from t").await.unwrap();
    let to = bench.directory.path().join("copy.db");
    let steps = Mutex::new(Vec::new());
    let report = |done, total| steps.lock().unwrap().push((done, total));
    let backup = bench.sqlite.backup(&to, &report).await.unwrap();
    assert_eq!(backup.bytes, fs::metadata(&to).unwrap().len());
    assert_eq!(backup.method, "sqlite backup");
    let (done, total) = *steps.lock().unwrap().last().unwrap();
    assert!(done == total && total > 1_024, "{done} of {total}");
    assert!(!bench.directory.path().join("copy.db.tmp").exists());
    assert!(!bench.directory.path().join("copy.db-wal").exists());
    bench.writer.roll_back(on(WRITE)).await.unwrap();
    let copy = backend(&to).connect(READ, soon()).await.unwrap();
    assert_eq!(scalar(&*copy, "select count(*) from t").await, 20_000);
}

#[tokio::test]
async fn a_backup_overwrites_nothing() {
    let bench = Bench::with_table().await;
    let to = bench.directory.path().join("precious");
    fs::write(&to, "precious").unwrap();
    let error = bench.sqlite.backup(&to, &|_, _| {}).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Storage, "{error}");
    assert_eq!(fs::read_to_string(&to).unwrap(), "precious");
    let lost = bench.directory.path().join("no/such/copy.db");
    assert_eq!(
        bench
            .sqlite
            .backup(&lost, &|_, _| {})
            .await
            .unwrap_err()
            .kind(),
        Kind::Storage
    );
    let running = bench.directory.path().join("copy.db");
    fs::write(bench.directory.path().join("copy.db.tmp"), "another's").unwrap();
    let error = bench.sqlite.backup(&running, &|_, _| {}).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Storage);
    assert!(
        error.remedy().unwrap().contains("another backup"),
        "{error}"
    );
    assert!(bench.directory.path().join("copy.db.tmp").exists());
}

#[tokio::test]
async fn erase_leaves_nothing_of_the_application() {
    let bench = Bench::with_table().await;
    let text = "create table p (id integer primary key autoincrement);
        create table c (p int references p);
        insert into p default values;
        insert into c values (1);
        create view v as select * from c;
        create index i on c (p);
        create trigger g after insert on c begin select 1; end;
        create table \"odd \"\" name\" (a);";
    bench.writer.script(text, on(WRITE)).await.unwrap();
    bench.sqlite.erase(&*bench.writer, soon()).await.unwrap();
    let left = "select count(*) from sqlite_schema where name not like 'sqlite\\_%' escape '\\'";
    assert_eq!(scalar(&*bench.reader, left).await, 0);
    assert_eq!(bench.writer.condition(), Condition::Clean);
    assert_eq!(
        scalar(
            &*bench.writer,
            "select foreign_keys from pragma_foreign_keys"
        )
        .await,
        1
    );
    bench.sqlite.erase(&*bench.writer, soon()).await.unwrap();
}

#[tokio::test]
async fn create_says_whether_it_did() {
    let directory = tempfile::tempdir().unwrap();
    let sqlite = backend(&directory.path().join("new.db"));
    assert!(sqlite.create(soon()).await.unwrap());
    assert!(!sqlite.create(soon()).await.unwrap());
    let reader = sqlite.connect(READ, soon()).await.unwrap();
    assert_eq!(
        value(&*reader, "select * from pragma_journal_mode").await,
        Value::Text("wal".into())
    );
    let lost = backend(&directory.path().join("no/such/new.db"));
    assert_eq!(lost.create(soon()).await.unwrap_err().kind(), Kind::Config);
}

#[tokio::test]
async fn info_counts_rows_and_handles() {
    let bench = Bench::with_table().await;
    execute(&*bench.writer, "create table \"odd \"\" name\" (a)")
        .await
        .unwrap();
    execute(&*bench.writer, "insert into t (a) values ('x'), ('y')")
        .await
        .unwrap();
    let info = bench.sqlite.info(&*bench.reader, soon()).await.unwrap();
    let rows: Vec<_> = info
        .tables
        .iter()
        .map(|t| (t.name.as_str(), t.rows))
        .collect();
    assert_eq!(rows, [("odd \" name", Some(0)), ("t", Some(2))]);
    assert_eq!((info.active_connections, info.max_connections), (2, None));
    assert!(!info.rows_are_estimates);
    assert!(
        info.size_bytes >= 8_192 && info.version.starts_with('3'),
        "{info:?}"
    );
    bench.writer.close(soon()).await;
    let info = bench.sqlite.info(&*bench.reader, soon()).await.unwrap();
    assert_eq!(info.active_connections, 1);
}

#[tokio::test]
async fn info_tells_what_the_file_is_made_of() {
    let bench = Bench::new().await;
    let text = "create table wide (a text);
        create index by_a on wide (a);
        create table small (a);
        create virtual table words using fts5 (a);
        insert into wide select printf('%0500d', value) from generate(2000);
        create table gone (a);
        insert into gone select printf('%0900d', value) from generate(500);
        drop table gone;";
    let generate = "(with recursive n(value) as
        (select 1 union all select value + 1 from n where value < ";
    let text = text
        .replace(
            "generate(2000)",
            &format!("{generate} 2000) select value from n)"),
        )
        .replace(
            "generate(500)",
            &format!("{generate} 500) select value from n)"),
        );
    bench.writer.script(&text, on(WRITE)).await.unwrap();
    let info = bench.sqlite.info(&*bench.reader, soon()).await.unwrap();
    let file = info.file.as_ref().unwrap();
    assert_eq!(file.journal_mode, "wal");
    assert_eq!(file.page_size * file.pages, info.size_bytes);
    assert!(
        file.free_pages > 100 && file.free_pages < file.pages,
        "{file:?}"
    );
    let log = fs::metadata(bench.directory.path().join("app.db-wal")).unwrap();
    assert_eq!(file.wal_bytes, log.len());
    assert!(file.wal_bytes > 0);
    let size = |name: &str| {
        let table = info.tables.iter().find(|table| table.name == name).unwrap();
        table.size_bytes.unwrap()
    };
    assert!(size("wide") > 2 * 2_000 * 500, "the table and its index");
    assert_eq!(size("small"), file.page_size);
    assert!(size("words") > file.page_size, "the tables behind it");
    let sum: u64 = info
        .tables
        .iter()
        .filter_map(|table| table.size_bytes)
        .sum();
    // The schema's own page is nobody's.
    let used = (file.pages - file.free_pages) * file.page_size;
    assert!(
        sum < used && sum + 8 * file.page_size >= used,
        "{sum} of {used}"
    );
}

#[tokio::test]
async fn info_leaves_open_what_it_could_not_count_in_time() {
    let bench = Bench::new().await;
    // Counting the one row is nothing, finding out where its pages are takes a walk over them all.
    let text = "create table a (a); create table z (a);
        insert into z values (zeroblob(200000000));";
    bench.writer.script(text, on(WRITE)).await.unwrap();
    let late = Deadline::from_now(Duration::from_millis(30));
    let info = bench.sqlite.info(&*bench.reader, late).await.unwrap();
    let told: Vec<_> = info
        .tables
        .iter()
        .map(|t| (t.name.as_str(), t.rows))
        .collect();
    assert_eq!(told, [("a", Some(0)), ("z", Some(1))]);
    assert_eq!(info.tables[1].size_bytes, None);
    assert_eq!(bench.reader.condition(), Condition::Clean);
    let info = bench.sqlite.info(&*bench.reader, soon()).await.unwrap();
    assert!(info.tables[1].size_bytes.unwrap() > 200_000_000);
}

#[tokio::test]
async fn the_texts_for_migrations_work() {
    let bench = Bench::new().await;
    let texts = bench.sqlite.migrations();
    assert_eq!(scalar(&*bench.reader, texts.history_exists).await, 0);
    for _ in 0..2 {
        bench
            .writer
            .script(texts.create_history, on(WRITE))
            .await
            .unwrap();
    }
    assert_eq!(scalar(&*bench.reader, texts.history_exists).await, 1);
    let columns = "select group_concat(name) from pragma_table_info('_mainstay_migrations')";
    let names = "version,name,checksum,dialect,started_at,finished_at,took_ms,error";
    assert_eq!(
        value(&*bench.reader, columns).await,
        Value::Text(names.into())
    );
}

#[tokio::test]
async fn a_check_reads_the_file() {
    let bench = Bench::with_table().await;
    bench.reader.check(soon()).await.unwrap();
    bench.writer.check(soon()).await.unwrap();
    bench.reader.close(soon()).await;
    assert_eq!(
        bench.reader.check(soon()).await.unwrap_err().kind(),
        Kind::Closed
    );
}

#[tokio::test]
async fn a_file_that_was_taken_away_is_noticed_and_does_not_come_back_empty() {
    let bench = Bench::with_table().await;
    let elsewhere = bench.directory.path().join("elsewhere.db");
    fs::rename(bench.path(), &elsewhere).unwrap();
    for lane in [READ, WRITE] {
        let error = bench.sqlite.connect(lane, soon()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Storage, "{error}");
        assert!(!bench.sqlite.is_permanent(&error), "it may be put back");
    }
    assert!(!bench.path().exists());
    fs::write(bench.path(), "").unwrap();
    let error = bench.sqlite.connect(WRITE, soon()).await.unwrap_err();
    assert!(error.message().contains("replaced"), "{error}");
    fs::rename(&elsewhere, bench.path()).unwrap();
    bench.writer.check(soon()).await.unwrap();
    fs::remove_file(bench.path()).unwrap();
    assert_eq!(
        bench.writer.check(soon()).await.unwrap_err().kind(),
        Kind::Storage
    );
    assert_eq!(bench.writer.condition(), Condition::Broken);
}
