use crate::fixture::*;
use mainstay_core::backend::{Backend, Condition, Lane};
use mainstay_core::{Kind, Value};
use mainstay_testkit::wait_for;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[tokio::test]
async fn info_tells_what_the_server_is_and_holds() {
    let home = Home::new().await;
    home.sql(
        "create table b (id int); insert into b select generate_series(1, 250); analyze b;
         create table a (id int); create schema other; create table other.c (id int)",
    )
    .await;
    let conn = home.reader().await;
    let info = home.backend.info(&*conn, deadline()).await.unwrap();
    assert!(info.version.starts_with(char::is_numeric), "{info:?}");
    assert!(
        info.active_connections >= 1 && info.size_bytes > 1_000_000,
        "{info:?}"
    );
    assert_eq!(info.max_connections, Some(300));
    let expected = [
        ("a".to_owned(), Some(0)),
        ("b".to_owned(), Some(250)),
        ("other.c".to_owned(), Some(0)),
    ];
    let told: Vec<_> = info
        .tables
        .iter()
        .map(|t| (t.name.clone(), t.rows))
        .collect();
    assert_eq!(told, expected);
    assert!(info.rows_are_estimates && info.file.is_none());
    assert!(info.tables[1].size_bytes.unwrap() >= 8_192, "{info:?}");
    assert_eq!(info.tables[2].sql_name.as_deref(), Some("other.c"));
    assert_eq!((info.in_recovery, info.application), (Some(false), None));
    // The server may take a moment to let go of whoever made the tables.
    let alone = wait_for("the others to leave", Duration::from_secs(30), || async {
        let info = home.backend.info(&*conn, deadline()).await.unwrap();
        info.sessions.filter(|here| here.total == 1)
    });
    let here = alone.await.unwrap();
    assert_eq!((here.active, here.idle), (1, 0), "{here:?}");
    assert!(info.server_connections.unwrap() >= 1);
    conn.check(deadline()).await.unwrap();
    assert_eq!(conn.condition(), Condition::Clean);
}

#[tokio::test]
async fn info_tells_what_the_sessions_do_and_which_are_ours() {
    let home = Home::new().await;
    let mut target = home.target.clone();
    target.application_name = Some("shop \"one\"".into());
    let ours = backend_with(&target, |_| {});
    let asking = ours.connect(Lane::Read, deadline()).await.unwrap();
    let inside = ours.connect(Lane::Write, deadline()).await.unwrap();
    let _idle = home.writer().await;
    inside.begin(begin(), write()).await.unwrap();
    execute(&inside, "select 1", write()).await.unwrap();
    let info = ours.info(&*asking, deadline()).await.unwrap();
    let here = info.sessions.unwrap();
    let counts = (
        here.total,
        here.active,
        here.idle,
        here.idle_in_transaction,
        here.hidden,
    );
    assert_eq!(counts, (3, 1, 1, 1, 0));
    assert_eq!(info.active_connections, 3);
    let application = info.application.unwrap();
    assert_eq!(application.name, "shop \"one\"");
    let ours = application.sessions;
    assert_eq!(
        (ours.total, ours.active, ours.idle_in_transaction),
        (2, 1, 1)
    );
    inside.roll_back(write()).await.unwrap();
}

#[tokio::test]
async fn info_does_not_wait_for_a_table_that_is_locked() {
    let home = Home::new().await;
    home.sql("create table t (id int); create table free (id int)")
        .await;
    let locking = home.writer().await;
    locking.begin(begin(), write()).await.unwrap();
    execute(&locking, "lock table t in access exclusive mode", write())
        .await
        .unwrap();
    let conn = home.reader().await;
    let soon = mainstay_core::Deadline::from_now(Duration::from_secs(20));
    let info = home.backend.info(&*conn, soon).await.unwrap();
    let sizes: Vec<_> = info
        .tables
        .iter()
        .map(|t| (&*t.name, t.size_bytes))
        .collect();
    assert_eq!(sizes, [("free", Some(0)), ("t", None)]);
    locking.roll_back(write()).await.unwrap();
}

#[tokio::test]
async fn a_missing_database_is_created_once() {
    let home = Home::new().await;
    let mut target = home.target.clone();
    target.database = format!("{} \"quoted\"", home.database.name());
    let backend = backend_with(&target, |_| {});
    assert!(backend.create(deadline()).await.unwrap());
    assert!(!backend.create(deadline()).await.unwrap());
    let conn = backend.connect(Lane::Read, deadline()).await.unwrap();
    let name = value(&conn, "select current_database()", (), read())
        .await
        .unwrap();
    assert_eq!(name, Value::Text(target.database.clone()));
    conn.close(deadline()).await;
    drop(conn);
    let drop = format!("drop database \"{}\"", target.database.replace('"', "\"\""));
    home.sql(&drop).await;
}

