//! How an error is made: a report that backends and the facade fill in.

use super::{Doubt, Error, Kind};
use crate::backend::Burden;
use crate::token::{Origin, Token};
use mainstay_resilience::{Class, Evidence};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

type Source = Arc<dyn std::error::Error + Send + Sync>;

/// The facts of one failure, before it becomes an [`Error`].
///
/// The class and the evidence start as what the kind alone allows to be said, which is the careful
/// answer; the backend that saw the failure sets them when it knows better.
#[derive(Clone, Debug)]
pub struct Report {
    pub(super) kind: Kind,
    pub(super) class: Class,
    pub(super) evidence: Evidence,
    pub(super) message: Cow<'static, str>,
    pub(super) remedy: Option<Cow<'static, str>>,
    pub(super) sqlstate: Option<Box<str>>,
    pub(super) sqlite_code: Option<i32>,
    pub(super) constraint: Option<Box<str>>,
    pub(super) waited: Option<Duration>,
    pub(super) retry_after: Option<Duration>,
    pub(super) attempts: u32,
    pub(super) wrong_lane: bool,
    pub(super) burden: Option<Burden>,
    pub(super) timed_out: bool,
    pub(super) doubt: Option<Box<Doubt>>,
    pub(super) source: Option<Source>,
}

impl Report {
    /// Starts a report. The message says what happened, lower case, without full stop and without secrets.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        let (class, evidence) = presumed(kind);
        Self {
            kind,
            class,
            evidence,
            message: message.into(),
            remedy: None,
            sqlstate: None,
            sqlite_code: None,
            constraint: None,
            waited: None,
            retry_after: None,
            attempts: 1,
            wrong_lane: false,
            burden: None,
            timed_out: false,
            doubt: None,
            source: None,
        }
    }

    /// Changes the kind and keeps class and evidence.
    #[must_use]
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// What may be done next.
    #[must_use]
    pub fn class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// What the failure says about the database's health.
    #[must_use]
    pub fn evidence(mut self, evidence: Evidence) -> Self {
        self.evidence = evidence;
        self
    }

    /// Replaces the message.
    #[must_use]
    pub fn message(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.message = message.into();
        self
    }

    /// What to try.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<Cow<'static, str>>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// PostgreSQL's code.
    #[must_use]
    pub fn sqlstate(mut self, code: &str) -> Self {
        self.sqlstate = Some(code.into());
        self
    }

    /// SQLite's extended result code.
    #[must_use]
    pub fn sqlite_code(mut self, code: i32) -> Self {
        self.sqlite_code = Some(code);
        self
    }

    /// The violated constraint.
    #[must_use]
    pub fn constraint(mut self, name: impl Into<Box<str>>) -> Self {
        self.constraint = Some(name.into());
        self
    }

    /// How long the call waited.
    #[must_use]
    pub fn waited(mut self, waited: Duration) -> Self {
        self.waited = Some(waited);
        self
    }

    /// How long to wait before asking again.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// How many times the work was tried.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Says that the read lane refused a statement that writes.
    #[must_use]
    pub fn refused_by_read_lane(mut self) -> Self {
        self.wrong_lane = true;
        self
    }

    /// Says that a read was stopped because it held up others on a shared connection.
    #[must_use]
    pub fn burden(mut self, burden: Burden) -> Self {
        self.burden = Some(burden);
        self
    }

    /// Says that a deadline ended the call, whatever the kind.
    #[must_use]
    pub fn timed_out(mut self) -> Self {
        self.timed_out = true;
        self
    }

    /// Which session of the server an unknown outcome was sent to; its start in microseconds since
    /// 1970, where that is known.
    #[must_use]
    pub fn session(self, process: i32, started: Option<i64>) -> Self {
        self.doubting(|doubt| doubt.with_session(process, started))
    }

    /// By which token an unknown outcome can be asked for.
    #[must_use]
    pub fn token(self, token: Token, origin: Option<Origin>) -> Self {
        self.doubting(|doubt| doubt.with_token(token, origin))
    }

    fn doubting(mut self, add: impl FnOnce(Doubt) -> Doubt) -> Self {
        let doubt = self.doubt.map_or_else(Doubt::since_now, |doubt| *doubt);
        self.doubt = Some(Box::new(add(doubt)));
        self
    }

    /// The cause.
    #[must_use]
    pub fn source(self, cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.boxed_source(Box::new(cause))
    }

    /// The cause, already boxed.
    #[must_use]
    pub fn boxed_source(mut self, cause: Box<dyn std::error::Error + Send + Sync>) -> Self {
        self.source = Some(Arc::from(cause));
        self
    }

    /// The finished error.
    #[must_use]
    pub fn into_error(self) -> Error {
        self.into()
    }
}

/// What a kind alone allows to be said. Whatever is not certain is `Permanent`: a missed retry
/// costs an error message, a wrong one costs a second booking.
fn presumed(kind: Kind) -> (Class, Evidence) {
    match kind {
        Kind::Unreachable => (Class::NotSent, Evidence::Silent),
        Kind::Exhausted | Kind::Shed | Kind::BreakerOpen | Kind::Paused | Kind::Closed => {
            (Class::NotSent, Evidence::Neither)
        }
        Kind::Conflict => (Class::RolledBack, Evidence::Answered),
        Kind::OutcomeUnknown => (Class::OutcomeUnknown, Evidence::Silent),
        Kind::Unique
        | Kind::ForeignKey
        | Kind::NotNull
        | Kind::Check
        | Kind::ReadOnly
        | Kind::Statement => (Class::Permanent, Evidence::Answered),
        _ => (Class::Permanent, Evidence::Neither),
    }
}
