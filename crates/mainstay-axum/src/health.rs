//! What operators and load balancers ask: alive, ready, healthy.
//!
//! *Alive* must not ask the database: a service that is restarted because its database is away comes
//! back to the same database. *Ready* and *healthy* must ask it, or they are green while every
//! request fails.

use crate::exposition::Metrics;
use crate::memory::Memory;
use crate::problem::{Problem, meaning};
use crate::routes::Watched;
use axum::Json;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use mainstay::{Error, Health, Status, Timestamp};
use serde::Serialize;
use std::borrow::Cow;
use std::time::Duration;

/// An answer about now must not be served again later.
const NOT_STORED: [(HeaderName, &str); 1] = [(CACHE_CONTROL, "no-store")];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    /// `ok`; `degraded` when the database answers and the service is not at its best; `unavailable`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Cow<'a, str>>,
    timestamp: String,
    /// Seconds since the service opened its database.
    uptime: f64,
    version: &'a str,
    memory: Memory,
    database: DatabaseReport,
    pool: PoolReport,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DatabaseReport {
    connected: bool,
    /// The connections that this service holds open.
    active_connections: usize,
    latency_ms: f64,
    backend: &'static str,
}

#[derive(Serialize)]
struct PoolReport {
    limit: usize,
    open: usize,
    idle: usize,
    leased: usize,
    waiting: usize,
    breaker: &'static str,
}

impl PoolReport {
    fn new(status: &Status) -> Self {
        Self {
            limit: status.limit(),
            open: status.open(),
            idle: status.idle(),
            leased: status.leased(),
            waiting: status.waiting(),
            breaker: status.breaker.state,
        }
    }

    /// Why the service is not at its best, although the database answers.
    fn strain(&self) -> Option<&'static str> {
        if self.breaker != "closed" {
            return Some("the database has just come back; calls are let through step by step");
        }
        // Waiters are normal for a moment; more of them than connections are a queue.
        (self.waiting > self.limit).then_some("more callers wait for a connection than there are")
    }
}

/// `GET /api/health`: 200 when the service can work, 503 when it cannot; the same body for both.
pub(crate) async fn health(State(watched): State<Watched>) -> Response {
    let health = watched.db.health().await;
    let status = watched.db.status();
    let pool = PoolReport::new(&status);
    let obstacle = watched.readiness.reason().or_else(|| obstacle(&health));
    let (word, reason) = match (&obstacle, pool.strain()) {
        (Some(_), _) => ("unavailable", obstacle),
        (None, Some(strain)) => ("degraded", Some(strain.into())),
        (None, None) => ("ok", None),
    };
    let code = if word == "unavailable" {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    let report = Report {
        status: word,
        reason,
        timestamp: Timestamp::now().rfc3339(),
        uptime: milliseconds(status.uptime) / 1000.0,
        version: &watched.version,
        memory: Memory::now(),
        database: DatabaseReport {
            connected: health.healthy,
            active_connections: pool.open,
            latency_ms: milliseconds(health.latency),
            backend: status.system.as_str(),
        },
        pool,
    };
    (code, NOT_STORED, Json(report)).into_response()
}

#[derive(Serialize)]
struct DatabaseHealth {
    healthy: bool,
    /// Milliseconds.
    latency: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Cow<'static, str>>,
}

/// `GET /api/health/db`: whether the database answers, 200 or 503.
pub(crate) async fn database(State(watched): State<Watched>) -> Response {
    let health = watched.db.health().await;
    let code = if health.healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = DatabaseHealth {
        healthy: health.healthy,
        latency: milliseconds(health.latency),
        error: obstacle(&health),
    };
    (code, NOT_STORED, Json(body)).into_response()
}

/// `GET /livez`: 200 as long as the process can answer at all.
pub(crate) async fn live() -> Response {
    (NOT_STORED, "ok\n").into_response()
}

/// `GET /readyz`: 200 when requests are welcome, else 503 with the reason.
pub(crate) async fn ready(State(watched): State<Watched>) -> Response {
    if let Some(reason) = watched.readiness.reason() {
        return not_ready(reason);
    }
    let health = watched.db.health().await;
    match obstacle(&health) {
        Some(reason) => not_ready(reason),
        None => (NOT_STORED, "ready\n").into_response(),
    }
}

fn not_ready(reason: Cow<'static, str>) -> Response {
    let problem = not_ready_problem(reason);
    (NOT_STORED, problem).into_response()
}

/// What a client is told while the service is not ready.
pub(crate) fn not_ready_problem(reason: Cow<'static, str>) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready")
        .detail(reason)
        .retry_after(Duration::from_secs(1))
}

/// `GET /metrics`: what the installed recorder has, in Prometheus' text form.
pub(crate) async fn metrics(State(watched): State<Watched>) -> Response {
    let Some(metrics) = Metrics::installed() else {
        return Problem::new(StatusCode::NOT_IMPLEMENTED, "no_metrics")
            .detail("this service does not record metrics")
            .into_response();
    };
    let form = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (NOT_STORED, form, metrics.render(&watched.db)).into_response()
}

/// Why the database cannot be used, without saying where it is: these pages are often public.
fn obstacle(health: &Health) -> Option<Cow<'static, str>> {
    if health.healthy {
        return None;
    }
    let sentence = |error: &Error| {
        tracing::debug!(kind = error.kind().as_str(), %error, "a health check failed");
        let (_, _, detail) = meaning(error.kind());
        let fact = detail.split(';').next().unwrap_or(detail);
        format!("{} ({})", fact, error.kind())
    };
    Some(health.error.as_ref().map_or_else(
        || "the database does not answer".into(),
        |error| sentence(error).into(),
    ))
}

/// Rounded to microseconds: what is finer is noise.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
