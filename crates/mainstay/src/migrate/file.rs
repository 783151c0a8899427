//! Migration files: their names, their order, their checksums.

use mainstay_core::backend::System;
use mainstay_core::error::Report;
use mainstay_core::{Error, Kind, Result};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// One migration: its number, its name and its texts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Migration {
    /// The number that the file's name begins with.
    pub version: i64,
    /// The name, without number and ending.
    pub name: String,
    common: Option<String>,
    sqlite: Option<String>,
    postgres: Option<String>,
}

impl Migration {
    /// The text for a system: its own, else the common one.
    ///
    /// # Errors
    ///
    /// [`Kind::Migration`] when there is neither.
    pub fn text(&self, system: System) -> Result<&str> {
        let own = match system {
            System::Sqlite => &self.sqlite,
            System::Postgres => &self.postgres,
            _ => &None,
        };
        own.as_deref().or(self.common.as_deref()).ok_or_else(|| {
            let (name, infix) = (self.title(), system.file_infix());
            let message = format!("the migration {name} has no text for {}", system.as_str());
            Report::new(Kind::Migration, message)
                .remedy(format!("add {name}.sql or {name}.{infix}.sql"))
                .into()
        })
    }

    /// Whether a text was written for this system only.
    pub(super) fn has_own(&self, system: System) -> bool {
        match system {
            System::Sqlite => self.sqlite.is_some(),
            System::Postgres => self.postgres.is_some(),
            _ => false,
        }
    }

