//! What operators are told, on a database that answers.

use crate::http::get;
use axum::Router;
use axum::http::StatusCode;
use mainstay::Database;
use mainstay_axum::{DatabaseLayer, Metrics, Readiness, Routes};
use std::collections::BTreeSet;

struct Service {
    db: Database,
    app: Router,
    readiness: Readiness,
    _directory: tempfile::TempDir,
}

impl Service {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("t.db");
        let db = Database::connect(&format!("file:{}", file.display()))
            .await
            .unwrap();
        let readiness = Readiness::immediate();
        let routes = Routes::new(db.clone())
            .version("7.8.9")
            .readiness(readiness.clone());
        let app = routes.router().layer(DatabaseLayer::new(db.clone()));
        Self {
            db,
            app,
            readiness,
            _directory: directory,
        }
    }
}

#[tokio::test]
async fn health_tells_everything_an_operator_asks_first() {
    let service = Service::start().await;
    let answer = get(&service.app, "/api/health").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert_eq!(answer.header("cache-control"), "no-store");
    let health = answer.json();
    assert_eq!(health["status"], "ok");
    assert_eq!(health["version"], "7.8.9");
    let at: mainstay::Timestamp = health["timestamp"].as_str().unwrap().parse().unwrap();
    let age = mainstay::Timestamp::now().unix_micros() - at.unix_micros();
    assert!((0..60_000_000).contains(&age), "{age}");
    assert!(health["uptime"].as_f64().unwrap() > 0.0);
    if cfg!(target_os = "linux") {
        assert!(health["memory"]["rss"].as_u64().unwrap() > 100_000);
    }
    let database = &health["database"];
    assert_eq!(database["connected"], true);
    assert_eq!(database["backend"], "sqlite");
    assert!(database["activeConnections"].as_u64().unwrap() >= 1);
    assert!(database["latencyMs"].as_f64().unwrap() > 0.0);
    let pool = &health["pool"];
    assert_eq!(pool["breaker"], "closed");
    assert_eq!(pool["waiting"], 0);
    assert!(pool["limit"].as_u64() >= pool["open"].as_u64());

    let answer = get(&service.app, "/api/health/db").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.json()["healthy"], true);
    assert!(answer.json().get("error").is_none());
}

#[tokio::test]
async fn a_service_that_is_not_ready_is_alive_and_says_why() {
    let service = Service::start().await;
    assert_eq!(get(&service.app, "/readyz").await.status, StatusCode::OK);
    service.readiness.not_ready("on holiday");
    let answer = get(&service.app, "/readyz").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json()["detail"], "on holiday");
    let answer = get(&service.app, "/api/health").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json()["reason"], "on holiday");
    assert_eq!(answer.json()["database"]["connected"], true);
    assert_eq!(get(&service.app, "/livez").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_closed_database_is_not_healthy() {
    let service = Service::start().await;
    service.db.close().await;
    let answer = get(&service.app, "/api/health/db").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json()["healthy"], false);
    assert!(answer.json()["error"].as_str().unwrap().contains("closed"));
    let status = get(&service.app, "/readyz").await.status;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn metrics_have_opentelemetrys_names_and_labels_with_few_values() {
    Metrics::install().unwrap();
    Metrics::install().unwrap();
    let service = Service::start().await;
    let one: i64 = service.db.fetch_one("select 1", ()).await.unwrap();
    assert_eq!(one, 1);
    for index in 0..50 {
        let path = format!("/nowhere/{index}");
        assert_eq!(get(&service.app, &path).await.status, StatusCode::NOT_FOUND);
    }
    let answer = get(&service.app, "/metrics").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(
        answer
            .header("content-type")
            .starts_with("text/plain; version=0.0.4")
    );
    for line in [
        "# TYPE db_client_connection_count gauge",
        "# TYPE db_client_connection_max gauge",
        "# TYPE db_client_connection_pending_requests gauge",
        "# TYPE db_client_connection_wait_time_seconds histogram",
        "# TYPE db_client_connection_create_time_seconds histogram",
        "# TYPE db_client_connection_use_time_seconds histogram",
        "# TYPE db_client_operation_duration_seconds histogram",
        "db_client_connection_state=\"idle\"",
    ] {
        assert!(answer.text.contains(line), "{line}\n{}", answer.text);
    }
    let routes: BTreeSet<&str> = answer
        .text
        .lines()
        .filter_map(|line| line.split("http_route=\"").nth(1)?.split('"').next())
        .collect();
    assert!(routes.contains("unmatched"), "{routes:?}");
    assert!(
        routes.iter().all(|route| !route.contains("nowhere")),
        "{routes:?}"
    );
}
