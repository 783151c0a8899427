//! What a parameter is, and how one is found.
//!
//! Parsing, suggestions, environment variables and the documentation all read the one table
//! [`PARAMETERS`], so a parameter cannot be parsed and undocumented, or documented and ignored.

use super::form::Form;
use super::suggest;
use crate::backend::System;
use std::fmt::Write as _;

pub use super::table::PARAMETERS;

/// What other pools call our parameters, where the spelling alone would suggest the wrong one.
const ELSEWHERE: &[(&str, &str)] = &[
    ("acquire_timeout", "pool_timeout"),
    ("idle_timeout", "max_idle_connection_lifetime"),
    ("max_connections", "connection_limit"),
    ("max_lifetime", "max_connection_lifetime"),
    ("max_pool_size", "connection_limit"),
    ("maximum_pool_size", "connection_limit"),
    ("min_pool_size", "min_connections"),
    ("minimum_idle", "min_connections"),
    ("pool_max", "connection_limit"),
    ("pool_min", "min_connections"),
    ("pool_size", "connection_limit"),
    ("query_timeout", "timeout"),
];

/// One parameter of the URL.
#[derive(Debug)]
#[non_exhaustive]
pub struct Parameter {
    /// Its name in the URL.
    pub name: &'static str,
    /// For which database it means something.
    pub applies: Applies,
    /// The default, as it would be written in the URL; `-` where there is none.
    pub default: &'static str,
    /// The environment variable that overrides it, where there is one.
    pub environment: Option<&'static str>,
    /// What it does.
    pub meaning: &'static str,
    /// Why the default is what it is.
    pub reason: &'static str,
    pub(super) form: Form,
}

/// For which database a parameter means something.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Applies {
    /// For either.
    Both,
    /// For PostgreSQL.
    Postgres,
    /// For SQLite.
    Sqlite,
}

impl Applies {
    /// Whether it means something for this system.
    #[must_use]
    pub fn to(self, system: System) -> bool {
        match self {
            Self::Both => true,
            Self::Postgres => system == System::Postgres,
            Self::Sqlite => system == System::Sqlite,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Postgres => "PostgreSQL",
            Self::Sqlite => "SQLite",
        }
    }
}

impl Parameter {
    /// The form and unit of its value, in words.
    #[must_use]
    pub fn unit(&self) -> String {
        self.form.describe()
    }

    pub(super) fn named(name: &str) -> Option<&'static Self> {
        PARAMETERS.iter().find(|parameter| parameter.name == name)
    }

    /// The parameter that an unknown name was meant to be, with at most so many slips.
    pub(super) fn meant_by(name: &str, farthest: usize) -> Option<&'static Self> {
        let plain = suggest::fold(name);
        if let Some((_, ours)) = ELSEWHERE.iter().find(|(theirs, _)| *theirs == plain) {
            return Self::named(ours);
        }
        let names = PARAMETERS.iter().map(|parameter| parameter.name);
        suggest::nearest(name, names, farthest).and_then(Self::named)
    }
}

/// The table of all parameters in Markdown, as the documentation shows it.
#[must_use]
pub fn parameters_in_markdown() -> String {
    let mut table = String::from(
        "| Parameter | Variable | Database | Value | Default | Meaning | Why this default |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for parameter in PARAMETERS {
        let variable = parameter
            .environment
            .map_or_else(|| "-".to_owned(), |v| format!("`{v}`"));
        writeln!(
            table,
            "| `{}` | {variable} | {} | {} | {} | {} | {} |",
            parameter.name,
            parameter.applies.name(),
            parameter.unit(),
            parameter.default,
            parameter.meaning,
            parameter.reason,
        )
        .expect("a String takes any text");
    }
    table
}