    /// Number and name, as in the file's name.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{:04}_{}", self.version, self.name)
    }

    /// SHA-256 of the text with line ends as `\n`, so that a checkout on another system is the same
    /// file.
    pub(super) fn checksum(&self, system: System) -> Result<String> {
        let text = self.text(system)?.replace("\r\n", "\n");
        let digest = Sha256::digest(text.as_bytes());
        Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// The migrations of an application, in the order of their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Migrations(Vec<Migration>);

impl Migrations {
    /// Reads the `.sql` files of a directory. The seed (`seed.sql`, `seed.sqlite.sql`,
    /// `seed.postgres.sql`) may lie there too and is left out.
    ///
    /// # Errors
    ///
    /// [`Kind::Migration`] when the directory cannot be read or a name does not fit.
    pub fn from_dir(directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref();
        let unreadable = |path: &Path, cause: std::io::Error| -> Error {
            let message = format!("{} cannot be read", path.display());
            Report::new(Kind::Migration, message)
                .source(cause)
                .remedy("name the directory of the migrations with --migrations")
                .into()
        };
        let entries = std::fs::read_dir(directory).map_err(|e| unreadable(directory, e))?;
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.map_err(|e| unreadable(directory, e))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            if is_migration(name) && path.is_file() {
                let text = std::fs::read_to_string(&path).map_err(|e| unreadable(&path, e))?;
                files.push((name.to_owned(), text));
            }
        }
        Self::from_files(files)
    }

    /// Takes the `.sql` files of an embedded directory; see
    /// [`embed_migrations!`](crate::embed_migrations!).
    ///
    /// # Errors
    ///
    /// As [`from_dir`](Self::from_dir).
    pub fn from_embedded(directory: &include_dir::Dir<'_>) -> Result<Self> {
        let files = directory.files().filter_map(|file| {
            let name = file.path().file_name()?.to_str()?;
            is_migration(name).then_some((name.to_owned(), file.contents()))
        });
        let texts = files.map(|(name, bytes)| match std::str::from_utf8(bytes) {
            Ok(text) => Ok((name, text.to_owned())),
            Err(cause) => Err(Report::new(Kind::Migration, format!("{name} is not UTF-8"))
                .source(cause)
                .into()),
        });
        Self::from_files(texts.collect::<Result<Vec<_>>>()?)
    }

    /// Takes names and texts.
    ///
    /// # Errors
    ///
    /// [`Kind::Migration`] when a name does not fit or two files claim one number.
    pub fn from_files(files: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let mut migrations: BTreeMap<i64, Migration> = BTreeMap::new();
        for (file, text) in files {
            let (version, name, system) = parse_name(&file).ok_or_else(|| misnamed(&file))?;
            let migration = migrations.entry(version).or_insert_with(|| Migration {
                version,
                name: name.to_owned(),
                common: None,
                sqlite: None,
                postgres: None,
            });
            let slot = match system {
                None => &mut migration.common,
                Some(System::Sqlite) => &mut migration.sqlite,
                Some(_) => &mut migration.postgres,
            };
            if migration.name != name || slot.is_some() {
                let message = format!("two migrations have the number {version}");
                let remedy = format!("give {file} another number");
                return Err(Report::new(Kind::Migration, message).remedy(remedy).into());
            }
            *slot = Some(text);
        }
        Ok(Self(migrations.into_values().collect()))
    }

    /// First to last.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Migration> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether a file is meant to be a migration, well named or not.
fn is_migration(file: &str) -> bool {
    let seed = matches!(file, "seed.sql" | "seed.sqlite.sql" | "seed.postgres.sql");
    file.ends_with(".sql") && !seed
}

/// Number, name and system of `NNNN_name[.sqlite|.postgres].sql`.
fn parse_name(file: &str) -> Option<(i64, &str, Option<System>)> {
    let stem = file.strip_suffix(".sql")?;
    let (stem, system) = match stem.rsplit_once('.') {
        Some((stem, "sqlite")) => (stem, Some(System::Sqlite)),
        Some((stem, "postgres")) => (stem, Some(System::Postgres)),
        Some(_) => return None,
        None => (stem, None),
    };
    let (number, name) = stem.split_once('_')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let version = number.parse().ok().filter(|_| is_number)?;
    (!name.is_empty()).then_some((version, name, system))
}

fn misnamed(file: &str) -> Error {
    Report::new(
        Kind::Migration,
        format!("{file} is no name for a migration"),
    )
    .remedy("call it NNNN_name.sql, NNNN_name.sqlite.sql or NNNN_name.postgres.sql")
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Result<Migrations> {
        Migrations::from_files(
            names
                .iter()
                .map(|name| ((*name).to_owned(), (*name).to_owned())),
        )
    }

    #[test]
    fn migrations_are_ordered_by_number_and_not_by_name() {
        let migrations = files(&["10_b.sql", "9_a.sql"]).unwrap();
        let titles: Vec<_> = migrations.iter().map(Migration::title).collect();
        assert_eq!(titles, ["0009_a", "0010_b"]);
    }

    #[test]
    fn a_system_s_own_text_takes_the_place_of_the_common_one() {
        let migrations = files(&["1_a.sql", "1_a.sqlite.sql"]).unwrap();
        let migration = migrations.iter().next().unwrap();
        assert_eq!(migration.text(System::Sqlite).unwrap(), "1_a.sqlite.sql");
        assert_eq!(migration.text(System::Postgres).unwrap(), "1_a.sql");
    }

    #[test]
    fn a_missing_text_is_an_error_that_names_the_file_to_add() {
        let migrations = files(&["1_a.sqlite.sql"]).unwrap();
        let error = migrations
            .iter()
            .next()
            .unwrap()
            .text(System::Postgres)
            .unwrap_err();
        assert!(error.to_string().contains("0001_a.postgres.sql"), "{error}");
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        for name in [
            "a.sql",
            "1.sql",
            "1_.sql",
            "1_a.mysql.sql",
            "-1_a.sql",
            "x1_a.sql",
        ] {
            assert!(files(&[name]).is_err(), "{name}");
        }
        assert!(files(&["1_a.sql", "1_b.sql"]).is_err());
        assert!(files(&["1_a.sql", "01_a.sql"]).is_err());
    }

    #[test]
    fn a_seed_beside_the_migrations_is_none_of_them() {
        for (file, expected) in [
            ("seed.sql", false),
            ("seed.sqlite.sql", false),
            ("seeds.sql", true),
            ("a.txt", false),
        ] {
            assert_eq!(is_migration(file), expected, "{file}");
        }
    }

    #[test]
    fn line_ends_do_not_change_the_checksum() {
        let one = |text: &str| {
            let files = [("1_a.sql".to_owned(), text.to_owned())];
            let migrations = Migrations::from_files(files).unwrap();
            migrations
                .iter()
                .next()
                .unwrap()
                .checksum(System::Sqlite)
                .unwrap()
        };
        assert_eq!(one("a\r\nb"), one("a\nb"));
        assert_ne!(one("a\nb"), one("a\nc"));
    }
}
