//! Errors as problem+json (RFC 9457).
//!
//! Two readers want opposite things of an error: the client wants to know what to do next, the
//! operator wants every detail. So a problem says the first in its body and keeps the second for
//! the log: no SQL, no parameter, no host name and no secret leaves the process.

use crate::context::RequestId;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use mainstay::{Error, Kind};
use serde::Serialize;
use std::borrow::Cow;
use std::time::Duration;

/// Said when the database does not say itself when to come back.
const COME_BACK: Duration = Duration::from_secs(1);

/// One field of a request that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// The path of the field in the request: `items[2].quantity`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl FieldError {
    /// A field and what is wrong with it.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }
}

/// An error as a client sees it.
///
/// ```
/// use axum::http::StatusCode;
/// use mainstay_axum::Problem;
/// let taken = Problem::new(StatusCode::CONFLICT, "slot_taken")
///     .detail("somebody else has booked this slot");
/// assert_eq!(taken.status(), StatusCode::CONFLICT);
/// ```
#[derive(Clone, Debug)]
#[must_use = "a problem does nothing until it is answered"]
pub struct Problem(Box<Facts>);

#[derive(Clone, Debug)]
struct Facts {
    status: StatusCode,
    code: &'static str,
    detail: Option<Cow<'static, str>>,
    instance: Option<String>,
    errors: Vec<FieldError>,
    retry_after: Option<Duration>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// For the log only.
    cause: Option<Error>,
}

#[derive(Serialize)]
struct Body<'a> {
    /// Problems of this crate have no page of their own; `code` tells them apart.
    r#type: &'static str,
    title: &'static str,
    status: u16,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

impl Problem {
    /// A problem with a status and a code that programs can rely on: lower case, joined by `_`.
    pub fn new(status: StatusCode, code: &'static str) -> Self {
        Self(Box::new(Facts {
            status,
            code,
            detail: None,
            instance: None,
            errors: Vec::new(),
            retry_after: None,
            headers: Vec::new(),
            cause: None,
        }))
    }

    /// 422: the request was understood, and these fields do not hold.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid")
            .detail("the request was understood, and some of its fields do not hold");
        problem.0.errors = errors;
        problem
    }

    /// Says what happened and what to do next, in a sentence for people.
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Names the thing that the problem is about, as a URI.
    pub fn instance(mut self, uri: impl Into<String>) -> Self {
        self.0.instance = Some(uri.into());
        self
    }

    /// Adds a field that does not hold.
    pub fn field(mut self, field: impl Into<String>, message: impl Into<String>) -> Self {
        self.0.errors.push(FieldError::new(field, message));
        self
    }

    /// Tells the client when to come back; sent in whole seconds, rounded up.
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// Adds a header to the response.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// The status of the response.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The code that programs can rely on.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// The database's error behind the problem, for the service's own eyes.
    #[must_use]
    pub fn cause(&self) -> Option<&Error> {
        self.0.cause.as_ref()
    }

    fn log(&self) {
        let Some(cause) = &self.0.cause else { return };
        let (kind, status) = (cause.kind().as_str(), self.0.status.as_u16());
        if self.0.status.is_server_error() {
            tracing::error!(kind, status, attempts = cause.attempts(), error = %chain(cause),
                "a request failed");
        } else {
            tracing::debug!(kind, status, error = %chain(cause), "a request was refused");
        }
    }
}

/// An error with its causes, for the log.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let message = error.to_string();
        // A layer that only repeats its cause adds nothing.
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    text
}

