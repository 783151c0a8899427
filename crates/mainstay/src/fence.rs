//! Finding out how a transaction ended whose COMMIT was not answered.
//!
//! Asking alone is not enough: "not committed" may become "committed" a moment later, while the old
//! COMMIT is still on its way or waits for a disk, and a closure that was run again meanwhile has
//! booked twice. So the old transaction is *fenced* first. Its token row is in it since before the
//! closure ran, and rows of the same key exclude each other; whoever inserts a tombstone with that
//! key therefore waits until the old transaction has ended. What is read after that stays true.
//!
//! The server may not know yet that the client is gone, and would keep the old transaction open for
//! hours. After a grace its session is ended, by process *and* start, because process numbers are
//! given out again.
//!
//! On SQLite nothing gets lost on the way, but the disk may fail the sync of COMMIT, or take longer
//! for it than the caller has time. Then the write lock is the fence: the writer that asks has it, so
//! the old transaction has ended; and it was opened after the old one's log was settled, so its own
//! commit, which is synced, stands on what every recovery would find.
//!
//! Every step may be lost on the way as well and is then done again: a tombstone differs from the
//! row of a transaction, so nobody takes his own for a commit.

use crate::attempts::Setback;
use crate::bound::answer_by;
use crate::engine::Engine;
use crate::tokens::state_of;
use mainstay_core::backend::{Begin, Call, Isolation, Lane, System, Want};
use mainstay_core::error::{Doubt, Report};
use mainstay_core::token::{COMMITTED, Origin, TOMBSTONE, Token};
use mainstay_core::{Class, Deadline, Error, Evidence, Kind, Result, Statement, Timestamp};
use mainstay_resilience::Backoff;
use std::panic::Location;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long the first tombstone waits for the old transaction; doubles until [`LOCK_TIMEOUT_MAX`].
const LOCK_TIMEOUT: Duration = Duration::from_millis(200);
/// Longer waits would only make the loss of a connection show later.
const LOCK_TIMEOUT_MAX: Duration = Duration::from_secs(2);
/// How long the old transaction may take to end by itself.
const GRACE: Duration = Duration::from_secs(1);
/// How long one attempt may take beyond its wait for the lock, so that a connection that went
/// silent does not use up the whole deadline.
const ATTEMPT_TIME: Duration = Duration::from_secs(3);
/// The pause after an attempt that found no database.
const PAUSE: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));

/// A transaction whose end is not known.
#[derive(Clone, Debug)]
pub(crate) struct Suspect {
    pub(crate) token: Token,
    pub(crate) origin: Option<Origin>,
}

/// How it ended.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It was committed.
    Committed,
    /// It was not, and never will be.
    NotCommitted,
    /// It was not, and another transaction with the same key was.
    DoneByAnother,
    /// The deadline ended first; the last failure, if there was one.
    Undecided(Option<Error>),
}

impl Verdict {
    /// What the state of the row says about the transaction.
    fn of(state: &str, token: &Token) -> Option<Self> {
        match state {
            state if state == token.mark() => Some(Self::Committed),
            TOMBSTONE => Some(Self::NotCommitted),
            state if state.starts_with(COMMITTED) => Some(Self::DoneByAnother),
            _ => None,
        }
    }
}

/// What to do after an attempt that brought no answer.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Try again after a pause.
    Again(Duration),
    /// End the old session, then try again.
    Terminate,
}

/// The course of the attempts. Takes the time, and decides.
#[derive(Debug)]
struct Siege {
    lock_timeout: Duration,
    /// Since when the old transaction was found open, again and again.
    blocked_since: Option<Instant>,
    failures: u32,
}

impl Siege {
    fn new() -> Self {
        Self {
            lock_timeout: LOCK_TIMEOUT,
            blocked_since: None,
            failures: 0,
        }
    }

    /// The old transaction is still open: this attempt has waited for it since `started`.
    fn on_blocked(&mut self, started: Instant, now: Instant) -> Step {
        self.failures = 0;
        self.lock_timeout = (self.lock_timeout * 2).min(LOCK_TIMEOUT_MAX);
        let since = *self.blocked_since.get_or_insert(started);
        if now.saturating_duration_since(since) < GRACE {
            return Step::Again(Duration::ZERO);
        }
        // The next one is not sent before the server had time to act on this one.
        self.blocked_since = None;
        self.lock_timeout = LOCK_TIMEOUT;
        Step::Terminate
    }

    /// The attempt itself was lost.
    fn on_failure(&mut self, rng: &mut fastrand::Rng) -> Step {
        self.failures = self.failures.saturating_add(1);
        Step::Again(PAUSE.delay(self.failures, rng))
    }
}

