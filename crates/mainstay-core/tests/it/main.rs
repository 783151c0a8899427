//! What the common language promises, seen from outside.
#![allow(missing_docs, clippy::unwrap_used)]

mod config_bad_input;
mod config_documentation;
mod config_parameters;
mod config_properties;
mod config_tls;
mod config_urls;
mod config_variables;

use mainstay_core::config::{PostgresTarget, SqliteTarget, Target};
use mainstay_core::{Config, Kind};

const POSTGRES: &str = "postgres://app:hunter2@db.internal:6543/shop";
const SQLITE: &str = "file:./dev.db";

/// The configuration that a URL gives.
#[track_caller]
fn config(url: &str) -> Config {
    match Config::from_url(url) {
        Ok(config) => config,
        Err(error) => panic!("{url}: {error}"),
    }
}

/// The message with which a URL is refused.
#[track_caller]
fn refusal(url: &str) -> String {
    match Config::from_url(url) {
        Ok(_) => panic!("{url} was accepted"),
        Err(error) => {
            assert_eq!(error.kind(), Kind::Config, "{url}: {error}");
            assert!(
                !error.to_string().contains('\n'),
                "{url}: more than one line: {error}"
            );
            error.to_string()
        }
    }
}

#[track_caller]
fn postgres(url: &str) -> PostgresTarget {
    match config(url).target {
        Target::Postgres(target) => target,
        other => panic!("{url} gave {other}"),
    }
}

#[track_caller]
fn sqlite(url: &str) -> SqliteTarget {
    match config(url).target {
        Target::Sqlite(target) => target,
        other => panic!("{url} gave {other}"),
    }
}
