//! A PostgreSQL server for one test, because the promises of a database layer are kept or broken
//! where it restarts, stalls or goes away, and nobody may do that to a server that others use.
//!
//! A [`Cluster`] is made by `initdb` in a temporary directory, listens on a free port of 127.0.0.1
//! (never 5432) and on a Unix socket, and ends with the test process, also when that panics or is
//! killed. It runs as another user when the tests run as root. Any version from 13 will do;
//! `PG_BIN`, `PATH` and the usual directories are searched.
//!
//! The methods block: they start programs and wait for them. In async code, [`Cluster::run`] takes
//! them off the runtime's threads.
//!
//! ```no_run
//! use mainstay_testkit::cluster::{Cluster, Mode};
//!
//! # fn main() -> Result<(), mainstay_testkit::cluster::Error> {
//! let cluster = Cluster::builder().setting("max_connections", 20).start()?;
//! cluster.psql("create table t (id int)")?;
//! cluster.stop(Mode::Fast)?;
//! cluster.start_again()?; // the same port, the same data
//! assert_eq!(cluster.psql("select count(*) from t")?, "0");
//! # Ok(())
//! # }
//! ```

mod account;
mod binaries;
mod builder;
mod databases;
mod error;
mod image;
mod keeper;
mod pooler;
mod processes;
mod standby;
mod tls;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

pub use self::builder::{Auth, Builder};
pub use self::databases::{TestDatabase, database, shared_cluster};
pub use self::error::{Error, Result};
pub use self::pooler::Pooler;

use self::binaries::Binaries;
use self::image::Password;
use self::keeper::Keeper;
use self::processes::{signal, signal_children};
use self::tls::TlsFiles;
use crate::wait::wait_for_blocking;

/// The only role of a fresh cluster.
const SUPERUSER: &str = "postgres";

/// The database that exists from the start.
const FIRST_DATABASE: &str = "postgres";

/// A start takes a fraction of a second, on a loaded machine a few; recovery after
/// [`Mode::Immediate`] takes longer.
const START_LIMIT: Duration = Duration::from_secs(60);

/// [`Mode::Smart`] waits for clients that may never leave.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// What may stand in a URL unescaped.
const URL_PART: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'/');

/// How much of the log an error carries.
const LOG_TAIL_LINES: usize = 30;

/// How a server is stopped, in PostgreSQL's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// Refuses new clients and waits until the present ones have left.
    Smart,
    /// Rolls back what is open, says goodbye to the clients (57P01), writes a checkpoint.
    Fast,
    /// Dies without a checkpoint; the next start recovers, as after a crash.
    Immediate,
}

impl Mode {
    fn signal(self) -> &'static str {
        match self {
            Self::Smart => "TERM",
            Self::Fast => "INT",
            Self::Immediate => "QUIT",
        }
    }
}

/// A throw-away PostgreSQL server: a handle that is cheap to clone; the last one ends the server.
#[derive(Clone)]
pub struct Cluster {
    server: Arc<Server>,
}

struct Server {
    binaries: Binaries,
    port: u16,
    password: Password,
    tls: Option<TlsFiles>,
    keeper: Mutex<Keeper>,
    root: PathBuf,
}

impl Cluster {
    /// A cluster with settings of its own.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Starts a cluster with the default settings.
    ///
    /// # Errors
    ///
    /// When no PostgreSQL is installed (the message says where it was looked for) or the server
    /// does not start (the message carries the end of its log).
    pub fn start() -> Result<Self> {
        Builder::default().start()
    }

