//! The programs that the peers are in, and how one of them takes a turn.

use crate::effort::Kind;
use crate::turn::ROWS;
use mainstay::sqlite::rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The peers in the order of their turns; the first one is what the others are compared with.
pub const PEERS: [&str; 7] = [
    "mainstay",
    "sqlx, pool of 10",
    "sqlx, pool of 1",
    "deadpool-sqlite",
    "tokio-rusqlite",
    "async-sqlite",
    "rusqlite, one lock",
];

/// What one turn of one peer showed.
#[derive(Clone, Debug)]
pub struct Turn {
    pub wrote: f64,
    pub read: f64,
    pub fairness: f64,
    pub p50: f64,
    pub p99: f64,
    pub worst: f64,
}

/// Where they were built.
pub struct Programs {
    own: PathBuf,
    rusqlite: PathBuf,
    sqlx: PathBuf,
}

impl Programs {
    /// Builds those that are not this one.
    pub fn build() -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let build = |directory: &str, name: &str| {
            let package = here.join(directory);
            let built = Command::new("cargo")
                .args(["build", "--release", "--quiet", "--locked", "--manifest-path"])
                .arg(package.join("Cargo.toml"))
                .arg("--target-dir")
                .arg(package.join("target"))
                .status();
            assert!(built.is_ok_and(|status| status.success()), "{directory} does not build");
            package.join("target/release").join(name)
        };
        Self {
            own: std::env::current_exe().expect("this program has a path"),
            rusqlite: build("rusqlite-0.40", "mainstay-bench-sqlite-rusqlite-040"),
            sqlx: build("sqlx", "mainstay-bench-sqlite-sqlx"),
        }
    }

    fn of(&self, peer: &str) -> &Path {
        match peer {
            "deadpool-sqlite" | "tokio-rusqlite" => &self.rusqlite,
            _ if peer.starts_with("sqlx") => &self.sqlx,
            _ => &self.own,
        }
    }

    /// Lets a peer take a turn on a file of its own. Answers its SQLite's version and what it showed,
    /// or why its row is void.
    pub fn turn(&self, peer: &str, kind: Kind, length: Duration) -> (String, Result<Turn, String>) {
        let directory = tempfile::tempdir().expect("there is room for a file");
        let file = directory.path().join("bench.db");
        if kind.what != "inserts" {
            fill(&file);
        }
        let done = Command::new(self.of(peer))
            .args(["turn", peer, kind.what])
            .arg(kind.callers.to_string())
            .arg(length.as_millis().to_string())
            .arg(kind.synchronous)
            .arg(&file)
            .output()
            .expect("the program was built");
        let line = String::from_utf8_lossy(&done.stdout).into_owned();
        let (version, rest) = line.trim().split_once(' ').unwrap_or(("?", ""));
        (version.to_owned(), read(rest, &done.stderr))
    }
}

/// The rows that are there to be read, for everybody in the same pages.
fn fill(file: &Path) {
    let connection = Connection::open(file).expect("a file can be made");
    let filled = connection.execute_batch(&format!(
        "pragma journal_mode = wal; {};
         with recursive n(i) as (select 1 union all select i + 1 from n where i < {ROWS})
         insert into t (id, owner, body) select i, 0, printf('%0100d', i) from n;
         pragma wal_checkpoint(truncate);",
        crate::turn::CREATE
    ));
    filled.expect("the file can be filled");
}

fn read(line: &str, complaint: &[u8]) -> Result<Turn, String> {
    if let Some(reason) = line.strip_prefix("void ") {
        return Err(reason.to_owned());
    }
    let numbers: Vec<f64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    let &[wrote, read, fairness, p50, p99, worst] = numbers.as_slice() else {
        return Err(format!("it broke down: {}", String::from_utf8_lossy(complaint).trim()));
    };
    Ok(Turn { wrote, read, fairness, p50, p99, worst })
}
