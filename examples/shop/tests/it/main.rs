//! The shop's promises, each asked over HTTP of the real program: on SQLite and on PostgreSQL the
//! same requests, and only the variable differs.

#![allow(missing_docs, clippy::unwrap_used)]

mod bookings;
mod load;
mod service;
mod shop;
mod start;
mod stop;
