//! The program as an operator meets it: the real binary, on a SQLite file and on a PostgreSQL server.

#![allow(missing_docs, clippy::unwrap_used)]

mod bad_input;
mod bed;
mod commands;
#[cfg(unix)]
mod interrupt;
mod machines;
mod migrations;
#[cfg(unix)]
mod reset;
#[cfg(unix)]
mod streams;
