//! Distributions hide the server's programs: Debian keeps them out of `PATH`, Red Hat in a
//! directory per version, Homebrew in a cellar. This file looks everywhere in a fixed order and,
//! when there is nothing, says where it looked.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Error, Result};

/// The oldest major version that the test kit starts.
const OLDEST: u32 = 13;

/// Directories with one subdirectory per installed version; `*` is the version.
const SYSTEM: [&str; 5] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
];

/// The programs of one installed PostgreSQL.
#[derive(Clone, Debug)]
pub(super) struct Binaries {
    directory: PathBuf,
    major: u32,
}

impl Binaries {
    /// Finds the programs: `PG_BIN`, `PATH`, `pg_config --bindir`, then the usual directories,
    /// newest version first.
    pub(super) fn find() -> Result<Self> {
        if let Some(chosen) = std::env::var_os("PG_BIN") {
            let chosen = PathBuf::from(chosen);
            return Self::first_of(std::slice::from_ref(&chosen), server_major).map_err(|looked| {
                Error::new(format!("PG_BIN names no usable PostgreSQL:\n{looked}"))
            });
        }
        Self::first_of(&places(), server_major).map_err(|looked| {
            Error::new(format!(
                "no PostgreSQL server (version {OLDEST} or newer) was found; install one \
                 (`apt-get install postgresql`, `brew install postgresql`) or let PG_BIN name the \
                 directory that holds `initdb` and `postgres`. Looked at:\n{looked}"
            ))
        })
    }

    /// The first usable directory, or a line about each that was not.
    fn first_of(
        places: &[PathBuf],
        major_of: impl Fn(&Path) -> Option<u32>,
    ) -> Result<Self, String> {
        let mut looked = String::new();
        for place in places {
            let why = match usable(place, &major_of) {
                Ok(found) => return Ok(found),
                Err(why) => why,
            };
            looked.push_str(&format!("  {}: {why}\n", place.display()));
        }
        Err(looked)
    }

    pub(super) fn major(&self) -> u32 {
        self.major
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The path of a program; one that lives elsewhere (`psql` of another package) is left to `PATH`.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        let path = self.directory.join(name);
        if path.is_file() {
            path
        } else {
            PathBuf::from(name)
        }
    }
}

/// Links are followed first: `/usr/local/bin/postgres` is often one, without its siblings.
fn usable(place: &Path, major_of: impl Fn(&Path) -> Option<u32>) -> Result<Binaries, String> {
    let initdb = place
        .join("initdb")
        .canonicalize()
        .map_err(|_| "no `initdb`".to_owned())?;
    let directory = initdb.parent().unwrap_or(place).to_owned();
    let postgres = directory.join("postgres");
    if !postgres.is_file() {
        return Err("`initdb` without `postgres`".to_owned());
    }
    match major_of(&postgres) {
        Some(major) if major >= OLDEST => Ok(Binaries { directory, major }),
        Some(major) => Err(format!("version {major} is older than {OLDEST}")),
        None => Err("`postgres --version` gave no version".to_owned()),
    }
}

fn server_major(postgres: &Path) -> Option<u32> {
    let output = Command::new(postgres).arg("--version").output().ok()?;
    parse_major(&String::from_utf8_lossy(&output.stdout))
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` is 15, `… 18beta1` is 18.
fn parse_major(version: &str) -> Option<u32> {
    let number = version.split(')').nth(1)?.trim_start();
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn places() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        places.push(PathBuf::from(
            String::from_utf8_lossy(&output.stdout).trim(),
        ));
    }
    for pattern in SYSTEM {
        places.extend(versions_of(pattern));
    }
    places.push(PathBuf::from("/usr/local/pgsql/bin"));
    places
}

/// The directories that match a pattern with one `*`, newest version first; the pattern itself when
/// there are none, so that the report can show that it was tried.
fn versions_of(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else {
        return vec![pattern.into()];
    };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = version_number(&entry.file_name(), prefix)?;
            Some((
                version,
                PathBuf::from(format!("{}{after}", entry.path().display())),
            ))
        })
        .collect();
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    if found.is_empty() {
        return vec![pattern.into()];
    }
    found.into_iter().map(|(_, path)| path).collect()
}

fn version_number(name: &OsStr, prefix: &str) -> Option<u32> {
    name.to_str()?
        .strip_prefix(prefix)?
        .split('.')
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_programs(names: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        directory
    }

    #[test]
    fn versions_are_read_from_releases_and_betas() {
        assert_eq!(
            parse_major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"),
            Some(15)
        );
        assert_eq!(parse_major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(parse_major("no such thing"), None);
    }

    #[test]
    fn the_first_complete_and_recent_installation_wins() {
        let empty = with_programs(&[]);
        let half = with_programs(&["initdb"]);
        let full = with_programs(&["initdb", "postgres"]);
        let places = [empty.path().into(), half.path().into(), full.path().into()];
        let found = Binaries::first_of(&places, |_| Some(16)).unwrap();
        assert_eq!(found.directory(), full.path().canonicalize().unwrap());
        assert_eq!(found.major(), 16);
    }

    #[test]
    fn a_failed_search_says_where_it_looked_and_why_that_was_not_it() {
        let empty = with_programs(&[]);
        let old = with_programs(&["initdb", "postgres"]);
        let places = [empty.path().to_owned(), old.path().to_owned()];
        let looked = Binaries::first_of(&places, |_| Some(12)).unwrap_err();
        assert!(
            looked.contains(&format!("{}: no `initdb`", empty.path().display())),
            "{looked}"
        );
        assert!(looked.contains("version 12 is older than 13"), "{looked}");
    }

    #[test]
    fn newer_versions_come_first() {
        let base = tempfile::tempdir().unwrap();
        for version in ["9.6", "13", "17"] {
            std::fs::create_dir_all(base.path().join(version).join("bin")).unwrap();
        }
        let pattern = format!("{}/*/bin", base.path().display());
        let found = versions_of(&pattern);
        let expected = ["17", "13", "9.6"].map(|version| base.path().join(version).join("bin"));
        assert_eq!(found, expected);
    }
}
