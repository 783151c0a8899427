//! The table of tokens: made when it is first needed, read when a key is taken, swept now and then.
//!
//! A token has to be kept for longer than anybody may ask for it: longer than any deadline, and for
//! a caller's own key as long as that caller may repeat its request. One day is both. After that
//! the rows only cost room.

use crate::attempts::Setback;
use crate::bound::{answer_by, frame};
use crate::database::Database;
use crate::engine::Engine;
use crate::options::Promise;
use mainstay_core::backend::{Lane, Reply, System, Want};
use mainstay_core::error::Report;
use mainstay_core::token::{COMMITTED, Token};
use mainstay_core::{Class, Deadline, Error, Kind, Result, Statement};
use mainstay_resilience::Work;
use std::hash::{BuildHasher, RandomState};
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How often old tokens are looked for, at most.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// How many rows one statement removes: few enough to hold no lock for long.
const SWEEP_BATCH: u64 = 1000;
/// How long one sweep may go on; what is left waits for the next.
const SWEEP_TIME: Duration = Duration::from_secs(30);

/// Makes tokens, and knows when old ones were swept.
#[derive(Debug)]
pub(crate) struct Tokens {
    /// 128 bits from the system's randomness: no other process has the same.
    prefix: String,
    count: AtomicU64,
    swept_at: Mutex<Option<Instant>>,
}

impl Default for Tokens {
    fn default() -> Self {
        let (high, low) = (RandomState::new(), RandomState::new());
        Self {
            prefix: format!("{:016x}{:016x}", high.hash_one(0_u8), low.hash_one(1_u8)),
            count: AtomicU64::new(0),
            swept_at: Mutex::default(),
        }
    }
}

impl Tokens {
    /// The token of one attempt; `None` where nothing was promised.
    pub(crate) fn token(&self, promise: &Promise) -> Option<Token> {
        let nonce = || {
            let number = self.count.fetch_add(1, Ordering::Relaxed);
            format!("{}-{number:x}", self.prefix)
        };
        match promise {
            Promise::Nothing => None,
            Promise::Once => {
                let nonce = nonce();
                Some(Token::new(nonce.clone(), &nonce))
            }
            Promise::As(key) => Some(Token::new(&**key, &nonce())),
        }
    }

    /// Whether a sweep is due; whoever is told so does it.
    fn is_due(&self, now: Instant) -> bool {
        let mut swept_at = self.swept_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = swept_at.is_none_or(|at| now.saturating_duration_since(at) >= SWEEP_INTERVAL);
        if is_due {
            *swept_at = Some(now);
        }
        is_due
    }
}

/// Why a transaction with a token did not begin, where that can be mended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// There is no table yet.
    NoTable,
    /// There is a row of this key.
    Taken,
}

impl Obstacle {
    pub(crate) fn of(error: &Error, system: System) -> Option<Self> {
        match (error.kind(), system) {
            (Kind::Unique, _) => Some(Self::Taken),
            // The only statement was our own, so it is the table that it misses.
            (Kind::Statement, System::Sqlite) => Some(Self::NoTable),
            (Kind::Statement, _) => (error.sqlstate() == Some("42P01")).then_some(Self::NoTable),
            _ => None,
        }
    }
}

impl Database {
    /// Makes the table that `exactly_once` transactions write their tokens to, unless it is there.
    /// They do so themselves when they first need it; a role that may not create tables needs
    /// somebody else to have called this, as `mainstay init` does.
    ///
    /// # Errors
    ///
    /// When the role may not create it, or the database is away.
    ///
    /// # Cancel safety
    ///
    /// The table is made or not.
    #[track_caller]
    pub fn create_token_table(&self) -> impl Future<Output = Result<()>> {
        let site = Location::caller();
        async move {
            let deadline = self.deadline_for(None);
            let created = self.engine().create_token_table(deadline, site).await;
            created.map_err(Setback::into_error)
        }
    }
}

