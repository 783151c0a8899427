//! A pool for things that can break.
//!
//! A pool that only counts permits is not enough for connections to a database: they are opened by
//! something that may hang, die while nobody looks, come back in the middle of a transaction, and
//! count at the server until it has really let go. This crate lends such things under a hard limit,
//! in the order in which callers came, within one deadline per call, and says why when it cannot. It
//! knows no SQL, retries no statement and opens no socket: a [`Connector`] does.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | connection | what is lent; opened, judged, checked, cleaned and closed by the [`Connector`] |
//! | lease | the exclusive use of one connection; returns it when dropped |
//! | place | the shared use of one connection, beside others; leaves when dropped |
//! | slot | the right to have one connection, held from the first attempt to open it until it is gone |
//! | tag | a setting a connection was last used with; preferred when lending, never required |
//! | deadline | the instant that bounds everything one acquire does |
//! | upkeep | the background care: idle timeout, lifetime, minimum, pacing, long holds |
//! | generation | connections opened before a failover belong to an older one and are not lent again |
//! | shed | to refuse a waiter early because it could not be served in time |
//!
//! # Example
//!
//! ```
//! use std::convert::Infallible;
//! use std::time::Duration;
//!
//! use mainstay_pool::{CloseReason, Condition, Connector, Pool, Tag};
//! use tokio::time::Instant;
//!
//! struct Numbers;
//!
//! impl Connector for Numbers {
//!     type Connection = u32;
//!     type Error = Infallible;
//!
//!     async fn connect(&self, _: Tag) -> Result<u32, Infallible> {
//!         Ok(7)
//!     }
//!     fn condition(&self, _: &u32) -> Condition {
//!         Condition::Clean
//!     }
//!     async fn check(&self, _: &mut u32) -> Result<(), Infallible> {
//!         Ok(())
//!     }
//!     async fn clean(&self, _: &mut u32) -> Result<(), Infallible> {
//!         Ok(())
//!     }
//!     async fn close(&self, _: u32, _: CloseReason) {}
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pool = Pool::builder(Numbers).limit(2).build();
//! let lease = pool.acquire(Instant::now() + Duration::from_secs(1)).await?;
//! assert_eq!(*lease, 7);
//! assert_eq!(pool.status().lent, 1);
//! drop(lease); // returned: no I/O, no task
//! assert_eq!(pool.status().idle, 1);
//! assert!(pool.close(Duration::from_secs(1)).await.is_clean());
//! # Ok(())
//! # }
//! ```
//!
//! # Reading order
//!
//! `connector` (what a backend must know), `slots` and `waiters` (the two halves of the state),
//! `ledger` (every decision about lending), `opening`, `sharing`, `tend`, `shed` and `control` (its
//! decisions about opening, about places, by time, under overload and on command), `orders` (what it wants done),
//! `lender` and `errands` (doing it), `acquire`, `lease` and `place` (what callers hold), `upkeep`, `phases` (warming, pausing,
//! closing), `pool` and `builder` (the face), `settings`, `status`, `error`, `observer` (words).

mod connector;
mod lock;
mod slots;
mod waiters;

mod ledger;
#[cfg(test)]
mod ledger_tests;

mod control;
mod opening;
mod sharing;
mod shed;
mod tend;

mod errands;
mod lender;
mod orders;

mod acquire;
mod lease;
mod phases;
mod place;
mod upkeep;

mod builder;
mod pool;
mod quick;

mod error;
mod observer;
mod settings;
mod status;

pub use builder::Builder;
pub use connector::{CloseReason, Condition, Connector, Tag};
pub use error::{AcquireError, Cause, ShedReason};
pub use lease::Lease;
pub use observer::{Event, Observer};
pub use phases::CloseReport;
pub use place::Place;
pub use pool::Pool;
pub use settings::Shedding;
pub use status::{Holder, Status, Totals};
pub use waiters::{Priority, Request};
