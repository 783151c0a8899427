//! The HTTP side's laws: on a scripted backend where the database must be away, on SQLite where it
//! must answer.

#![allow(missing_docs, clippy::unwrap_used)]

mod away;
mod extractors;
mod http;
mod layer;
mod problems;
mod routes;
