//! Why a place that is owned: a caller may be dropped at any poll, also at the very moment in which
//! it is handed a connection. The place in the queue is a value; dropping it gives back what was in
//! it, to the next in line.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::connector::{Condition, Connector};
use crate::error::{AcquireError, Cause};
use crate::lease::Lease;
use crate::ledger::Offer;
use crate::lender::Lender;
use crate::observer::Event;
use crate::waiters::{Answer, Key, Request};

type AnswerOf<K> = Answer<<K as Connector>::Connection, <K as Connector>::Error>;
type ErrorOf<K> = AcquireError<<K as Connector>::Error>;

/// Waits for a connection until the deadline of the request.
pub(crate) async fn acquire<K: Connector>(
    lender: &Arc<Lender<K>>,
    request: Request,
) -> Result<Lease<K>, ErrorOf<K>> {
    if !lender.has_runtime() {
        let ledger = lender.ledger();
        return Err(ledger.explain(Instant::now(), Cause::NoRuntime, Duration::ZERO));
    }
    loop {
        let (begun, offer) = lender.visit(|ledger, now, orders| {
            let offer = match ledger.request(now, request, orders) {
                Offer::Lend(index, connection) => Ok(Offer::Lend(index, connection)),
                Offer::Queue(key) => Ok(Offer::Queue(key)),
                Offer::Refuse(cause) => Err(ledger.explain(now, cause, Duration::ZERO)),
            };
            (now, offer)
        });
        match offer? {
            Offer::Lend(index, connection) => {
                if let Some(lease) = accept(lender, index, connection, begun) {
                    if lender.is_observed() {
                        lender.tell(&Event::Waited(Duration::ZERO));
                    }
                    return Ok(lease);
                }
                // That one had died while it was idle; there is the next one, or the queue.
            }
            Offer::Queue(key) => {
                let place = Place {
                    lender: Arc::clone(lender),
                    key: Some(key),
                };
                return wait(place, request.deadline, begun).await;
            }
            Offer::Refuse(cause) => {
                return Err(lender.ledger().explain(begun, cause, Duration::ZERO));
            }
        }
    }
}

/// Takes an idle connection if there is one that needs no check.
pub(crate) fn try_acquire<K: Connector>(
    lender: &Arc<Lender<K>>,
    request: &Request,
) -> Option<Lease<K>> {
    loop {
        let (now, (index, connection)) = lender.visit(|ledger, now, orders| {
            ledger
                .lend_idle(now, request, orders)
                .map(|lent| (now, lent))
        })?;
        if let Some(lease) = accept(lender, index, connection, now) {
            return Some(lease);
        }
    }
}

/// Looks once more at a connection that was idle: a server that went away has often been noticed by
/// then, and noticing costs nothing.
fn accept<K: Connector>(
    lender: &Arc<Lender<K>>,
    index: usize,
    connection: K::Connection,
    now: Instant,
) -> Option<Lease<K>> {
    let mut claim = lender.claim(index);
    let condition = lender.connector.condition(&connection);
    if condition == Condition::Clean {
        return Some(Lease::new(claim, connection, now));
    }
    claim.settle(|ledger, index, now, orders| {
        ledger.totals.acquired -= 1;
        ledger.give_back(now, index, connection, condition, orders);
    });
    None
}

async fn wait<K: Connector>(
    mut place: Place<K>,
    deadline: Instant,
    begun: Instant,
) -> Result<Lease<K>, ErrorOf<K>> {
    let mut timer = pin!(sleep_until(deadline));
    let answer = poll_fn(|context| {
        if let Poll::Ready(answer) = place.poll(context) {
            return Poll::Ready(Ok(answer));
        }
        timer.as_mut().poll(context).map(Err)
    })
    .await;
    let lender = Arc::clone(&place.lender);
    let waited = begun.elapsed();
    let cause = match answer.or_else(|()| place.time_out(waited)) {
        Ok(Answer::Lent(index, connection)) => {
            let lease = Lease::new(lender.claim(index), connection, Instant::now());
            if lender.is_observed() {
                lender.tell(&Event::Waited(waited));
            }
            return Ok(lease);
        }
        Ok(Answer::Refused(error)) => Cause::Refused(error),
        Ok(Answer::Closed) => Cause::Closed,
        Ok(Answer::Shed(reason)) => Cause::Shed(reason),
        Err(error) => {
            lender.tell(&Event::TimedOut(waited));
            return Err(error);
        }
    };
    let ledger = lender.ledger();
    Err(ledger.explain(Instant::now(), cause, waited))
}

/// A place in the queue, left when it is dropped.
struct Place<K: Connector> {
    lender: Arc<Lender<K>>,
    /// `None` once the place has been given back.
    key: Option<Key>,
}

impl<K: Connector> Place<K> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<AnswerOf<K>> {
        let Some(key) = self.key else {
            return Poll::Pending;
        };
        match self.lender.ledger().waiters.poll(key, context.waker()) {
            Some(answer) => {
                self.key = None;
                Poll::Ready(answer)
            }
            None => Poll::Pending,
        }
    }

    /// Leaves at the deadline: with the answer, if it came at the last moment, else with the reason.
    fn time_out(&mut self, waited: Duration) -> Result<AnswerOf<K>, ErrorOf<K>> {
        let key = self.key.take();
        self.lender.visit(|ledger, now, _| {
            if let Some(answer) = key.and_then(|key| ledger.waiters.leave(key)) {
                return Ok(answer);
            }
            ledger.totals.timeouts += 1;
            Err(ledger.explain(now, ledger.cause_of_timeout(), waited))
        })
    }
}

impl<K: Connector> Drop for Place<K> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.lender
                .visit(|ledger, now, orders| ledger.leave(now, key, orders));
        }
    }
}
