//! Tests share a server and never a database.

use mainstay_testkit::cluster::Mode;
use mainstay_testkit::{Cluster, database, shared_cluster};

#[tokio::test]
async fn every_test_has_a_database_of_its_own_on_one_server() {
    let (one, other) = tokio::join!(database(), database());
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_ne!(one.name(), other.name());
    assert_eq!(one.cluster().port(), other.cluster().port());
    one.psql("create table here (id int)").unwrap();
    assert!(other.psql("select * from here").is_err());
    assert!(
        one.url()
            .ends_with(&format!(":{}/{}", one.cluster().port(), one.name()))
    );
}

#[tokio::test]
async fn a_dropped_database_is_gone() {
    let database = database().await.unwrap();
    let sql = format!(
        "select count(*) from pg_database where datname = '{}'",
        database.name()
    );
    let cluster = shared_cluster().await.unwrap();
    assert_eq!(cluster.psql(&sql).unwrap(), "1");
    drop(database);
    assert_eq!(cluster.psql(&sql).unwrap(), "0");
}

#[tokio::test]
async fn a_cluster_is_worked_on_without_blocking_the_runtime() {
    let cluster = tokio::task::spawn_blocking(Cluster::start)
        .await
        .unwrap()
        .unwrap();
    let (stopped, beside) = tokio::join!(
        cluster.run(|cluster| cluster.stop(Mode::Fast).map(|()| cluster.is_running())),
        async { "served" }
    );
    assert!(!stopped.unwrap());
    assert_eq!(beside, "served");
}
