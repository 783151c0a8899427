//! Running a read beside those of strangers.
//!
//! Each read has a request, a Sync and a deadline of its own. Whoever goes away early only leaves the
//! [`Line`](crate::line::Line); what it had asked for is read away by the driver. Preparing belongs to
//! the session and not to the caller who happened to need it first: it goes on when that one has left,
//! and all who wait for the same text wait for one answer.

use crate::classify::Phase;
use crate::flight::{Leg, is_stale_plan};
use crate::line::{Cancelled, LARGE_BYTES, LOOK_EVERY, Number};
use crate::run::{DriverResult, fetch};
use crate::session::Link;
use crate::statements::Prepared;
use mainstay_core::backend::{Burden, Call, Lane, Reply, Want};
use mainstay_core::error::Report;
use mainstay_core::{Class, Deadline, Error, Evidence, Kind, Result, Statement, Value};
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep, timeout_at};

/// How long a cancel request may take before it is given up. Cleaning waits for it, within its own
/// bound, so it is shorter than that.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);

/// What came of one try.
enum Setback {
    /// It was hit by a cancel request for somebody else, or its plan was out of date.
    Again,
    Failed(Error),
}

impl From<Error> for Setback {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// A place in the line; whoever drops it before the answer has left.
struct Place<'a> {
    link: &'a Link,
    number: Number,
    sent: Instant,
    landed: bool,
}

impl Place<'_> {
    /// The answer has come.
    fn land(mut self) {
        self.landed = true;
        self.link.usage().line.land(self.number);
    }

    /// The same for a read. Says how long the server worked on it, if that can be told.
    fn land_read(mut self) -> Option<Duration> {
        self.landed = true;
        let now = Instant::now();
        let mut usage = self.link.usage();
        usage.line.land(self.number);
        usage.pace.on_answer(self.sent, now)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.landed {
            self.link.usage().line.leave(self.number);
        }
    }
}

impl Link {
    /// Runs one statement beside others.
    pub(crate) async fn run_shared(
        self: &Arc<Self>,
        statement: &Statement,
        want: Want,
        call: Call,
    ) -> Result<Reply> {
        // Each round but the last is caused by a cancel request, at most one in every look, or by a
        // plan that is made anew; the deadline bounds them all.
        loop {
            match self.try_shared(statement, want, call).await {
                Ok(reply) => return Ok(reply),
                Err(Setback::Failed(error)) => return Err(error),
                Err(Setback::Again) => self.refuse_late(call.deadline)?,
            }
        }
    }

    async fn try_shared(
        self: &Arc<Self>,
        statement: &Statement,
        want: Want,
        call: Call,
    ) -> Result<Reply, Setback> {
        let (text, values) = (statement.text(), statement.params());
        // Whatever others ask meanwhile would be behind it on the wire.
        if values.iter().map(Value::bytes).sum::<usize>() > LARGE_BYTES {
            return Err(burden(Burden::Slow).into());
        }
        // What is rare is boxed: each caller's future is as large as its largest branch.
        let prepared = match self.known(text, values)? {
            Some(prepared) => {
                self.turn(call).await;
                prepared
            }
            None => {
                let preparing = self.prepare_shared(text, call.deadline);
                Box::pin(self.turn_while(call, preparing)).await?
            }
        };
        let bound = prepared.bind(values)?;
        if let (Want::Rows(_), Some(shape)) = (want, &prepared.shape) {
            shape.check()?;
        }
        let mut request = pin!(fetch(
            &self.client,
            &prepared,
            text,
            bound,
            want,
            LARGE_BYTES
        ));
        let (place, leg, sent) = self.send_shared(request.as_mut());
        let answer = match sent {
            Sent::Landed(answer) => answer.map_err(Refusal::Driver),
            Sent::Flying => match timeout_at(call.deadline.instant(), request).await {
                Ok(answer) => answer.map_err(Refusal::Driver),
                Err(_) => Err(Refusal::Overdue),
            },
            Sent::NotYet => {
                let guarded = self.send_guarded(call.lane, None, request);
                let moved = Box::pin(self.land_guarded(guarded, call));
                moved.await.map_err(Refusal::Judged)
            }
        };
        match answer {
            Ok(fetched) if fetched.has_outgrown() => Err(burden(Burden::Large).into()),
            Ok(fetched) => {
                let took = place.land_read();
                let mut reply = fetched.into_reply()?;
                let is_slow = took.is_some_and(|took| prepared.votes.cast(took));
                reply.burden = is_slow.then_some(Burden::Slow);
                Ok(reply)
            }
            Err(Refusal::Overdue) => Err(self.overdue(leg).into()),
            Err(Refusal::Driver(error)) => {
                let given_up = self.usage().line.given_up(Instant::now());
                if let Some(reason) = given_up {
                    place.land();
                    return Err(burden(reason).into());
                }
                let error = self.judge(leg, error);
                Err(Box::pin(self.refused_beside(place, statement, error, call)).await)
            }
            Err(Refusal::Judged(error)) => {
                Err(Box::pin(self.refused_beside(place, statement, error, call)).await)
            }
        }
    }

