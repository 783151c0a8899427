//! What handlers ask for: the database, and input that has been checked.
//!
//! axum's own extractors answer plain text, and "expected u32" alone does not tell a client which of
//! thirty fields it got wrong. These answer problem+json that names the field.

use crate::context::RequestContext;
use crate::problem::Problem;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRef, FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use mainstay::Database;
use serde::de::DeserializeOwned;

/// The database, seen through the request's deadline; without the layer, the state's own handle.
#[derive(Clone, Debug)]
pub struct Db(pub Database);

impl<S> FromRequestParts<S> for Db
where
    Database: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = std::convert::Infallible;

    /// # Errors
    ///
    /// None.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is awaited.
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let context = parts.extensions.get::<RequestContext>();
        Ok(Self(context.map_or_else(
            || Database::from_ref(state),
            |context| context.db.clone(),
        )))
    }
}

/// A body of JSON, decoded. What cannot be decoded is a 400 that names the field.
///
/// The size is bounded by axum's `DefaultBodyLimit`; what is larger is a 413.
#[derive(Clone, Copy, Debug)]
pub struct JsonBody<T>(pub T);

impl<S, T> FromRequest<S> for JsonBody<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    /// # Errors
    ///
    /// 415 without `content-type: application/json`, 413 for a body above the limit, 400 for one
    /// that cannot be read or decoded.
    ///
    /// # Cancel safety
    ///
    /// Safe: the request is lost with the future.
    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json")
                .detail("send the body as JSON, with the header content-type: application/json"));
        }
        let body = Bytes::from_request(request, state).await.map_err(unread)?;
        decode(&body).map(Self)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(given) = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
    else {
        return false;
    };
    let essence = given.split(';').next().unwrap_or_default().trim();
    let Some((kind, name)) = essence.split_once('/') else {
        return false;
    };
    let name = name.to_ascii_lowercase();
    kind.eq_ignore_ascii_case("application") && (name == "json" || name.ends_with("+json"))
}

#[expect(clippy::needless_pass_by_value, reason = "the signature map_err wants")]
fn unread(rejection: BytesRejection) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large")
            .detail("the body is larger than this service takes");
    }
    Problem::new(StatusCode::BAD_REQUEST, "unreadable_body")
        .detail("the body could not be read to its end")
}

/// Decodes a body; the problem names the field and, where the text itself is broken, the place.
fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let decoded = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        (path, error.into_inner())
    });
    let decoded = decoded.and_then(|value| match reader.end() {
        Ok(()) => Ok(value),
        Err(error) => Err((".".to_owned(), error)),
    });
    decoded.map_err(|(path, error)| refuse(body, &path, &error))
}

fn refuse(body: &[u8], path: &str, error: &serde_json::Error) -> Problem {
    let message = error.to_string();
    let (line, column) = (error.line(), error.column());
    let (code, what) = if error.is_data() {
        (
            "wrong_type",
            "the body is JSON, and does not have the expected form",
        )
    } else {
        ("malformed_json", "the body is not JSON")
    };
    let (preposition, field) = match field(path, &message) {
        field if !field.is_empty() => ("at", field),
        _ => ("after", last_key(body, line, column)),
    };
    let place = if field.is_empty() {
        String::new()
    } else {
        format!(", {preposition} the field {field}")
    };
    let detail = format!("{what}: line {line}, column {column}{place}");
    Problem::new(StatusCode::BAD_REQUEST, code)
        .detail(detail)
        .field(field, message)
}

/// The path to the field. A field that is missing or unknown has no path of its own, only its
/// parent's; its name is in serde's message, between the first two backquotes. If serde ever words
/// it otherwise, the parent is named, which is still true.
fn field(path: &str, message: &str) -> String {
    // `.` is the body itself, `?` a place between two fields.
    let parent = path.trim_end_matches(['.', '?']);
    let name = ["missing field `", "unknown field `"]
        .iter()
        .find_map(|start| message.strip_prefix(start))
        .and_then(|rest| rest.split('`').next());
    match name {
        // The path of an unknown field may end in its name already.
        Some(name) if parent == name || parent.ends_with(&format!(".{name}")) => parent.to_owned(),
        Some(name) if parent.is_empty() => name.to_owned(),
        Some(name) => format!("{parent}.{name}"),
        None => parent.to_owned(),
    }
}

/// The last key before a place in a text that is not JSON: somebody who forgot a comma looks there.
/// Empty when there is none.
fn last_key(body: &[u8], line: usize, column: usize) -> String {
    let before: usize = body
        .split_inclusive(|byte| *byte == b'\n')
        .take(line.saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    let end = before.saturating_add(column).min(body.len());
    let (mut key, mut string): (&[u8], &[u8]) = (b"", b"");
    let mut opened = None;
    let mut escaped = false;
    for (index, byte) in body[..end].iter().enumerate() {
        match (opened, byte) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (Some(from), b'"') => {
                string = &body[from..index];
                opened = None;
            }
            (None, b'"') => opened = Some(index + 1),
            (None, b':') => key = string,
            _ => {}
        }
    }
    String::from_utf8_lossy(key).into_owned()
}

/// The query string, decoded. What cannot be decoded is a 400 that names the parameter.
#[derive(Clone, Copy, Debug)]
pub struct QueryParams<T>(pub T);

impl<S, T> FromRequestParts<S> for QueryParams<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    /// # Errors
    ///
    /// 400 for a query that cannot be decoded.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is awaited.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(rejection) => {
                Err(Problem::new(StatusCode::BAD_REQUEST, "bad_query")
                    .detail(rejection.body_text()))
            }
        }
    }
}

/// The parts of the path, decoded. What cannot be decoded is a 400.
#[derive(Clone, Copy, Debug)]
pub struct PathParams<T>(pub T);

impl<S, T> FromRequestParts<S> for PathParams<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Send,
{
    type Rejection = Problem;

    /// # Errors
    ///
    /// 400 for a path that cannot be decoded.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is awaited.
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(params)) => Ok(Self(params)),
            Err(rejection) => {
                Err(Problem::new(rejection.status(), "bad_path").detail(rejection.body_text()))
            }
        }
    }
}
