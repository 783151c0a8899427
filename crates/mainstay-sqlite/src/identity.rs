//! Whether a path still leads to the file that was opened.
//!
//! A file that is deleted or replaced while it is open goes on living for those who have it open:
//! their writes succeed and are gone with the process. SQLite notices that only without a
//! write-ahead log. So the file's identity is noted when it is opened, and compared when a
//! connection is checked, before a transaction that writes, and before another connection is
//! opened: two of one pool must never be connections to two files, and a file that was lost must not
//! come back empty.

use mainstay_core::error::Report;
use mainstay_core::{Class, Error, Evidence, Kind, Result};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// What tells two files apart, whatever their names.
type Identity = (u64, u64);

/// The file that is open.
#[derive(Debug, Default)]
pub(crate) struct Opened(Mutex<Option<Identity>>);

impl Opened {
    /// Notes the file that was opened.
    pub(crate) fn note(&self, path: &Path) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = identity(path);
    }

    /// Whether the file has been open before.
    pub(crate) fn is_noted(&self) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    /// Says so if the path leads nowhere or elsewhere. Before anything was opened it may.
    pub(crate) fn check(&self, path: &Path, shown: &str) -> Result<()> {
        let opened = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (opened, identity(path)) {
            (Some(_), None) => Err(lost(format!(
                "{shown} was moved or deleted while it was open"
            ))),
            (Some(opened), Some(found)) if opened != found => Err(lost(format!(
                "{shown} was replaced by another file while it was open"
            ))),
            _ => Ok(()),
        }
    }
}

fn lost(message: String) -> Error {
    Report::new(Kind::Storage, message)
        // It may be put back, so asking again can help.
        .class(Class::NotSent)
        .evidence(Evidence::Silent)
        .remedy("put the file back, or start the program again")
        .into()
}

#[cfg(unix)]
fn identity(path: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// Elsewhere an open file can be neither deleted nor replaced.
#[cfg(not(unix))]
fn identity(path: &Path) -> Option<Identity> {
    std::fs::metadata(path).ok().map(|_| (0, 0))
}
