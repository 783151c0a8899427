//! With SQLite.

use mainstay_core::backend::Backend;
use mainstay_core::config::SqliteTarget;
use mainstay_core::{Config, Result};
use mainstay_sqlite::Sqlite;
use std::sync::Arc;

pub(super) fn backend(config: &Config, target: &SqliteTarget) -> Result<Arc<dyn Backend>> {
    Ok(Arc::new(Sqlite::new(config, target)?))
}
