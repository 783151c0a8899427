//! Stopping what runs, putting a session back in order, and letting it go.

use crate::cancelling;
use crate::flight::launch;
use crate::question::Question;
use crate::session::{Flight, Link};
use crate::timeout::LIFT;
use crate::wire::TransactionState;
use mainstay_core::backend::Lane;
use mainstay_core::error::Report;
use mainstay_core::{Deadline, Error, Kind, Result};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;

/// How long an abandoned preparation may go on before it is stopped.
const PREPARATION_GRACE: Duration = Duration::from_millis(100);

/// How long a cancelled statement may go on before it is cancelled again, at first; it doubles. A
/// server acts on a cancel within a round trip.
const CANCEL_AGAIN: Duration = Duration::from_millis(50);

/// `DISCARD ALL` without `DEALLOCATE ALL`, which would take away statements that the driver itself
/// has prepared and cannot forget; those that were prepared with SQL go by name.
const RESTORE: &str = "\
CLOSE ALL;
SET SESSION AUTHORIZATION DEFAULT;
RESET ALL;
DO $mainstay$ DECLARE name text; BEGIN
  FOR name IN SELECT s.name FROM pg_catalog.pg_prepared_statements s WHERE s.from_sql LOOP
    EXECUTE pg_catalog.format('DEALLOCATE %I', name);
  END LOOP;
END $mainstay$;
UNLISTEN *;
SELECT pg_catalog.pg_advisory_unlock_all();
DISCARD PLANS;
DISCARD TEMP;
DISCARD SEQUENCES";

impl Link {
    /// Makes the session clean, or says that it cannot be made so.
    pub(crate) async fn clean(self: &Arc<Self>, deadline: Deadline) -> Result<()> {
        let cleaned = tokio::time::timeout_at(deadline.instant(), self.restore(deadline)).await;
        let error = match cleaned {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => Report::new(Kind::Timeout, "the session did not come to rest in time")
                .timed_out()
                .into(),
        };
        self.usage().broken = true;
        Err(error)
    }

    async fn restore(self: &Arc<Self>, deadline: Deadline) -> Result<()> {
        let flight = Flight::start_reading(self);
        self.note_question(deadline);
        // A cancel request that is on its way must not arrive after us.
        let turn = self.cancel_turn.lock().await;
        let (abandoned, handed_over) = {
            let usage = self.usage();
            (
                usage.abandoned || usage.line.is_abandoned(),
                usage.handed_over,
            )
        };
        if handed_over && self.style.pooled {
            // Which of the pooler's sessions was changed, nobody knows.
            return Err(broken(
                "a session behind a pooler is not lent again after exclusive use",
            ));
        }
        // A preparation that is stopped half-way leaves a statement that nobody can name. It takes no
        // time unless its table is locked, and then it has not begun.
        drop(tokio::time::timeout(PREPARATION_GRACE, self.see_orphans_off()).await);
        if abandoned && self.log.is_pending() {
            self.cancel(deadline).await?;
        }
        // What a user did with the driver's own client, and what was abandoned, may not even have been sent.
        if abandoned || handed_over || self.log.is_pending() || self.has_orphans() {
            self.come_to_rest(abandoned, deadline).await?;
        }
        self.reset(handed_over).await?;
        self.log.settle();
        self.log.take_preface();
        if self.log.state() != TransactionState::Idle {
            return Err(broken("a transaction is still open"));
        }
        let lane = self.usage().put_in_order();
        if self.has_left_its_lane(lane) {
            return Err(broken("the session does not keep to its lane any more"));
        }
        drop(turn);
        flight.land();
        Ok(())
    }

    /// Undoes what was left behind, in one flight: a transaction that was dropped costs one round trip.
    async fn reset(&self, handed_over: bool) -> Result<()> {
        let is_open = self.log.state() != TransactionState::Idle;
        let is_limited = self.usage().limited;
        let texts = [
            is_open.then_some("ROLLBACK"),
            handed_over.then_some(RESTORE),
            (is_limited && !handed_over).then_some(LIFT),
        ];
        let mut sent = Vec::with_capacity(texts.len());
        for text in texts.into_iter().flatten() {
            let request = launch(self.client.batch_execute(text));
            if self.style.pooled {
                // PgBouncer 1.18 was found dead after a Sync that came in one packet with the end of
                // a transaction.
                self.settled(request.landed()).await?;
            } else {
                sent.push(request);
            }
        }
        // Everything before it has been answered when this is.
        let answered = launch(self.client.check_connection());
        for request in sent {
            self.settled(request.landed()).await?;
        }
        self.settled(answered.landed()).await?;
        if handed_over {
            self.statements().clear();
            let mut usage = self.usage();
            usage.lane = Lane::Write; // the server's own default, as at the start
        } else if self.style.lanes && !self.reports_its_lane() {
            self.verify_lane().await?;
        }
        Ok(())
    }

