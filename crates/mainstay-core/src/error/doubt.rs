//! What is needed to look into a write of which nobody knows whether it happened.

use crate::Timestamp;
use crate::token::{Origin, Token};

/// What is known about a write of which nobody knows whether it happened.
///
/// Everything by which an operator, or the application itself, can find out: since when it is
/// unknown, which session of the server it was sent to, and the token that the transaction wrote if it
/// was to be `exactly_once`.
///
/// ```
/// # use mainstay_core::error::{Kind, Report};
/// # use mainstay_core::Error;
/// # let error: Error = Report::new(Kind::OutcomeUnknown, "lost").session(4711, None).into();
/// if let Some(doubt) = error.doubt() {
///     eprintln!("unknown since {}", doubt.since().rfc3339());
///     if let Some(process) = doubt.process() {
///         eprintln!("select * from pg_stat_activity where pid = {process}");
///     }
///     if let Some(key) = doubt.token() {
///         eprintln!("select state from _mainstay_tokens where token = '{key}'");
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    since: Timestamp,
    process: Option<i32>,
    started: Option<Timestamp>,
    token: Option<Token>,
}

impl Doubt {
    pub(super) fn since_now() -> Self {
        Self {
            since: Timestamp::now(),
            process: None,
            started: None,
            token: None,
        }
    }

    /// When it became unknown, by the clock of this machine.
    #[must_use]
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// The process of the server's session (`pid` in `pg_stat_activity`), where the server has
    /// processes and no pooler hides them.
    #[must_use]
    pub fn process(&self) -> Option<i32> {
        self.process
    }

    /// When that session began (`backend_start`; behind a transaction pooler, when the transaction
    /// began), if it was asked for: the number of a process may be given out again.
    #[must_use]
    pub fn started(&self) -> Option<Timestamp> {
        self.started
    }

    /// The key of the row in `_mainstay_tokens`, of an `exactly_once` transaction.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.token.as_ref().map(Token::key)
    }

    /// The `state` of that row which says that the transaction was committed.
    #[must_use]
    pub fn committed_state(&self) -> Option<&str> {
        self.token.as_ref().map(Token::mark)
    }

    pub(super) fn with_session(mut self, process: i32, started: Option<i64>) -> Self {
        self.process = Some(process);
        self.started = started.and_then(|micros| Timestamp::from_unix_micros(micros).ok());
        self
    }

    pub(super) fn with_token(mut self, token: Token, origin: Option<Origin>) -> Self {
        self.token = Some(token);
        match origin {
            Some(origin) => self.with_session(origin.process, Some(origin.started)),
            None => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Kind, Report};

    #[test]
    fn every_unknown_outcome_says_since_when() {
        let before = Timestamp::now();
        let error = Error::from(Report::new(Kind::Timeout, "late").kind(Kind::OutcomeUnknown));
        let since = error.doubt().unwrap().since();
        assert!(before <= since && since <= Timestamp::now());
        let later = Error::from(error.into_report().message("the same, in other words"));
        assert_eq!(
            later.doubt().unwrap().since(),
            since,
            "it did not begin anew"
        );
    }

    #[test]
    fn what_is_decided_is_not_in_doubt() {
        assert_eq!(Error::from(Report::new(Kind::Unique, "no")).doubt(), None);
        let lost = Error::from(Report::new(Kind::OutcomeUnknown, "lost"));
        let decided = Error::from(lost.into_report().kind(Kind::Unreachable));
        assert_eq!(decided.doubt(), None);
    }

    #[test]
    fn session_and_token_are_told() {
        let origin = Origin {
            process: 7,
            started: 1_000_000,
        };
        let report = Report::new(Kind::OutcomeUnknown, "lost").session(6, None);
        let error = Error::from(report.token(Token::new("order-7", "n"), Some(origin)));
        let doubt = error.doubt().unwrap();
        assert_eq!(doubt.process(), Some(7));
        assert_eq!(doubt.started().unwrap().unix_micros(), 1_000_000);
        assert_eq!(doubt.token(), Some("order-7"));
        assert_eq!(doubt.committed_state(), Some("tx n"));
    }
}
