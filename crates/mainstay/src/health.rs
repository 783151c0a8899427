//! Whether the database answers.
//!
//! A health check that opens a connection for every question is a load of its own, and one that asks
//! only itself is green while the database is gone. Here callers that ask at the same time share one
//! question, the question has a bound, and when every connection is busy the statements that have
//! just succeeded on them are the answer.

use crate::database::Database;
use mainstay_core::{Deadline, Error, Evidence, Kind};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

/// How long the question may take. A load balancer asks every few seconds and waits about as long.
const PATIENCE: Duration = Duration::from_secs(2);

/// How old an answer may be that was not asked for: one that another statement got.
const FRESH: Duration = Duration::from_secs(1);

/// What a health check found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Health {
    /// Whether the database answers.
    pub healthy: bool,
    /// How long the answer took, or how long it was waited for.
    pub latency: Duration,
    /// Why it is not healthy.
    pub error: Option<Error>,
    /// When it was asked.
    pub asked_at: Instant,
}

/// What is known about the database's health.
#[derive(Default)]
pub(crate) struct Probe {
    /// The last answer to a question; the lock makes those who ask at the same time share one.
    asked: tokio::sync::Mutex<Option<Health>>,
    /// The last statement that was answered, and how long that took.
    witnessed: Mutex<Option<(Instant, Duration)>>,
}

impl Probe {
    /// Takes note of a statement that was answered.
    pub(crate) fn witness(&self, took: Duration, failure: Option<&Error>) {
        if failure.is_none_or(|error| error.evidence() == Evidence::Answered) {
            let mut witnessed = self
                .witnessed
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *witnessed = Some((Instant::now(), took));
        }
    }

    fn fresh(&self, now: Instant) -> Option<Duration> {
        let witnessed = *self
            .witnessed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (at, took) = witnessed?;
        (now.saturating_duration_since(at) <= FRESH).then_some(took)
    }
}

impl Database {
    /// Asks the database whether it answers. Questions that are asked at the same time share one
    /// answer; the question takes two seconds at most.
    ///
    /// # Cancel safety
    ///
    /// Safe: the question goes on to its end, for whoever else waits for its answer.
    pub async fn health(&self) -> Health {
        let asked_at = Instant::now();
        let patience = Deadline::after(asked_at, PATIENCE);
        let patience = self
            .own_deadline()
            .map_or(patience, |own| own.earliest(patience));
        // A task: a caller who has the turn and is not polled would keep it from all others.
        let db = self.clone();
        let asking = async move { db.ask_in_turn(asked_at, patience).await };
        match tokio::spawn(asking.in_current_span()).await {
            Ok(health) => health,
            Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
            Err(_) => unhealthy(asked_at, no_answer()), // the runtime shuts down
        }
    }

    async fn ask_in_turn(&self, asked_at: Instant, patience: Deadline) -> Health {
        let probe = &self.engine().probe;
        let Ok(mut asked) = timeout_at(patience.instant(), probe.asked.lock()).await else {
            return unhealthy(asked_at, no_answer());
        };
        if let Some(health) = asked.as_ref().filter(|health| health.asked_at >= asked_at) {
            return health.clone();
        }
        let health = self.ask(Instant::now(), patience).await;
        *asked = Some(health.clone());
        health
    }

    async fn ask(&self, asked_at: Instant, patience: Deadline) -> Health {
        let engine = self.engine();
        if let Some(refusal) = engine.gate.refusing() {
            return unhealthy(asked_at, refusal);
        }
        let question = timeout_at(patience.instant(), engine.ask(patience));
        match question.await.unwrap_or_else(|_| Err(no_answer())) {
            Ok(()) => Health {
                healthy: true,
                latency: asked_at.elapsed(),
                error: None,
                asked_at,
            },
            Err(error) => match engine.probe.fresh(Instant::now()) {
                // Every connection is busy, and they are busy with a database that answers.
                Some(latency) if matches!(error.kind(), Kind::Exhausted | Kind::Shed) => Health {
                    healthy: true,
                    latency,
                    error: None,
                    asked_at,
                },
                _ => unhealthy(asked_at, error),
            },
        }
    }
}

fn unhealthy(asked_at: Instant, error: Error) -> Health {
    Health {
        healthy: false,
        latency: asked_at.elapsed(),
        error: Some(error),
        asked_at,
    }
}

fn no_answer() -> Error {
    mainstay_core::error::Report::new(
        Kind::Timeout,
        format!("the database did not answer a health check within {PATIENCE:?}"),
    )
    .evidence(Evidence::Silent)
    .timed_out()
    .into()
}
