//! `/api/bookings`: a slot of a service is sold once, whatever the concurrency.
//!
//! Looking first and inserting then sells a slot twice on a busy day: both shoppers look before
//! either inserts. Here the unique constraint on service and slot decides, and the code only turns
//! its answer into words.

use crate::auth::User;
use crate::page::{List, PageParams};
use crate::validate::Checks;
use axum::Json;
use axum::http::StatusCode;
use mainstay::Timestamp;
use mainstay_axum::{Db, FieldError, JsonBody, Problem, QueryParams};
use serde::{Deserialize, Serialize};

/// Slots begin on the quarter hour.
const SLOT_MICROS: i64 = 15 * 60 * 1_000_000;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Booking {
    id: i64,
    service_id: i64,
    slot: Timestamp,
    created_at: Timestamp,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewBooking {
    service_id: i64,
    slot: Timestamp,
}

impl NewBooking {
    fn check(&self, now: Timestamp) -> Result<(), Problem> {
        let mut checks = Checks::default();
        let on_the_quarter = self.slot.unix_micros().rem_euclid(SLOT_MICROS) == 0;
        checks.check(on_the_quarter, "slot", "must begin on a quarter hour");
        checks.check(self.slot > now, "slot", "must lie in the future");
        checks.done()
    }
}

pub(crate) async fn list(
    Db(db): Db,
    user: User,
    QueryParams(params): QueryParams<PageParams>,
) -> Result<Json<List<Booking>>, Problem> {
    let page = params.page()?;
    let bookings = db
        .fetch_all(
            "select id, service_id, slot, created_at from bookings \
             where user_id = $1 order by id desc limit $2 offset $3",
            (user.id, page.limit, page.offset),
        )
        .await?;
    Ok(Json(List::new(page, bookings)))
}

pub(crate) async fn create(
    Db(db): Db,
    user: User,
    JsonBody(new): JsonBody<NewBooking>,
) -> Result<(StatusCode, Json<Booking>), Problem> {
    let now = Timestamp::now();
    new.check(now)?;
    let booked: mainstay::Result<Booking> = db
        .transaction(async |tx| {
            let service: Option<i64> = tx
                .fetch_optional("select id from services where id = $1", (new.service_id,))
                .await?;
            let Some(service) = service else {
                return Err(no_such_service("service_id").into());
            };
            tx.fetch_one(
                "insert into bookings (user_id, service_id, slot, created_at) \
                 values ($1, $2, $3, $4) returning id, service_id, slot, created_at",
                (user.id, service, new.slot, now),
            )
            .await
        })
        .await;
    match booked {
        Ok(booking) => Ok((StatusCode::CREATED, Json(booking))),
        Err(error) if error.is_unique_violation() => {
            Err(Problem::new(StatusCode::CONFLICT, "slot_taken")
                .detail("this slot has been sold; choose another one"))
        }
        Err(error) => Err(error.into()),
    }
}

/// 422: the request refers to a service that the shop does not sell.
pub(crate) fn no_such_service(field: impl Into<String>) -> Problem {
    Problem::invalid(vec![FieldError::new(field, "there is no such service")])
}