/// What a kind of failure means for a client: status, code, and a sentence without internals.
pub(crate) fn meaning(kind: Kind) -> (StatusCode, &'static str, &'static str) {
    match kind {
        Kind::Unique => (
            StatusCode::CONFLICT,
            "already_exists",
            "something with this value exists already",
        ),
        Kind::ForeignKey => (
            StatusCode::CONFLICT,
            "reference_broken",
            "the request refers to something that does not exist, or removes something in use",
        ),
        Kind::Conflict => (
            StatusCode::CONFLICT,
            "conflict",
            "another request changed the same things at the same time; nothing was done, try again",
        ),
        Kind::AlreadyDone => (
            StatusCode::CONFLICT,
            "already_done",
            "this request was carried out before; nothing was done again",
        ),
        Kind::NotNull | Kind::Check => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "constraint_violated",
            "a value breaks a rule that the data has to keep",
        ),
        Kind::NoRows => (StatusCode::NOT_FOUND, "not_found", "there is no such thing"),
        Kind::Unreachable | Kind::BreakerOpen | Kind::Credentials | Kind::Tls => (
            StatusCode::SERVICE_UNAVAILABLE,
            "database_unavailable",
            "the database cannot be reached at the moment; nothing was done",
        ),
        Kind::Exhausted | Kind::Shed => (
            StatusCode::SERVICE_UNAVAILABLE,
            "overloaded",
            "the service has more work than it can do in time; nothing was done",
        ),
        Kind::Paused | Kind::Closed => (
            StatusCode::SERVICE_UNAVAILABLE,
            "not_serving",
            "the service is not taking work at the moment; nothing was done",
        ),
        Kind::Timeout => (
            StatusCode::GATEWAY_TIMEOUT,
            "timeout",
            "the database did not answer in time; nothing was done",
        ),
        Kind::OutcomeUnknown => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "outcome_unknown",
            "the answer of the database was lost, so the request may or may not have been carried \
             out; look before you send it again",
        ),
        _ => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the service could not carry out the request; the fault is not in the request",
        ),
    }
}

impl From<Error> for Problem {
    /// A problem that the application aborted its transaction with comes back as it was.
    fn from(error: Error) -> Self {
        if error.kind() == Kind::RolledBack
            && let Some(Aborted(own)) = error.downcast_ref::<Aborted>()
        {
            return own.clone();
        }
        let (status, code, detail) = meaning(error.kind());
        let mut problem = Self::new(status, code).detail(detail);
        if error.is_unavailable() {
            problem = problem.retry_after(error.retry_after().unwrap_or(COME_BACK));
        }
        problem.0.cause = Some(error);
        problem
    }
}

/// A problem inside a [`mainstay::Error`].
#[derive(Debug)]
struct Aborted(Problem);

impl std::fmt::Display for Aborted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.0.status().as_u16(), self.0.code())
    }
}

impl std::error::Error for Aborted {}

impl From<Problem> for Error {
    /// Aborts a transaction with a problem: `?` inside the closure and `?` on the outside give the
    /// problem itself.
    fn from(problem: Problem) -> Self {
        Self::rollback(Aborted(problem))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.log();
        let facts = *self.0;
        let request_id = RequestId::current();
        let body = Body {
            r#type: "about:blank",
            title: facts.status.canonical_reason().unwrap_or("Problem"),
            status: facts.status.as_u16(),
            code: facts.code,
            detail: facts.detail.as_deref(),
            instance: facts.instance.as_deref(),
            request_id: request_id.as_ref().map(RequestId::as_str),
            errors: &facts.errors,
        };
        // Text and numbers only: there is nothing in it that JSON could not say.
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = (facts.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(after) = facts.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
        }
        headers.extend(facts.headers);
        response
    }
}

/// At least one: "come back after 0 seconds" is an invitation to hammer.
fn whole_seconds(after: Duration) -> u64 {
    let up = u64::from(after.subsec_nanos() > 0);
    after.as_secs().saturating_add(up).max(1)
}

/// 404 for whatever no route matches: `Router::fallback(not_found)`.
///
/// # Cancel safety
///
/// Safe: nothing is awaited.
pub async fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no_such_route").detail("nothing is served at this address")
}

/// 405 where a route exists for another method: `Router::method_not_allowed_fallback(…)`.
///
/// # Cancel safety
///
/// Safe: nothing is awaited.
pub async fn method_not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed")
        .detail("this address does not take this method; the header allow says which it takes")
}
