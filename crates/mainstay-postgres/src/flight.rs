//! Requests that travel together, and what the absence of an answer means.
//!
//! The driver sends a request when its future is polled for the first time. [`launch`] does that at
//! once, so that the order on the wire is the order of the calls, whatever happens to be awaited
//! first afterwards.

use crate::classify::{Described, Phase, ServerError, lost, refused, spoils_the_session};
use crate::session::Link;
use crate::wire::{Mark, Reached};
use mainstay_core::backend::Lane;
use mainstay_core::error::Report;
use mainstay_core::{Class, Deadline, Error, Evidence, Kind, Result};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::time::Instant;

/// A request that has been sent.
pub(crate) enum Launched<'a, T> {
    /// It failed or finished at once.
    Landed(T),
    /// Its answer is awaited.
    Flying(Pin<Box<dyn Future<Output = T> + Send + 'a>>),
}

/// Sends a request.
pub(crate) fn launch<'a, T>(request: impl Future<Output = T> + Send + 'a) -> Launched<'a, T> {
    let mut request: Pin<Box<dyn Future<Output = T> + Send + 'a>> = Box::pin(request);
    // Nobody is woken by this poll; whoever wants the answer polls again.
    match request
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(answer) => Launched::Landed(answer),
        Poll::Pending => Launched::Flying(request),
    }
}

impl<T> Launched<'_, T> {
    /// Waits for the answer.
    pub(crate) async fn landed(self) -> T {
        match self {
            Self::Landed(answer) => answer,
            Self::Flying(request) => request.await,
        }
    }
}

/// One request of a flight, for judging the absence of its answer.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Leg {
    /// What was going on.
    pub(crate) phase: Phase,
    /// Where the log stood before the flight.
    pub(crate) mark: Mark,
    /// Which request of the flight it is, from 0.
    pub(crate) index: u64,
    /// How many commands the server reports complete when it is done.
    pub(crate) completes: u32,
}

impl Link {
    /// A flight of one request, about to start.
    pub(crate) fn leg(&self, phase: Phase) -> Leg {
        Leg {
            phase,
            mark: self.log.mark(),
            index: 0,
            completes: 1,
        }
    }

    /// Waits for an answer until the deadline, and says what it means if none comes.
    pub(crate) async fn answer<T>(
        &self,
        leg: Leg,
        deadline: Deadline,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T> {
        match tokio::time::timeout_at(deadline.instant(), answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.judge(leg, error)),
            Err(_) => {
                self.usage().abandon();
                Err(self.in_doubt(self.overdue(leg)))
            }
        }
    }

    /// Refuses what would begin after its deadline. A request that the driver has is sent, and who
    /// stops waiting for it at once has sent it all the same.
    pub(crate) fn refuse_late(&self, deadline: Deadline) -> Result<()> {
        if deadline.instant() > Instant::now() {
            return Ok(());
        }
        let class = if self.is_in_transaction() {
            Class::RolledBack
        } else {
            Class::NotSent
        };
        let message = "the deadline had passed before the statement was sent";
        Err(Report::new(Kind::Timeout, message)
            .class(class)
            .evidence(Evidence::Neither)
            .timed_out()
            .into())
    }

    /// Puts a failure into words and classes.
    pub(crate) fn judge(&self, leg: Leg, error: tokio_postgres::Error) -> Error {
        self.in_doubt(self.meaning(leg, error))
    }

    fn meaning(&self, leg: Leg, error: tokio_postgres::Error) -> Error {
        if let Some(server) = error.as_db_error() {
            return self.judge_refusal(leg, server.into());
        }
        if error.to_string().starts_with("error encoding") {
            return Report::new(Kind::Statement, "the statement cannot be sent")
                .source(error)
                .into();
        }
        // Also when the connection lives on: an answer that the driver does not understand leaves
        // nobody in a position to say what comes next.
        self.usage().broken = true;
        self.note_silence();
        let reached = self.log.reached(leg.mark, leg.index, leg.completes);
        let host = self.endpoint.host();
        let words = self.log.last_words().map(ServerError::from);
        let mut report = lost(leg.phase, reached, words.as_ref(), self.style.pooled);
        if is_nonsense(&error) || self.log.is_garbled() {
            // Whoever talks nonsense is there.
            report = report.evidence(Evidence::Answered);
        }
        let how = match &words {
            Some(words) => words.to_string(),
            None => self.log.ended().unwrap_or_else(|| error.to_string()),
        };
        let report = match words {
            Some(words) => report.described(words),
            None => report.source(error),
        };
        let moment = match (leg.phase, reached) {
            (Phase::Commit, Reached::Unknown) => {
                "during COMMIT; whether it was committed is unknown"
            }
            (Phase::Write, Reached::Unknown) => "during a write; whether it happened is unknown",
            (_, Reached::NotWritten) => "before the statement was sent",
            (Phase::Transaction | Phase::Commit, _) => "inside a transaction, which is rolled back",
            _ => "before the answer came",
        };
        report
            .message(format!("the connection to {host} was lost {moment}: {how}"))
            .into()
    }

