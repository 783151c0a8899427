//! Most tests need a database, not a server. They share one cluster per process, and each gets a
//! database of its own, so that no test sees what another one wrote.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Cluster, Error, Result, off_the_runtime, quoted};

/// Ends with the process: the keeper sees the pipe close.
static CLUSTER: OnceLock<Result<Cluster, String>> = OnceLock::new();

/// The cluster that all tests of this process share; started by the first that asks.
///
/// Nobody may stop, pause or reconfigure it: that takes a [`Cluster::start`] of one's own.
///
/// # Errors
///
/// Those of [`Cluster::start`], the same for everybody who asks.
///
/// # Cancel safety
///
/// A start goes on without the one who asked for it; the next one gets it.
pub async fn shared_cluster() -> Result<Cluster> {
    off_the_runtime(shared).await
}

/// A fresh database on the shared cluster.
///
/// # Errors
///
/// Those of [`shared_cluster`].
///
/// # Cancel safety
///
/// The database is made and dropped again by the thread that makes it.
pub async fn database() -> Result<TestDatabase> {
    off_the_runtime(|| shared()?.test_database()).await
}

fn shared() -> Result<Cluster> {
    let started = CLUSTER.get_or_init(|| Cluster::start().map_err(|error| format!("{error:?}")));
    started.clone().map_err(Error::new)
}

/// A database that is dropped with this value, with whoever is still connected to it.
#[derive(Debug)]
pub struct TestDatabase {
    cluster: Cluster,
    name: String,
}

impl Cluster {
    /// A fresh database on this cluster.
    ///
    /// # Errors
    ///
    /// Those of [`Cluster::psql`].
    pub fn test_database(&self) -> Result<TestDatabase> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{}_{number}", std::process::id());
        self.create_database(&name)?;
        Ok(TestDatabase {
            cluster: self.clone(),
            name,
        })
    }
}

impl TestDatabase {
    /// `postgres://user:password@127.0.0.1:port/name`
    pub fn url(&self) -> String {
        self.cluster.url_for(&self.name)
    }

    /// The database's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster it lives on.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Runs SQL in it; see [`Cluster::psql`].
    ///
    /// # Errors
    ///
    /// When `psql` fails, with what it wrote.
    pub fn psql(&self, sql: &str) -> Result<String> {
        self.cluster.psql_in(&self.name, sql)
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let sql = format!(
            "drop database if exists {} with (force)",
            quoted(&self.name)
        );
        self.cluster.psql(&sql).ok(); // best effort: it goes with the cluster at the latest
    }
}
