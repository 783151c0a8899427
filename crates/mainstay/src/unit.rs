//! Atomic units: begin, the closure, commit; rolled back on an error, rerun where that is safe.
//!
//! Whether a closure is run again is decided by what its transaction saw, not by what the closure
//! made of it: a wrapped conflict is still a conflict, and an application's own error is still the
//! end.

use crate::attempts::{Attempts, Setback};
use crate::bound::{answer_by, frame};
use crate::by_hand::Transaction;
use crate::database::Database;
use crate::fence::{Suspect, Verdict, settle};
use crate::options::{Promise, TransactionOptions};
use crate::tokens::{Obstacle, already_done};
use crate::tx::{Frame, Tx};
use mainstay_core::backend::{Begin, Begun, Isolation, Lane};
use mainstay_core::error::Report;
use mainstay_core::token::{Origin, Token};
use mainstay_core::{Class, Deadline, Error, Evidence, Kind, Result};
use mainstay_resilience::Work;
use std::future::Future;
use std::panic::Location;
use tokio::time::{Instant, timeout_at};

/// How often something is cleared away before a transaction begins: a table that is not there, and
/// tombstones of the same key. More is a fight over one key.
const CLEARINGS_MAX: u32 = 10;

impl Database {
    /// Runs a closure as one atomic unit and commits; rolls back when it answers an error. After a
    /// conflict, or a connection lost before COMMIT was sent, the closure is run again, so its
    /// effects outside the transaction should wait until it has returned.
    ///
    /// On PostgreSQL BEGIN travels with the first statement: a closure waits once for each statement and
    /// once for COMMIT, and one that asks nothing sends nothing.
    ///
    /// # Errors
    ///
    /// The closure's; the commit's, which may be [`Kind::OutcomeUnknown`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future rolls back, unless COMMIT was already on its way.
    #[track_caller]
    pub fn transaction<'a, T, F, Fut>(
        &'a self,
        unit: F,
    ) -> impl Future<Output = Result<T>> + use<'a, T, F, Fut>
    where
        F: Fn(Tx) -> Fut + 'a,
        Fut: Future<Output = Result<T>>,
    {
        self.unit(TransactionOptions::new(), unit, Location::caller())
    }

    /// As [`transaction`](Self::transaction), with options.
    ///
    /// # Errors
    ///
    /// As [`transaction`](Self::transaction).
    ///
    /// # Cancel safety
    ///
    /// As [`transaction`](Self::transaction).
    #[track_caller]
    pub fn transaction_with<'a, T, F, Fut>(
        &'a self,
        options: TransactionOptions,
        unit: F,
    ) -> impl Future<Output = Result<T>> + use<'a, T, F, Fut>
    where
        F: Fn(Tx) -> Fut + 'a,
        Fut: Future<Output = Result<T>>,
    {
        self.unit(options, unit, Location::caller())
    }

    /// As [`transaction`](Self::transaction), for closures with an error type of their own.
    ///
    /// # Errors
    ///
    /// The closure's own, or one made from mainstay's.
    ///
    /// # Cancel safety
    ///
    /// As [`transaction`](Self::transaction).
    #[track_caller]
    pub fn try_transaction<'a, T, E, F, Fut>(
        &'a self,
        unit: F,
    ) -> impl Future<Output = Result<T, E>> + use<'a, T, E, F, Fut>
    where
        E: From<Error>,
        F: Fn(Tx) -> Fut + 'a,
        Fut: Future<Output = Result<T, E>>,
    {
        self.unit(TransactionOptions::new(), unit, Location::caller())
    }

    /// Begins a transaction that is ended by hand: by the handle's deadline
    /// ([`with_deadline`](Self::with_deadline), else `timeout` from now). Whoever leaves it open until
    /// then finds it rolled back. It is open when this answers: unlike a closure it is never run
    /// again, so what fails before its first statement is repeated here.
    ///
    /// # Errors
    ///
    /// Everything that getting a connection and beginning can meet.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves no transaction open.
    #[track_caller]
    pub fn begin(&self) -> impl Future<Output = Result<Transaction>> {
        let site = Location::caller();
        async move {
            let deadline = self.deadline_for(None);
            let mut attempts = Attempts::new(&self.engine().retrier, deadline);
            let options = TransactionOptions::new();
            loop {
                match self
                    .open(&options, Opening::AtOnce, deadline, 1, site)
                    .await
                {
                    Ok(tx) => return Ok(Transaction::new(tx)),
                    Err(setback) => attempts.after(setback).await?,
                }
            }
        }
    }

    async fn unit<T, E, F, Fut>(
        &self,
        options: TransactionOptions,
        unit: F,
        site: &'static Location<'static>,
    ) -> Result<T, E>
    where
        E: From<Error>,
        F: Fn(Tx) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        options.check()?;
        let deadline = self.deadline_for(options.timeout);
        let work = if options.once { Work::Once } else { Work::Unit };
        let mut attempts = Attempts::new(&self.engine().retrier, deadline);
        loop {
            let token = self.engine().tokens.token(&options.promise);
            let number = attempts.number();
            let opening = match &token {
                Some(token) => Opening::WithToken(token),
                // What is never run again must not fail where only the beginning did.
                None if options.once => Opening::AtOnce,
                None => Opening::WithFirst,
            };
            let opened = self.open_with(&options, opening, deadline, number, site);
            let tx = match opened.await {
                Ok(tx) => tx,
                Err(Setback::Failed(error, _)) => {
                    attempts.after(Setback::Failed(error, work)).await?;
                    continue;
                }
                Err(setback) => {
                    attempts.after(setback).await?;
                    continue;
                }
            };
            let suspect = token.map(|token| (token, tx.origin()));
            let commit_by = || match suspect {
                Some(_) => half_way(deadline),
                None => deadline,
            };
            let failure = match self.run_and_end(&tx, &unit, deadline, commit_by).await {
                Ok(value) => {
                    attempts.succeeded();
                    if options.promise != Promise::Nothing {
                        self.engine().sweep_tokens();
                    }
                    return Ok(value);
                }
                Err(failure) => failure,
            };
            let (decides, answer) = match failure {
                Failure::Unanswered { value, error } => {
                    match self.resolve(suspect, error, deadline, site).await {
                        Ok(()) => {
                            attempts.succeeded();
                            return Ok(value);
                        }
                        Err(error) => (Some(error), None),
                    }
                }
                Failure::Ended { decides, answer } => (decides, answer),
            };
            match (decides, answer) {
                // The unit saw a failure of the database: that one decides, and the closure's own
                // error is what the caller gets if it is not run again.
                (Some(error), answer) => {
                    if let Err(error) = attempts.after(Setback::Failed(error, work)).await {
                        return Err(answer.unwrap_or_else(|| error.into()));
                    }
                }
                (None, Some(answer)) => return Err(answer),
                (None, None) => return Err(ended_early().into()),
            }
        }
    }

    /// Finds out how a transaction ended whose COMMIT was not answered, if it has a token: `Ok` if it
    /// was committed.
    async fn resolve(
        &self,
        suspect: Option<(Token, Option<Origin>)>,
        error: Error,
        deadline: Deadline,
        site: &'static Location<'static>,
    ) -> Result<()> {
        let Some((token, origin)) = suspect else {
            return Err(error);
        };
        let suspect = Suspect { token, origin };
        match settle(self.engine(), &suspect, deadline, site).await {
            Verdict::Committed => Ok(()),
            Verdict::NotCommitted => Err(Suspect::resolved(error, self.engine().backend.system())),
            Verdict::DoneByAnother => Err(already_done(&suspect.token)),
            Verdict::Undecided(last) => Err(suspect.unresolved(error, last)),
        }
    }

    /// Takes a lease and begins; clears what stands in the way of a token.
    async fn open_with(
        &self,
        options: &TransactionOptions,
        opening: Opening<'_>,
        deadline: Deadline,
        attempt: u32,
        site: &'static Location<'static>,
    ) -> Result<Tx, Setback> {
        let engine = self.engine();
        let mut clearings = 0;
        loop {
            let setback = match self.open(options, opening, deadline, attempt, site).await {
                Ok(tx) => return Ok(tx),
                Err(setback) => setback,
            };
            let (Opening::WithToken(token), Setback::Failed(error, _)) = (opening, &setback) else {
                return Err(setback);
            };
            clearings += 1;
            match Obstacle::of(error, engine.backend.system()) {
                Some(_) if clearings > CLEARINGS_MAX => return Err(setback),
                Some(Obstacle::NoTable) => engine.create_token_table(deadline, site).await?,
                Some(Obstacle::Taken) => engine.free_key(token, deadline, site).await?,
                None => return Err(setback),
            }
        }
    }

    /// Takes a lease and begins.
    async fn open(
        &self,
        options: &TransactionOptions,
        opening: Opening<'_>,
        deadline: Deadline,
        attempt: u32,
        site: &'static Location<'static>,
    ) -> Result<Tx, Setback> {
        let lane = if options.read_only {
            Lane::Read
        } else {
            Lane::Write
        };
        let begin: Begin = options.begin(self.config().isolation);
        let lease = match (lane, begin.isolation) {
            // No standby can promise it.
            (Lane::Read, Some(Isolation::Serializable)) => {
                self.engine().admit_at_home(deadline, site).await?
            }
            _ => self.engine().admit(lane, deadline, site).await?,
        };
        let started = Instant::now();
        let call = frame(lane, deadline, started);
        let beginning = async {
            match opening {
                Opening::WithToken(token) => lease.begin_with_token(begin, token, call).await?,
                Opening::AtOnce => lease.begin(begin, call).await?,
                Opening::WithFirst => return lease.begin_with_first(begin, call).await,
            }
            Ok(Begun::Now)
        };
        // Nothing can have been written before a transaction has begun.
        let begun = answer_by(deadline, Lane::Read, beginning).await;
        if !matches!(begun, Ok(Begun::WithFirst)) {
            // A database that has not been asked has not answered.
            self.engine()
                .witness("begin", started.elapsed(), begun.as_ref().err());
        }
        let begun = begun.map_err(|error| Setback::Failed(error, Work::Unit))?;
        let frame = Frame {
            lane,
            deadline,
            attempt,
        };
        Ok(Tx::new(self.engine(), lease, frame, begun))
    }

    async fn run_and_end<T, E, F, Fut>(
        &self,
        tx: &Tx,
        unit: &F,
        deadline: Deadline,
        commit_by: impl FnOnce() -> Deadline,
    ) -> Result<T, Failure<T, E>>
    where
        E: From<Error>,
        F: Fn(Tx) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let mut end = EndOnDrop { tx, armed: true };
        let Ok(result) = timeout_at(deadline.instant(), unit(tx.clone())).await else {
            drop(end);
            return Err(Failure::Ended {
                decides: None,
                answer: Some(deadline_ended().into()),
            });
        };
        end.armed = false;
        let seen = tx.seen();
        match (result, seen) {
            (Ok(value), None) => match tx.commit_by(commit_by()).await {
                Ok(()) => Ok(value),
                Err(error) if error.is_outcome_unknown() => {
                    Err(Failure::Unanswered { value, error })
                }
                Err(error) => Err(Failure::Ended {
                    decides: Some(error),
                    answer: None,
                }),
            },
            // A statement failed and the closure said all was well: there is nothing to commit, the
            // database has aborted the transaction.
            (Ok(_), Some(error)) => {
                self.undo(tx).await;
                Err(Failure::Ended {
                    decides: Some(error),
                    answer: None,
                })
            }
            (Err(answer), decides) => {
                self.undo(tx).await;
                Err(Failure::Ended {
                    decides,
                    answer: Some(answer),
                })
            }
        }
    }

    async fn undo(&self, tx: &Tx) {
        if let Err(error) = tx.roll_back("it was rolled back").await {
            // The server rolls back by itself when the connection ends; the caller's error matters
            // more than this one.
            tracing::debug!(%error, "a rollback was not answered; the connection is discarded");
        }
    }
}

