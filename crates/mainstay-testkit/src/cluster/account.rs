//! PostgreSQL refuses to run as root, and containers and CI machines run their tests as root. The
//! server then runs as somebody else: `postgres` if the machine has that user, else `nobody`.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Error, Result};

/// The user under which the server runs, when it is not our own.
#[derive(Clone, Debug)]
pub(super) struct Account {
    name: &'static str,
    uid: u32,
    gid: u32,
}

/// Who runs the server: `None` means the user of the test process.
pub(super) fn server_account() -> Result<Option<Account>> {
    if id(&["-u"])? != 0 {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        if let (Ok(uid), Ok(gid)) = (id(&["-u", name]), id(&["-g", name])) {
            return Ok(Some(Account { name, uid, gid }));
        }
    }
    Err(Error::new(
        "PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody` to run it",
    ))
}

fn id(arguments: &[&str]) -> Result<u32> {
    let asked = format!("id {}", arguments.join(" "));
    let output = Command::new("id")
        .args(arguments)
        .output()
        .map_err(Error::during(&asked))?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim()
        .parse()
        .map_err(Error::during(format!("{asked} answered {text:?}")))
}

/// A command that runs as the server's user and sees none of the settings with which our own
/// environment could reach into it.
pub(super) fn command(program: impl AsRef<Path>, account: Option<&Account>) -> Command {
    let mut command = plain_command(program);
    if let Some(account) = account {
        // The standard library drops the supplementary groups together with the user.
        command
            .gid(account.gid)
            .uid(account.uid)
            .env_remove("HOME")
            .env("USER", account.name);
    }
    command
}

/// A command without the `PG*` variables (another server, another password) and with messages in
/// English, which is what the test kit reads.
pub(super) fn plain_command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command.env("LC_ALL", "C");
    command
}

/// Gives a file or directory to the server's user and makes it private.
pub(super) fn hand_over(path: &Path, mode: u32, account: Option<&Account>) -> Result<()> {
    let failed = || Error::during(format!("handing {} to the server's user", path.display()));
    if let Some(account) = account {
        chown(path, Some(account.uid), Some(account.gid)).map_err(failed())?;
    }
    std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed())
}

/// Writes a private file that belongs to the server's user.
pub(super) fn write_private(path: &Path, text: &str, account: Option<&Account>) -> Result<()> {
    std::fs::write(path, text).map_err(Error::during(format!("writing {}", path.display())))?;
    hand_over(path, 0o600, account)
}

/// Where clusters live: the system's temporary directory, unless the server's user cannot reach it
/// (a `TMPDIR` below root's home, for instance).
pub(super) fn base_directory(account: Option<&Account>) -> PathBuf {
    let own = std::env::temp_dir();
    if account.is_none() || anybody_may_enter(&own) {
        own
    } else {
        PathBuf::from("/tmp")
    }
}

fn anybody_may_enter(directory: &Path) -> bool {
    directory
        .ancestors()
        .filter(|part| !part.as_os_str().is_empty())
        .all(|part| {
            std::fs::metadata(part).is_ok_and(|found| found.permissions().mode() & 0o001 != 0)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_directory_is_no_place_for_another_user() {
        let base = tempfile::tempdir().unwrap();
        let inside = base.path().join("inside");
        std::fs::create_dir(&inside).unwrap();
        std::fs::set_permissions(base.path(), Permissions::from_mode(0o700)).unwrap();
        assert!(!anybody_may_enter(&inside));
        assert!(anybody_may_enter(Path::new("/")));
    }
}
