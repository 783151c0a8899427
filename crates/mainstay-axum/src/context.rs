//! What belongs to one request: its id, its deadline, and the database seen through that deadline.
//!
//! A timeout for each statement does not bound a request that runs ten of them. So the deadline is
//! fixed once, when the request arrives, and everything it does ends by then.

use crate::problem::Problem;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use mainstay::Database;
use std::fmt;
use std::sync::Arc;
use tokio::time::Instant;

/// The header in which a request's id comes and goes.
pub(crate) const REQUEST_ID: &str = "x-request-id";

/// The longest id that is taken from outside: a UUID with a prefix fits, a log line stays one line.
const REQUEST_ID_MAX: usize = 64;

tokio::task_local! {
    /// The id of the request that this task serves now, so that a problem can name it wherever it
    /// is turned into a response.
    static CURRENT: RequestId;
}

/// The id of one request, for logs on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The caller's id where it is sane, else a new one. What is not sane would end up in logs:
    /// too long, or with anything but letters, digits and `-_.:/`.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Self {
        let given = headers
            .get(REQUEST_ID)
            .and_then(|value| value.to_str().ok());
        match given {
            Some(id) if is_sane(id) => Self(id.into()),
            _ => Self(format!("{:032x}", fastrand::u128(..)).into()),
        }
    }

    /// The id of the request that this task serves.
    pub(crate) fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// Runs a future as a part of the request with this id.
    pub(crate) async fn serve<F: Future>(self, request: F) -> F::Output {
        CURRENT.scope(self, request).await
    }

    pub(crate) fn header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok()
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_sane(id: &str) -> bool {
    (1..=REQUEST_ID_MAX).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte))
}

/// What the layer knows of the request that is being served.
///
/// As an extractor it needs [`DatabaseLayer`](crate::DatabaseLayer) around the route.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RequestContext {
    /// The request's id: the caller's, or a new one.
    pub request_id: RequestId,
    /// Until when the request must have been answered.
    pub deadline: Instant,
    /// The database, seen through that deadline: every call on it ends by then.
    pub db: Database,
}

impl RequestContext {
    pub(crate) fn new(request_id: RequestId, deadline: Instant, db: &Database) -> Self {
        Self {
            request_id,
            deadline,
            db: db.with_deadline(deadline),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Problem;

    /// # Errors
    ///
    /// 500 when the layer is missing, which is a mistake of the service.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is awaited.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| {
            tracing::error!(
                "a handler asks for a RequestContext, and no DatabaseLayer is around it"
            );
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "misconfigured")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sane_id_is_taken_from_outside() {
        let id = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(value).unwrap());
            RequestId::from_headers(&headers).as_str().to_owned()
        };
        assert_eq!(id(b"req-1:a/b.c_D"), "req-1:a/b.c_D");
        let longest = vec![b'a'; REQUEST_ID_MAX];
        assert_eq!(id(&longest).as_bytes(), longest);
        for insane in [
            &b""[..],
            b"a b",
            b"a\"b",
            b"\xc3\xa4",
            &[b'a'; REQUEST_ID_MAX + 1],
        ] {
            let made = id(insane);
            assert_eq!(made.len(), 32, "{made}");
            assert_ne!(made.as_bytes(), insane);
        }
    }
}
