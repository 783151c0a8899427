//! Ten warm connections: how long until all of them are open.

use crate::effort::Effort;
use crate::report::median;
use crate::server::Server;
use crate::{Failure, LIMIT};
use mainstay::Database;
use sqlx::postgres::PgPoolOptions;
use std::time::Instant;

/// One table: one connection, ten by mainstay, ten by sqlx.
pub async fn run(effort: &Effort) -> Result<(), Failure> {
    let server = Server::start(effort).await?;
    let url = server.url();
    let mut took: [Vec<f64>; 3] = Default::default();
    for _ in 0..effort.rounds.max(5) {
        for (index, connections) in [(0, 1), (1, LIMIT)] {
            let begun = Instant::now();
            let db = Database::builder(url)
                .connection_limit(LIMIT)
                .min_connections(connections)
                .open()
                .await?;
            took[index].push(begun.elapsed().as_secs_f64() * 1e3);
            let open = server.connections().await?;
            if open != connections {
                return Err(format!("{open} connections instead of {connections}").into());
            }
            db.close().await;
            server.is_empty().await?;
        }
        let begun = Instant::now();
        let pool = PgPoolOptions::new()
            .max_connections(LIMIT as u32)
            .min_connections(LIMIT as u32)
            .connect(url)
            .await?;
        while (pool.size() as usize) < LIMIT || pool.num_idle() < LIMIT {
            tokio::task::yield_now().await;
        }
        took[2].push(begun.elapsed().as_secs_f64() * 1e3);
        pool.close().await;
        server.is_empty().await?;
    }
    let [one, ten, theirs] = took.map(median);
    println!(
        "### Opening, delay {:?} in each direction\n",
        effort.delay.unwrap_or_default()
    );
    println!("| | ms | of sqlx | of one |\n|---|---|---|---|");
    println!("| mainstay, one | {one:.1} | | 1.00 |");
    println!(
        "| mainstay, ten | {ten:.1} | {:.2} | {:.2} |",
        ten / theirs,
        ten / one
    );
    println!("| sqlx, ten | {theirs:.1} | 1.00 | {:.2} |\n", theirs / one);
    Ok(())
}
