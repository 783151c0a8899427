//! mainstay for axum: what every service writes between its router and its database.
//!
//! A service that can reach its database still has to say so to a load balancer, turn requests away
//! while it cannot, bound each request in time, and answer errors that help a client without
//! telling it where the database lives. Those four are the same in every service, so they are here.
//!
//! ```no_run
//! use axum::{Router, routing::get};
//! use mainstay::Database;
//! use mainstay_axum::{Db, Metrics, Problem};
//!
//! async fn count(Db(db): Db) -> Result<String, Problem> {
//!     let orders: i64 = db.fetch_one("select count(*) from orders", ()).await?;
//!     Ok(orders.to_string())
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! Metrics::install()?; // the application's decision; nothing below it installs a recorder
//! let db = Database::builder("file:./shop.db").open_lazy()?;
//! let app: Router = Router::new()
//!     .route("/orders/count", get(count))
//!     .fallback(mainstay_axum::not_found)
//!     .layer(mainstay_axum::DatabaseLayer::new(db.clone()))
//!     .merge(mainstay_axum::routes(db.clone()))
//!     .with_state(db);
//! # drop(app); Ok(()) }
//! ```
//!
//! # Modules, in reading order
//!
//! `layer` puts a [`RequestContext`] in place (`context`) and refuses early; `extract` hands the
//! database and checked input to handlers; `problem` is what they answer when they cannot;
//! `readiness`, `routes`, `health` and `exposition` are what operators ask.

mod context;
mod exposition;
mod extract;
mod health;
mod layer;
mod memory;
mod problem;
mod readiness;
mod routes;

pub use context::{RequestContext, RequestId};
pub use exposition::{InstallError, Metrics};
pub use extract::{Db, JsonBody, PathParams, QueryParams};
pub use layer::{DatabaseLayer, DatabaseService};
pub use problem::{FieldError, Problem, method_not_allowed, not_found};
pub use readiness::Readiness;
pub use routes::{EXEMPT, Routes, routes};
