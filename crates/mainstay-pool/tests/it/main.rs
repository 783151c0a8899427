#![allow(missing_docs, clippy::unwrap_used)]
//! What the pool promises, one file per behaviour, in virtual time and without any database.

mod acquire;
mod background;
mod cancel;
mod close;
mod control;
mod faults;
mod lifetime;
mod limits;
mod model;
mod overload;
mod refusals;
mod script;
mod sharing;
mod threads;