/// Finds out how a transaction ended, until the deadline.
///
/// # Cancel safety
///
/// Dropping the future leaves at most a tombstone, which stops nobody who is still alive.
pub(crate) async fn settle(
    engine: &Engine,
    suspect: &Suspect,
    deadline: Deadline,
    site: &'static Location<'static>,
) -> Verdict {
    let mut last = None;
    let verdict = timeout_at(
        deadline.instant(),
        besiege(engine, suspect, deadline, site, &mut last),
    );
    match verdict.await {
        Ok(Some(verdict)) => verdict,
        Ok(None) | Err(_) => Verdict::Undecided(last),
    }
}

/// `None` when it makes no sense to go on.
async fn besiege(
    engine: &Engine,
    suspect: &Suspect,
    deadline: Deadline,
    site: &'static Location<'static>,
    last: &mut Option<Error>,
) -> Option<Verdict> {
    let mut siege = Siege::new();
    let mut rng = fastrand::Rng::new();
    loop {
        let started = Instant::now();
        let asked = ask(engine, &suspect.token, siege.lock_timeout, deadline, site).await;
        let now = Instant::now();
        let step = match asked {
            Ok(state) => {
                let verdict = state.and_then(|state| Verdict::of(&state, &suspect.token));
                if verdict.is_some() {
                    return verdict;
                }
                // Somebody with the same key took our tombstone away before we had read it.
                siege.on_failure(&mut rng)
            }
            Err(error) => {
                tracing::debug!(%error, token = suspect.token.key(), "a lost COMMIT is not decided yet");
                let is_closed = error.kind() == Kind::Closed;
                let is_blocked = error.sqlstate() == Some("55P03");
                *last = Some(error);
                if is_closed {
                    return None;
                }
                if is_blocked {
                    siege.on_blocked(started, now)
                } else {
                    siege.on_failure(&mut rng)
                }
            }
        };
        match step {
            Step::Again(pause) => tokio::time::sleep(pause).await,
            Step::Terminate => {
                if let Some(origin) = suspect.origin
                    && let Err(error) = terminate(engine, origin, deadline, site).await
                {
                    tracing::debug!(%error, "the old session was not ended; it will be tried again");
                }
            }
        }
    }
}

/// Places the tombstone unless the row is there, and reads the row.
async fn ask(
    engine: &Engine,
    token: &Token,
    lock_timeout: Duration,
    deadline: Deadline,
    site: &'static Location<'static>,
) -> Result<Option<String>> {
    let (tombstone, read) = questions(engine.backend.system(), token, lock_timeout)?;
    // A snapshot older than the old transaction's end would make the insert a conflict.
    let begin = Begin {
        isolation: Some(Isolation::ReadCommitted),
        read_only: false,
    };
    let lease = engine
        .admit(Lane::Write, deadline, site)
        .await
        .map_err(Setback::into_error)?;
    let started = Instant::now();
    let until = deadline.earliest(Deadline::after(started, lock_timeout + ATTEMPT_TIME));
    let call = Call {
        lane: Lane::Write,
        deadline: until,
    };
    let asked = async {
        lease.batch(&tombstone, begin, call).await?;
        state_of(&lease.run(&read, Want::Rows(1), call).await?)
    };
    let asked = answer_by(until, Lane::Read, asked).await;
    engine.witness("fence", started.elapsed(), asked.as_ref().err());
    asked
}

/// What places the tombstone unless the row is there, and what reads the row.
///
/// It is read by writing. Where commits wait for a standby, the wait of this one covers that of the
/// old one, which may have been cut short; where the disk has failed a sync, this one was synced
/// when it is answered, and everything that it has seen with it.
fn questions(
    system: System,
    token: &Token,
    lock_timeout: Duration,
) -> Result<(Vec<Statement>, Statement)> {
    let place =
        "insert into _mainstay_tokens (token, state) values ($1, 'tomb') on conflict do nothing";
    let mut tombstone = Vec::new();
    let read = match system {
        System::Sqlite => {
            "update _mainstay_tokens set at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') \
             where token = $1 returning state"
        }
        _ => {
            let limit = format!("{}ms", lock_timeout.as_millis());
            let set = "select pg_catalog.set_config('lock_timeout', $1, true)";
            tombstone.push(Statement::new(set, (limit,))?);
            "update _mainstay_tokens set at = pg_catalog.now() where token = $1 returning state"
        }
    };
    tombstone.push(Statement::new(place, (token.key(),))?);
    Ok((tombstone, Statement::new(read, (token.key(),))?))
}