    /// Runs blocking work on the cluster without blocking the runtime:
    /// `cluster.run(|cluster| cluster.stop(Mode::Fast)).await?`.
    ///
    /// # Errors
    ///
    /// Those of the work; a panic of the work continues here.
    ///
    /// # Cancel safety
    ///
    /// Once begun the work goes on to its end on its own thread; its result is lost.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let cluster = self.clone();
        off_the_runtime(move || work(&cluster)).await
    }

    /// `postgres://user:password@127.0.0.1:port/database` for the first database.
    pub fn url(&self) -> String {
        self.url_for(FIRST_DATABASE)
    }

    /// The URL of another database of this cluster.
    pub fn url_for(&self, database: &str) -> String {
        let Server { port, password, .. } = &*self.server;
        let database = utf8_percent_encode(database, URL_PART);
        format!(
            "postgres://{SUPERUSER}:{}@127.0.0.1:{port}/{database}",
            password.reveal()
        )
    }

    /// The URL of the first database through the Unix socket, in the form that libpq and Prisma
    /// know. No password is asked for there.
    pub fn socket_url(&self) -> String {
        let directory = self.socket_directory().display().to_string();
        let directory = utf8_percent_encode(&directory, URL_PART);
        let port = self.server.port;
        format!("postgres://{SUPERUSER}@localhost:{port}/{FIRST_DATABASE}?host={directory}")
    }

    /// Where the Unix socket lies.
    pub fn socket_directory(&self) -> &Path {
        &self.server.root
    }

    /// The TCP port on 127.0.0.1. It stays the same over [`Cluster::start_again`].
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// The superuser's name and password.
    pub fn credentials(&self) -> (&str, &str) {
        (SUPERUSER, self.server.password.reveal())
    }

    /// The major version, 13 or more.
    pub fn version(&self) -> u32 {
        self.server.binaries.major()
    }

    /// The path of one of PostgreSQL's programs of this version, for instance `pg_dump`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.server.binaries.program(name)
    }

    /// The certificate of the CA that signed the server's, if the cluster speaks TLS.
    pub fn ca_file(&self) -> Option<&Path> {
        self.server.tls.as_ref().map(|tls| tls.ca.as_path())
    }

    /// Certificate and private key of a client, signed by the same CA, if the cluster speaks TLS.
    pub fn client_certificate(&self) -> Option<(&Path, &Path)> {
        let tls = self.server.tls.as_ref()?;
        Some((&tls.client_certificate, &tls.client_key))
    }

    /// The postmaster's process, while the server runs.
    pub fn process(&self) -> Option<u32> {
        self.keeper().server()
    }

    /// Whether the server runs, paused or not.
    pub fn is_running(&self) -> bool {
        self.process().is_some()
    }

    /// Stops the server; a paused one is resumed first. Nothing happens when it is stopped already.
    ///
    /// # Errors
    ///
    /// When it is still there after 30 seconds, as after [`Mode::Smart`] with clients that stay.
    pub fn stop(&self, mode: Mode) -> Result<()> {
        let keeper = self.keeper();
        let Some(postmaster) = keeper.server() else {
            return Ok(());
        };
        resume(postmaster)?;
        signal(mode.signal(), postmaster)?;
        wait_for_blocking("the server to stop", STOP_LIMIT, || keeper.exit_status())
            .map(drop)
            .map_err(|timed_out| self.failure(timed_out))
    }

    /// Starts a stopped server again, with the same data on the same port. Nothing happens when it
    /// runs.
    ///
    /// # Errors
    ///
    /// When it does not start; the message carries the end of its log.
    pub fn start_again(&self) -> Result<()> {
        let mut keeper = self.keeper();
        if keeper.server().is_some() {
            return Ok(());
        }
        launch(&mut keeper).map_err(|error| error.with_log(&self.log_tail()))
    }

    /// Freezes the server with all its backends: connections stay open and nobody answers.
    ///
    /// # Errors
    ///
    /// When the server does not run.
    pub fn pause(&self) -> Result<()> {
        let postmaster = self.running()?;
        // The postmaster first: it must not make another child after they have been counted.
        signal("STOP", postmaster)?;
        signal_children("STOP", postmaster)
    }

    /// Undoes [`Cluster::pause`].
    ///
    /// # Errors
    ///
    /// When the server does not run.
    pub fn resume(&self) -> Result<()> {
        resume(self.running()?)
    }

    /// Ends the sessions of all clients, as an operator would (57P01), and tells how many.
    ///
    /// # Errors
    ///
    /// Those of [`Cluster::psql`].
    pub fn kill_backends(&self) -> Result<usize> {
        self.psql_count("select count(pg_terminate_backend(pid)) from")
    }

    /// How many clients the server sees in `pg_stat_activity`, without the asking one.
    ///
    /// # Errors
    ///
    /// Those of [`Cluster::psql`].
    pub fn connections(&self) -> Result<usize> {
        self.psql_count("select count(*) from")
    }

    fn psql_count(&self, what: &str) -> Result<usize> {
        let answer = self.psql(&format!(
            "{what} pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"
        ))?;
        answer
            .parse()
            .map_err(Error::during(format!("counting clients in {answer:?}")))
    }

    /// Runs SQL in the first database through `psql` and the Unix socket, so independently of
    /// whatever is being tested. Answers bare values: rows as lines, columns with `|` between them.
    ///
    /// # Errors
    ///
    /// When `psql` fails, with what it wrote.
    pub fn psql(&self, sql: &str) -> Result<String> {
        self.psql_in(FIRST_DATABASE, sql)
    }

    /// [`Cluster::psql`] in another database.
    ///
    /// # Errors
    ///
    /// When `psql` fails, with what it wrote.
    pub fn psql_in(&self, database: &str, sql: &str) -> Result<String> {
        let mut command = psql(self, database, sql);
        command
            .arg("-h")
            .arg(self.socket_directory())
            .args(["-p", &self.server.port.to_string()]);
        answer_of(command, sql)
    }

    /// Makes an empty database and answers its URL.
    ///
    /// # Errors
    ///
    /// Those of [`Cluster::psql`], for instance when there is one of this name.
    pub fn create_database(&self, name: &str) -> Result<String> {
        self.psql(&format!("create database {}", quoted(name)))?;
        Ok(self.url_for(name))
    }

    /// The last lines of the server's log.
    pub fn log_tail(&self) -> String {
        log_tail(&self.server.root, 0)
    }

    fn running(&self) -> Result<u32> {
        self.process()
            .ok_or_else(|| Error::new("the server does not run").with_log(&self.log_tail()))
    }

    fn failure(&self, error: impl fmt::Display) -> Error {
        Error::new(error.to_string()).with_log(&self.log_tail())
    }

    /// A panic elsewhere leaves the keeper as it was: each of its steps is complete in itself.
    fn keeper(&self) -> MutexGuard<'_, Keeper> {
        self.server
            .keeper
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything but the password.
impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("version", &self.version())
            .field("port", &self.server.port)
            .field("root", &self.server.root)
            .finish_non_exhaustive()
    }
}

