//! The task behind a listener.

use super::{Desk, Permit};
use crate::attempts::Setback;
use crate::bound::{answer_by, frame};
use crate::connector::CHECK_TIMEOUT;
use crate::engine::Engine;
use crate::lanes::{PoolLease, reconnect_pacing};
use mainstay_core::backend::{Heard, Lane, Listening};
use mainstay_core::error::Report;
use mainstay_core::{Class, Deadline, Error, Evidence, Kind, Result};
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// A connection on which nothing was heard for so long is asked whether it is still there. Silence is
/// what a listener mostly hears, so only a question tells it from a dead peer; one round trip in ten
/// seconds is nothing, and it keeps firewalls from forgetting the connection.
const ASK_AFTER: Duration = Duration::from_secs(10);

/// A subscription and the connection that has it.
pub(super) struct Subscription {
    ear: Box<dyn Listening>,
    lease: PoolLease,
}

/// Why hearing ended.
enum End {
    /// The database was closed.
    Closed,
    /// The connection is of no use any more.
    Lost(Error),
}

/// What to do about a subscription that did not come about.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Again,
    GiveUp,
    End,
}

/// Waiting mends everything but a wrong setting and the end.
fn verdict(kind: Kind) -> Verdict {
    match kind {
        Kind::Closed => Verdict::End,
        Kind::Config | Kind::Credentials | Kind::Tls | Kind::Statement => Verdict::GiveUp,
        _ => Verdict::Again,
    }
}

impl Subscription {
    /// Takes a connection and subscribes it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the connection back, and it is cleaned before it is lent again.
    pub(super) async fn new(
        engine: &Arc<Engine>,
        channels: &[String],
        deadline: Deadline,
        site: &'static Location<'static>,
    ) -> Result<Self> {
        let admitted = engine.admit(Lane::Write, deadline, site).await;
        let mut lease = admitted.map_err(Setback::into_error)?;
        lease.hand_over();
        lease.stay();
        let started = Instant::now();
        let call = frame(Lane::Write, deadline, started);
        // Subscribing changes nothing that anybody else could see, so its loss is never unknown.
        let ear = answer_by(deadline, Lane::Read, lease.listen(channels, call)).await;
        engine.witness("listen", started.elapsed(), ear.as_ref().err());
        Ok(Self { ear: ear?, lease })
    }

    /// Puts on the desk what is heard, until there is nothing more to hear.
    async fn hear(&mut self, engine: &Engine, desk: &Desk) -> End {
        let mut closing = engine.closing.subscribe();
        loop {
            let heard = tokio::select! {
                biased;
                _ = closing.wait_for(|closing| *closing) => return End::Closed,
                heard = timeout(ASK_AFTER, self.ear.next()) => heard,
            };
            match heard {
                Ok(Ok(Heard::Notification(heard))) => desk.put(|pile| pile.backlog.hear(heard)),
                Ok(Ok(Heard::Missed(count))) => desk.put(|pile| pile.backlog.miss(count)),
                Ok(Err(error)) => return End::Lost(error),
                Err(_) => {
                    if let Err(error) = ask(&self.lease, engine).await {
                        return End::Lost(error);
                    }
                }
            }
        }
    }
}

/// Whether the other side is there, and is still the one to listen to: after a failover the old server
/// may live on, and nothing is announced there any more.
async fn ask(lease: &PoolLease, engine: &Engine) -> Result<()> {
    let current = engine.lanes.pool(Lane::Write).status().generation;
    if lease.generation() != current {
        let message = "the database has moved to another server since this session was opened";
        return Err(Report::new(Kind::Unreachable, message)
            .class(Class::NotSent)
            .evidence(Evidence::Neither)
            .into());
    }
    lease.check(Deadline::from_now(CHECK_TIMEOUT)).await
}

/// Subscribes again, for as long as it takes; `Err(None)` when the database was closed.
async fn again(
    engine: &Arc<Engine>,
    channels: &[String],
    site: &'static Location<'static>,
) -> Result<Subscription, Option<Error>> {
    let mut closing = engine.closing.subscribe();
    let mut pauses = reconnect_pacing(engine.config.ride_through);
    loop {
        let deadline = Deadline::from_now(engine.config.timeout);
        let failure = tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => return Err(None),
            subscription = Subscription::new(engine, channels, deadline, site) => match subscription {
                Ok(subscription) => return Ok(subscription),
                Err(failure) => failure,
            },
        };
        match verdict(failure.kind()) {
            Verdict::End => return Err(None),
            Verdict::GiveUp => return Err(Some(failure)),
            Verdict::Again => tracing::debug!(error = %failure, "a listener is not back yet"),
        }
        // The pacing has no end.
        let pause = pauses.next().unwrap_or_default();
        tokio::select! {
            _ = closing.wait_for(|closing| *closing) => return Err(None),
            () = sleep(pause) => {}
        }
    }
}

/// Tells the reader that nothing follows, however the task ends.
struct Ending(Arc<Desk>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.put(|pile| pile.ended = true);
    }
}

/// Listens until the database is closed; the owner's drop aborts it.
pub(super) async fn serve(
    permit: Permit,
    channels: Vec<String>,
    site: &'static Location<'static>,
    mut subscription: Subscription,
    desk: Arc<Desk>,
) {
    let _ending = Ending(Arc::clone(&desk));
    let engine = &permit.0;
    loop {
        let cause = match subscription.hear(engine, &desk).await {
            End::Closed => return,
            End::Lost(cause) => cause,
        };
        let since = Instant::now();
        tracing::warn!(error = %cause, "a listener lost its connection and subscribes again");
        engine.witness("listen", Duration::ZERO, Some(&cause));
        // Its connection may be what the new one needs.
        drop(subscription);
        subscription = match again(engine, &channels, site).await {
            Ok(subscription) => subscription,
            Err(failure) => {
                desk.put(|pile| pile.failure = failure);
                return;
            }
        };
        let away = since.elapsed();
        tracing::info!(?away, "a listener is subscribed again");
        desk.put(|pile| pile.backlog.resubscribe(cause, away));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_mends_everything_but_a_wrong_setting_and_the_end() {
        for (verdict_of, kinds) in [
            (Verdict::End, &[Kind::Closed][..]),
            (
                Verdict::GiveUp,
                &[Kind::Config, Kind::Credentials, Kind::Tls],
            ),
            (
                Verdict::Again,
                // A standby refuses LISTEN as a write: the primary is elsewhere, or will be.
                &[
                    Kind::Unreachable,
                    Kind::Exhausted,
                    Kind::BreakerOpen,
                    Kind::ReadOnly,
                ],
            ),
        ] {
            for kind in kinds {
                assert_eq!(verdict(*kind), verdict_of, "{kind}");
            }
        }
    }
}
