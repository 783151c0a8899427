//! The routes that a service's operators use, in one router.

use crate::health;
use crate::problem::method_not_allowed;
use crate::readiness::Readiness;
use axum::Router;
use axum::routing::get;
use mainstay::Database;
use std::sync::Arc;

/// The paths that are served whatever the database does; the layer lets them pass.
pub const EXEMPT: [&str; 5] = [
    "/api/health",
    "/api/health/db",
    "/livez",
    "/readyz",
    "/metrics",
];

/// What the handlers look at.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub(crate) db: Database,
    pub(crate) readiness: Readiness,
    pub(crate) version: Arc<str>,
}

/// The operators' routes with nothing changed: see [`Routes`].
pub fn routes<S>(db: Database) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    Routes::new(db).router()
}

/// The operators' routes, in the making: `/api/health`, `/api/health/db`, `/livez`, `/readyz` and
/// `/metrics`.
///
/// Merge them outside of layers that authenticate or refuse.
#[derive(Clone, Debug)]
#[must_use = "routes do nothing until they are merged into a router"]
pub struct Routes(Watched);

impl Routes {
    /// Routes that watch this database.
    pub fn new(db: Database) -> Self {
        Self(Watched {
            db,
            readiness: Readiness::immediate(),
            version: "unknown".into(),
        })
    }

    /// The service's version, for `/api/health`: `env!("CARGO_PKG_VERSION")`, or a commit.
    pub fn version(mut self, version: impl Into<Arc<str>>) -> Self {
        self.0.version = version.into();
        self
    }

    /// The service's own say in whether it is ready.
    pub fn readiness(mut self, readiness: Readiness) -> Self {
        self.0.readiness = readiness;
        self
    }

    /// The finished router; it merges into a router with any state.
    pub fn router<S>(self) -> Router<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        let [health, database, live, ready, metrics] = EXEMPT;
        Router::new()
            .route(health, get(health::health))
            .route(database, get(health::database))
            .route(live, get(health::live))
            .route(ready, get(health::ready))
            .route(metrics, get(health::metrics))
            .method_not_allowed_fallback(method_not_allowed)
            .with_state(self.0)
    }
}
