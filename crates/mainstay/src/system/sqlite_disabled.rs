//! Without SQLite.

use crate::database::not_built_in;
use mainstay_core::backend::Backend;
use mainstay_core::config::SqliteTarget;
use mainstay_core::{Config, Result};
use std::sync::Arc;

pub(super) fn backend(_: &Config, _: &SqliteTarget) -> Result<Arc<dyn Backend>> {
    Err(not_built_in("sqlite"))
}
