//! From what was typed to what is meant: everything that can be wrong without asking the database is
//! found here, before anything is opened.

use crate::args::{Args, Command};
use crate::failure::{Failure, Result};
use mainstay::Config;
use mainstay::config::{Host, PostgresTarget, SqlitePath, Target};
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};

/// What will be done, and where.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) config: Config,
    pub(crate) place: Place,
    pub(crate) migrations: PathBuf,
    pub(crate) task: Task,
}

/// What will be done.
#[derive(Debug)]
pub(crate) enum Task {
    Check,
    Init,
    Status { exact: bool },
    Deploy,
    Reset { force: bool, skip_seed: bool },
    Seed { file: Option<PathBuf> },
    Backup { to: PathBuf, force: bool },
}

impl Task {
    /// The command's name, as typed.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Init => "init",
            Self::Status { .. } => "status",
            Self::Deploy => "deploy",
            Self::Reset { .. } => "reset",
            Self::Seed { .. } => "seed",
            Self::Backup { .. } => "backup",
        }
    }
}

/// Which database, for people: without user and password.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Place {
    /// `postgresql` or `sqlite`.
    pub(crate) system: &'static str,
    /// The database's name; on SQLite the file's.
    pub(crate) name: String,
    /// The hosts, or the path.
    pub(crate) at: String,
    /// The schema that is searched first, where one was configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) schema: Option<String>,
}

impl Plan {
    /// Understands the arguments and the environment, which is handed in.
    pub(crate) fn new(args: Args, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let url = args
            .global
            .url
            .filter(|url| !url.is_empty())
            .ok_or_else(Failure::no_url)?;
        let mut config = Config::from_url(&url)?;
        config.apply_variables(variable)?;
        let task = task(args.command);
        if !matches!(task, Task::Check) {
            // One connection is enough for a command; a busy server has no others to spare.
            config.min_connections = 0;
        }
        let place = Place::of(&config.target);
        Ok(Self {
            config,
            place,
            migrations: args.global.migrations,
            task,
        })
    }

    /// The SQLite file, if it is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        match &self.config.target {
            Target::Sqlite(target) => match &target.path {
                SqlitePath::File(path) => Some(path),
                _ => None,
            },
            _ => None,
        }
    }
}

fn task(command: Command) -> Task {
    match command {
        Command::Check => Task::Check,
        Command::Init => Task::Init,
        Command::Status(status) => Task::Status {
            exact: status.exact,
        },
        Command::Deploy => Task::Deploy,
        Command::Reset(reset) => Task::Reset {
            force: reset.force,
            skip_seed: reset.skip_seed,
        },
        Command::Seed(seed) => Task::Seed { file: seed.file },
        Command::Backup(backup) => Task::Backup {
            to: backup.file,
            force: backup.force,
        },
    }
}

impl Place {
    fn of(target: &Target) -> Self {
        let system = target.system().as_str();
        match target {
            Target::Postgres(PostgresTarget {
                hosts,
                database,
                schema,
                ..
            }) => {
                let hosts: Vec<String> = hosts.iter().map(Host::to_string).collect();
                let schema = schema.clone();
                Self {
                    system,
                    name: database.clone(),
                    at: hosts.join(","),
                    schema,
                }
            }
            Target::Sqlite(target) => match &target.path {
                SqlitePath::File(path) => {
                    let name = path.file_name().unwrap_or(path.as_os_str());
                    let name = name.to_string_lossy().into_owned();
                    Self {
                        system,
                        name,
                        at: path.display().to_string(),
                        schema: None,
                    }
                }
                SqlitePath::Memory => Self::elsewhere(system, ":memory:".to_owned()),
                _ => Self::elsewhere(system, Target::Sqlite(target.clone()).to_string()),
            },
            other => Self::elsewhere(system, other.to_string()),
        }
    }

    fn elsewhere(system: &'static str, at: String) -> Self {
        Self {
            system,
            name: at.clone(),
            at,
            schema: None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.system {
            "postgresql" => write!(f, "PostgreSQL \"{}\"", self.name)?,
            "sqlite" if self.at == ":memory:" => return f.write_str("SQLite in memory"),
            "sqlite" => return write!(f, "SQLite file {}", self.at),
            other => write!(f, "{other} \"{}\"", self.name)?,
        }
        if let Some(schema) = &self.schema {
            write!(f, ", schema \"{schema}\",")?;
        }
        write!(f, " at {}", self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn plan(url: &str) -> Result<Plan> {
        let args = Args::try_parse_from(["mainstay", "--url", url, "deploy"]).unwrap();
        Plan::new(args, |_| None)
    }

    #[test]
    fn the_place_is_told_without_secrets() {
        let shown = [
            (
                "postgres://app:hunter2@db.internal/shop",
                r#"PostgreSQL "shop" at db.internal:5432"#,
            ),
            (
                "postgres://app:hunter2@db:6000/shop?schema=sales",
                r#"PostgreSQL "shop", schema "sales", at db:6000"#,
            ),
            ("file:./dev.db", "SQLite file ./dev.db"),
            ("file::memory:", "SQLite in memory"),
        ];
        for (url, expected) in shown {
            assert_eq!(plan(url).unwrap().place.to_string(), expected);
        }
    }

    #[test]
    fn the_variables_refine_the_url() {
        let url = "file:./a.db?connection_limit=5";
        let args = Args::try_parse_from(["mainstay", "--url", url, "check"]).unwrap();
        let variable = |name: &str| match name {
            "DB_CONNECTION_LIMIT" => Some("7".to_owned()),
            _ => None,
        };
        let plan = Plan::new(args, variable).unwrap();
        assert_eq!(plan.place.at, "./a.db");
        assert_eq!(plan.config.connection_limit, 7);
    }

    #[test]
    fn only_a_check_opens_the_minimum() {
        let url = "file:./a.db?min_connections=3";
        assert_eq!(plan(url).unwrap().config.min_connections, 0);
        let args = Args::try_parse_from(["mainstay", "--url", url, "check"]).unwrap();
        assert_eq!(Plan::new(args, |_| None).unwrap().config.min_connections, 3);
    }

    #[test]
    fn a_wrong_url_is_found_before_anything_is_opened() {
        let failure = plan("mysql://app:hunter2@db/shop").unwrap_err();
        assert_eq!((failure.kind, failure.exit.code()), ("config", 2));
        assert!(!format!("{failure:?}").contains("hunter2"));
    }
}
