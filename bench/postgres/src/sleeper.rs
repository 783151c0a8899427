//! A `pg_sleep` of five seconds among point selects: what it does to the others.

use crate::effort::Effort;
use crate::peers::{self, Peer};
use crate::report::Turn;
use crate::server::{ROWS, Server};
use crate::{Failure, LIMIT};
use mainstay::Database;
use std::time::{Duration, Instant};

/// Selects offered in a second, whether or not the earlier ones have been answered.
const RATE: f64 = 10_000.0;
const SLEEP: Duration = Duration::from_secs(5);

async fn offered<P: Peer>(peer: &P) -> Result<Turn, Failure> {
    let begun = Instant::now();
    let mut calls = Vec::new();
    let mut number = 0.0;
    while begun.elapsed() < SLEEP {
        // A millisecond's worth of arrivals at a time: the timer is no finer.
        tokio::time::sleep(Duration::from_millis(1)).await;
        while number < begun.elapsed().as_secs_f64() * RATE {
            number += 1.0;
            let peer = peer.clone();
            calls.push(tokio::spawn(async move {
                let asked = Instant::now();
                peer.select(fastrand::i32(1..=ROWS)).await?;
                let us = u32::try_from(asked.elapsed().as_micros()).unwrap_or(u32::MAX);
                Ok::<_, Failure>(us)
            }));
        }
    }
    let mut latencies = Vec::with_capacity(calls.len());
    for call in calls {
        latencies.push(call.await??);
    }
    Ok(Turn::of(latencies, begun.elapsed(), Duration::ZERO, LIMIT))
}

/// Three turns each: without a sleeper, and with one that is new to mainstay every time.
pub async fn run(effort: &Effort) -> Result<(), Failure> {
    let server = Server::start(effort).await?;
    println!("### A sleeper of {SLEEP:?} among {RATE} selects a second\n");
    println!("| | calls/s | p50 ms | p99 ms | worst ms |\n|---|---|---|---|---|");
    let db = Database::builder(server.url())
        .connection_limit(LIMIT)
        .open()
        .await?;
    let peer = peers::mainstay::of(db.clone());
    offered(&peer).await?;
    for round in 0..effort.rounds {
        let alone = offered(&peer).await?;
        print("alone", &alone);
        let text = format!("select pg_sleep({}) as round_{round}", SLEEP.as_secs());
        let (beside, slept) = tokio::join!(
            offered(&peer),
            db.fetch_all::<mainstay::Row>(&text, ()).into_future()
        );
        slept?;
        let beside = beside?;
        print("with a sleeper", &beside);
        println!("| ratio of p99 | | | {:.2} | |", beside.p99 / alone.p99);
    }
    println!();
    Ok(())
}

fn print(name: &str, turn: &Turn) {
    let Turn {
        per_second,
        p50,
        p99,
        worst,
        ..
    } = turn;
    println!("| {name} | {per_second:.0} | {p50:.2} | {p99:.2} | {worst:.1} |");
}
