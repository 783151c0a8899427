//! Hearing what others announce.
//!
//! A notification is gone once it has been sent: who was not there has missed it, and a connection
//! that was lost does not say what passed meanwhile. So what is heard is either a notification or
//! the fact that some were missed, and the end of the connection is an error.

use super::BoxFuture;
use crate::error::Report;
use crate::{Error, Kind, Result};
use std::fmt::Debug;

/// What somebody announced on a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notification {
    /// The channel.
    pub channel: String,
    /// What was said with it; empty if nothing was.
    pub payload: String,
    /// The server's process that announced it.
    pub process: i32,
}

impl Notification {
    /// A notification.
    pub fn new(channel: impl Into<String>, payload: impl Into<String>, process: i32) -> Self {
        Self {
            channel: channel.into(),
            payload: payload.into(),
            process,
        }
    }
}

/// What a connection heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Somebody announced something.
    Notification(Notification),
    /// So many notifications were dropped because nobody took them in time.
    Missed(u64),
}

/// A subscription of one connection.
pub trait Listening: Send + Debug {
    /// What is heard next. An error is the end of the connection.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    fn next(&mut self) -> BoxFuture<'_, Result<Heard>>;
}

/// The refusal of a database that has no such thing.
pub(super) fn not_supported() -> Error {
    Report::new(
        Kind::Config,
        "this database has no LISTEN: nothing tells one process what another has done",
    )
    .remedy("ask a table for what is new, or use PostgreSQL")
    .into()
}
