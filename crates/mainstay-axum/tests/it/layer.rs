//! The layer refuses early, bounds in time and names each request.

use crate::away::{Away, SECRET};
use crate::http::{ask, get};
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::routing::get as on_get;
use mainstay::Database;
use mainstay_axum::{DatabaseLayer, Db, Problem, Readiness, RequestContext, not_found};
use std::time::Duration;
use tokio::time::Instant;

async fn count(Db(db): Db) -> Result<String, Problem> {
    let rows: i64 = db.fetch_one("select 1", ()).await?;
    Ok(rows.to_string())
}

async fn named(context: RequestContext) -> String {
    context.request_id.to_string()
}

async fn hanging() {
    std::future::pending().await
}

fn app(db: &Database, layer: DatabaseLayer) -> Router {
    Router::new()
        .route("/count", on_get(count))
        .route("/named", on_get(named))
        .route("/hanging", on_get(hanging))
        .merge(mainstay_axum::routes(db.clone()))
        .fallback(not_found)
        .layer(layer)
        .with_state(db.clone())
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_is_answered_at_once_with_503_and_when_to_come_back() {
    let db = Away::Refuses.database();
    let app = app(&db, DatabaseLayer::new(db.clone()));
    db.breaker_force_open();
    let started = Instant::now();
    let answer = get(&app, "/named").await;
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    let seconds: u64 = answer.header("retry-after").parse().unwrap();
    assert!(seconds >= 1);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let problem = answer.json();
    assert_eq!(problem["code"], "database_unavailable");
    assert_eq!(problem["request_id"], answer.header("x-request-id"));
    assert!(!answer.text.contains(SECRET), "{}", answer.text);

    db.breaker_automatic();
    assert_eq!(get(&app, "/named").await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn an_outage_opens_the_breaker_and_the_layer_notices() {
    let db = Away::Refuses.database();
    let app = app(&db, DatabaseLayer::new(db.clone()));
    // The first caller waits the ride-through out and is told by its handler.
    let answer = get(&app, "/count").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!answer.text.contains(SECRET), "{}", answer.text);
    // Whoever comes next does not reach a handler.
    let answer = get(&app, "/hanging").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!answer.header("retry-after").is_empty());
}

#[tokio::test(start_paused = true)]
async fn operators_routes_are_served_while_everything_else_is_refused() {
    let db = Away::Refuses.database();
    let layer = DatabaseLayer::new(db.clone()).readiness(Readiness::waiting("starting"));
    let app = app(&db, layer);
    db.breaker_force_open();
    assert_eq!(get(&app, "/livez").await.status, StatusCode::OK);
    let health = get(&app, "/api/health").await;
    assert_eq!(health.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(health.json()["status"], "unavailable");
    assert_eq!(health.json()["pool"]["breaker"], "open");
    let health = get(&app, "/api/health/db").await;
    assert_eq!(health.json()["healthy"], false);
    assert!(!health.text.contains(SECRET), "{}", health.text);
}

#[tokio::test]
async fn a_service_that_is_not_ready_refuses_until_it_says_that_it_is() {
    let db = Away::Refuses.database();
    let readiness = Readiness::waiting("the schema is being brought");
    let app = app(
        &db,
        DatabaseLayer::new(db.clone()).readiness(readiness.clone()),
    );
    let answer = get(&app, "/named").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(answer.json()["code"], "not_ready");
    assert_eq!(answer.json()["detail"], "the schema is being brought");
    readiness.ready();
    assert_eq!(get(&app, "/named").await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn every_call_of_a_request_ends_by_its_deadline() {
    let db = Away::Silent.database();
    let timeout = Duration::from_millis(300);
    let app = app(&db, DatabaseLayer::new(db.clone()).timeout(timeout));
    let started = Instant::now();
    let answer = get(&app, "/count").await;
    assert!(answer.status.is_server_error(), "{answer:?}");
    let took = started.elapsed();
    assert!(took <= timeout + Duration::from_millis(10), "{took:?}");
    assert_ne!(answer.json()["code"], "internal");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_hangs_is_cut_off_soon_after_the_deadline() {
    let db = Away::Silent.database();
    let timeout = Duration::from_secs(3);
    let app = app(&db, DatabaseLayer::new(db.clone()).timeout(timeout));
    let started = Instant::now();
    let answer = get(&app, "/hanging").await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    let took = started.elapsed();
    assert!(took >= timeout && took < timeout * 2, "{took:?}");
}

#[tokio::test]
async fn a_sane_request_id_is_kept_and_every_other_one_replaced() {
    let db = Away::Silent.database();
    let app = app(&db, DatabaseLayer::new(db.clone()));
    let asked = async |id: &str| {
        let request = Request::get("/named").header("x-request-id", id);
        let answer = ask(&app, request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.text, answer.header("x-request-id"));
        answer.text
    };
    assert_eq!(asked("order-17").await, "order-17");
    for insane in ["two words", "a\"b", &"x".repeat(65)] {
        let id = asked(insane).await;
        assert_ne!(id, insane);
        assert_eq!(id.len(), 32);
    }
    let problem = get(&app, "/nowhere").await;
    assert_eq!(problem.status, StatusCode::NOT_FOUND);
    assert_eq!(problem.json()["request_id"], problem.header("x-request-id"));
}

#[tokio::test]
async fn a_context_without_the_layer_is_the_services_own_mistake() {
    let db = Away::Silent.database();
    let app: Router = Router::new().route("/named", on_get(named)).with_state(db);
    let answer = get(&app, "/named").await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.json()["code"], "misconfigured");
}
