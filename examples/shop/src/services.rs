//! `/api/services`: what the shop sells.

use crate::auth::User;
use crate::page::{List, PageParams};
use crate::validate::Checks;
use axum::Json;
use axum::http::StatusCode;
use mainstay::Timestamp;
use mainstay_axum::{Db, JsonBody, Problem, QueryParams};
use serde::{Deserialize, Serialize};

/// A million: more than that is a typing error.
pub(crate) const PRICE_MAX: i64 = 100_000_000;
const DURATION_MAX: i64 = 24 * 60;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Service {
    id: i64,
    name: String,
    description: String,
    price_cents: i64,
    duration_minutes: i64,
    created_at: Timestamp,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewService {
    name: String,
    #[serde(default)]
    description: String,
    price_cents: i64,
    duration_minutes: i64,
}

impl NewService {
    fn check(&self) -> Result<(), Problem> {
        let mut checks = Checks::default();
        checks.text("name", &self.name, 100);
        checks.prose("description", &self.description, 2000);
        checks.range("price_cents", self.price_cents, 0..=PRICE_MAX);
        checks.range("duration_minutes", self.duration_minutes, 1..=DURATION_MAX);
        checks.done()
    }
}

pub(crate) async fn list(
    Db(db): Db,
    _: User,
    QueryParams(params): QueryParams<PageParams>,
) -> Result<Json<List<Service>>, Problem> {
    let page = params.page()?;
    let services = db
        .fetch_all(
            "select id, name, description, price_cents, duration_minutes, created_at \
             from services order by id limit $1 offset $2",
            (page.limit, page.offset),
        )
        .await?;
    Ok(Json(List::new(page, services)))
}

pub(crate) async fn create(
    Db(db): Db,
    _: User,
    JsonBody(new): JsonBody<NewService>,
) -> Result<(StatusCode, Json<Service>), Problem> {
    new.check()?;
    let service = db
        .fetch_one(
            "insert into services (name, description, price_cents, duration_minutes, created_at) \
             values ($1, $2, $3, $4, $5) \
             returning id, name, description, price_cents, duration_minutes, created_at",
            (
                new.name,
                new.description,
                new.price_cents,
                new.duration_minutes,
                Timestamp::now(),
            ),
        )
        .await?;
    Ok((StatusCode::CREATED, Json(service)))
}
