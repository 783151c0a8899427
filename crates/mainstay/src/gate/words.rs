//! What those are told who are refused: which gate, since when, why, and when to come again.

use super::rules::{By, Refusal};
use mainstay_core::error::Report;
use mainstay_core::{Class, Error, Evidence, Kind};
use tokio::time::Instant;

impl Refusal {
    pub(super) fn into_error(self, now: Instant) -> Error {
        match (self.by, self.cause) {
            (By::Login, Some((refused, at))) => {
                let age = now.saturating_duration_since(at);
                let message = format!(
                    "{} (that was {age:.1?} ago; the server is asked again in {:.1?})",
                    refused.message(),
                    self.retry_after
                );
                refused
                    .into_report()
                    .message(message)
                    .evidence(Evidence::Neither)
                    .retry_after(self.retry_after)
                    .into()
            }
            (by, cause) => {
                let lasting = now.saturating_duration_since(self.since);
                let what = match by {
                    By::Operator => {
                        format!("the breaker was opened by an operator {lasting:.1?} ago")
                    }
                    By::Execute => format!(
                        "the database has not answered for {lasting:.1?} and the breaker is open"
                    ),
                    By::Connect | By::Login => format!(
                        "the database has been away for {lasting:.1?} and the breaker is open"
                    ),
                };
                let remedy = match by {
                    By::Operator => "`breaker_automatic` ends the order",
                    _ => "it closes by itself when the database answers again",
                };
                let cause = cause.filter(|_| by != By::Operator);
                let why = cause.as_ref().map_or_else(String::new, |(cause, at)| {
                    let age = now.saturating_duration_since(*at);
                    format!(": {} ({age:.1?} ago)", cause.message())
                });
                let report = Report::new(Kind::BreakerOpen, what + &why)
                    .class(Class::NotSent)
                    .evidence(Evidence::Neither)
                    .retry_after(self.retry_after)
                    .remedy(remedy);
                match cause {
                    Some((cause, _)) => report.source(cause).into(),
                    None => report.into(),
                }
            }
        }
    }
}
