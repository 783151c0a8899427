//! Who is asking.

use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use mainstay::Database;
use mainstay_axum::{Db, Problem};
use sha2::{Digest, Sha256};

/// The user whose token came with the request.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) id: i64,
}

impl FromRequestParts<Database> for User {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, db: &Database) -> Result<Self, Problem> {
        let token = bearer(parts).ok_or_else(|| unauthorized("send a bearer token"))?;
        let hash = hash(token);
        let Db(db) = match Db::from_request_parts(parts, db).await {
            Ok(db) => db,
            Err(never) => match never {},
        };
        let id: Option<i64> = db
            .fetch_optional("select user_id from tokens where hash = $1", (hash,))
            .await?;
        id.map(|id| Self { id })
            .ok_or_else(|| unauthorized("the token is not known"))
    }
}

fn bearer(parts: &Parts) -> Option<&str> {
    let value = parts.headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn unauthorized(detail: &'static str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized")
        .detail(detail)
        .header(
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"shop\""),
        )
}

/// What is stored of a token: SHA-256 in hexadecimal. A token is long and random in earnest, so it
/// needs no salt and no slow hash.
pub(crate) fn hash(token: &str) -> String {
    let digest = Sha256::digest(token.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
