//! The router: which address is served by whom.

use crate::{benefits, bookings, orders, profile, services};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::get;
use mainstay::Database;
use mainstay_axum::{DatabaseLayer, Readiness, Routes, method_not_allowed, not_found};
use std::time::Duration;

/// The largest body: an order with the most items and the longest note is a tenth of it.
const BODY_MAX: usize = 64 * 1024;

/// How long a request may take. A shopper has left by then.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Everything that the shop serves.
pub(crate) fn router(db: Database, readiness: &Readiness) -> Router {
    let operators = Routes::new(db.clone())
        .version(env!("CARGO_PKG_VERSION"))
        .readiness(readiness.clone());
    let layer = DatabaseLayer::new(db.clone())
        .timeout(REQUEST_TIMEOUT)
        .readiness(readiness.clone());
    Router::new()
        .route("/api/orders", get(orders::list).post(orders::create))
        .route(
            "/api/orders/{id}",
            get(orders::read)
                .put(orders::replace)
                .delete(orders::delete),
        )
        .route("/api/services", get(services::list).post(services::create))
        .route("/api/benefits", get(benefits::list).post(benefits::create))
        .route(
            "/api/user/profile",
            get(profile::read).patch(profile::change),
        )
        .route("/api/bookings", get(bookings::list).post(bookings::create))
        .merge(operators.router())
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(layer)
        .with_state(db)
}
