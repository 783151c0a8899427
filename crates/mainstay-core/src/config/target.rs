//! Which database, and how to log in.

use super::{CredentialsProvider, Secret};
use crate::backend::System;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The database that a URL names. `Display` shows it without user and password.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one of them in a process, as a rule"
)]
pub enum Target {
    /// A PostgreSQL database.
    Postgres(PostgresTarget),
    /// A SQLite file, or memory.
    Sqlite(SqliteTarget),
}

impl Target {
    /// Which system it is.
    #[must_use]
    pub fn system(&self) -> System {
        match self {
            Self::Postgres(_) => System::Postgres,
            Self::Sqlite(_) => System::Sqlite,
        }
    }
}

/// A PostgreSQL database.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PostgresTarget {
    /// The hosts, tried in order. Never empty.
    pub hosts: Vec<Host>,
    /// The role.
    pub user: String,
    /// Its password.
    pub password: Option<Secret>,
    /// Who is asked for role and password instead, whenever a connection is opened.
    pub credentials: Option<CredentialsProvider>,
    /// The database.
    pub database: String,
    /// The schema that is searched first.
    pub schema: Option<String>,
    /// What the server shows for our sessions.
    pub application_name: Option<String>,
    /// libpq's `options`, such as `-c work_mem=64MB`.
    pub options: Option<String>,
    /// Whether SCRAM binds the login to the TLS channel.
    pub channel_binding: ChannelBinding,
    /// TLS.
    pub tls: Tls,
    /// How a peer that is gone is noticed.
    pub keep_alive: KeepAlive,
    /// A transaction pooler stands between: nothing of the session may be relied on.
    pub pgbouncer: bool,
    /// What a server must be to be connected to; see [`wanted`](Self::wanted) for what is left out.
    pub session_attrs: Option<SessionAttrs>,
    /// Which servers reads are sent to.
    pub read_from: ReadFrom,
    /// How far behind the primary a replica may be that reads are sent to.
    pub max_replica_lag: Duration,
}

impl PostgresTarget {
    /// What a server must be. Of one host nothing is asked; of several, that it takes writes: the
    /// others are there for the day on which the first one does not.
    #[must_use]
    pub fn wanted(&self) -> SessionAttrs {
        match self.session_attrs {
            Some(wanted) => wanted,
            None if self.hosts.len() > 1 => SessionAttrs::ReadWrite,
            None => SessionAttrs::Any,
        }
    }

    /// A target with libpq's defaults.
    #[must_use]
    pub fn new(host: Host, user: impl Into<String>, database: impl Into<String>) -> Self {
        Self {
            hosts: vec![host],
            user: user.into(),
            password: None,
            credentials: None,
            database: database.into(),
            schema: None,
            application_name: None,
            options: None,
            channel_binding: ChannelBinding::Prefer,
            tls: Tls::default(),
            keep_alive: KeepAlive::default(),
            pgbouncer: false,
            session_attrs: None,
            read_from: ReadFrom::Primary,
            max_replica_lag: MAX_REPLICA_LAG,
        }
    }
}

/// A healthy standby is milliseconds behind; one that is ten seconds behind has a problem, and an answer
/// of the primary is worth more than an old one.
const MAX_REPLICA_LAG: Duration = Duration::from_secs(10);

/// Which servers reads are sent to.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// Those that take the writes.
    Primary,
    /// Standbys, as long as one is there that has what was written before.
    Replica,
}