/// When BEGIN is sent.
#[derive(Copy, Clone)]
enum Opening<'a> {
    /// Before anything else, and answered.
    AtOnce,
    /// The same, together with a token's row.
    WithToken(&'a Token),
    /// With the first statement. That one may fail because the transaction did not begin, which is why
    /// this is for units that are run again, and not for a transaction that is ended by hand.
    WithFirst,
}

/// Why a unit did not commit, or may not have.
enum Failure<T, E> {
    /// COMMIT was sent and not answered.
    Unanswered {
        /// What the closure answered.
        value: T,
        /// How the answer was lost.
        error: Error,
    },
    /// It was rolled back.
    Ended {
        /// What the database said; decides whether the closure is run again.
        decides: Option<Error>,
        /// What the closure said.
        answer: Option<E>,
    },
}

/// How long a COMMIT is waited for whose end can be found out otherwise: half of what is left, so
/// that the other half is there for finding out.
fn half_way(deadline: Deadline) -> Deadline {
    let now = Instant::now();
    Deadline::after(now, deadline.remaining(now) / 2)
}

/// Ends the transaction for all its handles when the future is dropped or the closure panics.
struct EndOnDrop<'t> {
    tx: &'t Tx,
    armed: bool,
}

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        if self.armed {
            drop(
                self.tx
                    .end("its closure did not finish, so it was rolled back"),
            );
        }
    }
}

fn deadline_ended() -> Error {
    Report::new(
        Kind::Timeout,
        "the deadline ended before the transaction did",
    )
    .class(Class::Permanent)
    .evidence(Evidence::Neither)
    .timed_out()
    .remedy("it was rolled back; give it more time or do less in it")
    .into()
}

fn ended_early() -> Error {
    Report::new(
        Kind::TransactionOver,
        "the transaction ended before its closure did",
    )
    .into()
}