impl Engine {
    /// Runs one statement about tokens on the write lane, where it commits by itself.
    pub(crate) async fn run_for_token(
        &self,
        statement: &Statement,
        want: Want,
        deadline: Deadline,
        site: &'static Location<'static>,
    ) -> Result<Reply, Setback> {
        let lease = self.admit(Lane::Write, deadline, site).await?;
        let started = Instant::now();
        let call = frame(Lane::Write, deadline, started);
        let result = answer_by(deadline, Lane::Read, lease.run(statement, want, call)).await;
        self.witness("token", started.elapsed(), result.as_ref().err());
        result.map_err(|error| Setback::Failed(harmless(error), Work::Unit))
    }

    /// Makes the table unless it is there.
    pub(crate) async fn create_token_table(
        &self,
        deadline: Deadline,
        site: &'static Location<'static>,
    ) -> Result<(), Setback> {
        let text = match self.backend.system() {
            System::Sqlite => {
                "create table if not exists _mainstay_tokens (\
                 token text primary key not null, state text not null, \
                 at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')))"
            }
            _ => {
                "create table if not exists _mainstay_tokens (\
                 token text primary key, state text not null, \
                 at timestamptz not null default pg_catalog.now())"
            }
        };
        let create = Statement::new(text, ()).map_err(Setback::NotServed)?;
        let created = self
            .run_for_token(&create, Want::Affected, deadline, site)
            .await;
        match created {
            Ok(_) => Ok(()),
            // Two that create it at once collide in the catalog; one of them has made it.
            Err(Setback::Failed(error, _))
                if matches!(error.sqlstate(), Some("23505" | "42P07" | "42710")) =>
            {
                Ok(())
            }
            Err(Setback::Failed(error, work)) if error.sqlstate() == Some("42501") => {
                let report = Report::new(
                    Kind::Statement,
                    "there is no table _mainstay_tokens, and this role may not create it",
                )
                .remedy("run `mainstay init` once with a role that may create tables")
                .class(Class::Permanent)
                .evidence(error.evidence())
                .sqlstate("42501")
                .source(error);
                Err(Setback::Failed(report.into(), work))
            }
            Err(setback) => Err(setback),
        }
    }

    /// Clears the way for a key that is taken, or answers that its work is done.
    pub(crate) async fn free_key(
        &self,
        token: &Token,
        deadline: Deadline,
        site: &'static Location<'static>,
    ) -> Result<(), Setback> {
        // A tombstone may go: it could only be placed once the transaction it was meant for had
        // ended, because the two rows exclude each other. Nobody is left whom it would stop.
        let bury = "delete from _mainstay_tokens where token = $1 and state = 'tomb'";
        let bury = Statement::new(bury, (token.key(),)).map_err(Setback::NotServed)?;
        let buried = self
            .run_for_token(&bury, Want::Affected, deadline, site)
            .await?;
        if buried.affected > 0 {
            return Ok(());
        }
        let ask = "select state from _mainstay_tokens where token = $1";
        let ask = Statement::new(ask, (token.key(),)).map_err(Setback::NotServed)?;
        let answer = self
            .run_for_token(&ask, Want::Rows(1), deadline, site)
            .await?;
        match state_of(&answer).map_err(Setback::NotServed)? {
            Some(state) if state.starts_with(COMMITTED) => {
                Err(Setback::NotServed(already_done(token)))
            }
            _ => Ok(()),
        }
    }

    /// After a commit: removes old tokens in the background, if it is time. The task holds the
    /// engine weakly between its statements and ends by itself, so nobody waits for it.
    pub(crate) fn sweep_tokens(&self) {
        if !self.tokens.is_due(Instant::now()) {
            return;
        }
        let engine = self.me().clone();
        drop(tokio::spawn(async move {
            let deadline = Deadline::from_now(SWEEP_TIME);
            while let Some(engine) = engine.upgrade() {
                match engine.sweep_batch(deadline).await {
                    Ok(removed) if removed >= SWEEP_BATCH => {}
                    Ok(_) => return,
                    Err(error) => {
                        tracing::debug!(%error, "old tokens were not removed; the next hour will");
                        return;
                    }
                }
            }
        }));
    }

