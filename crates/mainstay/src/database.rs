//! The handle that an application holds.

use crate::attempts::{Attempts, Setback};
use crate::bound::{answer_by, frame};
use crate::builder::Builder;
use crate::engine::Engine;
use crate::lanes::PoolLease;
use crate::router::Company;
use crate::system;
use mainstay_core::backend::{Backend, Begin, Lane, Progress, System};
use mainstay_core::error::Report;
use mainstay_core::{Config, Deadline, Error, IntoParams, Kind, Result, Statement};
use mainstay_resilience::Work;
use std::future::Future;
use std::panic::Location;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::Instant;

static GLOBAL: OnceCell<Database> = OnceCell::const_new();

/// One database: a cheap clone, shared by everything in a process that talks to it.
///
/// Dropping the last clone closes the connections without waiting; [`close`](Self::close) ends in
/// order.
#[derive(Clone, Debug)]
pub struct Database {
    engine: Arc<Engine>,
    deadline: Option<Deadline>,
}

impl Database {
    /// Opens the database that `DATABASE_URL` and `DB_*` describe, verifies that it answers and
    /// opens the minimum of connections.
    ///
    /// # Errors
    ///
    /// [`Kind::Config`] naming the variable or parameter; what the database answers when it is
    /// asked for the first time.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes what was opened.
    pub async fn from_env() -> Result<Self> {
        Builder::from_env()?.open().await
    }

