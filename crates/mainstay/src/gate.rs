//! The gates of one database, and what those are told who may not pass.
//!
//! While a database is away, callers that wait for it are not served any sooner; they only hold
//! memory, sockets and their own callers. So after the ride-through has passed they are refused at
//! once, with the cause, and one prober asks for all of them.
//!
//! There are three gates, because three things fail apart from each other. What *statements* say
//! decides about everybody. What *connects* say, and a server that refuses our credentials, decide
//! only about those who would need a new connection: connections that are there and answer go on
//! being lent. While not even one of them is left, nobody is served, so everybody is refused.
//!
//! They stand in front of the database, whichever of its hosts serves: which host is asked, and which
//! rests after a failure, is the backend's.

mod prober;
mod rules;
mod words;

use crate::engine::Engine;
use crate::status::Breaker as BreakerStatus;
use mainstay_core::{Error, Evidence, Result};
use mainstay_resilience::BreakerConfig;
use rules::Rules;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) struct Gate {
    engine: Weak<Engine>,
    /// `None` for an embedded database, which cannot be away; contention is not an outage.
    rules: Option<Mutex<Rules>>,
    /// Whether somebody may have to be refused. Wakes those who are connecting; those who wait for a connection
    /// are told by their pool.
    shut: watch::Sender<bool>,
}

impl Gate {
    pub(crate) fn new(engine: Weak<Engine>, config: Option<BreakerConfig>) -> Self {
        let rules = config.map(|config| Mutex::new(Rules::new(config)));
        Self {
            engine,
            rules,
            shut: watch::Sender::new(false),
        }
    }

