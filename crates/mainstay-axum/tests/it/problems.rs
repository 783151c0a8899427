//! What a client is told, and what it is not told.

use crate::http::get;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get as on_get;
use mainstay::{Error, Kind};
use mainstay_axum::{FieldError, Problem};
use mainstay_core::error::Report;
use std::time::Duration;

const SECRETS: [&str; 3] = ["select pin from cards", "10.0.0.7", "hunter2"];

/// An error of this kind whose every text is a secret.
fn secretive(kind: Kind) -> Error {
    let [message, remedy, cause] = SECRETS;
    Report::new(kind, message)
        .remedy(remedy)
        .constraint(cause)
        .source(std::io::Error::other(cause))
        .into()
}

async fn answered(problem: Problem) -> crate::http::Answer {
    let app = Router::new().route("/", on_get(async move || problem.clone()));
    get(&app, "/").await
}

#[tokio::test]
async fn every_kind_has_its_status_and_none_tells_internals() {
    for kind in Kind::ALL {
        let expected = match kind {
            Kind::Unique | Kind::ForeignKey | Kind::Conflict | Kind::AlreadyDone => 409,
            Kind::NotNull | Kind::Check => 422,
            Kind::NoRows => 404,
            Kind::Unreachable
            | Kind::Exhausted
            | Kind::Shed
            | Kind::BreakerOpen
            | Kind::Paused
            | Kind::Closed
            | Kind::Credentials
            | Kind::Tls => 503,
            Kind::Timeout => 504,
            _ => 500,
        };
        let answer = answered(secretive(kind).into()).await;
        assert_eq!(answer.status.as_u16(), expected, "{kind}");
        assert_eq!(answer.json()["status"], expected);
        assert_eq!(answer.header("retry-after").is_empty(), expected != 503);
        assert_eq!(answer.header("content-type"), "application/problem+json");
        for secret in SECRETS {
            assert!(!format!("{answer:?}").contains(secret), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn an_unknown_outcome_says_so() {
    let answer = answered(secretive(Kind::OutcomeUnknown).into()).await;
    let problem = answer.json();
    assert_eq!(problem["code"], "outcome_unknown");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("may or may not"), "{detail}");
}

#[tokio::test]
async fn the_time_to_come_back_is_rounded_up_to_whole_seconds() {
    for (after, seconds) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (5000, "5")] {
        let error: Error = Report::new(Kind::Shed, "busy")
            .retry_after(Duration::from_millis(after))
            .into();
        let answer = answered(error.into()).await;
        assert_eq!(answer.header("retry-after"), seconds, "{after} ms");
    }
}

#[tokio::test]
async fn a_problem_that_aborted_a_transaction_comes_back_as_it_was() {
    let own = Problem::new(StatusCode::GONE, "sold_out").field("sku", "is gone");
    let carried = Error::from(own);
    assert_eq!(carried.kind(), Kind::RolledBack);
    let answer = answered(carried.into()).await;
    assert_eq!(answer.status, StatusCode::GONE);
    assert_eq!(answer.json()["code"], "sold_out");
    assert_eq!(answer.json()["errors"][0]["field"], "sku");
}

#[tokio::test]
async fn findings_are_listed_and_empty_members_left_out() {
    let answer = answered(Problem::invalid(vec![
        FieldError::new("name", "must not be empty"),
        FieldError::new("items[1].quantity", "must lie between 1 and 9"),
    ]))
    .await;
    let problem = answer.json();
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(problem["errors"][1]["field"], "items[1].quantity");
    assert_eq!(problem["title"], "Unprocessable Entity");
    assert_eq!(problem["type"], "about:blank");
    assert!(problem.get("instance").is_none());
    let answer = answered(Problem::new(StatusCode::GONE, "gone").instance("/orders/7")).await;
    assert_eq!(answer.json()["instance"], "/orders/7");
    assert!(answer.json().get("errors").is_none());
}