    /// Opens the database of a URL, verifies that it answers and opens the minimum of connections.
    /// The environment is not read.
    ///
    /// # Errors
    ///
    /// As [`from_env`](Self::from_env).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes what was opened.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::builder(url).open().await
    }

    /// Starts a configuration: the URL first, the builder's settings over it.
    pub fn builder(url: &str) -> Builder {
        Builder::from_url(url)
    }

    /// The process's own database, opened from the environment by the first caller.
    ///
    /// # Errors
    ///
    /// As [`from_env`](Self::from_env); the next caller tries again.
    ///
    /// # Cancel safety
    ///
    /// Safe: another caller takes over the opening.
    pub async fn global() -> Result<&'static Self> {
        GLOBAL.get_or_try_init(Self::from_env).await
    }

    /// A database on a backend of one's own. Nothing is opened until it is used.
    #[must_use]
    pub fn with_backend(config: Config, backend: Arc<dyn Backend>) -> Self {
        Self {
            engine: Engine::new(config, backend),
            deadline: None,
        }
    }

    /// The backend that serves this handle.
    #[must_use]
    pub fn backend(&self) -> Arc<dyn Backend> {
        Arc::clone(&self.engine.backend)
    }

    pub(crate) fn from_config(config: Config) -> Result<Self> {
        config.check()?;
        let backend = system::backend(&config)?;
        Ok(Self::with_backend(config, backend))
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    pub(crate) fn own_deadline(&self) -> Option<Deadline> {
        self.deadline
    }

    /// The earlier of the handle's deadline and a call's timeout.
    pub(crate) fn deadline_for(&self, timeout: Option<Duration>) -> Deadline {
        self.deadline_from(Instant::now(), timeout)
    }

    /// The same for a caller that has just read the clock.
    pub(crate) fn deadline_from(&self, now: Instant, timeout: Option<Duration>) -> Deadline {
        let timeout = match (timeout, self.deadline) {
            (None, Some(deadline)) => return deadline,
            (None, None) => self.engine.config.timeout,
            (Some(timeout), _) => timeout,
        };
        let own = Deadline::after(now, timeout);
        self.deadline.map_or(own, |deadline| deadline.earliest(own))
    }

    /// A view of the same database on which every call ends by `at`: for the middleware that knows
    /// until when a request is worth answering.
    #[must_use]
    pub fn with_deadline(&self, at: Instant) -> Self {
        let at = Deadline::at(at);
        let deadline = self.deadline.map_or(at, |deadline| deadline.earliest(at));
        Self {
            engine: Arc::clone(&self.engine),
            deadline: Some(deadline),
        }
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.engine.config
    }

    /// Which database system it is.
    #[must_use]
    pub fn system(&self) -> System {
        self.engine.backend.system()
    }

    /// Where the database is, without user and password.
    #[must_use]
    pub fn target(&self) -> &str {
        self.engine.backend.target()
    }

    /// Since when this handle exists.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.engine.opened_at.elapsed()
    }

    /// Runs statements as one atomic unit, without a closure: one round trip where the database
    /// allows it. Answers the affected rows of each. Never repeated after an unknown outcome.
    ///
    /// ```no_run
    /// # async fn example(db: &mainstay::Database) -> mainstay::Result<()> {
    /// use mainstay::statement;
    /// let affected = db
    ///     .batch([
    ///         statement("insert into orders (sku) values ($1)", ("a-1",)),
    ///         statement("update stock set available = available - 1 where sku = $1", ("a-1",)),
    ///     ])
    ///     .await?;
    /// assert_eq!(affected.len(), 2);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The first statement's that failed; then nothing of the unit has happened.
    ///
    /// # Cancel safety
    ///
    /// All or nothing; a dropped batch may have happened.
    #[track_caller]
    pub fn batch<S, I>(
        &self,
        statements: I,
    ) -> impl Future<Output = Result<Vec<u64>>> + Send + use<'_, S, I>
    where
        S: IntoStatement,
        I: IntoIterator<Item = S>,
    {
        let site = Location::caller();
        let statements: Result<Vec<Statement>> = statements
            .into_iter()
            .map(IntoStatement::into_statement)
            .collect();
        async move {
            let statements = statements?;
            for statement in &statements {
                crate::router::check_inside_transaction(&*self.engine.backend, statement.text())?;
            }
            let deadline = self.deadline_for(None);
            let mut attempts = Attempts::new(&self.engine.retrier, deadline);
            loop {
                match self.batch_once(&statements, deadline, site).await {
                    Ok(affected) => {
                        attempts.succeeded();
                        return Ok(affected);
                    }
                    Err(setback) => attempts.after(setback).await?,
                }
            }
        }
    }

    async fn batch_once(
        &self,
        statements: &[Statement],
        deadline: Deadline,
        site: &'static Location<'static>,
    ) -> Result<Vec<u64>, Setback> {
        let (lane, now) = (Lane::Write, Instant::now());
        let seating = self.engine.seat(now, lane, Company::Mixed, deadline, site);
        let (hold, since) = seating.await?;
        let call = frame(lane, deadline, since);
        let begin = Begin {
            isolation: self.engine.config.isolation,
            read_only: false,
        };
        let before = hold.lane();
        let running = if hold.is_shared() {
            hold.batch_shared(statements, begin, call)
        } else {
            hold.batch(statements, begin, call)
        };
        let result = answer_by(deadline, lane, running).await;
        hold.settle(before, lane);
        self.engine
            .witness("batch", since.elapsed(), result.as_ref().err());
        result.map_err(|error| Setback::Failed(error, Work::Unit))
    }

    /// A lease for what is not repeated.
    pub(crate) async fn lease(
        &self,
        lane: Lane,
        deadline: Deadline,
        site: &'static Location<'static>,
    ) -> Result<PoolLease> {
        let lease = self.engine.admit(lane, deadline, site);
        lease.await.map_err(Setback::into_error)
    }

    /// The same for a read that no replica may serve.
    pub(crate) async fn lease_at_home(
        &self,
        deadline: Deadline,
        site: &'static Location<'static>,
    ) -> Result<PoolLease> {
        let lease = self.engine.admit_at_home(deadline, site);
        lease.await.map_err(Setback::into_error)
    }

    /// Writes a consistent copy of the database to a file that must not exist yet, while it is in
    /// use. `progress` is told how far it is.
    ///
    /// # Errors
    ///
    /// [`Kind::Storage`] when the file exists or cannot be written; [`Kind::Config`] when the
    /// database's own tool is missing.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves no file under the given name.
    pub async fn backup(&self, to: &Path, progress: Progress<'_>) -> Result<crate::Backup> {
        self.engine.backend.backup(to, progress).await
    }

    /// Creates the database if it does not exist; answers whether it did.
    ///
    /// # Errors
    ///
    /// What the server answers.
    ///
    /// # Cancel safety
    ///
    /// The database may have been created.
    pub async fn create(&self) -> Result<bool> {
        let deadline = Deadline::from_now(self.engine.config.timeout);
        let created = self.engine.backend.create(deadline).await?;
        if created {
            // That it does not exist is why nobody was let in.
            self.engine.gate.forget_refusal();
        }
        Ok(created)
    }

    /// Removes every object of the application from the database. There is no way back.
    ///
    /// # Errors
    ///
    /// What the server answers.
    ///
    /// # Cancel safety
    ///
    /// A part may be removed.
    #[track_caller]
    pub fn erase(&self) -> impl Future<Output = Result<()>> + Send {
        let site = Location::caller();
        async move {
            let deadline = self.deadline_for(None);
            let lease = self.lease(Lane::Write, deadline, site).await?;
            let erased = self.engine.backend.erase(&**lease, deadline).await;
            self.engine.router.forget_all();
            erased
        }
    }

    /// The refusal that a call would meet now, while the breaker is open or the server refuses to log us
    /// in. It costs no I/O and does
    /// not count as a call, so that a server can turn requests away before it reads them.
    #[must_use]
    pub fn refusal(&self) -> Option<Error> {
        self.engine.gate.refusing()
    }

    /// Opens the breaker until [`breaker_automatic`](Self::breaker_automatic): every call is refused
    /// at once. For an operator who knows better.
    pub fn breaker_force_open(&self) {
        self.engine.gate.force_open();
    }

    /// Keeps the breaker closed, all its gates, until [`breaker_automatic`](Self::breaker_automatic).
    pub fn breaker_force_close(&self) {
        self.engine.gate.force_close();
    }

    /// Ends an order to keep the breaker open or closed. Also forgets that the server refused to log us
    /// in, so that the next call asks it at once: for the moment in which the password was repaired.
    pub fn breaker_automatic(&self) {
        self.engine.gate.automatic();
    }
}

/// A statement for [`Database::batch`]. A value that cannot be bound is reported by the batch.
///
/// # Errors
///
/// As [`Statement::new`].
pub fn statement(text: &str, params: impl IntoParams) -> Result<Statement> {
    Statement::new(text, params)
}

/// A statement, or the reason why it could not be made.
pub trait IntoStatement {
    /// The statement.
    ///
    /// # Errors
    ///
    /// The reason why it could not be made.
    fn into_statement(self) -> Result<Statement>;
}

impl IntoStatement for Statement {
    fn into_statement(self) -> Result<Statement> {
        Ok(self)
    }
}

impl IntoStatement for Result<Statement, Error> {
    fn into_statement(self) -> Result<Statement> {
        self
    }
}

/// The error of a feature that was left out when the program was built.
#[cfg_attr(
    all(feature = "postgres", feature = "sqlite"),
    expect(dead_code, reason = "all in")
)]
pub(crate) fn not_built_in(system: &'static str) -> Error {
    Report::new(
        Kind::Config,
        format!("this program was built without support for {system}"),
    )
    .remedy(format!("build mainstay with the feature `{system}`"))
    .into()
}
