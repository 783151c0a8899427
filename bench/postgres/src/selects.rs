//! Point selects: every caller asks for one row after the other, at random.

use crate::effort::Effort;
use crate::peers::{self, Peer};
use crate::report::{Row, Turn, cpu, print};
use crate::server::{ROWS, Server};
use crate::{Failure, LIMIT, pgbench};
use std::time::Instant;

/// Asks with this many callers until the time is over.
pub async fn turn<P: Peer>(
    peer: &P,
    callers: usize,
    effort: &Effort,
    server: &Server,
) -> Result<Turn, Failure> {
    // Everybody has prepared and every connection is open before the clock starts.
    crowd(peer, callers, effort.turn / 5).await?;
    let (begun, cpu_before) = (Instant::now(), cpu());
    let latencies = crowd(peer, callers, effort.turn).await?;
    let (took, used) = (begun.elapsed(), cpu() - cpu_before);
    let connections = server.connections().await?;
    if connections > LIMIT {
        return Err(format!("{connections} connections").into());
    }
    Ok(Turn::of(latencies, took, used, connections))
}

async fn crowd<P: Peer>(
    peer: &P,
    callers: usize,
    length: std::time::Duration,
) -> Result<Vec<u32>, Failure> {
    let end = Instant::now() + length;
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let peer = peer.clone();
            tokio::spawn(async move {
                let mut random = fastrand::Rng::new();
                // Small, so that what 5,000 callers write down is not what is measured.
                let mut latencies = Vec::with_capacity(32);
                let mut now = Instant::now();
                while now < end {
                    let id = random.i32(1..=ROWS);
                    let found = peer.select(id).await?;
                    if found != (id, 1_000) {
                        return Err(Failure::from("a wrong row"));
                    }
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

macro_rules! take_turn {
    ($rows:ident, $effort:ident, $server:ident, $callers:ident, $name:literal, $open:expr) => {
        if $effort.wants($name) {
            let outcome = async {
                let peer = $open.await?;
                turn(&peer, $callers, $effort, &$server).await
            };
            let outcome: Result<Turn, Failure> = outcome.await;
            $server.is_empty().await?;
            peers::note(&mut $rows, $name, outcome);
        }
    };
}

/// One table for each number of callers.
pub async fn run(effort: &Effort) -> Result<(), Failure> {
    let server = Server::start(effort).await?;
    let way = if effort.socket { "Unix socket" } else { "TCP" };
    if let Some(work) = effort.work {
        peers::keep_busy(work);
    }
    for &callers in &effort.callers {
        let mut rows: Vec<Row> = Vec::new();
        let url = server.url();
        for _ in 0..effort.rounds {
            take_turn!(
                rows,
                effort,
                server,
                callers,
                "mainstay",
                peers::mainstay::open(url, false)
            );
            take_turn!(
                rows,
                effort,
                server,
                callers,
                "mainstay, a lease each",
                peers::mainstay::open(url, true)
            );
            take_turn!(
                rows,
                effort,
                server,
                callers,
                "sqlx",
                peers::sqlx::open(url, true)
            );
            take_turn!(
                rows,
                effort,
                server,
                callers,
                "sqlx, no ping",
                peers::sqlx::open(url, false)
            );
            take_turn!(
                rows,
                effort,
                server,
                callers,
                "deadpool-postgres Fast",
                peers::deadpool::open(url)
            );
            take_turn!(
                rows,
                effort,
                server,
                callers,
                "bb8-postgres",
                peers::bb8::open(url)
            );
            if effort.work.is_none() {
                take_turn!(
                    rows,
                    effort,
                    server,
                    callers,
                    "diesel-async",
                    peers::diesel::open(url)
                );
            }
            take_turn!(
                rows,
                effort,
                server,
                callers,
                "tokio-postgres, one client",
                peers::raw::open(url)
            );
            if effort.wants("pgbench") && effort.work.is_none() {
                let outcome = pgbench::turn(&server, callers, effort).await;
                peers::note(&mut rows, "pgbench -M prepared", outcome);
            }
        }
        print(&format!("Point selects, {callers} callers, {way}"), &rows);
    }
    Ok(())
}
