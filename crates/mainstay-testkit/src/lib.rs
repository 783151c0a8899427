//! A test against a pretended database proves that the pretence works. This crate makes the real
//! thing cheap enough for every test: a PostgreSQL server of its own in about a second, gone with
//! the test process however that ends, and a wire in front of it that can be cut at any byte.
//!
//! * [`cluster`]: throw-away PostgreSQL clusters, and a fresh database for each test.
//! * [`proxy`]: a TCP proxy that refuses, stalls, delays and cuts.
//! * [`conformance`]: the laws that hold on every backend, each with a saboteur that breaks it.
//! * [`wait_for`]: the one place where a test may poll.
//! * [`poll_times`]: drops a future in the middle, at every place where it can be dropped.
//!
//! ```no_run
//! # async fn example() -> Result<(), mainstay_testkit::cluster::Error> {
//! let database = mainstay_testkit::database().await?;
//! println!("{}", database.url()); // postgres://postgres:…@127.0.0.1:21034/test_1234_0
//! # Ok(())
//! # }
//! ```

pub mod cluster;
pub mod conformance;
pub mod proxy;

mod polls;
mod port;
mod wait;

pub use cluster::{Cluster, Pooler, TestDatabase, database, shared_cluster};
pub use polls::poll_times;
pub use proxy::Proxy;
pub use wait::{TimedOut, wait_for, wait_for_blocking};
