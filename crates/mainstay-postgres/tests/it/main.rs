//! The backend against real servers, through the seam and nothing else.
#![allow(missing_docs, clippy::unwrap_used)]

mod batches;
mod connecting;
mod cursors;
mod dropped_futures;
mod fixture;
mod lanes;
mod losses;
mod operating;
mod statements;
mod tls_modes;
mod transactions;
mod values;
