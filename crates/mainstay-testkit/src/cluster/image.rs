//! `initdb` takes about a second, copying what it made takes a tenth of that. So each test process
//! runs it once and every further cluster starts from a copy.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::account::{Account, command, write_private};
use super::binaries::Binaries;
use super::keeper::Keeper;
use super::{Error, Result, SUPERUSER};

/// One image per installation of PostgreSQL, so at most a handful.
static IMAGES: Mutex<BTreeMap<PathBuf, Arc<Image>>> = Mutex::new(BTreeMap::new());

/// A freshly made data directory that never runs.
#[derive(Debug)]
pub(super) struct Image {
    keeper: Keeper,
    password: Password,
}

/// The superuser's password: worth nothing, but habits are kept.
#[derive(Clone)]
pub(super) struct Password(String);

impl Password {
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

impl Image {
    /// The image for these programs, made now if this process has none yet.
    pub(super) fn of(binaries: &Binaries, account: Option<&Account>) -> Result<Arc<Self>> {
        let mut images = IMAGES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(image) = images.get(binaries.directory()) {
            return Ok(Arc::clone(image));
        }
        let image = Arc::new(Self::make(binaries, account)?);
        images.insert(binaries.directory().to_owned(), Arc::clone(&image));
        Ok(image)
    }

    pub(super) fn password(&self) -> &Password {
        &self.password
    }

    fn make(binaries: &Binaries, account: Option<&Account>) -> Result<Self> {
        let keeper = Keeper::open(account, |_| Vec::new())?;
        let password = Password(format!("{:032x}", fastrand::u128(..)));
        let password_file = keeper.root().join("password");
        write_private(&password_file, password.reveal(), account)?;
        let mut initdb = command(binaries.program("initdb"), account);
        initdb
            .current_dir(keeper.root())
            .args([
                "--username",
                SUPERUSER,
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ])
            .args([
                "--auth-local=trust",
                "--auth-host=scram-sha-256",
                "--pgdata=data",
            ])
            .args([OsStr::new("--pwfile"), password_file.as_os_str()]);
        run(initdb, "initdb")?;
        let settings = keeper.root().join("data/postgresql.conf");
        let written = std::fs::read_to_string(&settings)
            .map_err(Error::during("reading the settings that initdb made"))?;
        write_private(
            &settings,
            &format!("{written}\ninclude 'testkit.conf'\n"),
            account,
        )?;
        Ok(Self { keeper, password })
    }

    /// Copies the data directory to `destination/data`.
    pub(super) fn copy_to(&self, destination: &Path, account: Option<&Account>) -> Result<()> {
        let mut copy = command("cp", account);
        copy.arg("-R")
            .arg(self.keeper.root().join("data"))
            .arg(destination.join("data"));
        run(copy.current_dir(destination), "copying the data directory")
    }
}

fn run(mut command: impl std::borrow::BorrowMut<std::process::Command>, what: &str) -> Result<()> {
    let output = command
        .borrow_mut()
        .output()
        .map_err(Error::during(format!("running {what}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::new(format!(
        "{what} failed ({}):\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )))
}
