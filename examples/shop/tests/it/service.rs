//! The same requests on both databases.

use crate::shop::{ADA, Answer, BOB, Shop};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

#[tokio::test]
async fn the_shop_serves_on_sqlite() {
    everything(&Shop::on_sqlite("").await, "sqlite").await;
}

#[tokio::test]
async fn the_shop_serves_on_postgres() {
    let database = mainstay_testkit::database().await.unwrap();
    everything(&Shop::on_postgres(&database, "").await, "postgresql").await;
}

async fn everything(shop: &Shop, backend: &str) {
    operators_are_answered(shop, backend).await;
    strangers_are_refused(shop).await;
    orders_live(shop).await;
    orders_are_private(shop).await;
    goods_are_listed_and_added(shop).await;
    profiles_change(shop).await;
    input_is_checked(shop).await;
    broken_bodies_name_the_field(shop).await;
    addresses_and_methods_are_checked(shop).await;
}

fn is_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let problem = answer.json();
    assert_eq!(problem["code"], code, "{problem}");
    assert_eq!(problem["status"], status);
    assert_eq!(problem["request_id"], answer.header("x-request-id"));
}

async fn operators_are_answered(shop: &Shop, backend: &str) {
    let health = shop.get("/api/health", "").await.json();
    assert_eq!(health["status"], "ok");
    assert_eq!(health["database"]["backend"], backend);
    assert_eq!(health["database"]["connected"], true);
    assert_eq!(health["pool"]["breaker"], "closed");
    assert!(health["memory"]["rss"].as_u64().unwrap() > 0);
    assert_eq!(shop.get("/api/health/db", "").await.json()["healthy"], true);
    assert_eq!(shop.get("/livez", "").await.status, StatusCode::OK);
    assert_eq!(shop.get("/readyz", "").await.status, StatusCode::OK);
    let metrics = shop.get("/metrics", "").await.text;
    for name in [
        "db_client_connection_count{",
        "db_client_operation_duration_seconds_bucket{",
    ] {
        assert!(metrics.contains(name), "{name}\n{metrics}");
    }
    assert!(metrics.contains(&format!("db_system_name=\"{backend}\"")));
}

async fn strangers_are_refused(shop: &Shop) {
    for path in [
        "/api/orders",
        "/api/orders/1",
        "/api/services",
        "/api/benefits",
        "/api/user/profile",
        "/api/bookings",
    ] {
        for token in ["", "demo-eve"] {
            let answer = shop.get(path, token).await;
            is_problem(&answer, 401, "unauthorized");
            assert!(answer.header("www-authenticate").starts_with("Bearer"));
        }
    }
}

async fn orders_live(shop: &Shop) {
    let body = json!({"items": [{"service_id": 2, "quantity": 1}, {"service_id": 1, "quantity": 2}],
        "note": "früh, \u{1F31E} bitte"});
    let created = shop.post("/api/orders", ADA, body).await;
    assert_eq!(created.status, StatusCode::CREATED, "{}", created.text);
    let order = created.json();
    let path = created.header("location").to_owned();
    assert_eq!(path, format!("/api/orders/{}", order["id"]));
    assert_eq!(order["status"], "open");
    assert_eq!(order["total_cents"], 7_000 + 2 * 4_500);
    assert_eq!(order["note"], "früh, \u{1F31E} bitte");
    assert_eq!(order["items"][0]["service_id"], 1);
    assert_eq!(shop.get(&path, ADA).await.json(), order);

    let body = json!({"status": "paid", "items": [{"service_id": 4, "quantity": 1}]});
    let replaced = shop.ask(Method::PUT, &path, ADA, Some(body)).await;
    assert_eq!(replaced.status, StatusCode::OK, "{}", replaced.text);
    let replaced = replaced.json();
    assert_eq!(replaced["status"], "paid");
    assert_eq!(replaced["note"], Value::Null);
    assert_eq!(replaced["total_cents"], 19_900);
    assert_eq!(replaced["created_at"], order["created_at"]);
    assert_eq!(replaced["items"].as_array().unwrap().len(), 1);
    assert_eq!(shop.get(&path, ADA).await.json(), replaced);

    // A replacement that fails in the middle leaves everything as it was.
    let body = json!({"status": "open",
        "items": [{"service_id": 1, "quantity": 1}, {"service_id": 999, "quantity": 1}]});
    let refused = shop.ask(Method::PUT, &path, ADA, Some(body)).await;
    is_problem(&refused, 422, "invalid");
    assert_eq!(refused.json()["errors"][0]["field"], "items[1].service_id");
    assert_eq!(shop.get(&path, ADA).await.json(), replaced);

    let deleted = shop.ask(Method::DELETE, &path, ADA, None).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    is_problem(&shop.get(&path, ADA).await, 404, "not_found");
    let again = shop.ask(Method::DELETE, &path, ADA, None).await;
    is_problem(&again, 404, "not_found");
}

