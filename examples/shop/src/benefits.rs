//! `/api/benefits`: what loyal customers get.

use crate::auth::User;
use crate::page::{List, PageParams};
use crate::validate::Checks;
use axum::Json;
use axum::http::StatusCode;
use mainstay::Timestamp;
use mainstay_axum::{Db, JsonBody, Problem, QueryParams};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Benefit {
    id: i64,
    title: String,
    description: String,
    percent_off: i64,
    created_at: Timestamp,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewBenefit {
    title: String,
    #[serde(default)]
    description: String,
    percent_off: i64,
}

impl NewBenefit {
    fn check(&self) -> Result<(), Problem> {
        let mut checks = Checks::default();
        checks.text("title", &self.title, 100);
        checks.prose("description", &self.description, 2000);
        checks.range("percent_off", self.percent_off, 1..=100);
        checks.done()
    }
}

pub(crate) async fn list(
    Db(db): Db,
    _: User,
    QueryParams(params): QueryParams<PageParams>,
) -> Result<Json<List<Benefit>>, Problem> {
    let page = params.page()?;
    let benefits = db
        .fetch_all(
            "select id, title, description, percent_off, created_at \
             from benefits order by id limit $1 offset $2",
            (page.limit, page.offset),
        )
        .await?;
    Ok(Json(List::new(page, benefits)))
}

pub(crate) async fn create(
    Db(db): Db,
    _: User,
    JsonBody(new): JsonBody<NewBenefit>,
) -> Result<(StatusCode, Json<Benefit>), Problem> {
    new.check()?;
    let benefit = db
        .fetch_one(
            "insert into benefits (title, description, percent_off, created_at) \
             values ($1, $2, $3, $4) \
             returning id, title, description, percent_off, created_at",
            (
                new.title,
                new.description,
                new.percent_off,
                Timestamp::now(),
            ),
        )
        .await?;
    Ok((StatusCode::CREATED, Json(benefit)))
}
