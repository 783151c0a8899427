//! Failover for real: a standby that streams from a primary, its promotion, and the old primary that
//! lives on in recovery.

use std::path::Path;

use super::account::{Account, command, server_account, write_private};
use super::{Builder, Cluster, Error, Mode, Result, SUPERUSER};

/// How long a promotion may take, in seconds; it takes a fraction of one.
const PROMOTION_LIMIT: u32 = 60;

impl Cluster {
    /// Promotes a standby and waits until it takes writes.
    ///
    /// # Errors
    ///
    /// When it is no standby, or is still one after a minute.
    pub fn promote(&self) -> Result<()> {
        let promoted = self.psql(&format!("select pg_promote(true, {PROMOTION_LIMIT})"))?;
        if promoted == "t" {
            return Ok(());
        }
        Err(Error::new("the standby was not promoted in time").with_log(&self.log_tail()))
    }

    /// Whether the server is in recovery, which every standby is.
    ///
    /// # Errors
    ///
    /// Those of [`Cluster::psql`].
    pub fn is_in_recovery(&self) -> Result<bool> {
        Ok(self.psql("select pg_is_in_recovery()")? == "t")
    }

    /// Starts the server again as one that only replays, on the same port: what becomes of an old
    /// primary that must not take writes any more.
    ///
    /// # Errors
    ///
    /// Those of [`Cluster::stop`] and [`Cluster::start_again`].
    pub fn restart_in_recovery(&self) -> Result<()> {
        self.stop(Mode::Fast)?;
        let signal = self.server.root.join("data/standby.signal");
        write_private(&signal, "", server_account()?.as_ref())?;
        self.start_again()
    }
}

impl Builder {
    /// Makes a standby that streams from `primary`, and waits until it answers reads.
    ///
    /// # Errors
    ///
    /// Those of [`Builder::start`]; what `pg_basebackup` says.
    pub fn start_standby_of(self, primary: &Cluster) -> Result<Cluster> {
        self.start_with(|root, account| copy(primary, root, account))
    }
}

/// Copies the running primary and notes how to go on streaming from it.
fn copy(primary: &Cluster, root: &Path, account: Option<&Account>) -> Result<()> {
    let mut copying = command(primary.program("pg_basebackup"), account);
    copying
        .current_dir(root)
        .args([
            "--pgdata=data",
            "--write-recovery-conf",
            "--wal-method=stream",
        ])
        .args(["--checkpoint=fast", "--no-sync", "--username", SUPERUSER])
        .arg("--host")
        .arg(primary.socket_directory())
        .args(["--port", &primary.port().to_string()]);
    let output = copying
        .output()
        .map_err(Error::during("running pg_basebackup"))?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(format!(
        "pg_basebackup said: {}",
        complaint.trim_end()
    )))
}
