//! With PostgreSQL.

use mainstay_core::backend::Backend;
use mainstay_core::config::PostgresTarget;
use mainstay_core::{Config, Result};
use mainstay_postgres::Postgres;
use std::sync::Arc;

pub(super) fn backend(config: &Config, target: &PostgresTarget) -> Result<Arc<dyn Backend>> {
    Ok(Arc::new(Postgres::new(config, target)?))
}
