//! A backend, as the pool sees it.

use mainstay_core::backend::{Backend, Condition, Connection, Lane};
use mainstay_core::error::Report;
use mainstay_core::{Deadline, Error, Evidence, Kind};
use mainstay_pool as pool;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// How long the server may take to answer a check. A healthy one answers in a round trip; one that
/// needs longer than a second is better replaced than waited for.
pub(crate) const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long cleaning may take before the connection is given up: cancel, drain and roll back are
/// three round trips.
pub(crate) const CLEAN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server may take to let go of a connection before its slot is counted free.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The tag under which the pool remembers a connection's lane.
pub(crate) fn tag(lane: Lane) -> pool::Tag {
    pool::Tag(match lane {
        Lane::Read => 0,
        Lane::Write => 1,
    })
}

pub(crate) struct Connector {
    backend: Arc<dyn Backend>,
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
        connect_timeout: Duration,
        always: Option<Lane>,
    ) -> Self {
        Self {
            backend,
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
        let deadline = Deadline::from_now(self.0.connect_timeout);
        let connection = self.0.backend.connect(lane, deadline).await?;
        self.0.remember(&connection);
        Ok(connection)
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
        connection.close(Deadline::from_now(CLOSE_TIMEOUT)).await;
    }

    fn is_permanent(&self, error: &Error) -> bool {
        self.0.backend.is_permanent(error)
    }

    fn timed_out(&self, after: Duration) -> Option<Error> {
        let target = self.0.backend.target();
        let report = Report::new(
            Kind::Unreachable,
            format!("{target} did not answer an attempt to connect within {after:.1?}"),
        );
        Some(
            report
                .evidence(Evidence::Silent)
                .remedy("check that the server runs and that no firewall drops the packets")
                .into(),
        )
    }
}