    /// Waits until everything that was sent has been answered.
    ///
    /// What was abandoned may not have been sent yet when it is looked at, and a cancel request that
    /// is there before the server has begun the statement stops nothing; so it is cancelled again
    /// while it goes on.
    async fn come_to_rest(&self, abandoned: bool, deadline: Deadline) -> Result<()> {
        let mut rest = pin!(async {
            self.see_orphans_off().await;
            // Everything before it has been answered when this is.
            self.settled(self.client.check_connection()).await
        });
        let mut patience = CANCEL_AGAIN;
        loop {
            match tokio::time::timeout(patience, rest.as_mut()).await {
                Ok(rested) => return rested,
                Err(_) if abandoned => self.cancel(deadline).await?,
                Err(_) => {}
            }
            patience *= 2;
        }
    }

    async fn settled<T>(
        &self,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T> {
        let leg = self.leg(crate::classify::Phase::Prepare);
        answer.await.map_err(|error| self.judge(leg, error))
    }

    fn has_orphans(&self) -> bool {
        let orphans = self.orphans.lock();
        !orphans.unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Waits for preparations whose callers went away, and drops what they prepared, which closes
    /// it on the server.
    async fn see_orphans_off(&self) {
        poll_fn(|context| self.poll_orphans(context)).await;
    }

    /// They stay in the session until they are done: this wait may be dropped as well.
    fn poll_orphans(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut orphans = self.orphans.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(orphan) = orphans.last_mut() {
            if let Err(error) = ready!(orphan.as_mut().poll(context)) {
                tracing::trace!(%error, "an abandoned statement was not prepared");
            }
            orphans.pop();
        }
        Poll::Ready(())
    }

    /// Asks a server that does not report it (before PostgreSQL 14) whether the lane is in force.
    async fn verify_lane(&self) -> Result<()> {
        if self.usage().lane == Lane::Write {
            return Ok(()); // what the server's own default is, is not known
        }
        let rows = self
            .settled(
                self.client
                    .simple_query("SHOW default_transaction_read_only"),
            )
            .await?;
        let now = rows.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        if now == Some("on") {
            return Ok(());
        }
        Err(broken("the session does not keep to its lane any more"))
    }

    /// Asks the server to stop what the session runs, and waits until the server has dealt with the
    /// request: one that arrives late would stop the next statement instead.
    pub(crate) async fn cancel(&self, deadline: Deadline) -> Result<()> {
        match tokio::time::timeout_at(deadline.instant(), self.send_cancel()).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let message = format!(
                    "{} did not take a cancel request in time",
                    self.endpoint.host()
                );
                Err(Report::new(Kind::Timeout, message).timed_out().into())
            }
        }
    }

    async fn send_cancel(&self) -> Result<()> {
        let Some(key) = self.log.key() else {
            return Err(broken("the server gave no key for cancelling"));
        };
        let policy = self.endpoint.encrypted.then(|| self.connector.tls());
        let stream = self.endpoint.dial(policy).await?.stream;
        cancelling::request(stream, &key).await.map_err(|error| {
            let host = self.endpoint.host();
            let message = format!("the cancel request to {host} was lost: {error}");
            Report::new(Kind::Unreachable, message).source(error).into()
        })
    }

    /// Asks whether the server still answers, and whether it is still the one that was wanted.
    pub(crate) async fn check(self: &Arc<Self>, deadline: Deadline) -> Result<()> {
        let flight = Flight::start_reading(self);
        self.note_question(deadline);
        let outcome = if self.style.demands {
            match self.still_serves(deadline).await {
                Ok(false) => Err(self.demoted()),
                Ok(true) => Ok(()),
                Err(error) => Err(error),
            }
        } else {
            let question = launch(self.client.check_connection()).landed();
            let leg = self.leg(self.preparing());
            self.answer(leg, deadline, question).await
        };
        flight.land();
        outcome
    }

    /// The server is asked something now, and its answer is waited for until the deadline.
    fn note_question(&self, deadline: Deadline) {
        let question = Question::new(self.log.mark(), Instant::now(), deadline);
        self.usage().asked = Some(question);
    }

    /// Ends the session; returns when the server has let go, or at the deadline.
    pub(crate) async fn close(&self, deadline: Deadline) {
        let asked = {
            let mut usage = self.usage();
            usage.broken = true;
            usage.asked
        };
        let Some(mut driver) = self.take_driver() else {
            return;
        };
        let overdue = asked.and_then(|question| question.overdue(Instant::now()));
        if overdue.is_some_and(|mark| !self.log.has_heard_since(mark)) {
            // It has been waited for long enough, and nothing that is sent now arrives: waiting for its
            // goodbye would only keep its place from a connection that works.
            driver.abort();
            return;
        }
        if !self.is_ended() && self.log.is_pending() {
            // Half of the time for this: the server must also have some to let go.
            let now = Instant::now();
            let half = Deadline::after(now, deadline.remaining(now) / 2);
            if let Err(error) = self.cancel(half).await {
                tracing::debug!(%error, "a running statement could not be stopped before closing");
            }
        }
        self.log.close();
        if tokio::time::timeout_at(deadline.instant(), &mut driver)
            .await
            .is_err()
        {
            driver.abort();
        }
    }
}

fn broken(message: &'static str) -> Error {
    Report::new(Kind::Other, message).into()
}
