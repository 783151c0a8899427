//! Which backends were built in. A feature chooses a file, so that no function has two bodies.

use mainstay_core::backend::Backend;
use mainstay_core::config::Target;
use mainstay_core::error::Report;
use mainstay_core::{Config, Kind, Result};
use std::sync::Arc;

#[cfg_attr(feature = "postgres", path = "postgres_enabled.rs")]
#[cfg_attr(not(feature = "postgres"), path = "postgres_disabled.rs")]
mod postgres;
#[cfg_attr(feature = "sqlite", path = "sqlite_enabled.rs")]
#[cfg_attr(not(feature = "sqlite"), path = "sqlite_disabled.rs")]
mod sqlite;

/// The backend for a configuration.
pub(crate) fn backend(config: &Config) -> Result<Arc<dyn Backend>> {
    match &config.target {
        Target::Postgres(target) => postgres::backend(config, target),
        Target::Sqlite(target) => sqlite::backend(config, target),
        other => Err(Report::new(Kind::Config, format!("there is no backend for {other}")).into()),
    }
}
