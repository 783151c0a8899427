//! The breaker of one database, with the prober that closes it again.
//!
//! While a database is away, callers that wait for it are not served any sooner; they only hold
//! memory, sockets and their own callers. So after the ride-through has passed they are refused at
//! once, with the cause, and one prober asks for all of them.

use crate::engine::Engine;
use mainstay_core::error::Report;
use mainstay_core::{Class, Deadline, Error, Evidence, Kind, Result};
use mainstay_pool::Event;
use mainstay_resilience::{Admission, Breaker, BreakerConfig, State};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) struct Gate {
    /// `None` for an embedded database, which cannot be away; contention is not an outage.
    breaker: Option<Mutex<Breaker>>,
    /// What those are told who are refused, while it is open.
    open: watch::Sender<Option<Error>>,
    probing: AtomicBool,
    /// The last failure that counted, for the refusal's text.
    cause: Mutex<Option<(Error, Instant)>>,
}

impl Gate {
    pub(crate) fn new(config: Option<BreakerConfig>) -> Self {
        Self {
            breaker: config.map(|config| Mutex::new(Breaker::new(config))),
            open: watch::Sender::new(None),
            probing: AtomicBool::new(false),
            cause: Mutex::new(None),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Breaker) -> T) -> Option<T> {
        let breaker = self.breaker.as_ref()?;
        Some(act(&mut breaker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)))
    }

    /// Lets a call pass or refuses it with the cause.
    pub(crate) fn admit(&self, engine: &Weak<Engine>) -> Result<()> {
        let now = Instant::now();
        match self.with(|breaker| breaker.admit(now)) {
            Some(Admission::Refuse { retry_after, since }) => {
                let refusal = self.refusal(now, retry_after, since);
                self.announce(engine);
                Err(refusal)
            }
            _ => Ok(()),
        }
    }

    /// Takes in what a statement's result says. `statement` tells texts apart.
    pub(crate) fn on_evidence(
        &self,
        engine: &Weak<Engine>,
        evidence: Evidence,
        failure: Option<&Error>,
        statement: u64,
    ) {
        self.note(failure, evidence);
        let now = Instant::now();
        let closed = self.with(|breaker| {
            breaker.on_evidence(now, evidence, Some(statement));
            matches!(breaker.state(), State::Closed)
        });
        if closed == Some(false) {
            self.announce(engine);
        }
    }

    /// Takes in what an attempt to connect says.
    pub(crate) fn on_pool_event(&self, engine: &Weak<Engine>, event: &Event) {
        let evidence = match event {
            Event::Connected(_) => Evidence::Answered,
            // Refused credentials are an answer; the pool tells everybody who waits by itself.
            Event::ConnectFailed {
                permanent: true, ..
            } => Evidence::Answered,
            Event::ConnectFailed { .. } => {
                let cause = engine
                    .upgrade()
                    .and_then(|engine| engine.lanes.last_connect_error());
                self.note(cause.as_ref(), Evidence::Silent);
                Evidence::Silent
            }
            _ => return,
        };
        let now = Instant::now();
        let closed = self.with(|breaker| {
            breaker.on_evidence(now, evidence, None);
            matches!(breaker.state(), State::Closed)
        });
        if closed == Some(false) {
            self.announce(engine);
        }
    }

    fn note(&self, failure: Option<&Error>, evidence: Evidence) {
        if let (Some(error), Evidence::Silent | Evidence::Exhausted) = (failure, evidence) {
            let mut cause = self.cause.lock().unwrap_or_else(PoisonError::into_inner);
            *cause = Some((error.clone(), Instant::now()));
        }
    }

    /// Waits until the gate opens, and answers the refusal.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost by dropping the future.
    pub(crate) async fn opened(&self) -> Error {
        let mut open = self.open.subscribe();
        match open.wait_for(Option::is_some).await {
            Ok(refusal) => refusal.clone().unwrap_or_else(closed_meanwhile),
            // The sender lives in the gate that is borrowed here.
            Err(_) => closed_meanwhile(),
        }
    }

    /// The state in one word, how long it has lasted and the refusal, for status and health.
    pub(crate) fn state(&self) -> (&'static str, u64) {
        self.with(|breaker| (breaker.state_name(), breaker.times_opened()))
            .unwrap_or(("closed", 0))
    }

    /// The refusal that a call would meet now, without counting as a call.
    pub(crate) fn refusing(&self) -> Option<Error> {
        self.open.borrow().clone()
    }

    /// Refuses every call until told otherwise.
    pub(crate) fn force_open(&self, engine: &Weak<Engine>) {
        let now = Instant::now();
        self.with(|breaker| breaker.force_open(now));
        self.announce(engine);
    }

    /// Lets every call pass until told otherwise.
    pub(crate) fn force_close(&self) {
        self.with(Breaker::force_close);
        self.open.send_replace(None);
    }

    /// Ends an order to stay open or closed.
    pub(crate) fn automatic(&self) {
        let now = Instant::now();
        self.with(|breaker| breaker.automatic(now));
        self.open.send_replace(None);
    }

    /// Tells those who wait that it is open, and sees to it that somebody probes.
    fn announce(&self, engine: &Weak<Engine>) {
        let now = Instant::now();
        let state = self.with(|breaker| breaker.state());
        if let Some(State::Open { until, since }) = state
            && self.open.borrow().is_none()
        {
            let refusal = self.refusal(now, until.saturating_duration_since(now), since);
            tracing::warn!(cause = %refusal, "the breaker opened");
            self.open.send_replace(Some(refusal));
        }
        let wanted = self
            .with(|breaker| breaker.next_probe(now))
            .flatten()
            .is_some();
        if wanted && !self.probing.swap(true, Ordering::AcqRel) {
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn(probe(engine.clone()))),
                // Without a runtime nothing waits either; the next call inside one comes here again.
                Err(_) => self.probing.store(false, Ordering::Release),
            }
        }
    }

    fn refusal(&self, now: Instant, retry_after: Duration, since: Instant) -> Error {
        let away = now.saturating_duration_since(since);
        let cause = self
            .cause
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let what = cause.as_ref().map_or_else(String::new, |(cause, at)| {
            let age = now.saturating_duration_since(*at);
            format!(": {} ({age:.1?} ago)", cause.message())
        });
        let report = Report::new(
            Kind::BreakerOpen,
            format!("the database has been away for {away:.1?} and the breaker is open{what}"),
        )
        .class(Class::NotSent)
        .evidence(Evidence::Neither)
        .retry_after(retry_after)
        .remedy("it closes by itself when the database answers again");
        match cause {
            Some((cause, _)) => report.source(cause).into(),
            None => report.into(),
        }
    }

    fn on_probe(&self, result: &Result<()>) -> Option<Instant> {
        let now = Instant::now();
        if let Err(error) = result {
            self.note(Some(error), Evidence::Silent);
        }
        let next = self.with(|breaker| {
            breaker.on_probe(now, result.is_ok());
            breaker.next_probe(now)
        });
        let next = next.flatten();
        if next.is_none() && self.open.send_replace(None).is_some() {
            tracing::info!("the breaker closed, the database answers again");
        }
        next
    }
}

fn closed_meanwhile() -> Error {
    Report::new(Kind::BreakerOpen, "the breaker opened and closed again")
        .remedy("try again")
        .into()
}

/// Asks the database, for everybody, until the breaker needs no more answers. One at a time, and it
/// ends with the engine.
async fn probe(engine: Weak<Engine>) {
    loop {
        let Some(strong) = engine.upgrade() else {
            return;
        };
        let now = Instant::now();
        let Some(at) = strong
            .gate
            .with(|breaker| breaker.next_probe(now))
            .flatten()
        else {
            strong.gate.probing.store(false, Ordering::Release);
            return;
        };
        drop(strong);
        tokio::time::sleep_until(at).await;
        let Some(strong) = engine.upgrade() else {
            return;
        };
        let deadline = Deadline::from_now(strong.config.connect_timeout);
        let result = strong.ask(deadline).await;
        if strong.gate.on_probe(&result).is_none() {
            strong.gate.probing.store(false, Ordering::Release);
            return;
        }
    }
}