#[tokio::test]
async fn erasing_leaves_an_empty_schema_with_its_owner_and_grants() {
    let home = Home::new().await;
    let role = format!("{}_app", home.database.name());
    home.sql(&format!(
        "create role {role}; grant usage on schema public to {role};
         create table a (id int primary key); create table b (id int references a);
         create view v as select * from a; create type mood as enum ('x');
         create function f() returns int language sql as 'select 1';
         create table _mainstay_migrations (version bigint)"
    ))
    .await;
    let privileges = format!(
        "select nspowner::regrole, has_schema_privilege('{role}', 'public', 'usage'),
            has_schema_privilege('{role}', 'public', 'create') from pg_namespace where nspname = 'public'"
    );
    let before = home.sql(&privileges).await;
    let conn = home.reader().await;
    home.backend.erase(&*conn, deadline()).await.unwrap();
    assert_eq!(conn.condition(), Condition::Clean);
    let left = "select (select count(*) from pg_class where relnamespace = 'public'::regnamespace),
        (select count(*) from pg_proc where pronamespace = 'public'::regnamespace),
        (select count(*) from pg_type where typnamespace = 'public'::regnamespace)";
    assert_eq!(home.sql(left).await, "0|0|0");
    assert_eq!(home.sql(&privileges).await, before);
    home.sql(&format!("drop owned by {role}; drop role {role}"))
        .await;
}

#[tokio::test]
async fn a_backup_can_be_restored() {
    let home = Home::new().await;
    home.sql("create table t (id int); insert into t select generate_series(1, 10000)")
        .await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("shop.dump");
    let told = AtomicU64::new(0);
    let progress = |done, total| {
        assert!(done <= total);
        told.store(done, Ordering::Relaxed);
    };
    let backup = home.backend.backup(&file, &progress).await.unwrap();
    assert!(backup.method.starts_with("pg_dump 1"), "{backup:?}");
    assert_eq!(backup.bytes, std::fs::metadata(&file).unwrap().len());
    assert_eq!(told.load(Ordering::Relaxed), backup.bytes);
    let names: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");

    let again = home.backend.backup(&file, &|_, _| {}).await.unwrap_err();
    assert_eq!(again.kind(), Kind::Storage);
    assert!(again.to_string().contains("exists already"), "{again}");

    home.sql("drop table t").await;
    let cluster = home.database.cluster();
    let restored = std::process::Command::new(cluster.program("pg_restore"))
        .args(["--dbname", &home.database.url()])
        .arg(&file)
        .output()
        .unwrap();
    assert!(restored.status.success(), "{restored:?}");
    assert_eq!(home.sql("select count(*) from t").await, "10000");
}

#[tokio::test]
async fn a_backup_that_fails_leaves_nothing_and_tells_no_secret() {
    let home = Home::new().await;
    let missing = std::path::Path::new("/nowhere/at/all/shop.dump");
    let error = home.backend.backup(missing, &|_, _| {}).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Storage);
    let role = format!("{}_poor", home.database.name());
    home.sql(&format!(
        "create role {role} login password 'hunter2'; create table t (id int)"
    ))
    .await;
    let mut target = home.target.clone();
    target.user.clone_from(&role);
    target.password = Some(mainstay_core::config::Secret::new("hunter2"));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("shop.dump");
    let error = backend_with(&target, |_| {})
        .backup(&file, &|_, _| {})
        .await
        .unwrap_err();
    assert!(error.to_string().contains("permission denied"), "{error}");
    assert!(!format!("{error:?}").contains("hunter2"));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    home.sql(&format!("drop role {role}")).await;
}

#[tokio::test]
async fn the_statements_of_a_script_commit_one_by_one() {
    let home = Home::new().await;
    let conn = home.writer().await;
    let script = "create table t (id int); -- ; not here
        insert into t values (1); insert into t values (';'::text::int); insert into t values (3);";
    let error = conn.script(script, write()).await.unwrap_err();
    assert!(error.message().starts_with("statement 3 of 4"), "{error}");
    assert_eq!(
        home.sql("select string_agg(id::text, ',') from t").await,
        "1"
    );
    assert_eq!(conn.condition(), Condition::Clean);
    // What may not run in a transaction runs in a script.
    conn.script("create index concurrently i on t (id); vacuum t", write())
        .await
        .unwrap();

    conn.begin(begin(), write()).await.unwrap();
    conn.script(
        "insert into t values (7); insert into t values (8)",
        write(),
    )
    .await
    .unwrap();
    conn.roll_back(write()).await.unwrap();
    assert_eq!(home.sql("select count(*) from t").await, "1");
}

#[tokio::test]
async fn the_migration_runners_texts_work() {
    let home = Home::new().await;
    let conn = home.writer().await;
    let dialect = home.backend.migrations();
    let exists = value(&conn, dialect.history_exists, (), write())
        .await
        .unwrap();
    assert_eq!(exists, Value::Bool(false));
    for _ in 0..2 {
        conn.script(dialect.create_history, write()).await.unwrap();
    }
    let exists = value(&conn, dialect.history_exists, (), write())
        .await
        .unwrap();
    assert_eq!(exists, Value::Bool(true));
    let lock = dialect.lock.unwrap();
    conn.begin(begin(), write()).await.unwrap();
    fetch(&conn, lock, (), write()).await.unwrap();
    let other = home.writer().await;
    other.begin(begin(), write()).await.unwrap();
    let waits = "select count(*) from pg_locks where locktype = 'advisory' and not granted";
    let (second, ()) = tokio::join!(fetch(&other, lock, (), write()), async {
        wait_for("the second runner to wait", LIMIT, async || {
            (home.sql(waits).await == "1").then_some(())
        })
        .await
        .unwrap();
        conn.commit(write()).await.unwrap();
    });
    second.unwrap();
    other.commit(write()).await.unwrap();
}