    /// Joins the line and sends a request, if the session is on the read lane.
    fn send_shared<T>(
        &self,
        request: Pin<&mut impl Future<Output = DriverResult<T>>>,
    ) -> (Place<'_>, Leg, Sent<T>) {
        let sent = Instant::now();
        let place; // declared first, so that it is dropped after the lock that it takes
        // One caller at a time, so that the line is in the order of the wire.
        let mut usage = self.usage();
        usage.unverified |= !self.reports_its_lane();
        place = Place {
            link: self,
            number: usage.line.join(),
            sent,
            landed: false,
        };
        let leg = self.leg(Phase::Read);
        if !usage.is_on(Lane::Read) {
            return (place, leg, Sent::NotYet);
        }
        // Nobody is woken by this poll; whoever wants the answer polls again.
        let sent = match request.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => Sent::Landed(answer),
            Poll::Pending => Sent::Flying,
        };
        (place, leg, sent)
    }

    /// The server refused it, or is gone. Tells what was meant for somebody else.
    async fn refused_beside(
        &self,
        place: Place<'_>,
        statement: &Statement,
        error: Error,
        call: Call,
    ) -> Setback {
        let cancelled = self.usage().line.cancelled(place.number);
        place.land();
        if is_cancelled(&error) {
            match cancelled {
                Cancelled::ByMistake => return Setback::Again,
                Cancelled::ForGood => return Setback::Failed(burden(Burden::Slow)),
                Cancelled::ByOthers => {}
            }
        }
        if is_stale_plan(&error) {
            self.forget_plan(statement.text(), &error);
            return Setback::Again;
        }
        let is_last = self.usage().line.is_at_rest();
        if is_last {
            self.settle_refusal(call).await;
        }
        Setback::Failed(error)
    }

    /// Waits for a preparation that is under way, or begins it.
    async fn prepare_shared(
        self: &Arc<Self>,
        text: &Arc<str>,
        deadline: Deadline,
    ) -> Result<Arc<Prepared>, Setback> {
        let mut answer = {
            let mut statements = self.statements();
            match statements.preparing(text) {
                Some(answer) => answer,
                None => {
                    let (tell, answer) = watch::channel(None);
                    statements.begin(text, answer.clone());
                    tokio::spawn(prepare(Arc::clone(self), Arc::clone(text), tell));
                    answer
                }
            }
        };
        let told = timeout_at(deadline.instant(), answer.wait_for(Option::is_some)).await;
        match told {
            Ok(Ok(answer)) => match &*answer {
                Some(Ok(prepared)) => Ok(Arc::clone(prepared)),
                Some(Err(error)) => Err(Setback::Failed(error.clone())),
                None => Err(Setback::Again),
            },
            // Its task has ended without a word: the runtime shuts down.
            Ok(Err(_)) => Err(Setback::Failed(lost_preparation())),
            Err(_) => Err(Setback::Failed(self.overdue(self.leg(Phase::Prepare)))),
        }
    }

    /// Looks whether somebody keeps the others waiting, and has it stopped. Ready when that takes giving the
    /// session up.
    pub(crate) fn look(self: &Arc<Self>) -> Poll<()> {
        if !self.log.take_asked() {
            if !self.usage().line.look_at_untaken(Instant::now()) {
                return Poll::Pending;
            }
            tracing::warn!(
                "a caller does not take the answer to his read, and keeps the answers of others from them; \
                 they ask again elsewhere. Await what was asked, or drop it"
            );
            return Poll::Ready(());
        }
        let answered = self.log.answered();
        if self.usage().line.look(answered) {
            tokio::spawn(stop_first(Arc::clone(self)));
        }
        Poll::Pending
    }
}