/// How the operating system notices that the other side of a TCP connection is gone.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeepAlive {
    /// Whether an idle connection is probed at all.
    pub enabled: bool,
    /// How long nothing may pass before the first probe.
    pub idle: Duration,
    /// How long an answer to a probe is waited for.
    pub interval: Duration,
    /// How many probes may stay unanswered.
    pub count: u32,
    /// How long what was sent may stay unacknowledged; `None` for the system's own.
    pub user_timeout: Option<Duration>,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self {
            enabled: true,
            idle: Duration::from_secs(15),
            interval: Duration::from_secs(5),
            count: 3,
            user_timeout: Some(Duration::from_secs(20)),
        }
    }
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Host {
    /// A name or address, and a port.
    Tcp {
        /// Name or address, without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// A directory with a Unix socket, and the port that is part of the socket's name.
    Unix {
        /// Directory.
        directory: PathBuf,
        /// Port.
        port: u16,
    },
}

/// libpq's `target_session_attrs`: what a server must be to be connected to.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum SessionAttrs {
    /// Whatever answers.
    Any,
    /// Not in recovery, and not read-only by its own default.
    ReadWrite,
    /// In recovery, or read-only by its own default.
    ReadOnly,
    /// Not in recovery.
    Primary,
    /// In recovery.
    Standby,
    /// In recovery if there is one, else whatever answers.
    PreferStandby,
}

/// TLS, in libpq's terms.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Tls {
    /// How much is demanded.
    pub mode: SslMode,
    /// The authorities that are trusted, PEM; `system` means the operating system's.
    pub root_cert: Option<PathBuf>,
    /// The client's certificate chain, PEM.
    pub client_cert: Option<PathBuf>,
    /// The client's private key, PEM.
    pub client_key: Option<PathBuf>,
}

/// libpq's `sslmode`.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// Plain first, TLS if the server insists.
    Allow,
    /// TLS if the server offers it, without looking at the certificate. libpq's default.
    #[default]
    Prefer,
    /// TLS or nothing. With a root certificate it is [`VerifyCa`](Self::VerifyCa), as in libpq.
    Require,
    /// TLS, and the certificate comes from a trusted authority.
    VerifyCa,
    /// TLS, a trusted certificate, and it names the host.
    VerifyFull,
}

/// libpq's `channel_binding`.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// If the server offers it.
    #[default]
    Prefer,
    /// Or nothing.
    Require,
}

/// A SQLite database.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SqliteTarget {
    /// Where it is.
    pub path: SqlitePath,
    /// Whether a commit survives a power cut.
    pub durability: Durability,
    /// How long SQLite waits for a lock of another process.
    pub busy_timeout: Duration,
    /// Whether a health check also takes the write lock.
    pub write_probe: bool,
    /// Whether the file may lie on a network file system.
    pub network_file_system: bool,
    /// From how many bytes of the write-ahead log on a read that keeps it from being emptied is
    /// ended; `None` never.
    pub wal_limit: Option<u64>,
}

impl SqliteTarget {
    /// A target with the defaults.
    #[must_use]
    pub fn new(path: SqlitePath) -> Self {
        Self {
            path,
            durability: Durability::Full,
            // Only other processes can make us wait: inside this one, callers queue for the writer.
            busy_timeout: Duration::from_secs(5),
            // Behind a long write of another process a service that only reads would be called ill.
            write_probe: false,
            // Shared memory and locks that hold are what the write-ahead log is made of.
            network_file_system: false,
            // How long a read may last is the application's affair; that the log grows is told.
            wal_limit: None,
        }
    }
}

/// Where a SQLite database is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SqlitePath {
    /// A file.
    File(PathBuf),
    /// Memory: one connection, gone when the handle is.
    Memory,
    /// A file of its own, which is removed when the last connection to it is closed. Nothing of it
    /// is synced.
    Temporary,
}

/// What a commit survives.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// A power cut (`synchronous=FULL`).
    #[default]
    Full,
    /// A crash of the process; the last commits may be missing after a power cut
    /// (`synchronous=NORMAL`).
    Relaxed,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(target) => {
                f.write_str("postgres://")?;
                for (index, host) in target.hosts.iter().enumerate() {
                    if index > 0 {
                        f.write_str(",")?;
                    }
                    host.fmt(f)?;
                }
                write!(f, "/{}", target.database)
            }
            Self::Sqlite(target) => match &target.path {
                SqlitePath::File(path) => write!(f, "file:{}", path.display()),
                SqlitePath::Memory => f.write_str("file::memory:"),
                SqlitePath::Temporary => f.write_str("file:?temp"),
            },
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { directory, port } => write!(f, "{}:{port}", directory.display()),
        }
    }
}