async fn orders_are_private(shop: &Shop) {
    let body = json!({"items": [{"service_id": 1, "quantity": 1}]});
    let mut ids = Vec::new();
    for _ in 0..3 {
        let created = shop.post("/api/orders", ADA, body.clone()).await.json();
        ids.push(created["id"].as_i64().unwrap());
    }
    let path = format!("/api/orders/{}", ids[0]);
    is_problem(&shop.get(&path, BOB).await, 404, "not_found");
    let replacement = json!({"status": "cancelled", "items": [{"service_id": 1, "quantity": 1}]});
    let refused = shop.ask(Method::PUT, &path, BOB, Some(replacement)).await;
    is_problem(&refused, 404, "not_found");
    is_problem(
        &shop.ask(Method::DELETE, &path, BOB, None).await,
        404,
        "not_found",
    );
    assert_eq!(shop.get(&path, ADA).await.json()["status"], "open");
    assert_eq!(
        shop.get("/api/orders", BOB).await.json()["items"],
        json!([])
    );

    // The newest first, page by page.
    let page = shop.get("/api/orders?limit=2", ADA).await.json();
    assert_eq!(page["items"][0]["id"], ids[2]);
    assert_eq!(page["items"][1]["id"], ids[1]);
    let page = shop.get("/api/orders?limit=2&offset=2", ADA).await.json();
    assert_eq!(page["items"][0]["id"], ids[0]);
    for query in ["limit=0", "limit=101", "offset=-1"] {
        let answer = shop.get(&format!("/api/orders?{query}"), ADA).await;
        is_problem(&answer, 422, "invalid");
    }
    for query in ["limit=many", "lmit=3"] {
        let answer = shop.get(&format!("/api/orders?{query}"), ADA).await;
        is_problem(&answer, 400, "bad_query");
    }
}

async fn goods_are_listed_and_added(shop: &Shop) {
    let new = json!({"name": "Manicure", "price_cents": 2500, "duration_minutes": 30});
    let created = shop.post("/api/services", ADA, new.clone()).await;
    assert_eq!(created.status, StatusCode::CREATED, "{}", created.text);
    let listed = shop.get("/api/services", BOB).await.json();
    assert_eq!(
        listed["items"].as_array().unwrap().last(),
        Some(&created.json())
    );
    is_problem(
        &shop.post("/api/services", ADA, new).await,
        409,
        "already_exists",
    );

    let new = json!({"title": "Birthday", "description": "One day a year", "percent_off": 20});
    let created = shop.post("/api/benefits", ADA, new.clone()).await;
    assert_eq!(created.status, StatusCode::CREATED, "{}", created.text);
    let listed = shop.get("/api/benefits", BOB).await.json();
    assert_eq!(
        listed["items"].as_array().unwrap().last(),
        Some(&created.json())
    );
    is_problem(
        &shop.post("/api/benefits", ADA, new).await,
        409,
        "already_exists",
    );
}

