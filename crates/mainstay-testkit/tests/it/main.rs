//! The test kit against a real server.
#![allow(missing_docs, clippy::unwrap_used)]

mod cluster;
mod databases;
mod proxy;
