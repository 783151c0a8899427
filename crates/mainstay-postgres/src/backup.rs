//! A backup made by PostgreSQL's own tool.
//!
//! `pg_dump` knows every object of every version; nothing written here could. It has to be at least
//! as new as the server, it gets the password through its environment (arguments can be read by
//! everybody on the machine), and it writes beside the target, which appears only when it is whole.

use crate::connect::Connector;
use crate::connect::login::Login;
use mainstay_core::backend::{Backup, Progress};
use mainstay_core::config::{Host, PostgresTarget, SslMode};
use mainstay_core::error::Report;
use mainstay_core::{Error, Kind, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::process::Command;
use tokio::time::Instant;

/// How often the growing file is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How much of the tool's complaint is shown.
const COMPLAINT_LINES: usize = 5;

/// Where distributions put the tools of each version.
const VERSIONED: [&str; 3] = [
    "/usr/lib/postgresql",
    "/usr/local/lib/postgresql",
    "/opt/postgresql",
];

/// What the environment must not decide for us.
const FOREIGN: [&str; 12] = [
    "PGHOST",
    "PGHOSTADDR",
    "PGPORT",
    "PGUSER",
    "PGDATABASE",
    "PGPASSFILE",
    "PGSERVICE",
    "PGOPTIONS",
    "PGREQUIRESSL",
    "PGSSLCRL",
    "PGTARGETSESSIONATTRS",
    "PGAPPNAME",
];

/// What is known about the server that is to be dumped.
pub(crate) struct Source {
    /// The host that answered.
    pub(crate) host: Host,
    /// Its major version.
    pub(crate) major: u32,
    /// How large its database is, for the progress.
    pub(crate) size: u64,
    /// Who we are to it.
    pub(crate) login: Login,
}

/// Writes a dump in PostgreSQL's custom format.
pub(crate) async fn backup(
    connector: &Connector,
    source: Source,
    to: &Path,
    progress: Progress<'_>,
) -> Result<Backup> {
    let started = Instant::now();
    if exists(to).await {
        return Err(taken(to));
    }
    let (program, version) = find_pg_dump(source.major).await?;
    let unfinished = Unfinished::create(to).await?;
    let mut command = Command::new(program);
    connect_by(&mut command, connector.target(), &source);
    command
        .args(["--format=custom", "--no-password", "--file"])
        .arg(&unfinished.0);
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed("pg_dump cannot be started", error))?;
    let output = watch(
        child.wait_with_output(),
        &unfinished.0,
        source.size,
        progress,
    )
    .await;
    let output = output.map_err(|error| failed("pg_dump was lost", error))?;
    if !output.status.success() {
        return Err(complaint(&output, &source.login));
    }
    let bytes = unfinished.finish(to).await?;
    progress(bytes, bytes);
    Ok(Backup {
        bytes,
        method: format!("pg_dump {version}"),
        took: started.elapsed(),
    })
}

/// Waits for the tool and tells from time to time how far it is.
async fn watch(
    running: impl Future<Output = std::io::Result<Output>>,
    file: &Path,
    total: u64,
    progress: Progress<'_>,
) -> std::io::Result<Output> {
    let mut running = std::pin::pin!(running);
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            output = &mut running => return output,
            _ = look.tick() => {
                let size = tokio::fs::metadata(file).await.map_or(0, |file| file.len());
                progress(size, total.max(size));
            }
        }
    }
}

/// Connection and TLS as the configuration says, in libpq's words.
fn connect_by(command: &mut Command, target: &PostgresTarget, source: &Source) {
    for name in FOREIGN {
        command.env_remove(name);
    }
    let (host, port): (OsString, u16) = match &source.host {
        Host::Tcp { host, port } => (host.into(), *port),
        Host::Unix { directory, port } => (directory.into(), *port),
        // Nothing else can be connected to.
        _ => (OsString::new(), 0),
    };
    command.env("PGHOST", host).env("PGPORT", port.to_string());
    command
        .env("PGUSER", &source.login.user)
        .env("PGDATABASE", &target.database);
    command.env(
        "PGSSLMODE",
        match target.tls.mode {
            SslMode::Disable => "disable",
            SslMode::Allow => "allow",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyCa => "verify-ca",
            SslMode::VerifyFull => "verify-full",
        },
    );
    let files = [
        ("PGSSLROOTCERT", &target.tls.root_cert),
        ("PGSSLCERT", &target.tls.client_cert),
        ("PGSSLKEY", &target.tls.client_key),
    ];
    for (name, file) in files {
        match file {
            Some(file) => command.env(name, file),
            None => command.env_remove(name),
        };
    }
    match &source.login.password {
        Some(password) => command.env("PGPASSWORD", password.expose()),
        None => command.env_remove("PGPASSWORD"),
    };
}

