//! The log, on standard error: text for people, JSON for machines.

use crate::config::Log;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Sets the process's log up. A filter that cannot be read is told in the log and replaced by
/// `info`: nobody wants a shop that is closed because of a typing error in `RUST_LOG`.
pub(crate) fn install(log: &Log) {
    let (filter, complaint) = match EnvFilter::try_new(&log.filter) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if log.json {
        builder.json().init();
    } else {
        let colours = std::io::stderr().is_terminal();
        builder.with_ansi(colours).compact().init();
    }
    if let Some(error) = complaint {
        tracing::warn!(%error, "RUST_LOG cannot be read; logging at info");
    }
}
