//! A destructor does not run when the test process is killed, and a server that outlives its test
//! eats memory until the machine is restarted. So the server does not hang on a destructor: it runs
//! under a small shell, the keeper, which reads from a pipe whose other end only the test process
//! holds. However that process ends, the kernel closes its end; the keeper then stops the server
//! and removes the directory. A regular drop takes the same way, so it is tested all the time.

use std::ffi::OsString;
use std::fmt;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::time::Duration;

use super::account::{Account, base_directory, command, hand_over};
use super::{Error, Result};
use crate::wait::wait_for_blocking;

const SCRIPT: &str = include_str!("keeper.sh");

/// How long a drop waits for the keeper: an immediate shutdown takes at most five seconds, then
/// PostgreSQL kills its own backends; the keeper itself gives up after ten.
const GRACE: Duration = Duration::from_secs(20);

/// Owns a directory and at most one running server in it.
pub(super) struct Keeper {
    shell: Child,
    /// Closed first when dropped: that is the signal.
    words: Option<ChildStdin>,
    root: PathBuf,
}

impl Keeper {
    /// Makes a directory that belongs to the server's user, and the keeper that removes it.
    /// `server` names the command to start; it is given the directory.
    pub(super) fn open(
        account: Option<&Account>,
        server: impl FnOnce(&Path) -> Vec<OsString>,
    ) -> Result<Self> {
        let failed = "making a directory for a PostgreSQL cluster";
        let directory = tempfile::Builder::new()
            .prefix("mainstay-pg-")
            .tempdir_in(base_directory(account))
            .map_err(Error::during(failed))?;
        hand_over(directory.path(), 0o700, account)?;
        let shell = command("sh", account)
            .args(["-c", SCRIPT, "keeper"])
            .arg(directory.path())
            .args(server(directory.path()))
            .current_dir(directory.path())
            // A group of its own: Ctrl-C in the terminal must reach the test process only.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Error::during("starting the shell that keeps the cluster"))?;
        let mut keeper = Self {
            shell,
            words: None,
            root: directory.keep(),
        };
        keeper.words = keeper.shell.stdin.take();
        Ok(keeper)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Tells the keeper to start the server; the caller has seen the last one end.
    pub(super) fn launch(&mut self) -> Result<()> {
        for name in ["pid", "exit"] {
            match std::fs::remove_file(self.root.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::during("forgetting the last run of the server")(
                        error,
                    ));
                }
                _ => {}
            }
        }
        let words = self
            .words
            .as_mut()
            .ok_or_else(|| Error::new("the keeper has no pipe"))?;
        words
            .write_all(b"start\n")
            .map_err(Error::during("telling the keeper to start the server"))
    }

    /// The server's process, once it is known and until it has ended.
    pub(super) fn server(&self) -> Option<u32> {
        if self.exit_status().is_some() {
            return None;
        }
        self.line("pid")?.parse().ok()
    }

    /// How the server ended, as the shell tells it; `None` while it runs.
    pub(super) fn exit_status(&self) -> Option<String> {
        self.line("exit")
    }

    /// A complete line of one of the keeper's files: without its end it is still being written.
    fn line(&self, name: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.root.join(name)).ok()?;
        text.strip_suffix('\n').map(str::to_owned)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.words.take());
        let shell = &mut self.shell;
        let ended = wait_for_blocking("the keeper to end", GRACE, || match shell.try_wait() {
            Ok(None) => None,
            ended => Some(ended),
        });
        if ended.is_err() {
            // The server would not die; the keeper must not be left behind as well.
            shell.kill().ok(); // it may have ended this moment, which is what was wanted
            shell.wait().ok(); // reaps it; there is nothing to learn from the status
        }
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}
