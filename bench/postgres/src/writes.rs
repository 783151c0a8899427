//! Write transactions: begin, select, update, insert, commit, each on a random account.

use crate::effort::Effort;
use crate::peers::{self, Writer};
use crate::report::{Row, Turn, cpu, print};
use crate::server::{ROWS, Server};
use crate::{Failure, LIMIT};
use std::time::{Duration, Instant};

/// What the issue asks about; the limit of connections is ten as everywhere.
const CALLERS: usize = 50;

async fn crowd<W: Writer>(
    writer: &W,
    callers: usize,
    length: Duration,
) -> Result<Vec<u32>, Failure> {
    let end = Instant::now() + length;
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let writer = writer.clone();
            tokio::spawn(async move {
                let mut random = fastrand::Rng::new();
                // Small, so that what 5,000 callers write down is not what is measured.
                let mut latencies = Vec::with_capacity(32);
                let mut now = Instant::now();
                while now < end {
                    writer
                        .transfer(random.i32(1..=ROWS), random.i64(1..10))
                        .await?;
                    let done = Instant::now();
                    latencies.push(u32::try_from((done - now).as_micros()).unwrap_or(u32::MAX));
                    now = done;
                }
                Ok::<_, Failure>(latencies)
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await??);
    }
    Ok(all)
}

async fn turn<W: Writer>(writer: &W, effort: &Effort, server: &Server) -> Result<Turn, Failure> {
    crowd(writer, CALLERS, effort.turn / 5).await?;
    let (begun, cpu_before) = (Instant::now(), cpu());
    let latencies = crowd(writer, CALLERS, effort.turn).await?;
    let (took, used) = (begun.elapsed(), cpu() - cpu_before);
    let connections = server.connections().await?;
    if connections > LIMIT {
        return Err(format!("{connections} connections").into());
    }
    Ok(Turn::of(latencies, took, used, connections))
}

macro_rules! take_turn {
    ($rows:ident, $effort:ident, $server:ident, $name:literal, $open:expr) => {
        if $effort.wants($name) {
            let outcome = async {
                let writer = $open.await?;
                turn(&writer, $effort, &$server).await
            };
            let outcome: Result<Turn, Failure> = outcome.await;
            $server.is_empty().await?;
            peers::note(&mut $rows, $name, outcome);
        }
    };
}

/// One table.
pub async fn run(effort: &Effort) -> Result<(), Failure> {
    let server = Server::start(effort).await?;
    let mut rows: Vec<Row> = Vec::new();
    let url = server.url();
    for _ in 0..effort.rounds {
        take_turn!(
            rows,
            effort,
            server,
            "mainstay, closure",
            peers::mainstay::closure(url)
        );
        take_turn!(
            rows,
            effort,
            server,
            "mainstay, batch",
            peers::mainstay::batch(url)
        );
        take_turn!(rows, effort, server, "sqlx", peers::sqlx::open(url, true));
        take_turn!(
            rows,
            effort,
            server,
            "sqlx, no ping",
            peers::sqlx::open(url, false)
        );
        take_turn!(
            rows,
            effort,
            server,
            "deadpool-postgres Fast",
            peers::deadpool::open(url)
        );
    }
    let delay = effort.delay.unwrap_or_default();
    print(
        &format!(
            "Write transactions, {CALLERS} callers, network delay {delay:?} in each direction"
        ),
        &rows,
    );
    Ok(())
}
