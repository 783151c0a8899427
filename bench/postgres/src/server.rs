//! The server that all share: a cluster of its own, 10,000 accounts, statistics up to date.

use crate::Failure;
use crate::effort::Effort;
use mainstay_testkit::cluster::Cluster;
use mainstay_testkit::proxy::Proxy;

/// Rows in `accounts`.
pub const ROWS: i32 = 10_000;

/// A running server and the way to it.
pub struct Server {
    pub cluster: Cluster,
    _proxy: Option<Proxy>,
    url: String,
}

impl Server {
    /// Starts it. Commits are written through to the disk, as everywhere in earnest.
    pub async fn start(effort: &Effort) -> Result<Self, Failure> {
        let cluster = tokio::task::spawn_blocking(|| {
            let cluster = Cluster::builder()
                .durable()
                .setting("shared_buffers", "128MB")
                .setting("autovacuum", "off")
                .start()?;
            cluster.psql(&format!(
                "create table accounts (id int primary key, name text not null, balance bigint not null);
                 insert into accounts select n, 'account ' || n, 1000 from generate_series(1, {ROWS}) n;
                 create table movements (id bigint generated always as identity primary key,
                     account int not null, amount bigint not null)"
            ))?;
            cluster.psql("vacuum analyze accounts")?;
            Ok::<_, mainstay_testkit::cluster::Error>(cluster)
        })
        .await??;
        let mut proxy = None;
        let mut url = if effort.socket {
            cluster.socket_url()
        } else {
            cluster.url()
        };
        if let Some(delay) = effort.delay {
            let between = Proxy::start(("127.0.0.1", cluster.port())).await?;
            between.latency(delay);
            url = between.rewrite(&cluster.url());
            proxy = Some(between);
        }
        Ok(Self {
            cluster,
            _proxy: proxy,
            url,
        })
    }

    /// Where to connect to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How many clients are connected, as the server counts them.
    pub async fn connections(&self) -> Result<usize, Failure> {
        let count =
            "select count(*) - 1 from pg_stat_activity where backend_type = 'client backend'";
        let text = self.cluster.run(|cluster| cluster.psql(count)).await?;
        Ok(text.trim().parse()?)
    }

    /// Waits until the peer before has gone.
    pub async fn is_empty(&self) -> Result<(), Failure> {
        while self.connections().await? > 0 {
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}
