//! Where a test runs: a directory of its own, a database of its own, and the program.

use mainstay::Database;
use mainstay_testkit::TestDatabase;
#[cfg(unix)]
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;
#[cfg(unix)]
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

/// One test's surroundings.
pub(crate) struct Bed {
    directory: tempfile::TempDir,
    pub(crate) url: String,
    /// The database's name, as a reset asks for it.
    pub(crate) name: String,
    /// The word in the names of files for this system only.
    pub(crate) infix: &'static str,
    database: Option<TestDatabase>,
}

/// What the program said and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs laws on both databases: the same functions, in a module for each.
#[macro_export]
macro_rules! on_both {
    ($($law:ident),* $(,)?) => {
        mod sqlite {
            $(#[test] fn $law() { super::$law(&$crate::bed::Bed::sqlite()); })*
        }
        mod postgres {
            $(#[test] fn $law() { super::$law(&$crate::bed::Bed::postgres()); })*
        }
    };
}

impl Bed {
    fn new(url: impl FnOnce(&Path) -> String, name: &str, infix: &'static str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = url(directory.path());
        Self {
            directory,
            url,
            name: name.to_owned(),
            infix,
            database: None,
        }
    }

    /// A SQLite file that does not exist yet.
    pub(crate) fn sqlite() -> Self {
        let url = |directory: &Path| format!("file:{}", directory.join("app.db").display());
        Self::new(url, "app.db", "sqlite")
    }

    /// An empty PostgreSQL database.
    pub(crate) fn postgres() -> Self {
        let database = wait(mainstay_testkit::database()).unwrap();
        let bed = Self::new(|_| database.url(), database.name(), "postgres");
        Self {
            database: Some(database),
            ..bed
        }
    }

    /// The name of a PostgreSQL database that does not exist yet.
    pub(crate) fn absent_postgres() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("absent_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let cluster = wait(mainstay_testkit::shared_cluster()).unwrap();
        Self::new(|_| cluster.url_for(&name), &name, "postgres")
    }

    /// A path in the test's own directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file in the test's own directory.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// The program, with this database and in this directory, and nothing else of the environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = bare(args);
        command
            .current_dir(self.directory.path())
            .env("DATABASE_URL", &self.url);
        command
    }

    /// Runs the program.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args))
    }

    /// Runs the program, which has to succeed.
    pub(crate) fn done(&self, args: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(0), "{args:?}: {ran:?}");
        ran
    }

    /// Asks PostgreSQL past everything that is being tested.
    pub(crate) fn psql(&self, query: &str) -> String {
        self.database.as_ref().unwrap().psql(query).unwrap()
    }

    /// Asks the database itself, past the program.
    pub(crate) fn number(&self, query: &str) -> i64 {
        wait(async {
            let db = Database::connect(&self.url).await.unwrap();
            let number = db.fetch_one(query, ()).await.unwrap();
            db.close().await;
            number
        })
    }
}

impl Ran {
    pub(crate) fn of(mut command: Command) -> Self {
        let output = command.stdin(Stdio::null()).output().unwrap();
        Self::from(output)
    }

    /// The one document on standard output.
    pub(crate) fn document(&self) -> Value {
        assert_eq!(self.out.lines().count(), 1, "{self:?}");
        serde_json::from_str(&self.out).unwrap()
    }

    /// Everything that was said.
    pub(crate) fn said(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// The program in an environment of its own; PATH is for `pg_dump`.
pub(crate) fn bare(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    command.env_clear().args(args);
    for name in ["PATH", "PG_BIN", "HOME", "TMPDIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// Runs a future to its end.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

/// A terminal: where somebody sits, and what the program gets.
#[cfg(unix)]
pub(crate) fn terminal() -> (File, File) {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let name = ptsname(&controller, Vec::new()).unwrap();
    let terminal = OpenOptions::new()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    (File::from(controller), terminal)
}
