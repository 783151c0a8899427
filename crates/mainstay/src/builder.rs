//! How a database is configured and opened.

use crate::database::Database;
use mainstay_core::backend::Isolation;
use mainstay_core::config::{Credentials, CredentialsProvider, Target};
use mainstay_core::error::Report;
use mainstay_core::{Config, Deadline, Error, Kind, Result};
use std::future::Future;
use std::time::Duration;

/// A configuration in the making: what the builder sets wins over the environment, which wins over
/// the URL, which wins over the default.
///
/// ```no_run
/// # async fn example() -> mainstay::Result<()> {
/// use mainstay::Database;
/// use std::time::Duration;
///
/// let db = Database::builder("postgres://app@db.internal/app")
///     .connection_limit(20)
///     .min_connections(4)
///     .pool_timeout(Duration::from_secs(10))
///     .statement_timeout(Duration::from_secs(30))
///     .open()
///     .await?;
/// # drop(db); Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is opened"]
pub struct Builder {
    config: Result<Config>,
}

impl Builder {
    /// From a URL alone.
    pub fn from_url(url: &str) -> Self {
        Self {
            config: Config::from_url(url),
        }
    }

    /// From `DATABASE_URL` and `DB_*`.
    ///
    /// # Errors
    ///
    /// [`Kind::Config`](crate::Kind::Config), naming the variable.
    pub fn from_env() -> Result<Self> {
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        // Each is logged where it is found; there is nothing more to do about a stranger's variable.
        drop(Config::near_misses(names));
        Config::from_variables(|name| {
            // What is not text becomes text that no parameter takes, and is refused by name.
            std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
        })
        .map(Self::from_config)
    }

    /// From a configuration.
    pub fn from_config(config: Config) -> Self {
        Self { config: Ok(config) }
    }

    fn set(mut self, set: impl FnOnce(&mut Config)) -> Self {
        if let Ok(config) = &mut self.config {
            set(config);
        }
        self
    }

    /// Asks for the credentials whenever a connection is opened, instead of taking them from the URL: for
    /// tokens that are good for minutes and roles that a vault replaces. A login that is refused is tried
    /// once more if the provider has another answer by then.
    ///
    /// ```no_run
    /// # async fn token() -> std::io::Result<String> { Ok(String::new()) }
    /// # async fn example() -> mainstay::Result<()> {
    /// use mainstay::Database;
    /// use mainstay::config::Credentials;
    ///
    /// let db = Database::builder("postgres://app@db.internal/app?sslmode=verify-full")
    ///     .credentials(|| async { token().await.map(Credentials::password) })
    ///     .open()
    ///     .await?;
    /// # drop(db); Ok(()) }
    /// ```
    ///
    /// Opening answers [`Kind::Credentials`](crate::Kind::Credentials) when the provider fails, with its
    /// error as the source, and [`Kind::Config`](crate::Kind::Config) on a SQLite file, which asks for none.
    pub fn credentials<F, Fut, E>(mut self, provider: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let provider = CredentialsProvider::new(provider);
        self.config = self.config.and_then(|mut config| match &mut config.target {
            Target::Postgres(target) => {
                target.credentials = Some(provider);
                Ok(config)
            }
            _ => Err(
                Report::new(Kind::Config, "a SQLite file asks for no credentials")
                    .remedy("leave `credentials` out for this URL")
                    .into(),
            ),
        });
        self
    }

    /// The most connections open at once, both lanes together.
    pub fn connection_limit(self, connections: usize) -> Self {
        self.set(|config| config.connection_limit = connections)
    }

    /// Connections that are kept open even when idle.
    pub fn min_connections(self, connections: usize) -> Self {
        self.set(|config| config.min_connections = connections)
    }

    /// How long a call may wait for a connection; zero for as long as the call's own deadline, as
    /// in the URL.
    pub fn pool_timeout(self, timeout: Duration) -> Self {
        self.set(|config| config.pool_timeout = Some(timeout).filter(|limit| !limit.is_zero()))
    }