/// What became of a request.
enum Sent<T> {
    /// It failed or finished at once.
    Landed(DriverResult<T>),
    /// Its answer is awaited.
    Flying,
    /// The session's setting has to change first.
    NotYet,
}

/// Why there is no answer.
enum Refusal {
    Overdue,
    Driver(tokio_postgres::Error),
    Judged(Error),
}

/// Prepares a statement for everybody who waits for it, and for those who come.
async fn prepare(
    link: Arc<Link>,
    text: Arc<str>,
    tell: watch::Sender<Option<Result<Arc<Prepared>>>>,
) {
    let (place, leg) = {
        let leg = link.leg(Phase::Prepare);
        let number = link.usage().line.join();
        let place = Place {
            link: &link,
            number,
            sent: Instant::now(),
            landed: false,
        };
        (place, leg)
    };
    let outcome = link.client.prepare(&text).await;
    let cancelled = link.usage().line.cancelled(place.number);
    place.land();
    let outcome = match outcome {
        Ok(statement) => Ok(Arc::new(Prepared::of(&text, statement))),
        Err(_) if link.usage().line.given_up(Instant::now()).is_some() => Err(burden(Burden::Slow)),
        Err(error) => {
            let error = link.judge(leg, error);
            // Whatever keeps it waiting (a lock, as a rule) is not gone yet.
            let is_ours = is_cancelled(&error) && cancelled != Cancelled::ByOthers;
            Err(if is_ours { burden(Burden::Slow) } else { error })
        }
    };
    link.statements().end(&text, outcome.as_ref().ok());
    tell.send_replace(Some(outcome));
}

/// Stops what the server is busy with.
async fn stop_first(link: Arc<Link>) {
    // Whoever cleans the session meanwhile has it first, and then there is nothing to stop.
    let turn = link.cancel_turn.lock().await;
    if link.usage().line.is_cancelling() {
        let deadline = Deadline::from_now(CANCEL_TIMEOUT);
        if let Err(error) = link.cancel(deadline).await {
            tracing::debug!(%error, "a read that keeps others waiting could not be stopped");
        }
        link.usage().line.on_cancelled();
    }
    drop(turn);
}

/// Moves a session's looks along: called whenever its driver has been polled.
pub(crate) struct Watch {
    link: Weak<Link>,
    timer: Pin<Box<Sleep>>,
    is_armed: bool,
}

impl Watch {
    pub(crate) fn new(link: Weak<Link>) -> Self {
        Self {
            link,
            timer: Box::pin(sleep(LOOK_EVERY)),
            is_armed: true,
        }
    }

    /// Looks when it is time. While nothing happens on the session, it sleeps. Ready when the session is to be
    /// given up.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.is_armed {
            let next = Instant::now() + LOOK_EVERY;
            self.timer.as_mut().reset(next);
            self.is_armed = true;
        }
        while self.timer.as_mut().poll(context).is_ready() {
            let Some(link) = self.link.upgrade() else {
                return Poll::Pending;
            };
            if link.look().is_ready() {
                return Poll::Ready(());
            }
            if link.usage().line.is_at_rest() {
                self.is_armed = false;
                return Poll::Pending;
            }
            let next = Instant::now() + LOOK_EVERY;
            self.timer.as_mut().reset(next);
        }
        Poll::Pending
    }
}

fn is_cancelled(error: &Error) -> bool {
    error.sqlstate() == Some("57014") && !error.is_timeout()
}

/// It has done nothing but read; whoever shares connections knows what to do.
fn burden(burden: Burden) -> Error {
    let message = match burden {
        Burden::Large => "the result is too large for a shared connection",
        Burden::Slow => "the statement takes too long for a shared connection",
    };
    Report::new(Kind::Other, message)
        .class(Class::ReadLost)
        .evidence(Evidence::Answered)
        .burden(burden)
        .into()
}

fn lost_preparation() -> Error {
    Report::new(Kind::Cancelled, "the runtime shuts down").into()
}
