//! Configuration: one typed [`Config`], from a URL, the environment and a builder.
//!
//! A pool size that is silently ignored because it was misspelt is found on the worst day of the
//! year. So every name is known or refused with the nearest known one, every number says its unit,
//! and nothing is weaker than it reads: `sslmode` means what libpq says it means.
//!
//! Precedence: builder, then `DB_*`, then the URL, then the default. Nothing here reads the
//! process environment; the facade hands the variables in.
//!
//! In reading order: `table` lists every parameter once, `form` says what a value looks like, `url`
//! with `postgres_url` and `sqlite_url` takes a URL apart, `variables` adds the environment,
//! `draft` settles what parameters mean together, and `check` is what must hold at the end.

mod check;
mod credentials;
mod defaults;
mod draft;
mod duration;
mod form;
mod hosts_table;
mod parameters;
mod postgres_url;
mod secret;
mod sqlite_table;
mod sqlite_url;
mod suggest;
mod table;
mod target;
mod tcp_table;
mod url;
mod variables;

pub use credentials::{Credentials, CredentialsProvider};
pub use defaults::default_connection_limit;
pub use parameters::{Applies, PARAMETERS, Parameter, parameters_in_markdown};
pub use secret::Secret;
pub use target::{
    ChannelBinding, Durability, Host, KeepAlive, PostgresTarget, ReadFrom, SessionAttrs,
    SqlitePath, SqliteTarget, SslMode, Target, Tls,
};

use crate::backend::Isolation;
use crate::error::{Kind, Report};
use draft::Draft;
use std::time::Duration;

/// Everything that can be configured, checked and with its defaults filled in.
///
/// `None` in a duration means "no limit". The reason for each default stands in the table of the
/// documentation, `docs/database/connection-management.md`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Which database, and how to log in.
    pub target: Target,
    /// The most connections open at once, both lanes together. At least 1.
    pub connection_limit: usize,
    /// Connections that are kept open even when idle.
    pub min_connections: usize,
    /// How long a call may wait for a connection.
    pub pool_timeout: Option<Duration>,
    /// How long one attempt to open a connection may take.
    pub connect_timeout: Duration,
    /// How long one call may take as a whole: waiting, connecting, executing, retrying.
    pub timeout: Duration,
    /// How long the server lets one statement run; set on every session.
    pub statement_timeout: Option<Duration>,
    /// A connection is replaced after this long, ± 25 %.
    pub max_connection_lifetime: Option<Duration>,
    /// A connection above the minimum is closed after this long without use.
    pub max_idle_connection_lifetime: Option<Duration>,
    /// Prepared statements kept for each connection.
    pub statement_cache_size: usize,
    /// Isolation of transactions that do not say otherwise.
    pub isolation: Option<Isolation>,
    /// Whether a missing column for an optional field is an error.
    pub strict_rows: bool,
    /// How often a failed call is tried again at most.
    pub retry_max: u32,
    /// The first delay before a repetition; doubled each time, with full jitter.
    pub retry_base: Duration,
    /// An outage up to this long is waited out; zero turns that off.
    pub ride_through: Duration,
    /// The most callers that wait for a connection at once.
    pub max_waiters: usize,
    /// A queue in which everybody has waited longer than this, for a second, is cut down; `None` leaves it.
    pub shed_after: Option<Duration>,
    /// A statement that takes longer is logged, without its parameters.
    pub slow_statement: Option<Duration>,
    /// A lease held longer is logged with its call site.
    pub long_hold: Option<Duration>,
    /// How long `close` waits for leases before it cancels what runs.
    pub close_grace: Duration,
}

/// The beginning of every error here.
fn refusal(message: impl Into<std::borrow::Cow<'static, str>>) -> Report {
    Report::new(Kind::Config, message)
}
