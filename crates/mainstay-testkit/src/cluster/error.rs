//! A test that could not get its server must say why in the one place where people look: the
//! output of the failed test. The message therefore carries the tail of the server's log.

use std::fmt;

/// Why a cluster could not do what was asked.
pub struct Error {
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What the methods of a cluster return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            source: None,
        }
    }

    /// For `map_err`: says what was being done when `source` came up.
    pub(super) fn during<E>(what: impl fmt::Display) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let message = what.to_string();
        move |source| Self {
            message,
            source: Some(source.into()),
        }
    }

    pub(super) fn with_log(mut self, log: &str) -> Self {
        if log.is_empty() {
            self.message.push_str("\nthe server's log is empty");
        } else {
            self.message.push_str("\nthe end of the server's log:\n");
            self.message.push_str(log);
        }
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The sentences themselves, with their causes, so that `unwrap()` in a test prints them readably.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