    fn rules(&self) -> Option<MutexGuard<'_, Rules>> {
        let rules = self.rules.as_ref()?;
        Some(rules.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets a call pass or refuses it with the cause. Whoever passes tells what came of it, through
    /// [`on_evidence`](Self::on_evidence) or [`leave`](Self::leave).
    pub(crate) fn admit(&self, now: Instant) -> Result<()> {
        let admitted = self.rules().map_or(Ok(()), |mut rules| rules.admit(now));
        let Err(refusal) = admitted else {
            return Ok(());
        };
        if refusal.is_only_for_new_connections() {
            if self.has_live_connection() {
                return Ok(());
            }
            self.leave();
        }
        if let Some(engine) = self.engine.upgrade() {
            crate::metrics::refused(&*engine.backend, refusal.by.as_str());
        }
        self.publish();
        Err(refusal.into_error(now))
    }

    /// A call that had passed sent nothing: its place is free.
    pub(crate) fn leave(&self) {
        self.on_evidence(Instant::now(), Evidence::Neither, None, 0);
    }

    /// Takes in what a statement's result says. `statement` tells texts apart.
    pub(crate) fn on_evidence(
        &self,
        now: Instant,
        evidence: Evidence,
        failure: Option<&Error>,
        statement: u64,
    ) {
        let Some(mut rules) = self.rules() else {
            return;
        };
        let side = &mut rules.execute;
        side.note(now, failure, evidence);
        side.breaker.on_evidence(now, evidence, Some(statement));
        let is_shut = side.breaker.refusing(now).is_some();
        drop(rules);
        if is_shut {
            self.publish();
        }
    }

    /// Lets an attempt to log in pass, or answers what the server said to the last one.
    pub(crate) fn admit_login(&self) -> Result<()> {
        let now = Instant::now();
        match self.rules() {
            Some(mut rules) => rules
                .admit_login(now)
                .map_err(|refusal| refusal.into_error(now)),
            None => Ok(()),
        }
    }

    /// Takes in what an attempt to connect says; `permanent` when the server has refused us for good.
    /// Answers how long the next attempt is to wait, where the pool's own pacing is too quick.
    pub(crate) fn on_connect(
        &self,
        began: Instant,
        failure: Option<&Error>,
        permanent: bool,
    ) -> Option<Duration> {
        let times = (began, Instant::now());
        let wait = self.rules()?.on_connect(times, failure, permanent);
        self.publish();
        wait
    }

    /// A connection ended: perhaps it was the last one.
    pub(crate) fn on_closed(&self) {
        let now = Instant::now();
        let matters = self.rules().is_some_and(|rules| {
            rules.connect.breaker.refusing(now).is_some() || rules.login.refusing(now).is_some()
        });
        if matters {
            self.publish();
        }
    }

    /// Whether calls are refused.
    pub(crate) fn is_shut(&self) -> bool {
        *self.shut.borrow()
    }

    /// The refusal of one who waits, if calls are refused.
    pub(crate) fn refusal_if_shut(&self) -> Option<Error> {
        self.is_shut()
            .then(|| self.standing(Instant::now()))
            .flatten()
    }

    /// Waits until calls are refused, and answers the refusal.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost by dropping the future.
    pub(crate) async fn opened(&self) -> Error {
        let mut shut = self.shut.subscribe();
        loop {
            shut.mark_unchanged();
            if let Some(refusal) = self.refusal_if_shut() {
                return refusal;
            }
            if shut.changed().await.is_err() {
                // The sender lives in the gate that is borrowed here.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The refusal that a call would meet now, without counting as a call.
    pub(crate) fn refusing(&self) -> Option<Error> {
        let refusal = self.standing(Instant::now());
        if refusal.is_some() {
            // Whoever turns its own callers away because of this makes no calls by which a prober that
            // is missing would be missed.
            self.publish();
        }
        refusal
    }

    fn standing(&self, now: Instant) -> Option<Error> {
        let refusal = self.rules()?.standing(now)?;
        let is_served = refusal.is_only_for_new_connections() && self.has_live_connection();
        (!is_served).then(|| refusal.into_error(now))
    }

    /// Whether a connection is there that is not known to be of no use.
    fn has_live_connection(&self) -> bool {
        self.engine
            .upgrade()
            .is_some_and(|engine| engine.lanes.has_live())
    }

    /// What is known, for status and metrics.
    pub(crate) fn status(&self) -> BreakerStatus {
        let now = Instant::now();
        let refusal = self.standing(now);
        let Some(rules) = self.rules() else {
            return BreakerStatus::closed();
        };
        let [execute, connect] = [&rules.execute, &rules.connect].map(|side| side.status(now));
        let credentials = rules.login_status(now);
        let state = if refusal.is_none() {
            "closed"
        } else if [&execute, &connect, &credentials]
            .map(|gate| gate.state)
            .contains(&"open")
        {
            "open"
        } else {
            "half_open"
        };
        BreakerStatus {
            state,
            times_opened: execute.times_opened + connect.times_opened,
            retry_after: refusal.as_ref().and_then(Error::retry_after),
            cause: refusal.map(|refusal| refusal.message().to_owned()),
            execute,
            connect,
            credentials,
        }
    }

    /// Refuses every call until told otherwise.
    pub(crate) fn force_open(&self) {
        let now = Instant::now();
        if let Some(mut rules) = self.rules() {
            rules.execute.breaker.force_open(now);
            rules.connect.breaker.force_open(now);
        }
        self.publish();
    }

    /// Lets every call pass until told otherwise.
    pub(crate) fn force_close(&self) {
        if let Some(mut rules) = self.rules() {
            rules.execute.breaker.force_close();
            rules.connect.breaker.force_close();
        }
        self.forget_refusal();
    }

    /// Ends an order to stay open or closed.
    pub(crate) fn automatic(&self) {
        let now = Instant::now();
        if let Some(mut rules) = self.rules() {
            rules.execute.breaker.automatic(now);
            rules.connect.breaker.automatic(now);
        }
        self.forget_refusal();
    }

    /// What the server refused it may grant now: the next attempt need not wait.
    pub(crate) fn forget_refusal(&self) {
        if let Some(mut rules) = self.rules() {
            rules.login.forget();
            rules.refused = None;
        }
        self.publish();
        if let Some(engine) = self.engine.upgrade() {
            engine.lanes.forget_failure();
        }
    }

    /// Tells those who wait how the gates stand, and sees to it that somebody probes.
    fn publish(&self) {
        let refusal = self.standing(Instant::now());
        let is_shut = refusal.is_some();
        let changed = self
            .shut
            .send_if_modified(|shut| std::mem::replace(shut, is_shut) != is_shut);
        match refusal {
            Some(cause) if changed => {
                tracing::warn!(%cause, "calls are refused");
                if let Some(engine) = self.engine.upgrade() {
                    engine.lanes.refuse_waiters(&cause);
                }
            }
            None if changed => tracing::info!("calls pass again"),
            _ => {}
        }
        self.send_probers();
    }
}
