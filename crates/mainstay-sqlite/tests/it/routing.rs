use crate::{Bench, READ, WRITE, execute, run, scalar, soon};
use mainstay_core::Kind;
use mainstay_core::backend::{Backend, Lane, Layout};
use mainstay_core::config::SqlitePath;
use std::sync::Arc;

async fn route(bench: &Bench, text: &str) -> mainstay_core::Result<Lane> {
    bench
        .sqlite
        .route(&*bench.reader, &Arc::from(text), soon())
        .await
}

#[tokio::test]
async fn sqlite_says_where_a_text_belongs() {
    let bench = Bench::with_table().await;
    for (text, lane) in [
        ("select * from t", READ),
        ("with x as (select 1) select * from x", READ),
        ("values (1), (2)", READ),
        ("select * from pragma_table_info('t')", READ),
        ("explain query plan select * from t", READ),
        (
            "with x as (select 'a' as a) insert into t (a) select a from x",
            WRITE,
        ),
        ("insert into t (a) values ('x') returning id", WRITE),
        ("/* select */ delete from t", WRITE),
        ("create table u (a)", WRITE),
        ("vacuum", WRITE),
    ] {
        assert_eq!(route(&bench, text).await.unwrap(), lane, "{text}");
    }
    let error = route(&bench, "select * from nowhere").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Statement);
}

#[tokio::test]
async fn the_read_lane_refuses_a_write_before_it_runs() {
    let bench = Bench::with_table().await;
    for connection in [&bench.reader, &bench.writer] {
        let text = "insert into t (a) values ('x') returning id";
        let error = run(&**connection, text, (), READ).await.unwrap_err();
        assert!(error.is_refused_by_read_lane(), "{error}");
        assert_eq!(error.kind(), Kind::ReadOnly);
    }
    assert_eq!(bench.count("t").await, 0);
    // Even on the write lane a reader has no way to write.
    let text = "insert into t (a) values ('x')";
    let error = run(&*bench.reader, text, (), WRITE).await.unwrap_err();
    assert_eq!(error.kind(), Kind::ReadOnly);
    assert_eq!(bench.count("t").await, 0);
}

#[tokio::test]
async fn a_vacuum_is_a_write_like_any_other() {
    let bench = Bench::with_table().await;
    execute(&*bench.writer, "vacuum").await.unwrap();
    assert_eq!(scalar(&*bench.reader, "select count(*) from t").await, 0);
}

#[test]
fn the_lanes_share_the_connection_limit() {
    let layout = |limit, path| {
        crate::backend_with(path, |config, _| config.connection_limit = limit).layout()
    };
    let file = || SqlitePath::File("x.db".into());
    assert_eq!(layout(1, file()), Layout::Single);
    assert_eq!(
        layout(2, file()),
        Layout::Split {
            readers: 1,
            writers: 1
        }
    );
    assert_eq!(
        layout(5, file()),
        Layout::Split {
            readers: 4,
            writers: 1
        }
    );
    let Layout::Split { readers, .. } = layout(1_000, file()) else {
        panic!("a file has two lanes")
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    assert_eq!(readers, cores.max(4));
    assert_eq!(layout(5, SqlitePath::Memory), Layout::Single);
}

#[tokio::test]
async fn a_limit_of_one_serves_both_lanes_on_one_connection() {
    let directory = tempfile::tempdir().unwrap();
    let path = SqlitePath::File(directory.path().join("one.db"));
    let sqlite = crate::backend_with(path, |config, _| config.connection_limit = 1);
    let only = sqlite.connect(WRITE, soon()).await.unwrap();
    execute(&*only, "create table t (a)").await.unwrap();
    assert_eq!(scalar(&*only, "select count(*) from t").await, 0);
    let error = run(&*only, "delete from t", (), READ).await.unwrap_err();
    assert!(error.is_refused_by_read_lane());
}

#[tokio::test]
async fn no_statement_cache_is_a_cache_too() {
    let bench = Bench::with(|config, _| config.statement_cache_size = 0).await;
    execute(&*bench.writer, "create table t (a)").await.unwrap();
    for _ in 0..2 {
        execute(&*bench.writer, "insert into t values (1)")
            .await
            .unwrap();
    }
    assert_eq!(bench.count("t").await, 2);
}
