//! Why a turn that is owned: a caller may be dropped at any poll, also at the very moment in which
//! it is handed a connection. The turn in the queue is a value; dropping it gives back what was in
//! it, to the next in line.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::task;
use tokio::time::{Instant, sleep_until};

use crate::connector::{Condition, Connector};
use crate::error::{AcquireError, Cause};
use crate::lease::Lease;
use crate::ledger::Offer;
use crate::lender::{Kept, Lender};
use crate::observer::Event;
use crate::place::Place;
use crate::waiters::{Answer, Caller, Grant, Request, Ticket, Use};

type GrantOf<K> = Grant<Kept<K>>;
type AnswerOf<K> = Answer<Kept<K>, <K as Connector>::Error>;
type TicketOf<K> = Ticket<Kept<K>, <K as Connector>::Error>;
type OfferOf<K> = Offer<Kept<K>, <K as Connector>::Error>;
type ErrorOf<K> = AcquireError<<K as Connector>::Error>;

/// What a caller holds: a lease, or a place.
pub(crate) trait Hold<K: Connector>: Sized + Send {
    const USE: Use;

    fn hold(lender: &Arc<Lender<K>>, grant: GrantOf<K>, by: &Request, now: Instant) -> Self;

    /// Looks once more at a connection that nobody waited for: a server that went away has often
    /// been noticed by then, and noticing costs nothing.
    fn is_fit(&self) -> bool;

    /// Gives it back as if it had never been given.
    fn reject(self);
}

impl<K: Connector> Hold<K> for Lease<K> {
    const USE: Use = Use::Exclusive;

    fn hold(lender: &Arc<Lender<K>>, grant: GrantOf<K>, _: &Request, _: Instant) -> Self {
        Self::new(lender, grant)
    }

    fn is_fit(&self) -> bool {
        self.condition() == Condition::Clean
    }

    fn reject(self) {
        self.give_back_unused();
    }
}

impl<K: Connector> Hold<K> for Place<K> {
    const USE: Use = Use::Shared;

    fn hold(lender: &Arc<Lender<K>>, grant: GrantOf<K>, by: &Request, now: Instant) -> Self {
        Self::new(lender, grant, by.site, now)
    }

    fn is_fit(&self) -> bool {
        // Unanswered statements of others look dirty.
        self.condition() != Condition::Broken
    }

    fn reject(self) {
        self.leave_unused();
    }
}

/// Takes a lease that is there for the taking.
#[inline(always)]
fn take_quickly<K: Connector>(
    lender: &Arc<Lender<K>>,
    by: Caller,
    task: Option<task::Id>,
    now: Instant,
) -> Option<Lease<K>> {
    if lender.seems_crowded() {
        return None;
    }
    let grant = lender.ledger().lend_quickly(now, by, task)?;
    Some(Lease::new(lender, grant))
}

/// Waits for a lease until the deadline of the request, which is made only for those who do not get one
/// at once.
///
/// A block and not an `async fn`, which would move its arguments once more on the first poll.
#[expect(clippy::manual_async_fn, reason = "measured: one move less")]
pub(crate) fn acquire<K: Connector, R: FnOnce(Instant) -> Request + Send>(
    lender: &Arc<Lender<K>>,
    by: Caller,
    request: R,
) -> impl Future<Output = Result<Lease<K>, ErrorOf<K>>> + Send + use<'_, K, R> {
    async move {
        let mut now = Instant::now();
        let task = task::try_id();
        if let Some(held) = take_quickly(lender, by, task, now) {
            if held.is_fit() {
                lender.report(|| Event::Waited(Duration::ZERO));
                return Ok(held);
            }
            // It had died while it was idle; there is the next one, or the queue.
            held.reject();
            now = Instant::now();
        }
        let mut request = request(now);
        request.task = task;
        ask(lender, &request, now).await
    }
}

/// The same for a place, for which there is no quick way.
#[expect(
    clippy::manual_async_fn,
    reason = "a block keeps what it is given once"
)]
pub(crate) fn acquire_place<K: Connector>(
    lender: &Arc<Lender<K>>,
    mut request: Request,
) -> impl Future<Output = Result<Place<K>, ErrorOf<K>>> + Send + use<'_, K> {
    async move {
        request.wanted = Use::Shared;
        request.task = task::try_id();
        ask(lender, &request, Instant::now()).await
    }
}

/// Asks the ledger, again and again while it lends what turns out to be dead.
async fn ask<K: Connector, H: Hold<K>>(
    lender: &Arc<Lender<K>>,
    request: &Request,
    mut now: Instant,
) -> Result<H, ErrorOf<K>> {
    if !lender.has_runtime() {
        let ledger = lender.ledger();
        return Err(ledger.explain(now, Cause::NoRuntime, Duration::ZERO));
    }
    loop {
        let asked = poll_fn(|context| Poll::Ready(ask_once(lender, request, now, context.waker())));
        match asked.await {
            Offer::Lend(grant) => {
                let held = H::hold(lender, grant, request, now);
                if held.is_fit() {
                    lender.report(|| Event::Waited(Duration::ZERO));
                    return Ok(held);
                }
                held.reject();
                now = Instant::now();
            }
            Offer::Queue(ticket) => {
                let turn = Turn {
                    lender,
                    ticket: Some(ticket),
                };
                return wait(turn, request, now).await;
            }
            Offer::Refuse(error) => return Err(*error),
        }
    }
}

