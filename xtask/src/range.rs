//! `cargo xtask sqlite-range`: the SQLite backend with the oldest and the newest rusqlite that the
//! manifest allows. The lock file knows one of them only, and a range nobody tries is a guess.
//!
//! It works on a copy of what git knows, so that neither the lock file nor the build directory of the
//! repository is touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::steps::{Steps, shown};

/// The tests that meet SQLite and nothing else.
const TESTS: [&[&str]; 2] = [
    &["test", "--package", "mainstay-sqlite"],
    &["test", "--package", "mainstay", "--test", "it", "sqlite"],
];

/// Tries both ends.
pub(crate) fn run(root: &Path) -> bool {
    let Some((oldest, before)) = range(root) else {
        eprintln!("Cargo.toml has no rusqlite with a version like \">=0.39, <0.42\"");
        return false;
    };
    let place = root.join("target").join("sqlite-range");
    let copy = place.join("copy");
    if let Err(error) = copy_of(root, &copy) {
        eprintln!(
            "the repository could not be copied to {}: {error}",
            copy.display()
        );
        return false;
    }
    let mut steps = Steps::default();
    let target = place.join("target");
    let target = target.to_string_lossy();
    for end in [format!("{oldest}.0"), format!("the newest before {before}")] {
        let is_oldest = end.starts_with(&oldest);
        steps.run(&format!("rusqlite {end}"), || {
            let mut update = vec!["cargo", "update", "--package", "rusqlite"];
            if is_oldest {
                update.extend(["--precise", &end]);
            }
            shown(&copy, &update, &[])
                && tells_which(&copy)
                && TESTS.iter().all(|test| {
                    let command: Vec<&str> = ["cargo"].iter().chain(*test).copied().collect();
                    shown(&copy, &command, &[("CARGO_TARGET_DIR", &target)])
                })
        });
    }
    steps.finish()
}

/// The two ends of the range in the workspace's manifest: `0.39` and `0.42`.
fn range(root: &Path) -> Option<(String, String)> {
    let manifest = fs::read_to_string(root.join("Cargo.toml")).ok()?;
    let line = manifest
        .lines()
        .find(|line| line.starts_with("rusqlite = "))?;
    ends(line)
}

fn ends(line: &str) -> Option<(String, String)> {
    let (_, rest) = line.split_once("\">=")?;
    let (oldest, rest) = rest.split_once(", <")?;
    let (before, _) = rest.split_once('"')?;
    Some((oldest.to_owned(), before.to_owned()))
}

/// Says which versions the tests are about to meet.
fn tells_which(copy: &Path) -> bool {
    let names = ["rusqlite", "libsqlite3-sys"];
    let lock = fs::read_to_string(copy.join("Cargo.lock")).unwrap_or_default();
    let found = names.map(|name| version(&lock, name));
    for (name, version) in names.iter().zip(&found) {
        println!("{name} {}", version.unwrap_or("is not in the lock file"));
    }
    found.iter().all(Option::is_some)
}

/// The version of a package in a lock file.
fn version<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    rest.split_once('"').map(|(version, _)| version)
}

/// Copies every file that git knows or would know; what is no longer there is removed from an older
/// copy. Unchanged files keep their time, so that a second run builds only what is new.
fn copy_of(root: &Path, copy: &Path) -> std::io::Result<()> {
    let listed = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root)
        .output()?;
    if !listed.status.success() {
        return Err(std::io::Error::other("git does not know this directory"));
    }
    let names = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut kept: Vec<PathBuf> = Vec::new();
    for name in names.split('\0').filter(|name| !name.is_empty()) {
        let (from, to) = (root.join(name), copy.join(name));
        if !from.is_file() {
            continue; // removed, but git has not been told yet
        }
        if let Some(directory) = to.parent() {
            fs::create_dir_all(directory)?;
        }
        let contents = fs::read(&from)?;
        if fs::read(&to).ok().as_ref() != Some(&contents) {
            fs::write(&to, contents)?;
        }
        kept.push(to);
    }
    kept.sort();
    remove_others(copy, &kept)
}

fn remove_others(directory: &Path, kept: &[PathBuf]) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            remove_others(&path, kept)?;
        } else if kept.binary_search(&path).is_err() {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_are_those_of_the_manifest() {
        let line = "rusqlite = { version = \">=0.39, <0.42\", default-features = false }";
        assert_eq!(ends(line), Some(("0.39".into(), "0.42".into())));
        assert_eq!(ends("rusqlite = \"0.41\""), None);
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        assert!(range(&root).is_some());
    }

    #[test]
    fn the_version_of_a_package_is_found_in_the_lock_file() {
        let lock = "[[package]]\nname = \"rusqlite\"\nversion = \"0.39.0\"\n";
        assert_eq!(version(lock, "rusqlite"), Some("0.39.0"));
        assert_eq!(version(lock, "sqlite"), None);
    }
}