/// The first `pg_dump` that is new enough: in PATH, then where distributions keep versions.
async fn find_pg_dump(server: u32) -> Result<(PathBuf, String)> {
    let mut candidates = vec![PathBuf::from("pg_dump")];
    let mut versioned = Vec::new();
    for directory in VERSIONED {
        let Ok(mut entries) = tokio::fs::read_dir(directory).await else {
            continue;
        };
        while let Ok(Some(entry)) = entries.next_entry().await {
            if let Some(major) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u32>().ok())
            {
                versioned.push((major, entry.path().join("bin/pg_dump")));
            }
        }
    }
    // The server's own version first: an older pg_restore reads its dumps.
    versioned.sort();
    candidates.extend(
        versioned
            .into_iter()
            .filter(|(major, _)| *major >= server)
            .map(|found| found.1),
    );
    let mut too_old = None;
    for program in candidates {
        let Some(version) = version_of(&program).await else {
            continue;
        };
        match major_of(&version) {
            Some(major) if major >= server => return Ok((program, version)),
            _ => too_old = Some(version),
        }
    }
    let message = match too_old {
        Some(version) => format!("pg_dump {version} is older than the server, version {server}"),
        None => "pg_dump is not installed here".to_owned(),
    };
    Err(Report::new(Kind::Config, message)
        .remedy(format!(
            "install the client programs of PostgreSQL {server} or newer"
        ))
        .into())
}

/// What `pg_dump (PostgreSQL) 15.18 (Debian …)` says.
async fn version_of(program: &Path) -> Option<String> {
    let mut command = Command::new(program);
    let output = command
        .arg("--version")
        .kill_on_drop(true)
        .output()
        .await
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.split_whitespace().nth(2).map(str::to_owned)
}

/// The major version of `15.18`, `17beta2`, `18devel`.
pub(crate) fn major_of(version: &str) -> Option<u32> {
    let digits = version.find(|character: char| !character.is_ascii_digit());
    version[..digits.unwrap_or(version.len())].parse().ok()
}

/// The file while it is being written; removed when dropped.
struct Unfinished(PathBuf);

impl Unfinished {
    /// Makes it readable for us only: it will hold everything.
    async fn create(to: &Path) -> Result<Self> {
        let mut name = to.as_os_str().to_owned();
        name.push(".tmp");
        let path = PathBuf::from(name);
        let mut options = tokio::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        options.mode(0o600);
        match options.open(&path).await {
            Ok(_) => Ok(Self(path)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(taken(&path)),
            Err(error) => Err(unwritable(&path, error)),
        }
    }

    async fn finish(self, to: &Path) -> Result<u64> {
        let sealed = async {
            let file = tokio::fs::File::open(&self.0).await?;
            file.sync_all().await?;
            let size = file.metadata().await?.len();
            // Unlike a rename, a link does not replace what somebody has put there meanwhile.
            match tokio::fs::hard_link(&self.0, to).await {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    return Err(error);
                }
                Err(_) => tokio::fs::rename(&self.0, to).await?,
                Ok(()) => {}
            }
            Ok(size)
        };
        sealed
            .await
            .map_err(|error: std::io::Error| unwritable(to, error))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0)); // gone already if it was renamed
    }
}

async fn exists(path: &Path) -> bool {
    tokio::fs::symlink_metadata(path).await.is_ok()
}

fn taken(path: &Path) -> Error {
    Report::new(Kind::Storage, format!("{} exists already", path.display()))
        .remedy("name another file, or remove it")
        .into()
}

fn unwritable(path: &Path, error: std::io::Error) -> Error {
    Report::new(
        Kind::Storage,
        format!("{} cannot be written: {error}", path.display()),
    )
    .source(error)
    .into()
}

fn failed(what: &'static str, error: std::io::Error) -> Error {
    Report::new(Kind::Storage, format!("{what}: {error}"))
        .source(error)
        .into()
}

/// The last lines of what the tool said. libpq does not print passwords; should it ever, this does not.
fn complaint(output: &Output, login: &Login) -> Error {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().collect();
    let mut said = lines[lines.len().saturating_sub(COMPLAINT_LINES)..].join("; ");
    if let Some(password) = login
        .password
        .as_ref()
        .filter(|secret| !secret.expose().is_empty())
    {
        said = said.replace(password.expose(), "***");
    }
    Report::new(Kind::Storage, format!("pg_dump failed: {said}")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_server_writes_them() {
        for (text, major) in [("15.18", 15), ("17beta2", 17), ("18devel", 18), ("9", 9)] {
            assert_eq!(major_of(text), Some(major), "{text}");
        }
        assert_eq!(major_of("x"), None);
    }
}
