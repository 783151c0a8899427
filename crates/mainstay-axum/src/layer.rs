//! The layer around a service's routes: refuse early, bound in time, name each request.
//!
//! While the database is away, a request that is let in only waits for a failure and holds memory
//! and sockets meanwhile. The breaker knows already; asking it costs nothing, so it is asked first,
//! and the client is told when to come back.

use crate::context::{REQUEST_ID, RequestContext, RequestId};
use crate::health::not_ready_problem;
use crate::problem::Problem;
use crate::readiness::Readiness;
use crate::routes::EXEMPT;
use axum::extract::MatchedPath;
use axum::http::{Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use mainstay::Database;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tower::{Layer, Service};
use tracing::Instrument;

/// Duration of a request; OpenTelemetry's name.
pub(crate) const DURATION: &str = "http.server.request.duration";

/// The usual patience of load balancers and browsers.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A handler whose calls all ended at the deadline still has an answer to write; only what hangs
/// elsewhere, such as a body that does not arrive, is cut off.
const MARGIN: Duration = Duration::from_millis(500);

/// Puts a [`RequestContext`] around each request and refuses while the service cannot serve:
/// 503 with `Retry-After`. The operators' routes ([`EXEMPT`]) are never refused.
#[derive(Clone, Debug)]
pub struct DatabaseLayer(Arc<Settings>);

#[derive(Clone, Debug)]
struct Settings {
    db: Database,
    readiness: Readiness,
    timeout: Duration,
}

impl DatabaseLayer {
    /// A layer for this database, with a timeout of 30 seconds.
    #[must_use]
    pub fn new(db: Database) -> Self {
        Self(Arc::new(Settings {
            db,
            readiness: Readiness::immediate(),
            timeout: TIMEOUT,
        }))
    }

    /// How long a request may take as a whole.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        Arc::make_mut(&mut self.0).timeout = timeout;
        self
    }

    /// Refuses until the service says that it is ready.
    #[must_use]
    pub fn readiness(mut self, readiness: Readiness) -> Self {
        Arc::make_mut(&mut self.0).readiness = readiness;
        self
    }
}

impl<S> Layer<S> for DatabaseLayer {
    type Service = DatabaseService<S>;

    fn layer(&self, service: S) -> Self::Service {
        DatabaseService {
            service,
            settings: Arc::clone(&self.0),
        }
    }
}

/// A service with [`DatabaseLayer`] around it.
#[derive(Clone, Debug)]
pub struct DatabaseService<S> {
    service: S,
    settings: Arc<Settings>,
}

impl<S, B> Service<Request<B>> for DatabaseService<S>
where
    S: Service<Request<B>, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
    B: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let started = Instant::now();
        let id = RequestId::from_headers(request.headers());
        let labels = Labels::of(&request);
        let span = tracing::info_span!(
            "request", method = labels.method, route = %labels.route, request_id = %id
        );
        let refusal = self.settings.refusal(request.uri().path());
        let deadline = started + self.settings.timeout;
        let serving = if refusal.is_none() {
            let context = RequestContext::new(id.clone(), deadline, &self.settings.db);
            request.extensions_mut().insert(context);
            // Inside the span, so that what the service does before its first await is in it too.
            Some(span.in_scope(|| self.service.call(request)))
        } else {
            None
        };
        let header = id.header();
        let answering = id.serve(async move {
            let mut response = match (refusal, serving) {
                (Some(problem), _) => problem.into_response(),
                (None, Some(serving)) => until(deadline + MARGIN, serving).await,
                // There is a service exactly when there is no refusal.
                (None, None) => {
                    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_serving").into_response()
                }
            };
            if let Some(header) = header {
                response.headers_mut().insert(REQUEST_ID, header);
            }
            labels.record(response.status(), started.elapsed());
            Ok(response)
        });
        Box::pin(answering.instrument(span))
    }
}

impl Settings {
    /// Why a request for this path is turned away now.
    fn refusal(&self, path: &str) -> Option<Problem> {
        if EXEMPT.contains(&path) {
            return None;
        }
        if let Some(reason) = self.readiness.reason() {
            return Some(not_ready_problem(reason));
        }
        self.db.refusal().map(Problem::from)
    }
}

async fn until(
    end: Instant,
    serving: impl Future<Output = Result<Response, Infallible>>,
) -> Response {
    match timeout_at(end, serving).await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        // Dropping the handler rolls back what was open; a commit on its way may still arrive.
        Err(_) => Problem::new(StatusCode::GATEWAY_TIMEOUT, "timeout")
            .detail("the request was not answered in time; it may or may not have been carried out")
            .into_response(),
    }
}

/// The labels of a request, each with few values: what a client sends must not make new series.
#[derive(Clone, Debug)]
struct Labels {
    method: &'static str,
    route: String,
}

impl Labels {
    fn of<B>(request: &Request<B>) -> Self {
        let route = request.extensions().get::<MatchedPath>();
        Self {
            method: method(request.method()),
            route: route.map_or_else(|| "unmatched".to_owned(), |route| route.as_str().to_owned()),
        }
    }

    fn record(&self, status: StatusCode, took: Duration) {
        metrics::histogram!(DURATION,
            "http.request.method" => self.method,
            "http.route" => self.route.clone(),
            "http.response.status_code" => status.as_u16().to_string())
        .record(took.as_secs_f64());
        tracing::info!(status = status.as_u16(), ?took, "answered");
    }
}

fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "_OTHER",
    }
}
