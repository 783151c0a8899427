//! Bulk data in the database's own format, in and out.
//!
//! Both directions are polled, not awaited, because what lies above them is a sink or a stream whose
//! user may be anywhere, and a boxed future a piece would cost more than the piece.

use crate::error::Report;
use crate::{Error, Kind, Result};
use bytes::Bytes;
use std::fmt::Debug;
use std::task::{Context, Poll};

/// Data on its way into the database. Dropped before it has finished, nothing of it happens.
pub trait CopySink: Send + Debug {
    /// Whether there is room for another piece. An error is the end; nothing of it has happened.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<()>>;

    /// Takes a piece; only after [`poll_ready`](Self::poll_ready) has answered.
    fn start_send(&mut self, piece: Bytes);

    /// Says that this was all, and answers the number of rows. From the first call on, a loss has an
    /// unknown outcome.
    fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<Result<u64>>;
}

/// Data on its way out of the database. Dropped before its end it leaves the connection dirty.
pub trait CopySource: Send + Debug {
    /// The next piece; `None` when all has come. Nothing follows an error.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes>>>;
}

/// The refusal of a database that has no such thing.
pub(super) fn not_supported() -> Error {
    Report::new(Kind::Config, "this database has no COPY")
        .remedy("insert many rows in one transaction, and read them with fetch")
        .into()
}