    async fn sweep_batch(&self, deadline: Deadline) -> Result<u64> {
        let old = match self.backend.system() {
            System::Sqlite => {
                "select token from _mainstay_tokens \
                 where at < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-1 day') limit 1000"
            }
            // Processes that sweep at the same time take different rows.
            _ => {
                "select token from _mainstay_tokens \
                 where at < now() - interval '1 day' limit 1000 for update skip locked"
            }
        };
        let text = format!("delete from _mainstay_tokens where token in ({old})");
        let sweep = Statement::new(text, ())?;
        let swept = self
            .run_for_token(&sweep, Want::Affected, deadline, Location::caller())
            .await;
        swept
            .map(|reply| reply.affected)
            .map_err(Setback::into_error)
    }
}

/// Each statement about tokens may be repeated, whatever became of it, and it runs while no
/// transaction of the caller's is open: an unknown outcome is none to the caller.
fn harmless(error: Error) -> Error {
    if !error.is_outcome_unknown() {
        return error;
    }
    let kind = if error.is_timeout() {
        Kind::Timeout
    } else {
        Kind::Unreachable
    };
    let message = format!("before the transaction began: {}", error.message());
    error
        .into_report()
        .kind(kind)
        .class(Class::NotSent)
        .message(message)
        .into()
}

/// The only column of the only row.
pub(crate) fn state_of(reply: &Reply) -> Result<Option<String>> {
    reply.rows.first().map(|row| row.at(0)).transpose()
}

/// Somebody has done the work of this key.
pub(crate) fn already_done(token: &Token) -> Error {
    let message = format!("the work of key {:?} is done already", token.key());
    Report::new(Kind::AlreadyDone, message)
        .class(Class::Permanent)
        .into()
}

impl Promise {
    /// Refuses keys that could not be kept.
    pub(crate) fn check(&self, is_read_only: bool) -> Result<()> {
        let objection = match self {
            Self::Nothing => return Ok(()),
            _ if is_read_only => {
                "a read-only transaction has nothing that could be done exactly once"
            }
            Self::As(key) if key.is_empty() => "the key of exactly_once_as is empty",
            Self::As(key) if key.len() > Self::KEY_MAX => {
                "the key of exactly_once_as is longer than 200 bytes"
            }
            Self::As(key) if key.contains('\0') => "the key of exactly_once_as holds a NUL",
            _ => return Ok(()),
        };
        Err(Report::new(Kind::Config, objection).into())
    }
}

impl From<&str> for Promise {
    fn from(key: &str) -> Self {
        Self::As(Arc::from(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attempt_has_a_token_of_its_own_and_a_key_stays_the_same() {
        let (tokens, others) = (Tokens::default(), Tokens::default());
        let made = |tokens: &Tokens| tokens.token(&Promise::Once).unwrap();
        let three = [made(&tokens), made(&tokens), made(&others)];
        assert!(three[0] != three[1] && three[0] != three[2] && three[1] != three[2]);
        let keyed = || tokens.token(&"k".into()).unwrap();
        let (one, two) = (keyed(), keyed());
        assert_eq!((one.key(), two.key()), ("k", "k"));
        assert_ne!(one.mark(), two.mark());
        assert!(tokens.token(&Promise::Nothing).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_sweep_is_due_once_an_hour() {
        let tokens = Tokens::default();
        let now = Instant::now();
        assert!(tokens.is_due(now));
        assert!(!tokens.is_due(now + SWEEP_INTERVAL / 2));
        assert!(tokens.is_due(now + SWEEP_INTERVAL));
    }

    #[test]
    fn keys_are_bounded() {
        for key in ["", "a\0b", &"x".repeat(201)] {
            assert!(Promise::from(key).check(false).is_err(), "{key:?}");
        }
        assert!(Promise::from("x".repeat(200).as_str()).check(false).is_ok());
        assert!(Promise::Once.check(true).is_err());
    }
}