    /// Adds to an unknown outcome which session it was, so that it can be looked into.
    pub(crate) fn in_doubt(&self, error: Error) -> Error {
        let key = self.log.key().filter(|_| !self.style.pooled);
        let process = key.and_then(|key| Some(i32::from_be_bytes(*key.first_chunk()?)));
        match process {
            Some(process) if error.is_outcome_unknown() => {
                let origin = self.origin().filter(|origin| origin.process == process);
                let started = origin.map(|origin| origin.started);
                error.into_report().session(process, started).into()
            }
            _ => error,
        }
    }

    fn judge_refusal(&self, leg: Leg, server: ServerError) -> Error {
        let code = server.code().to_owned();
        let ends = server.ends_the_session();
        if spoils_the_session(&server) {
            self.usage().broken = true;
        }
        let stale = is_stale(&server);
        let mid_answer = ends && self.log.completes() >= leg.completes;
        let text = server.to_string();
        let report = refused(leg.phase, server, mid_answer, self.style.pooled);
        match code.as_str() {
            // The server says in words, and only in words, which of the two it was.
            "57014" if text.contains("statement timeout") => report.kind(Kind::Timeout).timed_out(),
            "25006" if leg.phase == Phase::Read => report.refused_by_read_lane(),
            "25006" if self.is_demotion(leg.phase) => {
                self.usage().broken = true;
                report
                    .class(Class::RolledBack)
                    .evidence(Evidence::Silent)
                    .message(format!(
                        "{} does not take writes: {text}",
                        self.endpoint.host()
                    ))
            }
            "25006" => report.remedy(self.why_read_only()),
            "25P02" => report.message(
                "the transaction was aborted by an earlier error and can only be rolled back",
            ),
            _ if stale => report.class(Class::RolledBack),
            _ if ends => report.message(format!(
                "{} ended the session: {text}",
                self.endpoint.host()
            )),
            _ => report,
        }
        .into()
    }

    /// Why the server refuses to write where it should not, from what it reports by itself: nobody has to
    /// be asked.
    fn why_read_only(&self) -> &'static str {
        let says_on = |name| self.log.parameter(name).as_deref() == Some("on");
        if says_on("in_hot_standby") {
            "the server is a standby; connect to the primary"
        } else if self.usage().transaction == Some(Lane::Read) {
            "the transaction was begun read-only; begin one that may write"
        } else if self.is_read_only_by_default() {
            "sessions of this role, database or server are read-only by default \
             (default_transaction_read_only); use another role, or begin a transaction with \
             `set local transaction_read_only = off`"
        } else {
            "the transaction is read-only, or the server is; look at default_transaction_read_only \
             and pg_is_in_recovery()"
        }
    }

    /// The deadline passed. What still runs is stopped when the session is cleaned.
    pub(crate) fn overdue(&self, leg: Leg) -> Error {
        let reached = match self.log.reached(leg.mark, leg.index, leg.completes) {
            // Not yet: the driver has the request and will send it, whoever waits.
            Reached::NotWritten => Reached::Unknown,
            reached => reached,
        };
        let report = lost(leg.phase, reached, None, self.style.pooled);
        let error = Error::from(report);
        let heard = self.log.has_heard_of(leg.mark, leg.index);
        if !heard {
            self.note_silence();
        }
        let (kind, message) = if error.is_outcome_unknown() {
            (
                Kind::OutcomeUnknown,
                "no answer came before the deadline; whether it was written is unknown",
            )
        } else {
            (Kind::Timeout, "no answer came before the deadline")
        };
        error
            .into_report()
            .kind(kind)
            .message(message)
            .evidence(if heard {
                Evidence::Neither
            } else {
                Evidence::Silent
            })
            .timed_out()
            .into()
    }
}

/// Whether the driver could not make sense of what came. The kinds of its errors are private, their
/// words are not.
pub(crate) fn is_nonsense(error: &tokio_postgres::Error) -> bool {
    use std::error::Error as _;
    let text = error.to_string();
    let is_malformed = error
        .source()
        .and_then(|cause| cause.downcast_ref::<io::Error>())
        .is_some_and(|cause| cause.kind() == io::ErrorKind::InvalidInput);
    is_malformed
        || text.starts_with("unexpected message")
        || text.starts_with("error parsing response")
}

/// The plan was made for tables that have changed since, or the statement is gone.
fn is_stale(server: &ServerError) -> bool {
    match server.code() {
        // The second: somebody else has prepared under that name, or a pooler's session has it from
        // another client. The next try has another name.
        "26000" | "42P05" => true,
        "0A000" => server.routine() == Some("RevalidateCachedQuery"),
        // A type of the statement was dropped, and as a rule made anew under the same name. The words
        // are those of the server's own sanity checks, which are never translated.
        "XX000" => server.message().starts_with("cache lookup failed for type"),
        _ => false,
    }
}

/// Whether preparing the statement anew can help.
pub(crate) fn is_stale_plan(error: &Error) -> bool {
    error.downcast_ref::<ServerError>().is_some_and(is_stale)
}