async fn profiles_change(shop: &Shop) {
    let path = "/api/user/profile";
    let change = async |body: Value| shop.ask(Method::PATCH, path, BOB, Some(body)).await;
    let before = shop.get(path, BOB).await.json();
    assert_eq!(before["email"], "bob@example.org");
    assert_eq!(before["phone"], Value::Null);
    let changed = change(json!({"phone": "+49 (30) 12"})).await.json();
    assert_eq!(changed["phone"], "+49 (30) 12");
    assert_eq!(changed["name"], before["name"]);
    let changed = change(json!({"name": "Robert", "phone": null}))
        .await
        .json();
    assert_eq!(changed["name"], "Robert");
    assert_eq!(changed["phone"], Value::Null);
    assert_eq!(shop.get(path, BOB).await.json(), changed);
    is_problem(
        &change(json!({"email": "ada@example.org"})).await,
        409,
        "already_exists",
    );
    is_problem(&change(json!({"email": "nobody"})).await, 422, "invalid");
    is_problem(&change(json!({"name": null})).await, 400, "wrong_type");
}

async fn input_is_checked(shop: &Shop) {
    for (path, body, field) in [
        ("/api/orders", json!({"items": []}), "items"),
        (
            "/api/orders",
            json!({"items": [{"service_id": 1, "quantity": 0}]}),
            "items[0].quantity",
        ),
        (
            "/api/services",
            json!({"name": " ", "price_cents": 1, "duration_minutes": 1}),
            "name",
        ),
        (
            "/api/services",
            json!({"name": "x\u{0}", "price_cents": 1, "duration_minutes": 1}),
            "name",
        ),
        (
            "/api/services",
            json!({"name": "x", "price_cents": -1, "duration_minutes": 1}),
            "price_cents",
        ),
        (
            "/api/benefits",
            json!({"title": "x", "percent_off": 101}),
            "percent_off",
        ),
        (
            "/api/bookings",
            json!({"service_id": 1, "slot": "2001-01-01T10:00:00Z"}),
            "slot",
        ),
        (
            "/api/bookings",
            json!({"service_id": 1, "slot": "2099-01-01T10:01:00Z"}),
            "slot",
        ),
        (
            "/api/bookings",
            json!({"service_id": 999, "slot": "2099-01-01T10:00:00Z"}),
            "service_id",
        ),
    ] {
        let answer = shop.post(path, ADA, body).await;
        is_problem(&answer, 422, "invalid");
        assert_eq!(
            answer.json()["errors"][0]["field"],
            field,
            "{}",
            answer.text
        );
    }
}

async fn broken_bodies_name_the_field(shop: &Shop) {
    for (body, code, field) in [
        (
            r#"{"service_id": "one", "slot": "2099-01-01T10:00:00Z"}"#,
            "wrong_type",
            "service_id",
        ),
        (r#"{"service_id": 1, "slot": "soon"}"#, "wrong_type", "slot"),
        (r#"{"service_id": 1}"#, "wrong_type", "slot"),
        (r#"{"service_id": 1, "slto": ""}"#, "wrong_type", "slto"),
        (
            r#"{"service_id": 1, "slot": nope"#,
            "malformed_json",
            "slot",
        ),
    ] {
        let answer = raw(shop, body).await;
        is_problem(&answer, 400, code);
        assert_eq!(
            answer.json()["errors"][0]["field"],
            field,
            "{}",
            answer.text
        );
    }
    is_problem(
        &raw(shop, &" ".repeat(64 * 1024 + 1)).await,
        413,
        "too_large",
    );
}

async fn raw(shop: &Shop, body: &str) -> Answer {
    let request = shop
        .client
        .post(format!("{}/api/bookings", shop.url))
        .bearer_auth(ADA)
        .header("content-type", "application/json")
        .body(body.to_owned());
    let response = request.send().await.unwrap();
    Answer {
        status: response.status(),
        headers: response.headers().clone(),
        text: response.text().await.unwrap(),
    }
}

async fn addresses_and_methods_are_checked(shop: &Shop) {
    is_problem(&shop.get("/api/nothing", ADA).await, 404, "no_such_route");
    is_problem(&shop.get("/api/orders/first", ADA).await, 400, "bad_path");
    let answer = shop.ask(Method::DELETE, "/api/orders", ADA, None).await;
    is_problem(&answer, 405, "method_not_allowed");
    let mut allowed: Vec<&str> = answer.header("allow").split(',').collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);
}