/// Ends the session in which the old transaction is open, if it still is that session.
async fn terminate(
    engine: &Engine,
    origin: Origin,
    deadline: Deadline,
    site: &'static Location<'static>,
) -> Result<()> {
    let text = "select pg_catalog.pg_terminate_backend(pid) from pg_catalog.pg_stat_activity \
                where pid = $1 and usename = current_user \
                and $2 in ((extract(epoch from backend_start) * 1000000)::bigint, \
                (extract(epoch from xact_start) * 1000000)::bigint)";
    let terminate = Statement::new(text, (origin.process, origin.started))?;
    let until = deadline.earliest(Deadline::from_now(ATTEMPT_TIME));
    engine
        .run_for_token(&terminate, Want::Rows(1), until, site)
        .await
        .map_err(Setback::into_error)?;
    tracing::info!(
        process = origin.process,
        "ended a session whose client was lost"
    );
    Ok(())
}

impl Suspect {
    /// The error of a transaction that was found not committed: the closure may be run again.
    ///
    /// It is the server that answered so, a moment ago: what follows is a rerun on a server that is
    /// well, not one more attempt on one that is away, and it is paid for as such.
    pub(crate) fn resolved(lost: Error, system: System) -> Error {
        let (kind, message) = match system {
            System::Sqlite => (
                Kind::Storage,
                "the disk failed COMMIT, and nothing was committed",
            ),
            _ => (
                Kind::Unreachable,
                "the connection was lost during COMMIT, and nothing was committed",
            ),
        };
        Report::new(kind, message)
            .class(Class::RolledBack)
            .evidence(Evidence::Answered)
            .source(lost)
            .into()
    }

    /// The error of a transaction that was not decided in time, with all that is needed to look
    /// into it.
    pub(crate) fn unresolved(&self, lost: Error, last: Option<Error>) -> Error {
        let Self { token, origin } = self;
        let since = lost
            .doubt()
            .map_or_else(Timestamp::now, Doubt::since)
            .rfc3339();
        let backend = origin.map_or_else(String::new, |origin| format!(", {origin}"));
        let last = last.map_or_else(String::new, |last| format!("; last: {}", last.message()));
        let message = format!(
            "{} (token {}{backend}, since {since}{last})",
            lost.message(),
            token.key(),
        );
        let remedy = format!(
            "select state from _mainstay_tokens where token = '{}' tells: '{}' is committed",
            token.key().replace('\'', "''"),
            token.mark()
        );
        lost.into_report()
            .message(message)
            .remedy(remedy)
            .token(token.clone(), *origin)
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_mark_says_that_a_transaction_was_committed() {
        let token = Token::new("k", "a");
        let verdict = |state: &str| Verdict::of(state, &token);
        assert!(matches!(verdict("tx a"), Some(Verdict::Committed)));
        assert!(matches!(verdict("tx b"), Some(Verdict::DoneByAnother)));
        assert!(matches!(verdict("tomb"), Some(Verdict::NotCommitted)));
        assert!(verdict("else").is_none());
    }

    #[test]
    fn a_rerun_behind_a_fence_is_paid_when_the_outage_budget_is_spent() {
        use mainstay_resilience::{Decision, Retrier, RetryPolicy, Work};
        let mut empty = RetryPolicy::outages();
        empty.capacity = 0;
        let retrier = Retrier::new(RetryPolicy::conflicts(), empty);
        let lost = Report::new(Kind::OutcomeUnknown, "lost").into();
        let error = Suspect::resolved(lost, System::Postgres);
        let now = Instant::now();
        let decision = retrier.decide(
            now,
            1,
            error.class(),
            error.evidence(),
            Work::Unit,
            Deadline::after(now, Duration::from_secs(5)),
            &mut fastrand::Rng::with_seed(1),
        );
        assert!(matches!(decision, Decision::Again { .. }));
        assert_eq!(error.doubt(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_session_is_ended_after_the_grace_and_not_at_once_again() {
        let mut siege = Siege::new();
        let start = Instant::now();
        let mut now = start;
        let mut waits = Vec::new();
        let mut ended = Vec::new();
        while ended.len() < 2 {
            let began = now;
            now += siege.lock_timeout;
            waits.push(siege.lock_timeout.as_millis());
            if siege.on_blocked(began, now) == Step::Terminate {
                ended.push(now.duration_since(start).as_millis());
            }
        }
        assert_eq!(waits, [200, 400, 800, 200, 400, 800]);
        assert_eq!(ended, [1400, 2800]);
    }

    #[test]
    fn pauses_grow_while_the_database_is_away() {
        let mut siege = Siege::new();
        let mut rng = fastrand::Rng::with_seed(7);
        for attempt in 1..20 {
            let Step::Again(pause) = siege.on_failure(&mut rng) else {
                panic!("nobody is there to be ended");
            };
            assert!(pause <= PAUSE.ceiling(attempt), "{attempt}: {pause:?}");
        }
    }
}