fn ask_once<K: Connector>(
    lender: &Arc<Lender<K>>,
    request: &Request,
    now: Instant,
    waker: &Waker,
) -> OfferOf<K> {
    let mut ledger = lender.ledger();
    let offer = match ledger.offer_quickly(now, request, waker) {
        Some(offer) => {
            drop(ledger);
            offer
        }
        None => lender.visit_in(ledger, now, |ledger, now, orders| {
            ledger.request(now, request, waker, orders)
        }),
    };
    lender.seem_crowded(matches!(offer, Offer::Queue(_)));
    offer
}

/// Takes what can be had at once: an idle connection that needs no check, or a place on a shared one.
pub(crate) fn try_acquire<K: Connector, H: Hold<K>>(
    lender: &Arc<Lender<K>>,
    request: &Request,
    mut now: Instant,
) -> Option<H> {
    loop {
        let grant = lender.visit_at(now, |ledger, now, orders| match H::USE {
            Use::Exclusive => ledger.lend_idle(now, request, orders),
            Use::Shared => ledger.take_place(now, request, orders),
        })?;
        let held = H::hold(lender, grant, request, now);
        if held.is_fit() {
            lender.report(|| Event::Waited(Duration::ZERO));
            return Some(held);
        }
        held.reject();
        now = Instant::now();
    }
}

async fn wait<K: Connector, H: Hold<K>>(
    mut turn: Turn<'_, K>,
    request: &Request,
    begun: Instant,
) -> Result<H, ErrorOf<K>> {
    let mut timer = pin!(sleep_until(request.deadline));
    // Who has just joined left a waker, and an answer that came since then has used it.
    let mut joined = true;
    let answer = poll_fn(|context| {
        if !std::mem::take(&mut joined)
            && let Poll::Ready(answer) = turn.poll(context)
        {
            return Poll::Ready(Ok(answer));
        }
        timer.as_mut().poll(context).map(Err)
    })
    .await;
    let lender = turn.lender;
    if let Ok(Answer::Lent(grant, at)) = answer {
        return Ok(accept(lender, grant, request, begun, at));
    }
    let now = Instant::now();
    let waited = now.saturating_duration_since(begun);
    let cause = match answer.or_else(|()| turn.time_out(waited)) {
        Ok(Answer::Lent(grant, at)) => return Ok(accept(lender, grant, request, begun, at)),
        Ok(Answer::Refused(error)) => Cause::Refused(error),
        Ok(Answer::TurnedAway(error)) => Cause::TurnedAway(error),
        Ok(Answer::Closed) => Cause::Closed,
        Ok(Answer::Shed(reason)) => Cause::Shed(reason),
        Err(error) => {
            lender.tell(&Event::TimedOut(waited));
            return Err(error);
        }
    };
    let ledger = lender.ledger();
    Err(ledger.explain(now, cause, waited))
}

/// Takes what was handed over at this instant: there the wait ended, and the holding began.
fn accept<K: Connector, H: Hold<K>>(
    lender: &Arc<Lender<K>>,
    grant: GrantOf<K>,
    request: &Request,
    begun: Instant,
    at: Instant,
) -> H {
    let held = H::hold(lender, grant, request, at);
    lender.report(|| Event::Waited(at.saturating_duration_since(begun)));
    held
}

/// A turn in the queue, left when it is dropped.
struct Turn<'a, K: Connector> {
    lender: &'a Arc<Lender<K>>,
    /// `None` once the turn is over.
    ticket: Option<TicketOf<K>>,
}

impl<K: Connector> Turn<'_, K> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<AnswerOf<K>> {
        let answer = self
            .ticket
            .as_ref()
            .and_then(|ticket| ticket.look(context.waker()));
        match answer {
            Some(answer) => {
                self.ticket = None;
                Poll::Ready(answer)
            }
            None => Poll::Pending,
        }
    }

    /// Leaves at the deadline: with the answer, if it came at the last moment, else with the reason.
    fn time_out(&mut self, waited: Duration) -> Result<AnswerOf<K>, ErrorOf<K>> {
        let ticket = self.ticket.take();
        self.lender.visit(|ledger, now, orders| {
            if let Some(answer) = ticket.and_then(|ticket| ledger.waiters.leave(&ticket)) {
                return Ok(answer);
            }
            // Whoever was behind it may fit where it did not.
            ledger.serve_places(now, orders);
            ledger.totals.timeouts += 1;
            Err(ledger.explain(now, ledger.cause_of_timeout(), waited))
        })
    }
}

impl<K: Connector> Drop for Turn<'_, K> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.lender
                .visit(|ledger, now, orders| ledger.leave(now, &ticket, orders));
        }
    }
}
