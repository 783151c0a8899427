//! Input that does not fit is refused with the name of the field.

use crate::http::{ask, get, post};
use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::http::{Request, StatusCode};
use axum::routing::{get as on_get, post as on_post};
use mainstay_axum::{JsonBody, PathParams, QueryParams, method_not_allowed};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    items: Vec<Item>,
    note: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    sku: String,
    quantity: u8,
}

async fn order(JsonBody(order): JsonBody<Order>) -> String {
    let parts: Vec<String> = order
        .items
        .iter()
        .map(|item| format!("{} {}", item.quantity, item.sku))
        .collect();
    format!("{} {}", parts.join(","), order.note.unwrap_or_default())
}

#[derive(Deserialize)]
struct Page {
    limit: u8,
}

async fn page(PathParams(id): PathParams<i64>, QueryParams(page): QueryParams<Page>) -> String {
    format!("{id} {}", page.limit)
}

fn app() -> Router {
    Router::new()
        .route("/orders", on_post(order))
        .route("/orders/{id}", on_get(page))
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(200))
}

#[tokio::test]
async fn a_body_that_fits_is_decoded() {
    let answer = post(&app(), "/orders", r#"{"items":[{"sku":"a","quantity":2}]}"#).await;
    assert_eq!(
        (answer.status, answer.text.as_str()),
        (StatusCode::OK, "2 a ")
    );
}

#[tokio::test]
async fn a_body_that_does_not_fit_is_a_400_that_names_the_field() {
    for (body, code, field) in [
        (
            r#"{"items":[{"sku":"a","quantity":"2"}]}"#,
            "wrong_type",
            "items[0].quantity",
        ),
        (
            r#"{"items":[{"sku":"a","quantity":256}]}"#,
            "wrong_type",
            "items[0].quantity",
        ),
        (
            r#"{"items":[{"sku":"a"}]}"#,
            "wrong_type",
            "items[0].quantity",
        ),
        (
            r#"{"items":[{"sku":"a","quantity":1,"size":1}]}"#,
            "wrong_type",
            "items[0].size",
        ),
        (r#"{"items":{}}"#, "wrong_type", "items"),
        (r#"{"note":"x"}"#, "wrong_type", "items"),
        (r#"{"itms":[]}"#, "wrong_type", "itms"),
        (r#"{"items":[],"note":tru}"#, "malformed_json", "note"),
        (r#"{"items":[] "note":"x"}"#, "malformed_json", "items"),
        (r#"{"items":[],"note":"a \"b:"#, "malformed_json", "note"),
        (r#"{"items":[],"#, "malformed_json", "items"),
        ("{\"items\":[],\n \"note\":\"x\",", "malformed_json", "note"),
        (r#"{"items":[]} x"#, "malformed_json", "items"),
        (r#"{"it"#, "malformed_json", ""),
        ("", "malformed_json", ""),
        ("[1]", "wrong_type", "[0]"),
    ] {
        let answer = post(&app(), "/orders", body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        let problem = answer.json();
        assert_eq!(problem["code"], code, "{body}: {problem}");
        assert_eq!(problem["errors"][0]["field"], field, "{body}: {problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains("line ") && detail.contains(field),
            "{detail}"
        );
    }
}

#[tokio::test]
async fn what_is_not_json_or_too_large_is_refused_as_such() {
    for kind in ["text/plain", "application/jsonp", "json", ""] {
        let request = Request::post("/orders").header("content-type", kind);
        let answer = ask(&app(), request.body(Body::from("{}")).unwrap()).await;
        assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind}");
    }
    for kind in [
        "Application/JSON; charset=utf-8",
        "application/problem+json",
    ] {
        let request = Request::post("/orders").header("content-type", kind);
        let body = Body::from(r#"{"items":[]}"#);
        assert_eq!(
            ask(&app(), request.body(body).unwrap()).await.status,
            StatusCode::OK
        );
    }
    let large = format!(r#"{{"items":[],"note":"{}"}}"#, "x".repeat(200));
    let answer = post(&app(), "/orders", &large).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer.json()["code"], "too_large");
}

#[tokio::test]
async fn a_path_or_query_that_does_not_fit_is_a_400_that_names_the_part() {
    assert_eq!(get(&app(), "/orders/7?limit=3").await.text, "7 3");
    let answer = get(&app(), "/orders/7?limit=many").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.text.contains("limit"), "{}", answer.text);
    let answer = get(&app(), "/orders/seven?limit=3").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.json()["code"], "bad_path");
}

#[tokio::test]
async fn a_wrong_method_is_told_which_are_right() {
    let answer = get(&app(), "/orders").await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.header("allow"), "POST");
    assert_eq!(answer.json()["code"], "method_not_allowed");
}
