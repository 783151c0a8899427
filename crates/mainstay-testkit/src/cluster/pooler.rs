//! The real PgBouncer in front of a cluster, in transaction mode: what a layer above promises behind
//! a pooler cannot be shown against anything that only looks like one.

use std::ffi::OsString;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use percent_encoding::utf8_percent_encode;

use super::account::{server_account, write_private};
use super::keeper::Keeper;
use super::{Cluster, Error, Result, SUPERUSER, URL_PART, psql};
use crate::port::free_port;
use crate::wait::wait_for_blocking;

/// It listens within milliseconds; the limit only ends a broken test.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Somebody else may take the port between the look and the bind.
const PORT_ATTEMPTS: usize = 5;

/// Where it is when `PATH` does not lead there: Debian keeps it out of the path of users.
const USUAL: [&str; 4] = [
    "/usr/sbin/pgbouncer",
    "/usr/local/bin/pgbouncer",
    "/usr/local/sbin/pgbouncer",
    "/opt/homebrew/bin/pgbouncer",
];

/// A PgBouncer of one's own in front of a cluster. It ends when dropped.
pub struct Pooler {
    cluster: Cluster,
    port: u16,
    keeper: Mutex<Keeper>,
}

impl Pooler {
    /// Starts one in transaction mode, with five sessions for each database, on a free port of
    /// 127.0.0.1. `settings` are lines of its section `[pgbouncer]`; the last of a name wins. Blocks.
    ///
    /// # Errors
    ///
    /// When PgBouncer is not installed (the message says where it was looked for) or does not start.
    pub fn start(cluster: &Cluster, settings: &[(&str, &str)]) -> Result<Self> {
        let program = find()?;
        let account = server_account()?;
        let account = account.as_ref();
        let mut attempt = 1;
        loop {
            let port = free_port().map_err(Error::during("looking for a free port"))?;
            let mut keeper = Keeper::open(account, |root| command(&program, root))?;
            let root = keeper.root().to_owned();
            let (user, password) = cluster.credentials();
            let users = format!("\"{user}\" \"{password}\"\n");
            write_private(&root.join("users.txt"), &users, account)?;
            let configuration = configuration(cluster, &root, port, settings);
            write_private(&root.join("pgbouncer.ini"), &configuration, account)?;
            let failure = match launch(&mut keeper, port) {
                Ok(()) => {
                    return Ok(Self {
                        cluster: cluster.clone(),
                        port,
                        keeper: Mutex::new(keeper),
                    });
                }
                Err(failure) => failure,
            };
            let log = std::fs::read_to_string(root.join("log")).unwrap_or_default();
            if attempt == PORT_ATTEMPTS || !log.contains("Address already in use") {
                return Err(failure.with_log(&log));
            }
            attempt += 1;
        }
    }

    /// The URL of a database of the cluster, through the pooler.
    pub fn url_for(&self, database: &str) -> String {
        let (user, password) = self.cluster.credentials();
        let database = utf8_percent_encode(database, URL_PART);
        format!(
            "postgres://{user}:{password}@127.0.0.1:{}/{database}",
            self.port
        )
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Asks its console, for instance `show pools` or `kill test`. Rows are lines, columns have `|`
    /// between them.
    ///
    /// # Errors
    ///
    /// When `psql` fails, with what it wrote.
    pub fn console(&self, text: &str) -> Result<String> {
        let mut command = psql(&self.cluster, "pgbouncer", text);
        command
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .env("PGPASSWORD", self.cluster.credentials().1);
        super::answer_of(command, text)
    }

    /// The end of what it has logged: why it is gone, if it is.
    pub fn log(&self) -> String {
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        let log = std::fs::read_to_string(keeper.root().join("log")).unwrap_or_default();
        let skipped = log.lines().count().saturating_sub(20);
        log.lines().skip(skipped).collect::<Vec<_>>().join("\n")
    }

    /// Its process, while it runs.
    pub fn process(&self) -> Option<u32> {
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        keeper.server()
    }
}

impl fmt::Debug for Pooler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pooler")
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// `PGBOUNCER`, `PATH`, then the usual places.
fn find() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = match std::env::var_os("PGBOUNCER") {
        Some(chosen) => vec![chosen.into()],
        None => std::env::split_paths(&path)
            .map(|directory| directory.join("pgbouncer"))
            .chain(USUAL.map(PathBuf::from))
            .collect(),
    };
    places
        .into_iter()
        .find(|place| place.is_file())
        .ok_or_else(|| {
            Error::new(format!(
                "PgBouncer was not found: install it (`apt-get install pgbouncer`, `brew install \
             pgbouncer`) or let PGBOUNCER name the program. Looked at PATH and {}",
                USUAL.join(", ")
            ))
        })
}

fn command(program: &Path, root: &Path) -> Vec<OsString> {
    vec![program.into(), root.join("pgbouncer.ini").into()]
}

fn configuration(cluster: &Cluster, root: &Path, port: u16, settings: &[(&str, &str)]) -> String {
    let mut text = format!(
        "[databases]\n\
         * = host={socket} port={server}\n\
         [pgbouncer]\n\
         listen_addr = 127.0.0.1\n\
         listen_port = {port}\n\
         unix_socket_dir =\n\
         auth_type = scram-sha-256\n\
         auth_file = {root}/users.txt\n\
         admin_users = {SUPERUSER}\n\
         pool_mode = transaction\n\
         default_pool_size = 5\n\
         max_client_conn = 200\n",
        socket = cluster.socket_directory().display(),
        server = cluster.port(),
        root = root.display(),
    );
    for (name, value) in settings {
        text.push_str(&format!("{name} = {value}\n"));
    }
    text
}

fn launch(keeper: &mut Keeper, port: u16) -> Result<()> {
    keeper.launch()?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listening = wait_for_blocking("PgBouncer to listen", START_LIMIT, || {
        if let Some(status) = keeper.exit_status() {
            return Some(Err(Error::new(format!(
                "PgBouncer ended with status {status}"
            ))));
        }
        (keeper.server().is_some() && TcpStream::connect(address).is_ok()).then_some(Ok(()))
    });
    listening.map_err(|timed_out| Error::new(timed_out.to_string()))?
}
