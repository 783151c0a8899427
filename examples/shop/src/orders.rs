//! `/api/orders`: what users bought. Everybody sees their own; somebody else's order does not exist.

use crate::auth::User;
use crate::bookings::no_such_service;
use crate::page::{List, PageParams};
use crate::validate::Checks;
use axum::Json;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::IntoResponse;
use mainstay::{Timestamp, TransactionOptions, Tx};
use mainstay_axum::{Db, JsonBody, PathParams, Problem, QueryParams};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

const ITEMS_MAX: usize = 50;
const QUANTITY_MAX: i64 = 1000;
const NOTE_MAX: usize = 1000;

/// An order without its items, as lists show it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Summary {
    id: i64,
    status: Status,
    note: Option<String>,
    total_cents: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

#[derive(Debug, Serialize)]
pub(crate) struct Order {
    #[serde(flatten)]
    summary: Summary,
    items: Vec<Item>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Item {
    service_id: i64,
    quantity: i64,
    unit_price_cents: i64,
}

#[derive(Copy, Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Open,
    Paid,
    Cancelled,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Paid => "paid",
            Self::Cancelled => "cancelled",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedItem {
    service_id: i64,
    quantity: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewOrder {
    items: Vec<WantedItem>,
    note: Option<String>,
}

/// PUT replaces the whole order, so nothing but the note may be left out.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Replacement {
    status: Status,
    items: Vec<WantedItem>,
    note: Option<String>,
}

fn check(items: &[WantedItem], note: Option<&str>) -> Result<(), Problem> {
    let mut checks = Checks::default();
    let count = items.len();
    let message = format!("must have 1 to {ITEMS_MAX} entries and has {count}");
    checks.check((1..=ITEMS_MAX).contains(&count), "items", message);
    let mut seen = HashSet::new();
    for (index, item) in items.iter().take(ITEMS_MAX).enumerate() {
        let field = |name: &str| format!("items[{index}].{name}");
        checks.range(&field("quantity"), item.quantity, 1..=QUANTITY_MAX);
        let first = seen.insert(item.service_id);
        checks.check(first, &field("service_id"), "is in the order already");
    }
    checks.prose("note", note.unwrap_or_default(), NOTE_MAX);
    checks.done()
}

pub(crate) async fn list(
    Db(db): Db,
    user: User,
    QueryParams(params): QueryParams<PageParams>,
) -> Result<Json<List<Summary>>, Problem> {
    let page = params.page()?;
    let orders = db
        .fetch_all(
            "select id, status, note, total_cents, created_at, updated_at from orders \
             where user_id = $1 order by id desc limit $2 offset $3",
            (user.id, page.limit, page.offset),
        )
        .await?;
    Ok(Json(List::new(page, orders)))
}

pub(crate) async fn create(
    Db(db): Db,
    user: User,
    JsonBody(new): JsonBody<NewOrder>,
) -> Result<impl IntoResponse, Problem> {
    check(&new.items, new.note.as_deref())?;
    let now = Timestamp::now();
    let order: Order = db
        .try_transaction::<_, Problem, _, _>(async |tx| {
            let id: i64 = tx
                .fetch_one(
                    "insert into orders (user_id, status, note, total_cents, created_at, updated_at) \
                     values ($1, 'open', $2, 0, $3, $3) returning id",
                    (user.id, new.note.as_deref(), now),
                )
                .await?;
            fill(&tx, id, &new.items).await?;
            find(&tx, user.id, id).await
        })
        .await?;
    let location = format!("/api/orders/{}", order.summary.id);
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(order)))
}

pub(crate) async fn read(
    Db(db): Db,
    user: User,
    PathParams(id): PathParams<i64>,
) -> Result<Json<Order>, Problem> {
    // One snapshot: an order that is replaced meanwhile is shown before or after, never between.
    let order = db
        .transaction_with(TransactionOptions::new().read_only(), async |tx| {
            Ok(find(&tx, user.id, id).await?)
        })
        .await?;
    Ok(Json(order))
}

pub(crate) async fn replace(
    Db(db): Db,
    user: User,
    PathParams(id): PathParams<i64>,
    JsonBody(new): JsonBody<Replacement>,
) -> Result<Json<Order>, Problem> {
    check(&new.items, new.note.as_deref())?;
    let now = Timestamp::now();
    let order = db
        .try_transaction::<_, Problem, _, _>(async |tx| {
            let found = tx
                .execute(
                    "update orders set status = $3, note = $4, updated_at = $5 \
                     where id = $1 and user_id = $2",
                    (id, user.id, new.status.as_str(), new.note.as_deref(), now),
                )
                .await?;
            if found == 0 {
                return Err(no_such_order());
            }
            tx.execute("delete from order_items where order_id = $1", (id,))
                .await?;
            fill(&tx, id, &new.items).await?;
            find(&tx, user.id, id).await
        })
        .await?;
    Ok(Json(order))
}

pub(crate) async fn delete(
    Db(db): Db,
    user: User,
    PathParams(id): PathParams<i64>,
) -> Result<StatusCode, Problem> {
    let deleted = db
        .execute(
            "delete from orders where id = $1 and user_id = $2",
            (id, user.id),
        )
        .await?;
    if deleted == 0 {
        return Err(no_such_order());
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Adds the items at today's prices and sums them up.
async fn fill(tx: &Tx, order: i64, items: &[WantedItem]) -> Result<(), Problem> {
    for (index, item) in items.iter().enumerate() {
        let added = tx
            .execute(
                "insert into order_items (order_id, service_id, quantity, unit_price_cents) \
                 select cast($1 as bigint), id, cast($3 as bigint), price_cents \
                 from services where id = $2",
                (order, item.service_id, item.quantity),
            )
            .await?;
        if added == 0 {
            return Err(no_such_service(format!("items[{index}].service_id")));
        }
    }
    tx.execute(
        "update orders set total_cents = \
         (select sum(quantity * unit_price_cents) from order_items where order_id = $1) \
         where id = $1",
        (order,),
    )
    .await?;
    Ok(())
}

async fn find(tx: &Tx, user: i64, id: i64) -> Result<Order, Problem> {
    let summary = tx.fetch_optional(
        "select id, status, note, total_cents, created_at, updated_at from orders \
         where id = $1 and user_id = $2",
        (id, user),
    );
    let summary: Summary = summary.await?.ok_or_else(no_such_order)?;
    let items = tx
        .fetch_all(
            "select service_id, quantity, unit_price_cents from order_items \
             where order_id = $1 order by service_id",
            (id,),
        )
        .await?;
    Ok(Order { summary, items })
}

fn no_such_order() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found").detail("there is no such order")
}