/// `psql` that is about to run one text and answers bare values; where to, the caller adds.
fn psql(cluster: &Cluster, database: &str, sql: &str) -> Command {
    let mut command = account::plain_command(cluster.program("psql"));
    command
        .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"])
        .args(["-U", SUPERUSER, "-d", database, "-c", sql])
        .stdin(std::process::Stdio::null());
    command
}

fn answer_of(mut command: Command, sql: &str) -> Result<String> {
    let output = command.output().map_err(Error::during("running psql"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(format!(
        "psql, asked for {sql:?}, said: {}",
        complaint.trim_end()
    )))
}

/// Starts the server and waits until it accepts clients.
fn launch(keeper: &mut Keeper) -> Result<()> {
    keeper.launch()?;
    let started = wait_for_blocking("the server to accept clients", START_LIMIT, || {
        if let Some(status) = keeper.exit_status() {
            return Some(Err(Error::new(format!(
                "the server ended with status {status}"
            ))));
        }
        accepts_clients(keeper).then_some(Ok(()))
    });
    started.map_err(|timed_out| Error::new(timed_out.to_string()))?
}

/// Reads what the postmaster writes into its lock file, as `pg_ctl` does: its process on the first
/// line, its state on the eighth.
fn accepts_clients(keeper: &Keeper) -> bool {
    let Ok(text) = std::fs::read_to_string(keeper.root().join("data/postmaster.pid")) else {
        return false;
    };
    let mut lines = text.lines();
    let process = lines.next().and_then(|line| line.trim().parse().ok());
    let state = lines.nth(6).map(str::trim);
    process.is_some() && process == keeper.server() && state == Some("ready")
}

fn resume(postmaster: u32) -> Result<()> {
    signal_children("CONT", postmaster)?;
    signal("CONT", postmaster)
}

/// The last lines of the log behind the first `skip` bytes.
fn log_tail(root: &Path, skip: usize) -> String {
    let log = std::fs::read(root.join("log")).unwrap_or_default();
    let text = String::from_utf8_lossy(log.get(skip..).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

async fn off_the_runtime<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down and drops this future at its next await.
            Err(_) => std::future::pending().await,
        },
    }
}