    /// How long one attempt to open a connection may take.
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        self.set(|config| config.connect_timeout = timeout)
    }

    /// How long one call may take as a whole.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.set(|config| config.timeout = timeout)
    }

    /// How long the server lets one statement run.
    pub fn statement_timeout(self, timeout: Duration) -> Self {
        self.set(|config| config.statement_timeout = Some(timeout))
    }

    /// A connection is replaced after this long, ± 25 %; `None` for never.
    pub fn max_connection_lifetime(self, lifetime: impl Into<Option<Duration>>) -> Self {
        let lifetime = lifetime.into();
        self.set(|config| config.max_connection_lifetime = lifetime)
    }

    /// A connection above the minimum is closed after this long without use; `None` for never.
    pub fn max_idle_connection_lifetime(self, lifetime: impl Into<Option<Duration>>) -> Self {
        let lifetime = lifetime.into();
        self.set(|config| config.max_idle_connection_lifetime = lifetime)
    }

    /// Prepared statements kept for each connection.
    pub fn statement_cache_size(self, statements: usize) -> Self {
        self.set(|config| config.statement_cache_size = statements)
    }

    /// Isolation of transactions that do not say otherwise.
    pub fn isolation(self, isolation: Isolation) -> Self {
        self.set(|config| config.isolation = Some(isolation))
    }

    /// Makes a missing column for an optional field an error.
    pub fn strict_rows(self, strict: bool) -> Self {
        self.set(|config| config.strict_rows = strict)
    }

    /// How often a failed call is tried again at most; 0 for never.
    pub fn retry_max(self, retries: u32) -> Self {
        self.set(|config| config.retry_max = retries)
    }

    /// The first delay before a repetition.
    pub fn retry_base(self, delay: Duration) -> Self {
        self.set(|config| config.retry_base = delay)
    }

    /// An outage up to this long is waited out; zero turns that off.
    pub fn ride_through(self, outage: Duration) -> Self {
        self.set(|config| config.ride_through = outage)
    }

    /// The most callers that wait for a connection at once.
    pub fn max_waiters(self, waiters: usize) -> Self {
        self.set(|config| config.max_waiters = waiters)
    }

    /// Refuses callers early when there are more of them than connections can serve: when everybody has
    /// waited longer than this for a second, those who have waited twice as long are refused
    /// ([`Kind::Shed`](crate::Kind::Shed)), and so is whoever has less time left than a connection is usually held
    /// for. Never, unless this is called; 100 ms is a good value. An outage is not overload: those who
    /// wait while no connection can be opened are left alone.
    pub fn shed_after(self, waited: Duration) -> Self {
        self.set(|config| config.shed_after = Some(waited))
    }

    /// Whether a health check also takes the write lock and gives it back (SQLite). Elsewhere it has
    /// no effect.
    pub fn write_probe(self, probe: bool) -> Self {
        self.set(|config| {
            if let Target::Sqlite(target) = &mut config.target {
                target.write_probe = probe;
            }
        })
    }

    /// How long `close` waits for leases before it cancels what runs.
    pub fn close_grace(self, grace: Duration) -> Self {
        self.set(|config| config.close_grace = grace)
    }

    /// Opens: verifies that the database answers, and opens the minimum of connections.
    ///
    /// # Errors
    ///
    /// [`Kind::Config`](crate::Kind::Config) for what is configured wrongly; what the database
    /// answers when it is asked for the first time, within the connect timeout.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes what was opened.
    pub async fn open(self) -> Result<Database> {
        let db = self.open_lazy()?;
        let deadline = Deadline::from_now(db.config().connect_timeout);
        match db.engine().lanes.warm(deadline).await {
            Ok(()) => Ok(db),
            Err(error) => {
                db.close_within(Duration::ZERO).await;
                Err(name_the_silent(error, db.target()))
            }
        }
    }

    /// Opens without asking the database: for services that start while it is still away. The
    /// connections are opened when they are needed; readiness tells.
    ///
    /// # Errors
    ///
    /// [`Kind::Config`](crate::Kind::Config) for what is configured wrongly.
    pub fn open_lazy(self) -> Result<Database> {
        Database::from_config(self.config?)
    }
}

/// Silence has no words of its own: who was silent, and what to try, is said here.
fn name_the_silent(error: Error, target: &str) -> Error {
    if error.kind() != Kind::Unreachable || error.remedy().is_some() {
        return error;
    }
    let waited = error.waited().unwrap_or_default();
    error
        .into_report()
        .message(format!("{target} did not answer within {waited:.1?}"))
        .remedy("check that the server runs and that nothing on the way drops its packets")
        .into()
}
