//! Fifty users at once, ten connections: no error, and never an eleventh connection.
//!
//! `SHOP_LOAD_SECONDS` says for how long: 10 by default.

use crate::shop::{ADA, BOB, Shop, clients};
use reqwest::{Method, StatusCode};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

const USERS: usize = 50;
const LIMIT: usize = 10;

pub(crate) fn load_time() -> Duration {
    let seconds = std::env::var("SHOP_LOAD_SECONDS").ok();
    Duration::from_secs(seconds.map_or(10, |seconds| seconds.parse().unwrap()))
}

#[tokio::test]
async fn fifty_users_meet_no_error_on_sqlite() {
    let shop = Arc::new(Shop::on_sqlite("?connection_limit=10").await);
    let requests = crowd(&shop, Instant::now() + load_time()).join_all().await;
    assert!(requests.iter().all(|count| *count > 0), "{requests:?}");
    let health = shop.get("/api/health", "").await.json();
    assert_eq!(health["pool"]["leased"], 0);
    assert_eq!(health["pool"]["waiting"], 0);
}

#[tokio::test]
async fn fifty_users_meet_no_error_and_share_ten_connections_on_postgres() {
    let database = mainstay_testkit::database().await.unwrap();
    let parameters = format!("?connection_limit={LIMIT}");
    let shop = Arc::new(Shop::on_postgres(&database, &parameters).await);
    let end = Instant::now() + load_time();
    let crowd = crowd(&shop, end);
    let mut most = 0;
    while Instant::now() < end {
        let seen = clients(&database).await;
        assert!(seen <= LIMIT, "{seen} connections with a limit of {LIMIT}");
        most = most.max(seen);
    }
    assert!(most > 1, "the load never needed a second connection");
    let requests = crowd.join_all().await;
    assert!(requests.iter().all(|count| *count > 0), "{requests:?}");
}

/// Everybody browses, orders, looks and cancels until the end; answers how often.
fn crowd(shop: &Arc<Shop>, end: Instant) -> JoinSet<usize> {
    let mut users = JoinSet::new();
    for index in 0..USERS {
        let shop = Arc::clone(shop);
        let token = if index % 2 == 0 { ADA } else { BOB };
        users.spawn(async move {
            let mut requests = 0;
            while Instant::now() < end {
                requests += visit(&shop, token, index).await;
            }
            requests
        });
    }
    users
}

async fn visit(shop: &Shop, token: &str, index: usize) -> usize {
    let expect = |answer: &crate::shop::Answer, status: StatusCode| {
        assert_eq!(answer.status, status, "{answer:?}\n{}", shop.log());
    };
    let service = 1 + index % 4;
    let body = json!({"items": [{"service_id": service, "quantity": 1}]});
    let order = shop.post("/api/orders", token, body).await;
    expect(&order, StatusCode::CREATED);
    let path = order.header("location").to_owned();
    for path in [
        "/api/services",
        "/api/user/profile",
        path.as_str(),
        "/api/orders?limit=5",
    ] {
        expect(&shop.get(path, token).await, StatusCode::OK);
    }
    let deleted = shop.ask(Method::DELETE, &path, token, None).await;
    expect(&deleted, StatusCode::NO_CONTENT);
    6
}
