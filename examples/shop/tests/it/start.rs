//! From nothing to the first answer.

use crate::shop::{ADA, PATIENCE, Shop, program};
use mainstay_testkit::Cluster;
use mainstay_testkit::cluster::Mode;
use reqwest::StatusCode;
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, timeout};

#[tokio::test]
async fn the_first_healthy_answer_comes_within_two_seconds() {
    let started = Instant::now();
    let shop = Shop::on_sqlite("").await;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}\n{}", shop.log());
}

#[tokio::test]
async fn a_second_start_finds_everything_as_it_was() {
    let database = mainstay_testkit::database().await.unwrap();
    let mut first = Shop::on_postgres(&database, "").await;
    let new = json!({"title": "Kept", "percent_off": 1});
    let created = first.post("/api/benefits", ADA, new).await;
    assert_eq!(created.status, StatusCode::CREATED);
    first.signal("TERM").await;
    assert!(first.ends().await.success());
    let second = Shop::on_postgres(&database, "").await;
    let listed = second.get("/api/benefits", ADA).await.json();
    let titles: Vec<_> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|benefit| benefit["title"].as_str().unwrap())
        .collect();
    assert_eq!(titles, ["Welcome", "Loyalty", "Kept"]);
}

#[tokio::test]
async fn shops_that_start_together_on_one_database_fill_it_once() {
    let database = mainstay_testkit::database().await.unwrap();
    let shops = [0, 1, 2].map(|_| Shop::on_postgres(&database, "?connection_limit=3"));
    let [first, second, third] = shops;
    let (first, ..) = tokio::join!(first, second, third);
    let listed = first.get("/api/services", ADA).await.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_exist_yet_is_created() {
    let database = mainstay_testkit::database().await.unwrap();
    let name = format!("{}_new", database.name());
    let shop = Shop::start(&database.cluster().url_for(&name)).await;
    shop.becomes_healthy().await;
    assert!(
        shop.log().contains("the shop created its database"),
        "{}",
        shop.log()
    );
}

#[tokio::test]
async fn it_starts_while_postgres_is_down_and_serves_when_it_is_up() {
    let cluster = tokio::task::spawn_blocking(Cluster::start)
        .await
        .unwrap()
        .unwrap();
    cluster
        .run(|cluster| cluster.stop(Mode::Fast))
        .await
        .unwrap();
    let shop = Shop::start(&cluster.url()).await;
    for path in ["/api/health", "/api/health/db", "/readyz", "/api/services"] {
        let answer = shop.get(path, ADA).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        let (_, password) = cluster.credentials();
        let port = cluster.port().to_string();
        assert!(
            !answer.text.contains(password) && !answer.text.contains(&port),
            "{answer:?}"
        );
    }
    let refused = shop.get("/api/services", ADA).await;
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    let health = shop.get("/api/health", "").await.json();
    assert_eq!(health["status"], "unavailable");
    assert_eq!(health["database"]["connected"], false);
    assert_eq!(shop.get("/livez", "").await.status, StatusCode::OK);

    cluster.run(Cluster::start_again).await.unwrap();
    shop.becomes_healthy().await;
    assert_eq!(shop.get("/api/services", ADA).await.status, StatusCode::OK);

    // And once more while it serves.
    cluster
        .run(|cluster| cluster.stop(Mode::Fast))
        .await
        .unwrap();
    let answer = shop.get("/api/services", ADA).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    assert!(!answer.header("retry-after").is_empty());
    cluster.run(Cluster::start_again).await.unwrap();
    shop.becomes_healthy().await;
    assert_eq!(shop.get("/api/services", ADA).await.status, StatusCode::OK);
}

#[tokio::test]
async fn what_cannot_be_cured_by_waiting_ends_it_with_one_clear_line() {
    let cluster = tokio::task::spawn_blocking(Cluster::start)
        .await
        .unwrap()
        .unwrap();
    let (_, password) = cluster.credentials();
    let wrong_password = cluster.url().replace(password, "hunter2");
    let nobody = "postgres://a:hunter2@127.0.0.1:1/x?conection_limit=3";
    for (url, code, part) in [
        ("prisma://x", 2, "prisma://"),
        ("mysql://x/y", 2, "mysql"),
        (nobody, 2, "connection_limit"),
        ("file:./shop.db?connection_limit=0", 2, "connection_limit"),
        ("file:.", 1, "directory"),
        (&wrong_password, 1, "password"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let mut child = program(&directory, url).spawn().unwrap();
        let status = timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
        let log = std::fs::read_to_string(directory.path().join("log")).unwrap();
        let last = log.lines().last().unwrap_or_default();
        assert_eq!(status.code(), Some(code), "{url}: {log}");
        assert!(
            last.starts_with("shop: ") && last.contains(part),
            "{url}: {log}"
        );
        assert!(
            !log.contains("hunter2") && !log.contains("panicked"),
            "{log}"
        );
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let mut command = program(&directory, "file:./shop.db");
    let status = command.env("LISTEN_ADDR", &address).status().await.unwrap();
    let log = std::fs::read_to_string(directory.path().join("log")).unwrap();
    assert_eq!(status.code(), Some(2), "{log}");
    assert!(
        log.contains(&address) && log.contains("LISTEN_ADDR"),
        "{log}"
    );
}
