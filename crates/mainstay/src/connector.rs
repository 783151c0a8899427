//! A backend, as the pool sees it.

use crate::gate::Gate;
use mainstay_core::backend::{Backend, Condition, Connection, Lane};
use mainstay_core::error::Report;
use mainstay_core::{Class, Deadline, Error, Evidence, Kind};
use mainstay_pool as pool;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long the server may take to answer a check. A healthy one answers in a round trip; one that
/// needs longer than a second is better replaced than waited for.
pub(crate) const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long cleaning may take before the connection is given up: cancel, drain and roll back are
/// three round trips. With what follows it keeps the capacity that silence costs below five seconds.
pub(crate) const CLEAN_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a server may take to let go of a connection before its slot is counted free.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for one that has just been asked in vain: it had its time to answer, and callers wait for
/// the slot.
const PARTING_TIME: Duration = Duration::from_millis(100);

/// The tag under which the pool remembers a connection's lane.
pub(crate) fn tag(lane: Lane) -> pool::Tag {
    pool::Tag(match lane {
        Lane::Read => 0,
        Lane::Write => 1,
    })
}

/// How much later than the connector the pool ends an attempt to connect.
pub(crate) const CONNECT_MARGIN: Duration = Duration::from_millis(50);

pub(crate) struct Connector {
    backend: Arc<dyn Backend>,
    gate: Arc<Gate>,
    connect_timeout: Duration,
    /// A single in-memory connection is the database; it must be opened for writing.
    always: Option<Lane>,
    /// The open connections, so that `close` can cancel what still runs. As many as the pool's
    /// limit, plus those that were dropped since the last one was opened.
    live: Mutex<Vec<Weak<dyn Connection>>>,
}

impl Connector {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        gate: &Arc<Gate>,
        connect_timeout: Duration,
        always: Option<Lane>,
    ) -> Self {
        Self {
            backend,
            gate: Arc::clone(gate),
            connect_timeout,
            always,
            live: Mutex::default(),
        }
    }

    /// The connections that are open now.
    pub(crate) fn live(&self) -> Vec<Arc<dyn Connection>> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.iter().filter_map(Weak::upgrade).collect()
    }

    /// Whether a connection is open that is not known to be of no use.
    pub(crate) fn has_live(&self) -> bool {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.iter()
            .filter_map(Weak::upgrade)
            .any(|connection| connection.condition() != Condition::Broken)
    }

    /// Opens one connection and tells the gate what came of it.
    async fn open(&self, lane: Lane) -> Result<Arc<dyn Connection>, Error> {
        self.gate.admit_login()?;
        let began = Instant::now();
        let deadline = Deadline::after(began, self.connect_timeout);
        let opening = self.backend.connect(lane, deadline);
        let was_shut = self.gate.is_shut();
        let opened = tokio::select! {
            biased;
            opened = timeout_at(deadline.instant(), opening) => {
                opened.unwrap_or_else(|_| Err(self.silence(self.connect_timeout)))
            }
            // From now on one prober asks, and not all those who had begun before.
            refusal = self.gate.opened(), if !was_shut => {
                Err(refusal.into_report().class(Class::NotSent).evidence(Evidence::Neither).into())
            }
        };
        match opened {
            Ok(connection) => {
                // Before the gate hears of it: from now on there is one that can serve.
                self.remember(&connection);
                self.gate.on_connect(began, None, false);
                Ok(connection)
            }
            Err(error) => {
                let permanent = self.backend.is_permanent(&error);
                let wait = self.gate.on_connect(began, Some(&error), permanent);
                Err(match wait {
                    Some(wait) => error.into_report().retry_after(wait).into(),
                    None => error,
                })
            }
        }
    }

    /// What it means that nothing was heard.
    fn silence(&self, waited: Duration) -> Error {
        let target = self.backend.target();
        Report::new(
            Kind::Unreachable,
            format!("{target} did not answer an attempt to connect within {waited:.1?}"),
        )
        .evidence(Evidence::Silent)
        .remedy("check that the server runs and that no firewall drops the packets")
        .into()
    }

    fn remember(&self, connection: &Arc<dyn Connection>) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|known| known.strong_count() > 0);
        live.push(Arc::downgrade(connection));
    }
}

/// What the pool calls: the backend through an `Arc`, shared with `close`.
pub(crate) struct Shell(pub(crate) Arc<Connector>);

impl pool::Connector for Shell {
    type Connection = Arc<dyn Connection>;
    type Error = Error;

    async fn connect(&self, wanted: pool::Tag) -> Result<Self::Connection, Error> {
        let asked = if wanted == tag(Lane::Write) {
            Lane::Write
        } else {
            Lane::Read
        };
        let lane = self.0.always.unwrap_or(asked);
        self.0.open(lane).await
    }

    fn condition(&self, connection: &Self::Connection) -> pool::Condition {
        match connection.condition() {
            Condition::Clean => pool::Condition::Clean,
            Condition::Dirty => pool::Condition::Dirty,
            Condition::Broken => pool::Condition::Broken,
        }
    }

    fn tag(&self, connection: &Self::Connection) -> Option<pool::Tag> {
        Some(tag(connection.lane()))
    }

    async fn check(&self, connection: &mut Self::Connection) -> Result<(), Error> {
        connection.check(Deadline::from_now(CHECK_TIMEOUT)).await
    }

    async fn clean(&self, connection: &mut Self::Connection) -> Result<(), Error> {
        connection.clean(Deadline::from_now(CLEAN_TIMEOUT)).await
    }

    async fn close(&self, connection: Self::Connection, reason: pool::CloseReason) {
        tracing::debug!(reason = reason.as_str(), "closing a connection");
        let patience = match reason {
            pool::CloseReason::CheckFailed | pool::CloseReason::CleanFailed => PARTING_TIME,
            _ => CLOSE_TIMEOUT,
        };
        connection.close(Deadline::from_now(patience)).await;
    }

    fn is_permanent(&self, error: &Error) -> bool {
        self.0.backend.is_permanent(error)
    }

    fn retry_after(&self, error: &Error) -> Option<Duration> {
        error.retry_after()
    }

    fn timed_out(&self, after: Duration) -> Option<Error> {
        Some(self.0.silence(after))
    }
}
