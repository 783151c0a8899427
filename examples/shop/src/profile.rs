//! `/api/user/profile`: the user as the user sees it.

use crate::auth::User;
use crate::validate::{Checks, given};
use axum::Json;
use mainstay::Timestamp;
use mainstay_axum::{Db, JsonBody, Problem};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Profile {
    id: i64,
    name: String,
    email: String,
    phone: Option<String>,
    updated_at: Timestamp,
}

/// What is left out stays as it is; `null` removes the phone number.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    #[serde(default, deserialize_with = "given")]
    name: Option<String>,
    #[serde(default, deserialize_with = "given")]
    email: Option<String>,
    #[serde(default, deserialize_with = "given")]
    phone: Option<Option<String>>,
}

impl Change {
    fn check(&self) -> Result<(), Problem> {
        let mut checks = Checks::default();
        if let Some(name) = &self.name {
            checks.text("name", name, 100);
        }
        if let Some(email) = &self.email {
            checks.text("email", email, 254);
            checks.check(
                is_address(email),
                "email",
                "must be an address such as ada@example.org",
            );
        }
        if let Some(Some(phone)) = &self.phone {
            checks.text("phone", phone, 30);
            let plain = phone
                .chars()
                .all(|c| c.is_ascii_digit() || "+-/() ".contains(c));
            checks.check(plain, "phone", "may have digits, spaces and + - / ( )");
        }
        checks.done()
    }
}

/// Whether it looks like an address; only a letter to it could tell more.
fn is_address(email: &str) -> bool {
    let Some((local, domain)) = email.rsplit_once('@') else {
        return false;
    };
    let blank = email.chars().any(|c| c.is_whitespace() || c.is_control());
    !local.is_empty()
        && domain.contains('.')
        && !domain.starts_with('.')
        && !domain.ends_with('.')
        && !blank
}

pub(crate) async fn read(Db(db): Db, user: User) -> Result<Json<Profile>, Problem> {
    let profile = db
        .fetch_one(
            "select id, name, email, phone, updated_at from users where id = $1",
            (user.id,),
        )
        .await?;
    Ok(Json(profile))
}

pub(crate) async fn change(
    Db(db): Db,
    user: User,
    JsonBody(change): JsonBody<Change>,
) -> Result<Json<Profile>, Problem> {
    change.check()?;
    let changes_phone = change.phone.is_some();
    let profile = db
        .fetch_one(
            "update users set name = coalesce($2, name), email = coalesce($3, email), \
             phone = case when $4 then $5 else phone end, updated_at = $6 where id = $1 \
             returning id, name, email, phone, updated_at",
            (
                user.id,
                change.name,
                change.email,
                changes_phone,
                change.phone.flatten(),
                Timestamp::now(),
            ),
        )
        .await?;
    Ok(Json(profile))
}
