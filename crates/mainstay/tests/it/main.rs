//! The facade's laws: on a scripted backend where time and failures must be exact, on both real
//! databases where they must be true.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod amplification;
mod books;
mod breaker;
mod cancelled;
mod close;
mod conformance;
mod copying;
mod credentials;
mod dead_peers;
mod deadlines;
mod dropped;
mod exactly_once;
#[cfg(all(feature = "sqlite", target_os = "linux"))]
mod failed_sync;
mod failover;
mod gate_metrics;
mod gates;
mod ledger;
mod listen;
mod outage;
mod plans;
mod pooler;
mod postgres;
mod processes;
mod read_only;
mod replicas;
mod restart;
mod retry;
mod round_trips;
mod run;
mod script;
mod send;
mod sharing;
mod silence;
mod sqlite;
mod storms;
