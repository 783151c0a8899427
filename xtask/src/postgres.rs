//! Finds a PostgreSQL server and PgBouncer, or has the system's package manager install them. The
//! order of the search is that of the test kit, which the tests use: `PG_BIN`, `PATH`,
//! `pg_config --bindir`, the usual directories; for PgBouncer `PGBOUNCER`, `PATH`, the usual places.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::steps::{shown, succeeds};

/// Directories in which distributions keep one subdirectory per version: parent, start of the
/// subdirectory's name, and what follows it.
const SYSTEM: [(&str, &str, &str); 5] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];

/// The directory of `initdb` and `postgres`.
pub(crate) fn find() -> Option<PathBuf> {
    let places = match std::env::var_os("PG_BIN") {
        Some(chosen) => vec![chosen.into()],
        None => places(),
    };
    first_complete(&places)
}

/// Where PgBouncer is when `PATH` does not lead there.
const POOLER: [&str; 4] = [
    "/usr/sbin/pgbouncer",
    "/usr/local/bin/pgbouncer",
    "/usr/local/sbin/pgbouncer",
    "/opt/homebrew/bin/pgbouncer",
];

/// The program of PgBouncer.
pub(crate) fn find_pooler() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = match std::env::var_os("PGBOUNCER") {
        Some(chosen) => vec![chosen.into()],
        None => std::env::split_paths(&path)
            .map(|directory| directory.join("pgbouncer"))
            .chain(POOLER.map(PathBuf::from))
            .collect(),
    };
    places.into_iter().find(|place| place.is_file())
}

fn first_complete(places: &[PathBuf]) -> Option<PathBuf> {
    places.iter().find_map(|place| {
        // A link in `PATH` leads to the directory in which its siblings are.
        let directory = place
            .join("initdb")
            .canonicalize()
            .ok()?
            .parent()?
            .to_owned();
        directory.join("postgres").is_file().then_some(directory)
    })
}

fn places() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        places.push(String::from_utf8_lossy(&output.stdout).trim().into());
    }
    for (parent, prefix, suffix) in SYSTEM {
        places.extend(versions(Path::new(parent), prefix, suffix));
    }
    places.push("/usr/local/pgsql/bin".into());
    places
}

/// The matching subdirectories, newest version first.
fn versions(parent: &Path, prefix: &str, suffix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let version = name
                .to_str()?
                .strip_prefix(prefix)?
                .split('.')
                .next()?
                .parse()
                .ok()?;
            Some((version, entry.path().join(suffix)))
        })
        .collect();
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.into_iter().map(|(_, path)| path).collect()
}

/// What a package manager is told, one command after the other.
const MANAGERS: [(&str, &[&[&str]]); 4] = [
    // The lists first: those of an image are often older than what the mirror still has.
    (
        "apt-get",
        &[
            &["update"],
            &[
                "install",
                "-y",
                "--no-install-recommends",
                "postgresql",
                "pgbouncer",
            ],
        ],
    ),
    (
        "dnf",
        &[&[
            "install",
            "-y",
            "postgresql-server",
            "postgresql",
            "pgbouncer",
        ]],
    ),
    (
        "apk",
        &[&["add", "postgresql", "postgresql-client", "pgbouncer"]],
    ),
    ("brew", &[&["install", "postgresql@17", "pgbouncer"]]),
];

/// Installs both with the first package manager there is, and shows each command before.
pub(crate) fn install(root: &Path) -> bool {
    let Some((manager, steps)) = MANAGERS
        .iter()
        .find(|(manager, _)| succeeds(manager, &["--version"]))
    else {
        let known: Vec<&str> = MANAGERS.iter().map(|(manager, _)| *manager).collect();
        eprintln!(
            "none of {} is here to install PostgreSQL with",
            known.join(", ")
        );
        return false;
    };
    let is_root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|out| out.stdout == b"0\n");
    commands(manager, steps, is_root)
        .iter()
        .all(|command| shown(root, command, &[]))
}

/// Homebrew refuses root; the others need it. `sudo -n` fails at once where it would ask for a
/// password, so that a build never waits for somebody to type.
fn commands<'a>(manager: &'a str, steps: &[&[&'a str]], is_root: bool) -> Vec<Vec<&'a str>> {
    let before: &[&str] = match manager {
        "brew" => &[],
        "apt-get" if is_root => &["env", "DEBIAN_FRONTEND=noninteractive"],
        "apt-get" => &["sudo", "-n", "env", "DEBIAN_FRONTEND=noninteractive"],
        _ if is_root => &[],
        _ => &["sudo", "-n"],
    };
    steps
        .iter()
        .map(|step| [before, &[manager], step].concat())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(manager: &str, is_root: bool) -> Vec<String> {
        let (manager, steps) = MANAGERS.iter().find(|(name, _)| *name == manager).unwrap();
        commands(manager, steps, is_root)
            .iter()
            .map(|command| command.join(" "))
            .collect()
    }

    #[test]
    fn only_those_who_are_not_root_use_sudo_and_it_never_asks() {
        assert_eq!(
            told("apk", true),
            ["apk add postgresql postgresql-client pgbouncer"]
        );
        assert_eq!(
            told("apk", false),
            ["sudo -n apk add postgresql postgresql-client pgbouncer"]
        );
        assert_eq!(
            told("brew", false),
            ["brew install postgresql@17 pgbouncer"]
        );
    }

    #[test]
    fn debian_is_asked_for_its_lists_first_and_asks_nothing_back() {
        let told = told("apt-get", false);
        assert_eq!(
            told[0],
            "sudo -n env DEBIAN_FRONTEND=noninteractive apt-get update"
        );
        assert!(
            told[1].contains("noninteractive apt-get install -y"),
            "{told:?}"
        );
    }

    #[test]
    fn an_incomplete_installation_is_passed_over() {
        let base = std::env::temp_dir().join(format!("xtask-postgres-{}", std::process::id()));
        let (half, full) = (base.join("9/bin"), base.join("17/bin"));
        for directory in [&half, &full] {
            std::fs::create_dir_all(directory).unwrap();
            std::fs::write(directory.join("initdb"), "").unwrap();
        }
        std::fs::write(full.join("postgres"), "").unwrap();
        let found = first_complete(&[half.clone(), full.clone()]);
        let newest_first = versions(&base, "", "bin");
        let expected = full.canonicalize().unwrap();
        std::fs::remove_dir_all(&base).unwrap();
        assert_eq!(found, Some(expected));
        assert_eq!(newest_first, [full, half]);
    }
}
