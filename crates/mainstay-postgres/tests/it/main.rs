//! The backend against real servers, through the seam and nothing else.
#![allow(missing_docs, clippy::unwrap_used)]

mod batches;
mod conditions;
mod connecting;
mod cursors;
mod dropped_futures;
mod failure_table;
mod fixture;
mod lanes;
mod losses;
mod opening;
mod operating;
mod scripted;
mod sharing;
mod sqlstates;
mod statements;
mod timeouts;
mod tls_modes;
mod transactions;
mod values;
