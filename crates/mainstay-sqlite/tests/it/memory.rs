use crate::{READ, execute, run, scalar, soon};
use mainstay_core::backend::{Backend, Condition, Layout};
use mainstay_core::config::SqlitePath;

#[tokio::test]
async fn memory_is_one_connection_for_both_lanes() {
    let sqlite = crate::backend_with(SqlitePath::Memory, |_, _| {});
    assert_eq!(sqlite.layout(), Layout::Single);
    assert!(!sqlite.create(soon()).await.unwrap());
    let only = sqlite.connect(READ, soon()).await.unwrap();
    execute(&*only, "create table t (a)").await.unwrap();
    execute(&*only, "insert into t values (1), (2)")
        .await
        .unwrap();
    assert_eq!(scalar(&*only, "select count(*) from t").await, 2);
    let error = run(&*only, "delete from t", (), READ).await.unwrap_err();
    assert!(error.is_refused_by_read_lane());
    assert_eq!(only.condition(), Condition::Clean);
    let directory = tempfile::tempdir().unwrap();
    let to = directory.path().join("copy.db");
    sqlite.backup(&to, &|_, _| {}).await.unwrap();
    assert_eq!(only.condition(), Condition::Clean);
    let copy = crate::backend(&to);
    let reader = copy.connect(READ, soon()).await.unwrap();
    assert_eq!(scalar(&*reader, "select sum(a) from t").await, 3);
    only.close(soon()).await;
    assert!(
        sqlite
            .backup(&directory.path().join("late.db"), &|_, _| {})
            .await
            .is_err()
    );
}
